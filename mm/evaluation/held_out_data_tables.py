"""Held-out tables of data: five designs, asked for as Markdown, by cell, by extremes of a column and by count."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Cell, Document, DoesNotFitError, Font, Question, Sheet, ascender, compose
from mm.evaluation.held_out_charts_data import MEASURES, draw_labels, draw_title, pick_lining
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

ABSENT = "The image does not show that."

_INKS = ((0, 0, 0), (28, 30, 38), (52, 44, 40))
_PAPERS = ((255, 255, 255), (252, 250, 244), (245, 248, 252))
_SHADES = ((226, 234, 243), (233, 233, 233), (234, 240, 228), (244, 232, 226))
_HEADS = ((38, 70, 83), (29, 53, 87), (90, 60, 40), (60, 60, 70), (20, 90, 80))
_STRANGE = ("Altitude", "Blood group", "Deadline", "Password", "Shoe size", "Wingspan", "Eye colour", "Postcode")
_WORDINGS: dict[str, tuple[str, ...]] = {  # the first of each is the canonical one
    "table": ("Give the data as a Markdown table.", "Write this table in Markdown.", "Copy the table as Markdown."),
    "cell": ("What is the {c} of {r}?", "Look up the {c} for {r}.", "Which {c} is given for {r}?",
             "What does the table say for {r} under {c}?"),
    "rows": ("How many rows are there?", "How many rows of data does it have?",
             "Without the header, how many rows are shown?"),
    "columns": ("List the columns.", "What are the names of all columns?", "Name every column of the table."),
    "title": ("What is the title?", "What does the heading say?", "How is the table titled?"),
    "highest": ("Which row has the highest {c}?",
                "Who or what has the largest {c}?", "Which one has the greatest {c}?"),
    "lowest": ("Which row has the lowest {c}?", "Who or what has the smallest {c}?", "Which one has the least {c}?"),
    "difference": ("What is the difference of {c} between {a} and {b}?", "By how much does {c} of {a} and {b} differ?",
                   "How far apart are {a} and {b} in {c}?"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: its name, its cells, and their numbers where it holds numbers."""

    name: str
    cells: tuple[str, ...]
    numbers: tuple[float, ...] | None = None


def _number_column(rng: Generator, name: str, count: int, spelling: tuple[float, int, str, str, bool]) -> Column:
    top, decimals, before, behind, comma = spelling
    numbers: list[float] = []
    while len(numbers) < count:
        number = round(float(rng.uniform(0.02, 1.0)) * top, decimals)
        if number not in numbers:
            numbers.append(number)
    cells = tuple(f"{before}{number:{',' if comma else ''}.{decimals}f}{behind}" for number in numbers)
    return Column(name, cells, tuple(numbers))


def _spelling(rng: Generator) -> tuple[float, int, str, str, bool]:
    """Largest value, decimals, text before and behind, commas between thousands: of one column."""
    top, decimals = pick(rng, ((40.0, 0), (100.0, 0), (100.0, 1), (60.0, 2), (900.0, 0), (8000.0, 0), (300000.0, 0)))
    before, behind = pick(
        rng, (("", ""), ("", ""), ("", ""), ("$", ""), ("", " h"), ("€", ""), ("", "%" if top <= 100 else ""))
    )
    return top, decimals, before, behind, top >= 1000 and chance(rng, 0.6)


