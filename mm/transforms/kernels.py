"""Decode steps with kernels of our own, on CUDA; checked against the modules before they are used."""

import importlib.util
import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mm.language.decoder import Decoder, DecoderLayer

if TYPE_CHECKING:
    from mm.language.fast_decode import FastDecode  # imports triton

# Largest relative difference of a layer's result that rounding explains, by type.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
CHECKED_SIZES = ((1, 1), (3, 1), (8, 1), (2, 40))  # rows and tokens: one for each set of kernels
CHECKED_SLOTS = 64


def use_kernels(decoder: Decoder) -> str | None:
    """Run the decode steps of a fused decoder with kernels, where they exist and give what the modules give.

    The first use on a machine compiles them, which takes some seconds; Triton keeps them on disk.

    Returns:
        Why the modules go on; None where the kernels are used.
    """
    weight = decoder.lm_head.weight
    if weight.device.type != "cuda" or torch.version.hip is not None:
        return "they are for NVIDIA GPUs"
    if torch.cuda.get_device_capability(weight.device)[0] < 8:
        return "they are for compute capability 8.0 and later"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if weight.dtype not in TOLERANCE:
        return f"they are not for {weight.dtype}"
    from mm.language.fast_decode import FastDecode

    reason = FastDecode.suits(decoder)
    if reason is not None:
        return reason
    path = FastDecode(decoder)
    try:
        with torch.cuda.device(weight.device):  # Triton launches on the current device, wherever the tensors are
            worst = max(deviation(decoder, path, *size) for size in CHECKED_SIZES)
    except Exception as error:  # whatever a compiler or a driver says: the modules do the work
        worst, reason = 0.0, f"they do not run here ({type(error).__name__}: {error})"
    if worst > TOLERANCE[weight.dtype]:
        reason = f"they differ from the modules by {worst:.2g} here, more than rounding explains"
    if reason is not None:
        warnings.warn(f"decode steps run without kernels of their own: {reason}", stacklevel=2)
        return reason
    decoder.path = path
    return None


@torch.inference_mode()
def deviation(decoder: Decoder, path: "FastDecode", rows: int, tokens: int = 1) -> float:
    """The largest relative difference of path and modules in the first and the last layer, on random numbers.

    Attention and experts have the same input in both: where the modules' rounding differs from the path's, a token may
    go to another expert, which would look like a fault.
    """
    weight = decoder.lm_head.weight
    generator = torch.Generator().manual_seed(rows)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight)

    cache = decoder.new_cache(rows, CHECKED_SLOTS)
    x = numbers(rows, tokens, weight.shape[1])
    starts = torch.randint(CHECKED_SLOTS - tokens + 1, (rows, 1), generator=generator)
    step = decoder.step_at(x, (starts + torch.arange(tokens)).to(weight.device), cache)
    if not path.takes(x, step):
        return float("inf")
    h, worst = x.flatten(0, 1), 0.0
    for index in {0, len(decoder.model.layers) - 1}:
        layer, stored = decoder.model.layers[index], cache.layers[index]
        assert isinstance(layer, DecoderLayer)
        for tensor in stored.tensors:
            tensor.copy_(numbers(*tensor.shape))
        before = [tensor.clone() for tensor in stored.tensors]
        expected = layer.self_attn(x, step, stored).flatten(0, 1)
        written = [tensor.clone() for tensor in stored.tensors]
        for tensor, old in zip(stored.tensors, before, strict=True):
            tensor.copy_(old)
        found = path.attend(index, h, step, cache)
        norm = layer.input_layernorm
        worst = max(
            worst,
            _difference(found, expected),
            _difference(path.feed(index, h), layer.mlp(x).flatten(0, 1)),
            _difference(path.normed(h, found, norm), norm(h + found)),
            *map(_difference, stored.tensors, written),
        )
    return worst


def _difference(found: Tensor, expected: Tensor) -> float:
    difference = ((found.float() - expected.float()).norm() / expected.float().norm()).item()
    return float("inf") if math.isnan(difference) else difference
