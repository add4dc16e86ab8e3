"""Scenes of coloured shapes with captions, questions and boxes.

A scene has one to three groups of equal objects on a plain background. The caption is a function of the scene:

    one object      A red circle in the center of a white background.
                    A small red circle at the top left of a white background.
    one group       Three large red circles on a white background.
    two groups      Two red circles left of a blue star on a yellow background.
                    A green heart above four pink squares on a black background.
    three groups    A red circle, two blue stars and a green heart from left to right on a gray background.
                    (or: from top to bottom)

Groups are named from left to right or from top to bottom, so "right of" and "below" never occur in a caption. The
groups stand in separate strips, and their middles differ more in the direction that is named than in the other one.
"small" and "large" are said where the objects are clearly so, nothing in between. The objects of a group have one size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mm.synthetic.chart_canvas import Rect
from mm.synthetic.dice import Dice
from mm.synthetic.scene_spots import draw_spots
from mm.synthetic.shapes import COLOURS, FORMS, SHAPES, draw_turn, outline, shape_box
from mm.synthetic.style import view_scale

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

MAX_COUNT = 6
"""Most objects of one group; a scene has at most eight."""

PLACES = {
    (0, 0): "at the top left",
    (1, 0): "at the top",
    (2, 0): "at the top right",
    (0, 1): "at the left",
    (1, 1): "in the center",
    (2, 1): "at the right",
    (0, 2): "at the bottom left",
    (1, 2): "at the bottom",
    (2, 2): "at the bottom right",
}
"""Where a single object is: thirds of the picture, by column and row."""


@dataclass(frozen=True)
class Group:
    """Equal objects. ``size`` is "small", "" or "large"; ``boxes`` are in pixels, from left to right.

    ``turn`` is by how many degrees all of them are turned clockwise, ``form`` which outline of the shape they have.
    """

    count: int
    colour: str
    shape: str
    size: str
    boxes: tuple[Rect, ...] = ()
    turn: int = 0
    form: int = 0

    def name(self, *, colour: bool = True, plural: bool | None = None) -> str:
        """ "red circle" or "red circles"."""
        several = self.count > 1 if plural is None else plural
        return f"{self.colour + ' ' if colour else ''}{plural_of(self.shape) if several else self.shape}"

    def phrase(self) -> str:
        """ "two large red circles", "a small orange star"."""
        words = f"{self.size} {self.name()}".strip()
        if self.count > 1:
            return f"{NUMBERS[self.count]} {words}"
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Scene:
    """Groups in caption order. ``layout`` is "row" (left to right), "column" (top to bottom) or "" for one group."""

    background: str
    groups: tuple[Group, ...]
    layout: str
    place: str  # of a single object

    def caption(self) -> str:
        """The canonical caption."""
        names = [group.phrase() for group in self.groups]
        article = "an" if self.background[0] in "aeiou" else "a"
        ground = f"{article} {self.background} background."
        if len(names) == 3:
            way = "from left to right" if self.layout == "row" else "from top to bottom"
            text = f"{names[0]}, {names[1]} and {names[2]} {way} on {ground}"
        elif len(names) == 2:
            text = f"{names[0]} {'left of' if self.layout == 'row' else 'above'} {names[1]} on {ground}"
        elif self.place:
            text = f"{names[0]} {self.place} of {ground}"
        else:
            text = f"{names[0]} on {ground}"
        return text[0].upper() + text[1:]


def plural_of(shape: str) -> str:
    """Plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


_RADII = {"small": (0.046, 0.063), "": (0.084, 0.115), "large": (0.155, 0.205)}
"""Half the height of an object as a share of the shorter side; the gaps between the ranges keep the words clear."""


_COUNTS = {1: 4.0, 2: 2.4, 3: 2.2, 4: 2.6, 5: 2.8, 6: 3.2}
"""How often a group has so many objects; large ones more often, as they often do not fit and are hard to count."""

_SMALLEST = 8.0
"""Radius in pixels, after the picture was fitted to its tiles, below which a circle and a hexagon look the same."""


def draw_scene(dice: Dice, size: tuple[int, int], level: float) -> Scene:
    """Make up a scene with all its boxes."""
    tiny = _RADII["small"][0] * min(size) * view_scale(*size) < _SMALLEST
    count = dice.weighted({1: 3.5, 2: 4.0 * (0.3 + 0.7 * level), 3: 3.5 * level})
    while True:
        background = dice.pick(sorted(COLOURS))
        groups: list[Group] = []
        for _ in range(count):
            many = dice.weighted(_COUNTS)
            scale = dice.weighted({"": 5, "small": 0.0 if tiny else 1.5, "large": 1.5 if many <= 2 else 0.0})
            colour = dice.pick([name for name in COLOURS if name != background])
            shape = dice.pick(SHAPES)
            if groups and dice.chance(0.3):  # alike in one way: still two groups
                colour, shape = (groups[-1].colour, shape) if dice.chance(0.5) else (colour, groups[-1].shape)
            turn, form = (draw_turn(dice, shape), dice.integer(0, FORMS - 1)) if dice.chance(level) else (0, 0)
            groups.append(Group(many, colour, shape, scale, (), turn, form))
        if sum(group.count for group in groups) > 8 or len({(g.colour, g.shape) for g in groups}) < count:
            continue
        layout = dice.pick(["row", "column"]) if count > 1 else ""
        placed = _place(dice, groups, layout, size)
        if placed is not None and _ordered(placed[0], layout):
            return Scene(background, tuple(placed[0]), layout, placed[1])


