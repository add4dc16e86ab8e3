"""Small pictures of large shapes, for a model that draws: one to three groups, at most six objects, 128 pixels a side.

The scenes are those of ``scene_layout`` with larger objects, so captions have the same grammar. Half the height of an
object is about 10% of the side where it is "small", 23% where it is "large", and 14% (12% among many) where nothing is
said.
"""

import math
import zlib
from dataclasses import replace
from itertools import accumulate, combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mm.synthetic.chart_canvas import Canvas, Point, Rect
from mm.synthetic.dice import Dice
from mm.synthetic.drawing_prompts import drawing_prompt
from mm.synthetic.fonts import Colour, FontSet
from mm.synthetic.sample import Sample
from mm.synthetic.scene_layout import PLACES, Group, Scene
from mm.synthetic.scene_paint import paint, photograph
from mm.synthetic.scene_questions import scene_turns
from mm.synthetic.shapes import COLOURS, FORMS, SHAPES, draw_shape, draw_turn, shape_box

SIDE = 128
"""Pixels of a picture's sides."""

MOST = 6
"""Objects of a scene at most."""

UNSEEN_PAIRS = frozenset({("purple", "star"), ("green", "diamond"), ("orange", "hexagon"), ("pink", "cross")})
"""Colours and shapes that never go together in training, so that a test can ask for them."""

_RADII = {"small": (0.095, 0.105), "": (0.13, 0.155), "large": (0.21, 0.25)}
_CROWDED = (0.112, 0.13)
_GAP = 2.3  # least distance of two middles, in radii

_HELD_OUT = (16, 5)  # a caption whose checksum leaves this remainder is kept for tests


def is_held_out(scene: Scene) -> bool:
    """Whether a scene is kept for tests: one in sixteen captions."""
    divisor, remainder = _HELD_OUT
    return zlib.crc32(scene.caption().encode()) % divisor == remainder


def draw_drawing(dice: Dice) -> Scene:
    """Make up a scene that training may see."""
    count = dice.weighted({1: 0.34, 2: 0.35, 3: 0.31})
    alone = dice.weighted({1: 4.5, 2: 1.4, 3: 1.5, 4: 1.7, 5: 2.0, 6: 2.2})  # before trying, or many would be rare
    while True:
        background = "white" if dice.chance(0.2) else dice.pick(sorted(COLOURS))
        numbers = [alone] if count == 1 else [dice.weighted({1: 5, 2: 4, 3: 3, 4: 2, 5: 1.2}) for _ in range(count)]
        if sum(numbers) > MOST:
            continue
        colours = [dice.pick([name for name in COLOURS if name != background]) for _ in numbers]
        shapes = [dice.pick(SHAPES) for _ in numbers]
        pairs = list(zip(colours, shapes, strict=True))
        if len(set(pairs)) < count or not UNSEEN_PAIRS.isdisjoint(pairs):
            continue
        few = count < 3
        sizes = {"": 6.0, "small": float(few and sum(numbers) <= 3), "large": float(few and sum(numbers) <= 2)}
        groups = [
            Group(number, colour, shape, dice.weighted(sizes))
            for number, (colour, shape) in zip(numbers, pairs, strict=True)
        ]
        scene = _arranged(dice, background, groups)
        if scene is not None and not is_held_out(scene):
            return scene


def _arranged(dice: Dice, background: str, groups: list[Group]) -> Scene | None:
    """Give each object a spot; None where they do not fit or do not stand clearly as the layout says."""
    if len(groups) == 1 and groups[0].count == 1:
        return _single(dice, background, groups[0])
    layout = dice.pick(["row", "column"]) if len(groups) > 1 else ""
    crowded = len(groups) > 2 or sum(group.count for group in groups) > 3
    radii = [SIDE * dice.uniform(*(_CROWDED if crowded else _RADII[group.size])) for group in groups]
    shares = [radius * (1 + 0.32 * (g.count - 1)) for radius, g in zip(radii, groups, strict=True)]
    edges = [SIDE * share / sum(shares) for share in accumulate(shares, initial=0.0)]
    placed = []
    for group, radius, low, high in zip(groups, radii, edges[:-1], edges[1:], strict=True):
        region: Rect = (0.0, 0.0, float(SIDE), float(SIDE))
        if layout == "row":
            region = (low, 0.0, high, float(SIDE))
        elif layout == "column":
            region = (0.0, low, float(SIDE), high)
        spots = _spots(dice, group.count, radius, region)
        if spots is None:
            return None
        boxes = sorted(shape_box(group.shape, spot, radius) for spot in spots)
        middle = [sum(values) / len(spots) for values in zip(*spots, strict=True)]
        placed.append((replace(group, boxes=tuple(boxes)), middle))
    for (_, one), (_, other) in pairwise(placed):
        along, across = (b - a for a, b in list(zip(one, other, strict=True))[:: 1 if layout == "row" else -1])
        if along < 1.3 * abs(across):
            return None
    return Scene(background, tuple(group for group, _ in placed), layout, "")


