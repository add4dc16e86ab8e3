"""Scenes as samples: a picture of shapes, its caption, questions or boxes (``scene_layout`` has the grammar)."""

import numpy as np
from numpy.typing import NDArray

from mm.errors import OptionError
from mm.synthetic.degrade import finish
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.sample import Sample
from mm.synthetic.scene_layout import Group, Scene, draw_scene, paint
from mm.synthetic.scene_questions import ground_turns, scene_turns
from mm.synthetic.shapes import COLOURS
from mm.synthetic.style import TILE, Style

KINDS = ("scene", "scene_ground")


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Draw a scene and ask about it.

    Args:
        kind: "scene" (caption and questions) or "scene_ground" (boxes, with some questions).
        rng: every draw comes from it.
        fonts: not drawn with; part of every renderer's signature.
        level: 0 (one or two groups, clean) to 1 (up to three, noise, other sizes).

    Raises:
        OptionError: another kind.
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown scene kind {kind!r}. Known kinds: {', '.join(KINDS)}.")
    dice = Dice(rng)
    size = (TILE, TILE)
    if dice.chance(0.35 * level):
        long = dice.integer(160, 420)
        size = (long, round(long * dice.uniform(0.7, 1.3)))
    scene = draw_scene(dice, size, level)
    picture = paint(scene, size, dice)
    boxes = np.array([(-1.0, *box) for group in scene.groups for box in group.boxes], dtype=np.float32)
    image, moved = finish(picture, boxes, _as_style(scene, fonts), dice, 0.5 * level)
    scene = _moved(scene, moved)
    turns = scene_turns(scene, dice) if kind == "scene" else ground_turns(scene, image.size, dice)
    glyphs = np.zeros((0, 5), dtype=np.float32)
    fields = {"caption": scene.caption()}
    return Sample(image, tuple(dice.shuffled(turns)), glyphs, "", fields, kind)


def _moved(scene: Scene, boxes: NDArray[np.float32]) -> Scene:
    """The scene with its boxes where the simulated camera put them."""
    assert len(boxes) == sum(group.count for group in scene.groups), "an object left the picture"
    groups, start = [], 0
    for group in scene.groups:
        found = [(float(b[1]), float(b[2]), float(b[3]), float(b[4])) for b in boxes[start : start + group.count]]
        groups.append(Group(group.count, group.colour, group.shape, group.size, tuple(sorted(found))))
        start += group.count
    return Scene(scene.background, tuple(groups), scene.layout, scene.place)


def _as_style(scene: Scene, fonts: FontSet) -> Style:
    """What the simulation of cameras needs to know."""
    colour, face = COLOURS[scene.background], fonts.faces[0]
    return Style(
        fonts=fonts,
        face=face,
        head=face,
        em=14,
        pitch=1.2,
        bold_head=False,
        bold_keys=False,
        ink=(0, 0, 0),
        soft=(0, 0, 0),
        accent=(0, 0, 0),
        panel=colour,
        paper=colour,
        coloured=True,
        dark=False,
        shaped=False,
    )
