# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of latent attention, and beside each the plain function that it equals.

Letters: B rows, T tokens, H heads, C and R latent rank and rope dims, N and V dims of a head's keys without rope and of
its values, S cache slots.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.attention_kernels import joined, part_of, rotated, splits_of
from mm.language.kernel_launch import launch_options, wait
from mm.language.linear_kernels import add_norm_plain

LATENT_SPLIT_SLOTS = 32  # cache slots a part of attention reads at least; all heads share them
PROGRAMS = 264  # that fill a large GPU: two on each multiprocessor


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
    *,
    in_place: bool = False,
) -> Tensor:
    """``store_latent_plain`` in one kernel; ``in_place`` leaves the rotated queries where they were."""
    (rows, heads, rope), rank = query.shape, weight.shape[0]
    out = query if in_place else torch.empty(rows, heads, rope, device=query.device, dtype=query.dtype)
    _store_latent[(heads + 1, rows)](
        query, compressed, weight, eps, cos, sin, positions, cache, out, rank,
        query.stride(0), query.stride(1), compressed.stride(0), cos.stride(0), cache.stride(0), cache.stride(1),
        out.stride(0), out.stride(1),
        HEADS=heads, HALF=rope // 2, BLOCK=triton.next_power_of_2(rank), num_warps=4, **launch_options(query.device),
    )  # fmt: skip
    return out


@triton.jit
def _store_latent(
    query, compressed, weight, eps, cos, sin, positions, cache, out, rank,
    stride_row, stride_head, stride_compressed, stride_cos, stride_cache, stride_slot, stride_out, stride_out_head,
    HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    row = tl.program_id(1)
    wait(PDL)
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
        target = out + row * stride_out + part * stride_out_head
    first = tl.load(source + 2 * i).to(tl.float32)
    second = tl.load(source + 2 * i + 1).to(tl.float32)
    angle = row * stride_cos + i
    low, high = rotated(first, second, cos, sin, angle, HALF)
    tl.store(target + i, low.to(kind))
    tl.store(target + HALF + i, high.to(kind))


def expanded_plain(both: Tensor, rope: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Keys and values of every head, equally wide as torch's fast attention wants them.

    Args:
        both: (T, H, N + V), the latents times ``kv_b_proj``.
        rope: (T, R), the shared rotated keys.
        values: V, not above N + R.

    Returns:
        (T, H, N + R) twice, the values with zeros behind them.
    """
    nope, value = both.split((both.shape[2] - values, values), dim=-1)
    keys = torch.cat((nope, rope.unsqueeze(1).expand(-1, both.shape[1], -1)), dim=-1)
    return keys, F.pad(value, (0, keys.shape[2] - values))


def expanded(both: Tensor, rope: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """``expanded_plain`` in one kernel; ``both`` contiguous."""
    (tokens, heads, width), turned = both.shape, rope.shape[1]
    nope = width - values
    shape = tokens, heads, nope + turned
    keys, padded = (torch.empty(shape, device=both.device, dtype=both.dtype) for _ in range(2))
    _expanded[(tokens,)](
        both, rope, keys, padded, heads, nope, turned, values, rope.stride(0),
        BLOCK_H=triton.next_power_of_2(heads), BLOCK=triton.next_power_of_2(nope + turned), num_warps=8,
        **launch_options(both.device),
    )  # fmt: skip
    return keys, padded


@triton.jit
def _expanded(
    both, rope, keys, padded, heads, nope, turned, values, stride_rope,
    BLOCK_H: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    head = tl.arange(0, BLOCK_H)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    wait(PDL)
    known = head < heads
    width = nope + turned
    source = both + (token * heads + head) * (nope + values)
    key = tl.load(source + i, mask=known & (i < nope), other=0.0)
    shared = tl.load(rope + token * stride_rope + i - nope, mask=(i >= nope) & (i < width), other=0.0)
    target = (token * heads + head) * width + i
    tl.store(keys + target, tl.where(i < nope, key, shared), mask=known & (i < width))
    value = tl.load(source + nope + i, mask=known & (i < values), other=0.0)
    tl.store(padded + target, value, mask=known & (i < width))


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
    splits = splits_of(PROGRAMS // (rows * triton.cdiv(heads, 16)), slots // LATENT_SPLIT_SLOTS)
    parts = torch.empty(rows, heads, splits, rank, device=nope.device, dtype=torch.float32)
    sums = torch.empty(rows, heads, splits, device=nope.device, dtype=torch.float32)
    _latent_attention[(triton.cdiv(heads, 16), rows, splits)](
        nope, rope, cache, positions, parts, sums, scale, slots, nope.stride(0), nope.stride(1),
        rope.stride(0), rope.stride(1), cache.stride(0), cache.stride(1),
        HEADS=heads, RANK=rank, ROPE=rope.shape[2], SPLITS=splits, BLOCK=32, num_warps=4, num_stages=2,
        **launch_options(nope.device),
    )  # fmt: skip
    return joined(parts, sums, nope.dtype)


@triton.jit
def _latent_attention(
    nope, rope, cache, positions, parts, sums, scale, slots,
    stride_nope_row, stride_nope_head, stride_rope_row, stride_rope_head, stride_row, stride_slot,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    split = tl.program_id(2)
    wait(PDL)
    head = tl.program_id(0) * 16 + tl.arange(0, 16)
    known = (head < HEADS)[:, None]
    c = tl.arange(0, RANK)
    r = tl.arange(0, ROPE)
    start, stop = part_of(tl.load(positions + row), slots, split, SPLITS, BLOCK)
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
