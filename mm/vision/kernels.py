# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped"
"""Triton kernels of the encoders, and beside each the plain function that it equals. Imported only on CUDA.

Letters: N views or windows, A heads, C channels of a head, H and W patches down and across, P = H W.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

LOG2E = 1.4426950408889634


def position_bias_attention_plain(
    query: Tensor, key: Tensor, value: Tensor, per_row: Tensor, per_column: Tensor
) -> Tensor:
    """Attention with a term per row and one per column of patches on top of each score.

    Args:
        query: (N, A, P, C).
        key: likewise.
        value: likewise.
        per_row: (N, A, P, H), of each query for each row of keys.
        per_column: (N, A, P, W).

    Returns:
        (N, P, A, C).
    """
    bias = (per_row[..., :, None] + per_column[..., None, :]).flatten(-2)  # (N, A, P, P)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)


def position_bias_attention(query: Tensor, key: Tensor, value: Tensor, per_row: Tensor, per_column: Tensor) -> Tensor:
    """``position_bias_attention_plain`` without the scores in memory; C a power of two from 16 on. The terms lie behind
    each other in memory, those of one query after those of the one before."""
    (count, heads, patches, channels), down, across = query.shape, per_row.shape[-1], per_column.shape[-1]
    out = torch.empty(count, patches, heads, channels, device=query.device, dtype=query.dtype)
    block = 128 if patches >= 1024 else 64
    _position_bias_attention[(triton.cdiv(patches, block), count * heads)](
        query, key, value, per_row.contiguous(), per_column.contiguous(), out, channels**-0.5 * LOG2E, heads, patches,
        down, across, *query.stride()[:3], *key.stride()[:3], *value.stride()[:3],
        LOG2E=LOG2E, C=channels, BLOCK=block, BLOCK_W=max(16, triton.next_power_of_2(across)),
        num_warps=8 if block == 128 else 4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
def _position_bias_attention(
    query, key, value, per_row, per_column, out, scale, heads, patches, down, across,
    query_view, query_head, query_patch, key_view, key_head, key_patch, value_view, value_head, value_patch,
    LOG2E: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    view = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, C)
    w = tl.arange(0, BLOCK_W)
    known = p < patches
    there = w < across
    query += view * query_view + head * query_head
    key += view * key_view + head * key_head
    value += view * value_view + head * value_head
    line = tl.program_id(1).to(tl.int64) * patches + p  # of the terms
    q = tl.load(query + p[:, None] * query_patch + c[None, :], mask=known[:, None], other=0.0)
    column = tl.load(per_column + line[:, None] * across + w[None, :], mask=known[:, None] & there[None, :], other=0.0)
    column = tl.where(there[None, :], column.to(tl.float32) * LOG2E, float("-inf"))
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, C), tl.float32)
    for row in range(0, down):  # of patches
        slot = row * across + w
        k = tl.load(key + slot[:, None] * key_patch + c[None, :], mask=there[:, None], other=0.0)
        v = tl.load(value + slot[:, None] * value_patch + c[None, :], mask=there[:, None], other=0.0)
        term = tl.load(per_row + line * down + row, mask=known, other=0.0).to(tl.float32) * LOG2E
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale + column + term[:, None]
        top = tl.maximum(highest, tl.max(score, axis=1))
        weight = tl.exp2(score - top[:, None])
        keep = tl.exp2(highest - top)
        mixed = mixed * keep[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        total = total * keep + tl.sum(weight, axis=1)
        highest = top
    target = out + ((view * patches + p[:, None]) * heads + head) * C + c[None, :]
    tl.store(target, (mixed / total[:, None]).to(q.dtype), mask=known[:, None])


def position_terms_plain(query: Tensor, rows: Tensor, columns: Tensor, down: int, across: int) -> tuple[Tensor, Tensor]:
    """The terms of ``position_bias_attention``: queries times the entry for the distance to each row and column.

    Args:
        query: (N, A, P, C).
        rows: (2 H - 1, C), by distance from -(H - 1) on.
        columns: (2 W - 1, C).
        down: H.
        across: W.

    Returns:
        (N, A, P, H) and (N, A, P, W).
    """
    grid = query.unflatten(2, (down, across))  # (N, A, H, W, C)
    h, w = (torch.arange(size, device=query.device) for size in (down, across))
    per_row = torch.einsum("nahwc,hkc->nahwk", grid, rows[h[:, None] - h + down - 1])
    per_column = torch.einsum("nahwc,wkc->nahwk", grid, columns[w[:, None] - w + across - 1])
    return per_row.flatten(2, 3), per_column.flatten(2, 3)


def position_terms(query: Tensor, rows: Tensor, columns: Tensor, down: int, across: int) -> tuple[Tensor, Tensor]:
    """``position_terms_plain`` in one kernel; C a power of two from 16 on, tables contiguous."""
    count, heads, patches, channels = query.shape
    per_row = torch.empty(count, heads, patches, down, device=query.device, dtype=query.dtype)
    per_column = torch.empty(count, heads, patches, across, device=query.device, dtype=query.dtype)
    _position_terms[(max(down, across), 2, count * heads)](
        query, rows, columns, per_row, per_column, heads, down, across, *query.stride()[:3],
        C=channels, BLOCK=max(16, triton.next_power_of_2(max(down, across))), num_warps=4,
    )  # fmt: skip
    return per_row, per_column


@triton.jit
def _position_terms(
    query, rows, columns, per_row, per_column, heads, down, across, query_view, query_head, query_patch,
    C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0)  # a row of patches, or a column
    view = (tl.program_id(2) // heads).to(tl.int64)
    head = (tl.program_id(2) % heads).to(tl.int64)
    j = tl.arange(0, BLOCK)
    c = tl.arange(0, C)
    if tl.program_id(1) == 0:
        table = rows
        target = per_row
        size = down
        known = j < tl.where(line < down, across, 0)
        patch = line * across + j
    else:
        table = columns
        target = per_column
        size = across
        known = j < tl.where(line < across, down, 0)
        patch = j * across + line
    q = tl.load(
        query + view * query_view + head * query_head + patch[:, None] * query_patch + c[None, :],
        mask=known[:, None], other=0.0,
    )  # fmt: skip
    entry = line + size - 1 - j  # for the distance to each row or column of keys
    there = j < tl.where(line < size, size, 0)
    t = tl.load(table + entry[:, None] * C + c[None, :], mask=there[:, None], other=0.0)
    found = tl.dot(q, tl.trans(t), input_precision="ieee")
    place = (tl.program_id(2).to(tl.int64) * down * across + patch[:, None]) * size + j[None, :]
    tl.store(target + place, found.to(target.dtype.element_ty), mask=known[:, None] & there[None, :])


def add_layer_norm_plain(
    x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + delta (..., D), and its layer norm."""
    total = x if delta is None else x + delta
    return total, F.layer_norm(total, weight.shape, weight, bias, eps)


def add_layer_norm(x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``add_layer_norm_plain`` in one kernel; both inputs contiguous."""
    width = x.shape[-1]
    out = torch.empty_like(x)
    total = x if delta is None else torch.empty_like(x)
    _add_layer_norm[(x.numel() // width,)](
        x, x if delta is None else delta, weight, bias, total, out, width, eps,
        ADD=delta is not None, BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return total, out


@triton.jit
def _add_layer_norm(x, delta, weight, bias, total, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + start + column, mask=inside, other=0.0)
    if ADD:
        other = tl.load(delta + start + column, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(value.dtype)
        tl.store(total + start + column, value, mask=inside)
    wide = value.to(tl.float32)
    centred = tl.where(inside, wide - tl.sum(wide, axis=0) / width, 0.0)
    factor = tl.rsqrt(tl.sum(centred * centred, axis=0) / width + eps)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + start + column, (centred * factor * scale + shift).to(out.dtype.element_ty), mask=inside)
