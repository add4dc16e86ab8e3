"""Multi-head and grouped-query attention, and what one call of the decoder tells every layer.

Letters: B rows, T tokens of the call, S visible slots, H heads, K key/value heads, A head dimension, D hidden size.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import AttentionConfig
from mm.language.cache import LayerCache
from mm.language.joint import Joint, WithJoint
from mm.language.rope import rotate
from mm.products import LEAST_PLACES, attention, suits


@dataclass(frozen=True)
class Step:
    """Where the tokens of one call stand; the same for every layer.

    ``fresh`` means that the call starts its rows: positions are 0..T-1 and no earlier slot is read. ``rows`` is given
    for prompts (``Decoder.prompts``): which row of the cache each row of the call is, and ``places`` where each of its
    tokens goes in the slots of all rows, one row behind the other.
    """

    positions: Tensor  # (B, T) int64, also the slots written to
    cos: Tensor  # (B, T, 1, R)
    sin: Tensor  # (B, T, 1, R)
    visible: int  # slots read when not fresh
    mask: Tensor | None  # (B, 1, T, S) bool, True = attend; None = plain causal over the call itself
    fresh: bool
    rows: Tensor | None = None  # (B,) int64
    places: Tensor | None = None  # (B * T,) int64

    def to(self, device: torch.device) -> "Step":
        """The same on another device."""
        positions, cos, sin = (tensor.to(device) for tensor in (self.positions, self.cos, self.sin))
        mask, rows, places = (
            None if tensor is None else tensor.to(device) for tensor in (self.mask, self.rows, self.places)
        )
        return replace(self, positions=positions, cos=cos, sin=sin, mask=mask, rows=rows, places=places)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, wide: bool = False
) -> Tensor:
    """Scaled dot-product attention; no mask means causal over equal lengths.

    Args:
        query: (B, T, H, A).
        key: (B, S, K, A) with K dividing H.
        value: (B, S, K, V).
        mask: (B, 1, T, S) bool or None.
        scale: of the scores.
        wide: on a CPU without a mask, use ``mm.products`` where it suits.

    Returns:
        (B, T, H, V).
    """
    share = query.shape[2] // key.shape[2]
    if mask is not None and share > 1 and query.device.type == "cuda":
        # Torch's fast attention takes no mask on CUDA, and the one that does (memory-efficient) no shared heads: it
        # would fall to plain products, which hold the scores of all heads (ATen's sdp_utils.cpp, torch 2.11).
        key, value = (part.repeat_interleave(share, dim=2) for part in (key, value))
    if wide and mask is None and query.shape[1] >= LEAST_PLACES and suits(query, key):
        rows = zip(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), strict=True)
        return torch.stack([attention(*row, scale=scale, causal=True) for row in rows])
    causal = mask is None
    if query.shape[1] == 1:  # a branch, not an expression: compiled for any length, the flag must be a plain bool
        causal = False
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=key.shape[2] != query.shape[2],
    )
    return out.transpose(1, 2)  # (B, T, H, V)


class Attention(WithJoint):
    """Llama's attention: biases as configured, half-split RoPE over the whole head."""

    def __init__(self, width: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        query_width = config.num_heads * config.head_dim
        key_width = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(width, query_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(width, key_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(width, key_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query_width, width, bias=config.output_bias)
        self.scale = config.head_dim**-0.5
        self.joint: Joint | None = None  # of queries, keys and values; see mm.transforms.fuse

    @property
    def joined(self) -> tuple[nn.Module, ...]:
        """The layers over the input."""
        return self.q_proj, self.k_proj, self.v_proj

    def cached_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what one token stores: its keys and its values."""
        shape = (self.config.num_kv_heads, self.config.head_dim)
        return shape, shape

    def forward(self, x: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        head = self.config.head_dim
        if self.joint is not None:
            queries, keys, values = self.joint(x, self.joined)
        else:
            queries, keys, values = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        query = rotate(queries.unflatten(-1, (-1, head)), step.cos, step.sin)  # (B, T, H, A)
        key = rotate(keys.unflatten(-1, (-1, head)), step.cos, step.sin)  # (B, T, K, A)
        value = values.unflatten(-1, (-1, head))  # (B, T, K, A)
        if cache is not None:
            cache.write(step.positions, (key, value), step.rows)
            if not step.fresh:
                key, value = cache.read(step.visible, step.rows)  # (B, S, K, A)
        mixed = attend(query, key, value, step.mask, scale=self.scale, wide=self.joint is not None)
        out: Tensor = self.o_proj(mixed.flatten(2))
        return out
