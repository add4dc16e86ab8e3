"""What stands in a picture of coloured shapes, found from its pixels alone.

The background is the most frequent colour of the border. What differs from it falls into connected pieces; the colour
of a piece is the name nearest to the colour of its inside, and its shape the outline that covers it best once both were
moved and scaled to one middle and area. A piece that no outline covers well (two objects that touch, a blob) has no
shape and is right for no prompt. Outlines and colours are written down here, apart from everything that draws.

Letters: H W pixels down and across, P pieces, G samples a side of a normalised piece, O outlines.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]
Corners = list[tuple[float, float]]

COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((218, 32, 36), (240, 20, 20)),
    "orange": ((250, 140, 24), (255, 160, 20)),
    "yellow": ((250, 222, 45), (255, 245, 60)),
    "green": ((34, 145, 58), (70, 175, 75)),
    "blue": ((32, 78, 212), (60, 110, 238), (15, 15, 245)),
    "cyan": ((58, 204, 226), (10, 225, 235)),
    "purple": ((122, 42, 160), (140, 62, 188)),
    "pink": ((250, 150, 195), (255, 120, 182)),
    "brown": ((122, 74, 35), (100, 62, 42)),
    "black": ((14, 14, 16), (30, 30, 32)),
    "white": ((250, 250, 250), (243, 243, 241)),
    "gray": ((138, 139, 140), (118, 119, 122), (158, 158, 160)),
}
"""Looks that each name has; a colour has the name of the nearest look."""

SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "hexagon", "cross")

_DIFFERENT = 42.0  # distance in RGB from which a pixel is not of the background
_SPECK = 0.0016  # share of the picture's area below which a piece is dirt
_EXTENTS = {"square": 0.85, "triangle": 0.87, "star": 0.95, "diamond": 1.09}
"""Half the longer side of a shape that stands upright, in radii; 1 where nothing is said."""

_SAMPLES = 40  # a side of a normalised piece
_REACH = 2.2  # half the side of the sampled square, in units of the square root of the piece's area
_COVERED = 0.8  # overlap with its outline (intersection over union) from which a piece is a shape


@dataclass(frozen=True)
class Piece:
    """One object. ``shape`` is "" where no outline fits; lengths are shares of the shorter side of the picture."""

    colour: str
    shape: str
    fit: float  # intersection over union with the outline
    x: float  # middle of its box, 0..1 across
    y: float  # 0..1 down
    radius: float  # of the circle that a shape of this size is drawn in, see ``_EXTENTS``


@dataclass(frozen=True)
class Seen:
    """All that is in a picture."""

    background: str
    pieces: tuple[Piece, ...]


def look(image: Image.Image) -> Seen:
    """Find background and objects of a picture in RGB."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)  # (H, W, 3)
    ground = _ground(pixels)
    other = np.linalg.norm(pixels - ground, axis=2) > _DIFFERENT  # (H, W)
    least = _SPECK * other.size
    masks = [mask for mask in _connected(other) if mask.sum() >= least]
    return Seen(name_colour(ground), tuple(_piece(mask, pixels) for mask in masks))


def name_colour(rgb: NDArray[np.float32]) -> str:
    """The name of a colour (3,), 0..255."""
    names = [name for name, looks in COLOURS.items() for _ in looks]
    looks = np.array([one for many in COLOURS.values() for one in many], dtype=np.float32)
    return names[int(np.linalg.norm(looks - rgb, axis=1).argmin())]


def _ground(pixels: Pixels) -> NDArray[np.float32]:
    """The most frequent colour of the border, (3,)."""
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, :3].reshape(-1, 3),
                             pixels[:, -3:].reshape(-1, 3)])  # fmt: skip
    cells, counts = np.unique((border // 24).astype(np.int64) @ np.array([121, 11, 1]), return_counts=True)
    most = cells[counts.argmax()]
    kept = border[(border // 24).astype(np.int64) @ np.array([121, 11, 1]) == most]
    near = border[np.linalg.norm(border - np.median(kept, axis=0), axis=1) < _DIFFERENT]
    middle: NDArray[np.float32] = np.median(near, axis=0).astype(np.float32)
    return middle


def _connected(mask: Mask) -> list[Mask]:
    """The pieces of a mask whose pixels touch at a side, found run by run."""
    runs: list[tuple[int, int, int]] = []  # row, first column, one past the last
    parent: list[int] = []

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above: list[int] = []
    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(np.int8), [0]))))
        here = []
        for start, stop in edges.reshape(-1, 2):
            run = len(runs)
            runs.append((row, int(start), int(stop)))
            parent.append(run)
            here.append(run)
            for other in above:
                if runs[other][1] < stop and runs[other][2] > start:
                    parent[root(other)] = root(run)
        above = here
    pieces: dict[int, Mask] = {}
    for run, (row, start, stop) in enumerate(runs):
        pieces.setdefault(root(run), np.zeros_like(mask))[row, start:stop] = True
    return list(pieces.values())


def _piece(mask: Mask, pixels: Pixels) -> Piece:
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    inside = _shrunk(mask)
    colour = name_colour(np.median(pixels[inside if inside.any() else mask], axis=0).astype(np.float32))
    area = float(mask.sum())
    sampled = _normalised(mask, columns.mean(), rows.mean(), math.sqrt(area))
    shapes, grids, lengths = _outlines()
    shared = grids @ sampled  # (O,)
    fits = shared / (grids.sum(axis=1) + sampled.sum() - shared)
    best = int(fits.argmax())
    return Piece(
        colour=colour,
        shape=shapes[best] if fits[best] >= _COVERED else "",
        fit=float(fits[best]),
        x=(columns.min() + columns.max() + 1) / 2 / width,
        y=(rows.min() + rows.max() + 1) / 2 / height,
        radius=float(lengths[best] * math.sqrt(area) / min(height, width)),
    )


