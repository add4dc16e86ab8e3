"""Screens: an app's bar, settings, lists, chats, dialogs and terminals."""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import CheckRow, FieldRows, Framed
from mm.synthetic.fields import make_fields
from mm.synthetic.fonts import Colour, Pen
from mm.synthetic.layout import Columns, Element, Ends, Gap, Grid, Line, Rule, next_baseline
from mm.synthetic.money import date_text, time_text
from mm.synthetic.page import Page
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.style import Style
from mm.synthetic.texts import snippet


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
    """The top of a window: its title, and three round buttons at one end."""

    title: str
    side: str  # of the buttons: left or right
    pen: Pen

    def natural_width(self, style: Style) -> float:
        return self.pen.width(self.title) + 5 * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        top = page.top
        baseline = next_baseline(page, style, self.pen)
        page.top += 0.2 * style.em
        page.shape("fill", (x, top, x + width, page.top), style.panel)
        size, middle = 0.5 * style.em, (top + page.top) / 2
        start = x + 0.4 * style.em if self.side == "left" else x + width - 3.1 * style.em
        for index in range(3):
            left = start + index * 0.9 * style.em
            page.shape("ellipse", (left, middle - size / 2, left + size, middle + size / 2), style.accent)
        shift = 3.6 * style.em if self.side == "left" else 0.5 * style.em
        page.text(x + shift, baseline, self.title, self.pen, style.ink)
        page.top += 0.3 * style.em


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


def screen(job: Job) -> Draft:
    """A screenshot-like page of one of several kinds."""
    dice, style = job.dice, job.style
    kind = dice.weighted({"settings": 3, "list": 2, "dialog": 2, "chat": 1.5, "terminal": 1.5, "menu": 1.5,
                          "window": 2.0, "inputs": 2.0, "cards": 1.2})  # fmt: skip
    elements: list[Element] = []
    turns: list[Turn] = []
    fields: dict[str, str] = {}
    left = job.budget.lines
    if kind == "window" and left <= 5:
        kind = "list"
    if kind not in {"terminal", "window"} and left > 3 and dice.chance(0.8):
        title = job.words.entry(dice, "menu") if dice.chance(0.6) else job.words.title(dice, dice.integer(1, 2))
        bar = style.accent if style.coloured and not style.dark and dice.chance(0.6) else None
        align = dice.pick(["left", "center"])
        elements.append(
            Line(title, style.pen("head", dice.uniform(1.0, 1.4)), align, style.paper if bar else None, bar)
        )
        elements.append(Gap(0.4))
        turns.append(ask(dice, "title", title))
        fields["title"] = title
        left -= 2
    elements += _MAKERS[kind](job, left, turns, fields)
    width = job.budget.width * dice.uniform(0.6, 1.0) if kind != "dialog" else None
    return Draft(elements, turns, fields, None, width)


