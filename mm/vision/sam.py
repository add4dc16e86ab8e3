"""DeepSeek-VL's high-resolution tower: SAM's image encoder, built from timm, and what DeepSeek-VL put behind it.

Letters: N views (or windows), H and W patches down and across, P = H W, A heads, C channels of a head, D width.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from timm.layers.norm import LayerNorm2d
from timm.models.vision_transformer_sam import Attention, Block, VisionTransformerSAM
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import HIGH_VIEWS_PER_PASS, PAIRS_PER_PASS, SamConfig


class PositionBiasAttention(nn.Module):
    """timm's SAM attention on the same parameters, fused, and with no bias of all queries and keys.

    A score is q k / sqrt(C) + q . rel_pos_h[h_q - h_k] + q . rel_pos_w[w_q - w_k] (arXiv 2112.01526, section 4.1; q
    unscaled). timm writes the last two terms out for every pair: 4096 x 4096 numbers a head and view in a global block.
    Here only the terms a query has per row and per column of patches are kept, and are added up for as many queries at
    a time as make ``PAIRS_PER_PASS``. The numbers are the same.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        self.qkv, self.proj = source.qkv, source.proj
        self.rel_pos_h, self.rel_pos_w = source.rel_pos_h, source.rel_pos_w

    def forward(self, patches: Tensor) -> Tensor:
        """(N, H, W, D) -> (N, H, W, D)."""
        count, down, across, _ = patches.shape
        qkv = self.qkv(patches.flatten(1, 2)).unflatten(-1, (3, self.num_heads, -1))  # (N, P, 3, A, C)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, A, P, C) each
        grid = query.unflatten(2, (down, across))  # (N, A, H, W, C)
        per_row = torch.einsum("nahwc,hkc->nahwk", grid, _distances(down, self.rel_pos_h)).flatten(2, 3)  # (N, A, P, H)
        per_column = torch.einsum("nahwc,wkc->nahwk", grid, _distances(across, self.rel_pos_w)).flatten(2, 3)
        passes = max(1, PAIRS_PER_PASS // (count * down * across))  # queries in each
        split = (part.split(passes, dim=2) for part in (query, per_row, per_column))
        parts = [_attend(some, rows, columns, key, value) for some, rows, columns in zip(*split, strict=True)]
        mixed = torch.cat(parts, dim=2).transpose(1, 2)  # (N, P, A, C)
        out: Tensor = self.proj(mixed.flatten(-2)).unflatten(1, (down, across))
        return out


def _attend(query: Tensor, per_row: Tensor, per_column: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Some queries (N, A, Q, C), their terms (N, A, Q, H) and (N, A, Q, W), all keys and values -> (N, A, Q, C)."""
    bias = (per_row[..., :, None] + per_column[..., None, :]).flatten(-2)  # (N, A, Q, P)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _distances(size: int, table: Tensor) -> Tensor:
    """Rows of a table (2 size - 1, C) by query and key position -> (size, size, C)."""
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index[None, :] + size - 1]


class SamEncoder(VisionTransformerSAM):
    """timm's SAM under the published parameter names: pixels (N, 3, S, S) -> features (N, E, G, G).

    Two streams are made alike and added: the last block's output through ``neck``, and the first global block's through
    ``neck_hd``, times a learned number. Each is resized (bilinear) and goes through the same stride-2 convolutions.

    Args:
        config: sizes.
        grid: G, features a side, those of the other tower.
    """

    def __init__(self, config: SamConfig, grid: int) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.num_blocks,
            num_heads=config.num_heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]  # annotated as a class, called
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_blocks,
            neck_chans=config.neck_width,
            num_classes=0,
            global_pool="",
        )
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attn = PositionBiasAttention(block.attn)  # type: ignore[assignment]
        self.first_global_block = config.global_blocks[0]
        self.resized = grid * 2 ** len(config.downsample_widths)
        neck = config.neck_width
        self.neck_hd = nn.Sequential(
            nn.Conv2d(config.width, neck, kernel_size=1, bias=False),
            LayerNorm2d(neck),
            nn.Conv2d(neck, neck, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(neck),
        )
        widths = (neck, *config.downsample_widths)
        self.downsamples = nn.Sequential(
            *(
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)
                for before, after in pairwise(widths)
            )
        )
        self.hd_alpha_downsamples = nn.Parameter(torch.zeros(1))
        self.path: Callable[[Tensor], Tensor] | None = None  # see mm.transforms.towers

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go through their own modules."""
        return {**self.__dict__, "path": None}

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, E, G, G), a few views at a time."""
        plain = self.path is None or not pixels.is_cuda or torch.is_grad_enabled()
        encode = self.encode_plainly if plain or self.path is None else self.path
        return torch.cat([encode(views) for views in pixels.split(HIGH_VIEWS_PER_PASS)])

    def encode_plainly(self, pixels: Tensor) -> Tensor:
        """Views that go through the tower together, by its modules."""
        last, (first,) = self.forward_intermediates(pixels, indices=[self.first_global_block])
        return self.joined(last, first)

    def joined(self, last: Tensor, first: Tensor) -> Tensor:
        """The neck's features (N, C, H, W) of the last block, and the first global block's (N, D, H, W) as they are ->
        (N, E, G, G)."""
        main, details = self._downsample(last), self._downsample(self.neck_hd(first))
        out: Tensor = main + details * self.hd_alpha_downsamples
        return out

    def _downsample(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, E, G, G); resized in float32, as published."""
        size = (self.resized, self.resized)
        resized = F.interpolate(features.float(), size=size, mode="bilinear", align_corners=False)
        out: Tensor = self.downsamples(resized.to(features.dtype))
        return out
