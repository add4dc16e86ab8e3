"""``render``: one synthetic document with questions and answers, and ``Mixture``: which kinds, how often.

Everything is drawn from the given generator, so equal generators and fonts give equal samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mm.errors import OptionError
from mm.synthetic.absent import absent_turns
from mm.synthetic.degrade import finish
from mm.synthetic.dice import Dice
from mm.synthetic.draft import Draft, Job
from mm.synthetic.fonts import FontSet
from mm.synthetic.forms import form
from mm.synthetic.layout import build_page
from mm.synthetic.page import Page
from mm.synthetic.paragraphs import paragraph
from mm.synthetic.questions import line_turns, read_all
from mm.synthetic.receipts import receipt
from mm.synthetic.sample import Sample, Turn
from mm.synthetic.screens import screen
from mm.synthetic.style import GRIDS, TILE, Budget, draw_style, view_scale
from mm.synthetic.tables import table
from mm.synthetic.texts import line, lines, word
from mm.synthetic.words import lexicon

RENDERERS: Mapping[str, Callable[[Job], Draft]] = {
    "word": word,
    "line": line,
    "lines": lines,
    "paragraph": paragraph,
    "receipt": receipt,
    "form": form,
    "table": table,
    "screen": screen,
}

KINDS = tuple(RENDERERS)

MAX_CHARACTERS = 900
"""Longest transcription that is rendered; nothing longer is promised of the model."""

ABSENT_SHARE = 0.18
"""Share of the documents that are asked for something that they do not show (beside the fields that forms lack)."""

MAX_PIXELS = 1_600_000

SMALLEST_EM = 11.5
"""Em size in pixels, after the image was fitted to its tiles, below which a document is made anew with less text."""


@dataclass(frozen=True)
class Mixture:
    """Kinds of documents with their weights (any positive numbers)."""

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(KINDS))
        if unknown:
            raise OptionError(f"Unknown document kind {', '.join(unknown)}. Known kinds: {', '.join(KINDS)}.")
        if not self.weights or min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
            raise OptionError(f"A mixture needs weights of at least 0 with a positive sum, got {dict(self.weights)}.")

    def draw(self, rng: np.random.Generator) -> str:
        """A kind, with probability proportional to its weight."""
        return Dice(rng).weighted(self.weights)


DEFAULT_MIXTURE = Mixture(
    {"word": 4, "line": 12, "lines": 14, "paragraph": 14, "receipt": 26, "form": 18, "table": 5, "screen": 7}
)


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Render one document.

    Args:
        kind: one of ``KINDS``.
        rng: source of every choice.
        fonts: typefaces to draw with; the words come from the same split as the fonts.
        level: 0 gives clean, short documents that fit one tile; 1 everything: up to nine tiles, distortions, dark mode.

    Raises:
        OptionError: an unknown kind, or a level outside 0..1.
    """
    if kind not in RENDERERS:
        raise OptionError(f"Unknown document kind {kind!r}. Known kinds: {', '.join(KINDS)}.")
    if not 0.0 <= level <= 1.0:
        raise OptionError(f"level must be between 0 and 1, got {level}.")
    dice = Dice(rng)
    squeeze = 1.0
    for attempt in range(6):
        draft, page, job = _compose(kind, dice, fonts, level, squeeze)
        left, top, width, height = _margins(page, job, dice)
        text = "\n".join(page.rows())
        em = job.style.em * view_scale(width, height)
        limit = SMALLEST_EM - (2.5 if dice.chance(0.06 * level) else 0.0)
        if em >= limit and len(text) <= MAX_CHARACTERS and width * height <= MAX_PIXELS:
            break
        squeeze *= 0.72 if attempt < 4 else 0.5
    canvas = _canvas(job, width, height)
    page.draw(canvas, left, top)
    image, glyphs = finish(canvas, page.glyphs(left, top), job.style, dice, level)
    turns = _turns(draft, page.rows(), text, job, kind)
    return Sample(image=image, turns=turns, glyphs=glyphs, text=text, fields=dict(draft.fields), kind=kind)


