"""Weights as codes compute what their rounded values compute, everywhere, and nothing else changes."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mm import Pipeline
from mm.environment import Memory
from mm.errors import OptionError, TaskError, WeightsError
from mm.families.table import load_model, save_pretrained
from mm.hub import find_config
from mm.language.moe import MoE
from mm.language.packing import KINDS, pack, packed_linear, unpack
from mm.language.quantized import QuantizedExperts, QuantizedLinear
from mm.out_of_memory import load_message
from mm.transforms.fuse import fuse, unfuse
from mm.transforms.quantize import KEPT, check_quantization, quantize
from mm.transforms.split import weight_bytes
from mm.weights import KeyMap, save_weights
from tests.language.tiny import VARIANTS, decoder
from tests.transforms.test_fuse import run

kinds = pytest.mark.parametrize("kind", KINDS)


def rounded_weight(weight, kind):
    return unpack(*pack(weight, kind), weight.shape[-1], weight.dtype)


@torch.no_grad()
def rounded(model, kind):
    """A decoder with the values that its weights are rounded to, in their own type."""
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        for name, module in layer.named_modules():
            if type(module) is torch.nn.Linear and not name.endswith(KEPT):
                module.weight.copy_(rounded_weight(module.weight, kind))
            if isinstance(module, MoE):
                for parameter in module.experts.parameters():
                    parameter.copy_(rounded_weight(parameter, kind))
    return model


def test_an_int8_weight_is_at_most_half_a_step_off():
    weight = torch.randn(5, 7, 300)
    weight[2, 3] = 0
    values, scale = pack(weight, "int8")
    assert values.dtype == torch.int8 and scale.dtype == torch.float32
    assert ((values * scale.unsqueeze(-1) - weight).abs() <= scale.unsqueeze(-1) * 0.5001).all()
    assert values.abs().amax() == 127 and not values[2, 3].any()


def test_an_fp8_weight_is_at_most_a_sixteenth_of_itself_off():
    weight = torch.randn(5, 7, 300)
    weight[2, 3] = 0
    values, scale = pack(weight, "fp8")
    assert values.dtype == torch.float8_e4m3fn and values.float().abs().amax() == 448
    error = (unpack(values, scale, 300, torch.float32) - weight).abs()
    assert (error <= (weight.abs() / 16).maximum(scale.unsqueeze(-1) * 2.0**-10) * 1.0001).all()
    assert not values[2, 3].float().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_fp8_code_is_its_number(dtype):
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    codes = codes[codes.float().isfinite()].unsqueeze(0)
    assert codes.shape[1] == 254
    assert torch.equal(unpack(codes, torch.ones(1), 254, dtype), codes.to(dtype))


@pytest.mark.parametrize("width", [32, 40, 300])
def test_an_int4_weight_takes_half_a_byte_and_is_off_by_an_eighth_of_its_group_at_most(width):
    weight = torch.randn(5, 7, width)
    weight[2, 3] = 0
    values, scale = pack(weight, "int4")
    groups = -(-width // 32)
    assert values.dtype == torch.uint8 and values.shape == (5, 7, 16 * groups)
    assert scale.dtype == torch.bfloat16 and scale.shape == (5, 7, groups)
    found = unpack(values, scale, width, torch.float32)
    assert not found[2, 3].any()
    padded = torch.nn.functional.pad(found - weight, (0, -width % 32)).unflatten(-1, (-1, 32)).abs().amax(-1)
    largest = torch.nn.functional.pad(weight, (0, -width % 32)).unflatten(-1, (-1, 32)).abs().amax(-1)
    assert (padded <= largest * 0.24).all()  # where the largest weight is cut off
    assert (found - weight).norm() / weight.norm() < 0.09


def test_int4_scales_are_chosen_for_the_least_error():
    weight = torch.randn(64, 256)
    groups = weight.unflatten(-1, (-1, 32))
    step = groups.abs().amax(-1, keepdim=True) / 7
    plain = (groups / step).round().clamp(-8, 7) * step
    found = rounded_weight(weight, "int4")
    assert (found - weight).norm() < 0.93 * (plain.flatten(-2) - weight).norm()


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_in_each_type(dtype, kind):
    x, weight = torch.randn(3, 2048).to(dtype) * 20, torch.randn(8, 2048) * 3
    codes, scale = pack(weight, kind)
    expected = x.float() @ unpack(codes, scale, 2048, torch.float32).T
    found = packed_linear(x, codes, scale, torch.ones(8, dtype=dtype))
    assert found.dtype == dtype and found.isfinite().all()
    assert (found.float() - 1 - expected).norm() / expected.norm() < {torch.float32: 1e-5}.get(dtype, 1e-2)


def test_int4_weights_are_made_wide_block_by_block(monkeypatch):
    x, weight = torch.randn(2, 5, 96), torch.randn(26, 96)
    codes, scale = pack(weight, "int4")
    bias = torch.randn(26)
    whole = packed_linear(x, codes, scale, bias)
    monkeypatch.setattr("mm.language.packing.WIDE_NUMBERS", 7 * 96)
    torch.testing.assert_close(packed_linear(x, codes, scale, bias), whole)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("fused", [True, False])
@kinds
def test_a_decoder_computes_what_its_rounded_weights_compute(name, fused, kind):
    model = decoder(name)
    expected = run(rounded(model, kind))
    if fused:
        fuse(model)
    before = sum(parameter.nbytes for parameter in model.model.layers.parameters())
    quantize(model, kind)
    torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)
    kept = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in [*model.model.layers.buffers()]}
    assert sum(kept.values()) < 0.45 * before
    linears = [m for n, m in model.model.layers.named_modules() if type(m) is torch.nn.Linear and not n.endswith(KEPT)]
    assert linears == [] and model.quantization == kind
    quantize(model, kind)  # what is rounded stays
    unfuse(model)
    torch.testing.assert_close(run(model), expected, atol=1e-4, rtol=1e-4)


@kinds
@pytest.mark.parametrize("form", ["grouped", "gathered", "every", "dense"])
def test_every_form_of_the_experts(form, kind):
    model = decoder("gqa-moe")
    moe = model.model.layers[1].mlp
    plain, experts = rounded(model, kind).model.layers[1].mlp.experts, QuantizedExperts(moe.experts, kind)
    x = torch.randn(9, 32)
    indices, weights = moe.gate(x)
    expected = plain.grouped(x, indices, weights)
    torch.testing.assert_close(getattr(experts, form)(x, indices, weights), expected, atol=1e-5, rtol=1e-5)


def bytes_held(model):
    """Of all tensors that the modules and their common products refer to, each once."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        joint = getattr(module, "joint", None)
        if isinstance(joint, torch.Tensor):
            tensors.append(joint)
        elif joint is not None:
            tensors += [part for part in (joint.weight, joint.scale, joint.bias) if part is not None]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("name", ["gqa-moe", "mla-lora-yarn-noaux"])
