"""Multi-head latent attention (MLA; DeepSeek-V2, arXiv 2405.04434, section 2.1).

What is cached per token is the normalised latent and one rotated key shared by all heads, never the expanded keys and
values. Two forms of the same function:

* expanded: keys and values of every head are computed from the latents; best when a call brings many tokens;
* absorbed: the key half of ``kv_b_proj`` is multiplied into the query and the value half into the output, so that
  attention runs on the latents themselves; best when few tokens look at many.

Letters: B rows, T tokens of the call, S visible slots, H heads, N/R/V nope, rope and value dims of a
head, C latent rank.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import LatentAttentionConfig, RopeConfig, YarnConfig
from mm.language.attention import Step, attend
from mm.language.cache import LayerCache
from mm.language.joint import Joint, WithJoint
from mm.language.layers import RMSNorm
from mm.language.rope import deinterleave, rotate, yarn_mscale

# The norms of the low-rank projections keep the class default, whatever rms_norm_eps says (published code).
LORA_NORM_EPS = 1e-6


class LatentAttention(WithJoint):
    """MLA with or without a low-rank query."""

    def __init__(self, width: int, config: LatentAttentionConfig, rope: RopeConfig) -> None:
        super().__init__()
        self.config = config
        heads, query_head = config.num_heads, config.qk_nope_head_dim + config.qk_rope_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(width, heads * query_head, bias=False)
        else:
            self.q_a_proj = nn.Linear(width, config.q_lora_rank, bias=config.bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=LORA_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * query_head, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(width, config.cache_width, bias=config.bias)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, eps=LORA_NORM_EPS)
        kv_head = config.qk_nope_head_dim + config.v_head_dim
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, heads * kv_head, bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, width, bias=config.bias)
        self.scale = query_head**-0.5
        if isinstance(rope.scaling, YarnConfig) and rope.scaling.mscale_all_dim:
            self.scale *= yarn_mscale(rope.scaling.factor, rope.scaling.mscale_all_dim) ** 2
        self.joint: Joint | None = None  # of queries and latents; see mm.transforms.fuse
        # Per slot, expanding costs C * (N + V) products a head once; absorbed attention costs (2C + R) - (N + R + V)
        # products more for every token of the call. Below this many tokens absorbing is the cheaper form.
        extra = 2 * config.kv_lora_rank - kv_head
        self.absorb_limit = config.kv_lora_rank * kv_head // max(extra, 1)

    @property
    def query_layer(self) -> nn.Linear:
        """The first layer of the queries."""
        return self.q_proj if self.config.q_lora_rank is None else self.q_a_proj

    @property
    def joined(self) -> tuple[nn.Module, ...]:
        """The layers over the input."""
        return self.query_layer, self.kv_a_proj_with_mqa

    def cached_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of what one token stores: the latent, then the shared rotated key."""
        return ((self.config.cache_width,),)

    def forward(self, x: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.joint is not None:
            query, compressed = self.joint(x, self.joined)
        else:
            query, compressed = self.query_layer(x), self.kv_a_proj_with_mqa(x)
        query_nope, query_rope = self._query(query, step)
        latent, key_rope = compressed.split((self.config.kv_lora_rank, self.config.qk_rope_head_dim), dim=-1)
        latent = self.kv_a_layernorm(latent)
        key_rope = rotate(deinterleave(key_rope.unsqueeze(2)), step.cos, step.sin).squeeze(2)
        stored = torch.cat((latent, key_rope), dim=-1)  # (B, T, C + R)
        if cache is not None:
            cache.write(step.positions, (stored,), step.rows)
            if not step.fresh:
                (stored,) = cache.read(step.visible, step.rows)  # (B, S, C + R)
        absorb = not step.fresh and x.shape[1] <= self.absorb_limit
        form = self._absorbed if absorb else self._expanded
        out: Tensor = self.o_proj(form(query_nope, query_rope, stored, step.mask).flatten(2))
        return out

    def _query(self, query: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """What ``query_layer`` gave -> (B, T, H, N) and the rotated (B, T, H, R)."""
        if self.config.q_lora_rank is not None:
            query = self.q_b_proj(self.q_a_layernorm(query))
        query = query.unflatten(-1, (self.config.num_heads, -1))  # (B, T, H, N + R)
        nope, rope = query.split((self.config.qk_nope_head_dim, self.config.qk_rope_head_dim), dim=-1)
        return nope, rotate(deinterleave(rope), step.cos, step.sin)

    def _expanded(self, query_nope: Tensor, query_rope: Tensor, stored: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, H, N), (B, T, H, R), (B, S, C + R) -> (B, T, H, V), keys and values computed per head."""
        config = self.config
        latent, key_rope = stored.split((config.kv_lora_rank, config.qk_rope_head_dim), dim=-1)
        expanded = self.kv_b_proj(latent).unflatten(-1, (config.num_heads, -1))  # (B, S, H, N + V)
        key_nope, value = expanded.split((config.qk_nope_head_dim, config.v_head_dim), dim=-1)
        key_rope = key_rope.unsqueeze(2).expand(-1, -1, config.num_heads, -1)  # (B, S, H, R)
        query = torch.cat((query_nope, query_rope), dim=-1)
        # Torch's fast attention takes values as wide as keys only.
        padding = max(query.shape[-1] - config.v_head_dim, 0)
        key, value = torch.cat((key_nope, key_rope), dim=-1), F.pad(value, (0, padding))
        out = attend(query, key, value, mask, scale=self.scale, wide=self.joint is not None)
        return out[..., : config.v_head_dim]

    def _absorbed(self, query_nope: Tensor, query_rope: Tensor, stored: Tensor, mask: Tensor | None) -> Tensor:
        """The same as ``_expanded`` without ever expanding ``stored``: heads become queries of one shared key."""
        config = self.config
        tokens, heads = query_nope.shape[1], config.num_heads
        weight = self.kv_b_proj.weight.unflatten(0, (heads, -1))  # (H, N + V, C)
        key_half, value_half = weight.split((config.qk_nope_head_dim, config.v_head_dim), dim=1)
        query = torch.cat((torch.einsum("bthn,hnc->bthc", query_nope, key_half), query_rope), dim=-1)
        # Written out: torch's own attention takes no values narrower than keys but in its slowest form, with copies.
        scores = query.flatten(1, 2) @ stored.transpose(1, 2)  # (B, T * H, S)
        scores = scores.float().unflatten(1, (tokens, heads)) * self.scale  # (B, T, H, S)
        if mask is not None:
            scores = torch.where(mask.transpose(1, 2), scores, -torch.inf)
        weights = scores.softmax(dim=-1).to(stored.dtype).flatten(1, 2)
        mixed = weights @ stored[..., : config.kv_lora_rank]  # (B, T * H, C)
        return torch.einsum("bthc,hvc->bthv", mixed.unflatten(1, (tokens, heads)), value_half)
