"""Scenes of coloured shapes for captions and boxes.

What the words mean is the grammar on the model card: eight shapes, twelve colours, one to three groups of one to six
equal objects (at most eight in all), ``small`` for objects whose half height is about 5% of the shorter side and
``large`` for about 18%, nothing said in between; a single object is placed by thirds of the picture, groups are named
from left to right or from top to bottom. Outlines, shades and arrangements are drawn here, apart from training's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from mm.chat import TASK_PROMPTS
from mm.evaluation.captions import NUMBERS, SHAPES, write_caption
from mm.evaluation.held_out_canvas import Colour, Document, Question, photograph_with_shot, wording
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

CAPTION_PROMPTS = (
    TASK_PROMPTS["caption"],
    *("What does the picture show?", "Please describe this picture.", "What can you see in the image?"),
    *("Write a caption for this image.", "What is shown here?"),
)
COUNT_PROMPTS = (*("How many {} are there?", "How many {} can you see?", "Count the {}.", "What is the number of {}?"),)
BACKGROUND_PROMPTS = (
    *("What color is the background?", "What is the color of the background?", "Which color does the background have?"),
    "What colour is the background?",
)

SHADES: dict[str, tuple[Colour, ...]] = {
    "red": ((200, 16, 46), (232, 48, 40), (190, 30, 24)),
    "orange": ((255, 125, 0), (255, 138, 26), (255, 150, 30)),
    "yellow": ((255, 230, 0), (245, 210, 50), (255, 236, 90)),
    "green": ((0, 128, 60), (60, 170, 70), (20, 120, 40)),
    "blue": ((20, 60, 190), (60, 110, 235), (10, 70, 170)),
    "cyan": ((0, 200, 220), (90, 220, 235), (40, 190, 215)),
    "purple": ((110, 30, 150), (140, 60, 185), (100, 40, 140)),
    "pink": ((255, 140, 190), (245, 160, 200), (255, 120, 180)),
    "brown": ((110, 66, 30), (135, 85, 45), (100, 60, 40)),
    "black": ((0, 0, 0), (25, 25, 28), (10, 12, 20)),
    "white": ((255, 255, 255), (246, 246, 244), (252, 250, 246)),
    "gray": ((128, 128, 128), (150, 152, 155), (120, 122, 126)),
}

_RADII = {"small": (0.046, 0.058), "": (0.084, 0.103), "large": (0.158, 0.195)}
_THIRDS = ("left", "center", "right"), ("top", "center", "bottom")
_SMOOTH = 3  # drawn so many times larger, then made smaller

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Group:
    """Equal objects: ``centres`` and ``radius`` (half of the usual height) in pixels, ``turn`` in radians."""

    colour: str
    shape: str
    size: str
    radius: float
    turn: float
    centres: tuple[Point, ...]

    def name(self, *, colour: bool = True) -> str:
        """ "red circle", "red circles"."""
        shape = self.shape
        if len(self.centres) > 1:
            shape += "es" if shape.endswith("s") else "s"
        return f"{self.colour} {shape}" if colour else shape

    def phrase(self) -> str:
        """ "two large red circles", "a small orange star"."""
        words = f"{self.size} {self.name()}".strip()
        count = len(self.centres)
        return f"{NUMBERS[count]} {words}" if count > 1 else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Scene:
    """Groups from left to right ("row") or top to bottom ("column"); ``place`` of a single object, such as "top"."""

    width: int
    height: int
    background: str
    groups: tuple[Group, ...]
    layout: str
    place: str

    def caption(self) -> str:
        """What is seen, by the grammar."""
        names = [group.phrase() for group in self.groups]
        return write_caption(names, layout=self.layout, place=self.place, background=self.background)


def outline(shape: str) -> list[Point]:
    """Corners of a shape around (0, 0), about 2 high, the top at negative y."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "diamond":
        return [(0, -1.08), (0.76, 0), (0, 1.08), (-0.76, 0)]
    if shape == "cross":
        arm, end = 0.31, 0.98
        quarter = [(arm, -end), (arm, -arm), (end, -arm)]
        return [p for k in range(4) for p in (_turned(corner, k * math.pi / 2) for corner in quarter)]
    if shape == "heart":  # two round humps and straight sides to the tip
        humps = [(math.cos(t), math.sin(t)) for t in np.linspace(math.pi * 1.0, math.pi * 2.15, 24)]
        right = [(0.5 + 0.5 * x, -0.4 + 0.52 * y) for x, y in humps]
        left = [(-x, y) for x, y in reversed(right)]
        return [*left, *right, (0.0, 0.98)]
    count, inner = {"triangle": (3, 0.0), "hexagon": (6, 0.0), "star": (5, 0.45), "circle": (72, 0.0)}[shape]
    steps = 2 * count if inner else count
    start = -math.pi / 2 if shape != "hexagon" else math.pi / 6
    return [
        (r * math.cos(start + 2 * math.pi * k / steps), r * math.sin(start + 2 * math.pi * k / steps))
        for k in range(steps)
        for r in [inner if inner and k % 2 else 1.0]
    ]


