"""Dense labels for the encoder: which characters stand at each patch.

Every patch is asked for the characters at the centres of its left and right half. The labels are free, because the
renderers know where each glyph is; glyph boxes go through the same resize, padding and tiling as the pixels.

Letters: N views, G patches a side.
"""

import numpy as np
from numpy.typing import NDArray

from mm.processing.tiling import fit
from mm.training.ring import IGNORED_CHARACTER

NUM_CHARACTERS = 256  # 0 is blank, 255 is ignored; between them the bytes of Windows-1252
_MIN_HEIGHT = 5.0  # pixels of a view: a smaller character is not asked for


def character_class(codepoint: int) -> int:
    """Class of a character: its Windows-1252 byte, 0 for blanks, ``IGNORED_CHARACTER`` for what has none."""
    character = chr(codepoint)
    if character.isspace():
        return 0
    encoded = character.encode("cp1252", errors="ignore")
    return encoded[0] if encoded else IGNORED_CHARACTER


def character_map(
    glyphs: NDArray[np.float32], size: tuple[int, int], tiles: tuple[int, int], *, view_size: int, patch_size: int
) -> NDArray[np.uint8]:
    """Labels of all views of an image, the global view first, then the tiles row by row.

    Args:
        glyphs: (num_glyphs, 5) codepoint, left, top, right, bottom in pixels of the image.
        size: width and height of the image.
        tiles: tiles across and down.
        view_size: pixels a side of a view.
        patch_size: pixels a side of a patch, even.

    Returns:
        (1 + across * down, G, G, 2) uint8 classes.
    """
    across, down = tiles
    grid = view_size // patch_size
    overview = _paint(glyphs, size, (view_size, view_size), patch_size)  # (G, G, 2)
    picture = _paint(glyphs, size, (across * view_size, down * view_size), patch_size)  # (down * G, across * G, 2)
    cut = picture.reshape(down, grid, across, grid, 2).swapaxes(1, 2).reshape(-1, grid, grid, 2)
    return np.concatenate((overview[None], cut))


def _paint(
    glyphs: NDArray[np.float32], size: tuple[int, int], canvas: tuple[int, int], patch_size: int
) -> NDArray[np.uint8]:
    """(rows, columns, 2) classes of a canvas of patches; a glyph takes every half patch whose centre it covers, and the
    one under its own centre."""
    columns, rows = 2 * canvas[0] // patch_size, canvas[1] // patch_size
    painted = np.zeros((rows, columns), np.uint8)
    if len(glyphs):
        fitted, (offset_x, offset_y) = fit(size, canvas)
        scale_x, scale_y = fitted[0] / size[0], fitted[1] / size[1]
        half = patch_size / 2
        left, right = glyphs[:, 1] * scale_x + offset_x, glyphs[:, 3] * scale_x + offset_x
        top, bottom = glyphs[:, 2] * scale_y + offset_y, glyphs[:, 4] * scale_y + offset_y
        readable = np.maximum(bottom - top, right - left) >= _MIN_HEIGHT  # of turned text the width is its height
        x0, x1 = _covered(left, right, half, columns)
        y0, y1 = _covered(top, bottom, patch_size, rows)
        for code, seen, a, b, c, d in zip(glyphs[:, 0].astype(int), readable, y0, y1, x0, x1, strict=True):
            painted[a:b, c:d] = character_class(int(code)) if seen else IGNORED_CHARACTER
    return painted.reshape(rows, columns // 2, 2)


def _covered(
    low: NDArray[np.float32], high: NDArray[np.float32], cell: float, count: int
) -> tuple[list[int], list[int]]:
    """First and one past the last cell whose centre lies in [low, high], at least the cell under the middle."""
    middle = np.floor((low + high) / 2 / cell)
    first = np.minimum(np.ceil(low / cell - 0.5), middle)
    last = np.maximum(np.floor(high / cell - 0.5), middle) + 1
    return np.clip(first, 0, count).astype(int).tolist(), np.clip(last, 0, count).astype(int).tolist()
