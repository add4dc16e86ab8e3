# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of a decode step whose weights are int4 codes (``mm.language.packing``).

The same functions as in ``mm.language.decode_kernels``, whose plain ones they equal. A decode step reads 4.5 bits a
weight, so that making numbers of codes takes as long as reading them: for up to ``MAX_ROWS`` rows a thread takes the
sixteen bytes of a group at once, and the scale is multiplied to the group's sum. ``widen`` makes numbers of all codes,
for the products of a prompt.

Letters: B rows, D inputs, N outputs, G groups of a row, I expert width, E experts, K experts a token, P pairs of a row
and an expert.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mm.language.expert_kernels import combine, store_sum, takers
from mm.language.linear_kernels import MAX_ROWS, activated, store_block, store_rows
from mm.language.packing import GROUP, HALF

TILE = 4096  # weights that a program of the row-by-row products takes at once


@triton.jit
def _numbers(codes):
    """Whole numbers 0..15 -> float32 from -8 to 7, without the slow conversion: a float32 of 2^23 and more holds a
    whole number in its last bits."""
    return (codes.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0


# Products of few rows


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor) -> Tensor:
    """``decode_kernels.linear_plain`` of int4 codes, for up to ``MAX_GROUPED_ROWS`` rows."""
    (rows, width), outputs = x.shape, weight.shape[0]
    out = torch.empty(rows, outputs, device=x.device, dtype=x.dtype)
    groups = scale.shape[1]
    if rows > MAX_ROWS:
        _linear_dot[(triton.cdiv(outputs, 32),)](
            x, weight, weight if bias is None else bias, scale, out, rows, outputs, width, groups,
            BIASED=bias is not None, BLOCK_B=max(16, triton.next_power_of_2(rows)), BLOCK_N=32,
            BLOCK_P=_dot_block(groups), num_warps=4, num_stages=3,
        )  # fmt: skip
        return out
    block_n, block_g = _tile(groups)
    _linear[(triton.cdiv(outputs, block_n),)](
        x, weight, weight if bias is None else bias, scale, out, outputs, width, groups,
        ROWS=rows, BIASED=bias is not None, BLOCK_N=block_n, BLOCK_G=block_g, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _half(x, d, inside):
    """Inputs (G, 16) of a row, as (1, G, 16) float32."""
    return tl.load(x + d, mask=inside, other=0.0).to(tl.float32)[None, :, :]


@triton.jit
def _group_sums(low, high, x, d, width):
    """(N, G): of each group the sum of codes times inputs."""
    return tl.sum(low * _half(x, d, d < width) + high * _half(x, d + 16, d + 16 < width), axis=2)


@triton.jit
def _linear(
    x, weight, bias, scale, out, outputs, width, groups,
    ROWS: tl.constexpr, BIASED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, 16)
    sum0 = tl.zeros((BLOCK_N, BLOCK_G), tl.float32)
    sum1 = sum0
    sum2 = sum0
    sum3 = sum0
    rows = n.to(tl.int64) * groups
    for start in range(0, groups, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        known = (n < outputs)[:, None] & (g < groups)[None, :]
        place = (rows[:, None] + g[None, :]) * 16
        codes = tl.load(weight + place[:, :, None] + j[None, None, :], mask=known[:, :, None], other=0)
        low = _numbers(codes & 15)
        high = _numbers(codes >> 4)
        factor = tl.load(scale + rows[:, None] + g[None, :], mask=known, other=0.0).to(tl.float32)
        d = g[:, None] * 32 + j[None, :]
        sum0 += _group_sums(low, high, x, d, width) * factor
        if ROWS > 1:
            sum1 += _group_sums(low, high, x + width, d, width) * factor
        if ROWS > 2:
            sum2 += _group_sums(low, high, x + 2 * width, d, width) * factor
        if ROWS > 3:
            sum3 += _group_sums(low, high, x + 3 * width, d, width) * factor
    one = tl.full((BLOCK_N,), 1.0, tl.float32)  # each group has its scale
    store_rows(out, sum0, sum1, sum2, sum3, one, bias, n, outputs, ROWS, BIASED)


@triton.jit
def _input_halves(x, row, known, p, width):
    """The inputs of rows (B,) of which the bytes p (P,) of a packed row hold the weights: two (B, P), for the low
    halves of the bytes and for the high ones."""
    d = p // 16 * 32 + p % 16
    place = x + row[:, None] * width + d[None, :]
    low = tl.load(place, mask=known[:, None] & (d < width)[None, :], other=0.0)
    high = tl.load(place + 16, mask=known[:, None] & (d + 16 < width)[None, :], other=0.0)
    return low, high


@triton.jit
def _weight_halves(weight, scale, rows, n_inside, p, groups, kind: tl.constexpr):
    """The weights in the bytes p (P,) of the packed rows that begin at ``rows`` (N,) groups: two (P, N), as above."""
    g = p // 16
    inside = (g < groups)[:, None] & n_inside[None, :]
    codes = tl.load(weight + rows[None, :] * 16 + p[:, None], mask=inside, other=0)
    factor = tl.load(scale + rows[None, :] + g[:, None], mask=inside, other=0.0).to(tl.float32)
    return (_numbers(codes & 15) * factor).to(kind), (_numbers(codes >> 4) * factor).to(kind)


@triton.jit
def _add_products(total, inputs, weights):
    """``total`` (B, N) plus the products of both halves."""
    total += tl.dot(inputs[0], weights[0], input_precision="ieee")
    total += tl.dot(inputs[1], weights[1], input_precision="ieee")
    return total


@triton.jit
def _linear_dot(
    x, weight, bias, scale, out, rows, outputs, width, groups,
    BIASED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_B)
    first = n.to(tl.int64) * groups
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, groups * 16, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        weights = _weight_halves(weight, scale, first, n < outputs, p, groups, x.dtype.element_ty)
        total = _add_products(total, _input_halves(x, row, row < rows, p, width), weights)
    store_block(total, bias, out, row, rows, n, outputs, BIASED)


def gated(x: Tensor, joint: Tensor, scale: Tensor) -> Tensor:
    """``decode_kernels.gated_plain`` of int4 codes, for up to ``MAX_ROWS`` rows."""
    return _gated_pairs(x, joint.unsqueeze(0), scale.unsqueeze(0), None, x.shape[0], 1)


# Experts


def experts(
    x: Tensor,
    joint: Tensor,
    down: Tensor,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    scales: tuple[Tensor, Tensor],
) -> Tensor:
    """``decode_kernels.experts_plain`` of int4 codes, for up to ``MAX_GROUPED_ROWS`` rows."""
    rows, per_token = chosen.shape
    if rows <= MAX_ROWS:
        hidden = _gated_pairs(x, joint, scales[0], chosen, rows * per_token, per_token)
        return _mixed_pairs(hidden, down, scales[1], chosen, weights, extra)
    return _by_expert(x, joint, scales[0], down, scales[1], chosen, weights, extra)


def _gated_pairs(x: Tensor, joint: Tensor, scale: Tensor, chosen: Tensor | None, pairs: int, per_token: int) -> Tensor:
    """(P, I): silu(gate) * up of each pair of a row and an expert; None is one expert that all rows choose."""
    width, inner, groups = x.shape[1], joint.shape[1] // 2, scale.shape[2]
    hidden = torch.empty(pairs, inner, device=x.device, dtype=x.dtype)
    block_n, block_g = _tile(groups)
    _gated_pair[(triton.cdiv(inner, block_n), pairs)](
        x, joint, scale, x if chosen is None else chosen, hidden, inner, width, groups,
        PER_TOKEN=per_token, CHOSEN=chosen is not None, BLOCK_N=block_n, BLOCK_G=block_g, num_warps=4,
    )  # fmt: skip
    return hidden


@triton.jit
def _partial(weight, scale, rows, n_inside, g, j, x, d, width, groups):
    """(N, G): this stretch of groups of a product."""
    known = n_inside[:, None] & (g < groups)[None, :]
    place = rows[:, None] + g[None, :]
    codes = tl.load(weight + (place * 16)[:, :, None] + j[None, None, :], mask=known[:, :, None], other=0)
    factor = tl.load(scale + place, mask=known, other=0.0).to(tl.float32)
    return _group_sums(_numbers(codes & 15), _numbers(codes >> 4), x, d, width) * factor


@triton.jit
def _gated_pair(
    x, joint, scale, chosen, hidden, inner, width, groups,
    PER_TOKEN: tl.constexpr, CHOSEN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, 16)
    first = n.to(tl.int64)
    if CHOSEN:
        first += tl.load(chosen + pair) * 2 * inner
    row = x + (pair // PER_TOKEN) * width
    gate = tl.zeros((BLOCK_N, BLOCK_G), tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_G), tl.float32)
    for start in range(0, groups, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        d = g[:, None] * 32 + j[None, :]
        gate += _partial(joint, scale, first * groups, n < inner, g, j, row, d, width, groups)
        up += _partial(joint, scale, (first + inner) * groups, n < inner, g, j, row, d, width, groups)
    result = activated(tl.sum(gate, axis=1), tl.sum(up, axis=1), hidden.dtype.element_ty)
    tl.store(hidden + pair * inner + n, result, mask=n < inner)


def _mixed_pairs(
    hidden: Tensor, down: Tensor, scale: Tensor, chosen: Tensor, weights: Tensor, extra: Tensor | None
) -> Tensor:
    (rows, per_token), width, (inner, groups) = chosen.shape, down.shape[1], (hidden.shape[1], scale.shape[2])
    out = torch.empty(rows, width, device=hidden.device, dtype=hidden.dtype)
    block_n, block_g = _tile(groups)
    _mixed_pair[(triton.cdiv(width, block_n), rows)](
        hidden, down, scale, chosen, weights, out if extra is None else extra, out, inner, width, groups,
        PER_TOKEN=per_token, EXTRA=extra is not None, BLOCK_N=block_n, BLOCK_G=block_g, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _mixed_pair(
    hidden, down, scale, chosen, weights, extra, out, inner, width, groups,
    PER_TOKEN: tl.constexpr, EXTRA: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, 16)
    kind = out.dtype.element_ty
    mixed = tl.zeros((BLOCK_N,), tl.float32)
    for place in range(PER_TOKEN):
        pair = row * PER_TOKEN + place
        first = (tl.load(chosen + pair) * width + n) * groups
        total = tl.zeros((BLOCK_N, BLOCK_G), tl.float32)
        for start in range(0, groups, BLOCK_G):
            g = start + tl.arange(0, BLOCK_G)
            d = g[:, None] * 32 + j[None, :]
            total += _partial(down, scale, first, n < width, g, j, hidden + pair * inner, d, inner, groups)
        mixed += tl.sum(total, axis=1).to(kind).to(tl.float32) * tl.load(weights + pair)
    result = mixed.to(kind)
    store_sum(result, extra + row * width + n, out + row * width + n, n < width, EXTRA)


def _by_expert(
    x: Tensor,
    joint: Tensor,
    joint_scale: Tensor,
    down: Tensor,
    down_scale: Tensor,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
) -> Tensor:
    (rows, per_token), (count, width), inner = chosen.shape, down.shape[:2], joint.shape[1] // 2
    block = max(16, triton.next_power_of_2(rows))
    hidden = torch.empty(rows * per_token, inner, device=x.device, dtype=x.dtype)
    output = torch.empty(rows * per_token, width, device=x.device, dtype=x.dtype)
    padded = triton.next_power_of_2(per_token)
    _gated_expert[(triton.cdiv(inner, 32), count)](
        x, joint, joint_scale, chosen, hidden, rows, inner, width, joint_scale.shape[2],
        PER_TOKEN=per_token, PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_P=_dot_block(joint_scale.shape[2]),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    _down_expert[(triton.cdiv(width, 32), count)](
        hidden, down, down_scale, chosen, output, rows, inner, width, down_scale.shape[2],
        PER_TOKEN=per_token, PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_P=_dot_block(down_scale.shape[2]),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return combine(output, None, weights, extra)


@triton.jit
def _gated_expert(
    x, joint, scale, chosen, hidden, rows, inner, width, groups,
    PER_TOKEN: tl.constexpr, PADDED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    pair, takes = takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
    if tl.sum(takes.to(tl.int32), axis=0) == 0:
        return
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_B)
    kind = x.dtype.element_ty
    first = (expert.to(tl.int64) * 2 * inner + n) * groups
    gate = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, groups * 16, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inputs = _input_halves(x, row, takes, p, width)
        gate = _add_products(gate, inputs, _weight_halves(joint, scale, first, n < inner, p, groups, kind))
        ups = _weight_halves(joint, scale, first + inner * groups, n < inner, p, groups, kind)
        up = _add_products(up, inputs, ups)
    result = activated(gate, up, hidden.dtype.element_ty)
    tl.store(hidden + pair[:, None] * inner + n[None, :], result, mask=takes[:, None] & (n < inner)[None, :])


@triton.jit
def _down_expert(
    hidden, down, scale, chosen, output, rows, inner, width, groups,
    PER_TOKEN: tl.constexpr, PADDED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    pair, takes = takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
    if tl.sum(takes.to(tl.int32), axis=0) == 0:
        return
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = (expert.to(tl.int64) * width + n) * groups
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, groups * 16, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inputs = _input_halves(hidden, pair, takes, p, inner)
        weights = _weight_halves(down, scale, first, n < width, p, groups, hidden.dtype.element_ty)
        total = _add_products(total, inputs, weights)
    result = total.to(output.dtype.element_ty)
    tl.store(output + pair[:, None] * width + n[None, :], result, mask=takes[:, None] & (n < width)[None, :])


# Products of a prompt


def widen(codes: Tensor, scale: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """``packing.unpack`` of int4 codes (..., N, 16 G) -> (..., N, ``width``) in one kernel."""
    out = torch.empty(*codes.shape[:-1], width, device=codes.device, dtype=dtype)
    rows, groups = scale.numel() // scale.shape[-1], scale.shape[-1]
    _widen[(rows, triton.cdiv(groups, 64))](codes, scale, out, width, groups, BLOCK_G=64, num_warps=4)
    return out


@triton.jit
def _widen(codes, scale, out, width, groups, BLOCK_G: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    j = tl.arange(0, 16)
    inside = (g < groups)[:, None]
    pairs = tl.load(codes + (row * groups + g[:, None]) * 16 + j[None, :], mask=inside, other=0)
    factor = tl.load(scale + row * groups + g, mask=g < groups, other=0.0).to(tl.float32)[:, None]
    d = g[:, None] * 32 + j[None, :]
    kind = out.dtype.element_ty
    tl.store(out + row * width + d, (_numbers(pairs & 15) * factor).to(kind), mask=d < width)
    tl.store(out + row * width + d + 16, (_numbers(pairs >> 4) * factor).to(kind), mask=d + 16 < width)


def _tile(groups: int) -> tuple[int, int]:
    """Outputs of a program, and groups that it takes at once."""
    block = min((16, 32), key=lambda size: (-(-groups // size) * size, -size))
    return TILE // GROUP // block, block


def _dot_block(groups: int) -> int:
    return HALF * (4 if groups % 4 == 0 else 2 if groups % 2 == 0 else 1)