def _compose(kind: str, dice: Dice, fonts: FontSet, level: float, squeeze: float) -> tuple[Draft, Page, Job]:
    """Plan the size for a grid of tiles, make up the content and place it."""
    most = dice.integer(1, max(1, round(1 + 8 * level)))  # tiles
    if kind == "paragraph" and dice.chance(0.3):
        most = max(most, dice.integer(1, max(1, round(1 + 8 * level))))
    tall = kind == "receipt"
    grids = [grid for grid in GRIDS if grid[0] * grid[1] <= most]
    grids = [grid for grid in grids if (grid[1] >= grid[0] if tall else True) and max(grid) <= 4 * min(grid)]
    largest = max(x * y for x, y in grids)
    across, down = dice.pick([grid for grid in grids if grid[0] * grid[1] == largest])
    if kind in {"word", "line"}:
        across, down = (1 if kind == "word" else dice.integer(1, max(1, round(4 * level)))), 1
    seen = _em(dice, level, 4.5 if kind == "paragraph" else 3.0)  # em as the model sees it
    sharper, finer = dice.uniform(1.0, 1.5), dice.uniform(1.5, 2.6)
    zoom = dice.weighted({1.0: 4, dice.uniform(0.75, 1.0): 1.5, sharper: 3, finer: 1.2 * level})
    if across * down >= 6:
        zoom = min(zoom, 1.5)
    em = max(9, round(seen * zoom))
    style = draw_style(dice, fonts, kind, em, level)
    usable = TILE * zoom * squeeze * 0.92
    pen = style.pen()
    average = pen.width("Total 12.40 nation, Mere EUR") / 28
    budget = Budget(
        lines=max(1, int(usable * down / style.line)),
        columns=max(6, int(usable * across / average)),
        width=usable * across,
    )
    job = Job(dice, lexicon(fonts.split), style, budget, level)
    draft = RENDERERS[kind](job)
    return draft, build_page(draft.elements, style, draft.width), job


def _em(dice: Dice, level: float, small_print: float) -> float:
    """Em in pixels after tiling, ``small_print``: weight of the smallest; ascenders are about three quarters of it."""
    if level < 0.15:
        return dice.uniform(16, 30)
    small, middle, large = dice.uniform(12, 14), dice.uniform(14, 17), dice.uniform(17, 22)
    return dice.weighted(
        {small: small_print, middle: 4, large: 2.5, dice.uniform(22, 30): 1.5, dice.uniform(30, 46): 0.6}
    )


def _margins(page: Page, job: Job, dice: Dice) -> tuple[int, int, int, int]:
    """Left and top margin, then width and height of the whole image in pixels."""
    width, height = page.bounds
    em = job.style.em
    wide, huge = dice.uniform(1.0, 3.0), dice.uniform(3.0, 7.0)
    size = dice.weighted({0.15: 1, dice.uniform(0.3, 1.2): 5, wide: 2.5, huge: 0.4 * job.level})
    sides = [max(2.0, em * size * dice.uniform(0.7, 1.3)) for _ in range(4)]
    if dice.chance(0.06 * job.level):  # a photo with the page in a corner
        sides[dice.integer(0, 3)] += dice.uniform(0.1, 0.5) * max(width, height)
    left, top, right, bottom = (round(side) for side in sides)
    return left, top, int(np.ceil(width)) + left + right, int(np.ceil(height)) + top + bottom


def _canvas(job: Job, width: int, height: int) -> Image.Image:
    if job.style.coloured:
        return Image.new("RGB", (width, height), job.style.paper)
    return Image.new("L", (width, height), 255)


def _turns(draft: Draft, rows: list[str], text: str, job: Job, kind: str) -> tuple[Turn, ...]:
    """A few of the document's questions, in random order, with or without the whole transcription."""
    dice = job.dice
    asked = dice.sample(list(draft.turns), dice.integer(2, 6))
    if draft.reads_lines and dice.chance(0.35 if draft.turns else 0.6):
        asked += line_turns(dice, rows, dice.integer(1, 2))
    if dice.chance(ABSENT_SHARE * (0.4 if len(rows) == 1 else 1.0)):
        present = draft.present if draft.present is not None else tuple(draft.fields)
        asked += absent_turns(job, kind, rows, present, dice.weighted({1: 3, 2: 1}), tuple(draft.fields))
    if not asked or dice.chance(0.55 if draft.turns else 0.9):
        asked.append(read_all(dice, text))
    unique = {turn.question: turn for turn in asked}
    return tuple(dice.shuffled(list(unique.values())))