def _spots(dice: Dice, count: int, radius: float, region: Rect) -> list[Point] | None:
    """Middles at least ``_GAP`` radii apart and off the edges: anywhere, or in an even row or column."""
    margin = 1.12 * radius + 1.0
    x0, y0, x1, y1 = region[0] + margin, region[1] + margin, region[2] - margin, region[3] - margin
    if x1 < x0 or y1 < y0:
        return None
    for _ in range(25):
        manner = dice.weighted({"free": 5, "row": 2, "column": 2}) if count > 1 else "free"
        if manner == "free":
            spots = [(dice.uniform(x0, x1), dice.uniform(y0, y1)) for _ in range(count)]
        else:
            level = manner == "row"
            step = _GAP * radius * dice.uniform(1.02, 1.4)
            reach = step * (count - 1)
            if reach > (x1 - x0 if level else y1 - y0):
                continue
            x = dice.uniform(x0, x1 - reach * level)
            y = dice.uniform(y0, y1 - reach * (not level))
            spots = [(x + step * i * level, y + step * i * (not level)) for i in range(count)]
        if all(math.dist(one, other) >= _GAP * radius for one, other in combinations(spots, 2)):
            return spots
    return None


def _single(dice: Dice, background: str, group: Group) -> Scene:
    """One object in a cell of a 3 x 3 grid; the cell of its middle is its place."""
    radius = SIDE * dice.uniform(*_RADII[group.size])
    cell = (dice.integer(0, 2), dice.integer(0, 2))
    margin = 1.12 * radius + 1.0
    spot = [min(max((c + 0.5 + dice.uniform(-0.25, 0.25)) / 3 * SIDE, margin), SIDE - margin) for c in cell]
    box = shape_box(group.shape, (spot[0], spot[1]), radius)
    return Scene(background, (replace(group, boxes=(box,)),), "", PLACES[cell])


def _varied(dice: Dice, scene: Scene) -> Scene:
    """Other outlines and turns of the same shapes in the same boxes, for a model that looks."""
    groups = tuple(
        replace(group, turn=draw_turn(dice, group.shape), form=dice.integer(0, FORMS - 1)) for group in scene.groups
    )
    return replace(scene, groups=groups)


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """A picture of 128 pixels, or two side by side.

    Args:
        kind: "drawing" (a prompt, in ``fields``, and a plain picture of it), "drawing_shades" (a clean picture in other
            shades and outlines, for an image tokenizer), "drawing_scene" (a picture with caption and questions), or
            "drawing_pair": a drawing and a scene, of different groups, the drawing on the left.
        rng: every draw comes from it.
        fonts: not drawn with; part of every renderer's signature.
        level: of "drawing_shades" and "drawing_scene": 0 (plain) to 1 (other shades, outlines and manners; a scene also
            has blur and noise).

    The sample's ``glyphs`` are the objects: number of the pair in ``pair_number`` and the box.
    """
    dice = Dice(rng)
    if kind == "drawing":
        return _drawing(dice)
    if kind == "drawing_shades":
        return _shaded(dice, level)
    if kind == "drawing_scene":
        return _seen(dice, level)
    left, right = _drawing(dice), _seen(dice, level)
    image = Image.new("RGB", (2 * SIDE, SIDE))
    image.paste(left.image, (0, 0))
    image.paste(right.image, (SIDE, 0))
    moved = right.glyphs + np.array([0, SIDE, 0, SIDE, 0], dtype=np.float32)
    glyphs = np.concatenate((left.glyphs, moved))
    return Sample(image, right.turns, glyphs, "", {**right.fields, "prompt": left.fields["prompt"]}, kind)


def _drawing(dice: Dice) -> Sample:
    scene = draw_drawing(dice)
    fields = {"caption": scene.caption(), "prompt": drawing_prompt(scene, dice)}
    return Sample(_painted(scene, dice), (), _objects(scene), "", fields, "drawing")


def _shaded(dice: Dice, level: float) -> Sample:
    """What a clean picture may look like that the tokenizer is given, rather than what the model draws."""
    scene = draw_drawing(dice)
    if dice.chance(0.7 * level):
        scene = _varied(dice, scene)
    image = paint(scene, (SIDE, SIDE), dice, level)
    return Sample(image, (), _objects(scene), "", {"caption": scene.caption()}, "drawing_shades")


def _seen(dice: Dice, level: float) -> Sample:
    scene = draw_drawing(dice)
    if dice.chance(0.7 * level):
        scene = _varied(dice, scene)
    image = photograph(paint(scene, (SIDE, SIDE), dice, level), dice, level)
    turns = tuple(scene_turns(scene, dice))
    return Sample(image, turns, _objects(scene), "", {"caption": scene.caption()}, "drawing_scene")


def _objects(scene: Scene) -> NDArray[np.float32]:
    """Number of the pair and box of every object, (objects, 5)."""
    rows = [(pair_number(group.colour, group.shape), *box) for group in scene.groups for box in group.boxes]
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def pair_number(colour: str, shape: str) -> int:
    """Number of a colour and a shape: shape * number of colours + colour, both in the order of their tables."""
    return SHAPES.index(shape) * len(COLOURS) + list(COLOURS).index(colour)


def _painted(scene: Scene, dice: Dice) -> Image.Image:
    """A plain picture: flat colours near the usual look of their names."""

    def shade(name: str) -> Colour:
        red, green, blue = (min(255, max(0, value + dice.integer(-4, 4))) for value in COLOURS[name])
        return (red, green, blue)

    canvas = Canvas(SIDE, SIDE, shade(scene.background), 3)
    for group in scene.groups:
        colour = shade(group.colour)
        for box in group.boxes:
            draw_shape(canvas, group.shape, box, colour, None)
    return canvas.picture()
