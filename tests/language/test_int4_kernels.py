"""Every kernel of int4 codes against the plain function that it equals, and a whole quantised step against the modules.

On a machine without CUDA they run in Triton's interpreter (``tests/triton_kernels.py``).
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mm.devices import exact_inputs
from mm.language.packing import FP8_ROWS, KINDS, multiplies_fp8, pack, packed_linear, unpack
from mm.transforms.kernels import deviation, use_kernels
from mm.transforms.quantize import quantize
from tests.language.test_decode_kernels import close, numbers, suited
from tests.triton_kernels import DEVICE, INTERPRETED, on_gpu, run_in_interpreter, runs, starts_interpreter

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

if DEVICE == "cuda" or INTERPRETED:
    kernels = pytest.importorskip("mm.language.decode_kernels")
    from mm.language import int4_kernels
    from mm.language.fast_decode import FastDecode


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@runs
@pytest.mark.parametrize("width", [96, 1100])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6, 17])
def test_products_of_few_rows(rows, width):
    x, bias = numbers(rows, width), numbers(26)
    weight, scale = pack(numbers(26, width, scale=0.1), "int4")
    close(int4_kernels.linear(x, weight, bias, scale), kernels.linear_plain(x, weight, bias, scale))
    close(int4_kernels.linear(x, weight, None, scale), kernels.linear_plain(x, weight, None, scale))
    if rows <= kernels.MAX_ROWS:
        close(int4_kernels.gated(x, weight, scale), kernels.gated_plain(x, weight, scale))


@runs
@pytest.mark.parametrize("rows,extra", [(1, True), (4, False), (6, True), (17, False)])
def test_experts(rows, extra):
    joint, first = pack(numbers(6, 96, 40, scale=0.3), "int4")
    down, second = pack(numbers(6, 40, 48, scale=0.3), "int4")
    x, chosen = numbers(rows, 40), torch.stack([torch.randperm(5)[:3] for _ in range(rows)]).to(DEVICE)
    weights, more = torch.rand(rows, 3).to(DEVICE), numbers(rows, 40) if extra else None
    arguments = x, joint, down, chosen, weights, more, (first, second)
    close(int4_kernels.experts(*arguments), kernels.experts_plain(*arguments))


@runs
@pytest.mark.parametrize("width", [32, 70, 2100])
def test_widen(width):
    codes, scale = pack(numbers(3, 5, width), "int4")
    assert torch.equal(
        int4_kernels.widen(codes, scale, width, torch.float32), unpack(codes, scale, width, torch.float32)
    )


@runs
@pytest.mark.parametrize(
    "kind,layers,sizes",
    [
        ("int4", "heads", ((1, 1), (2, 33))),
        ("int4", "latent-lora", ((5, 1),)),
        ("fp8", "heads", ((6, 1),)),
        ("int8", "dense", ((2, 1),)),
    ],
)
def test_a_whole_quantised_step_is_that_of_the_modules(kind, layers, sizes):
    model = suited(layers)
    quantize(model, kind)
    assert FastDecode.suits(model) is None
    path = FastDecode(model)
    for rows, tokens in sizes:
        found = deviation(model, path, rows, tokens)
        # A GPU sorts experts of float32 with the host's help, which the path leaves to the modules.
        left = DEVICE == "cuda" and rows * tokens > kernels.MAX_GROUPED_ROWS
        assert (left and found is None) or found < 1e-5


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", ["heads", "latent-lora", "dense"])
def test_on_a_gpu_the_kernels_of_each_kind_are_used(kind, layers):
    model = suited(layers).to(torch.bfloat16)
    quantize(model, kind)
    assert use_kernels(model) is None and model.path is not None


@pytest.mark.gpu
@on_gpu
def test_fp8_products_of_many_rows():
    weight, scale = pack(numbers(96, 256, scale=0.1), "fp8")
    x, bias = numbers(2, 300, 256).to(torch.bfloat16), numbers(96).to(torch.bfloat16)
    if torch.cuda.get_device_capability() < (9, 0):
        assert not multiplies_fp8(x, weight)
        return
    assert multiplies_fp8(x, weight) and not multiplies_fp8(x[:, :8], weight)
    with exact_inputs():
        assert not multiplies_fp8(x, weight)
        whole = packed_linear(x, weight, scale, bias).float()
    found = packed_linear(x, weight, scale, bias).float()
    expected = x.float() @ unpack(weight, scale, 256, torch.float32).T + bias.float()
    assert (found - expected).norm() / expected.norm() < 0.04  # 3 bits of fraction of each input
    assert (whole - expected).norm() / expected.norm() < 0.01
    alone = packed_linear(x[:1], weight, scale, bias)
    assert torch.equal(alone[0], packed_linear(x, weight, scale, bias)[0])  # a token's rounding is its own


def test_inputs_of_fp8_products_are_rounded_in_prompts_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with FakeTensorMode():  # of a GPU that need not be there
        weight = torch.empty(96, 256, dtype=torch.float8_e4m3fn, device="cuda")
        x = torch.empty(2, FP8_ROWS, 256, dtype=torch.bfloat16, device="cuda")
        assert multiplies_fp8(x, weight) and multiplies_fp8(x[0], weight) and not multiplies_fp8(x[0, 1:], weight)
        with exact_inputs():
            assert not multiplies_fp8(x, weight)
        assert multiplies_fp8(x, weight)


@starts_interpreter
def test_kernels_in_the_interpreter():
    run_in_interpreter(__file__)