def _turned(point: Point, angle: float) -> Point:
    x, y = point
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _corners(group: Group, centre: Point, scale: float = 1.0) -> list[Point]:
    """The outline of an object in pixels."""
    points = (_turned(point, group.turn) for point in outline(group.shape))
    return [((centre[0] + x * group.radius) * scale, (centre[1] + y * group.radius) * scale) for x, y in points]


def draw_scene(rng: Generator) -> Scene:
    """Make up a scene; tries until all objects fit."""
    while True:
        width = int(rng.integers(190, 480))
        height = round(width * float(rng.uniform(0.72, 1.35)))
        count = int(rng.choice([1, 2, 3], p=[0.4, 0.38, 0.22]))
        background = pick(rng, tuple(SHADES))
        layout = pick(rng, ("row", "column")) if count > 1 else ""
        numbers = [int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.38, 0.22, 0.15, 0.1, 0.08, 0.07])) for _ in range(count)]
        colours = [pick(rng, tuple(name for name in SHADES if name != background)) for _ in range(count)]
        shapes = [pick(rng, SHAPES) for _ in range(count)]
        if sum(numbers) > 8 or len(set(zip(colours, shapes, strict=True))) < count:
            continue
        sizes = [
            str(rng.choice(["", "small", "large"], p=[0.62, 0.19, 0.19] if n < 3 else [0.75, 0.25, 0.0]))
            for n in numbers
        ]
        scene = _arranged(
            rng, (width, height), background, layout, list(zip(numbers, colours, shapes, sizes, strict=True))
        )
        if scene is not None:
            return scene


def _arranged(
    rng: Generator,
    size: tuple[int, int],
    background: str,
    layout: str,
    wanted: Sequence[tuple[int, str, str, str]],
) -> Scene | None:
    """Give each group a strip of the picture and each object a spot in it; None where they do not fit."""
    short = min(size)
    shares = np.array([0.7 + 0.2 * number + (0.9 if extent == "large" else 0.0) for number, _, _, extent in wanted])
    edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    groups, place = [], ""
    for index, (number, colour, shape, extent) in enumerate(wanted):
        radius = float(rng.uniform(*_RADII[extent])) * short
        low, high = edges[index], edges[index + 1]
        region = (0.0, 0.0, float(size[0]), float(size[1]))
        if layout == "row":
            region = (low * size[0] + 0.03 * short, 0.0, high * size[0] - 0.03 * short, float(size[1]))
        elif layout == "column":
            region = (0.0, low * size[1] + 0.03 * short, float(size[0]), high * size[1] - 0.03 * short)
        if len(wanted) == 1 and number == 1:
            centres, place = _in_a_third(rng, radius, size)
        else:
            centres = _spread(rng, number, radius, region)
        if not centres:
            return None
        turn = float(rng.uniform(-0.12, 0.12)) if chance(rng, 0.4) else 0.0
        groups.append(Group(colour, shape, extent, radius, turn, tuple(sorted(centres))))
    middles = [np.mean(group.centres, axis=0) for group in groups]
    for one, other in pairwise(middles):
        along, across = (other - one)[:: 1 if layout == "row" else -1]
        if along < 1.5 * abs(across):
            return None
    return Scene(*size, background, tuple(groups), layout, place)


