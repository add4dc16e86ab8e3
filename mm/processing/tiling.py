"""Geometry of DeepSeek-VL2's dynamic tiling: numbers only, no pixels (arXiv 2412.10302, section 2.1).

An image becomes a global view of one tile and a grid of tiles. Each tile gives ``side`` x ``side`` tokens; the global
view and the grid, taken as one picture, each end every row with a newline token; one separator stands between the two.
"""

import math
from collections.abc import Sequence

Size = tuple[int, int]  # width, height in pixels

MAX_TILED_IMAGES = 2  # more images in a conversation switch tiling off, as published


def tokens_per_side(image_size: int, patch_size: int, ratio: int) -> int:
    """Tokens a side of one tile: complete patches, then ``ratio`` x ``ratio`` of them (padded) become one."""
    return math.ceil((image_size // patch_size) / ratio)


def num_tokens(grid: tuple[int, int], side: int) -> int:
    """Tokens of one image with ``grid`` = (tiles across, tiles down): global view, separator, grid."""
    across, down = grid
    return side * (side + 1) + 1 + side * down * (side * across + 1)


def choose_resolution(size: Size, candidates: Sequence[Size]) -> Size:
    """The candidate that keeps most of the image's pixels, then the one that wastes least, then the first.

    The kept area is that of the image scaled to fit (sides rounded down), at most its own. A scaled side counts as at
    least 1 pixel: the published code fails where every candidate rounds a side to 0 (about 1:3500 and thinner), and
    elsewhere the choice is the same, because a candidate that keeps a whole pixel of that side keeps more.
    """

    def kept_then_wasted(candidate: Size) -> tuple[int, int]:
        scale = min(candidate[0] / size[0], candidate[1] / size[1])
        width, height = (max(int(side * scale), 1) for side in size)
        kept = min(width * height, size[0] * size[1])
        return kept, kept - candidate[0] * candidate[1]

    return max(candidates, key=kept_then_wasted)  # the first of equals


def fit(size: Size, canvas: Size) -> tuple[Size, Size]:
    """Size of an image scaled to fit ``canvas`` with its proportions, and its top left corner when centred.

    Rounds as Pillow's ``ImageOps.pad`` does; a side is at least 1 pixel (``ImageOps.pad`` fails at 0).
    """
    ratio, canvas_ratio = size[0] / size[1], canvas[0] / canvas[1]
    width, height = canvas
    if ratio > canvas_ratio:
        height = max(round(size[1] / size[0] * canvas[0]), 1)
    elif ratio < canvas_ratio:
        width = max(round(size[0] / size[1] * canvas[1]), 1)
    return (width, height), (round((canvas[0] - width) * 0.5), round((canvas[1] - height) * 0.5))
