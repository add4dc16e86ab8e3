"""Screens: an app's bar, settings, lists, chats, dialogs and terminals."""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import CheckRow
from mm.synthetic.fields import make_fields
from mm.synthetic.fonts import Colour
from mm.synthetic.layout import Element, Ends, Gap, Line, Rule, next_baseline
from mm.synthetic.money import time_text
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
    kind = dice.weighted({"settings": 3, "list": 2, "dialog": 2, "chat": 1.5, "terminal": 1.5, "menu": 1.5})
    elements: list[Element] = []
    turns: list[Turn] = []
    fields: dict[str, str] = {}
    left = job.budget.lines
    if kind not in {"terminal"} and left > 3 and dice.chance(0.8):
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


_MAKERS = {"settings": _settings, "list": _list, "dialog": _dialog, "chat": _chat, "terminal": _terminal, "menu": _menu}
