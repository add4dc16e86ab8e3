"""Canvas, colours and styles of the held-out charts: smooth shapes, then text that may touch no other text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator
from PIL import Image, ImageDraw

from mm.evaluation.held_out_canvas import Colour, DoesNotFitError, Font, ascender
from mm.evaluation.held_out_charts_data import pick_lining
from mm.evaluation.held_out_fonts import Face, HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

_FINE = 3  # shapes are drawn this much larger, then reduced

_PALETTES = tuple(
    tuple((int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)) for code in row.split())
    for row in (
        "264653 2a9d8f e9c46a f4a261 e76f51 8ab17d b56576",
        "003f5c bc5090 ffa600 58508d ff6361 3d9a8b a05195",
        "1d3557 e63946 a8dadc 457b9d f1a208 6a994e 9d8189",
        "648fff dc267f fe6100 ffb000 785ef0 2f2f2f 3cb371",
        "5e81ac bf616a ebcb8b a3be8c b48ead d08770 4c566a",
        "268bd2 cb4b16 859900 d33682 b58900 2aa198 6c71c4",
        "440154 21918c fde725 3b528b 5ec962 b8860b 90708c",
        "7a4b2a c98f4e 3f6b5c a8b86b 8c2f39 d9c27e 44546b",
        "0d47a1 43a047 f9a825 d84315 6a1b9a 00838f 9e9d24",
        "2b2b2b 8f8f8f 5a5a5a c4c4c4 3f6fb0 747474 a9a9a9",
    )
)
_GROUNDS = (  # paper, plot area, ink, lines
    ((255, 255, 255), (255, 255, 255), (34, 34, 40), (205, 208, 214)),
    ((255, 255, 255), (246, 247, 249), (20, 24, 32), (214, 217, 222)),
    ((255, 255, 255), (255, 255, 255), (0, 0, 0), (150, 150, 150)),
    ((253, 246, 227), (253, 246, 227), (60, 74, 80), (222, 214, 190)),
    ((244, 241, 234), (251, 249, 245), (62, 48, 38), (218, 208, 192)),
    ((232, 238, 244), (244, 248, 252), (28, 46, 74), (190, 204, 220)),
    ((38, 43, 54), (46, 52, 64), (232, 236, 243), (84, 93, 110)),
    ((24, 26, 27), (24, 26, 27), (225, 222, 216), (78, 80, 82)),
)


@dataclass(frozen=True)
class Style:
    """How a chart looks. Sizes in pixels."""

    face: Face
    size: int  # of labels; the em
    paper: Colour
    plot: Colour
    ink: Colour
    line: Colour
    palette: tuple[Colour, ...]
    grid: Literal["lines", "dots", "bands", "none"]
    frame: Literal["corner", "box", "base", "none"]
    axis_right: bool
    round_bars: bool
    hatched: bool
    outline: Colour | None
    title_left: bool
    legend: Literal["right", "top", "bottom"]

    def font(self, scale: float = 1.0, *, bold: bool = False) -> Font:
        """Letters of ``scale`` times the size of labels."""
        return self.face.bold(self.size * scale) if bold else self.face.regular(self.size * scale)


def contrast(one: Colour, other: Colour) -> float:
    """Difference of brightness, 0 to 255."""
    weights = (0.3, 0.59, 0.11)
    return abs(sum(w * (a - b) for w, a, b in zip(weights, one, other, strict=True)))


def distance(one: Colour, other: Colour) -> float:
    """Largest difference of a channel, 0 to 255."""
    return float(max(abs(a - b) for a, b in zip(one, other, strict=True)))


def draw_style(rng: Generator, fonts: HeldOutFonts, size: int) -> Style:
    """A style drawn at random; colours stand out from the ground."""
    paper, plot, ink, line = pick(rng, _GROUNDS[:3] if chance(rng, 0.45) else _GROUNDS)
    palette = pick(rng, _PALETTES)
    start = int(rng.integers(3))
    colours: tuple[Colour, ...] = ()
    for colour in (*palette[start:], *palette[:start], *(c for other in _PALETTES[:5] for c in other)):
        seen = all(distance(colour, ground) > 70 and contrast(colour, ground) > 32 for ground in (plot, paper))
        if len(colours) < 7 and seen and all(distance(colour, kept) > 45 for kept in colours):
            colours = (*colours, colour)
    return Style(
        face=pick_lining(rng, fonts, "sans", "serif") if chance(rng, 0.85) else pick_lining(rng, fonts),
        size=size,
        paper=paper,
        plot=plot,
        ink=ink,
        line=line,
        palette=colours,
        grid=pick(rng, ("lines", "lines", "dots", "bands", "none")),
        frame=pick(rng, ("corner", "corner", "box", "base", "none")),
        axis_right=chance(rng, 0.12),
        round_bars=chance(rng, 0.25),
        hatched=chance(rng, 0.08),
        outline=ink if chance(rng, 0.2) else None,
        title_left=chance(rng, 0.5),
        legend=pick(rng, ("right", "right", "top", "bottom")),
    )


class ChartCanvas:
    """A picture of ``width`` x ``height`` pixels. Shapes go down at once; text is set by ``finish``.

    ``rows`` holds the texts in the order in which they were written, ``smallest`` the least height of a "d".
    """

    def __init__(self, width: int, height: int, style: Style) -> None:
        self.width, self.height, self.style = width, height, style
        self._shapes = Image.new("RGB", (width * _FINE, height * _FINE), style.paper)
        self._draw = ImageDraw.Draw(self._shapes)
        self._texts: list[tuple[Image.Image, int, int, Colour]] = []
        self._boxes: list[Box] = []
        self.rows: list[str] = []
        self.smallest = 1000

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * _FINE, y * _FINE) for x, y in points]

    def rectangle(
        self,
        box: Box,
        fill: Colour | None,
        *,
        outline: Colour | None = None,
        radius: float = 0.0,
        thickness: float = 1.0,
    ) -> None:
        """A rectangle, on request with round corners."""
        left, top, right, bottom = (value * _FINE for value in box)
        if right - left < 1 or bottom - top < 1:
            return
        edge = max(1, round(thickness * _FINE)) if outline else 1
        radius = min(radius * _FINE, (right - left) / 2, (bottom - top) / 2)
        self._draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius, fill, outline, edge if outline else 0)

    def hatching(self, box: Box, ink: Colour, gap: float) -> None:
        """Slanted strokes inside a box."""
        left, top, right, bottom = (round(value * _FINE) for value in box)
        if right - left < 2 or bottom - top < 2:
            return
        part = Image.new("L", (right - left, bottom - top))
        pen = ImageDraw.Draw(part)
        for x in range(-part.height, part.width, max(2, round(gap * _FINE))):
            pen.line((x, part.height, x + part.height, 0), fill=255, width=_FINE + 1)
        self._shapes.paste(ink, (left, top), part)

    def line(self, points: Sequence[Point], ink: Colour, thickness: float = 1.0) -> None:
        """A line through points."""
        self._draw.line(self._scaled(points), ink, max(1, round(thickness * _FINE)), joint="curve")

    def dots(self, start: Point, end: Point, ink: Colour) -> None:
        """A dotted line, level or upright."""
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        steps = int(length // 5)
        for i in range(steps):
            share = i / max(steps, 1)
            x, y = start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
            self.disc((x, y), 0.8, ink)

    def disc(self, centre: Point, radius: float, fill: Colour, outline: Colour | None = None) -> None:
        """A filled circle."""
        x, y = centre
        box = [value * _FINE for value in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, fill, outline, _FINE * 2 if outline else 0)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._scaled(points), fill)

    def slice(self, centre: Point, radius: float, start: float, end: float, fill: Colour, edge: Colour) -> None:
        """A sector from angle ``start`` to ``end``, in degrees clockwise from three o'clock."""
        box = [(c + s * radius) * _FINE for s in (-1, 1) for c in centre]
        self._draw.pieslice(box, start, end, fill, edge, _FINE * 2)

    def text_box(self, x: float, y: float, text: str, font: Font, at: str) -> Box:
        """Where a text would stand: ``at`` is "l", "m" or "r" for the end that ``x`` means; ``y`` is its middle."""
        length, rise = float(font.getlength(text)), ascender(font)
        left = {"l": x, "m": x - length / 2, "r": x - length}[at]
        return (left, y - rise / 2 - 1, left + length, y + rise / 2 + 1)

    def text(
        self, x: float, y: float, text: str, font: Font, at: str = "l", *, ink: Colour | None = None, turn: int = 0
    ) -> None:
        """Write a text whose middle height is ``y``; ``turn`` degrees against the clock about that place.

        Raises:
            DoesNotFitError: it leaves the picture or comes too near to another text.
        """
        rise = ascender(font)
        left, top, right, bottom = font.getbbox(text, anchor="ls")
        pad = 2
        mask = Image.new("L", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad))
        ImageDraw.Draw(mask).text((pad - left, pad - top), text, fill=255, font=font, anchor="ls")
        if turn:
            mask = mask.rotate(turn, Image.Resampling.BICUBIC, expand=True)
            bounds = mask.getbbox()
            assert bounds is not None, "a text without ink"
            mask = mask.crop(bounds)
            if turn % 90:  # hangs with its end below the place
                corner = (round(x - mask.width + rise / 2), round(y))
            else:
                corner = (round(x - mask.width / 2), round(y - mask.height / 2))
            box: Box = (corner[0], corner[1], corner[0] + mask.width, corner[1] + mask.height)
        else:
            box = self.text_box(x, y, text, font, at)
            corner = (round(box[0] + left) - pad, round(y + rise / 2 + top) - pad)
        self._claim(box, rise, text, slanted=bool(turn % 90))
        self._texts.append((mask, *corner, ink or self.style.ink))
        self.rows.append(text)
        self.smallest = min(self.smallest, rise)

    def _claim(self, box: Box, rise: int, text: str, *, slanted: bool) -> None:
        if box[0] < 3 or box[1] < 3 or box[2] > self.width - 3 or box[3] > self.height - 3:
            raise DoesNotFitError(f"{text!r} leaves the picture")
        gap = 0.0 if slanted else 0.4 * rise
        for other in () if slanted else self._boxes:
            apart = box[0] - gap >= other[2] or box[2] + gap <= other[0] or box[1] >= other[3] or box[3] <= other[1]
            if not apart:
                raise DoesNotFitError(f"{text!r} comes too near to another text")
        self._boxes.append(box)

    def free(self, box: Box) -> bool:
        """Whether a place holds no text yet."""
        return all(
            box[0] >= other[2] or box[2] <= other[0] or box[1] >= other[3] or box[3] <= other[1]
            for other in self._boxes
        )

    def finish(self) -> Image.Image:
        """The picture with its text."""
        picture = self._shapes.resize((self.width, self.height), Image.Resampling.BOX)
        for mask, x, y, ink in self._texts:
            ground = picture.crop((x, y, x + mask.width, y + mask.height))
            coloured = Image.new("RGB", mask.size, ink)
            picture.paste(Image.composite(coloured, ground, mask), (x, y))
        return picture
