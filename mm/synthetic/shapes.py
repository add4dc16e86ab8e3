"""The shapes and colours of the scenes."""

import math
from collections.abc import Mapping
from functools import lru_cache

from mm.synthetic.chart_canvas import Canvas, Point, Rect
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


@lru_cache(maxsize=len(SHAPES))
def _outline(shape: str) -> tuple[Point, ...]:
    """Corners on a circle of radius 1 around (0, 0); the heart's reach from -1 to 1 in both directions."""
    if shape == "square":
        return ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85))
    if shape == "cross":
        a, b = 0.34, 1.0
        return (
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        )
    if shape == "diamond":
        return ((0.0, -1.1), (0.72, 0.0), (0.0, 1.1), (-0.72, 0.0))
    if shape == "heart":
        points = []
        for step in range(40):
            t = 2 * math.pi * step / 40
            x = 16 * math.sin(t) ** 3
            y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            points.append((x / 16.5, (-y - 2.5) / 15.0))
        return tuple(points)
    count, inner = {"triangle": (3, 0.0), "hexagon": (6, 0.0), "star": (5, 0.42), "circle": (48, 0.0)}[shape]
    start = 0.0 if shape == "hexagon" else -math.pi / 2
    points = []
    for step in range(count * (2 if inner else 1)):
        angle = start + 2 * math.pi * step / (count * (2 if inner else 1))
        radius = inner if inner and step % 2 else 1.0
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return tuple(points)


def shape_box(shape: str, centre: Point, radius: float) -> Rect:
    """The box around a shape of the given radius."""
    xs, ys = zip(*_outline(shape), strict=True)
    x, y = centre
    return (x + radius * min(xs), y + radius * min(ys), x + radius * max(xs), y + radius * max(ys))


def draw_shape(canvas: Canvas, shape: str, box: Rect, colour: Colour, edge: Colour | None) -> None:
    """Draw a shape that fills ``box``."""
    points = _outline(shape)
    xs, ys = zip(*points, strict=True)
    scale_x = (box[2] - box[0]) / (max(xs) - min(xs))
    scale_y = (box[3] - box[1]) / (max(ys) - min(ys))
    corners = [(box[0] + (x - min(xs)) * scale_x, box[1] + (y - min(ys)) * scale_y) for x, y in points]
    if shape == "circle":
        canvas.ellipse(box, colour, edge, 1.0)
    else:
        canvas.polygon(corners, colour, edge, 1.0)
