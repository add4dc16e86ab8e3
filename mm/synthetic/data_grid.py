"""A printed table of data in the looks of spreadsheets, web pages, reports and papers, as an element of a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, Pen
from mm.synthetic.layout import next_baseline
from mm.synthetic.page import Page
from mm.synthetic.style import Style


@dataclass(frozen=True)
class GridLook:
    """How a table is ruled, filled and written; lengths in em of the body text."""

    gap: float  # between columns
    pad: float  # extra height of a row
    across: str  # rules between rows: "", "rows", "head" (below the header), "ends" (also above and below the table)
    down: str  # rules between columns: "", "all", "first" (behind the first)
    frame: bool
    dashed: bool  # rules between rows
    heavy: bool  # the rules at the header and the ends
    head_fill: Colour | None
    head_ink: Colour
    first_fill: Colour | None  # behind the first column
    stripe: Colour | None  # behind every second row
    stripe_from: int  # 0 or 1: which rows
    head_bold: bool
    first_bold: bool
    head_align: str  # "": as the column; else l, c or r
    title_inside: bool  # the title is a row of the table


def draw_grid_look(dice: Dice, style: Style) -> GridLook:
    """A look that goes with ``style``."""
    filled = dice.chance(0.42)
    strong = filled and dice.chance(0.45)
    head_fill = (style.accent if strong else style.panel) if filled else None
    head_ink = style.ink
    if strong:
        head_ink = (255, 255, 255) if sum(style.accent) < 400 else (0, 0, 0)
    frame = dice.chance(0.4)
    return GridLook(
        gap=dice.uniform(0.9, 2.6),
        pad=dice.weighted({0.0: 1, 0.15: 1, 0.35: 1.5, 0.6: 1, 1.0: 0.5}),
        across=dice.weighted({"rows": 4.5, "head": 2, "ends": 1.5, "": 1.5}),
        down=dice.weighted({"": 1, "all": 5, "first": 0.7} if frame else {"": 6, "all": 0.7, "first": 0.7}),
        frame=frame,
        dashed=dice.chance(0.08),
        heavy=dice.chance(0.35),
        head_fill=head_fill,
        head_ink=head_ink,
        first_fill=style.panel if dice.chance(0.08) else None,
        stripe=style.panel if dice.chance(0.25) else None,
        stripe_from=dice.integer(0, 1),
        head_bold=dice.chance(0.65),
        first_bold=dice.chance(0.12),
        head_align=dice.weighted({"": 6, "c": 2.5, "l": 1.5}),
        title_inside=dice.chance(0.25),
    )


@dataclass(frozen=True)
class DataGrid:
    """Header and rows in columns, all cells of a column aligned alike; empty cells stay empty."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    aligns: str  # one letter a column: l, c or r
    look: GridLook
    title: str = ""  # written as a row over all columns

    def _pens(self, style: Style) -> tuple[Pen, Pen, Pen]:
        """Of the header, the first column and the rest."""
        body, bold = style.pen(), style.pen("bold")
        return bold if self.look.head_bold else body, bold if self.look.first_bold else body, body

    def _columns(self, style: Style) -> list[float]:
        head, first, body = self._pens(style)
        widths = [
            max(head.width(name), *((body if column else first).width(row[column]) for row in self.rows), style.em)
            for column, name in enumerate(self.head)
        ]
        short = style.pen("bold").width(self.title) - sum(widths) - self.look.gap * style.em * (len(widths) - 1)
        return [width + max(0.0, short) / len(widths) for width in widths]

    def _side(self, style: Style) -> float:
        look = self.look
        bare = not (look.frame or look.down == "all" or look.head_fill or look.stripe or look.first_fill)
        return 0.0 if bare else look.gap * style.em / 2

    def natural_width(self, style: Style) -> float:
        columns = self._columns(style)
        return sum(columns) + self.look.gap * style.em * (len(columns) - 1) + 2 * self._side(style)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        look, columns, gap, side = self.look, self._columns(style), self.look.gap * style.em, self._side(style)
        starts = [x + side + sum(columns[:index]) + gap * index for index in range(len(columns))]
        right = starts[-1] + columns[-1] + side
        head, first, body = self._pens(style)
        thin = max(1, round(style.em / 16))
        heavy = 2 * thin if look.heavy else thin
        top = page.top
        if self.title:
            pen = style.pen("bold")
            baseline = self._row(page, style, pen, look.head_fill, x, right)
            page.text((x + right - pen.width(self.title)) / 2, baseline, self.title, pen, look.head_ink)
            if look.across or look.frame:
                page.shape("line", (x, page.top, right, page.top), style.accent, thin)
        body_top = page.top
        for number, cells in enumerate((self.head, *self.rows)):
            row_top = page.top
            striped = look.stripe if number and number % 2 == look.stripe_from else None
            baseline = self._row(
                page, style, head if number == 0 else body, striped if number else look.head_fill, x, right
            )
            if number and look.first_fill and not striped:
                page.shape("fill", (x, row_top, starts[0] + columns[0] + gap / 2, page.top), look.first_fill)
            if number == 1 and look.across:
                page.shape("line", (x, row_top, right, row_top), style.accent, heavy)
            elif number and look.across == "rows":
                page.shape("dashes" if look.dashed else "line", (x, row_top, right, row_top), style.accent, thin)
            for column, (cell, start, room) in enumerate(zip(cells, starts, columns, strict=True)):
                pen = head if number == 0 else body if column else first
                align = look.head_align if number == 0 and look.head_align else self.aligns[column]
                offset = {"l": 0.0, "c": 0.5, "r": 1.0}[align] * (room - pen.width(cell))
                page.text(start + offset, baseline, cell, pen, look.head_ink if number == 0 else style.ink)
        if look.across == "ends":
            page.shape("line", (x, top, right, top), style.accent, heavy)
            page.shape("line", (x, page.top, right, page.top), style.accent, heavy)
        if look.frame:
            page.shape("frame", (x, top, right, page.top), style.accent, thin)
        lines = starts[1:] if look.down == "all" else starts[1:2] if look.down == "first" else []
        for start in lines:
            page.shape("line", (start - gap / 2, body_top, start - gap / 2, page.top), style.accent, thin)

    def _row(self, page: Page, style: Style, pen: Pen, fill: Colour | None, x: float, right: float) -> float:
        """Move below a row and fill it; returns its baseline."""
        top, pad = page.top, self.look.pad * style.em / 2
        page.top += pad
        baseline = next_baseline(page, style, pen)
        page.top += pad
        if fill is not None:
            page.shape("fill", (x, top, right, page.top), fill)
        return baseline
