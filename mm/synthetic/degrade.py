"""From a clean page to what a camera, scanner or printer makes of it. Everything stays readable to a person.

The page comes as greys on white (mode L: 0 is ink, 255 is paper, coloured at the end) or in its own colours (RGB).
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour
from mm.synthetic.style import Style

Boxes = NDArray[np.float32]  # (G, 5) codepoint, x0, y0, x1, y1


def finish(canvas: Image.Image, glyphs: Boxes, style: Style, dice: Dice, level: float) -> tuple[Image.Image, Boxes]:
    """Distort, colour, light and compress the page; returns an RGB image and the glyph boxes in its pixels.

    ``level`` in 0..1 scales how often and how strongly; 0 leaves a clean page on white.
    """
    if dice.chance(0.16 * level):
        canvas, glyphs = _reshape(canvas, glyphs, style, dice)
    rough = dice.chance(0.65 * level)  # a third of the samples stay clean even at level 1
    if rough and dice.chance(0.4):
        canvas, glyphs = _warp(canvas, glyphs, style, dice)
    if rough and dice.chance(0.15):
        canvas = _print(canvas, dice)
    image = canvas if canvas.mode == "RGB" else _colour(canvas, style, dice, level)
    if rough:
        image = _expose(image, dice, style.em)
    width, height = image.size
    boxes = glyphs.copy()
    boxes[:, [1, 3]] = np.clip(boxes[:, [1, 3]], 0, width)
    boxes[:, [2, 4]] = np.clip(boxes[:, [2, 4]], 0, height)
    return image, boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]


def _homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 3 x 3 matrix that takes four source points (4, 2) to four target points (direct linear transform)."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    solution = np.linalg.solve(np.array(rows), target.reshape(-1))
    return np.append(solution, 1.0).reshape(3, 3)


def _reshape(canvas: Image.Image, glyphs: Boxes, style: Style, dice: Dice) -> tuple[Image.Image, Boxes]:
    """Letters of another make: narrower, wider, heavier or lighter than any font that is installed."""
    width, height = canvas.size
    form = dice.weighted({"stretch": 5, "heavy": 2.5, "light": 2})
    if form == "stretch" or canvas.mode != "L" or style.em < 16:
        size = (max(1, round(width * dice.uniform(0.78, 1.3))), height)
        boxes = glyphs.copy()
        boxes[:, [1, 3]] *= size[0] / width
        return canvas.resize(size, Image.Resampling.BILINEAR), boxes
    moved = ImageChops.offset(canvas, 1, 0)
    if form == "heavy":
        return ImageChops.darker(canvas, moved), glyphs
    return ImageChops.add(canvas, ImageChops.lighter(canvas, moved), 2), glyphs


def _warp(canvas: Image.Image, glyphs: Boxes, style: Style, dice: Dice) -> tuple[Image.Image, Boxes]:
    """Stretch, slant, turn (up to 3 degrees) and tilt the page; what lies outside is paper or a table top."""
    width, height = canvas.size
    if dice.chance(0.3):  # only wider or narrower letters
        factor = dice.uniform(0.82, 1.25)
        size = (max(1, round(width * factor)), height)
        boxes = glyphs.copy()
        boxes[:, [1, 3]] *= size[0] / width
        return canvas.resize(size, Image.Resampling.BILINEAR), boxes
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    angle = np.deg2rad(dice.uniform(-3.0, 3.0))
    slant = dice.uniform(-0.12, 0.2) if dice.chance(0.25) else 0.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ np.array([[1, 0], [-slant, 1]])
    target = corners @ turn
    if dice.chance(0.5):
        target += dice.rng.uniform(-0.025, 0.025, (4, 2)) * np.array([width, height])
    table = dice.chance(0.35)
    border = dice.uniform(0.0, 0.08) * min(width, height) if table else 0.0
    target -= target.min(axis=0) - border
    size_x, size_y = (int(np.ceil(value)) for value in target.max(axis=0) + border)
    forward = _homography(corners, target)
    inverse = np.linalg.inv(forward)
    inverse /= inverse[2, 2]
    grey = dice.integer(20, 235)
    outside: int | Colour = grey if canvas.mode == "L" else (grey, grey, grey)
    if not table:
        outside = 255 if canvas.mode == "L" else style.paper
    warped = canvas.transform(
        (max(1, size_x), max(1, size_y)),
        Image.Transform.PERSPECTIVE,
        tuple(inverse.reshape(-1)[:8]),
        Image.Resampling.BILINEAR,
        fillcolor=outside,
    )
    x, y = glyphs[:, [1, 3, 3, 1]], glyphs[:, [2, 2, 4, 4]]  # (G, 4) corners
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ forward.T
    points = points[..., :2] / points[..., 2:]
    # Halfway between the sides of the turned box: the box of the glyph's middle, not of its extreme corners.
    boxes = np.empty_like(glyphs)
    boxes[:, 0] = glyphs[:, 0]
    boxes[:, 1], boxes[:, 3] = points[:, [0, 3], 0].mean(axis=1), points[:, [1, 2], 0].mean(axis=1)
    boxes[:, 2], boxes[:, 4] = points[:, [0, 1], 1].mean(axis=1), points[:, [2, 3], 1].mean(axis=1)
    return warped, boxes


def _print(canvas: Image.Image, dice: Dice) -> Image.Image:
    """A worn printer: speckled ink, or pale streaks down the page."""
    width, height = canvas.size
    if dice.chance(0.6):
        noise = dice.rng.random((96, 96), dtype=np.float32)
        spots = np.where(noise < dice.uniform(0.05, 0.25), dice.integer(60, 150), 0).astype(np.uint8)
        veil = Image.fromarray(np.tile(spots, (height // 96 + 1, width // 96 + 1))[:height, :width])
    else:
        row = dice.rng.random(max(2, width // dice.integer(6, 40)), dtype=np.float32)
        pale = (np.clip(row - 0.5, 0, 1) * dice.integer(80, 220)).astype(np.uint8)[None]
        veil = Image.fromarray(pale).resize((width, height), Image.Resampling.BILINEAR)
    return ImageChops.lighter(canvas, veil if canvas.mode == "L" else veil.convert("RGB"))


def _colour(canvas: Image.Image, style: Style, dice: Dice, level: float) -> Image.Image:
    """Greys to colours: dark ink on light paper, or the other way round; the contrast stays at least 85 of 255."""
    paper, ink = np.array([255.0, 255.0, 255.0]), np.array([0.0, 0.0, 0.0])
    if dice.chance(0.5 * level):
        paper = np.full(3, dice.uniform(175, 255)) - dice.rng.uniform(0, 28, 3) * (dice.rng.random() < 0.6)
        pale = dice.uniform(0, 110) if dice.chance(0.4) else dice.uniform(0, 40)
        ink = np.full(3, min(pale, paper.min() - 85)) + dice.rng.uniform(0, 50, 3) * (dice.rng.random() < 0.35)
        ink = np.minimum(ink, paper.min() - 85)
    if style.dark:
        paper, ink = np.full(3, dice.uniform(0, 45)), np.full(3, dice.uniform(190, 255))
    ramp = np.arange(256)[:, None] / 255.0
    table = np.clip(np.rint(ink + (paper - ink) * ramp), 0, 255).astype(np.uint8)  # (256, 3)
    return Image.merge("RGB", [canvas.point(table[:, channel].tolist()) for channel in range(3)])


def _expose(image: Image.Image, dice: Dice, em: int) -> Image.Image:
    """Uneven light, paper texture, grain, blur and JPEG, each on a share of the images."""
    if dice.chance(0.35):
        image = ImageChops.multiply(image, _light(image.size, dice))
    if dice.chance(0.2):
        radius = dice.uniform(0.2, 0.7) * em / 16
        image = image.filter(ImageFilter.BoxBlur(radius))
    if dice.chance(0.45):
        image = ImageChops.add(image, _grain(image.size, dice), 1, -128)
    if dice.chance(0.3):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=dice.integer(30, 92))
        image = Image.open(buffer).convert("RGB")
    return image


def _light(size: tuple[int, int], dice: Dice) -> Image.Image:
    """A smooth map of 130..255 that darkens parts of the page: shadows, vignettes, folds."""
    steps = (2, 2) if dice.chance(0.5) else (dice.integer(2, 5), dice.integer(2, 7))
    depth = dice.uniform(15, 90)
    coarse = 255.0 - depth * dice.rng.random(steps)
    light = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    return Image.merge("RGB", (light, light, light))


def _grain(size: tuple[int, int], dice: Dice) -> Image.Image:
    """Noise around 128, grey or coloured: fine grain, or the coarser fibres of paper."""
    width, height = size
    sigma = dice.uniform(1.5, 12.0)
    edge = 160
    planes = []
    for _ in range(3 if dice.chance(0.3) else 1):
        noise = 128.0 + sigma * dice.rng.standard_normal((edge, edge), dtype=np.float32)
        tile = np.clip(noise, 0, 255).astype(np.uint8)
        plane = Image.fromarray(np.tile(tile, (height // edge + 1, width // edge + 1))[:height, :width])
        planes.append(plane)
    if dice.chance(0.25):
        planes = [plane.resize((width * 2, height * 2), Image.Resampling.BILINEAR).crop((0, 0, width, height))
                  for plane in planes]  # fmt: skip
    return Image.merge("RGB", planes * 3 if len(planes) == 1 else planes)