def draw_columns(rng: Generator) -> list[Column]:
    """Three to nine rows below two to five names of columns; the first column names the rows."""
    names, title = draw_labels(rng, int(rng.integers(3, 10)), ordered=chance(rng, 0.2))
    count, more = len(names), int(rng.integers(1, 5))
    columns = [Column(title, tuple(names))]
    if chance(rng, 0.35):  # one measure over time
        heads, kind = draw_labels(rng, more, ordered=True)
        if kind == title:
            raise DoesNotFitError("years by years")
        spelling = _spelling(rng)
        columns += [_number_column(rng, head, count, spelling) for head in heads]
    else:
        measures = [MEASURES[int(i)] for i in rng.permutation(len(MEASURES))[:more]]
        makers: dict[str, Callable[[], str]] = {
            "Date": partial(words.day, rng, 1990, 2034, short=True),
            "Code": partial(words.code, rng, pick(rng, ("A-000", "AA00", "00-000"))),
            "Owner": partial(words.last_name, rng),
            "Place": partial(words.place, rng),
        }
        for i, measure in enumerate(measures):
            other = pick(rng, tuple(makers))
            taken = {column.name for column in columns}
            if i and chance(rng, 0.3) and other not in taken:
                columns.append(Column(other, tuple(makers[other]() for _ in range(count))))
            else:
                columns.append(_number_column(rng, measure, count, _spelling(rng)))
    seen = {name.lower() for name in columns[0].cells}
    if seen & {column.name.lower() for column in columns}:
        raise DoesNotFitError("a column is called like a row")
    return columns


