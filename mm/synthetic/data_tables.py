"""Printed tables of data that are asked for as Markdown, by cell, row, column and count."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from mm.errors import OptionError
from mm.synthetic.chart_data import DIMENSIONS, METRICS, draw_labels
from mm.synthetic.chart_questions import ask_about, difference, markdown, starred
from mm.synthetic.data_grid import DataGrid, draw_grid_look
from mm.synthetic.degrade import finish
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.layout import Element, Gap, Line, build_page
from mm.synthetic.letter_lines import surrounded
from mm.synthetic.money import date_text
from mm.synthetic.questions import spoken
from mm.synthetic.sample import ABSENT_ANSWER, Sample, Turn
from mm.synthetic.style import MAX_TILES, TILE, Style, draw_style, view_scale
from mm.synthetic.words import Lexicon, lexicon

KINDS = ("data_table",)

_WORD_HEADS = {
    "date": ("Date", "Updated", "Since"),
    "code": ("Code", "ID", "Ref"),
    "status": ("Status", "State"),
    "word": ("Type", "Owner", "Note", "Area"),
}

_STRANGERS = (
    "Tax code",
    "Colour",
    "Region",
    "Grade",
    "Deposit",
    "Phone",
    "Altitude",
    "Address",
    "Discount",
    "Supplier",
)
_BLANKS = ("", "", "-", "n/a")  # what stands where there is no entry
_ABSENT_SHARE = 0.17  # samples with a question that the table does not answer

_BUDGET = 840  # characters of questions and answers
_SMALLEST_EM = 11.5  # pixels after tiling


@dataclass(frozen=True)
class DataTable:
    """Content: the first column names the rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # by column
    stranger: str = ""  # a name of the same kind that no row has


def draw_table(dice: Dice, words: Lexicon, num_rows: int, num_columns: int) -> DataTable:
    """Make up a table of ``num_rows`` rows below the header and ``num_columns`` columns, the row names included."""
    kind = dice.weighted({name: 1.0 for name in DIMENSIONS} | {"series": 3.0, "quarter": 1.5, "year": 1.5})
    if num_rows > {"weekday": 7, "month": 12, "numbers": 0}.get(kind, num_rows):
        kind = "words"
    names = draw_labels(dice, words, kind, num_rows, 16)
    taken = " ".join(names).lower()
    strangers = [name for name in draw_labels(dice, words, kind, 7, 16) if name.lower() not in taken]
    head, columns, numeric = [dice.pick(DIMENSIONS[kind])], [names], [False]
    if dice.chance(0.45):  # one measure over years, quarters ...
        across = dice.pick(
            [
                other
                for other in ("year", "quarter", "month", "letter", "weekday", "series", "times", "spans")
                if other != kind
            ]
        )
        heads = draw_labels(dice, words, across, num_columns - 1, 10)
        makers = [_number_maker(dice)] * (num_columns - 1)
        numeric += [True] * (num_columns - 1)
    else:
        heads, makers = [], []
        for _ in range(num_columns - 1):
            word = dice.weighted({"number": 6, **dict.fromkeys(_WORD_HEADS, 0.75)})
            numeric.append(word == "number")
            heads.append(dice.pick(_WORD_HEADS.get(word, METRICS)))
            makers.append(_number_maker(dice) if word == "number" else _word_maker(dice, words, word))
    head += _distinct(heads, head)
    gaps, blank = dice.chance(0.1), dice.pick(_BLANKS)
    for maker in makers:
        columns.append([blank if gaps and dice.chance(0.15) else maker() for _ in range(num_rows)])
    title = words.title(dice, dice.integer(1, 4)) if dice.chance(0.4) else ""
    stranger = "" if not strangers else dice.pick(strangers)
    return DataTable(title, tuple(head), tuple(zip(*columns, strict=True)), tuple(numeric), stranger)