def _shrunk(mask: Mask) -> Mask:
    """Pixels whose neighbours within two steps along rows and columns are of the piece too: no soft edge."""
    kept = np.pad(mask, 2)
    inner = kept.copy()
    for shift in (-2, -1, 1, 2):
        inner &= np.roll(kept, shift, 0) & np.roll(kept, shift, 1)
    return inner[2:-2, 2:-2]


def _normalised(mask: Mask, x: float, y: float, scale: float) -> NDArray[np.float32]:
    """(G * G,) samples around the middle, bilinear, in steps that make every piece the same area."""
    steps = ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5) * _REACH * scale
    values = np.pad(mask.astype(np.float32), 1)

    def at(middle: float, length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        place = np.clip(middle + steps + 1, 0, length + 0.999)
        return np.floor(place).astype(np.int64), place % 1

    (top, down), (left, right) = at(y, mask.shape[0]), at(x, mask.shape[1])
    down = down[:, None]
    upper = values[top[:, None], left] * (1 - right) + values[top[:, None], left + 1] * right
    lower = values[top[:, None] + 1, left] * (1 - right) + values[top[:, None] + 1, left + 1] * right
    sampled: NDArray[np.float32] = (upper * (1 - down) + lower * down).astype(np.float32).ravel()
    return (sampled > 0.5).astype(np.float32)


@cache
def _outlines() -> tuple[list[str], NDArray[np.float32], NDArray[np.float64]]:
    """Names (O,), samples (O, G * G) and radii over the root of the area (O,) of every outline and turn."""
    names, grids, lengths = [], [], []
    fine = 480
    axis = (np.arange(fine) + 0.5) / fine * 3.0 - 1.5
    xs, ys = np.meshgrid(axis, axis)
    for shape, corners, turns in _forms():
        for turn in turns:
            cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            mask = _inside([(x * cos - y * sin, x * sin + y * cos) for x, y in corners], xs, ys)
            rows, columns = np.nonzero(mask)
            scale = math.sqrt(float(mask.sum()))
            names.append(shape)
            grids.append(_normalised(mask, columns.mean(), rows.mean(), scale))
            sides = [max(line) - min(line) for line in zip(*corners, strict=True)]
            lengths.append(max(sides) / 2 / _EXTENTS.get(shape, 1.0) * fine / 3.0 / scale)
    return names, np.stack(grids), np.array(lengths)


def _inside(corners: Corners, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Mask:
    """Whether points are in a polygon: an odd number of its sides lies to the right of them."""
    inside = np.zeros(xs.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 != y1:
            inside ^= ((y0 > ys) != (y1 > ys)) & (xs < (x1 - x0) * (ys - y0) / (y1 - y0) + x0)
    return inside


def _forms() -> list[tuple[str, Corners, tuple[float, ...]]]:
    """Name, corners (y grows downwards) and turns in degrees of every outline that is known."""
    little = (-10.0, -5.0, 0.0, 5.0, 10.0)
    forms: list[tuple[str, Corners, tuple[float, ...]]] = [
        ("circle", _around(60, 0), (0.0,)),
        ("square", [(-1, -1), (1, -1), (1, 1), (-1, 1)], little),
        ("hexagon", _around(6, 0), (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)),
    ]
    for width, height in ((1.0, 1.73), (1.0, 1.5), (1.0, 1.35), (0.9, 1.74)):
        forms.append(("triangle", [(0, -height / 2), (width, height / 2), (-width, height / 2)], little))
    forms += [("diamond", [(0, -1), (wide, 0), (0, 1), (-wide, 0)], little) for wide in (0.58, 0.66, 0.74, 0.82)]
    forms += [("star", _star(inner), (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)) for inner in (0.37, 0.43, 0.5)]
    for arm in (0.28, 0.34, 0.4):
        arms = [(arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm)]
        forms.append(("cross", [*arms, (-1, -arm), (-arm, -arm), (-arm, -1)], little))
    return forms + [("heart", _heart(tip), little) for tip in (0.85, 1.0, 1.15)]


def _around(count: int, start: float) -> Corners:
    angles = [2 * math.pi * k / count + start for k in range(count)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def _star(inner: float) -> Corners:
    angles = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
    return [
        ((inner if k % 2 else 1) * math.cos(a), (inner if k % 2 else 1) * math.sin(a)) for k, a in enumerate(angles)
    ]


def _heart(tip: float) -> Corners:
    """Two half discs of radius 1/2 side by side, bulging sides, and a tip ``tip`` below their middles."""
    arc = [math.pi * k / 16 for k in range(17)]
    left = [(-0.5 - 0.5 * math.cos(a), -0.5 * math.sin(a)) for a in arc]
    right = [(0.5 - 0.5 * math.cos(a), -0.5 * math.sin(a)) for a in arc]
    share = [k / 8 for k in range(1, 8)]
    down = [(1 - 0.12 * s * s - (1 - 0.12) * s**1.6, tip * s) for s in share]
    side = [(max(0.0, x), y) for x, y in down]
    return [*left, *right, *side, (0, tip), *[(-x, y) for x, y in reversed(side)]]
