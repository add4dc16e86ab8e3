# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of a decode step, and beside each the plain function that it equals.

A decode step reads every weight once for a handful of rows, so its time is that of reading them, plus a latency for
every launch. These kernels join what stands between the products (residual and norm, rotation and cache, activation)
and replace products that a library does not do well at few rows (one or two rows, a few tokens over many experts,
attention of one token over a cache whose rows differ in length). ``mm.language.fast_decode`` puts them in order.

Imported only where a decode step runs on CUDA; nothing here is needed elsewhere. Sums are in float32.

Letters: B rows, D hidden size, N outputs of a product, H heads, G key/value heads, A head dimension, S cache slots, C
and R latent rank and rope dims, E experts, K experts a token, I expert width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.int8 import int8_linear

MAX_ROWS = 4  # of the row-by-row products: beyond, matrix units do better
MAX_GROUPED_ROWS = 64  # of the products expert by expert
SPLIT_SLOTS = 64  # cache slots a part of attention reads at least
PROGRAMS = 264  # that fill a large GPU: two on each multiprocessor


# Residual and norm


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
    )  # fmt: skip
    return total, out


@triton.jit
def _add_norm(x, delta, weight, total, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < width
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


# Products of few rows


def linear_plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """(B, D), (N, D) -> (B, N); weights in one byte have a scale (N,) float32 (``mm.language.int8``)."""
    return F.linear(x, weight, bias) if scale is None else int8_linear(x, weight, scale, bias)


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
            BLOCK_D=_dot_block(width), num_warps=4, num_stages=4,
        )  # fmt: skip
        return out
    block_n, block_d = _tile(width)
    _linear[(triton.cdiv(outputs, block_n),)](
        x, weight, weight if bias is None else bias, x if scale is None else scale, out, outputs, width,
        weight.stride(0), ROWS=rows, SCALED=scale is not None, BIASED=bias is not None,
        BLOCK_N=block_n, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _linear(
    x, weight, bias, scale, out, outputs, width, stride,
    ROWS: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    sum0 = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    sum1 = sum0
    sum2 = sum0
    sum3 = sum0
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = d < width
        w = tl.load(weight + n[:, None] * stride + d[None, :], mask=(n < outputs)[:, None] & inside[None, :], other=0.0)
        w = w.to(tl.float32)
        sum0 += w * tl.load(x + d, mask=inside, other=0.0).to(tl.float32)[None, :]
        if ROWS > 1:
            sum1 += w * tl.load(x + width + d, mask=inside, other=0.0).to(tl.float32)[None, :]
        if ROWS > 2:
            sum2 += w * tl.load(x + 2 * width + d, mask=inside, other=0.0).to(tl.float32)[None, :]
        if ROWS > 3:
            sum3 += w * tl.load(x + 3 * width + d, mask=inside, other=0.0).to(tl.float32)[None, :]
    shift = tl.zeros((BLOCK_N,), tl.float32)
    if BIASED:
        shift = tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)
    factor = tl.full((BLOCK_N,), 1.0, tl.float32)
    if SCALED:
        factor = tl.load(scale + n, mask=n < outputs, other=0.0)
    kind = out.dtype.element_ty
    tl.store(out + n, (tl.sum(sum0, axis=1) * factor + shift).to(kind), mask=n < outputs)
    if ROWS > 1:
        tl.store(out + outputs + n, (tl.sum(sum1, axis=1) * factor + shift).to(kind), mask=n < outputs)
    if ROWS > 2:
        tl.store(out + 2 * outputs + n, (tl.sum(sum2, axis=1) * factor + shift).to(kind), mask=n < outputs)
    if ROWS > 3:
        tl.store(out + 3 * outputs + n, (tl.sum(sum3, axis=1) * factor + shift).to(kind), mask=n < outputs)


@triton.jit
def _linear_dot(
    x, weight, bias, scale, out, rows, outputs, width, stride,
    BIASED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_B)
    column = tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = (row < rows)[:, None] & (d < width)[None, :]
        value = tl.load(x + row[:, None] * width + d[None, :], mask=inside, other=0.0)
        inside = (n < outputs)[None, :] & (d < width)[:, None]
        w = tl.load(weight + n[None, :] * stride + d[:, None], mask=inside, other=0)
        total += tl.dot(value, w.to(value.dtype), input_precision="ieee")
    total = total * tl.load(scale + n, mask=n < outputs, other=0.0)[None, :]
    if BIASED:
        total += tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (n < outputs)[None, :]
    tl.store(out + row[:, None] * outputs + n[None, :], total.to(out.dtype.element_ty), mask=inside)


def gated_plain(x: Tensor, joint: Tensor, scale: Tensor | None = None) -> Tensor:
    """silu(gate) * up of (B, D) and gates before ups (2 I, D) -> (B, I)."""
    gate, up = linear_plain(x, joint, None, scale).chunk(2, dim=-1)
    return F.silu(gate) * up


def gated(x: Tensor, joint: Tensor, scale: Tensor | None = None) -> Tensor:
    """``gated_plain`` for up to ``MAX_ROWS`` rows."""
    return _gated_pairs(x, joint.unsqueeze(0), scale, None, x.shape[0], 1)


def silu_mul_plain(both: Tensor) -> Tensor:
    """(B, 2 I), gates behind ups -> (B, I)."""
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up


def silu_mul(both: Tensor) -> Tensor:
    """``silu_mul_plain`` in one kernel."""
    rows, width = both.shape[0], both.shape[1] // 2
    out = torch.empty(rows, width, device=both.device, dtype=both.dtype)
    _silu_mul[(rows, triton.cdiv(width, 1024))](both, out, width, BLOCK=1024, num_warps=4)
    return out


@triton.jit
def _silu_mul(both, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(both + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(both + row * 2 * width + width + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, _activated(gate.to(tl.float32), up.to(tl.float32), gate.dtype), mask=inside)


@triton.jit
def _activated(gate, up, kind: tl.constexpr):
    """silu(gate) * up, rounded where torch rounds."""
    gate = gate.to(kind).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    return (silu * up.to(kind).to(tl.float32)).to(kind)


# Experts


def route_plain(
    logits: Tensor, per_token: int, *, softmax: bool, normalize: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Logits (B, E) float32 -> the K best experts (B, K) int64 and their weights (B, K) float32, best first."""
    scores = logits.softmax(dim=-1) if softmax else logits.sigmoid()
    weights, experts = scores.topk(per_token, dim=-1)
    if normalize and per_token > 1:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return experts, weights * scale


def route(logits: Tensor, per_token: int, *, softmax: bool, normalize: bool, scale: float) -> tuple[Tensor, Tensor]:
    """``route_plain`` in one kernel."""
    rows, count = logits.shape
    experts = torch.empty(rows, per_token, device=logits.device, dtype=torch.int64)
    weights = torch.empty(rows, per_token, device=logits.device, dtype=torch.float32)
    _route[(rows,)](
        logits, experts, weights, count, scale,
        PER_TOKEN=per_token, SOFTMAX=softmax, NORMALIZE=normalize and per_token > 1,
        BLOCK=triton.next_power_of_2(count), num_warps=1,
    )  # fmt: skip
    return experts, weights


@triton.jit
def _route(
    logits, experts, weights, count, scale,
    PER_TOKEN: tl.constexpr, SOFTMAX: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    value = tl.load(logits + row * count + expert, mask=expert < count, other=float("-inf"))
    if SOFTMAX:
        raised = tl.exp(value - tl.max(value, axis=0))
        score = raised / tl.sum(raised, axis=0)
    else:
        score = tl.sigmoid(value)
    score = tl.where(expert < count, score, -1.0)
    total = 0.0
    left = score
    for place in tl.static_range(PER_TOKEN):
        best = tl.minimum(tl.argmax(left, axis=0), count - 1)
        tl.store(experts + row * PER_TOKEN + place, best.to(tl.int64))
        total += tl.sum(tl.where(expert == best, score, 0.0), axis=0)
        left = tl.where(expert == best, -2.0, left)
    factor = scale
    if NORMALIZE:
        factor = scale / (total + 1e-20)
    left = score
    for place in tl.static_range(PER_TOKEN):
        best = tl.minimum(tl.argmax(left, axis=0), count - 1)
        tl.store(weights + row * PER_TOKEN + place, tl.sum(tl.where(expert == best, score, 0.0), axis=0) * factor)
        left = tl.where(expert == best, -2.0, left)


def experts_plain(
    x: Tensor,
    joint: Tensor,
    down: Tensor,
    experts: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    scales: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The weighted sum of the chosen experts' outputs, and ``extra`` (B, D) on top.

    Args:
        x: (B, D).
        joint: (E, 2 I, D), gates behind ups.
        down: (E, D, I).
        experts: (B, K) int64.
        weights: (B, K) float32.
        extra: (B, D) or None.
        scales: (E, 2 I) and (E, D) float32 of weights in one byte.
    """
    if scales is not None:
        joint, down = (
            (part * scale.unsqueeze(-1)).to(x.dtype) for part, scale in zip((joint, down), scales, strict=True)
        )
    gate, up = torch.einsum("bd,bkid->bki", x, joint[experts]).chunk(2, dim=-1)
    out = torch.einsum("bki,bkdi->bkd", F.silu(gate) * up, down[experts])
    mixed = (out.float() * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)
    return mixed if extra is None else mixed + extra


def experts(
    x: Tensor,
    joint: Tensor,
    down: Tensor,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    scales: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``experts_plain`` for up to ``MAX_GROUPED_ROWS`` rows: each weight of a chosen expert is read once, or, for up to
    ``MAX_ROWS`` rows, once for each row that chose it."""
    rows, per_token = chosen.shape
    first, second = (None, None) if scales is None else scales
    if rows <= MAX_ROWS:
        hidden = _gated_pairs(x, joint, first, chosen, rows * per_token, per_token)
        return _mixed_pairs(hidden, down, second, chosen, weights, extra)
    return _by_expert(x, joint, first, down, second, chosen, weights, extra)


def _gated_pairs(
    x: Tensor, joint: Tensor, scale: Tensor | None, chosen: Tensor | None, pairs: int, per_token: int
) -> Tensor:
    """(P, I): silu(gate) * up of each pair of a row and an expert; None is one expert that all rows choose."""
    width, inner = x.shape[1], joint.shape[1] // 2
    hidden = torch.empty(pairs, inner, device=x.device, dtype=x.dtype)
    block_n, block_d = _tile(width)
    _gated_pair[(triton.cdiv(inner, block_n), pairs)](
        x, joint, x if scale is None else scale, x if chosen is None else chosen, hidden, inner, width,
        joint.stride(0), joint.stride(1),
        PER_TOKEN=per_token, SCALED=scale is not None, CHOSEN=chosen is not None,
        BLOCK_N=block_n, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    return hidden


@triton.jit
def _gated_pair(
    x, joint, scale, chosen, hidden, inner, width, stride_e, stride_n,
    PER_TOKEN: tl.constexpr, SCALED: tl.constexpr, CHOSEN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    base = joint
    factors = scale
    if CHOSEN:
        base += tl.load(chosen + pair) * stride_e
        factors += tl.load(chosen + pair) * 2 * inner
    row = x + (pair // PER_TOKEN) * width
    gate = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = (n < inner)[:, None] & (d < width)[None, :]
        value = tl.load(row + d, mask=d < width, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(base + n[:, None] * stride_n + d[None, :], mask=inside, other=0.0).to(tl.float32) * value
        up += (
            tl.load(base + (inner + n)[:, None] * stride_n + d[None, :], mask=inside, other=0.0).to(tl.float32) * value
        )
    gates = tl.sum(gate, axis=1)
    ups = tl.sum(up, axis=1)
    if SCALED:
        gates = gates * tl.load(factors + n, mask=n < inner, other=0.0)
        ups = ups * tl.load(factors + inner + n, mask=n < inner, other=0.0)
    result = _activated(gates, ups, hidden.dtype.element_ty)
    tl.store(hidden + pair * inner + n, result, mask=n < inner)


def _mixed_pairs(
    hidden: Tensor, down: Tensor, scale: Tensor | None, chosen: Tensor, weights: Tensor, extra: Tensor | None
) -> Tensor:
    (rows, per_token), (width, inner) = chosen.shape, down.shape[1:]
    out = torch.empty(rows, width, device=hidden.device, dtype=hidden.dtype)
    block_n, block_i = _tile(inner)
    _mixed_pair[(triton.cdiv(width, block_n), rows)](
        hidden, down, hidden if scale is None else scale, chosen, weights, out if extra is None else extra, out,
        inner, width, down.stride(0), down.stride(1),
        PER_TOKEN=per_token, SCALED=scale is not None, EXTRA=extra is not None,
        BLOCK_N=block_n, BLOCK_I=block_i, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _mixed_pair(
    hidden, down, scale, chosen, weights, extra, out, inner, width, stride_e, stride_n,
    PER_TOKEN: tl.constexpr, SCALED: tl.constexpr, EXTRA: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_I)
    kind = out.dtype.element_ty
    mixed = tl.zeros((BLOCK_N,), tl.float32)
    for place in range(PER_TOKEN):
        pair = row * PER_TOKEN + place
        expert = tl.load(chosen + pair)
        base = down + expert * stride_e
        total = tl.zeros((BLOCK_N, BLOCK_I), tl.float32)
        for start in range(0, inner, BLOCK_I):
            i = start + column
            inside = (n < width)[:, None] & (i < inner)[None, :]
            value = tl.load(hidden + pair * inner + i, mask=i < inner, other=0.0).to(tl.float32)[None, :]
            total += tl.load(base + n[:, None] * stride_n + i[None, :], mask=inside, other=0.0).to(tl.float32) * value
        given = tl.sum(total, axis=1)
        if SCALED:
            given = given * tl.load(scale + expert * width + n, mask=n < width, other=0.0)
        mixed += given.to(kind).to(tl.float32) * tl.load(weights + pair)
    result = mixed.to(kind)
    if EXTRA:
        more = tl.load(extra + row * width + n, mask=n < width, other=0.0).to(tl.float32)
        result = (result.to(tl.float32) + more).to(kind)
    tl.store(out + row * width + n, result, mask=n < width)


def _by_expert(
    x: Tensor,
    joint: Tensor,
    joint_scale: Tensor | None,
    down: Tensor,
    down_scale: Tensor | None,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
) -> Tensor:
    (rows, per_token), (count, width, inner) = chosen.shape, down.shape
    block = max(16, triton.next_power_of_2(rows))
    hidden = torch.empty(rows * per_token, inner, device=x.device, dtype=x.dtype)
    output = torch.empty(rows * per_token, width, device=x.device, dtype=x.dtype)
    out = torch.empty_like(x)
    padded = triton.next_power_of_2(per_token)
    _gated_expert[(triton.cdiv(inner, 32), count)](
        x, joint, x if joint_scale is None else joint_scale, chosen, hidden, rows, inner, width,
        joint.stride(0), joint.stride(1), PER_TOKEN=per_token, SCALED=joint_scale is not None,
        PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_D=_dot_block(width), num_warps=4, num_stages=3,
    )  # fmt: skip
    _down_expert[(triton.cdiv(width, 32), count)](
        hidden, down, x if down_scale is None else down_scale, chosen, output, rows, inner, width,
        down.stride(0), down.stride(1), PER_TOKEN=per_token, SCALED=down_scale is not None,
        PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_I=_dot_block(inner), num_warps=4, num_stages=4,
    )  # fmt: skip
    _mix[(triton.cdiv(width, 1024), rows)](
        output, chosen, weights, out if extra is None else extra, out, width,
        PER_TOKEN=per_token, SORTED=False, EXTRA=extra is not None, BLOCK=1024, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _takers(chosen, rows, expert, PER_TOKEN: tl.constexpr, PADDED: tl.constexpr, BLOCK_B: tl.constexpr):
    """Of each row: the pair in which it chose the expert, and whether it did."""
    row = tl.arange(0, BLOCK_B)
    place = tl.arange(0, PADDED)
    inside = (row < rows)[:, None] & (place < PER_TOKEN)[None, :]
    found = tl.load(chosen + row[:, None] * PER_TOKEN + place[None, :], mask=inside, other=-1) == expert
    takes = tl.sum(found.to(tl.int32), axis=1) > 0
    return row * PER_TOKEN + tl.sum(tl.where(found, place[None, :], 0), axis=1), takes


@triton.jit
def _gated_expert(
    x, joint, scale, chosen, hidden, rows, inner, width, stride_e, stride_n,
    PER_TOKEN: tl.constexpr, SCALED: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    pair, takes = _takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
    if tl.sum(takes.to(tl.int32), axis=0) == 0:
        return
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_B)
    column = tl.arange(0, BLOCK_D)
    base = joint + expert.to(tl.int64) * stride_e
    gate = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        value = tl.load(x + row[:, None] * width + d[None, :], mask=takes[:, None] & (d < width)[None, :], other=0.0)
        inside = (n < inner)[None, :] & (d < width)[:, None]
        gates = tl.load(base + n[None, :] * stride_n + d[:, None], mask=inside, other=0)
        ups = tl.load(base + (inner + n)[None, :] * stride_n + d[:, None], mask=inside, other=0)
        gate += tl.dot(value, gates.to(value.dtype), input_precision="ieee")
        up += tl.dot(value, ups.to(value.dtype), input_precision="ieee")
    if SCALED:
        factors = scale + expert * 2 * inner + n
        gate = gate * tl.load(factors, mask=n < inner, other=0.0)[None, :]
        up = up * tl.load(factors + inner, mask=n < inner, other=0.0)[None, :]
    result = _activated(gate, up, hidden.dtype.element_ty)
    tl.store(hidden + pair[:, None] * inner + n[None, :], result, mask=takes[:, None] & (n < inner)[None, :])


@triton.jit
def _down_expert(
    hidden, down, scale, chosen, output, rows, inner, width, stride_e, stride_n,
    PER_TOKEN: tl.constexpr, SCALED: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    pair, takes = _takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
    if tl.sum(takes.to(tl.int32), axis=0) == 0:
        return
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_I)
    base = down + expert.to(tl.int64) * stride_e
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, inner, BLOCK_I):
        i = start + column
        value = tl.load(
            hidden + pair[:, None] * inner + i[None, :], mask=takes[:, None] & (i < inner)[None, :], other=0.0
        )
        weight = tl.load(
            base + n[None, :] * stride_n + i[:, None], mask=(n < width)[None, :] & (i < inner)[:, None], other=0.0
        )
        total += tl.dot(value, weight.to(value.dtype), input_precision="ieee")
    if SCALED:
        total = total * tl.load(scale + expert * width + n, mask=n < width, other=0.0)[None, :]
    result = total.to(output.dtype.element_ty)
    tl.store(output + pair[:, None] * width + n[None, :], result, mask=takes[:, None] & (n < width)[None, :])


@triton.jit
def _mix(
    output, places, weights, extra, out, width,
    PER_TOKEN: tl.constexpr, SORTED: tl.constexpr, EXTRA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    kind = out.dtype.element_ty
    mixed = tl.zeros((BLOCK,), tl.float32)
    for place in range(PER_TOKEN):
        pair = row * PER_TOKEN + place
        source = pair
        if SORTED:
            source = tl.load(places + pair)
        value = tl.load(output + source * width + n, mask=n < width, other=0.0).to(tl.float32)
        mixed += value * tl.load(weights + pair)
    result = mixed.to(kind)
    if EXTRA:
        more = tl.load(extra + row * width + n, mask=n < width, other=0.0).to(tl.float32)
        result = (result.to(tl.float32) + more).to(kind)
    tl.store(out + row * width + n, result, mask=n < width)


def combine_plain(output: Tensor, places: Tensor, weights: Tensor, extra: Tensor | None) -> Tensor:
    """The weighted sum of what the experts of each token gave, from rows in another order.

    Args:
        output: (B * K, D).
        places: (B, K) int64, the row of each pair of a token and an expert.
        weights: (B, K) float32.
        extra: (B, D) on top, or None.
    """
    mixed = (output[places].float() * weights.unsqueeze(-1)).sum(dim=1).to(output.dtype)
    return mixed if extra is None else mixed + extra


def combine(output: Tensor, places: Tensor, weights: Tensor, extra: Tensor | None) -> Tensor:
    """``combine_plain`` in one kernel."""
    (rows, per_token), width = places.shape, output.shape[1]
    out = torch.empty(rows, width, device=output.device, dtype=output.dtype)
    _mix[(triton.cdiv(width, 1024), rows)](
        output, places, weights, out if extra is None else extra, out, width,
        PER_TOKEN=per_token, SORTED=True, EXTRA=extra is not None, BLOCK=1024, num_warps=4,
    )  # fmt: skip
    return out


# Attention of one token


def rotate_and_store(
    joint: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, keys: Tensor, values: Tensor, heads: int
) -> Tensor:
    """Rotate queries and keys (half-split), and write keys and values to their slots.

    Args:
        joint: (B, (H + 2 G) A), queries, keys and values.
        cos: (B, A).
        sin: (B, A).
        positions: (B,) int64.
        keys: cache (B, S, G, A).
        values: likewise.
        heads: H.

    Returns:
        (B, H, A) queries.
    """
    rows, head = joint.shape[0], keys.shape[3]
    query = torch.empty(rows, heads, head, device=joint.device, dtype=joint.dtype)
    _rotate_and_store[(heads + 2 * keys.shape[2], rows)](
        joint, cos, sin, positions, keys, values, query, joint.stride(0), cos.stride(0),
        keys.stride(0), keys.stride(1), keys.stride(2), HEADS=heads, GROUPS=keys.shape[2], HALF=head // 2, num_warps=1,
    )  # fmt: skip
    return query


@triton.jit
def _rotate_and_store(
    joint, cos, sin, positions, keys, values, query, stride_joint, stride_cos, stride_row, stride_slot, stride_head,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    row = tl.program_id(1)
    i = tl.arange(0, HALF)
    source = joint + row * stride_joint + part * 2 * HALF
    first = tl.load(source + i).to(tl.float32)
    second = tl.load(source + HALF + i).to(tl.float32)
    slot = row.to(tl.int64) * stride_row + tl.load(positions + row) * stride_slot
    if part >= HEADS + GROUPS:
        target = values + slot + (part - HEADS - GROUPS) * stride_head
    else:
        angle = row * stride_cos + i
        low = first * tl.load(cos + angle).to(tl.float32) - second * tl.load(sin + angle).to(tl.float32)
        high = second * tl.load(cos + HALF + angle).to(tl.float32) + first * tl.load(sin + HALF + angle).to(tl.float32)
        first = low
        second = high
        if part < HEADS:  # noqa: SIM108 (Triton takes no such expression of pointers)
            target = query + (row * HEADS + part) * 2 * HALF
        else:
            target = keys + slot + (part - HEADS) * stride_head
    kind = query.dtype.element_ty
    tl.store(target + i, first.to(kind))
    tl.store(target + HALF + i, second.to(kind))


def attention_plain(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """One token of each row over the slots up to its own.

    Args:
        query: (B, H, A).
        keys: (B, S, G, A), G dividing H.
        values: likewise.
        positions: (B,) int64, below S.
        scale: of the scores.

    Returns:
        (B, H, A).
    """
    share = query.shape[1] // keys.shape[2]
    keys, values = (part.repeat_interleave(share, dim=2).transpose(1, 2) for part in (keys, values))  # (B, H, S, A)
    mask = torch.arange(keys.shape[2], device=keys.device) <= positions[:, None]  # (B, S)
    out = F.scaled_dot_product_attention(
        query.unsqueeze(2), keys, values, attn_mask=mask[:, None, None], scale=scale
    )  # (B, H, 1, A)
    return out.squeeze(2)


def attention(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """``attention_plain``; a row whose position is not below S attends to its first slot (nobody reads such a row)."""
    (rows, heads, head), slots = query.shape, keys.shape[1]
    splits = _splits(rows * heads, slots)
    parts = torch.empty(rows, heads, splits, head, device=query.device, dtype=torch.float32)
    sums = torch.empty(rows, heads, splits, device=query.device, dtype=torch.float32)
    _attention[(heads, rows, splits)](
        query, keys, values, positions, parts, sums, scale, slots, heads // keys.shape[2],
        keys.stride(0), keys.stride(1), keys.stride(2), HEADS=heads, HEAD=head, SPLITS=splits, BLOCK=32, num_warps=4,
    )  # fmt: skip
    return _joined(parts, sums, query.dtype)


@triton.jit
def _attention(
    query, keys, values, positions, parts, sums, scale, slots, share, stride_row, stride_slot, stride_head,
    HEADS: tl.constexpr, HEAD: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    row = tl.program_id(1)
    split = tl.program_id(2)
    position = tl.load(positions + row)
    length = tl.where(position < slots, position + 1, 1).to(tl.int32)
    share_of = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * share_of
    stop = tl.minimum(start + share_of, length)
    a = tl.arange(0, HEAD)
    offset = row.to(tl.int64) * stride_row + (head // share) * stride_head
    q = tl.load(query + (row * HEADS + head) * HEAD + a).to(tl.float32) * scale
    mixed = tl.zeros((HEAD,), tl.float32)
    total = tl.sum(mixed, axis=0)
    highest = total + float("-inf")
    for first in range(start, stop, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        inside = (slot < stop)[:, None]
        place = offset + slot[:, None].to(tl.int64) * stride_slot + a[None, :]
        key = tl.load(keys + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
        score = tl.where(slot < stop, tl.sum(key * q[None, :], axis=1), float("-inf"))
        top = tl.maximum(highest, tl.max(score, axis=0))
        weight = tl.exp(score - top)
        keep = tl.exp(highest - top)
        mixed = mixed * keep + tl.sum(weight[:, None] * value, axis=0)
        total = total * keep + tl.sum(weight, axis=0)
        highest = top
    index = (row * HEADS + head) * SPLITS + split
    filled = total > 0
    tl.store(parts + index * HEAD + a, mixed / tl.where(filled, total, 1.0))
    tl.store(sums + index, tl.where(filled, highest + tl.log(tl.where(filled, total, 1.0)), float("-inf")))


def _joined(parts: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, P, A) float32 means of P parts and the logarithms (B, H, P) of their sums -> (B, H, A)."""
    rows, heads, splits, head = parts.shape
    out = torch.empty(rows, heads, head, device=parts.device, dtype=dtype)
    _join[(rows * heads,)](
        parts, sums, out, splits, head,
        BLOCK_P=triton.next_power_of_2(splits), BLOCK=triton.next_power_of_2(head), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _join(parts, sums, out, splits, head, BLOCK_P: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0)
    p = tl.arange(0, BLOCK_P)
    a = tl.arange(0, BLOCK)
    level = tl.load(sums + index * splits + p, mask=p < splits, other=float("-inf"))
    weight = tl.exp(level - tl.max(level, axis=0))
    weight = weight / tl.sum(weight, axis=0)
    inside = (p < splits)[:, None] & (a < head)[None, :]
    part = tl.load(parts + (index * splits + p[:, None]) * head + a[None, :], mask=inside, other=0.0)
    result = tl.sum(part * weight[:, None], axis=0)
    tl.store(out + index * head + a, result.to(out.dtype.element_ty), mask=a < head)


# Latent attention of one token


def store_latent_plain(
    query: Tensor,
    compressed: Tensor,
    weight: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    cache: Tensor,
) -> Tensor:
    """Norm the latent, rotate the shared key and the rope part of the queries, and write latent and key to their slot.

    Args:
        query: (B, H, R), interleaved.
        compressed: (B, C + R), the latent and the shared key, interleaved.
        weight: (C,) of the norm.
        eps: of the norm.
        cos: (B, R).
        sin: (B, R).
        positions: (B,) int64.
        cache: (B, S, C + R).

    Returns:
        (B, H, R) rotated.
    """
    rank = weight.shape[0]
    latent, key = compressed.split((rank, cos.shape[1]), dim=-1)
    _, latent = add_norm_plain(latent, None, weight, eps)
    both = torch.cat((query, key.unsqueeze(1)), dim=1).unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    first, second = both.chunk(2, dim=-1)
    both = both * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    rows = torch.arange(len(positions), device=positions.device)
    cache[rows, positions] = torch.cat((latent, both[:, -1]), dim=-1)
    return both[:, :-1]


def store_latent(
    query: Tensor,
    compressed: Tensor,
    weight: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    cache: Tensor,
) -> Tensor:
    """``store_latent_plain`` in one kernel."""
    (rows, heads, rope), rank = query.shape, weight.shape[0]
    out = torch.empty(rows, heads, rope, device=query.device, dtype=query.dtype)
    _store_latent[(heads + 1, rows)](
        query, compressed, weight, eps, cos, sin, positions, cache, out, rank,
        query.stride(0), query.stride(1), compressed.stride(0), cos.stride(0), cache.stride(0), cache.stride(1),
        HEADS=heads, HALF=rope // 2, BLOCK=triton.next_power_of_2(rank), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _store_latent(
    query, compressed, weight, eps, cos, sin, positions, cache, out, rank,
    stride_row, stride_head, stride_compressed, stride_cos, stride_cache, stride_slot,
    HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    row = tl.program_id(1)
    kind = out.dtype.element_ty
    i = tl.arange(0, HALF)
    slot = cache + row.to(tl.int64) * stride_cache + tl.load(positions + row) * stride_slot
    if part == HEADS:
        source = compressed + row * stride_compressed + rank
        target = slot + rank
        c = tl.arange(0, BLOCK)
        latent = tl.load(compressed + row * stride_compressed + c, mask=c < rank, other=0.0).to(tl.float32)
        latent = latent * tl.rsqrt(tl.sum(latent * latent, axis=0) / rank + eps)
        scale = tl.load(weight + c, mask=c < rank, other=0.0).to(tl.float32)
        tl.store(slot + c, (latent.to(kind).to(tl.float32) * scale).to(kind), mask=c < rank)
    else:
        source = query + row * stride_row + part * stride_head
        target = out + (row * HEADS + part) * 2 * HALF
    first = tl.load(source + 2 * i).to(tl.float32)
    second = tl.load(source + 2 * i + 1).to(tl.float32)
    angle = row * stride_cos + i
    low = first * tl.load(cos + angle).to(tl.float32) - second * tl.load(sin + angle).to(tl.float32)
    high = second * tl.load(cos + HALF + angle).to(tl.float32) + first * tl.load(sin + HALF + angle).to(tl.float32)
    tl.store(target + i, low.to(kind))
    tl.store(target + HALF + i, high.to(kind))


def latent_attention_plain(nope: Tensor, rope: Tensor, cache: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """Absorbed attention of one token of each row over the latents up to its own.

    Args:
        nope: (B, H, C), queries times the key half of ``kv_b_proj``.
        rope: (B, H, R).
        cache: (B, S, C + R).
        positions: (B,) int64, below S.
        scale: of the scores.

    Returns:
        (B, H, C), to be multiplied by the value half.
    """
    scores = torch.cat((nope, rope), dim=-1).float() @ cache.float().transpose(1, 2) * scale  # (B, H, S)
    hidden = torch.arange(cache.shape[1], device=cache.device) > positions[:, None]
    weights = scores.masked_fill(hidden[:, None], -torch.inf).softmax(dim=-1)
    return (weights @ cache[..., : nope.shape[2]].float()).to(nope.dtype)


def latent_attention(nope: Tensor, rope: Tensor, cache: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """``latent_attention_plain``, split over the context; a row whose position is not below S attends to its first slot
    (nobody reads such a row)."""
    (rows, heads, rank), slots = nope.shape, cache.shape[1]
    splits = _splits(rows * triton.cdiv(heads, 16), slots)
    parts = torch.empty(rows, heads, splits, rank, device=nope.device, dtype=torch.float32)
    sums = torch.empty(rows, heads, splits, device=nope.device, dtype=torch.float32)
    _latent_attention[(triton.cdiv(heads, 16), rows, splits)](
        nope, rope, cache, positions, parts, sums, scale, slots, nope.stride(0), nope.stride(1),
        rope.stride(0), rope.stride(1), cache.stride(0), cache.stride(1),
        HEADS=heads, RANK=rank, ROPE=rope.shape[2], SPLITS=splits, BLOCK=32, num_warps=4, num_stages=2,
    )  # fmt: skip
    return _joined(parts, sums, nope.dtype)


@triton.jit
def _latent_attention(
    nope, rope, cache, positions, parts, sums, scale, slots,
    stride_nope_row, stride_nope_head, stride_rope_row, stride_rope_head, stride_row, stride_slot,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    split = tl.program_id(2)
    head = tl.program_id(0) * 16 + tl.arange(0, 16)
    known = (head < HEADS)[:, None]
    c = tl.arange(0, RANK)
    r = tl.arange(0, ROPE)
    position = tl.load(positions + row)
    length = tl.where(position < slots, position + 1, 1).to(tl.int32)
    share_of = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * share_of
    stop = tl.minimum(start + share_of, length)
    plain = tl.load(nope + row * stride_nope_row + head[:, None] * stride_nope_head + c[None, :], mask=known, other=0.0)
    turned = tl.load(
        rope + row * stride_rope_row + head[:, None] * stride_rope_head + r[None, :], mask=known, other=0.0
    )
    highest = tl.full((16,), float("-inf"), tl.float32)
    total = tl.zeros((16,), tl.float32)
    mixed = tl.zeros((16, RANK), tl.float32)
    base = cache + row.to(tl.int64) * stride_row
    for first in range(start, stop, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        inside = (slot < stop)[:, None]
        place = base + slot[:, None].to(tl.int64) * stride_slot
        latent = tl.load(place + c[None, :], mask=inside, other=0.0)
        key = tl.load(place + RANK + r[None, :], mask=inside, other=0.0)
        score = tl.dot(plain, tl.trans(latent), input_precision="ieee")
        score += tl.dot(turned, tl.trans(key), input_precision="ieee")
        score = tl.where((slot < stop)[None, :], score * scale, float("-inf"))
        top = tl.maximum(highest, tl.max(score, axis=1))
        weight = tl.exp(score - top[:, None])
        keep = tl.exp(highest - top)
        mixed = mixed * keep[:, None] + tl.dot(weight.to(latent.dtype), latent, input_precision="ieee")
        total = total * keep + tl.sum(weight, axis=1)
        highest = top
    index = (row * HEADS + head) * SPLITS + split
    filled = total > 0
    safe = tl.where(filled, total, 1.0)
    tl.store(parts + index[:, None] * RANK + c[None, :], mixed / safe[:, None], mask=known)
    tl.store(sums + index, tl.where(filled, highest + tl.log(safe), float("-inf")), mask=head < HEADS)


def _splits(programs: int, slots: int) -> int:
    """Parts that a context is split into, so that all of them fill the device; a power of two."""
    wanted = max(1, PROGRAMS // programs)
    most = max(1, slots // SPLIT_SLOTS)
    return int(1 << (min(wanted, most, 64).bit_length() - 1))


def _tile(width: int) -> tuple[int, int]:
    """Outputs of a program, and numbers of a row that it reads at once: 4,096 weights, as little past the end as can
    be."""
    block = min((512, 1024), key=lambda size: (-(-width // size) * size, -size))
    return 4096 // block, block


def _dot_block(width: int) -> int:
    return 128 if width % 128 == 0 else 64 if width % 64 == 0 else 16