def _distinct(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, with a number behind those that occur twice."""
    seen = {name.lower() for name in taken}
    found = []
    for name in names:
        label, count = name, 1
        while label.lower() in seen:
            count += 1
            label = f"{name} {count}"
        seen.add(label.lower())
        found.append(label)
    return found


_AFFIXES = {
    ("", ""): 7.0,
    ("$", ""): 0.7,
    ("€", ""): 0.7,
    ("£", ""): 0.5,
    ("", " kg"): 0.2,
    ("", " km"): 0.2,
    ("", " min"): 0.2,
    ("", " m"): 0.2,
    ("", " s"): 0.2,
    ("", " t"): 0.15,
    ("", " l"): 0.15,
    ("", " g"): 0.15,
    ("", " W"): 0.15,
    ("", " pts"): 0.15,
    ("", " MB"): 0.15,
    ("", "k"): 0.15,
    ("", "x"): 0.1,
    ("", " €"): 0.15,
}
"""What stands before and behind the numbers of a column, and how often; percents come on top."""


def _number_maker(dice: Dice) -> Callable[[], str]:
    """Draws numbers of one column, all in one spelling."""
    top = dice.weighted({10: 1.6, 100: 3.6, 1000: 3, 10000: 2, 100000: 1.4, 1000000: 1.6, 10000000: 0.2})
    decimals = dice.weighted({0: 5, 1: 2, 2: 2}) if top <= 1000 else 0
    thousands = dice.pick([",", ",", ""])
    prefix, suffix = dice.weighted(_AFFIXES | {("", "%"): 1.8 if top <= 100 else 0.2})
    signed, spread = dice.chance(0.06), dice.chance(0.25)  # spread: as many short numbers as long ones
    least = 10.0**-decimals

    def number() -> str:
        value = least * (top / least) ** dice.uniform(0.0, 1.0) if spread else dice.uniform(0.0, float(top))
        text = f"{value:,.{decimals}f}".replace(",", thousands)
        return f"{'-' if signed and dice.chance(0.3) else ''}{prefix}{text}{suffix}"

    return number


def _word_maker(dice: Dice, words: Lexicon, kind: str) -> Callable[[], str]:
    def entry() -> str:
        match kind:
            case "date":
                return date_text(dice)
            case "code":
                return words.code(dice)
            case "status":
                return words.entry(dice, "status")
            case _:
                return words.word(dice).capitalize()

    return entry


def _value(cell: str) -> float | None:
    """The number in a printed cell, None where there is none."""
    digits = re.sub(r"[^0-9.\-]", "", cell)
    return float(digits) if any(letter.isdigit() for letter in digits) else None


def _spell(cell: str, number: float, decimals: int) -> str:
    """A number >= 0 spelled like that of ``cell``."""
    prefix, body, suffix = re.fullmatch(r"-?(\D*)([\d.,]+)(.*)", cell).groups()  # type: ignore[union-attr]
    return f"{prefix}{number:,.{decimals}f}{suffix}".replace(",", "," if "," in body else "")


def table_turns(table: DataTable, dice: Dice) -> list[Turn]:
    """The Markdown table on every third sample, and four to eight questions, most of them through a list of numbers."""
    turns = []
    if dice.chance(0.32):
        turns.append(ask_about(dice, "table", markdown(table.head, table.rows)))
    elif dice.chance(0.2):
        turns.append(_column_turn(table, dice))
    left = _BUDGET - sum(len(turn.answer) + len(turn.question) for turn in turns)
    wanted = len(turns) + dice.integer(4, 8)
    first = [_cell_turn] * dice.integer(0, 2) + [_absent_turn] * dice.chance(_ABSENT_SHARE)
    families = {
        _cell_turn: 3.6,
        _count_turn: 2.6,
        _list_turn: 2.6,
        _extreme_turn: 7.0,
        _pair_turn: 4.6,
        _which_turn: 0.8,
    }
    for attempt in range(24):
        if len(turns) >= wanted:
            break
        turn = (first[attempt] if attempt < len(first) else dice.weighted(families))(table, dice)
        if turn is None or any(turn.question == other.question for other in turns):
            continue
        size = len(turn.question) + len(turn.answer)
        if size <= left or not turns:
            turns.append(turn)
            left -= size
    return turns or [_cell_turn(table, dice)]


def _cell_turn(table: DataTable, dice: Dice) -> Turn:
    row, column = dice.pick(table.rows), dice.integer(1, len(table.head) - 1)
    answer = row[column] or ABSENT_ANSWER
    return ask_about(dice, "cell", answer, r=spoken(dice, row[0]), c=spoken(dice, table.head[column]))


def _count_turn(table: DataTable, dice: Dice) -> Turn:
    if dice.chance(0.75):
        return ask_about(dice, "rows", str(len(table.rows)))
    return ask_about(dice, "columns", str(len(table.head)))


def _column_turn(table: DataTable, dice: Dice) -> Turn:
    column = dice.integer(1, len(table.head) - 1)
    return ask_about(dice, "column", _listing(table, column), c=spoken(dice, table.head[column]))


def _listing(table: DataTable, column: int) -> str:
    """Row names and the cells of a column; empty ones are left out."""
    return "; ".join(f"{row[0]}: {row[column]}" for row in table.rows if row[column])


def _list_turn(table: DataTable, dice: Dice) -> Turn:
    pick = dice.weighted({"head": 4, "title": 3, "row": 1.5, "column": 1, "names": 2})
    if pick == "title" and (table.title or dice.chance(0.25)):
        return ask_about(dice, "table_title", table.title or ABSENT_ANSWER)
    if pick == "row":
        row = dice.pick(table.rows)
        listing = "; ".join(f"{name}: {cell}" for name, cell in zip(table.head[1:], row[1:], strict=True) if cell)
        return ask_about(dice, "row", listing or ABSENT_ANSWER, r=spoken(dice, row[0]))
    if pick == "column":
        return _column_turn(table, dice)
    if pick == "names":
        return ask_about(dice, "row_names", ", ".join(row[0] for row in table.rows), c=spoken(dice, table.head[0]))
    return ask_about(dice, "head", ", ".join(table.head))


def _numbers(table: DataTable, dice: Dice) -> tuple[int, list[tuple[float, str, str]]] | None:
    """A column of numbers, drawn at random, and its (number, row name, cell) in order of the rows."""
    columns = [index for index, numeric in enumerate(table.numeric) if numeric]
    if not columns:
        return None
    column = dice.pick(columns)
    found = [(value, row[0], row[column]) for row in table.rows if (value := _value(row[column])) is not None]
    return (column, found) if len(found) > 1 else None


def _extreme_turn(table: DataTable, dice: Dice) -> Turn | None:
    """Highest or lowest in a column of numbers, through the list of them (as for charts)."""
    drawn = _numbers(table, dice)
    if drawn is None:
        return None
    column, numbers = drawn
    values = sorted(numbers, key=lambda value: value[0])
    word = dice.pick(["Highest", "Lowest"])
    best, second = (values[-1], values[-2]) if word == "Highest" else (values[0], values[1])
    if best[0] == second[0]:
        return None
    marked = starred(word, [number for number, _, _ in numbers], [cell for _, _, cell in numbers])
    listing = "; ".join(f"{name}: {cell}" for (_, name, _), cell in zip(numbers, marked, strict=True))
    answer = f"{listing}\n{word}: {best[1]} ({best[2]})"
    return ask_about(dice, f"{word.lower()}_of", answer, s=spoken(dice, table.head[column]))


def _pair_turn(table: DataTable, dice: Dice) -> Turn | None:
    """The difference of two cells of a column of numbers, or which is higher."""
    drawn = _numbers(table, dice)
    if drawn is None:
        return None
    column, numbers = drawn
    pair = dice.sample(numbers, 2)
    high, low = sorted(pair, key=lambda value: value[0], reverse=True)
    blanks = {"a": pair[0][1], "b": pair[1][1], "s": spoken(dice, table.head[column])}
    if dice.chance(0.25) and high[0] != low[0]:
        marked = starred("Highest", [number for number, _, _ in pair], [cell for _, _, cell in pair])
        listing = "; ".join(f"{name}: {cell}" for (_, name, _), cell in zip(pair, marked, strict=True))
        return ask_about(dice, "higher_of", f"{listing}\nHigher: {high[1]} ({high[2]})", **blanks)
    if low[0] < 0:
        return None
    values, names, cells = zip(*pair, strict=True)
    answer = difference(names, values, cells, partial(_spell, high[2]))
    return ask_about(dice, "difference_of", answer, **blanks)


def _which_turn(table: DataTable, dice: Dice) -> Turn | None:
    """The name of the row with a given cell."""
    column = dice.integer(1, len(table.head) - 1)
    row, cells = dice.pick(table.rows), [other[column] for other in table.rows]
    if row[column] in _BLANKS or cells.count(row[column]) > 1:
        return None
    return ask_about(dice, "which_row", row[0], h=table.head[0], c=spoken(dice, table.head[column]), v=row[column])


def _absent_turn(table: DataTable, dice: Dice) -> Turn:
    pick, known = dice.integer(0, 3), " ".join(table.head).lower()
    if pick == 0:
        return ask_about(dice, "absent", ABSENT_ANSWER)
    if pick == 1 and table.stranger:
        return ask_about(dice, "cell", ABSENT_ANSWER, r=table.stranger, c=spoken(dice, dice.pick(table.head[1:])))
    strangers = [name for name in (*_STRANGERS, *METRICS) if name.lower() not in known]
    return ask_about(dice, "cell", ABSENT_ANSWER, r=spoken(dice, dice.pick(table.rows)[0]), c=dice.pick(strangers))


def _elements(table: DataTable, style: Style, dice: Dice) -> list[Element]:
    look = draw_grid_look(dice, style)
    inside = look.title_inside and table.title != ""
    numbers, words = dice.pick("rrrcl"), dice.pick("llc")  # most tables align all columns of a kind alike
    mixed = dice.chance(0.2)
    aligns = "l" if dice.chance(0.9) else "c"
    for numeric in table.numeric[1:]:
        aligns += (dice.pick("rrcl") if numeric else dice.pick("llc")) if mixed else numbers if numeric else words
    grid = DataGrid(table.head, table.rows, aligns, look, table.title if inside else "")
    elements: list[Element] = [grid]
    if table.title and not inside:
        place = dice.pick(["left", "center"])
        title = Line(table.title, style.pen("head", dice.uniform(1.0, 1.4)), place)
        elements = [grid, Gap(0.3), title] if dice.chance(0.1) else [title, Gap(dice.uniform(0.2, 0.7)), grid]
    return surrounded(elements, style, dice)


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Draw a table and ask about it.

    Args:
        kind: "data_table".
        rng: every draw comes from it.
        fonts: what to write with; its split also chooses the words.
        level: 0 (small, clean) to 1 (up to 12 rows and 6 columns, distortions).

    Raises:
        OptionError: another kind.
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown kind of table {kind!r}. Known kinds: {', '.join(KINDS)}.")
    dice, words = Dice(rng), lexicon(fonts.split)
    most = 1.0
    while True:
        zoom = dice.weighted(
            {1.0: 4, dice.uniform(1.0, 1.6): 3, dice.uniform(1.5, 2.4): 5 * level, dice.uniform(0.8, 1.0): 1.2}
        )
        em = max(9, round(dice.uniform(12.5, 18.0) * zoom))
        style = draw_style(dice, fonts, dice.pick(["screen", "screen", kind, kind, kind]), em, level)
        rows = dice.integer(2, max(3, round((4 + 8 * level) * most)))
        table = draw_table(dice, words, rows, dice.integer(2, max(2, round((3 + 3 * level) * most))))
        page = build_page(_elements(table, style, dice), style)
        width, height = page.bounds
        sides = [round(em * dice.uniform(0.3, 1.6)) for _ in range(4)]
        size = (int(np.ceil(width)) + sides[0] + sides[2], int(np.ceil(height)) + sides[1] + sides[3])
        fits = em * view_scale(*size) >= _SMALLEST_EM and size[0] * size[1] <= MAX_TILES * (TILE * 2) ** 2
        if fits and len(markdown(table.head, table.rows)) <= _BUDGET - 120:
            break
        most = max(0.2, most * 0.9)
    canvas = Image.new("RGB", size, style.paper) if style.coloured else Image.new("L", size, 255)
    page.draw(canvas, sides[0], sides[1])
    image, glyphs = finish(canvas, page.glyphs(sides[0], sides[1]), style, dice, 0.8 * level)
    turns = tuple(dice.shuffled(table_turns(table, dice)))
    fields = {
        f"{name} of {row[0]}": cell for row in table.rows for name, cell in zip(table.head[1:], row[1:], strict=True)
    }
    return Sample(image, turns, glyphs, "\n".join(page.rows()), fields, kind)
