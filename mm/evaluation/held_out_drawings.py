"""Small pictures of large shapes, 128 pixels a side, for models that draw such pictures and for the checker of theirs.

The words mean what they mean on the model card of nano-janus: half the height of an object is about 10% of the side
where it is "small", 23% where it is "large" and 12 to 15% where nothing is said; at most six objects in one to three
groups. Outlines and shades are those of the held-out scenes. Captions are of the one in sixteen that training keeps
away from.
"""

from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image

from mm.evaluation.captions import NUMBERS, SHAPES
from mm.evaluation.held_out_canvas import Document, Question, wording
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_prompts import NEVER_TRAINED, kept_from_training
from mm.evaluation.held_out_scenes import (
    BACKGROUND_PROMPTS,
    CAPTION_PROMPTS,
    COUNT_PROMPTS,
    SHADES,
    Group,
    Point,
    Scene,
    paint,
)
from mm.evaluation.held_out_words import chance, pick
from mm.evaluation.wishes import Group as WantedGroup
from mm.evaluation.wishes import Wish

SIDE = 128

_RADII = {"small": (0.096, 0.104), "": (0.132, 0.152), "large": (0.212, 0.245)}
_MANY = (0.114, 0.128)
_APART = 2.4  # least distance of two middles, in radii


def draw_wish(rng: Generator, *, trained: bool = True) -> Wish:
    """Make up a scene that training keeps away from; with ``trained``, of pairs that training shows."""
    while True:
        count = int(rng.choice([1, 2, 3], p=[0.4, 0.36, 0.24]))
        numbers = [int(rng.choice([1, 2, 3, 4], p=[0.45, 0.27, 0.18, 0.1])) for _ in range(count)]
        background = pick(rng, tuple(SHADES))
        colours = [pick(rng, tuple(name for name in SHADES if name != background)) for _ in range(count)]
        shapes = [pick(rng, SHAPES) for _ in range(count)]
        pairs = set(zip(colours, shapes, strict=True))
        if sum(numbers) > 6 or len(pairs) < count or (trained and not pairs.isdisjoint(NEVER_TRAINED)):
            continue
        named = count < 3 and sum(numbers) < 3 and chance(rng, 0.3)
        sizes = [pick(rng, ("small", "large")) if named else "" for _ in range(count)]
        groups = tuple(WantedGroup(*each) for each in zip(numbers, colours, shapes, sizes, strict=True))
        place = ""
        if sum(numbers) == 1:
            names = [pick(rng, names) for names in (("top", "", "bottom"), ("left", "", "right"))]
            place = " ".join(filter(None, names)) or "center"
        wish = Wish(groups, pick(rng, ("row", "column")) if count > 1 else "", place, background)
        if kept_from_training(wish):
            return wish


def arrange(rng: Generator, wish: Wish) -> Scene | None:
    """Give every object of a wish that leaves nothing open a spot; None where they do not fit soon."""
    many = len(wish.groups) > 2 or sum(group.count for group in wish.groups) > 3
    for _ in range(20):
        edges = np.cumsum([0.0, *(1.2 + 0.2 * group.count for group in wish.groups)])
        edges *= SIDE / edges[-1]
        groups = []
        for index, wanted in enumerate(wish.groups):
            radius = SIDE * float(rng.uniform(*(_MANY if many else _RADII[wanted.size])))
            low, high = [0.0, 0.0], [float(SIDE), float(SIDE)]
            if wish.layout:
                axis = int(wish.layout == "column")
                low[axis], high[axis] = float(edges[index]), float(edges[index + 1])
            if wish.place:
                low, high = _third(wish.place)
            centres = _spots(rng, wanted.count, radius, low, high, inside=not wish.place)
            turn = float(rng.uniform(-0.12, 0.12)) if chance(rng, 0.3) else 0.0
            groups.append(Group(wanted.colour, wanted.shape, wanted.size, radius, turn, tuple(sorted(centres))))
        if all(group.centres for group in groups) and _clear(groups, wish.layout):
            return Scene(SIDE, SIDE, wish.background, tuple(groups), wish.layout, wish.place)
    return None


def _third(place: str) -> tuple[list[float], list[float]]:
    """Corners of the middle of a cell of the 3 x 3 grid."""
    low, high = [], []
    for names in (("left", "right"), ("top", "bottom")):
        cell = 0 if names[0] in place else 2 if names[1] in place else 1
        low.append((cell + 0.25) * SIDE / 3)
        high.append((cell + 0.75) * SIDE / 3)
    return low, high


def _spots(
    rng: Generator, count: int, radius: float, low: list[float], high: list[float], *, inside: bool
) -> list[Point]:
    """Middles that are apart, in a region (whole objects in it where ``inside``) and off the edges; none: no room."""
    edge = 1.12 * radius + 1
    start, stop = np.array(low) + edge * inside, np.array(high) - edge * inside
    if (start > stop).any():
        return []
    for _ in range(60):
        spots = np.clip(rng.uniform(start, stop, (count, 2)), edge, SIDE - edge)  # (count, 2)
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + np.eye(count) * 1e9  # (count, count)
        if gaps.min() > _APART * radius:
            return [(float(x), float(y)) for x, y in spots]
    return []


def _clear(groups: list[Group], layout: str) -> bool:
    """Whether each group is clearly behind the one before it."""
    middles = [np.mean(group.centres, axis=0) for group in groups]
    for one, other in pairwise(middles):
        along, beside = (other - one)[:: 1 if layout == "row" else -1]
        if along < 1.4 * abs(beside):
            return False
    return True


def drawing(index: int, *, seed: int = 0, trained: bool = True) -> tuple[Wish, Scene, Image.Image]:
    """The picture number ``index`` of the endless held-out series ``seed``, and what it shows."""
    rng = np.random.default_rng((seed, 12, index, int(trained)))
    while True:
        wish = draw_wish(rng, trained=trained)
        scene = arrange(rng, wish)
        if scene is not None:
            return wish, scene, paint(rng, scene)[0]


def render_drawing(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The drawing number ``index`` as a document: caption, a count and the background."""
    del fonts  # nothing is written on it
    _, scene, image = drawing(index, seed=seed)
    rng = np.random.default_rng((seed, 13, index))
    group = pick(rng, scene.groups)
    count = len(group.centres)
    several = Group(group.colour, group.shape, "", 1, 0, (group.centres[0],) * 2).name()
    questions = (
        Question("caption", wording(rng, CAPTION_PROMPTS), scene.caption(), "caption"),
        Question("how many", wording(rng, COUNT_PROMPTS).format(several), str(count), accept=(NUMBERS[count],)),
        Question("background", wording(rng, BACKGROUND_PROMPTS), scene.background),
    )
    return Document(image, "", questions, f"{len(scene.groups)} {scene.layout or 'single'}", 0.0)
