"""The towers with the kernels of ``mm.vision.kernels``: the function of timm's modules, on the same weights.

Residual and norm are one pass, SAM's position terms never become a matrix of all pairs, attention is cuDNN's where it
takes the heads, and SigLIP's activation is part of the product before it. Few views are one CUDA graph, because
launching takes longer than running then.

Letters: N views, S pixels a side, P patches, H and W patches down and across, A heads, C channels of a head, D width.
"""

from typing import Any

import torch
from timm.layers import GELUTanh
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional as F

from mm.products import is_plain
from mm.vision import kernels
from mm.vision.sam import PositionBiasAttention, SamEncoder


def _normed(x: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    return kernels.add_layer_norm(x, delta, norm.weight, norm.bias, norm.eps)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    """(..., D) -> (..., D)."""
    if isinstance(mlp.act, GELUTanh) and x.dtype != torch.float32:
        flat = x.flatten(0, -2)
        hidden = torch._addmm_activation(mlp.fc1.bias, flat, mlp.fc1.weight.T, use_gelu=True)
        return F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias).view_as(x)
    return F.linear(mlp.act(F.linear(x, mlp.fc1.weight, mlp.fc1.bias)), mlp.fc2.weight, mlp.fc2.bias)


def _embedded(layer: Any, pixels: Tensor) -> Tensor:
    """Pixels (N, 3, S, S) -> patches (N, H, W, D), as a product: a convolution that moves by whole patches is one, and
    cuDNN computes it without matrix units or in other layouts. Rows of whole 16 bytes are what these want."""
    weight = layer.proj.weight.flatten(1)  # (D, 3 * size * size)
    size = layer.proj.weight.shape[-1]
    down, across = (side // size for side in pixels.shape[2:])
    cut = pixels[..., : down * size, : across * size].unflatten(3, (across, size)).unflatten(2, (down, size))
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)
    missing = -weight.shape[1] % 8
    if missing:
        patches, weight = F.pad(patches, (0, missing)), F.pad(weight, (0, missing))
    return F.linear(patches, weight, layer.proj.bias)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(N, A, P, C) three times -> (N, A, P, C). Asked for by name: which attention torch takes is the process's own
    setting, and others use it meanwhile. cuDNN prepares a plan for each number of views, some 50 ms once."""
    if query.dtype == torch.float32 or query.shape[-1] % 8:
        return F.scaled_dot_product_attention(query, key, value)
    out: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]
    return out


class FastSiglip:
    """A SigLIP tower; put to use by ``mm.transforms.towers``.

    Args:
        tower: built by ``mm.vision.encoder``, on CUDA.
    """

    def __init__(self, tower: VisionTransformer) -> None:
        self._tower = tower

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, P, D) after the final norm."""
        tower: Any = self._tower
        x, delta = tower._pos_embed(_embedded(tower.patch_embed, pixels).flatten(1, 2)), None  # (N, P, D)
        for block in tower.blocks:
            x, h = _normed(x, delta, block.norm1)
            layer = block.attn
            joint = F.linear(h, layer.qkv.weight, layer.qkv.bias).unflatten(-1, (3, layer.num_heads, -1))
            query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = attention(query, key, value).transpose(1, 2).flatten(2)
            x, h = _normed(x, F.linear(mixed, layer.proj.weight, layer.proj.bias), block.norm2)
            delta = _mlp(block.mlp, h)
        return _normed(x, delta, tower.norm)[1]


class FastSam:
    """The blocks of a SAM tower; put to use by ``mm.transforms.towers``.

    Args:
        tower: on CUDA.
    """

    def __init__(self, tower: SamEncoder) -> None:
        self._tower = tower

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> what ``SamEncoder`` gives for views that go through it together."""
        tower: Any = self._tower
        x, delta = _embedded(tower.patch_embed, pixels) + tower.pos_embed, None  # (N, H, W, D)
        for index, block in enumerate(tower.blocks):
            x, h = _normed(x, delta, block.norm1)
            windows = block.window_size
            if windows:
                h, padded = window_partition(h, windows)
            mixed = self._attention(block.attn, h)
            if windows:
                mixed = window_unpartition(mixed, windows, (x.shape[1], x.shape[2]), padded)
            x, h = _normed(x, mixed, block.norm2)
            delta = _mlp(block.mlp, h)
            if index == tower.first_global_block:
                first = x + delta
        last = x + delta
        out: Tensor = tower.joined(tower.neck(last.permute(0, 3, 1, 2)), first.permute(0, 3, 1, 2))
        return out

    @staticmethod
    def _attention(layer: PositionBiasAttention, patches: Tensor) -> Tensor:
        """(N, H, W, D) -> (N, H, W, D)."""
        _, down, across, _ = patches.shape
        joint = F.linear(patches, layer.qkv.weight, layer.qkv.bias).flatten(1, 2)
        query, key, value = joint.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        assert layer.rel_pos_h is not None and layer.rel_pos_w is not None
        terms = kernels.position_terms(query, layer.rel_pos_h, layer.rel_pos_w, down, across)
        mixed = kernels.position_bias_attention(query, key, value, *terms)
        return F.linear(mixed.flatten(2), layer.proj.weight, layer.proj.bias).view_as(patches)


def takes(tower: Any) -> bool:
    """Whether a tower's blocks are as timm makes them for SigLIP and SAM: nothing compiled, trained or wrapped."""
    if isinstance(tower, SamEncoder):
        layers: list[Any] = [block.attn for block in tower.blocks]
        heads = [layer.qkv.weight.shape[0] // 3 // layer.num_heads for layer in layers]
        fits = all(size >= 16 and not size & (size - 1) for size in heads)
    else:
        fits = isinstance(tower, VisionTransformer)
    embed = tower.patch_embed
    fits = fits and type(embed.norm) is nn.Identity and embed.proj.stride == embed.proj.kernel_size
    products = [module for module in tower.modules() if isinstance(module, nn.Linear)]
    plain = all(is_plain(layer) and layer.bias is not None for layer in products)
    return fits and plain and not any(parameter.requires_grad for parameter in tower.parameters())
