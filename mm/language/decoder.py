"""The causal decoder behind every family: (dense | MoE) x (MHA/GQA | MLA).

Parameter names are the published ones (``model.layers.0.self_attn.q_proj.weight``, ``lm_head.weight``), except that
routed experts are stacked. Letters: B rows, T tokens, S visible slots, D hidden size, V vocabulary.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from mm.config import DecoderConfig, LatentAttentionConfig
from mm.language.attention import Attention, Step
from mm.language.cache import LayerCache, StaticCache
from mm.language.latent_attention import LatentAttention
from mm.language.layers import GatedMLP, RMSNorm
from mm.language.moe import MoE
from mm.language.rope import Rope


class DecodePath(Protocol):
    """Another way through all layers for the steps that it takes, with the same results."""

    def takes(self, embeds: Tensor, step: Step) -> bool:
        """Whether it is made for this step."""
        ...

    def __call__(self, embeds: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm."""
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
        self.quantization: str | None = None  # see mm.transforms.quantize

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D)."""
        out: Tensor = self.model.embed_tokens(input_ids)
        return out

    def new_cache(self, num_rows: int, length: int) -> StaticCache:
        """An empty cache of ``num_rows`` x ``length`` slots on the decoder's device and in its dtype."""
        weight = self.model.norm.weight
        self.rope.ensure(length, weight.device)
        shapes = tuple(layer.self_attn.cached_shapes() for layer in self.model.layers)  # type: ignore[union-attr, operator]
        return StaticCache.allocate(shapes, num_rows, length, device=weight.device, dtype=weight.dtype)

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
            x = layer(x, step, None if cache is None else cache.layers[index])
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        out: Tensor = self.lm_head(hidden).float()
        return out

    def step_at(self, embeds: Tensor, positions: Tensor, cache: StaticCache) -> Step:
        """What a call with these positions tells every layer."""
        return self._step(embeds, positions, cache, None, None)

    def _step(
        self,
        embeds: Tensor,
        positions: Tensor | None,
        cache: StaticCache | None,
        visible: int | None,
        key_mask: Tensor | None,
    ) -> Step:
        rows, tokens = embeds.shape[:2]
        fresh = positions is None or cache is None
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
