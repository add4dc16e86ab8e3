"""A whole decoder with the kernels of ``mm.language.decode_kernels``: the function of the modules.

The modules of ``mm.language`` are the plain path: what every other device runs, what trains, and what this is checked
against. Here the same weights are gone through in another order of launches: residual and norm together, one product
for queries, keys and values, rotation and cache in one kernel, attention that reads as many slots as a row has, experts
without sorting. Of a prompt, attention is the modules' own, and experts are sorted as there. Decoders or steps that do
not fit take the plain path.

Letters: see ``mm.language.decode_kernels``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.language import decode_kernels as kernels
from mm.language.attention import Attention, Step
from mm.language.cache import LayerCache, StaticCache
from mm.language.decoder import Decoder, DecoderLayer
from mm.language.int8 import Int8Experts, Int8Linear
from mm.language.joint import Joint
from mm.language.latent_attention import LatentAttention
from mm.language.layers import GatedMLP, RMSNorm
from mm.language.moe import Experts, MoE, by_expert, grouped_is_static

DOT = 16  # the matrix units' smallest side


class FastDecode:
    """The steps of one decoder; put to use by ``mm.transforms.kernels``.

    Args:
        decoder: fused (``mm.transforms.fuse``).
    """

    def __init__(self, decoder: Decoder) -> None:
        self._layers = [layer for layer in decoder.model.layers if isinstance(layer, DecoderLayer)]
        self._norm = decoder.model.norm
        self._joined = [part for part in decoder.modules() if isinstance(part, Attention | LatentAttention | GatedMLP)]
        self._products = [  # module, name, layer
            (module, name, child)
            for module in decoder.model.layers.modules()
            for name, child in module.named_children()
            if isinstance(child, nn.Linear | Int8Linear)
        ]
        self._experts = [part for part in decoder.modules() if isinstance(part, Experts)]

    @staticmethod
    def suits(decoder: Decoder) -> str | None:
        """Why a decoder cannot be run so; None where it can."""
        for layer in decoder.model.layers:
            assert isinstance(layer, DecoderLayer)
            attention, mlp = layer.self_attn, layer.mlp
            if isinstance(attention, LatentAttention):
                config = attention.config
                sizes = (config.kv_lora_rank, config.qk_rope_head_dim)
                if any(size < DOT or size & (size - 1) for size in sizes):
                    return f"latents of {sizes[0]} + {sizes[1]} numbers: powers of two from {DOT} on are needed"
            elif attention.config.head_dim & (attention.config.head_dim - 1):
                return f"heads of {attention.config.head_dim}: a power of two is needed"
            if isinstance(mlp, MoE) and mlp.gate.config.method != "greedy":
                return f"the router's method {mlp.gate.config.method}: greedy is needed"
            if isinstance(mlp, MoE) and mlp.dispatch != "auto":
                return f"experts computed in the form {mlp.dispatch!r}: 'auto' is needed"
            if isinstance(mlp, MoE) and any(size % DOT for size in mlp.experts.down_proj.shape[1:]):
                return f"expert sizes that are no multiples of {DOT}"
        return None

    def takes(self, embeds: Tensor, step: Step) -> bool:
        """Whether the kernels are made for this step, and layers and weights are where they were."""
        if (
            embeds.requires_grad
            or embeds.shape[0] * embeds.shape[1] > kernels.MAX_GROUPED_ROWS
            and not self._sorts(embeds)
        ):
            return False
        same = all(getattr(module, name) is layer for module, name, layer in self._products)
        joined = all(part.joint is not None and part.joint.holds(part.joined) for part in self._joined)
        return same and joined and all(experts.is_joint for experts in self._experts)

    def _sorts(self, embeds: Tensor) -> bool:
        """Whether the product of sorted tokens and experts runs without waiting for the host."""
        if not self._experts or embeds.device.type == "cpu":
            return True
        return grouped_is_static(embeds.device, embeds.dtype)

    def __call__(self, embeds: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm."""
        x, delta = embeds.flatten(0, 1).contiguous(), None  # (B * T, D)
        for index, layer in enumerate(self._layers):
            norm = layer.input_layernorm
            x, h = kernels.add_norm(x, delta, norm.weight, norm.eps)
            delta = self.attend(index, h, step, cache)
            norm = layer.post_attention_layernorm
            x, h = kernels.add_norm(x, delta, norm.weight, norm.eps)
            delta = self.feed(index, h)
        return kernels.add_norm(x, delta, self._norm.weight, self._norm.eps)[1].view(embeds.shape)

    @staticmethod
    def normed(x: Tensor, delta: Tensor, norm: RMSNorm) -> Tensor:
        """The norm of x + delta."""
        return kernels.add_norm(x, delta, norm.weight, norm.eps)[1]

    def attend(self, index: int, h: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """The attention of a layer on its normed input (B * T, D) -> (B * T, D)."""
        attention, stored = self._layers[index].self_attn, cache.layers[index]
        rows, tokens = step.positions.shape
        if tokens > 1 or step.fresh:
            out: Tensor = attention(h.unflatten(0, (rows, tokens)), step, stored)
            return out.flatten(0, 1)
        positions = step.positions[:, 0].contiguous()
        cos, sin = (table[:, 0, 0].contiguous() for table in (step.cos, step.sin))  # (B, R)
        if isinstance(attention, LatentAttention):
            return self._latent(attention, h, step, stored, positions, cos, sin)
        return self._attention(attention, h, step, stored, positions, cos, sin)

    def feed(self, index: int, h: Tensor) -> Tensor:
        """The MLP or the experts of a layer on their normed input (B * T, D) -> (B * T, D)."""
        mlp = self._layers[index].mlp
        return self._moe(mlp, h) if isinstance(mlp, MoE) else self._mlp(mlp, h)

    def _attention(
        self,
        attention: Attention,
        h: Tensor,
        step: Step,
        stored: LayerCache,
        positions: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        keys, values = stored.tensors
        assert attention.joint is not None
        joint = self._linear(h, attention.joint)
        query = kernels.rotate_and_store(joint, cos, sin, positions, keys, values, attention.config.num_heads)
        keys, values = stored.read(step.visible)
        mixed = kernels.attention(query, keys, values, positions, scale=attention.scale)
        return self._linear(mixed.flatten(1), attention.o_proj)

    def _latent(
        self,
        attention: LatentAttention,
        h: Tensor,
        step: Step,
        stored: LayerCache,
        positions: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        config = attention.config
        assert attention.joint is not None
        query, compressed = self._linear(h, attention.joint).split(attention.joint.sizes, dim=-1)
        if config.q_lora_rank is not None:
            norm = attention.q_a_layernorm
            normed = kernels.add_norm(query.contiguous(), None, norm.weight, norm.eps)[1]
            query = self._linear(normed, attention.q_b_proj)
        nope, rope = query.unflatten(-1, (config.num_heads, -1)).split(
            (config.qk_nope_head_dim, config.qk_rope_head_dim), dim=-1
        )
        norm = attention.kv_a_layernorm
        (cache,) = stored.tensors
        rope = kernels.store_latent(rope, compressed, norm.weight, norm.eps, cos, sin, positions, cache)
        halves = attention.kv_b_proj.weight.unflatten(0, (config.num_heads, -1))  # (H, N + V, C)
        key_half, value_half = halves.split((config.qk_nope_head_dim, config.v_head_dim), dim=1)
        absorbed = torch.bmm(nope.transpose(0, 1), key_half).transpose(0, 1)  # (B, H, C)
        (cache,) = stored.read(step.visible)
        mixed = kernels.latent_attention(absorbed, rope, cache, positions, scale=attention.scale)
        values = torch.bmm(mixed.transpose(0, 1), value_half.transpose(1, 2)).transpose(0, 1)  # (B, H, V)
        return self._linear(values.flatten(1), attention.o_proj)

    def _mlp(self, mlp: GatedMLP, h: Tensor) -> Tensor:
        assert mlp.joint is not None
        # Several rows would read the weights once each.
        joint = mlp.joint
        hidden = (
            kernels.gated(h, joint.weight, joint.scale) if len(h) == 1 else kernels.silu_mul(self._linear(h, joint))
        )
        return self._linear(hidden, mlp.down_proj)

    def _moe(self, moe: MoE, h: Tensor) -> Tensor:
        router, experts = moe.gate, moe.experts
        config = router.config
        if len(h) <= kernels.MAX_ROWS:
            logits = kernels.linear(h, router.weight, dtype=torch.float32)
        else:
            logits = F.linear(h.float(), router.weight.float())
        chosen, weights = kernels.route(
            logits,
            config.num_experts_per_token,
            softmax=config.scoring == "softmax",
            normalize=config.normalize_weights,
            scale=config.scaling_factor,
        )
        assert experts.joint is not None
        shared = self._mlp(moe.shared_experts, h) if hasattr(moe, "shared_experts") else None
        if len(h) <= kernels.MAX_GROUPED_ROWS:
            scales = experts.scales if isinstance(experts, Int8Experts) else None
            return kernels.experts(h, experts.joint, experts.down_proj, chosen, weights, shared, scales)
        joint, down = (
            experts.widened(h.dtype) if isinstance(experts, Int8Experts) else (experts.joint, experts.down_proj)
        )
        order, ends = by_expert(chosen, len(experts.joint))
        rows = h[order // chosen.shape[1]]  # (B * K, D), expert after expert
        hidden = kernels.silu_mul(F.grouped_mm(rows, joint.transpose(1, 2), offs=ends))
        output = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return kernels.combine(output, places.view_as(chosen), weights, shared)

    def _linear(self, x: Tensor, layer: nn.Linear | Int8Linear | Joint) -> Tensor:
        scale = layer.scale if isinstance(layer, Int8Linear | Joint) else None
        if len(x) <= (kernels.MAX_ROWS if scale is None else kernels.MAX_GROUPED_ROWS):
            return kernels.linear(x, layer.weight, layer.bias, scale)
        return kernels.linear_plain(x, layer.weight, layer.bias, scale)
