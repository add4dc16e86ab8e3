"""SigLIP towers, built from timm (never our own ViT).

Letters: N views, P patches, W width.
"""

from functools import partial

from timm.layers import GELUTanh
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mm.config import VisionConfig


def build_siglip(config: VisionConfig) -> VisionTransformer:
    """A SigLIP encoder with timm's parameter names: pixels (N, 3, S, S) -> features (N, P, W) after the final norm.

    The attention-pooling head is not built: no DeepSeek model uses it. Checked against the official SigLIP: the same
    tensor names and shapes, bit-equal features.
    """
    return VisionTransformer(
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