def test_a_model_goes_to_another_type_whole_and_codes_stay_codes(name, kind):
    model = decoder(name)
    fuse(model)
    if kind is not None:
        quantize(model, kind)
    expected, held = run(model), bytes_held(model)
    owners = [name for name, part in model.named_modules() if isinstance(part, QuantizedLinear | QuantizedExperts)]
    codes = {name: b.clone() for name, b in model.named_buffers() if name.rpartition(".")[0] in owners}
    assert bool(codes) == (kind is not None)
    wide = model.double()
    assert all(torch.equal(dict(wide.named_buffers())[name].float(), code.float()) for name, code in codes.items())
    assert all(dict(wide.named_buffers())[name].dtype == code.dtype for name, code in codes.items())
    model = wide.float()
    attention = model.model.layers[1].self_attn
    assert attention.joint.holds(attention.joined)  # made anew where the layers are now
    assert bytes_held(model) == held  # and nothing is kept of where they were
    torch.testing.assert_close(run(model), expected)
    same = attention.joint
    model.to(torch.float32)
    assert attention.joint is same


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_model_goes_to_a_gpu_and_back(kind):
    model = decoder("gqa-moe")
    fuse(model)
    if kind is not None:
        quantize(model, kind)
    expected, held = run(model), bytes_held(model)
    attention = model.to("cuda").model.layers[1].self_attn
    assert attention.joint.holds(attention.joined) and attention.joint.weight.is_cuda
    assert bytes_held(model) == held
    cache = model.new_cache(2, 24)
    generator = torch.Generator().manual_seed(1)
    found = model(torch.randn(2, 9, 32, generator=generator).cuda(), cache=cache)
    torch.testing.assert_close(found.cpu(), expected[:, :9], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(model.to("cpu")), expected)