def _in_a_third(rng: Generator, radius: float, size: tuple[int, int]) -> tuple[list[Point], str]:
    """A spot near the middle of one of nine cells, and its name."""
    cells = [int(rng.integers(3)), int(rng.integers(3))]
    centre = []
    for cell, length in zip(cells, size, strict=True):
        spot = (cell + 0.5 + float(rng.uniform(-0.2, 0.2))) * length / 3
        centre.append(min(max(spot, 1.2 * radius), length - 1.2 * radius))
    across, down = _THIRDS[0][cells[0]], _THIRDS[1][cells[1]]
    names = [name for name in (down, across) if name != "center"]
    return [(centre[0], centre[1])], " ".join(names) or "center"


def _spread(rng: Generator, count: int, radius: float, region: Box) -> list[Point]:
    """Spots at least a quarter of an object apart: in an even line, on an arc or anywhere; empty where none fit."""
    left, top, right, bottom = (v + d * (1.15 * radius + 2) for v, d in zip(region, (1, 1, -1, -1), strict=True))
    if left >= right or top >= bottom:
        return []
    for _ in range(40):
        manner = int(rng.integers(3))
        spots = np.stack([rng.uniform(left, right, count), rng.uniform(top, bottom, count)], axis=1)  # (count, 2)
        if manner == 0:  # evenly on a slanted line
            ends = spots[[0, -1]]
            spots = ends[0] + np.linspace(0, 1, count)[:, None] * (ends[1] - ends[0])
        elif manner == 1:  # a grid of two rows
            columns = -(-count // 2)
            step = radius * float(rng.uniform(2.5, 3.2))
            grid = np.array([(k % columns * step, k // columns * step) for k in range(count)])
            room = np.array([right - left, bottom - top]) - grid.max(axis=0)
            if (room <= 0).any():
                continue
            spots = grid + (left, top) + rng.random(2) * room
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + np.eye(count) * 1e9  # (count, count)
        if gaps.min() > 2.45 * radius:
            return [(float(x), float(y)) for x, y in spots]
    return []


def paint(rng: Generator, scene: Scene) -> tuple[Image.Image, list[list[Image.Image]]]:
    """The picture, and a mask of each object of each group."""
    size = (scene.width * _SMOOTH, scene.height * _SMOOTH)
    shade = pick(rng, SHADES[scene.background])
    image = Image.new("RGB", size, shade)
    draw = ImageDraw.Draw(image)
    lined = chance(rng, 0.15)
    masks: list[list[Image.Image]] = []
    for group in scene.groups:
        colour = pick(rng, SHADES[group.colour])
        dark = sum(colour) < 300
        edge = (235, 235, 235) if dark else (20, 20, 24)
        masks.append([])
        for centre in group.centres:
            corners = _corners(group, centre, _SMOOTH)
            draw.polygon(corners, fill=colour)
            if lined:
                draw.line([*corners, corners[0], corners[1]], fill=edge, width=_SMOOTH)
            mask = Image.new("L", (scene.width, scene.height), 0)
            ImageDraw.Draw(mask).polygon(_corners(group, centre), fill=255)
            masks[-1].append(mask)
    return image.resize((scene.width, scene.height), Image.Resampling.LANCZOS), masks


def photographed(rng: Generator) -> tuple[Scene, Image.Image, list[list[Box]]]:
    """A scene, its picture and the box of each object of each group, in pixels of the picture."""
    scene = draw_scene(rng)
    page, masks = paint(rng, scene)
    image, shot = photograph_with_shot(rng, page, desk=False)
    boxes = []
    for group in masks:
        found = [shot.take(mask, 0).point(lambda value: 255 * (value > 127)).getbbox() for mask in group]
        boxes.append([(float(a), float(b), float(c), float(d)) for a, b, c, d in filter(None, found)])
    return scene, image, boxes


def render_scene(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The scene number ``index`` of the endless held-out series ``seed``: caption, a count and the background."""
    del fonts  # nothing is written on it
    rng = np.random.default_rng((seed, 6, index))
    scene, image, _ = photographed(rng)
    group = pick(rng, scene.groups)
    count = len(group.centres)
    several = group.name() if count > 1 else Group(group.colour, group.shape, "", 1, 0, ((0, 0),) * 2).name()
    questions = (
        Question("caption", wording(rng, CAPTION_PROMPTS), scene.caption(), "caption"),
        Question("how many", wording(rng, COUNT_PROMPTS).format(several), str(count), accept=(NUMBERS[count],)),
        Question("background", wording(rng, BACKGROUND_PROMPTS), scene.background),
    )
    return Document(image, "", questions, f"{len(scene.groups)} {scene.layout or 'single'}", 0.0)
