"""The shapes and colours of the scenes."""

import math
from collections.abc import Mapping
from functools import lru_cache

from mm.synthetic.chart_canvas import Canvas, Point, Rect
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour

SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "hexagon", "cross")

COLOURS: Mapping[str, Colour] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (250, 220, 40),
    "green": (35, 150, 55),
    "blue": (35, 80, 215),
    "cyan": (60, 205, 225),
    "purple": (125, 45, 165),
    "pink": (250, 150, 195),
    "brown": (125, 75, 35),
    "black": (18, 18, 18),
    "white": (250, 250, 250),
    "gray": (140, 140, 140),
}
"""The usual look of each name; no two are near each other."""

VARIANTS: Mapping[str, tuple[Colour, ...]] = {
    "red": ((255, 0, 0), (200, 16, 46), (235, 51, 36), (214, 39, 40)),
    "orange": ((255, 165, 0), (255, 127, 14), (243, 112, 33), (255, 140, 0)),
    "yellow": ((255, 255, 0), (255, 235, 59), (246, 214, 20), (250, 225, 60)),
    "green": ((0, 128, 0), (0, 190, 0), (76, 175, 80), (44, 160, 44)),
    "blue": ((0, 0, 255), (31, 100, 190), (33, 102, 204), (52, 110, 246)),
    "cyan": ((0, 255, 255), (23, 190, 207), (0, 188, 212), (80, 220, 235)),
    "purple": ((128, 0, 128), (106, 13, 173), (142, 68, 173), (130, 60, 190)),
    "pink": ((255, 105, 180), (255, 182, 193), (244, 143, 177), (255, 160, 200)),
    "brown": ((139, 69, 19), (120, 72, 50), (101, 67, 33), (150, 85, 40)),
    "black": ((0, 0, 0), (30, 30, 30), (10, 10, 14)),
    "white": ((255, 255, 255), (245, 245, 245), (252, 250, 246)),
    "gray": ((128, 128, 128), (158, 158, 158), (110, 110, 110), (135, 140, 145)),
}
"""Other shades that people call by the same name."""

_TURNS: Mapping[str, tuple[int, int]] = {
    "circle": (0, 0),
    "square": (-7, 7),
    "triangle": (-10, 10),
    "star": (-36, 36),
    "diamond": (-7, 7),
    "heart": (-12, 12),
    "hexagon": (-30, 30),
    "cross": (-8, 8),
}
"""Degrees by which a shape may be turned and still be called by its name."""


FORMS = 3
"""Outlines of each shape: slimmer, broader or otherwise drawn."""


@lru_cache(maxsize=FORMS * len(SHAPES))
def _outline(shape: str, form: int) -> tuple[Point, ...]:
    """Corners on a circle of radius 1 around (0, 0), or about as large."""
    match shape:
        case "square":
            side = (0.85, 0.82, 0.88)[form]
            return ((-side, -side), (side, -side), (side, side), (-side, side))
        case "cross":
            arm = (0.34, 0.28, 0.4)[form]
            quarter = ((arm, -1.0), (arm, -arm), (1.0, -arm))
            points = list(quarter)
            for _ in range(3):
                points += [(-y, x) for x, y in points[-3:]]
            return tuple(points)
        case "diamond":
            across, down = ((0.72, 1.1), (0.84, 1.06), (0.62, 1.1))[form]
            return ((0.0, -down), (across, 0.0), (0.0, down), (-across, 0.0))
        case "heart":
            return _heart(form)
        case "triangle" if form:
            across, top, foot = ((0.78, -1.0, 0.74), (1.0, -0.82, 0.56))[form - 1]
            return ((0.0, top), (across, foot), (-across, foot))
        case "star":
            return _spokes(10, -90, (0.42, 0.36, 0.5)[form])
        case "hexagon":
            return _spokes(6, (0, 30, 0)[form], 1.0)
        case _:
            return _spokes(3 if shape == "triangle" else 48, -90, 1.0)


def _spokes(count: int, start: float, inner: float) -> tuple[Point, ...]:
    """``count`` points around the middle, every second one at radius ``inner``."""
    angles = [math.radians(start + 360 * step / count) for step in range(count)]
    radii = [inner if step % 2 else 1.0 for step in range(count)]
    return tuple(
        (radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)
    )


def _heart(form: int) -> tuple[Point, ...]:
    if form == 1:  # two round humps above a straight point
        angles = [math.radians(180 + 215 * step / 22) for step in range(23)]
        right = [(0.5 + 0.5 * math.cos(angle), -0.38 + 0.5 * math.sin(angle)) for angle in angles]
        return (*right, (0.0, 0.96), *((-x, y) for x, y in reversed(right)))
    across, down = (16.5, 15.0) if form == 0 else (17.5, 14.0)
    points = []
    for step in range(40):
        t = 2 * math.pi * step / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / across, (-y - 2.5) / down))
    return tuple(points)


@lru_cache(maxsize=1024)
def outline(shape: str, turn: int = 0, form: int = 0) -> tuple[Point, ...]:
    """Corners of a shape of radius 1 around (0, 0), turned clockwise by ``turn`` degrees; ``form`` below ``FORMS``."""
    points = _outline(shape, form)
    if turn == 0 or shape == "circle":
        return points
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return tuple((x * cos - y * sin, x * sin + y * cos) for x, y in points)


def draw_turn(dice: Dice, shape: str) -> int:
    """A turn in degrees after which the shape still looks like its name; none for half of them."""
    return 0 if dice.chance(0.5) else dice.integer(*_TURNS[shape])


def shape_box(shape: str, centre: Point, radius: float, turn: int = 0, form: int = 0) -> Rect:
    """The box around a shape of the given radius."""
    xs, ys = zip(*outline(shape, turn, form), strict=True)
    x, y = centre
    return (x + radius * min(xs), y + radius * min(ys), x + radius * max(xs), y + radius * max(ys))


def corners_in(shape: str, box: Rect, turn: int = 0, form: int = 0, scale: float = 1.0) -> list[Point]:
    """Corners of the shape that fills ``box``, drawn ``scale`` times as large around the shape's own middle."""
    points = outline(shape, turn, form)
    xs, ys = zip(*points, strict=True)
    left, top = min(xs), min(ys)
    across, down = (box[2] - box[0]) / (max(xs) - left), (box[3] - box[1]) / (max(ys) - top)
    return [(box[0] + (x * scale - left) * across, box[1] + (y * scale - top) * down) for x, y in points]


def draw_shape(
    canvas: Canvas, shape: str, box: Rect, colour: Colour, edge: Colour | None, turn: int = 0, form: int = 0
) -> None:
    """Draw a shape that fills ``box``."""
    if shape == "circle":
        canvas.ellipse(box, colour, edge, 1.0)
    else:
        canvas.polygon(corners_in(shape, box, turn, form), colour, edge, 1.0)
