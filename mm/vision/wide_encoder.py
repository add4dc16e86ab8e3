"""SigLIP on a CPU with ``mm.products``: the function of timm's modules, on the same weights.

A view goes through a block at a time, so that what stands between two products is still in the cache.

Letters: N views, S pixels a side, P patches, A heads, C channels of a head, D width.
"""

from typing import Any, Literal

import torch
from timm.layers import GELUTanh
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mm.products import attention, is_plain, linear, suits


class WideSiglip:
    """A SigLIP tower; put to use by ``mm.transforms.wide``.

    Args:
        tower: built by ``mm.vision.encoder``, float32 on a CPU, whose activation ``gelu_of`` knows.
    """

    def __init__(self, tower: VisionTransformer) -> None:
        self._tower = tower

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, P, D) after the final norm."""
        tower: Any = self._tower
        if not len(pixels) or not suits(tower.pos_embed[0], tower.blocks[0].attn.qkv.weight):
            out: Tensor = tower.plainly(pixels)
            return out
        return torch.cat([self._view(tower, view) for view in pixels.split(1)])

    @staticmethod
    def _view(tower: Any, pixels: Tensor) -> Tensor:
        """(1, 3, S, S) -> (1, P, D)."""
        x = tower._pos_embed(tower.patch_embed(pixels))  # (1, P, D)
        for block in tower.blocks:
            layer, mlp = block.attn, block.mlp
            joint = linear(block.norm1(x), layer.qkv.weight, layer.qkv.bias)[0].unflatten(-1, (3, layer.num_heads, -1))
            query, key, value = joint.permute(1, 2, 0, 3).unbind(0)  # (A, P, C)
            mixed = attention(query, key, value, scale=layer.scale).flatten(1)[None]
            x = linear(mixed, layer.proj.weight, layer.proj.bias).add_(x)
            hidden = linear(block.norm2(x), mlp.fc1.weight, mlp.fc1.bias, gelu=gelu_of(mlp.act))
            x = linear(hidden, mlp.fc2.weight, mlp.fc2.bias).add_(x)
        out: Tensor = tower.norm(x)
        return out


def gelu_of(activation: nn.Module) -> Literal["none", "tanh"] | None:
    """The form of a GELU, as torch names it; None for anything else."""
    if isinstance(activation, GELUTanh):
        return "tanh"
    return activation.approximate if type(activation) is nn.GELU else None  # type: ignore[return-value]


def takes(tower: Any) -> bool:
    """Whether the blocks of a tower are as timm makes them for SigLIP, and none of it is trained."""
    products = [module for module in tower.modules() if isinstance(module, nn.Linear)]
    known = all(gelu_of(block.mlp.act) is not None for block in tower.blocks)
    return known and all(map(is_plain, products)) and not any(each.requires_grad for each in tower.parameters())
