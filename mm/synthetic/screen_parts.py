"""Parts of screens: bars with titles, buttons, bubbles, panels, and signs without text."""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.draft import Job
from mm.synthetic.fonts import Colour, Pen
from mm.synthetic.layout import Element, next_baseline
from mm.synthetic.page import Page
from mm.synthetic.style import Style


@dataclass(frozen=True)
class Buttons:
    """A row of buttons, filled or framed."""

    names: Sequence[str]
    filled: int  # index of the filled one
    ink: Colour  # text of the filled one

    def natural_width(self, style: Style) -> float:
        return sum(style.pen().width(name) + 2.6 * style.em for name in self.names)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        pen, top = style.pen(), page.top + 0.3 * style.em
        page.top = top + 0.2 * style.em
        baseline = next_baseline(page, style, pen)
        page.top += 0.2 * style.em
        x += (width - self.natural_width(style)) / 2
        for index, name in enumerate(self.names):
            right = x + pen.width(name) + 1.6 * style.em
            filled = index == self.filled
            page.shape("round" if filled else "round_frame", (x, top, right, page.top), style.accent, 1)
            page.text(x + 0.8 * style.em, baseline, name, pen, self.ink if filled else style.ink)
            x = right + style.em
        page.top += 0.3 * style.em


@dataclass(frozen=True)
class TitleBar:
    """The top of a window or an app: its title, and signs without text at its ends."""

    title: str
    pen: Pen
    fill: Colour
    ink: Colour
    signs: Sequence[str] = ()  # shapes of ``Page``, at the end ``side``
    side: str = "right"  # left or right
    align: str = "left"  # of the title: left or center
    high: float = 0.4  # em above and below the title
    bleed: float = 0.0  # em beyond the column at the top and both sides, into the margins

    def natural_width(self, style: Style) -> float:
        return self.pen.width(self.title) + (1.6 + 1.8 * len(self.signs)) * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        top, em = page.top, style.em
        page.top += self.high * em
        baseline = next_baseline(page, style, self.pen)
        page.top += self.high * em
        out = self.bleed * em
        box = (x - out, top - out, x + width + out, page.top)
        page.shape("bleed" if self.bleed else "fill", box, self.fill)
        size, middle = 0.5 * em, (top + page.top) / 2
        taken = (0.4 + 0.9 * len(self.signs)) * em if self.signs else 0.0
        start = x + 0.4 * em if self.side == "left" else x + width - taken
        for index, sign in enumerate(self.signs):
            left = start + index * 0.9 * em
            box = (left, middle - size / 2, left + size, middle + size / 2)
            page.shape(sign, box if sign != "line" else (left, middle, left + size, middle), self.ink, 2)
        shift = 0.5 * em + (taken if self.side == "left" else 0.0)
        if self.align == "center":
            shift = max(shift, (width - self.pen.width(self.title)) / 2)
        page.text(x + shift, baseline, self.title, self.pen, self.ink)
        page.top += 0.3 * em


SIGNS = ("ellipse", "ellipse", "ellipse_frame", "fill", "frame", "line", "rise", "round", "round_frame")
"""Shapes that stand for buttons, files and people; none of them is text."""

_BARS = ((24, 90, 160), (150, 30, 40), (20, 110, 70), (90, 50, 130), (200, 90, 20), (60, 60, 64), (10, 100, 110),
         (160, 40, 110), (30, 30, 36), (110, 80, 50))  # fmt: skip


def title_bar(job: Job, title: str, *, bleeds: bool) -> TitleBar:
    """A bar in the colours of the page or in strong ones, with up to four signs at one end.

    With ``bleeds`` it may fill the margins beside and above it too: only as the first element of a page.
    """
    dice, style = job.dice, job.style
    fill, ink = style.panel, style.ink
    if style.coloured and dice.chance(0.7):
        base = dice.pick(_BARS)
        fill = (
            min(255, base[0] + dice.integer(0, 30)),
            min(255, base[1] + dice.integer(0, 30)),
            min(255, base[2] + dice.integer(0, 60)),
        )
        ink = (255, 255, 255)
    count = dice.weighted({0: 3, 1: 2, 2: 1.5, 3: 3, 4: 0.7})
    alike = dice.pick(SIGNS)
    signs = [alike] * count if dice.chance(0.6) else [dice.pick(SIGNS) for _ in range(count)]
    pen = style.pen("head") if dice.chance(0.6) else style.pen()
    side, align = dice.pick(["left", "right", "right"]), dice.pick(["left", "left", "left", "center"])
    bleed = dice.weighted({0.0: 3, dice.uniform(0.2, 1.0): 1, 60.0: 4}) if bleeds else 0.0
    return TitleBar(title, pen, fill, ink, signs, side, align, dice.uniform(0.1, 0.6), bleed)


@dataclass(frozen=True)
class Panel:
    """A row on a light panel of its own."""

    inside: Element

    def natural_width(self, style: Style) -> float:
        return self.inside.natural_width(style) + style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        top = page.top
        page.top += 0.15 * style.em
        self.inside.place(page, style, x + 0.5 * style.em, width - style.em)
        page.top += 0.25 * style.em
        page.shape("round", (x, top, x + width, page.top), style.panel)
        page.top += 0.15 * style.em


@dataclass(frozen=True)
class Signed:
    """Rows of equal height, each with a sign without text before it."""

    inside: Element
    sign: str
    filled: bool  # in the accent colour, else pale with a frame
    rows: int = 1
    first: int = 0  # rows before it have none: a header

    def natural_width(self, style: Style) -> float:
        return self.inside.natural_width(style) + 1.3 * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        top, half = page.top, 0.4 * style.em
        self.inside.place(page, style, x + 1.3 * style.em, width - 1.3 * style.em)
        pitch, left = (page.top - top) / self.rows, x + 0.1 * style.em
        for row in range(self.first, self.rows):
            middle = top + pitch * (row + 0.5)
            box = (left, middle - half, left + 1.6 * half, middle + half)
            page.shape(self.sign, box, style.accent if self.filled else style.panel, 1)
            if not self.filled and self.sign in {"fill", "round"}:
                page.shape("frame", box, style.soft, 1)


@dataclass(frozen=True)
class Bubble:
    """A message of a chat at the left or the right."""

    rows: Sequence[str]
    right: bool

    def natural_width(self, style: Style) -> float:
        return max(style.pen().width(row) for row in self.rows) + 3 * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        inner = max(style.pen().width(row) for row in self.rows) + style.em
        left = x + width - inner if self.right else x
        top = page.top + 0.2 * style.em
        page.top = top + 0.2 * style.em
        for row in self.rows:
            page.text(left + 0.5 * style.em, next_baseline(page, style, style.pen()), row, style.pen(), style.ink)
        page.top += 0.3 * style.em
        page.shape("round", (left, top, left + inner, page.top), style.panel)
        page.top += 0.3 * style.em
