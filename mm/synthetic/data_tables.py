"""Printed tables of data that are asked for as Markdown, by cell, row, column and count."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mm.errors import OptionError
from mm.synthetic.chart_data import DIMENSIONS, METRICS, draw_labels
from mm.synthetic.chart_questions import ask_about, markdown
from mm.synthetic.degrade import finish
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.layout import Element, Gap, Grid, Line, build_page
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

_BUDGET = 640  # characters of questions and answers
_SMALLEST_EM = 11.5  # pixels after tiling


@dataclass(frozen=True)
class DataTable:
    """Content: the first column names the rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # by column


def draw_table(dice: Dice, words: Lexicon, num_rows: int, num_columns: int) -> DataTable:
    """Make up a table of ``num_rows`` rows below the header and ``num_columns`` columns, the row names included."""
    kind = dice.pick(list(DIMENSIONS))
    if num_rows > {"weekday": 7, "month": 12, "numbers": 0}.get(kind, num_rows):
        kind = "words"
    names = draw_labels(dice, words, kind, num_rows, 16)
    head, columns, numeric = [dice.pick(DIMENSIONS[kind])], [names], [False]
    if dice.chance(0.45):  # one measure over years, quarters ...
        across = dice.pick([other for other in ("year", "quarter", "month", "letter", "weekday") if other != kind])
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
    for maker in makers:
        columns.append([maker() for _ in range(num_rows)])
    title = words.title(dice, dice.integer(1, 4)) if dice.chance(0.4) else ""
    return DataTable(title, tuple(head), tuple(zip(*columns, strict=True)), tuple(numeric))


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


def _number_maker(dice: Dice) -> Callable[[], str]:
    """Draws numbers of one column, all in one spelling."""
    top = dice.weighted({10: 2, 100: 4, 1000: 3, 10000: 1.5, 1000000: 0.4})
    decimals = dice.weighted({0: 5, 1: 2, 2: 2}) if top <= 1000 else 0
    thousands = dice.pick([",", ",", ""])
    prefix, suffix = dice.weighted({("", ""): 7, ("$", ""): 1.2, ("", "%"): 1.2, ("", " kg"): 0.3})
    signed = dice.chance(0.08)

    def number() -> str:
        value = dice.uniform(0.0, float(top))
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


def _value(cell: str) -> float:
    """The number in a printed cell."""
    return float(re.sub(r"[^0-9.\-]", "", cell))


def table_turns(table: DataTable, dice: Dice) -> list[Turn]:
    """The Markdown table on most samples, and two to five questions."""
    turns = [ask_about(dice, "table", markdown(table.head, table.rows))] if dice.chance(0.75) else []
    left = _BUDGET - sum(len(turn.answer) + len(turn.question) for turn in turns)
    wanted = len(turns) + dice.integer(2, 5)
    families = {_cell_turn: 5.0, _count_turn: 1.6, _list_turn: 1.6, _extreme_turn: 2.4, _absent_turn: 0.9}
    for _ in range(20):
        if len(turns) >= wanted:
            break
        turn = dice.weighted(families)(table, dice)
        if turn is None or any(turn.question == other.question for other in turns):
            continue
        size = len(turn.question) + len(turn.answer)
        if size <= left or not turns:
            turns.append(turn)
            left -= size
    return turns


def _cell_turn(table: DataTable, dice: Dice) -> Turn:
    row, column = dice.pick(table.rows), dice.integer(1, len(table.head) - 1)
    return ask_about(dice, "cell", row[column], r=spoken(dice, row[0]), c=spoken(dice, table.head[column]))


def _count_turn(table: DataTable, dice: Dice) -> Turn:
    if dice.chance(0.6):
        return ask_about(dice, "rows", str(len(table.rows)))
    return ask_about(dice, "columns", str(len(table.head)))


