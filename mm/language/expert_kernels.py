# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of a few tokens over many experts, and beside each the plain function that it equals.

Up to ``MAX_ROWS`` rows go pair by pair of a row and an expert, more of them expert by expert on matrix units.

Letters: B rows, D hidden size, E experts, K experts a token, I expert width, P pairs of a row and an expert.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.kernel_launch import launch_options, wait
from mm.language.linear_kernels import MAX_ROWS, TOGETHER, activated, dot_block, gated_plain, silu_mul_plain, times
from mm.language.packing import unpack

Shared = tuple[Tensor, Tensor]
"""The MLP that every token passes: (2 S I, D), gates before ups, and (D, S I), S times as wide as an expert."""


def experts_plain(
    x: Tensor,
    joint: Tensor,
    down: Tensor,
    experts: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    scales: tuple[Tensor, Tensor] | None = None,
    shared: Shared | None = None,
) -> Tensor:
    """The weighted sum of the chosen experts' outputs, and ``extra`` (B, D) or the shared MLP's output on top.

    Args:
        x: (B, D).
        joint: (E, 2 I, D), gates before ups.
        down: (E, D, I).
        experts: (B, K) int64.
        weights: (B, K) float32.
        extra: (B, D) or None.
        scales: of codes (``mm.language.packing``).
        shared: its weights, instead of ``extra``.
    """
    if scales is not None:
        joint, inner = unpack(joint, scales[0], x.shape[1], x.dtype), joint.shape[1] // 2
        down = unpack(down, scales[1], inner, x.dtype)
    hidden = silu_mul_plain(torch.einsum("bd,bkid->bki", x, joint[experts]))
    out = torch.einsum("bki,bkdi->bkd", hidden, down[experts])
    if shared is not None:
        extra = F.linear(gated_plain(x, shared[0]), shared[1])
    return combine_plain(out.flatten(0, 1), None, weights, extra)


def experts(
    x: Tensor,
    joint: Tensor,
    down: Tensor,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    scales: tuple[Tensor, Tensor] | None = None,
    shared: Shared | None = None,
) -> Tensor:
    """``experts_plain`` for up to ``MAX_GROUPED_ROWS`` rows: each weight of a chosen expert is read once, or, for up to
    ``MAX_ROWS`` rows, once for each row that chose it. ``shared`` is for up to ``MAX_ROWS`` rows."""
    first, second = (None, None) if scales is None else scales
    if len(chosen) <= MAX_ROWS:
        hidden = _gated_pairs(x, joint, first, chosen, shared)
        return _mixed_pairs(hidden, down, second, chosen, weights, extra, shared)
    assert shared is None
    return _by_expert(x, joint, first, down, second, chosen, weights, extra)


