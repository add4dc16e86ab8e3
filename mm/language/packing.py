"""Weights in fewer bits than activations (weight-only quantisation): how numbers become codes, and products with codes.

| kind | a code | scales | bits |
|---|---|---|---|
| int8 | a whole number from -127 to 127 | float32, one an output | 8 |
| fp8  | e4m3, 3 bits of fraction | float32, one an output | 8 |
| int4 | a whole number from -8 to 7, two in a byte | bfloat16, one for 32 inputs of an output | 4.5 |

A weight in int8 is at most 1/254 of the largest of its output off, in fp8 1/16 of itself, in int4 1/16 of the largest
of its 32, but for the few largest ones, which may be cut off.

Activations keep their type. The type of the codes says which kind they are: int8, float8_e4m3fn, uint8.

In int4 a byte holds inputs i and i + 16 of its group of 32, the first in its low half, each plus 8; inputs beyond the
last one are zeros.

Letters: B rows, D inputs, N outputs, G groups of a row (D / 32, rounded up).
"""

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from mm.config import Quantization
from mm.devices import inputs_are_exact

KINDS: tuple[Quantization, ...] = get_args(Quantization)

GROUP = 32  # inputs that share a scale in int4
HALF = GROUP // 2
INT8_MOST = 127
FP8_MOST = 448.0  # of e4m3 without infinities
# Parts of the scale at which the largest weight of a group is exact that are tried: a smaller scale cuts the largest
# weights off and rounds all others finer. The best one by the sum of squares is taken.
INT4_SHARES = (1.0, 0.94, 0.88, 0.82)
# Weights that are made wide at once, where a product takes no codes.
WIDE_NUMBERS = 2**24
# From so many rows on, products with fp8 run on fp8 matrix units: prompts. Those of decode steps never do
# (``mm.devices.exact_inputs``), however many rows there are.
FP8_ROWS = 257


def pack(weight: Tensor, kind: Quantization) -> tuple[Tensor, Tensor]:
    """(..., N, D) -> codes (..., N, D) and scales (..., N); in int4 codes (..., N, 16 G) and scales (..., N, G)."""
    weight = weight.detach()
    if kind == "int4":
        return _to_int4(weight)
    most = INT8_MOST if kind == "int8" else FP8_MOST
    scale = (weight.abs().amax(dim=-1).float() / most).clamp(min=torch.finfo(torch.float32).tiny)
    codes = weight.float() / scale.unsqueeze(-1)
    if kind == "int8":
        return codes.round_().to(torch.int8), scale
    return codes.clamp_(-FP8_MOST, FP8_MOST).to(torch.float8_e4m3fn), scale


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    groups = F.pad(weight.float(), (0, -weight.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))  # (..., N, G, 32)
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))  # with its sign: it becomes -8
    found: tuple[Tensor, Tensor, Tensor] | None = None
    for share in INT4_SHARES:
        scale = (largest * (-share / 8)).to(torch.bfloat16)
        codes = (groups / torch.where(scale == 0, 1.0, scale.float())).round_().clamp_(-8, 7)
        error = (codes * scale - groups).square().sum(dim=-1, keepdim=True)
        if found is None:
            found = error, codes, scale
        else:
            better = error < found[0]
            found = error.minimum(found[0]), torch.where(better, codes, found[1]), torch.where(better, scale, found[2])
    assert found is not None
    low, high = (found[1] + 8).to(torch.uint8).split(HALF, dim=-1)
    return (low | (high << 4)).flatten(-2), found[2].squeeze(-1)


def unpack(codes: Tensor, scale: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """What ``pack`` gave of weights (..., N, ``width``) -> these weights, rounded, in ``dtype``."""
    if dtype == torch.float16:  # whose smallest numbers are larger than many a scale
        return unpack(codes, scale, width, torch.float32).to(dtype)
    if codes.dtype != torch.uint8:
        return _wide(codes, dtype).mul_(scale.to(dtype).unsqueeze(-1))
    pairs = codes.unflatten(-1, (-1, HALF))  # (..., N, G, 16)
    whole = torch.cat((pairs & 15, pairs >> 4), dim=-1).to(dtype).sub_(8)  # (..., N, G, 32)
    return whole.mul_(scale.to(dtype).unsqueeze(-1)).flatten(-2)[..., :width]


def _wide(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes of int8 or fp8 as numbers."""
    if codes.dtype != torch.float8_e4m3fn or codes.device.type != "cpu":
        return codes.to(dtype)
    # Torch converts fp8 on a CPU number by number; this is twelve times faster (torch 2.15). Seen as a float16, the
    # bits of e4m3 moved up by seven are the same sign and fraction, and an exponent that is less by eight.
    bits = (codes.view(torch.int8).to(torch.int16) << 7) & ~0x4000  # the sign came along to the exponent's first bit
    return bits.view(torch.float16).to(dtype).mul_(256)


def packed_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., D), codes and scales of (N, D) -> (..., N).

    With fp8, many rows and a GPU that has fp8 matrix units, x is rounded to fp8 too, token by token, but for inside
    ``exact_inputs``; all else computes with x as it is.
    """
    if codes.dtype == torch.uint8:
        out = x.new_empty(*x.shape[:-1], len(codes))
        rows = max(1, WIDE_NUMBERS // x.shape[-1])
        for start in range(0, len(codes), rows):
            part = slice(start, start + rows)
            wide = unpack(codes[part], scale[part], x.shape[-1], x.dtype)
            out[..., part] = F.linear(x, wide, None if bias is None else bias[part])
        return out
    if x.dtype == torch.float16:  # sums of codes would overflow
        return F.linear(x, unpack(codes, scale, x.shape[-1], x.dtype), bias)
    if multiplies_fp8(x, codes):
        out = _fp8_product(x.flatten(0, -2), codes, scale).unflatten(0, x.shape[:-1])
    else:
        out = (F.linear(x, _wide(codes, x.dtype)) * scale).to(x.dtype)
    return out if bias is None else out + bias


def multiplies_fp8(x: Tensor, codes: Tensor) -> bool:
    """Whether a product runs on fp8 matrix units: many rows (..., D) of bfloat16, sizes of whole 16 numbers, and a GPU
    of compute capability 9.0 or later, whose products take a scale for each row; never inside ``exact_inputs``."""
    return (
        not inputs_are_exact()
        and codes.dtype == torch.float8_e4m3fn
        and x.dtype == torch.bfloat16
        and x.device.type == "cuda"
        and torch.version.hip is None
        and x.numel() // x.shape[-1] >= FP8_ROWS
        and not (codes.shape[0] % 16 or codes.shape[1] % 16)
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )


def _fp8_product(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """(B, D), fp8 (N, D), (N,) -> (B, N) in the type of x."""
    factor = (x.abs().amax(dim=-1, keepdim=True).float() / FP8_MOST).clamp(min=torch.finfo(torch.float32).tiny)
    rounded = (x / factor).clamp(-FP8_MOST, FP8_MOST).to(torch.float8_e4m3fn)
    return torch._scaled_mm(rounded, codes.t(), scale_a=factor, scale_b=scale.unsqueeze(0), out_dtype=x.dtype)
