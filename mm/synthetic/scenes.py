"""Scenes as samples: a picture of shapes, its caption, questions or boxes (``scene_layout`` has the grammar)."""

import math

import numpy as np

from mm.errors import OptionError
from mm.synthetic.chart_canvas import Point
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.sample import Sample
from mm.synthetic.scene_boxes import ground_turns
from mm.synthetic.scene_layout import draw_scene, tilted
from mm.synthetic.scene_paint import paint, photograph
from mm.synthetic.scene_questions import scene_turns
from mm.synthetic.style import TILE

KINDS = ("scene", "scene_ground")


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Draw a scene and ask about it.

    Args:
        kind: "scene" (caption and questions) or "scene_ground" (boxes, with some questions).
        rng: every draw comes from it.
        fonts: not drawn with; part of every renderer's signature.
        level: 0 (one or two groups, clean, one tile) to 1 (up to three, noise, other sizes and manners of drawing).

    Raises:
        OptionError: another kind.
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown scene kind {kind!r}. Known kinds: {', '.join(KINDS)}.")
    dice = Dice(rng)
    size = _draw_size(dice, level)
    scene = draw_scene(dice, size, level)
    sheet: list[Point] | None = None
    if dice.chance(0.15 * level):
        degrees = dice.pick([-3, -2, -1, 1, 2, 3])
        scene = tilted(scene, size, degrees, 0.93)
        sheet = _corners(size, degrees, dice.uniform(0.93, 0.99)) if dice.chance(0.5) else None
    image = photograph(paint(scene, size, dice, level, sheet), dice, level)
    more = 2 if max(size) > TILE else 0  # several tiles are most of a sample's cost
    turns = scene_turns(scene, dice, more=more) if kind == "scene" else ground_turns(scene, size, dice, more=more)
    glyphs = np.zeros((0, 5), dtype=np.float32)
    return Sample(image, tuple(turns), glyphs, "", {"caption": scene.caption()}, kind)


def _draw_size(dice: Dice, level: float) -> tuple[int, int]:
    """Width and height: one tile, and every size up to what fills nine."""
    manner = dice.weighted({"tile": 3.2, "small": 0.4 + 0.8 * level, "wide": 4.8 * level, "large": 1.2 * level})
    if manner == "tile":
        return (TILE, TILE)
    limits = {"small": (112, TILE), "wide": (TILE, 480), "large": (480, 800)}[manner]
    long, ratio = dice.integer(*limits), dice.uniform(0.6, 1.0) if dice.chance(0.7) else 1.0
    short = max(100, round(long * ratio))
    return (long, short) if dice.chance(0.65) else (short, long)


def _corners(size: tuple[int, int], degrees: int, scale: float) -> list[Point]:
    """The corners of the picture, turned clockwise around its middle and drawn in."""
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    x, y = size[0] / 2, size[1] / 2
    return [(x + a * x * cos - b * y * sin, y + a * x * sin + b * y * cos)
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]  # fmt: skip
