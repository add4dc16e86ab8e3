"""The order in which the tokens of an image's views stand in the prompt.

DeepSeek-VL2 (``TileLayout``; tile_tag "2D", global view first):

An image is a global view and ``across`` x ``down`` tiles. Its tokens: each row of the global view and one newline; one
view separator; then all tiles joined to one picture, each of its rows and one newline. The layout is a list of indices
into the flattened features, so that it costs one gather however many images there are.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn


class ViewOrder(nn.Module):
    """Every token as the adaptor made it, view after view: the families that do not cut images into tiles."""

    def forward(self, tokens: Tensor, tile_grids: Tensor) -> Tensor:
        """Tokens (N, M, D) of N images, one view each -> (N * M, D); grids play no part."""
        return tokens.flatten(0, 1)


class BegunViewOrder(nn.Module):
    """JanusFlow: likewise, each view behind a learned vector, which stands in the place of the image's start token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.begin = nn.Parameter(torch.zeros(1, width))

    def forward(self, tokens: Tensor, tile_grids: Tensor) -> Tensor:
        """Tokens (N, M, D) of N images, one view each -> (N * (1 + M), D); grids play no part."""
        begins = self.begin.expand(len(tokens), 1, -1)  # (N, 1, D)
        return torch.cat((begins, tokens), dim=1).flatten(0, 1)


class TileLayout(nn.Module):
    """DeepSeek-VL2's layout with its two vectors, the newline and the view separator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.view_separator = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, tokens: Tensor, tile_grids: Tensor) -> Tensor:
        """Tokens (N, M, D) of all views, M a square number -> (K, D); grids (num_images, 2), tiles across and down."""
        side = math.isqrt(tokens.shape[1])
        table = torch.cat((tokens.flatten(0, 1), self.image_newline[None], self.view_separator[None]))
        return table[layout(side, tile_grids).to(table.device)]


def num_tokens(side: int, across: int, down: int) -> int:
    """Tokens of one image whose views are ``side`` x ``side`` tokens, in ``across`` x ``down`` tiles."""
    return side * (side + 1) + 1 + down * side * (across * side + 1)


def image_layout(side: int, across: int, down: int, *, first: int, newline: int, separator: int) -> Tensor:
    """Indices of one image's tokens, (num_tokens,) int64.

    Args:
        side: tokens a side of a view.
        across: tiles from left to right.
        down: tiles from top to bottom.
        first: index of the image's first feature (its global view; the tiles follow row by row).
        newline: index that stands for the newline vector.
        separator: index that stands for the view separator.
    """
    area = side * side
    view = torch.arange(first, first + area).view(side, side)
    tiles = torch.arange(first + area, first + area * (1 + across * down))
    picture = rearrange(tiles, "(down across h w) -> (down h) (across w)", down=down, across=across, h=side)

    def with_newlines(rows: Tensor) -> Tensor:
        return torch.cat((rows, torch.full((rows.shape[0], 1), newline)), dim=1).flatten()

    return torch.cat((with_newlines(view), torch.tensor([separator]), with_newlines(picture)))


def layout(side: int, tile_grids: Tensor) -> Tensor:
    """Indices of all images in order, (K,) int64, into features flattened to (N * side * side, D) with the newline
    vector appended at N * side * side and the separator after it.

    Args:
        side: tokens a side of a view.
        tile_grids: (num_images, 2) int64, tiles across and down.
    """
    grids = [(int(across), int(down)) for across, down in tile_grids.tolist()]
    area = side * side
    total = area * sum(1 + across * down for across, down in grids)
    parts, first = [], 0
    for across, down in grids:
        parts.append(image_layout(side, across, down, first=first, newline=total, separator=total + 1))
        first += area * (1 + across * down)
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
