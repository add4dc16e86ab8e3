"""Weights of one byte compute what their rounded values compute, everywhere, and nothing else changes."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mm import Pipeline
from mm.errors import OptionError, TaskError
from mm.families.table import load_model, save_pretrained
from mm.language.int8 import Int8Experts, Int8Linear, int8_linear, to_int8
from mm.language.moe import MoE
from mm.transforms.fuse import fuse
from mm.transforms.quantize import KEPT, quantize
from tests.language.tiny import VARIANTS, decoder
from tests.transforms.test_fuse import run


@torch.no_grad()
def rounded(model):
    """A decoder with the values that its weights are rounded to, in their own type."""
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        for name, module in layer.named_modules():
            if type(module) is torch.nn.Linear and not name.endswith(KEPT):
                weight, scale = to_int8(module.weight)
                module.weight.copy_(weight * scale[:, None])
            if isinstance(module, MoE):
                for parameter in module.experts.parameters():
                    weight, scale = to_int8(parameter)
                    parameter.copy_(weight * scale.unsqueeze(-1))
    return model


def test_a_weight_is_at_most_half_a_step_off():
    weight = torch.randn(5, 7, 300)
    weight[2, 3] = 0
    values, scale = to_int8(weight)
    assert values.dtype == torch.int8 and scale.dtype == torch.float32
    assert ((values * scale.unsqueeze(-1) - weight).abs() <= scale.unsqueeze(-1) * 0.5001).all()
    assert values.abs().amax() == 127 and not values[2, 3].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_in_each_type(dtype):
    x, (weight, scale) = torch.randn(3, 2048).to(dtype) * 20, to_int8(torch.randn(8, 2048) * 3)
    expected = x.float() @ (weight * scale[:, None]).T
    found = int8_linear(x, weight, scale, torch.ones(8, dtype=dtype))
    assert found.dtype == dtype and found.isfinite().all()
    assert (found.float() - 1 - expected).norm() / expected.norm() < {torch.float32: 1e-5}.get(dtype, 1e-2)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("fused", [True, False])
def test_a_decoder_computes_what_its_rounded_weights_compute(name, fused):
    model = decoder(name)
    expected = run(rounded(model))
    if fused:
        fuse(model)
    before = sum(parameter.nbytes for parameter in model.model.layers.parameters())
    quantize(model)
    torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)
    kept = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in [*model.model.layers.buffers()]}
    assert sum(kept.values()) < 0.45 * before
    linears = [m for n, m in model.model.layers.named_modules() if type(m) is torch.nn.Linear and not n.endswith(KEPT)]
    assert linears == [] and model.quantization == "int8"
    quantize(model)  # what is rounded stays
    torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", ["grouped", "gathered", "every", "dense"])
def test_every_form_of_the_experts(form):
    model = decoder("gqa-moe")
    moe = model.model.layers[1].mlp
    plain, experts = rounded(model).model.layers[1].mlp.experts, Int8Experts(moe.experts)
    x = torch.randn(9, 32)
    indices, weights = moe.gate(x)
    expected = plain.grouped(x, indices, weights)
    torch.testing.assert_close(getattr(experts, form)(x, indices, weights), expected, atol=1e-5, rtol=1e-5)


def test_the_pipeline_takes_it_as_an_option(golden: Callable[[str], Path], tmp_path: Path) -> None:
    folder = golden("deepseek_vl2_small") / "checkpoint"
    with pytest.raises(OptionError, match="quantization is 'int3'; use 'int8', or None"):
        Pipeline.from_pretrained(folder, quantization="int3")
    pipe = Pipeline.from_pretrained(folder, device="cpu", quantization="int8")
    assert isinstance(pipe.model.decoder.model.layers[0].self_attn.o_proj, Int8Linear)
    assert len(pipe.chat(None, "Hello", max_new_tokens=4).token_ids) == 4
    with pytest.raises(TaskError, match="weights in int8 cannot be written .* Load the model without quantization"):
        save_pretrained(pipe.model, tmp_path, source=folder)
    assert not any(tmp_path.iterdir())
    save_pretrained(load_model(folder, device="cpu", dtype="float32"), tmp_path, source=folder)
