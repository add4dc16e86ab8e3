"""Elements of a page: what is asked for (a line, two ends of a row, a grid, a rule) and how it is placed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mm.synthetic.fonts import Pen
from mm.synthetic.page import Colour, Page
from mm.synthetic.style import Style


class Element(Protocol):
    """Something that takes the full width of a column, placed from top to bottom."""

    def natural_width(self, style: Style) -> float:
        """Pixels that it needs."""
        ...

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        """Put it at ``page.top`` between ``x`` and ``x + width`` and move ``page.top`` below it."""
        ...


def next_baseline(page: Page, style: Style, pen: Pen) -> float:
    """Move ``page.top`` down by one line of ``pen``; returns the baseline of that line."""
    height = max(style.line, pen.size) if pen.size <= style.em else pen.size * min(style.pitch, 1.3)
    page.top += height
    return page.top - max(0.24 * pen.size, (height - pen.size) / 2 + 0.2 * pen.size)


@dataclass(frozen=True)
class Gap:
    """Empty space of ``ems`` em."""

    ems: float

    def natural_width(self, style: Style) -> float:
        return 0.0

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        page.top += self.ems * style.em


@dataclass(frozen=True)
class Line:
    """One line of text."""

    text: str
    pen: Pen
    align: str = "left"  # left, center or right
    ink: Colour | None = None
    bar: Colour | None = None  # fills the whole row behind the text
    underline: bool = False
    indent: float = 0.0  # em, of a line at the left

    def natural_width(self, style: Style) -> float:
        return self.pen.width(self.text) + (style.em if self.bar else 0.0) + self.indent * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        free = width - self.pen.width(self.text)
        pad = style.em * 0.5 if self.bar else 0.0
        top = page.top
        baseline = next_baseline(page, style, self.pen)
        if self.bar:
            page.top += 0.15 * style.em
            page.shape("fill", (x, top, x + width, page.top), self.bar)
        offset = {"left": pad + self.indent * style.em, "center": free / 2, "right": free - pad}[self.align]
        page.text(x + offset, baseline, self.text, self.pen, self.ink or style.ink)
        if self.underline:
            left, y = x + offset, baseline + max(2.0, 0.35 * self.pen.descent)
            thin = max(1, round(self.pen.size / 16))
            page.shape("line", (left, y, left + self.pen.width(self.text), y), self.ink or style.ink, thin)


@dataclass(frozen=True)
class Justified:
    """One line of text whose words are spread over the whole width."""

    text: str
    pen: Pen
    indent: float = 0.0  # em

    def natural_width(self, style: Style) -> float:
        return self.pen.width(self.text) + self.indent * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        baseline, words = next_baseline(page, style, self.pen), self.text.split()
        free = width - self.natural_width(style)
        space = self.pen.advance(" ") + free / max(1, len(words) - 1)
        x += self.indent * style.em
        if space > 1.6 * style.em:  # a row so loose would not read as one
            page.text(x, baseline, self.text, self.pen, style.ink)
            return
        for word in words:
            page.text(x, baseline, word, self.pen, style.ink)
            x += self.pen.width(word) + space


@dataclass(frozen=True)
class Columns:
    """Texts that begin at equal steps of the row."""

    texts: Sequence[str]
    pen: Pen

    def natural_width(self, style: Style) -> float:
        return len(self.texts) * (max(self.pen.width(text) for text in self.texts) + 1.2 * style.em)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        baseline = next_baseline(page, style, self.pen)
        for index, text in enumerate(self.texts):
            page.text(x + index * width / len(self.texts), baseline, text, self.pen, style.ink)


@dataclass(frozen=True)
class Logo:
    """A sign without text, ``size`` em high, alone on its rows or left of a line of text."""

    kind: str  # fill, round, frame, ellipse, ellipse_frame
    size: float
    align: str = "center"  # left, center or right
    text: str = ""
    pen: Pen | None = None  # of the text

    def _side(self, style: Style) -> float:
        return self.size * style.em

    def natural_width(self, style: Style) -> float:
        return self._side(style) + (0.6 * style.em + self.pen.width(self.text) if self.pen else 0.0)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        side, top, free = self._side(style), page.top + 0.1 * style.em, width - self.natural_width(style)
        left = x + {"left": 0.0, "center": free / 2, "right": free}[self.align]
        thick = max(1, round(style.em / 6))
        page.shape(self.kind, (left, top, left + side, top + side), style.accent, thick)
        inner = side * 0.3
        hole = (left + inner, top + inner, left + side - inner, top + side - inner)
        page.shape("ellipse" if self.kind == "frame" else "frame", hole, style.panel, thick)
        if self.pen:
            page.top = max(page.top, top + side / 2 - 0.65 * self.pen.size)
            baseline = next_baseline(page, style, self.pen)
            page.text(left + side + 0.6 * style.em, baseline, self.text, self.pen, style.ink)
        page.top = max(page.top, top + side + 0.2 * style.em)


@dataclass(frozen=True)
class Ends:
    """A text at the left end of a row and one at the right end, with or without a leader between them."""

    left: str
    right: str
    left_pen: Pen
    right_pen: Pen
    leader: str = ""  # "." "-" ". " ...
    ink: Colour | None = None
    indent: float = 0.0  # em

    def natural_width(self, style: Style) -> float:
        gap = (3.5 if self.leader else 1.2) * style.em
        return self.indent * style.em + self.left_pen.width(self.left) + gap + self.right_pen.width(self.right)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        ink = self.ink or style.ink
        baseline = next_baseline(page, style, max(self.left_pen, self.right_pen, key=lambda pen: pen.size))
        start = x + self.indent * style.em
        end = x + width - self.right_pen.width(self.right)
        page.text(start, baseline, self.left, self.left_pen, ink)
        page.text(end, baseline, self.right, self.right_pen, ink)
        if self.leader and self.right:
            first = start + self.left_pen.width(self.left) + 0.4 * style.em
            fill_run(page, self.left_pen, self.leader, first, end - 0.4 * style.em, baseline, style.soft)


def fill_run(page: Page, pen: Pen, unit: str, x0: float, x1: float, baseline: float, ink: Colour) -> None:
    """A decorative run of ``unit`` from ``x0`` to ``x1``, right-aligned; none where fewer than four would fit."""
    step = pen.width(unit)
    count = int((x1 - x0) / step) if step > 0 else 0
    if count >= 4:
        text = (unit * count).rstrip()
        page.text(x1 - pen.width(text), baseline, text, pen, ink, counts=False)


@dataclass(frozen=True)
class Rule:
    """A separator over the whole width: drawn (line, thick, double, dashes) or a run of characters."""

    kind: str  # line, thick, double, dashes, or the unit of the run: "-", "=", "*", "- " ...
    pen: Pen
    word: str = ""  # in the middle of the run

    def natural_width(self, style: Style) -> float:
        return self.pen.width(self.word) + 6 * style.em if self.word else 0.0

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        thin = max(1, round(style.em / 14))
        if self.kind in {"line", "thick", "double", "dashes"}:
            y = page.top + 0.35 * style.em
            kind = "dashes" if self.kind == "dashes" else "line"
            page.shape(kind, (x, y, x + width, y), style.accent, 2 * thin if self.kind == "thick" else thin)
            if self.kind == "double":
                y += 2.5 * thin
                page.shape(kind, (x, y, x + width, y), style.accent, thin)
            page.top = y + 0.35 * style.em
            return
        baseline = next_baseline(page, style, self.pen)
        if not self.word:
            fill_run(page, self.pen, self.kind, x, x + width, baseline, style.ink)
            return
        half = (width - self.pen.width(self.word)) / 2
        page.text(x + half, baseline, self.word, self.pen, style.ink)
        fill_run(page, self.pen, self.kind, x, x + half - 0.5 * style.em, baseline, style.ink)
        fill_run(page, self.pen, self.kind, x + width - half + 0.5 * style.em, x + width, baseline, style.ink)


@dataclass(frozen=True)
class Grid:
    """Rows of cells in shared columns; free width goes to the column ``stretch`` (or is left at the right)."""

    rows: Sequence[Sequence[str]]
    aligns: str  # one letter a column: l, c or r
    pens: Sequence[Pen]  # one a row
    stretch: int | None = None
    gap: float = 1.0  # em between columns
    lines: str = ""  # "", "rows", "all" (frame and both directions), "head" (below the first row)
    bar: Colour | None = None  # behind the first row
    stripe: Colour | None = None  # behind every second row
    head_ink: Colour | None = None
    pad: float = 0.0  # extra height of a row, em

    def _columns(self, style: Style) -> list[float]:
        return [
            max((pen.width(row[index]) for row, pen in zip(self.rows, self.pens, strict=True)), default=0.0)
            for index in range(len(self.aligns))
        ]

    def natural_width(self, style: Style) -> float:
        columns = self._columns(style)
        return sum(columns) + self.gap * style.em * (len(columns) - 1 + (1 if self.lines == "all" else 0))

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        columns, gap = self._columns(style), self.gap * style.em
        side = gap / 2 if self.lines == "all" else 0.0
        free = max(0.0, width - self.natural_width(style))
        if self.stretch is not None:
            columns[self.stretch] += free
        starts = [x + side + sum(columns[:index]) + gap * index for index in range(len(columns))]
        right = starts[-1] + columns[-1] + side
        thin, top = max(1, round(style.em / 16)), page.top
        ruled = self.lines in {"rows", "all"}
        for number, (row, pen) in enumerate(zip(self.rows, self.pens, strict=True)):
            row_top = page.top
            page.top += self.pad * style.em / 2
            baseline = next_baseline(page, style, pen)
            page.top += self.pad * style.em / 2
            fill = self.bar if number == 0 else self.stripe if number % 2 == 0 else None
            if fill is not None:
                page.shape("fill", (x, row_top, right, page.top), fill)
            if (ruled and (number > 0 or self.lines == "all")) or (self.lines == "head" and number == 1):
                page.shape("line", (x, row_top, right, row_top), style.accent, thin)
            ink = self.head_ink if number == 0 and self.head_ink is not None else style.ink
            for cell, align, start, column in zip(row, self.aligns, starts, columns, strict=True):
                offset = {"l": 0.0, "c": 0.5, "r": 1.0}[align] * (column - pen.width(cell))
                page.text(start + offset, baseline, cell, pen, ink)
        if self.lines == "all":
            page.shape("frame", (x, top, right, page.top), style.accent, thin)
            for start in starts[1:]:
                page.shape("line", (start - gap / 2, top, start - gap / 2, page.top), style.accent, thin)


def build_page(elements: Sequence[Element], style: Style, width: float | None = None) -> Page:
    """Place the elements below each other; without ``width`` the column is as wide as its widest element."""
    page = Page()
    natural = max((element.natural_width(style) for element in elements), default=0.0)
    for element in elements:
        element.place(page, style, 0.0, max(natural, width or 0.0))
    return page


def wrap(text: str, pen: Pen, width: float, *, hyphens: bool = False) -> list[str]:
    """Break a text at spaces into lines of at most ``width`` pixels (a longer word gets a line of its own).

    With ``hyphens`` a long word may be divided, with a hyphen at the end of the line.
    """
    lines: list[str] = []
    current, used, space = "", 0.0, pen.advance(" ")
    for word in text.split():
        size = pen.width(word)
        if current and used + space + size > width:
            cut = len(word) // 2
            if hyphens and len(word) > 7 and word.isalpha() and used + space + pen.width(f"{word[:cut]}-") <= width:
                current, word = f"{current} {word[:cut]}-", word[cut:]
                size = pen.width(word)
            lines.append(current)
            current, used = word, size
        else:
            used += size + (space if current else 0.0)
            current = f"{current} {word}" if current else word
    return [*lines, current] if current else lines