def _gated_pairs(x: Tensor, joint: Tensor, scale: Tensor | None, chosen: Tensor, shared: Shared | None) -> Tensor:
    """(P, I): silu(gate) * up of each pair of a row and an expert, then those of the shared MLP, S parts a row."""
    (rows, per_token), width, inner = chosen.shape, x.shape[1], joint.shape[1] // 2
    parts = 0 if shared is None else shared[1].shape[1] // inner
    hidden = torch.empty(rows * (per_token + parts), inner, device=x.device, dtype=x.dtype)
    block_d = min(1024, triton.next_power_of_2(width)) if width % 1024 == 0 else 256
    block_n = max(1, 2048 // block_d)
    both = joint if shared is None else shared[0]
    _gated_pair[(triton.cdiv(inner, block_n), rows * (per_token + parts))](
        x, joint, x if scale is None else scale, both, chosen, hidden, inner, width, rows * per_token,
        joint.stride(0), joint.stride(1), both.stride(-2),
        PER_TOKEN=per_token, PARTS=max(1, parts), SCALED=scale is not None,
        BLOCK_N=block_n, BLOCK_D=block_d, TOGETHER=TOGETHER, num_warps=4, **launch_options(x.device),
    )  # fmt: skip
    return hidden


@triton.jit
def _gated_pair(
    x, joint, scale, shared, chosen, hidden, inner, width, pairs, stride_e, stride_n, stride_shared,
    PER_TOKEN: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D)
    known = (n < inner)[:, None]
    wait(PDL)
    if pair >= pairs:  # of the shared MLP
        expert = pair.to(tl.int64) * 0
        row = (pair - pairs) // PARTS
        first = shared + ((pair - pairs) % PARTS) * inner * stride_shared + n[:, None] * stride_shared
        second = first + PARTS * inner * stride_shared
    else:
        expert = tl.load(chosen + pair)
        row = pair // PER_TOKEN
        first = joint + expert * stride_e + n[:, None] * stride_n
        second = first + inner * stride_n
    gate = tl.zeros((BLOCK_N, BLOCK_D // TOGETHER), tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_D // TOGETHER), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = known & (d < width)[None, :]
        gates = tl.load(first + d[None, :], mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
        ups = tl.load(second + d[None, :], mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
        gate += times(gates, x + row * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
        up += times(ups, x + row * width, d, width, BLOCK_N, BLOCK_D, TOGETHER)
    gates = tl.sum(gate, axis=1)
    ups = tl.sum(up, axis=1)
    if SCALED:
        factors = scale + expert * 2 * inner
        gates = gates * tl.load(factors + n, mask=n < inner, other=0.0)
        ups = ups * tl.load(factors + inner + n, mask=n < inner, other=0.0)
    result = activated(gates, ups, hidden.dtype.element_ty)
    tl.store(hidden + pair * inner + n, result, mask=n < inner)


def _mixed_pairs(
    hidden: Tensor,
    down: Tensor,
    scale: Tensor | None,
    chosen: Tensor,
    weights: Tensor,
    extra: Tensor | None,
    shared: Shared | None,
) -> Tensor:
    """(B, D): what the pairs of ``_gated_pairs`` give, weighted and summed."""
    (rows, per_token), (width, inner) = chosen.shape, down.shape[1:]
    parts = 0 if shared is None else shared[1].shape[1] // inner
    out = torch.empty(rows, width, device=hidden.device, dtype=hidden.dtype)
    also = down if shared is None else shared[1]
    _mixed_pair[(width, rows)](
        hidden, down, hidden if scale is None else scale, also, chosen, weights, out if extra is None else extra, out,
        inner, width, rows * per_token, down.stride(0), down.stride(1), also.stride(-2),
        PER_TOKEN=per_token, PARTS=parts, SCALED=scale is not None, EXTRA=extra is not None,
        BLOCK_N=1, BLOCK_I=1024, TOGETHER=TOGETHER, num_warps=1, **launch_options(hidden.device),
    )  # fmt: skip
    return out


@triton.jit
def _mixed_pair(
    hidden, down, scale, shared, chosen, weights, extra, out, inner, width, pairs, stride_e, stride_n, stride_shared,
    PER_TOKEN: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr, EXTRA: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_I: tl.constexpr, TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_I)
    known = (n < width)[:, None]
    kind = out.dtype.element_ty
    wait(PDL)
    mixed = tl.zeros((BLOCK_N, BLOCK_I // TOGETHER), tl.float32)
    for start in range(0, inner, BLOCK_I):
        i = start + column
        inside = known & (i < inner)[None, :]
        for place in tl.static_range(PER_TOKEN):
            pair = row * PER_TOKEN + place
            expert = tl.load(chosen + pair)
            w = tl.load(
                down + expert * stride_e + n[:, None] * stride_n + i[None, :], mask=inside, other=0.0,
                eviction_policy="evict_first",
            ).to(tl.float32)  # fmt: skip
            given = times(w, hidden + pair * inner, i, inner, BLOCK_N, BLOCK_I, TOGETHER)
            if SCALED:
                given = given * tl.load(scale + expert * width + n, mask=n < width, other=0.0)[:, None]
            mixed += given * tl.load(weights + pair)
    result = tl.sum(mixed, axis=1).to(kind)
    if PARTS > 0:
        more = tl.zeros((BLOCK_N, BLOCK_I // TOGETHER), tl.float32)
        for start in range(0, PARTS * inner, BLOCK_I):
            i = start + column
            w = tl.load(
                shared + n[:, None] * stride_shared + i[None, :], mask=known & (i < PARTS * inner)[None, :], other=0.0,
                eviction_policy="evict_first",
            ).to(tl.float32)  # fmt: skip
            source = hidden + (pairs + row * PARTS) * inner
            more += times(w, source, i, PARTS * inner, BLOCK_N, BLOCK_I, TOGETHER)
        result = (result.to(tl.float32) + tl.sum(more, axis=1).to(kind).to(tl.float32)).to(kind)
    store_sum(result, extra + row * width + n, out + row * width + n, n < width, EXTRA)


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
    padded = triton.next_power_of_2(per_token)
    _gated_expert[(triton.cdiv(inner, 32), count)](
        x, joint, x if joint_scale is None else joint_scale, chosen, hidden, rows, inner, width,
        joint.stride(0), joint.stride(1), PER_TOKEN=per_token, SCALED=joint_scale is not None,
        PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_D=dot_block(width), num_warps=4, num_stages=3,
        **launch_options(x.device),
    )  # fmt: skip
    _down_expert[(triton.cdiv(width, 32), count)](
        hidden, down, x if down_scale is None else down_scale, chosen, output, rows, inner, width,
        down.stride(0), down.stride(1), PER_TOKEN=per_token, SCALED=down_scale is not None,
        PADDED=padded, BLOCK_B=block, BLOCK_N=32, BLOCK_I=dot_block(inner), num_warps=4, num_stages=4,
        **launch_options(x.device),
    )  # fmt: skip
    return combine(output, None, weights, extra)


@triton.jit
def takers(chosen, rows, expert, PER_TOKEN: tl.constexpr, PADDED: tl.constexpr, BLOCK_B: tl.constexpr):
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
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    wait(PDL)
    pair, takes = takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
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
        gates = tl.load(base + n[None, :] * stride_n + d[:, None], mask=inside, other=0.0)
        ups = tl.load(base + (inner + n)[None, :] * stride_n + d[:, None], mask=inside, other=0.0)
        gate += tl.dot(value, gates.to(value.dtype), input_precision="ieee")
        up += tl.dot(value, ups.to(value.dtype), input_precision="ieee")
    if SCALED:
        factors = scale + expert * 2 * inner + n
        gate = gate * tl.load(factors, mask=n < inner, other=0.0)[None, :]
        up = up * tl.load(factors + inner, mask=n < inner, other=0.0)[None, :]
    result = activated(gate, up, hidden.dtype.element_ty)
    tl.store(hidden + pair[:, None] * inner + n[None, :], result, mask=takes[:, None] & (n < inner)[None, :])


@triton.jit
def _down_expert(
    hidden, down, scale, chosen, output, rows, inner, width, stride_e, stride_n,
    PER_TOKEN: tl.constexpr, SCALED: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_I: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(1)
    wait(PDL)
    pair, takes = takers(chosen, rows, expert, PER_TOKEN, PADDED, BLOCK_B)
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


def combine_plain(output: Tensor, places: Tensor | None, weights: Tensor, extra: Tensor | None) -> Tensor:
    """The weighted sum of what the experts of each token gave.

    Args:
        output: (B * K, D).
        places: (B, K) int64, the row of each pair of a token and an expert; None where they are in order.
        weights: (B, K) float32.
        extra: (B, D) on top, or None.
    """
    parts = output.view(*weights.shape, -1) if places is None else output[places]  # (B, K, D)
    mixed = (parts.float() * weights.unsqueeze(-1)).sum(dim=1).to(output.dtype)
    return mixed if extra is None else mixed + extra


def combine(output: Tensor, places: Tensor | None, weights: Tensor, extra: Tensor | None) -> Tensor:
    """``combine_plain`` in one kernel."""
    (rows, per_token), width = weights.shape, output.shape[1]
    out = torch.empty(rows, width, device=output.device, dtype=output.dtype)
    _mix[(triton.cdiv(width, 1024), rows)](
        output, weights if places is None else places, weights, out if extra is None else extra, out, width,
        PER_TOKEN=per_token, SORTED=places is not None, EXTRA=extra is not None, BLOCK=1024, num_warps=4,
        **launch_options(output.device),
    )  # fmt: skip
    return out


@triton.jit
def store_sum(result, extra, out, inside, EXTRA: tl.constexpr):
    """Store a rounded sum at ``out``, with what stands at ``extra`` on top."""
    if EXTRA:
        more = tl.load(extra, mask=inside, other=0.0).to(tl.float32)
        result = (result.to(tl.float32) + more).to(result.dtype)
    tl.store(out, result, mask=inside)


@triton.jit
def _mix(
    output, places, weights, extra, out, width,
    PER_TOKEN: tl.constexpr, SORTED: tl.constexpr, EXTRA: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    kind = out.dtype.element_ty
    wait(PDL)
    mixed = tl.zeros((BLOCK,), tl.float32)
    for place in range(PER_TOKEN):
        pair = row * PER_TOKEN + place
        source = pair
        if SORTED:
            source = tl.load(places + pair)
        value = tl.load(output + source * width + n, mask=n < width, other=0.0).to(tl.float32)
        mixed += value * tl.load(weights + pair)
    result = mixed.to(kind)
    store_sum(result, extra + row * width + n, out + row * width + n, n < width, EXTRA)