def markdown(columns: list[Column]) -> str:
    """The table as Markdown."""
    rows = [[column.name for column in columns], ["---"] * len(columns)]
    rows += [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _ask(rng: Generator, wording: str, **blanks: str) -> str:
    canonical, *others = _WORDINGS[wording]
    return (canonical if chance(rng, 0.5) else pick(rng, others)).format(**blanks)


def table_questions(rng: Generator, title: str, columns: list[Column]) -> tuple[Question, ...]:
    """One question of every skill that the table can show."""
    names = columns[0].cells
    column = pick(rng, columns[1:])
    row = int(rng.integers(len(names)))
    cell = _ask(rng, "cell", c=column.name, r=names[row])
    questions = [
        Question("table cells", _ask(rng, "table"), markdown(columns), "table"),
        Question("cell", cell, column.cells[row], "text" if column.numbers is None else "number"),
        Question("how many", _ask(rng, "rows"), str(len(names)), "number"),
        Question("columns", _ask(rng, "columns"), ", ".join(column.name for column in columns), "set"),
    ]
    if title:
        questions.append(Question("title", _ask(rng, "title"), title))
    column = pick(rng, [column for column in columns if column.numbers is not None])
    assert column.numbers is not None
    for skill, best in (("highest", max(column.numbers)), ("lowest", min(column.numbers))):
        name = names[column.numbers.index(best)]
        questions.append(Question(skill, _ask(rng, skill, c=column.name), name, "conclusion"))
    a, b = (int(v) for v in rng.permutation(len(names))[:2])
    difference = f"{round(abs(column.numbers[a] - column.numbers[b]), 2):.12g}"
    prompt = _ask(rng, "difference", c=column.name, a=names[a], b=names[b])
    questions.append(Question("difference", prompt, difference, "conclusion", 1e-3))
    if not title and chance(rng, 0.3):
        prompt = _ask(rng, "title")
    elif chance(rng, 0.5):
        prompt = _ask(rng, "cell", c=pick(rng, _STRANGE), r=names[row])
    else:
        stranger = next(name for name in iter(partial(words.invented, rng, 3), "") if name not in names)
        prompt = _ask(rng, "cell", c=column.name, r=stranger)
    questions.append(Question("cannot be answered", prompt, ABSENT, "absent"))
    return tuple(questions)


@dataclass(frozen=True)
class _Grid:
    """Where the cells of a table stand: pixels of its column borders, height of a row, text in from a border."""

    borders: tuple[float, ...]
    pitch: float
    pad: float
    aligned: tuple[str, ...]

    def cells(self, texts: list[str], font: Font) -> list[Cell]:
        """One row."""
        cells = []
        for i, (text, at) in enumerate(zip(texts, self.aligned, strict=True)):
            left, right = self.borders[i], self.borders[i + 1]
            x = {"l": left + self.pad, "r": right - self.pad, "m": (left + right) / 2}[at]
            cells.append(Cell(text, font, x, at))
        return cells


def _lay_out(rng: Generator, columns: list[Column], font: Font, head: Font, *, pad: float) -> _Grid:
    widths = [
        max(float(head.getlength(column.name)), *(float(font.getlength(cell)) for cell in column.cells)) + 2 * pad
        for column in columns
    ]
    borders = [0.0]
    for width in widths:
        borders.append(borders[-1] + width)
    middle = chance(rng, 0.15)
    aligned = [
        "l",
        *("m" if middle else "r" if c.numbers is not None and chance(rng, 0.8) else "l" for c in columns[1:]),
    ]
    return _Grid(tuple(borders), float(rng.uniform(1.5, 2.0)) * font.size, pad, tuple(aligned))


def _design(rng: Generator, fonts: HeldOutFonts, style: str) -> tuple[Sheet, tuple[Question, ...], str]:
    face = pick_lining(rng, fonts, *(("mono",) if style == "typed" else ("sans", "serif")))
    size = int(rng.integers(19, 32))
    font = face.regular(size)
    bold = face.bold(size) if style == "filled" or chance(rng, 0.7) else font
    columns = draw_columns(rng)
    title = ""
    if chance(rng, 0.9):
        title = draw_title(rng, pick(rng, MEASURES), columns[0].name)
    grid = _lay_out(rng, columns, font, bold, pad=float(rng.uniform(0.5, 0.9)) * size)
    margin = round(size * float(rng.uniform(0.7, 1.5)))
    width = round(grid.borders[-1]) + 2 * margin
    if not 260 <= width <= 980:
        raise DoesNotFitError("the table is too narrow or too wide")
    grid = _Grid(tuple(border + margin for border in grid.borders), grid.pitch, grid.pad, grid.aligned)
    sheet = Sheet(width, margin, ink=pick(rng, _INKS), paper=pick(rng, _PAPERS))
    if title:
        sheet.text(title, face.bold(size * 1.2), pick(rng, ("l", "m")))
        sheet.space(size * 0.4)
    _fill(sheet, rng, grid, columns, style, font, bold)
    return sheet, table_questions(rng, title, columns), style


def _fill(sheet: Sheet, rng: Generator, grid: _Grid, columns: list[Column], style: str, font: Font, bold: Font) -> None:
    """Print the header and the rows with the lines and shades of a style."""
    left, right = grid.borders[0], grid.borders[-1]
    shade, colour = pick(rng, _SHADES), pick(rng, _HEADS)
    above = (grid.pitch - ascender(font)) / 2
    rows = [[column.name for column in columns], *map(list, zip(*(column.cells for column in columns), strict=True))]
    top = sheet.y
    for i, row in enumerate(rows):
        start = sheet.y
        if i == 0 and style == "filled":
            sheet.draw.rectangle((left, start, right, start + grid.pitch), fill=colour)
        elif i == 0 and style == "boxed" or i % 2 == 0 and i and style == "filled":
            sheet.draw.rectangle((left, start, right, start + grid.pitch), fill=shade)
        sheet.y = start + above
        ink = (255, 255, 255) if i == 0 and style == "filled" else None
        sheet.row(*grid.cells(row, bold if i == 0 else font), ink=ink)
        sheet.y = start + grid.pitch
        if style == "boxed" or style == "ruled" and i < len(rows) - 1:
            sheet.line(left=left, right=right, thickness=1 + (i == 0 and style == "ruled"))
        elif style == "book" and i == 0:
            sheet.line(left=left, right=right)
        elif style == "typed" and i == 0:
            sheet.line(left=left, right=right, dashed=True)
    if style == "boxed":
        for border in grid.borders:
            sheet.draw.line((border, top, border, sheet.y), fill=sheet.ink)
        sheet.draw.line((left, top, right, top), fill=sheet.ink)
    if style == "book":
        sheet.draw.line((left, top, right, top), fill=sheet.ink, width=2)
        sheet.draw.line((left, sheet.y, right, sheet.y), fill=sheet.ink, width=2)


_STYLES = ("ruled", "boxed", "filled", "typed", "book")


def render_data_table(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The table number ``index`` of the endless held-out series ``seed``; designs take turns."""
    design = partial(_design, fonts=fonts, style=_STYLES[index % len(_STYLES)])
    return compose(design, (seed, 7, index), desk_share=0.15)
