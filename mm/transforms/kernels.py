"""Decode steps with kernels of our own, on CUDA; checked against the modules before they are used."""

import importlib.util
import warnings
from typing import TYPE_CHECKING

import torch

from mm.language.decoder import Decoder

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
    """The relative difference of path and modules after the first and the last layer, on random numbers."""
    weight = decoder.lm_head.weight
    generator = torch.Generator().manual_seed(rows)
    cache = decoder.new_cache(rows, CHECKED_SLOTS)
    for layer in cache.layers:
        for tensor in layer.tensors:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    x = torch.randn(rows, tokens, weight.shape[1], generator=generator).to(weight)
    starts = torch.randint(CHECKED_SLOTS - tokens + 1, (rows, 1), generator=generator)
    positions = (starts + torch.arange(tokens)).to(weight.device)  # (B, T)
    step = decoder.step_at(x, positions, cache)
    if not path.takes(x, step):
        return float("inf")
    worst = 0.0
    for index in {0, len(decoder.model.layers) - 1}:
        kept = [tensor.clone() for tensor in cache.layers[index].tensors]
        expected = (decoder.model.layers[index](x, step, cache.layers[index]) - x).flatten(0, 1)
        written = [tensor.clone() for tensor in cache.layers[index].tensors]
        for tensor, old in zip(cache.layers[index].tensors, kept, strict=True):
            tensor.copy_(old)
        stream, delta = path.run((index,), x.flatten(0, 1), step, cache)
        assert delta is not None
        pairs = [(stream + delta - x.flatten(0, 1), expected), *zip(cache.layers[index].tensors, written, strict=True)]
        for found, right in pairs:
            difference = (found.float() - right.float()).norm() / right.float().norm()
            worst = max(worst, float("inf") if difference.isnan() else difference.item())
    return worst
