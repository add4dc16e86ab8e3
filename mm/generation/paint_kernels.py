# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped"
"""Triton kernels between the convolutions of the image tokenizer's decoder, and beside each the plain function that it
equals. Imported only on CUDA.

Pictures lie channels-last in memory, which is what the matrix units read. Letters: P pixels, C channels, G groups.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

GROUPS = 32
EPS = 1e-6
PROGRAMS = 264  # that sum up: two on each multiprocessor of a large GPU
BLOCK = 8192  # numbers that a program holds


def norm_silu_plain(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None = None, *, act: bool = True
) -> Tensor:
    """Group norm in ``GROUPS`` groups of x + shift, and SiLU: (P, C), (C,), (C,), (C,) -> (P, C)."""
    if shift is not None:
        x = (x + shift).to(x.dtype)
    out = F.group_norm(x.T.unsqueeze(0), GROUPS, weight, bias, EPS)[0].T
    return F.silu(out) if act else out


def norm_silu(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None = None, *, act: bool = True) -> Tensor:
    """``norm_silu_plain``; x contiguous, C a power of two from ``GROUPS`` on."""
    pixels, channels = x.shape
    block = BLOCK // channels
    programs = min(PROGRAMS, triton.cdiv(pixels, block))
    share = triton.cdiv(triton.cdiv(pixels, programs), block) * block
    programs = triton.cdiv(pixels, share)
    sums = torch.empty(2, programs, channels, device=x.device, dtype=torch.float32)
    factors = torch.empty(2, channels, device=x.device, dtype=torch.float32)
    out = torch.empty_like(x)
    given = x if shift is None else shift
    _sums[(programs,)](
        x, given, sums, pixels, share, programs, C=channels, SHIFT=shift is not None, BLOCK=block, num_warps=8
    )
    _factors[(GROUPS,)](
        sums, weight, bias, factors, pixels, programs, C=channels, SIZE=channels // GROUPS, EPS=EPS,
        BLOCK=triton.next_power_of_2(programs), num_warps=4,
    )  # fmt: skip
    _apply[(triton.cdiv(pixels, block),)](
        x, given, factors, out, pixels, C=channels, SHIFT=shift is not None, ACT=act, BLOCK=block, num_warps=8
    )
    return out


@triton.jit
def _read(x, shift, pixel, pixels, C: tl.constexpr, SHIFT: tl.constexpr):
    c = tl.arange(0, C)
    value = tl.load(x + pixel[:, None] * C + c[None, :], mask=(pixel < pixels)[:, None], other=0.0)
    if SHIFT:
        value = (value.to(tl.float32) + tl.load(shift + c).to(tl.float32)[None, :]).to(value.dtype)
    return tl.where((pixel < pixels)[:, None], value.to(tl.float32), 0.0)


@triton.jit
def _sums(x, shift, sums, pixels, share, programs, C: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    c = tl.arange(0, C)
    total = tl.zeros((BLOCK, C), tl.float32)
    square = tl.zeros((BLOCK, C), tl.float32)
    for start in range(program * share, tl.minimum((program + 1) * share, pixels), BLOCK):
        value = _read(x, shift, start + tl.arange(0, BLOCK), pixels, C, SHIFT)
        total += value
        square += value * value
    tl.store(sums + program * C + c, tl.sum(total, axis=0))
    tl.store(sums + (programs + program) * C + c, tl.sum(square, axis=0))


@triton.jit
def _factors(
    sums, weight, bias, factors, pixels, programs,
    C: tl.constexpr, SIZE: tl.constexpr, EPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    program = tl.arange(0, BLOCK)
    place = program[:, None] * C + c[None, :]
    inside = (program < programs)[:, None]
    mean = tl.sum(tl.load(sums + place, mask=inside, other=0.0)) / (pixels * SIZE)
    square = tl.sum(tl.load(sums + programs * C + place, mask=inside, other=0.0)) / (pixels * SIZE)
    factor = tl.load(weight + c).to(tl.float32) * tl.rsqrt(tl.maximum(square - mean * mean, 0.0) + EPS)
    tl.store(factors + c, factor)
    tl.store(factors + C + c, tl.load(bias + c).to(tl.float32) - mean * factor)


@triton.jit
def _apply(
    x, shift, factors, out, pixels, C: tl.constexpr, SHIFT: tl.constexpr, ACT: tl.constexpr, BLOCK: tl.constexpr
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, C)
    kind = out.dtype.element_ty
    value = _read(x, shift, pixel, pixels, C, SHIFT)
    value = value * tl.load(factors + c)[None, :] + tl.load(factors + C + c)[None, :]
    if ACT:
        value = value.to(kind).to(tl.float32)
        value = value * tl.sigmoid(value)
    tl.store(out + pixel[:, None] * C + c[None, :], value.to(kind), mask=(pixel < pixels)[:, None])


def add_shifted_plain(x: Tensor, y: Tensor, shift: Tensor) -> Tensor:
    """x + (y + shift): (P, C), (P, C), (C,) -> (P, C)."""
    return x + (y + shift).to(y.dtype)


def add_shifted(x: Tensor, y: Tensor, shift: Tensor) -> Tensor:
    """``add_shifted_plain`` in one kernel; contiguous, C a power of two."""
    out = torch.empty_like(x)
    _add_shifted[(triton.cdiv(x.numel(), 4096),)](x, y, shift, out, x.numel(), C=x.shape[1], BLOCK=4096, num_warps=8)
    return out


@triton.jit
def _add_shifted(x, y, shift, out, count, C: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    kind = out.dtype.element_ty
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    value = (value + tl.load(shift + place % C).to(tl.float32)).to(kind).to(tl.float32)
    value += tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(kind), mask=inside)


def doubled_plain(x: Tensor, height: int, width: int) -> Tensor:
    """Every pixel four times: (H W, C) -> (2 H 2 W, C)."""
    grid: Tensor = x.unflatten(0, (height, width))
    return grid.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).flatten(0, 1)


def doubled(x: Tensor, height: int, width: int) -> Tensor:
    """``doubled_plain`` in one kernel; contiguous, C a power of two."""
    channels = x.shape[1]
    out = torch.empty(4 * height * width, channels, device=x.device, dtype=x.dtype)
    block = BLOCK // channels
    _doubled[(triton.cdiv(4 * height * width, block),)](
        x, out, 4 * height * width, 2 * width, C=channels, BLOCK=block, num_warps=8
    )
    return out


@triton.jit
def _doubled(x, out, pixels, width, C: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, C)
    source = (pixel // width // 2) * (width // 2) + (pixel % width) // 2
    inside = (pixel < pixels)[:, None]
    value = tl.load(x + source[:, None] * C + c[None, :], mask=inside, other=0.0)
    tl.store(out + pixel[:, None] * C + c[None, :], value, mask=inside)