def _settings(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    dice, style = job.dice, job.style
    elements: list[Element] = []
    ruled = dice.chance(0.5)
    for field in make_fields(job, max(1, min(left, dice.integer(2, 9))), max(8, job.budget.columns // 2 - 1)):
        elements.append(Ends(field.label, field.value, style.pen(), style.pen()))
        if ruled:
            elements.append(Rule("line", style.pen()))
        fields[field.label] = field.value
        turns.append(ask(dice, "field", field.value, label=spoken(dice, field.label)))
    return elements


def _list(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """Entries with a second line in smaller or paler print."""
    dice, style, words = job.dice, job.style, job.words
    elements: list[Element] = []
    timed = dice.chance(0.5)
    for _ in range(max(1, min((left + 1) // 2, dice.integer(2, 6)))):
        name = words.person(dice)
        when = time_text(dice) if timed else ""
        elements.append(Ends(name, when, style.pen("bold"), style.pen()))
        elements.append(Line(snippet(job, max(4, job.budget.columns - 2)), style.pen(), ink=style.soft))
        elements.append(Gap(dice.uniform(0.2, 0.6)))
        if when and name not in fields:
            fields[name] = when
            turns.append(ask(dice, "cell", when, row=name, column="time"))
    return elements


def _dialog(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    dice, style, words = job.dice, job.style, job.words
    rows = [snippet(job, job.budget.columns) for _ in range(max(1, min(left - 3, dice.integer(1, 3))))]
    names = dice.sample(words.lists["buttons"], dice.integer(1, 2 if job.budget.columns < 30 else 3))
    filled = dice.integer(-1, len(names) - 1)
    align = dice.pick(["left", "center"])
    turns.append(ask(dice, "buttons", ", ".join(names)))
    ink = style.paper if not style.dark and style.coloured else style.ink
    plain = ink is style.ink and not style.coloured  # a black button needs white print: frame it instead
    return [*(Line(row, style.pen(), align) for row in rows), Gap(0.5), Buttons(names, -1 if plain else filled, ink)]


def _chat(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    dice = job.dice
    bubbles: list[Element] = []
    while left > 0 and len(bubbles) < 7:
        rows = [snippet(job, max(4, int(job.budget.columns * 0.7))) for _ in range(min(left, dice.integer(1, 2)))]
        bubbles.append(Bubble(rows, dice.chance(0.5)))
        left -= len(rows) + 1
    return bubbles or [Line(snippet(job, job.budget.columns), job.style.pen())]


def _terminal(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    dice, words, style = job.dice, job.words, job.style
    prompt = dice.pick(["$ ", "> ", "# ", f"{words.word(dice)}@{words.word(dice)}:~$ ", "C:\\>"])
    elements: list[Element] = []
    for _ in range(max(1, min(left, dice.integer(2, 14)))):
        name = words.word(dice).lower()
        word, number, two = words.word(dice), dice.digits(3), words.word(dice).lower()
        text = dice.pick(
            [f"{prompt}{name} --{two}", f"{prompt}cd {name}/{two}", f"{name}.{dice.pick(['py', 'txt', 'log', 'csv'])}",
             f"{word}: {two} = {number}", f"[{time_text(dice)}] {word} {two}", f"ERROR: {word} {number}",
             f"{number} {name} OK", f"import {name}", f"{name} = {dice.integer(0, 999)}", f"{name}({two}, {number})"]
        )  # fmt: skip
        text = text[: max(4, job.budget.columns)].strip()
        elements.append(Line(text, style.pen()))
    return elements


def _menu(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """A list of entries, some with a box to tick."""
    dice, words, style = job.dice, job.words, job.style
    names = dice.sample(words.lists["menu"], max(1, min(left, dice.integer(2, 9))))
    ticked = dice.chance(0.3)
    elements: list[Element] = []
    for name in names:
        if ticked:
            on = dice.chance(0.5)
            elements.append(CheckRow([(name, on)], style.pen(), dice.chance(0.8)))
            if dice.chance(0.3):
                turns.append(ask(dice, "checked", "Yes" if on else "No", label=name))
        else:
            elements.append(Line(name, style.pen()))
        elements.append(Gap(dice.pick([0.0, 0.3])))
    return elements


def _window(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """A program's window: a bar with a title and buttons, a row of menus, files or text, a status line."""
    dice, words, style = job.dice, job.words, job.style
    title = words.title(dice, dice.integer(1, 2)) + dice.pick(["", f".{dice.pick(['txt', 'pdf', 'csv', 'docx'])}"])
    if dice.chance(0.3):
        title += f" - {words.entry(dice, 'menu')}"
    elements: list[Element] = [TitleBar(title, dice.pick(["left", "right"]), style.pen("head"))]
    turns.append(ask(dice, "title", title))
    fields["title"] = title
    across = max(2, min(5, job.budget.columns // 10))
    if dice.chance(0.6):
        elements += [Columns(dice.sample(words.lists["menu"], across), style.pen()), Rule("line", style.pen())]
        left -= 1
    left -= 4
    if dice.chance(0.6) and job.budget.columns >= 26:
        elements.append(_files(job, max(1, min(left, dice.integer(2, 10))), turns, fields))
    else:
        texts = [snippet(job, job.budget.columns - 1) for _ in range(max(1, min(left, dice.integer(1, 8))))]
        elements += [Line(text, style.pen()) for text in texts]
    if dice.chance(0.5):
        count = dice.integer(2, 400)
        status = [f"{count} items", f"Line {count}", f"{count} KB free", "Ready", f"{count % 100}%", f"Page {count}"]
        elements += [Rule("line", style.pen()), Line(dice.pick(status), style.pen(), ink=style.soft)]
    return [Framed(elements, dice.pick(["frame", "round_frame"]), dice.uniform(0.3, 0.7))]


def _files(job: Job, count: int, turns: list[Turn], fields: dict[str, str]) -> Element:
    """A table of files with sizes and dates."""
    dice, words, style = job.dice, job.words, job.style
    dated = job.budget.columns >= 40
    ending = dice.pick(["pdf", "txt", "jpg", "png", "csv", "zip", "py"])
    rows: list[list[str]] = []
    for _ in range(count):
        name = f"{words.word(dice).lower()}{dice.pick(['', '_2', '-final', str(dice.integer(1, 99))])}.{ending}"
        size = f"{dice.integer(1, 999)} {dice.pick(['KB', 'MB', 'B', 'kB'])}"
        if name not in fields:
            rows.append([name, size, *([date_text(dice)] if dated else [])])
            fields[name] = size
            turns.append(ask(dice, "cell", size, row=name, column="size"))
            if dated:
                turns.append(ask(dice, "cell", rows[-1][2], row=name, column="date"))
    heads = ["Name", "Size", *(["Modified"] if dated else [])]
    headed, pen = dice.chance(0.7), style.pen()
    table = [heads, *rows] if headed else rows
    return Grid(table, "lr" + ("l" if dated else ""), [pen] * len(table), 0, dice.uniform(0.8, 1.5),
                lines=dice.pick(["", "head", "rows"]) if headed else "")  # fmt: skip


def _inputs(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """Fields to fill in, in boxes, with check boxes and buttons below."""
    dice, style, words = job.dice, job.style, job.words
    count = max(1, min(left // 3, dice.integer(1, 5)))
    made = make_fields(job, count, max(8, job.budget.columns - 4))
    pen = style.pen()
    rows = FieldRows(
        fields=made,
        across=1,
        form=dice.pick(["boxed", "boxed", "above", "cells"]),
        label_pen=pen,
        value_pen=pen,
        colon=dice.pick(["", ":", " *"]),
        label_ink=style.soft if dice.chance(0.5) else style.ink,
        pad=0.4,
    )
    fields |= {field.label: field.value for field in made}
    turns += [ask(dice, "field", field.value, label=spoken(dice, field.label)) for field in made]
    elements: list[Element] = [rows]
    if left > 3 * count + 1 and dice.chance(0.4):
        label, on = words.title(dice, dice.integer(1, 2)), dice.chance(0.5)
        elements.append(CheckRow([(label, on)], pen, True))
        turns.append(ask(dice, "checked", "Yes" if on else "No", label=label))
    if left > 3 * count + 2 and dice.chance(0.6):
        names = dice.sample(words.lists["buttons"], dice.integer(1, 2))
        elements += [Gap(0.4), Buttons(names, -1, style.ink)]
        turns.append(ask(dice, "buttons", ", ".join(names)))
    return elements


def _cards(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """Framed notices: a name and a time or amount at the top, one or two lines below."""
    dice, style, words = job.dice, job.style, job.words
    elements: list[Element] = []
    for _ in range(max(1, min(left // 4, dice.integer(1, 5)))):
        name, when = words.title(dice, dice.integer(1, 2)), dice.pick([time_text(dice), date_text(dice), "now"])
        inside: list[Element] = [Ends(name, when, style.pen("bold"), style.pen())]
        inside += [Line(snippet(job, max(4, job.budget.columns - 3)), style.pen(), ink=style.soft)
                   for _ in range(dice.integer(1, 2))]  # fmt: skip
        elements += [Framed(inside, dice.pick(["round_frame", "frame"]), dice.uniform(0.3, 0.6)), Gap(0.4)]
        if name not in fields:
            fields[name] = when
            turns.append(ask(dice, "cell", when, row=name, column="time" if ":" in when else "date"))
    return elements


_MAKERS = {"settings": _settings, "list": _list, "dialog": _dialog, "chat": _chat, "terminal": _terminal, "menu": _menu,
           "window": _window, "inputs": _inputs, "cards": _cards}  # fmt: skip
