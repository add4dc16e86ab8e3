"""Pictures of scenes: plain, outlined, hollow, shaded, striped or with shadows, clean or as a camera sees them.

Nothing here changes what a colour is called: light varies by an eighth at most, unlike on documents.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mm.synthetic.chart_canvas import Canvas, Point, Rect
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour
from mm.synthetic.scene_layout import Group, Scene
from mm.synthetic.shapes import COLOURS, VARIANTS, corners_in, draw_shape

_LARGE = 170_000  # pixels from which a picture is drawn without smoothing, for speed

_MANNERS = {"plain": 6.0, "edge": 1.3, "shade": 0.9, "shadow": 0.8, "stripes": 0.5, "hollow": 0.6}


def paint(
    scene: Scene, size: tuple[int, int], dice: Dice, level: float = 0.0, sheet: Sequence[Point] | None = None
) -> Image.Image:
    """The picture of a scene, mode RGB.

    Args:
        scene: what to draw, in pixels of ``size``.
        size: width and height.
        dice: shades and manner of drawing.
        level: 0 (usual colours, filled, some with an outline) to 1 (other shades and manners).
        sheet: corners of the paper where the scene is on a sheet that lies on something grey; None: it fills the
            picture.
    """
    smooth = 1 if size[0] * size[1] > _LARGE or dice.chance(0.2 * level) else 2
    ground = _shade(scene.background, dice, 8, level)
    if sheet is None:
        canvas = Canvas(*size, ground, smooth)
    else:
        grey = dice.integer(40, 215)
        canvas = Canvas(*size, (grey, grey, min(255, grey + dice.integer(0, 12))), smooth)
        canvas.polygon(sheet, ground)
    manner = dice.weighted(_MANNERS) if dice.chance(level) else "edge" if dice.chance(0.12) else "plain"
    for group in scene.groups:
        _draw_group(canvas, group, _shade(group.colour, dice, 12, level), ground, manner, dice)
    return canvas.picture()


def _shade(name: str, dice: Dice, spread: int, level: float) -> Colour:
    base = dice.pick(VARIANTS[name]) if dice.chance(0.5 * level) else COLOURS[name]
    red, green, blue = (min(255, max(0, c + dice.integer(-spread, spread))) for c in base)
    return (red, green, blue)


def _draw_group(canvas: Canvas, group: Group, colour: Colour, ground: Colour, manner: str, dice: Dice) -> None:
    light = sum(colour) + sum(ground) > 380
    edge: Colour | None = ((30, 30, 30) if light else (225, 225, 225)) if manner == "edge" else None
    hollow = manner == "hollow" and group.size != "small" and group.shape not in ("star", "cross")
    inner = dice.uniform(0.55, 0.7)
    texture = (dice.uniform(0.06, 0.14), dice.pick(["down", "across", "stripes"] if manner == "stripes" else ["down"]))
    for box in group.boxes:
        if manner == "shadow":
            shift = 0.07 * (box[2] - box[0])
            dark = (ground[0] * 7 // 10, ground[1] * 7 // 10, ground[2] * 7 // 10)
            below = (box[0] + shift, box[1] + shift, box[2] + shift, box[3] + shift)
            draw_shape(canvas, group.shape, below, dark, None, group.turn, group.form)
        draw_shape(canvas, group.shape, box, colour, edge, group.turn, group.form)
        if hollow:
            canvas.polygon(corners_in(group.shape, box, group.turn, group.form, inner), ground)
        elif manner in ("shade", "stripes"):
            _texture(canvas, group, box, colour, *texture)


def _texture(canvas: Canvas, group: Group, box: Rect, colour: Colour, depth: float, way: str) -> None:
    """Fill a shape from lighter to darker, or with stripes of two shades."""
    scale = canvas.smooth
    left, top = int(box[0] * scale), int(box[1] * scale)
    width, height = int(box[2] * scale) + 1 - left, int(box[3] * scale) + 1 - top
    if way == "stripes":
        ramp = np.sign(np.sin(np.arange(height) * 2 * np.pi / max(4.0, height / 4)))[:, None] * np.ones((1, width))
    elif way == "across":
        ramp = np.linspace(-1, 1, width)[None] * np.ones((height, 1))
    else:
        ramp = np.linspace(1, -1, height)[:, None] * np.ones((1, width))
    pixels = np.clip(np.array(colour) * (1 + depth * ramp[..., None]), 0, 255)  # (height, width, 3)
    mask = Image.new("L", (width, height), 0)
    corners = [(x * scale - left, y * scale - top) for x, y in corners_in(group.shape, box, group.turn, group.form)]
    ImageDraw.Draw(mask).polygon(corners, 255)
    canvas.image.paste(Image.fromarray(pixels.astype(np.uint8)), (left, top), mask)


def photograph(image: Image.Image, dice: Dice, level: float) -> Image.Image:
    """What a camera or a file format leaves of a picture, in place: uneven light, blur, noise, JPEG."""
    if not dice.chance(0.5 * level):
        return image
    if dice.chance(0.25):
        coarse = 255.0 - dice.uniform(8, 34) * dice.rng.random((2, 2), dtype=np.float32)
        light = Image.fromarray(coarse.astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
        image = ImageChops.multiply(image, Image.merge("RGB", (light, light, light)))
    if dice.chance(0.25):
        image = image.filter(ImageFilter.BoxBlur(dice.uniform(0.3, 0.9)))
    if dice.chance(0.5):
        edge, sigma = 128, dice.uniform(1.5, 11.0)
        planes = []
        for _ in range(3 if dice.chance(0.4) else 1):
            noise = 128.0 + sigma * dice.rng.standard_normal((edge, edge), dtype=np.float32)
            tile = np.clip(noise, 0, 255).astype(np.uint8)
            tiles = np.tile(tile, (image.height // edge + 1, image.width // edge + 1))
            planes.append(Image.fromarray(tiles[: image.height, : image.width]))
        image = ImageChops.add(image, Image.merge("RGB", planes * 3 if len(planes) == 1 else planes), 1, -128)
    if dice.chance(0.45):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=dice.integer(35, 92))
        image = Image.open(buffer).convert("RGB")
    return image
