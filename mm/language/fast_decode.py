"""A whole decoder with the kernels of ``mm.language.decode_kernels``: the function of the modules.

The modules of ``mm.language`` are the plain path: what every other device runs, what trains, and what this is checked
against. Here the same weights are gone through in another order of launches: residual and norm together, one product
for queries, keys and values, rotation and cache in one kernel, attention that reads as many slots as a row has, experts
without sorting. Of a prompt, attention is the modules' own, and experts are sorted as there. Decoders or steps that do
not fit take the plain path.

Letters: see ``mm.language.decode_kernels``.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.devices import on_device
from mm.language import decode_kernels as kernels
from mm.language import int4_kernels
from mm.language.attention import Attention, Step, attend
from mm.language.cache import LayerCache, StaticCache
from mm.language.decoder import Decoder, DecoderLayer
from mm.language.joint import Joint
from mm.language.latent_attention import LatentAttention
from mm.language.layers import GatedMLP, RMSNorm
from mm.language.moe import Experts, MoE, grouped_is_static
from mm.language.quantized import QuantizedExperts, QuantizedLinear
from mm.products import is_plain

DOT = 16  # the matrix units' smallest side


class FastDecode:
    """The steps of one decoder; put to use by ``mm.transforms.kernels``.

    Args:
        decoder: fused (``mm.transforms.fuse``).
    """

    def __init__(self, decoder: Decoder) -> None:
        self._layers = [layer for layer in decoder.model.layers if isinstance(layer, DecoderLayer)]
        self._norm = decoder.model.norm
        self._decoder = decoder
        self.joins_prompts = self.can_join(decoder)  # or not, where a check finds that they differ
        self._joined = [
            (part, part.joint) for part in decoder.modules() if isinstance(part, Attention | LatentAttention | GatedMLP)
        ]
        # What is looked at before every call: layers, and the places of the weights of joint products, as they are now.
        self._layers_held = [  # where it is held, its name there, the layer
            (module._modules, name, child)
            for module in decoder.model.layers.modules()
            for name, child in module.named_children()
            if isinstance(child, nn.Linear | QuantizedLinear)
        ]
        self._experts = [part for part in decoder.modules() if isinstance(part, Experts)]
        self._whole = all(joint is not None and joint.holds(part.joined) for part, joint in self._joined) and all(
            experts.is_joint for experts in self._experts
        )
        joined: list[nn.Module] = [layer for part, _ in self._joined for layer in part.joined]
        joined += [experts for experts in self._experts if not isinstance(experts, QuantizedExperts)]
        self._weights_held = [  # where it is held, its name there, the weight, where its numbers are
            (module._parameters, name, weight, weight.data_ptr())
            for module in joined
            for name, weight in module._parameters.items()
            if weight is not None
        ]

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

    @staticmethod
    def can_join(decoder: Decoder) -> bool:
        """Whether ``prompts`` suits a decoder.

        Not in float16: what stands behind a prompt is no text, and might overflow where text does not. Not with
        quantised weights: a recorded call would hold the wide ones.
        """
        weight = decoder.lm_head.weight
        grouped = any(isinstance(part, Experts) for part in decoder.modules())
        static = not grouped or weight.device.type == "cpu" or grouped_is_static(weight.device, weight.dtype)
        return static and decoder.quantization is None and weight.dtype != torch.float16

    def takes(self, embeds: Tensor, step: Step) -> bool:
        """Whether the kernels are made for this step, and layers and weights are where they were."""
        if (
            embeds.requires_grad
            or embeds.shape[0] * embeds.shape[1] > kernels.MAX_GROUPED_ROWS
            and not self._sorts(embeds)
        ):
            return False
        return (
            self._whole
            and all(held.get(name) is layer for held, name, layer in self._layers_held)
            and all(part.joint is joint for part, joint in self._joined)
            and all(
                held.get(name) is weight and weight.data_ptr() == place and not weight.requires_grad
                for held, name, weight, place in self._weights_held
            )
        )

    def _sorts(self, embeds: Tensor) -> bool:
        """Whether the product of sorted tokens and experts runs without waiting for the host."""
        if not self._experts or embeds.device.type == "cpu":
            return True
        return grouped_is_static(embeds.device, embeds.dtype)

    def __call__(self, embeds: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm."""
        with on_device(embeds):
            x, delta = self._layered(embeds, step, cache)
            return kernels.add_norm(x, delta, self._norm.weight, self._norm.eps)[1].view(embeds.shape)

    def prompts(self, embeds: Tensor, step: Step, cache: StaticCache, last: Tensor) -> Tensor:
        """(B, T, D) -> (B, D) hidden states after the final norm, of the tokens ``last`` (B,)."""
        rows, tokens = embeds.shape[:2]
        with on_device(embeds):
            x, delta = self._layered(embeds, step, cache, torch.arange(rows, device=last.device) * tokens + last)
            return kernels.add_norm(x, delta, self._norm.weight, self._norm.eps)[1]

    def _layered(
        self, embeds: Tensor, step: Step, cache: StaticCache, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> what goes into the last layer's experts (B * T, D), and what they give; or both of the tokens
        ``last`` (B,) of all B * T only, each computed as if it were the only one."""
        parts = 1 if step.rows is None else len(embeds)
        x, delta = embeds.flatten(0, 1).contiguous(), None  # (B * T, D)
        for index, layer in enumerate(self._layers):
            norm = layer.input_layernorm
            x, h = kernels.add_norm(x, delta, norm.weight, norm.eps)
            delta = self.attend(index, h, step, cache)
            norm = layer.post_attention_layernorm
            x, h = kernels.add_norm(x, delta, norm.weight, norm.eps)
            if last is not None and index == len(self._layers) - 1:
                x, delta = x[last], torch.cat([self.feed(index, row) for row in h[last].split(1)])
            else:
                delta = self.feed(index, h, parts)
        assert delta is not None
        return x, delta

    def head(self, hidden: Tensor) -> Tensor | None:
        """(..., D) hidden states of few rows -> (..., V) float32 logits, rounded as the modules' are; None for more."""
        layer = self._decoder.lm_head
        few = hidden.shape[:-1].numel() <= kernels.MAX_ROWS and not hidden.requires_grad
        if not few or not is_plain(layer) or layer.weight.requires_grad or layer.weight.device != hidden.device:
            return None
        rows = hidden.reshape(-1, hidden.shape[-1]).contiguous()
        with on_device(rows):
            logits = kernels.linear(rows, layer.weight, layer.bias)
        return logits.float().view(*hidden.shape[:-1], -1)

    @staticmethod
    def normed(x: Tensor, delta: Tensor, norm: RMSNorm) -> Tensor:
        """The norm of x + delta."""
        return kernels.add_norm(x, delta, norm.weight, norm.eps)[1]

    def attend(self, index: int, h: Tensor, step: Step, cache: StaticCache) -> Tensor:
        """The attention of a layer on its normed input (B * T, D) -> (B * T, D)."""
        attention, stored = self._layers[index].self_attn, cache.layers[index]
        rows, tokens = step.positions.shape
        if step.fresh and step.mask is None and (rows == 1 or step.rows is not None):
            return self._prompts(attention, h, step, stored)
        if tokens > 1 or step.fresh:
            out: Tensor = attention(h.unflatten(0, (rows, tokens)), step, stored)
            return out.flatten(0, 1)
        positions = step.positions[:, 0].contiguous()
        cos, sin = (table[:, 0, 0].contiguous() for table in (step.cos, step.sin))  # (B, R)
        if isinstance(attention, LatentAttention):
            return self._latent(attention, h, step, stored, positions, cos, sin)
        return self._attention(attention, h, step, stored, positions, cos, sin)

    def _prompts(self, attention: Attention | LatentAttention, h: Tensor, step: Step, stored: LayerCache) -> Tensor:
        """The beginnings of prompts, their tokens (B * T, D): to the kernels rows of their own that share a row of the
        cache, or all of its rows one behind the other."""
        rows, tokens = step.positions.shape
        positions = step.positions[0] if step.places is None else step.places  # (B * T,)
        cos, sin = (table.flatten(0, 1)[:, 0] for table in (step.cos, step.sin))  # (B * T, R)
        slots = stored.tensors
        if step.places is not None:
            slots = tuple(tensor.view(1, -1, *tensor.shape[2:]) for tensor in slots)  # a copy would not be the cache
        caches = [tensor.expand(len(h), *tensor.shape[1:]) for tensor in slots]

        def written(kind: int) -> Tensor:
            """(B * T, ...) what has just been stored."""
            return slots[kind][0, :tokens] if step.places is None else slots[kind][0].index_select(0, positions)

        if isinstance(attention, LatentAttention):
            config = attention.config
            query, compressed = self._query_and_latent(attention, h, rows)  # (B * T, H, N + R), (B * T, C + R)
            rope = query[..., config.qk_nope_head_dim :]
            norm = attention.kv_a_layernorm
            kernels.store_latent(rope, compressed, norm.weight, norm.eps, cos, sin, positions, caches[0], in_place=True)
            latent, turned = written(0).split((config.kv_lora_rank, config.qk_rope_head_dim), dim=-1)
            both = _product(latent, attention.kv_b_proj.weight, None, rows).unflatten(-1, (config.num_heads, -1))
            keys, values = kernels.expanded(both, turned, config.v_head_dim)
        else:
            assert attention.joint is not None
            joint = self._linear(h, attention.joint, rows)
            query = kernels.rotate_and_store(
                joint, cos, sin, positions, caches[0], caches[1], attention.config.num_heads
            )
            keys, values = written(0), written(1)
        # One by one: how torch's flash attention splits a row depends on how many there are (ATen's flash_api.cpp).
        split = (part.unflatten(0, (rows, 1, tokens)) for part in (query, keys, values))  # of each (1, T, H, ...)
        parts = [attend(q, k, v, None, scale=attention.scale).flatten(0, 1) for q, k, v in zip(*split, strict=True)]
        mixed = parts[0] if rows == 1 else torch.cat(parts)
        if isinstance(attention, LatentAttention):
            mixed = mixed[..., : attention.config.v_head_dim]
        return self._linear(mixed.flatten(1), attention.o_proj, rows)

    def feed(self, index: int, h: Tensor, parts: int = 1) -> Tensor:
        """The MLP or the experts of a layer on their normed input (B * T, D) -> (B * T, D).

        Args:
            index: of the layer.
            h: the input.
            parts: prompts that it is of, all of one length, whose products are computed apart.
        """
        mlp = self._layers[index].mlp
        return self._moe(mlp, h, parts) if isinstance(mlp, MoE) else self._mlp(mlp, h, parts)

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
        query, compressed = self._query_and_latent(attention, h)
        nope, rope = query.split((config.qk_nope_head_dim, config.qk_rope_head_dim), dim=-1)
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

    def _query_and_latent(self, attention: LatentAttention, h: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
        """(B, D) -> queries (B, H, N + R), and the latent with the shared key (B, C + R)."""
        config = attention.config
        assert attention.joint is not None
        query, compressed = self._linear(h, attention.joint, parts).split(attention.joint.sizes, dim=-1)
        if config.q_lora_rank is not None:
            norm = attention.q_a_layernorm
            normed = kernels.add_norm(query.contiguous(), None, norm.weight, norm.eps)[1]
            query = self._linear(normed, attention.q_b_proj, parts)
        return query.unflatten(-1, (config.num_heads, -1)), compressed

    def _mlp(self, mlp: GatedMLP, h: Tensor, parts: int = 1) -> Tensor:
        assert mlp.joint is not None
        joint = mlp.joint
        if len(h) <= kernels.MAX_ROWS:
            hidden = _few(joint.weight).gated(h, joint.weight, joint.scale)
        else:
            hidden = kernels.silu_mul(self._linear(h, joint, parts))
        return self._linear(hidden, mlp.down_proj, parts)

    def _moe(self, moe: MoE, h: Tensor, parts: int = 1) -> Tensor:
        router, experts = moe.gate, moe.experts
        config = router.config
        routing: dict[str, Any] = {
            "softmax": config.scoring == "softmax",
            "normalize": config.normalize_weights,
            "scale": config.scaling_factor,
        }
        if kernels.MAX_ROWS < len(h) <= kernels.MAX_GROUPED_ROWS:
            chosen, weights = kernels.choose(h, router.weight, config.num_experts_per_token, **routing)
        else:
            if len(h) <= kernels.MAX_ROWS:
                logits = kernels.linear(h, router.weight, dtype=torch.float32)
            else:
                parted = [_routed(some, router.weight) for some in h.chunk(parts)]
                logits = parted[0] if parts == 1 else torch.cat(parted)
            chosen, weights = kernels.route(logits, config.num_experts_per_token, **routing)
        assert experts.joint is not None
        scales = experts.scales if isinstance(experts, QuantizedExperts) else None
        together = self._together(moe, h)
        if together is not None:
            return kernels.experts(h, experts.joint, experts.down_proj, chosen, weights, None, scales, together)
        shared = self._mlp(moe.shared_experts, h, parts) if hasattr(moe, "shared_experts") else None
        if len(h) <= kernels.MAX_GROUPED_ROWS:
            few = _few(experts.joint)
            out: Tensor = few.experts(h, experts.joint, experts.down_proj, chosen, weights, shared, scales)
            return out
        joint, down = (
            _widened(experts, h.dtype) if isinstance(experts, QuantizedExperts) else (experts.joint, experts.down_proj)
        )
        tokens, places, ends = kernels.by_expert(chosen, len(experts.joint))
        hidden = kernels.silu_mul(F.grouped_mm(h[tokens], joint.transpose(1, 2), offs=ends))
        output = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        return kernels.combine(output, places, weights, shared)

    @staticmethod
    def _together(moe: MoE, h: Tensor) -> kernels.Shared | None:
        """The shared MLP's weights, where it is computed in the same launches as the experts."""
        if len(h) > kernels.MAX_ROWS or not hasattr(moe, "shared_experts"):
            return None
        shared, experts = moe.shared_experts, moe.experts
        plain = shared.joint is not None and shared.joint.scale is None and not isinstance(experts, QuantizedExperts)
        if not plain or shared.down_proj.weight.shape[1] % experts.down_proj.shape[2]:
            return None
        assert shared.joint is not None
        return shared.joint.weight, shared.down_proj.weight

    def _linear(self, x: Tensor, layer: nn.Linear | QuantizedLinear | Joint, parts: int = 1) -> Tensor:
        scale = layer.scale if isinstance(layer, QuantizedLinear | Joint) else None
        if len(x) <= (kernels.MAX_ROWS if scale is None else kernels.MAX_GROUPED_ROWS):
            out: Tensor = _few(layer.weight).linear(x, layer.weight, layer.bias, scale)
            return out
        if layer.weight.dtype == torch.uint8:
            assert scale is not None
            return F.linear(x, int4_kernels.widen(layer.weight, scale, x.shape[1], x.dtype), layer.bias)
        if scale is None:
            return _product(x, layer.weight, layer.bias, parts)
        return kernels.linear_plain(x, layer.weight, layer.bias, scale)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    """(parts * T, D), (N, D) -> (parts * T, N), each part by a product of its own: libraries choose how to add up by
    the number of rows, and nobody's numbers are to depend on who else is there."""
    if parts == 1:
        return F.linear(x, weight, bias)
    out = x.new_empty(len(x), len(weight))
    for some, place in zip(x.chunk(parts), out.chunk(parts), strict=True):
        if bias is None:
            torch.mm(some, weight.T, out=place)
        else:
            torch.addmm(bias, some, weight.T, out=place)
    return out


def _routed(h: Tensor, router: Tensor) -> Tensor:
    """(B, D), (E, D) -> (B, E) float32, from products that are not rounded."""
    if h.dtype == torch.float32 or h.device.type == "cpu":
        return kernels.router_plain(h, router)
    return torch.mm(h, router.T, out_dtype=torch.float32)


def _few(weight: Tensor) -> ModuleType:
    """Whose products of few rows take these weights or codes."""
    return int4_kernels if weight.dtype == torch.uint8 else kernels


def _widened(experts: QuantizedExperts, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if experts.joint.dtype != torch.uint8:
        return experts.widened(dtype)
    return (
        int4_kernels.widen(experts.joint, experts.joint_scale, experts.width, dtype),
        int4_kernels.widen(experts.down_proj, experts.down_scale, experts.inner, dtype),
    )
