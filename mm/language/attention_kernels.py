# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels of attention of one token, and beside each the plain function that it equals.

A context is split among programs, each of which gives the mean of its part and the logarithm of its sum; ``joined``
puts the parts together.

Letters: B rows, H heads, G key/value heads, A head dimension, S cache slots, P parts of a context.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.kernel_launch import launch_options, wait

SPLIT_SLOTS = 64  # cache slots a part of attention reads at least
ATTENTION_PROGRAMS = 1056  # that fill a large GPU: eight on each multiprocessor


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
        **launch_options(joint.device),
    )  # fmt: skip
    return query


@triton.jit
def rotated(first, second, cos, sin, angle, HALF: tl.constexpr):
    """Both halves of a head, turned by the angles from ``angle`` on."""
    low = first * tl.load(cos + angle).to(tl.float32) - second * tl.load(sin + angle).to(tl.float32)
    high = second * tl.load(cos + HALF + angle).to(tl.float32) + first * tl.load(sin + HALF + angle).to(tl.float32)
    return low, high


@triton.jit
def _rotate_and_store(
    joint, cos, sin, positions, keys, values, query, stride_joint, stride_cos, stride_row, stride_slot, stride_head,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, HALF: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    row = tl.program_id(1)
    wait(PDL)
    i = tl.arange(0, HALF)
    source = joint + row * stride_joint + part * 2 * HALF
    first = tl.load(source + i).to(tl.float32)
    second = tl.load(source + HALF + i).to(tl.float32)
    slot = row.to(tl.int64) * stride_row + tl.load(positions + row) * stride_slot
    if part >= HEADS + GROUPS:
        target = values + slot + (part - HEADS - GROUPS) * stride_head
    else:
        angle = row * stride_cos + i
        first, second = rotated(first, second, cos, sin, angle, HALF)
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
    splits = splits_of(ATTENTION_PROGRAMS // (rows * heads), slots // SPLIT_SLOTS)
    parts = torch.empty(rows, heads, splits, head, device=query.device, dtype=torch.float32)
    sums = torch.empty(rows, heads, splits, device=query.device, dtype=torch.float32)
    _attention[(heads, rows, splits)](
        query, keys, values, positions, parts, sums, scale, slots, heads // keys.shape[2],
        keys.stride(0), keys.stride(1), keys.stride(2), HEADS=heads, HEAD=head, SPLITS=splits, BLOCK=32, num_warps=4,
        **launch_options(query.device),
    )  # fmt: skip
    return joined(parts, sums, query.dtype)


@triton.jit
def part_of(position, slots, split, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """The slots, from one to before another, that a program of ``SPLITS`` reads for a token at ``position``."""
    length = tl.where(position < slots, position + 1, 1).to(tl.int32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * share
    return start, tl.minimum(start + share, length)


@triton.jit
def _attention(
    query, keys, values, positions, parts, sums, scale, slots, share, stride_row, stride_slot, stride_head,
    HEADS: tl.constexpr, HEAD: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    row = tl.program_id(1)
    split = tl.program_id(2)
    wait(PDL)
    start, stop = part_of(tl.load(positions + row), slots, split, SPLITS, BLOCK)
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


def joined(parts: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, P, A) float32 means of P parts and the logarithms (B, H, P) of their sums -> (B, H, A)."""
    rows, heads, splits, head = parts.shape
    out = torch.empty(rows, heads, head, device=parts.device, dtype=dtype)
    _join[(rows * heads,)](
        parts, sums, out, splits, head,
        BLOCK_P=triton.next_power_of_2(splits), BLOCK=triton.next_power_of_2(head), num_warps=4,
        **launch_options(parts.device),
    )  # fmt: skip
    return out


@triton.jit
def _join(parts, sums, out, splits, head, BLOCK_P: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    index = tl.program_id(0)
    wait(PDL)
    p = tl.arange(0, BLOCK_P)
    a = tl.arange(0, BLOCK)
    level = tl.load(sums + index * splits + p, mask=p < splits, other=float("-inf"))
    weight = tl.exp(level - tl.max(level, axis=0))
    weight = weight / tl.sum(weight, axis=0)
    inside = (p < splits)[:, None] & (a < head)[None, :]
    part = tl.load(parts + (index * splits + p[:, None]) * head + a[None, :], mask=inside, other=0.0)
    result = tl.sum(part * weight[:, None], axis=0)
    tl.store(out + index * head + a, result.to(out.dtype.element_ty), mask=a < head)


def splits_of(wanted: int, most: int) -> int:
    """Parts that a context is split into, so that all of them fill the device; a power of two."""
    return int(1 << (max(1, min(wanted, most, 64)).bit_length() - 1))
