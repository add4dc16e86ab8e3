"""Screens: an app's bar, settings, lists, chats, dialogs and terminals."""

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import CheckRow, FieldRows, Framed
from mm.synthetic.fields import make_fields
from mm.synthetic.layout import Columns, Element, Ends, Gap, Grid, Line, Rule
from mm.synthetic.money import date_text, time_text
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.screen_parts import SIGNS, Bubble, Buttons, Panel, Signed, title_bar
from mm.synthetic.texts import snippet


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
        if dice.chance(0.55) and job.budget.columns >= len(title) + 8:
            elements.append(title_bar(job, title, bleeds=True))
        else:
            bar = style.accent if style.coloured and not style.dark and dice.chance(0.6) else None
            align = dice.pick(["left", "center"])
            pen = style.pen("head", dice.uniform(1.0, 1.4))
            elements.append(Line(title, pen, align, style.paper if bar else None, bar))
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
    boxed = dice.chance(0.3)
    ruled = not boxed and dice.chance(0.6)
    for field in make_fields(job, max(1, min(left, dice.integer(2, 9))), max(8, job.budget.columns // 2 - 1)):
        row = Ends(field.label, field.value, style.pen(), style.pen())
        elements.append(Panel(row) if boxed else row)
        if ruled:
            elements.append(Rule("line", style.pen()))
        fields[field.label] = field.value
        turns.append(ask(dice, "field", field.value, label=spoken(dice, field.label)))
    return elements


def _list(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """Entries with a second line in smaller or paler print."""
    dice, style, words = job.dice, job.style, job.words
    elements: list[Element] = []
    timed, signed, sign, filled = dice.chance(0.5), dice.chance(0.3), dice.pick(SIGNS), dice.chance(0.5)
    for _ in range(max(1, min((left + 1) // 2, dice.integer(2, 6)))):
        name = words.person(dice)
        when = time_text(dice) if timed else ""
        row = Ends(name, when, style.pen("bold"), style.pen())
        elements.append(Signed(row, sign, filled) if signed else row)
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
    dice, style = job.dice, job.style
    timed = dice.chance(0.5)
    bubbles: list[Element] = []
    while left > 0 and len(bubbles) < 10:
        rows = [snippet(job, max(4, int(job.budget.columns * 0.7))) for _ in range(min(left, dice.integer(1, 2)))]
        right = dice.chance(0.5)
        bubbles.append(Bubble(rows, right))
        left -= len(rows) + 1
        if timed and left > 0 and dice.chance(0.7):
            stamp = dice.pick(
                [time_text(dice), time_text(dice), f"{time_text(dice)} {dice.pick(['seen', 'sent', 'read'])}"]
            )
            align = "right" if right else "left"
            bubbles.append(Line(stamp, style.pen(), align, dice.pick([style.soft, style.ink])))
            left -= 1
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
    ticked, signed, mixed = dice.chance(0.3), dice.chance(0.35), dice.chance(0.4)
    sign, filled = dice.pick(SIGNS), dice.chance(0.5)
    elements: list[Element] = []
    for name in names:
        if ticked:
            on = dice.chance(0.5)
            elements.append(CheckRow([(name, on)], style.pen(), dice.chance(0.8)))
            if dice.chance(0.3):
                turns.append(ask(dice, "checked", "Yes" if on else "No", label=name))
        else:
            row = Line(name, style.pen())
            elements.append(Signed(row, dice.pick(SIGNS) if mixed else sign, filled) if signed else row)
        elements.append(Gap(dice.pick([0.0, 0.3])))
    return elements


def _window(job: Job, left: int, turns: list[Turn], fields: dict[str, str]) -> list[Element]:
    """A program's window: a bar with a title and buttons, a row of menus, files or text, a status line."""
    dice, words, style = job.dice, job.words, job.style
    title = words.title(dice, dice.integer(1, 2)) + dice.pick(["", f".{dice.pick(['txt', 'pdf', 'csv', 'docx'])}"])
    if dice.chance(0.3):
        title += f" - {words.entry(dice, 'menu')}"
    elements: list[Element] = [title_bar(job, title, bleeds=False)]
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
    grid = Grid(table, "lr" + ("l" if dated else ""), [pen] * len(table), 0, dice.uniform(0.8, 1.5),
                lines=dice.pick(["", "head", "rows"]) if headed else "")  # fmt: skip
    if dice.chance(0.5):
        return grid
    return Signed(grid, dice.pick(SIGNS), dice.chance(0.5), len(table), int(headed))


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