def _ordered(groups: Sequence[Group], layout: str) -> bool:
    """Whether neighbouring groups lie clearly in the direction of the layout."""
    for one, other in pairwise(groups):
        dx, dy = (b - a for a, b in zip(_middle(one), _middle(other), strict=True))
        if (dx < 1.3 * abs(dy)) if layout == "row" else (dy < 1.3 * abs(dx)):
            return False
    return True


def _middle(group: Group) -> tuple[float, float]:
    x0, y0 = min(box[0] for box in group.boxes), min(box[1] for box in group.boxes)
    x1, y1 = max(box[2] for box in group.boxes), max(box[3] for box in group.boxes)
    return (x0 + x1) / 2, (y0 + y1) / 2


def _place(dice: Dice, groups: Sequence[Group], layout: str, size: tuple[int, int]) -> tuple[list[Group], str] | None:
    """Give each group its part of the picture and each object a spot in it; None when they do not fit."""
    width, height = size
    short = min(size)
    if len(groups) == 1 and groups[0].count == 1:
        return _place_single(dice, groups[0], size)
    shares = np.array([0.6 + 0.25 * group.count + (0.8 if group.size == "large" else 0.0) for group in groups])
    edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    found: list[Group] = []
    for group, low, high in zip(groups, edges[:-1], edges[1:], strict=True):
        region: Rect = (0.0, 0.0, float(width), float(height))
        gap = 0.03 if layout else 0.0
        if layout == "row":
            region = ((low + gap) * width, 0.0, (high - gap) * width, float(height))
        elif layout == "column":
            region = (0.0, (low + gap) * height, float(width), (high - gap) * height)
        radius = dice.uniform(*_RADII[group.size]) * short
        boxes = _scatter(dice, group, radius, region, short)
        if boxes is None:
            return None
        found.append(replace(group, boxes=tuple(sorted(boxes))))
    return found, ""


def _scatter(dice: Dice, group: Group, radius: float, region: Rect, short: float) -> list[Rect] | None:
    """Boxes of the objects of a group: apart from each other and off the edge; None where they do not fit."""
    margin = radius * 1.05 + 0.02 * short
    room = (region[0] + margin, region[1] + margin, region[2] - margin, region[3] - margin)
    if room[2] < room[0] or room[3] < room[1]:
        return None
    spots = draw_spots(dice, group.count, room, 2.35 * radius)
    if spots is None:
        return None
    return [shape_box(group.shape, spot, radius, group.turn, group.form) for spot in spots]


def _place_single(dice: Dice, group: Group, size: tuple[int, int]) -> tuple[list[Group], str]:
    """One object near the middle of a cell of a 3 x 3 grid; its centre decides the word."""
    radius = dice.uniform(*_RADII[group.size]) * min(size)
    column, row = dice.integer(0, 2), dice.integer(0, 2)

    def spot(cell: int, length: int) -> float:
        near = (cell + 0.5 + dice.uniform(-0.27, 0.27)) / 3 * length
        return min(max(near, radius * 1.05 + 2), length - radius * 1.05 - 2)

    box = shape_box(group.shape, (spot(column, size[0]), spot(row, size[1])), radius, group.turn, group.form)
    return [replace(group, boxes=(box,))], PLACES[column, row]


def tilted(scene: Scene, size: tuple[int, int], degrees: int, scale: float) -> Scene:
    """The scene on a sheet that lies turned clockwise and ``scale`` times as large around the middle of the picture."""
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    middle_x, middle_y = size[0] / 2, size[1] / 2
    groups = []
    for group in scene.groups:
        xs, ys = zip(*outline(group.shape, group.turn, group.form), strict=True)
        turn, boxes = group.turn + degrees, []
        for x0, y0, x1, _ in group.boxes:
            radius = (x1 - x0) / (max(xs) - min(xs))
            dx, dy = x0 - radius * min(xs) - middle_x, y0 - radius * min(ys) - middle_y  # the shape's own middle
            centre = (middle_x + dx * cos - dy * sin, middle_y + dx * sin + dy * cos)
            boxes.append(shape_box(group.shape, centre, radius * scale, turn, group.form))
        groups.append(replace(group, boxes=tuple(sorted(boxes)), turn=turn))
    return replace(scene, groups=tuple(groups))