def _list_turn(table: DataTable, dice: Dice) -> Turn:
    pick = dice.integer(0, 3)
    if pick == 0:
        return ask_about(dice, "head", ", ".join(table.head))
    if pick == 1:
        return ask_about(dice, "table_title", table.title or ABSENT_ANSWER)
    if pick == 2:
        row = dice.pick(table.rows)
        listing = "; ".join(f"{name}: {cell}" for name, cell in zip(table.head[1:], row[1:], strict=True))
        return ask_about(dice, "row", listing, r=spoken(dice, row[0]))
    column = dice.integer(1, len(table.head) - 1)
    listing = "; ".join(f"{row[0]}: {row[column]}" for row in table.rows)
    return ask_about(dice, "column", listing, c=spoken(dice, table.head[column]))


def _extreme_turn(table: DataTable, dice: Dice) -> Turn | None:
    """Highest, lowest or difference in a column of numbers, through the list of them (as for charts)."""
    columns = [index for index, numeric in enumerate(table.numeric) if numeric]
    if not columns:
        return None
    column = dice.pick(columns)
    values = sorted(((_value(row[column]), row[0], row[column]) for row in table.rows), key=lambda value: value[0])
    listing = "; ".join(f"{row[0]}: {row[column]}" for row in table.rows)
    name = spoken(dice, table.head[column])
    word = dice.pick(["Highest", "Lowest"])
    best, second = (values[-1], values[-2]) if word == "Highest" else (values[0], values[1])
    if best[0] == second[0]:
        return None
    return ask_about(dice, f"{word.lower()}_of", f"{listing}\n{word}: {best[1]} ({best[2]})", s=name)


def _absent_turn(table: DataTable, dice: Dice) -> Turn:
    if dice.chance(0.5):
        strangers = [
            "Tax code",
            "Height",
            "Colour",
            "Owner",
            "Weight",
            "Region",
            "Grade",
            "Deposit",
            "Phone",
            "Altitude",
        ]
        known = " ".join(table.head).lower()
        name = dice.pick([name for name in strangers if name.lower() not in known])
        return ask_about(dice, "cell", ABSENT_ANSWER, r=dice.pick(table.rows)[0], c=name)
    return ask_about(dice, "absent", ABSENT_ANSWER)


def _elements(table: DataTable, style: Style, dice: Dice) -> list[Element]:
    body = style.pen()
    filled = dice.chance(0.4)
    grid = Grid(
        rows=[table.head, *table.rows],
        aligns="l" + "".join(dice.pick("rrcl") if numeric else dice.pick("llc") for numeric in table.numeric[1:]),
        pens=[style.pen("bold") if dice.chance(0.65) else body] + [body] * len(table.rows),
        gap=dice.uniform(1.0, 2.4),
        lines=dice.weighted({"all": 3.5, "rows": 2, "head": 2, "": 1.5}),
        bar=style.panel if filled else None,
        stripe=style.panel if dice.chance(0.2) else None,
        pad=dice.pick([0.0, 0.2, 0.4, 0.7]),
    )
    if not table.title:
        return [grid]
    place = dice.pick(["left", "center"])
    return [Line(table.title, style.pen("head", dice.uniform(1.0, 1.4)), place), Gap(dice.uniform(0.2, 0.7)), grid]


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
        zoom = dice.weighted({1.0: 5, dice.uniform(1.0, 1.9): 3, dice.uniform(0.8, 1.0): 1.5})
        em = max(9, round(dice.uniform(12.5, 18.0) * zoom))
        style = draw_style(dice, fonts, kind, em, level)
        rows = dice.integer(2, max(3, round((3 + 9 * level) * most)))
        table = draw_table(dice, words, rows, dice.integer(2, max(2, round((3 + 3 * level) * most))))
        page = build_page(_elements(table, style, dice), style)
        width, height = page.bounds
        sides = [round(em * dice.uniform(0.3, 1.6)) for _ in range(4)]
        size = (int(np.ceil(width)) + sides[0] + sides[2], int(np.ceil(height)) + sides[1] + sides[3])
        fits = em * view_scale(*size) >= _SMALLEST_EM and size[0] * size[1] <= MAX_TILES * (TILE * 2) ** 2
        if fits and len(markdown(table.head, table.rows)) <= _BUDGET:
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
