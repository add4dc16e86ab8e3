"""SigLIP towers, built from timm (never our own ViT).

Letters: N views, P patches, W width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import GELUTanh
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mm.config import VisionConfig


class SiglipEncoder(VisionTransformer):
    """timm's tower, and another way through it where there is one."""

    path: Callable[[Tensor], Tensor] | None = None  # see mm.transforms.towers and wide

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go through their own modules."""
        return {**self.__dict__, "path": None}

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Pixels (N, 3, S, S) -> (N, P, W)."""
        other = None if torch.is_grad_enabled() or x.device != self.get_parameter("pos_embed").device else self.path
        if attn_mask is None and not is_causal:  # timm below 1.0.26 knows no is_causal
            return self.plainly(x) if other is None else other(x)
        out: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        return out

    def plainly(self, x: Tensor) -> Tensor:
        """``forward`` by timm's modules."""
        out: Tensor = super().forward(x)
        return out


def build_siglip(config: VisionConfig) -> SiglipEncoder:
    """A SigLIP encoder with timm's parameter names: pixels (N, 3, S, S) -> features (N, P, W) after the final norm.

    The attention-pooling head is not built: no DeepSeek model uses it. Checked against the official SigLIP: the same
    tensor names and shapes, bit-equal features.
    """
    return SiglipEncoder(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.num_blocks,
        num_heads=config.num_heads,
        mlp_ratio=(config.mlp_width + 0.5) / config.width,  # timm truncates the product
        class_token=False,
        global_pool="",
        num_classes=0,
        act_layer=GELUTanh if config.gelu == "tanh" else nn.GELU,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
