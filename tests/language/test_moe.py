"""Routing by its published rules, and three forms of one product."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mm.errors import ConfigError
from mm.language.moe import MoE, choose_form, grouped_is_static
from tests.language.tiny import moe

METHODS = [("greedy", "softmax", 1), ("group_limited_greedy", "softmax", 4), ("noaux_tc", "sigmoid", 2)]


def layer(method: str, scoring: str, groups: int) -> MoE:
    torch.manual_seed(1)
    built = MoE(32, moe(method, scoring, groups=groups)).requires_grad_(False)
    if method == "noaux_tc":
        built.gate.e_score_correction_bias.normal_()
    return built.eval()


@pytest.mark.parametrize(("method", "scoring", "groups"), METHODS)
def test_output_is_the_weighted_sum_over_the_chosen_experts(method: str, scoring: str, groups: int) -> None:
    module = layer(method, scoring, groups)
    x = torch.randn(5, 7, 32)
    flat = x.flatten(0, 1)
    indices, weights = module.gate(flat)
    expected = torch.zeros_like(flat)
    experts = module.experts
    for token in range(flat.shape[0]):
        for expert, weight in zip(indices[token].tolist(), weights[token], strict=True):
            hidden = F.silu(experts.gate_proj[expert] @ flat[token]) * (experts.up_proj[expert] @ flat[token])
            expected[token] += weight * (experts.down_proj[expert] @ hidden)
    expected = expected.view_as(x) + module.shared_experts(x)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("method", "scoring", "groups"), METHODS)
@pytest.mark.parametrize("form", ["gathered", "every", "dense"])
def test_every_form_is_the_same_function(method: str, scoring: str, groups: int, form: str) -> None:
    module = layer(method, scoring, groups)
    x = torch.randn(9, 32)
    routing = module.gate(x)
    torch.testing.assert_close(
        getattr(module.experts, form)(x, *routing), module.experts.grouped(x, *routing), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("tokens", "on_host", "static", "decoding", "form"),
    [
        (1, True, False, True, "grouped"),  # the CPU
        (500, True, False, False, "grouped"),
        (1, False, True, True, "grouped"),  # bfloat16 on an H100 or H200
        (16, False, True, True, "grouped"),
        (500, False, True, False, "grouped"),
        (1, False, False, True, "gathered"),  # float32 there, or another GPU: 18 weights moved, not 64
        (3, False, False, True, "gathered"),
        (4, False, False, True, "every"),
        (16, False, False, True, "every"),
        (300, False, False, True, "every"),
        (4, False, False, False, "grouped"),  # a prompt may wait for the host
        (500, False, False, False, "grouped"),
    ],
)
def test_the_form_suits_device_type_and_number_of_tokens(
    tokens: int, on_host: bool, static: bool, decoding: bool, form: str
) -> None:
    chosen = choose_form(tokens=tokens, per_token=6, num_experts=64, on_host=on_host, static=static, decoding=decoding)
    assert chosen == form


def test_the_grouped_product_of_the_cpu_is_not_taken_for_static() -> None:
    assert not grouped_is_static(torch.device("cpu"), torch.bfloat16)
    assert not grouped_is_static(torch.device("mps"), torch.bfloat16)


def test_every_expert_reads_nothing_back_and_copies_no_weight() -> None:
    module = layer("greedy", "softmax", 1)
    x = torch.randn(4, 32)
    routing = module.gate(x)
    largest, names = 0, set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            names.add(str(func))
            if not func._schema.returns[0].alias_info:  # new memory
                largest = max(largest, out.numel())
            return out

    with torch.inference_mode(), Record():
        module.experts.every(x, *routing)
    assert largest < module.experts.gate_proj.numel()
    assert not [name for name in names if any(wait in name for wait in ("item", "nonzero", "local_scalar"))]


def test_an_expert_that_overflows_and_is_not_chosen_leaves_no_trace() -> None:
    module = layer("greedy", "softmax", 1)
    x = torch.randn(2, 32)
    indices, weights = module.gate(x)
    expected = module.experts.every(x, indices, weights)
    unused = min(set(range(8)) - set(indices.flatten().tolist()))
    module.experts.down_proj[unused] = torch.inf
    torch.testing.assert_close(module.experts.every(x, indices, weights), expected)


def test_correction_bias_chooses_but_does_not_weigh() -> None:
    module = layer("noaux_tc", "sigmoid", 2)
    module.gate.e_score_correction_bias.zero_()
    module.gate.e_score_correction_bias[5] = 10.0
    x = torch.randn(20, 32)
    indices, weights = module.gate(x)
    assert (indices == 5).any(dim=1).all()
    scores = (x @ module.gate.weight.T).sigmoid().gather(1, indices)
    torch.testing.assert_close(weights, 1.5 * scores / scores.sum(dim=1, keepdim=True))


def test_groups_limit_the_choice() -> None:
    module = layer("group_limited_greedy", "softmax", 4)
    indices, _ = module.gate(torch.randn(50, 32))
    groups = indices // 2
    assert max(len(set(row)) for row in groups.tolist()) <= 2


def test_load_is_counted_in_training_only() -> None:
    module = layer("greedy", "softmax", 1)
    x = torch.randn(6, 32)
    module(x)
    assert module.gate.load.sum() == 0
    module.train()
    module(x)
    assert module.gate.load.sum() == 6 * 3


def test_gradients_reach_router_and_experts_in_every_form() -> None:
    for dispatch in ("auto", "dense"):
        module = layer("noaux_tc", "sigmoid", 2)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("bias" not in name)
        module.dispatch = dispatch
        module(torch.randn(30, 32)).square().mean().backward()
        for name, parameter in module.named_parameters():
            if "bias" not in name:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("width", "inner"), [(34, 16), (32, 1407)])
def test_sizes_that_the_grouped_product_cannot_take_are_refused_before_any_work(width: int, inner: int) -> None:
    config = replace(moe(), expert_width=inner)
    with pytest.raises(ConfigError, match=f"experts are {inner} wide on a hidden size of {width}; .* multiples of 4"):
        MoE(width, config)


def test_sizes_of_float32_are_refused_in_a_narrower_type() -> None:
    module = MoE(36, replace(moe(), expert_width=20))
    assert module(torch.randn(1, 30, 36)).shape == (1, 30, 36)
    with pytest.raises(ConfigError, match=r"20 wide on a hidden size of 36; .* multiples of 8.* use --dtype float32"):
        module.bfloat16()(torch.randn(1, 30, 36, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_smallest_sizes_run_in_every_type(dtype: torch.dtype) -> None:
    module = MoE(8, replace(moe(), expert_width=8)).to(dtype).eval()
    for tokens in (1, 9):
        x = torch.randn(tokens, 8, dtype=dtype)
        assert module(x).shape == x.shape