def test_the_path_of_kernels_is_not_used_where_the_weights_have_gone():
    model = decoder("mha-dense")
    model.path = path = object()
    model.float()
    assert model.path is path
    model.double()
    assert model.path is None


def test_what_is_no_quantization_or_another_one_is_refused():
    with pytest.raises(OptionError, match="quantization is 'int3'; use one of int8, fp8, int4, or None"):
        check_quantization("int3")
    check_quantization(None)
    check_quantization("fp8", torch.device("cpu"))
    with pytest.raises(OptionError, match="'fp8' has no type on mps. Use one of int8, int4, or --device cpu"):
        check_quantization("fp8", torch.device("mps"))
    model = decoder("mha-dense")
    quantize(model, "int8")
    with pytest.raises(OptionError, match="these weights are int8 already and cannot become int4. Load them again"):
        quantize(model, "int4")


@kinds
def test_the_pipeline_takes_it_as_an_option(golden: Callable[[str], Path], tmp_path: Path, kind) -> None:
    folder = golden("deepseek_vl2_small") / "checkpoint"
    pipe = Pipeline.from_pretrained(folder, device="cpu", quantization=kind)
    assert isinstance(pipe.model.decoder.model.layers[0].self_attn.o_proj, QuantizedLinear)
    assert len(pipe.chat(None, "Hello", max_new_tokens=4).token_ids) == 4
    with pytest.raises(TaskError, match=f"weights in {kind} cannot be written .* Load the model without quantization"):
        save_pretrained(pipe.model, tmp_path, source=folder)
    assert not any(tmp_path.iterdir())
    with pytest.raises(WeightsError, match=r"decoder.model.layers.*weight.* cannot be written in the published layout"):
        save_weights(pipe.model, tmp_path, KeyMap(), dtype=torch.float32, max_shard_bytes=10**9, source=None)
    assert not any(tmp_path.iterdir())
    codes = sum(buffer.nbytes for buffer in pipe.model.buffers())
    assert codes > 0 and weight_bytes(pipe.model) == codes + sum(p.nbytes for p in pipe.model.parameters())


def test_a_fused_model_is_saved_as_it_was_published(golden: Callable[[str], Path], tmp_path: Path) -> None:
    folder = golden("deepseek_vl2_small") / "checkpoint"
    files = []
    for fused in (False, True):
        model = load_model(folder, device="cpu", dtype="float32")
        if fused:
            assert fuse(model) > 0
        save_pretrained(model, tmp_path / str(fused), source=folder, dtype=torch.float32)
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(fused)).iterdir()})
    assert files[0] == files[1]
    assert any(name.endswith(".safetensors") for name in files[0])


def test_what_would_fit_is_told_when_memory_ends_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cpu = find_config("deepseek-ai/deepseek-vl2-tiny").folder, torch.device("cpu")

    def told(free, dtype=torch.bfloat16, kind=None):
        monkeypatch.setattr("mm.out_of_memory.device_memory", lambda _: Memory(10**11, int(free * 2**30)))
        return load_message("tiny", folder, cpu, dtype, kind)

    assert told(5) == (
        "out of memory while loading tiny on cpu: its weights take 6.2 GiB in bfloat16, 5.0 GiB are free. What would "
        "fit: quantization='int8' (3.8 GiB)."
    )
    assert told(7, torch.float32).endswith("What would fit: dtype='bfloat16' (6.2 GiB).")
    assert told(3, torch.float32).endswith("What would fit: dtype='bfloat16', quantization='int4' (2.8 GiB).")
    assert "take 3.8 GiB in bfloat16 and int8, 3.0 GiB are free. What would fit: quantization='int4'" in told(
        3, kind="int8"
    )
    assert told(1).endswith("Free some memory, or use a smaller model: 'mm plan MODEL' says what each needs.")
