"""The causal decoder behind every family: (dense | MoE) x (MHA/GQA | MLA).

Parameter names are the published ones (``model.layers.0.self_attn.q_proj.weight``, ``lm_head.weight``), except that
routed experts are stacked. Letters: B rows, T tokens, S visible slots, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from mm.config import DecoderConfig, LatentAttentionConfig, Quantization
from mm.contracts import Cache
from mm.language.attention import Attention, Step
from mm.language.cache import LayerCache, StaticCache
from mm.language.latent_attention import LatentAttention
from mm.language.layers import GatedMLP, RMSNorm
from mm.language.moe import MoE
from mm.language.rope import Rope


class DecodePath(Protocol):
    """Another way through all layers for the steps that it takes, with the same results."""

    joins_prompts: bool
    """See ``mm.contracts.Decoder.joins_prompts``."""

    def takes(self, embeds: Tensor, step: Step) -> bool:
        """Whether it is made for this step."""
        ...

    def __call__(self, embeds: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm."""
        ...

    def prompts(self, embeds: Tensor, step: Step, cache: StaticCache, last: Tensor) -> Tensor:
        """(B, T, D) -> (B, D) hidden states after the final norm, of the tokens ``last`` (B,); see
        ``Decoder.prompts``."""
        ...

    def head(self, hidden: Tensor) -> Tensor | None:
        """(..., D) hidden states -> (..., V) float32 logits; None where it is not made for these."""
        ...


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.input_layernorm = RMSNorm(width, eps=config.rms_norm_eps)
        self.self_attn: Attention | LatentAttention
        if isinstance(config.attention, LatentAttentionConfig):
            self.self_attn = LatentAttention(width, config.attention, config.rope)
        else:
            self.self_attn = Attention(width, config.attention)
        self.post_attention_layernorm = RMSNorm(width, eps=config.rms_norm_eps)
        self.mlp: MoE | GatedMLP
        if config.moe is not None and config.is_moe_layer(index):
            self.mlp = MoE(width, config.moe)
        else:
            self.mlp = GatedMLP(width, config.mlp_width)

    def forward(self, x: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), step, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class DecoderStack(nn.Module):
    """Embedding, layers and final norm: what checkpoints call ``model``."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Decoder(nn.Module):
    """See ``mm.contracts.Decoder`` for the meaning of every argument."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.max_positions = config.max_positions
        self.model = DecoderStack(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        attention = config.attention
        rotated = attention.qk_rope_head_dim if isinstance(attention, LatentAttentionConfig) else attention.head_dim
        self.rope = Rope(config.rope, rotated, config.max_positions)
        self.path: DecodePath | None = None  # see mm.transforms.kernels
        self.quantization: Quantization | None = None  # see mm.transforms.quantize
        self.placement: tuple[torch.device, ...] | None = None  # of each layer; None: all is on one device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        norm = self.model.norm
        before = norm.weight.device, norm.weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (norm.weight.device, norm.weight.dtype) != before:
            self.path = None  # it was made for the weights where they were
        if self.placement is not None:
            self.read_placement()
        return self

    def read_placement(self) -> None:
        """See where the layers are, after they were put on several devices (``mm.transforms.split``).

        What comes in and goes out of a call is where the token embeddings are.
        """
        layers = [layer for layer in self.model.layers if isinstance(layer, DecoderLayer)]
        places = tuple(layer.input_layernorm.weight.device for layer in layers)
        ends = {part.weight.device for part in (self.model.embed_tokens, self.model.norm, self.lm_head)}
        self.placement = places if len({*places, *ends}) > 1 else None

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D)."""
        out: Tensor = self.model.embed_tokens(input_ids)
        return out

    def new_cache(self, num_rows: int, length: int) -> StaticCache:
        """An empty cache of ``num_rows`` x ``length`` slots on the decoder's device and in its dtype."""
        weight = self.model.norm.weight
        self.rope.ensure(length, self.model.embed_tokens.weight.device)
        shapes = tuple(layer.self_attn.cached_shapes() for layer in self.model.layers)  # type: ignore[union-attr, operator]
        if self.placement is None:
            return StaticCache.allocate(shapes, num_rows, length, device=weight.device, dtype=weight.dtype)
        parts = [
            StaticCache.allocate((shape,), num_rows, length, device=device, dtype=weight.dtype)
            for shape, device in zip(shapes, self.placement, strict=True)
        ]
        return StaticCache(tuple(part.layers[0] for part in parts))

    def forward(
        self,
        embeds: Tensor,
        *,
        positions: Tensor | None = None,
        cache: StaticCache | None = None,
        visible: int | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm."""
        step = self._step(embeds, positions, cache, visible, key_mask)
        if self.path is not None and cache is not None and key_mask is None and self.path.takes(embeds, step):
            return self.path(embeds, step, cache)
        x = embeds
        for index, layer in enumerate(self.model.layers):
            if self.placement is not None and self.placement[index] != x.device:
                x, step = x.to(self.placement[index]), step.to(self.placement[index])
            x = layer(x, step, None if cache is None else cache.layers[index])
        out: Tensor = self.model.norm(x.to(self.model.norm.weight.device))
        return out.to(embeds.device)

    @property
    def joins_prompts(self) -> bool:
        """See ``mm.contracts.Decoder``."""
        return self.path is not None and self.path.joins_prompts

    def prompts(
        self,
        embeds: Tensor,
        *,
        rows: Tensor,
        starts: Tensor,
        counts: Tensor,
        cache: Cache,
        visible: int | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, D) hidden states after the final norm; see ``mm.contracts.Decoder``."""
        assert isinstance(cache, StaticCache)
        step, embeds = self.prompts_step(embeds, rows, starts, counts, cache, visible)
        last = counts - 1
        if self.path is not None and self.path.takes(embeds, step):
            return self.path.prompts(embeds, step, cache, last)
        x = embeds
        for layer, stored in zip(self.model.layers, cache.layers, strict=True):
            x = layer(x, step, stored)
        found: Tensor = self.model.norm(x[torch.arange(len(x), device=x.device), last])
        return found

    def prompts_step(
        self, embeds: Tensor, rows: Tensor, starts: Tensor, counts: Tensor, cache: StaticCache, visible: int | None
    ) -> tuple[Step, Tensor]:
        """What ``prompts`` tells every layer, and the embeddings (B, T, D), zeros behind each prompt."""
        order = torch.arange(embeds.shape[1], device=embeds.device)
        inside = order < counts.unsqueeze(1)  # (B, T)
        positions = torch.where(inside, starts.unsqueeze(1) + order, cache.length - 1)
        places = (rows.unsqueeze(1) * cache.length + positions).flatten()
        step = self._step(embeds, positions, cache, visible, None, fresh=visible is None)
        # What stands behind may be left over from anything, and be no number.
        return replace(step, rows=rows, places=places), torch.where(inside.unsqueeze(-1), embeds, 0)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        if self.path is not None:
            found = self.path.head(hidden)
            if found is not None:
                return found
        out: Tensor = self.lm_head(hidden.to(self.lm_head.weight.device)).float()
        return out.to(hidden.device)

    def step_at(self, embeds: Tensor, positions: Tensor | None, cache: StaticCache) -> Step:
        """What a call with these positions tells every layer."""
        return self._step(embeds, positions, cache, None, None)

    def _step(
        self,
        embeds: Tensor,
        positions: Tensor | None,
        cache: StaticCache | None,
        visible: int | None,
        key_mask: Tensor | None,
        *,
        fresh: bool = False,
    ) -> Step:
        rows, tokens = embeds.shape[:2]
        fresh = fresh or positions is None or cache is None
        if cache is None:
            self.rope.ensure(tokens, embeds.device)
        if positions is None:
            positions = torch.arange(tokens, device=embeds.device).expand(rows, tokens)
        if fresh:
            seen = tokens
        else:
            assert cache is not None
            seen = cache.length if visible is None else visible
        mask = None
        if not fresh or key_mask is not None:
            # Fresh calls are causal by order (their positions may repeat or skip); later calls by slot.
            order = torch.arange(tokens, device=embeds.device).expand(rows, tokens) if fresh else positions
            slots = torch.arange(seen, device=embeds.device)
            mask = slots <= order.unsqueeze(-1)  # (B, T, S)
            if key_mask is not None:
                mask = mask & key_mask.unsqueeze(1)
            mask = mask.unsqueeze(1)  # (B, 1, T, S)
        cos, sin = self.rope(positions, embeds.dtype)
        return Step(positions=positions, cos=cos, sin=sin, visible=seen, mask=mask, fresh=fresh)
