# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of norms and of products of few rows, and beside each the plain function that it equals.

Letters: B rows, D hidden size, N outputs of a product, I width of an MLP.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.kernel_launch import launch_options, wait
from mm.language.packing import packed_linear

MAX_ROWS = 4  # of the row-by-row products: beyond, matrix units do better
MAX_GROUPED_ROWS = 64  # of the products expert by expert, and of those with a scale
TOGETHER = 8  # products that a thread sums up before threads add up theirs: 16 bytes of bfloat16


def add_norm_plain(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + delta (B, D), and its RMS norm as in ``mm.language.layers.RMSNorm``."""
    total = x if delta is None else x + delta
    wide = total.float()
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return total, weight * wide.to(total.dtype)


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``add_norm_plain`` in one kernel."""
    rows, width = x.shape
    out = torch.empty_like(x)
    total = x if delta is None else torch.empty_like(x)
    _add_norm[(rows,)](
        x, x if delta is None else delta, weight, total, out, width, eps,
        ADD=delta is not None, BLOCK=triton.next_power_of_2(width), num_warps=8 if width > 2048 else 4,
        **launch_options(x.device),
    )  # fmt: skip
    return total, out


@triton.jit
def _add_norm(x, delta, weight, total, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < width
    wait(PDL)
    value = tl.load(x + row * width + column, mask=inside, other=0.0)
    if ADD:
        other = tl.load(delta + row * width + column, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(value.dtype)
        tl.store(total + row * width + column, value, mask=inside)
    wide = value.to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    result = wide.to(value.dtype).to(tl.float32) * scale
    tl.store(out + row * width + column, result.to(value.dtype), mask=inside)


def linear_plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """(B, D), (N, D) -> (B, N); codes have scales (``mm.language.packing``)."""
    return F.linear(x, weight, bias) if scale is None else packed_linear(x, weight, scale, bias)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``linear_plain`` in ``dtype`` (None: that of x), for up to ``MAX_ROWS`` rows, or ``MAX_GROUPED_ROWS`` with a
    scale."""
    (rows, width), outputs = x.shape, weight.shape[0]
    out = torch.empty(rows, outputs, device=x.device, dtype=dtype or x.dtype)
    if rows > MAX_ROWS:
        assert scale is not None
        _linear_dot[(triton.cdiv(outputs, 32),)](
            x, weight, weight if bias is None else bias, scale, out, rows, outputs, width, weight.stride(0),
            BIASED=bias is not None, BLOCK_B=max(16, triton.next_power_of_2(rows)), BLOCK_N=32,
            BLOCK_D=dot_block(width), num_warps=4, num_stages=4, **launch_options(x.device),
        )  # fmt: skip
        return out
    block_n, block_d, warps, ahead = _tile(outputs, width)
    _linear[(triton.cdiv(outputs, block_n),)](
        x, weight, weight if bias is None else bias, x if scale is None else scale, out, outputs, width,
        weight.stride(0), ROWS=rows, SCALED=scale is not None, BIASED=bias is not None, AHEAD=ahead,
        BLOCK_N=block_n, BLOCK_D=block_d, TOGETHER=TOGETHER, num_warps=warps, **launch_options(x.device),
    )  # fmt: skip
    return out


@triton.jit
def times(w, x, d, width, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr):
    """(N, D) weights in float32 times the numbers of a row at ``d``, ``TOGETHER`` of them added up: (N, D / TOGETHER).
    A thread holds these together, so that few sums stay in its registers and more weights are on their way."""
    product = w * tl.load(x + d, mask=d < width, other=0.0).to(tl.float32)[None, :]
    return tl.sum(tl.reshape(product, (BLOCK_N, BLOCK_D // TOGETHER, TOGETHER)), axis=2)


@triton.jit
def _linear(
    x, weight, bias, scale, out, outputs, width, stride,
    ROWS: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, AHEAD: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    place = weight + n[:, None] * stride + column[None, :]
    known = (n < outputs)[:, None]
    sum0 = tl.zeros((BLOCK_N, BLOCK_D // TOGETHER), tl.float32)
    sum1 = sum0
    sum2 = sum0
    sum3 = sum0
    if AHEAD:
        w = tl.load(place, mask=known & (column < width)[None, :], other=0.0, eviction_policy="evict_first")
    wait(PDL)
    for start in range(0, width, BLOCK_D):
        d = start + column
        if AHEAD:
            later = tl.load(
                place + start + BLOCK_D, mask=known & (d + BLOCK_D < width)[None, :], other=0.0,
                eviction_policy="evict_first",
            )  # fmt: skip
        else:
            w = tl.load(place + start, mask=known & (d < width)[None, :], other=0.0, eviction_policy="evict_first")
        wide = w.to(tl.float32)
        sum0 += times(wide, x, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 1:
            sum1 += times(wide, x + width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 2:
            sum2 += times(wide, x + 2 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 3:
            sum3 += times(wide, x + 3 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if AHEAD:
            w = later
    factor = tl.full((BLOCK_N,), 1.0, tl.float32)
    if SCALED:
        factor = tl.load(scale + n, mask=n < outputs, other=0.0)
    store_rows(out, sum0, sum1, sum2, sum3, factor, bias, n, outputs, ROWS, BIASED)


@triton.jit
def store_rows(out, sum0, sum1, sum2, sum3, factor, bias, n, outputs, ROWS: tl.constexpr, BIASED: tl.constexpr):
    """Add up the sums (N, threads) of up to four rows, and store them times ``factor`` (N,), plus the bias."""
    inside = n < outputs
    shift = tl.zeros_like(factor)
    if BIASED:
        shift = tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    tl.store(out + n, (tl.sum(sum0, axis=1) * factor + shift).to(kind), mask=inside)
    if ROWS > 1:
        tl.store(out + outputs + n, (tl.sum(sum1, axis=1) * factor + shift).to(kind), mask=inside)
    if ROWS > 2:
        tl.store(out + 2 * outputs + n, (tl.sum(sum2, axis=1) * factor + shift).to(kind), mask=inside)
    if ROWS > 3:
        tl.store(out + 3 * outputs + n, (tl.sum(sum3, axis=1) * factor + shift).to(kind), mask=inside)


@triton.jit
def _linear_dot(
    x, weight, bias, scale, out, rows, outputs, width, stride,
    BIASED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_B)
    column = tl.arange(0, BLOCK_D)
    wait(PDL)
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = (row < rows)[:, None] & (d < width)[None, :]
        value = tl.load(x + row[:, None] * width + d[None, :], mask=inside, other=0.0)
        inside = (n < outputs)[None, :] & (d < width)[:, None]
        w = tl.load(weight + n[None, :] * stride + d[:, None], mask=inside, other=0.0)
        total += tl.dot(value, w.to(value.dtype), input_precision="ieee")
    total = total * tl.load(scale + n, mask=n < outputs, other=0.0)[None, :]
    store_block(total, bias, out, row, rows, n, outputs, BIASED)


@triton.jit
def store_block(total, bias, out, row, rows, n, outputs, BIASED: tl.constexpr):
    """Store (B, N) sums, plus the bias."""
    if BIASED:
        total += tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (n < outputs)[None, :]
    tl.store(out + row[:, None] * outputs + n[None, :], total.to(out.dtype.element_ty), mask=inside)


def gated_plain(x: Tensor, joint: Tensor, scale: Tensor | None = None) -> Tensor:
    """silu(gate) * up of (B, D) and gates before ups (2 I, D) -> (B, I)."""
    return silu_mul_plain(linear_plain(x, joint, None, scale))


def gated(x: Tensor, joint: Tensor, scale: Tensor | None = None) -> Tensor:
    """``gated_plain`` for up to ``MAX_ROWS`` rows."""
    (rows, width), inner = x.shape, joint.shape[0] // 2
    out = torch.empty(rows, inner, device=x.device, dtype=x.dtype)
    block_n, block_d, warps, _ = _tile(2 * inner, width)
    block_n = max(1, block_n // 2)  # of gates, and as many ups
    _gated[(triton.cdiv(inner, block_n),)](
        x, joint, x if scale is None else scale, out, inner, width, joint.stride(0),
        ROWS=rows, SCALED=scale is not None, BLOCK_N=block_n, BLOCK_D=block_d, TOGETHER=TOGETHER, num_warps=warps,
        **launch_options(x.device),
    )  # fmt: skip
    return out


@triton.jit
def _gated(
    x, joint, scale, out, inner, width, stride,
    ROWS: tl.constexpr, SCALED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    known = (n < inner)[:, None]
    first = joint + n[:, None] * stride + column[None, :]
    second = first + inner * stride
    gate0 = tl.zeros((BLOCK_N, BLOCK_D // TOGETHER), tl.float32)
    gate1 = gate0
    gate2 = gate0
    gate3 = gate0
    up0 = gate0
    up1 = gate0
    up2 = gate0
    up3 = gate0
    wait(PDL)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = known & (d < width)[None, :]
        gates = tl.load(first + start, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
        ups = tl.load(second + start, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
        gate0 += times(gates, x, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        up0 += times(ups, x, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 1:
            gate1 += times(gates, x + width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
            up1 += times(ups, x + width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 2:
            gate2 += times(gates, x + 2 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
            up2 += times(ups, x + 2 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        if ROWS > 3:
            gate3 += times(gates, x + 3 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
            up3 += times(ups, x + 3 * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
    gates = tl.full((BLOCK_N,), 1.0, tl.float32)
    ups = gates
    if SCALED:
        gates = tl.load(scale + n, mask=n < inner, other=0.0)
        ups = tl.load(scale + inner + n, mask=n < inner, other=0.0)
    kind = out.dtype.element_ty
    tl.store(out + n, activated(tl.sum(gate0, axis=1) * gates, tl.sum(up0, axis=1) * ups, kind), mask=n < inner)
    if ROWS > 1:
        both = activated(tl.sum(gate1, axis=1) * gates, tl.sum(up1, axis=1) * ups, kind)
        tl.store(out + inner + n, both, mask=n < inner)
    if ROWS > 2:
        both = activated(tl.sum(gate2, axis=1) * gates, tl.sum(up2, axis=1) * ups, kind)
        tl.store(out + 2 * inner + n, both, mask=n < inner)
    if ROWS > 3:
        both = activated(tl.sum(gate3, axis=1) * gates, tl.sum(up3, axis=1) * ups, kind)
        tl.store(out + 3 * inner + n, both, mask=n < inner)


def silu_mul_plain(both: Tensor) -> Tensor:
    """(..., 2 I), gates before ups -> (..., I)."""
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up


def silu_mul(both: Tensor) -> Tensor:
    """``silu_mul_plain`` in one kernel."""
    rows, width = both.shape[0], both.shape[1] // 2
    out = torch.empty(rows, width, device=both.device, dtype=both.dtype)
    _silu_mul[(rows, triton.cdiv(width, 1024))](
        both, out, width, BLOCK=1024, num_warps=4, **launch_options(both.device)
    )
    return out


@triton.jit
def _silu_mul(both, out, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    wait(PDL)
    gate = tl.load(both + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(both + row * 2 * width + width + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, activated(gate.to(tl.float32), up.to(tl.float32), gate.dtype), mask=inside)


@triton.jit
def activated(gate, up, kind: tl.constexpr):
    """silu(gate) * up, rounded where torch rounds."""
    gate = gate.to(kind).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    return (silu * up.to(kind).to(tl.float32)).to(kind)


def _tile(outputs: int, width: int) -> tuple[int, int, int, bool]:
    """Outputs of a program, numbers of a row that it reads at once, warps, and whether it reads the next weights before
    it uses the ones it has; as measured on an H200 (docs/performance.md)."""
    if outputs <= 3072:
        return 2, 2048, 4, True
    block = min((512, 1024), key=lambda size: (-(-width // size) * size, -size))
    if outputs <= 8192:
        return 4096 // block, block, 4, True
    return 2048 // block, block, 2, False


def dot_block(width: int) -> int:
    return 128 if width % 128 == 0 else 64 if width % 64 == 0 else 16
