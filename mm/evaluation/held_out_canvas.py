"""Paper, ink and camera of the held-out documents: rows of text on a sheet, and what a scanner or a phone does to it.

A transcription has one line per printed row, cells of a row joined by one space, from left to right; drawn lines,
boxes, bar codes, logos, dotted leaders and rows of dashes are not text. A row that would overflow the sheet or overlap
its neighbour raises ``DoesNotFitError`` and the renderer starts anew, so that a truth always names what can be seen.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mm.evaluation.held_out_words import chance, pick
from mm.processing.tiling import choose_resolution

Font = ImageFont.FreeTypeFont
Colour = tuple[int, int, int]

TILE = 192  # pixels; with up to nine tiles, what nano-vl2 promises to read
MAX_TILES = 9
MIN_GLYPH = 12.0  # pixels from baseline to the top of a "d", after the image is fitted into its tiles
MIN_SIDE, MAX_SIDE = 300, 1000  # allowed widths of a picture
_GRIDS = [
    (TILE * across, TILE * down) for across in range(1, 10) for down in range(1, 10) if across * down <= MAX_TILES
]
_TALLEST = 2600


class DoesNotFitError(Exception):
    """The drawn content does not fit the sheet; the caller draws another document."""


@dataclass(frozen=True)
class Question:
    """One question on a picture.

    Attributes:
        skill: names the row of the result table.
        prompt: what is asked.
        answer: the truth, spelled as ``scorer`` expects it.
        scorer: how answers are compared, a key of ``mm.evaluation.scoring.SCORERS``.
        tolerance: how far a number may be off, in its own units (5% of the axis: 0.05 times its length).
        accept: other answers that are as right.
        about: the label or the thing that is asked about, as printed; empty where there is none to name.
    """

    skill: str
    prompt: str
    answer: str
    scorer: str = "text"
    tolerance: float = 0.0
    accept: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Document:
    """A rendered document.

    Attributes:
        image: RGB.
        text: the transcription, rows separated by line breaks; empty where none is asked for.
        questions: questions with their right answers.
        style: name of the design.
        glyph_height: height of the smallest "d" in pixels after the picture is fitted into its best grid of tiles; 0
            where nothing is written.
    """

    image: Image.Image
    text: str
    questions: tuple[Question, ...]
    style: str
    glyph_height: float


@dataclass(frozen=True)
class Cell:
    """Text at a place of a row: ``x`` in pixels is its left end, right end or middle for anchor "l", "r" or "m"."""

    text: str
    font: Font
    x: float
    anchor: str = "l"
    ink: Colour | None = None  # None: the sheet's


@dataclass(frozen=True)
class Print:
    """Text on a sheet: ``x`` is its left end, both in pixels."""

    text: str
    font: Font
    x: int
    baseline: int


def wording(rng: Generator, prompts: Sequence[str]) -> str:
    """The first prompt, the canonical wording, on half of the questions; one of the others on the other half."""
    return prompts[0] if chance(rng, 0.5) else pick(rng, prompts[1:])


def ascender(font: Font) -> int:
    """Pixels from the baseline to the top of a "d"."""
    return -int(font.getbbox("d", anchor="ls")[1])


def tile_scale(width: int, height: int) -> float:
    """By how much a picture is scaled when it is fitted into its best grid of at most nine tiles."""
    grid_width, grid_height = choose_resolution((width, height), _GRIDS)
    return min(grid_width / width, grid_height / height)


class Sheet:
    """A sheet of paper that is filled from top to bottom.

    Args:
        width: pixels.
        margin: pixels left and right that stay free of rows.
        leading: height of a row in sizes of its largest font.
        ink, paper: colours.
    """

    def __init__(
        self,
        width: int,
        margin: int,
        *,
        leading: float = 1.3,
        ink: Colour = (0, 0, 0),
        paper: Colour = (255, 255, 255),
    ) -> None:
        self.width, self.margin, self.leading, self.ink, self.paper = width, margin, leading, ink, paper
        self.image = Image.new("RGB", (width, _TALLEST), paper)
        self.draw = ImageDraw.Draw(self.image)
        self.y = float(margin)
        self.rows: list[str] = []
        self.smallest = 1000
        self.prints: list[Print] = []

    @property
    def left(self) -> int:
        """First pixel column of the rows."""
        return self.margin

    @property
    def right(self) -> int:
        """Pixel column where the rows end."""
        return self.width - self.margin

    @property
    def middle(self) -> float:
        """Half of the width."""
        return self.width / 2

    def space(self, pixels: float) -> None:
        """Leave a gap."""
        self.y += pixels

    def row(
        self, *cells: Cell, leading: float | None = None, ink: Colour | None = None
    ) -> list[tuple[float, float, float, float]]:
        """Print one row, cells on a common baseline; returns the box (left, top, right, bottom) of each cell as passed.

        Raises:
            DoesNotFitError: a cell leaves the margins or comes too near to the next.
        """
        top = self.y
        above = max(ascender(cell.font) for cell in cells)
        baseline = round(top + above)
        boxes = []
        for cell in cells:
            length = float(cell.font.getlength(cell.text))
            x = {"l": cell.x, "m": cell.x - length / 2, "r": cell.x - length}[cell.anchor]
            if x < self.margin - 1 or x + length > self.width - self.margin + 1:
                raise DoesNotFitError(f"{cell.text!r} leaves the sheet")
            boxes.append((x, top, x + length, baseline + 0.3 * above))
            self.draw.text(
                (round(x), baseline), cell.text, font=cell.font, fill=cell.ink or ink or self.ink, anchor="ls"
            )
            self.prints.append(Print(cell.text, cell.font, round(x), baseline))
            self.smallest = min(self.smallest, ascender(cell.font))
        order = sorted(range(len(cells)), key=lambda i: boxes[i][0])
        for before, after in pairwise(order):
            if boxes[after][0] - boxes[before][2] < 0.55 * above:
                raise DoesNotFitError(f"{cells[before].text!r} and {cells[after].text!r} come too near")
        self.rows.append(" ".join(cells[i].text for i in order))
        self.y = top + (self.leading if leading is None else leading) * max(cell.font.size for cell in cells)
        if self.y > _TALLEST - 200:
            raise DoesNotFitError("the sheet is full")
        return boxes

    def text(self, text: str, font: Font, at: str = "l", *, ink: Colour | None = None) -> None:
        """Print a row of one cell at the left margin, in the middle ("m") or at the right margin ("r")."""
        self.row(Cell(text, font, {"l": self.left, "m": self.middle, "r": self.right}[at], at), ink=ink)

    def decoration(self, text: str, font: Font) -> None:
        """Print a row of dashes or stars; it is not transcribed."""
        self.text(text, font, "m")
        self.rows.pop()
        self.prints.pop()

    def ends(self, left: str, right: str, font: Font, *, edge: float | None = None) -> None:
        """Print a row of two cells, one at the left margin, one that ends at the right margin (or at ``edge``)."""
        self.row(Cell(left, font, self.left), Cell(right, font, self.right if edge is None else edge, "r"))

    def line(
        self, *, thickness: int = 1, dashed: bool = False, left: float | None = None, right: float | None = None
    ) -> None:
        """Draw a rule at the present height; it is not text."""
        start, stop = self.left if left is None else left, self.right if right is None else right
        if not dashed:
            self.draw.line((start, self.y, stop, self.y), fill=self.ink, width=thickness)
            return
        x = start
        while x < stop:
            self.draw.line((x, self.y, min(x + 6, stop), self.y), fill=self.ink, width=thickness)
            x += 11

    def barcode(self, rng: Generator, left: float, width: float, height: float) -> None:
        """Draw bars at the present height and move below them; they are not text."""
        x = left
        while x < left + width:
            bar = int(rng.integers(1, 4))
            self.draw.rectangle((x, self.y, min(x + bar - 1, left + width), self.y + height), fill=self.ink)
            x += bar + int(rng.integers(1, 4))
        self.y += height

    def logo(self, rng: Generator, x: float, size: float, colour: Colour) -> None:
        """Draw a sign of a firm, centred at ``x``, and move below it; it is not text."""
        box = (x - size / 2, self.y, x + size / 2, self.y + size)
        kind = int(rng.integers(4))
        if kind == 0:
            self.draw.ellipse(box, outline=colour, width=max(2, int(size / 9)))
        elif kind == 1:
            self.draw.rounded_rectangle(box, radius=size / 5, fill=colour)
            self.draw.ellipse((x - size / 5, self.y + size * 0.3, x + size / 5, self.y + size * 0.7), fill=self.paper)
        elif kind == 2:
            self.draw.polygon([(x, self.y), (box[2], box[3]), (box[0], box[3])], fill=colour)
        else:
            self.draw.regular_polygon((x, self.y + size / 2, size / 2), 6, fill=colour)
        self.y += size

    def finish(self) -> Image.Image:
        """The filled part of the sheet."""
        return self.image.crop((0, 0, self.width, round(self.y + self.margin)))


@dataclass(frozen=True)
class Shot:
    """Where a camera stood: the border of the table around the page in pixels, and the turn in degrees."""

    border: int
    angle: float

    def take(self, page: Image.Image, ground: Colour | int) -> Image.Image:
        """The page on a ground of this colour, turned. Any mode, so that a mask of the page goes the same way."""
        if self.border:
            table = Image.new(page.mode, (page.width + 2 * self.border, page.height + 2 * self.border), ground)
            table.paste(page, (self.border, self.border))
            page = table
        if self.angle:
            page = page.rotate(self.angle, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=ground)
        return page


def photograph(rng: Generator, page: Image.Image, *, desk: bool) -> Image.Image:
    """What happens between paper and file, each on a share: up to 3 degrees of turn, uneven light, blur, noise, JPEG.

    ``desk`` lays the page on a table that shows around it.
    """
    return photograph_with_shot(rng, page, desk=desk)[0]


def photograph_with_shot(rng: Generator, page: Image.Image, *, desk: bool) -> tuple[Image.Image, Shot]:
    """``photograph``, and where the camera stood."""
    turned = chance(rng, 0.4)
    angle = float(rng.uniform(-3, 3)) if turned else 0.0
    red, green, blue = (int(v) for v in rng.integers(30, 170, size=3))
    if not desk:
        red, green, blue = page.crop((1, page.height - 2, 2, page.height - 1)).tobytes()
    ground = (red, green, blue)
    shot = Shot(int(rng.uniform(0.015, 0.05) * page.width) if desk else 0, angle)
    page = shot.take(page, ground)
    if chance(rng, 0.3):
        page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.7))))
    pixels = np.asarray(page, dtype=np.float32)  # (H, W, 3), 0..255
    if chance(rng, 0.4):
        dark = float(rng.uniform(0.72, 0.95))
        down, across = np.linspace(0, 1, page.height), np.linspace(0, 1, page.width)
        slope = rng.uniform(-1, 1, size=2)
        ramp = slope[0] * down[:, None] + slope[1] * across[None, :]  # (H, W)
        ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
        pixels = pixels * (dark + (1 - dark) * ramp)[..., None].astype(np.float32)
    if chance(rng, 0.6):
        sigma = float(rng.uniform(1.5, 9.0))
        pixels = pixels + rng.normal(0.0, sigma, size=(page.height, page.width, 1)).astype(np.float32)
    page = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if chance(rng, 0.6):
        packed = io.BytesIO()
        page.save(packed, "JPEG", quality=int(rng.integers(50, 93)))
        page = Image.open(packed).convert("RGB")
    return page, shot


Design = Callable[[Generator], tuple[Sheet, tuple[Question, ...], str]]
Ask = Callable[[Generator, Sheet, tuple[Question, ...], Shot], tuple[Question, ...]]


def compose(
    design: Design, seed: tuple[int, ...], *, desk_share: float, ask: Ask | None = None, plain: bool = False
) -> Document:
    """Draw by a design until the document fits the sheet and its smallest letters stay readable in nine tiles.

    Args:
        design: fills a sheet; returns it, the questions and the name of the style.
        seed: equal seeds give equal documents (with equal versions of Pillow, FreeType and NumPy).
        desk_share: share of the pictures that show a table around the paper.
        ask: makes other questions of the design's, of the sheet and of the shot; raises ``DoesNotFitError`` where it
            has none.
        plain: a file as a program writes it, without a camera.

    Raises:
        RuntimeError: no attempt fits: a defect of the design.
    """
    for attempt in range(200):
        rng = np.random.default_rng((*seed, attempt))
        try:
            sheet, questions, style = design(rng)
            image, shot = sheet.finish(), Shot(0, 0.0)
            if not plain:
                image, shot = photograph_with_shot(rng, image, desk=chance(rng, desk_share))
            height = sheet.smallest * tile_scale(*image.size)
            if height < MIN_GLYPH or not MIN_SIDE <= image.width <= MAX_SIDE:
                continue
            if ask is not None:
                questions = ask(rng, sheet, questions, shot)
        except DoesNotFitError:
            continue
        return Document(image, "\n".join(sheet.rows), questions, style, height)
    raise RuntimeError(f"no document of seed {seed} fits")
