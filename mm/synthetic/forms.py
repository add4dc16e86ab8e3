"""Forms: a title with fields, cards and badges, shipping labels, tickets."""

from dataclasses import replace

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import Barcode, CheckRow, Field, FieldRows, Framed, WithPhoto
from mm.synthetic.fields import absent_field, make_fields, make_value
from mm.synthetic.layout import Element, Gap, Line, Rule
from mm.synthetic.money import date_text, time_text
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import ABSENT_ANSWER, Turn
from mm.synthetic.words import letter_case

_ARRANGEMENTS = {
    "inline": 5.0,
    "aligned": 3.5,
    "right": 1.5,
    "above": 2.8,
    "below": 0.3,
    "boxed": 5.0,
    "underline": 1.8,
    "cells": 2.0,
    "flush": 0.6,
    "leader": 0.7,
}
_SECTIONS = ("Section 1", "Section 2", "Part A", "Part B", "Part I", "Personal details", "PERSONAL DATA", "Details",
             "DETAILS", "General", "Other", "A. General", "B. Details", "1. Applicant", "2. Contact", "Contact",
             "Address", "Additional information", "For office use", "Company", "III. Remarks")  # fmt: skip
_STACKED = {"above", "below", "boxed"}


def form(job: Job) -> Draft:
    """A form of one of several kinds."""
    kind = job.dice.weighted({"fields": 7.0, "card": 1.2, "label": 0.8, "ticket": 0.8})
    if kind == "fields" or job.budget.lines < 7 or job.budget.columns < 16:
        return _fields(job)
    return {"card": _card, "label": _label, "ticket": _ticket}[kind](job)


def _rows(job: Job, fields: list[Field], arrangement: str, across: int, pad: float) -> FieldRows:
    dice, style = job.dice, job.style
    small = arrangement in {"above", "boxed"} and style.em >= 15 and dice.chance(0.6)
    ruled = arrangement == "aligned" and dice.chance(0.35)
    role = "bold" if not style.bold_keys and dice.chance(0.15) else "value" if dice.chance(0.5) else "body"
    grey = dice.integer(0, 70)
    blue = (grey // 3, grey // 2, 60 + dice.integer(0, 120)) if style.coloured and not style.dark else (grey,) * 3
    return FieldRows(
        fields=fields,
        across=across,
        form=arrangement,
        label_pen=style.pen("bold" if style.bold_keys else "body", dice.uniform(0.75, 0.95) if small else 1.0),
        value_pen=style.pen(role, dice.uniform(1.1, 1.5) if arrangement == "below" else 1.0),
        colon=dice.weighted({":": 6, "": 7 if arrangement in _STACKED else 2.5, " :": 0.5, ".": 0.1, " -": 0.1})
        if arrangement not in {"below", "cells", "leader"}
        else dice.pick(["", "", ":"] if arrangement != "below" else [""]),
        label_ink=style.soft if dice.chance(0.4) else style.ink,
        pad=pad + (0.5 if ruled else 0.0),
        tab=dice.pick([0.8, 0.8, 1.5, 3.0]),
        ruled=ruled,
        value_ink=blue if dice.chance(0.3) and not style.dark else None,
        shade=style.panel if dice.chance(0.5) else None,
        leader=dice.pick([".", ". ", "_", "-"]),
        enclosed=arrangement == "boxed" and dice.chance(0.65),
    )


def _dressed(job: Job, fields: list[Field], arrangement: str, across: int, columns: int) -> list[Field]:
    """Fields as some forms print them: numbered, with hints, left blank, with values on two rows."""
    dice = job.dice
    numbered = dice.pick(["{}. ", "{}) ", "({}) ", "{} "]) if dice.chance(0.12) else ""
    hints = dice.chance(0.12)
    wide = dice.pick([0.0, 0.12, 0.3]) if across > 1 and arrangement in _STACKED else 0.0
    dressed = []
    for index, field in enumerate(fields, 1):
        lines: tuple[str, ...] = ()
        words = field.value.split()
        if across == 1 and arrangement not in _STACKED and len(words) > 2 and dice.chance(0.15):
            cut = dice.integer(1, len(words) - 1)
            lines = (" ".join(words[:cut]), " ".join(words[cut:]))
        hint = dice.pick([" (optional)", " *", "*", " (in full)", " (if any)", " (required)", " (1)"]) if hints else ""
        room = len(field.label) + len(hint) <= columns
        dressed.append(
            replace(
                field,
                before=numbered.format(index) if numbered else "",
                hint=hint if room and dice.chance(0.5) else "",
                lines=lines,
                wide=dice.chance(wide) or (wide > 0 and index == len(fields)),
            )
        )
    if len(dressed) > 3 and dice.chance(0.12):  # a field that nobody filled in
        index = dice.integer(0, len(dressed) - 2)
        dressed[index] = replace(dressed[index], value="", lines=())
    return dressed


def _field_turns(job: Job, fields: list[Field]) -> list[Turn]:
    dice = job.dice
    turns = [ask(dice, "field", field.value or ABSENT_ANSWER, label=spoken(dice, field.label)) for field in fields]
    missing = absent_field(job, fields) if dice.chance(0.25) else None
    return [*turns, missing] if missing is not None else turns


def _fields(job: Job) -> Draft:
    """Title, fields in one arrangement, perhaps check boxes, a note, a frame."""
    dice, style = job.dice, job.style
    arrangement = dice.weighted(_ARRANGEMENTS)
    stacked = arrangement in _STACKED
    across = 2 if job.budget.columns >= (26 if stacked else 44) and dice.chance(0.7 if stacked else 0.4) else 1
    if across == 2 and job.budget.columns >= 70 and dice.chance(0.2):
        across = 3
    pad = dice.pick([0.0, 0.0, 0.2, 0.5, 1.0]) + (0.5 if arrangement in {"above", "boxed", "underline"} else 0.0)
    height = (2.0 if stacked else 1.0) + pad / style.pitch
    titled = dice.chance(0.75) and job.budget.lines >= 3
    room = max(1, int((job.budget.lines - (2 if titled else 0)) / height) * across)
    count = dice.weighted({2: 1, 3: 2, 4: 2, 5: 2, 6: 2, 8: 1.5, 10: 1, 14: 0.7, 18: 0.4})
    if room > 6 and dice.chance(0.3 * job.level):
        count = dice.integer(6, min(room, 26))
    columns = job.budget.columns // across - 2
    fields = make_fields(job, min(room, count), columns if stacked else max(7, columns // 2))
    elements: list[Element] = []
    turns: list[Turn] = []
    known: dict[str, str] = {}
    if titled:
        elements += _title(job, turns, known)
    fields = _dressed(job, fields, arrangement, across, columns // 2)
    rows = _rows(job, fields, arrangement, across, pad)
    elements += _sections(job, rows) if len(fields) > 3 and room > len(fields) + 4 and dice.chance(0.25) else [rows]
    known |= {field.label: field.value for field in fields if field.value}
    turns += _field_turns(job, fields)
    left = job.budget.lines - round(height * len(fields) / across) - 3
    if left > 2 and dice.chance(0.25):
        elements += _checks(job, turns)
    if left > 3 and dice.chance(0.25):
        elements += [Gap(0.6), Line(_note(job), style.pen(), dice.pick(["left", "center"]))]
    if left > 4 and dice.chance(0.06):
        elements.append(Barcode.draw(dice))
    if dice.chance(0.2):
        elements = [Framed(elements, dice.pick(["frame", "round_frame"]), dice.uniform(0.5, 1.5))]
    return Draft(elements, turns, known, None, job.budget.width if dice.chance(0.3) else None)


def _sections(job: Job, rows: FieldRows) -> list[Element]:
    """The fields in two or three parts, a heading above each."""
    dice, style = job.dice, job.style
    parts = 3 if len(rows.fields) > 7 and dice.chance(0.4) else 2
    step = -(-len(rows.fields) // parts)
    bar = dice.pick([style.accent, style.ink]) if dice.chance(0.5) and not style.dark else None
    if bar is not None and max(bar) > 150:
        bar = style.ink
    elements: list[Element] = []
    for index, title in enumerate(dice.sample(_SECTIONS, parts)):
        if bar is None and dice.chance(0.4):
            elements.append(Rule("line", style.pen()))
        elements.append(Line(title, style.pen("bold"), "left", None if bar is None else style.paper, bar))
        elements += [Gap(0.3), replace(rows, fields=rows.fields[index * step : (index + 1) * step]), Gap(0.4)]
    return elements


def _title(job: Job, turns: list[Turn], known: dict[str, str]) -> list[Element]:
    dice, style, words = job.dice, job.style, job.words
    text = words.entry(dice, "form_titles") if dice.chance(0.6) else words.title(dice, dice.integer(1, 3))
    text = letter_case(dice)(text)
    scale = dice.uniform(1.0, 1.8)
    while scale > 1.0 and len(text) * scale > job.budget.columns:
        scale = max(1.0, scale - 0.2)
    bar = style.accent if style.coloured and not style.dark and dice.chance(0.4) else None
    align = dice.weighted({"left": 5, "center": 5})
    elements: list[Element] = []
    if dice.chance(0.2):
        name = f"{words.title(dice, 1)} {words.entry(dice, 'store_second')}"
        elements.append(Line(name, style.pen(), align, style.soft))
    elements.append(Line(text, style.pen("head", scale), align, None if bar is None else style.paper, bar))
    if dice.chance(0.35):
        rule = dice.weighted({"line": 4, "thick": 1, "double": 1, "dashes": 1, "-": 1, "=": 1})
        elements.append(Rule(rule, style.pen()))
    elements.append(Gap(dice.uniform(0.1, 1.0)))
    if len(elements) == 2 or not isinstance(elements[1], Line):  # the title is the first line
        turns.append(ask(dice, "title", text))
        known["title"] = text
    return elements


def _checks(job: Job, turns: list[Turn]) -> list[Element]:
    dice, words = job.dice, job.words
    count = dice.integer(1, max(1, min(4, job.budget.columns // 16)))
    options = [(words.title(dice, 1), dice.chance(0.5)) for _ in range(count)]
    for label, ticked in options[:2]:
        turns.append(ask(dice, "checked", "Yes" if ticked else "No", label=label))
    return [Gap(0.4), CheckRow(options, job.style.pen(), dice.chance(0.6))]


def _note(job: Job) -> str:
    words = [job.words.word(job.dice) for _ in range(max(1, job.budget.columns // 10))]
    text = " ".join(words).capitalize()
    return text[: job.budget.columns].rsplit(" ", 1)[0] if len(text) > job.budget.columns else text


def _card(job: Job) -> Draft:
    """An identity card or name badge: organisation, a large name, a role, a few fields."""
    dice, style, words = job.dice, job.style, job.words
    align = dice.weighted({"left": 3, "center": 4})
    name, role = words.person(dice), words.entry(dice, "jobs")
    company = f"{words.title(dice, 1)} {words.entry(dice, 'store_second')}"
    bar = style.accent if style.coloured and not style.dark and dice.chance(0.5) else None
    scale = max(1.0, min(dice.uniform(1.1, 2.2), job.budget.columns / len(name)))
    fields = make_fields(job, dice.integer(1, max(1, min(5, job.budget.lines - 6))), max(8, job.budget.columns // 2))
    fields = [field for field in fields if field.kind not in {"person", "first", "last", "job", "company"}]
    elements: list[Element] = [
        Line(letter_case(dice)(company), style.pen("head"), align, None if bar is None else style.paper, bar),
        Gap(dice.uniform(0.3, 1.0)),
        Line(name, style.pen("bold", scale), align),
        Line(role, style.pen(), align, style.soft),
        Gap(dice.uniform(0.2, 0.8)),
    ]
    turns = [
        ask(dice, "person", name),
        ask(dice, "role", role),
    ]
    known = {"name": name, "role": role} | {field.label: field.value for field in fields}
    if fields:
        arrangement = dice.pick(["inline", "aligned", "above"])
        elements.append(_rows(job, fields, arrangement, 1, 0.2))
        turns += _field_turns(job, fields)
    if job.budget.lines > 6 and dice.chance(0.3):
        elements = [*elements[:1], Gap(0.4), WithPhoto(elements[1:], dice.uniform(3.0, 5.5))]
    if dice.chance(0.25):
        elements.append(Barcode.draw(dice))
    framed = Framed(elements, dice.pick(["frame", "round_frame"]), dice.uniform(0.6, 1.5))
    return Draft([framed] if dice.chance(0.7) else elements, turns, known, None)


def _label(job: Job) -> Draft:
    """A shipping label: sender, recipient, tracking number, bar code."""
    dice, style, words = job.dice, job.style, job.words
    elements: list[Element] = []
    turns: list[Turn] = []
    known: dict[str, str] = {}
    case = letter_case(dice)
    for heading, asked in ((dice.pick(["From", "FROM", "Sender", "Ship from"]), "sender"),
                           (dice.pick(["To", "TO", "Ship to", "SHIP TO", "Deliver to"]), "recipient")):  # fmt: skip
        name, street, town = case(words.person(dice)), case(words.street(dice)), case(words.town(dice))
        scale = dice.uniform(1.0, 1.4) if asked == "recipient" and len(town) * 1.4 < job.budget.columns else 1.0
        elements.append(Line(heading + dice.pick([":", ":", ""]), style.pen("bold"), ink=style.soft))
        elements += [Line(text, style.pen("body", scale)) for text in (name, street, town)]
        elements.append(Rule("line", style.pen()) if dice.chance(0.5) else Gap(0.5))
        turns += [ask(dice, asked, name), ask(dice, f"{asked}_street", street)]
        known[asked] = name
    number = words.code(dice) if dice.chance(0.5) else dice.digits(dice.integer(8, 14))
    fields = [Field(dice.pick(["Tracking No.", "Tracking #", "TRACKING", "Parcel ID"]), number, "code")]
    if job.budget.lines > 11:
        fields.append(Field(dice.pick(["Weight", "WEIGHT"]), make_value(job, "measure"), "measure"))
        fields.append(Field(dice.pick(["Ship date", "Date", "DATE"]), date_text(dice), "date"))
    elements.append(_rows(job, fields, dice.pick(["inline", "aligned"]), 1, 0.0))
    turns += [ask(dice, "field", field.value, label=spoken(dice, field.label.strip("#. "))) for field in fields]
    known |= {field.label: field.value for field in fields}
    if dice.chance(0.6):
        elements.append(Barcode.draw(dice))
    return Draft([Framed(elements, "frame", 0.6)] if dice.chance(0.6) else elements, turns, known, None)


def _ticket(job: Job) -> Draft:
    """An admission or travel ticket: a large title and short fields in two or three columns."""
    dice, style, words = job.dice, job.style, job.words
    title = letter_case(dice)(words.title(dice, dice.integer(1, 3)))
    scale = max(1.0, min(dice.uniform(1.0, 1.9), job.budget.columns / len(title)))
    options = [("Date", date_text(dice), "date"), ("Time", time_text(dice), "time"), ("Seat", words.code(dice), "code"),
               ("Row", str(dice.integer(1, 60)), "number"), ("Gate", f"B{dice.integer(1, 40)}", "code"),
               ("Price", make_value(job, "money"), "money"), ("Passenger", words.person(dice), "person"),
               ("From", words.entry(dice, "cities"), "town"), ("To", words.entry(dice, "cities"), "town"),
               ("Class", dice.pick(["1", "2", "Economy", "Business"]), "code"), ("Ticket No.", dice.digits(8), "code"),
               ("Hall", str(dice.integer(1, 20)), "number"), ("Coach", str(dice.integer(1, 20)), "number")]  # fmt: skip
    upper = dice.chance(0.5)
    fields = [
        Field(label.upper() if upper else label, value, kind)
        for label, value, kind in dice.sample(options, dice.integer(3, 7))
    ]
    across = 1 if job.budget.columns < 30 else 2 if job.budget.columns < 50 else dice.integer(2, 3)
    fields = fields[: max(1, (job.budget.lines - 3) // 2) * across]
    rows = _rows(job, fields, dice.weighted({"above": 4, "inline": 2, "boxed": 1}), across, dice.uniform(0.2, 0.6))
    elements: list[Element] = [Line(title, style.pen("head", scale), dice.pick(["left", "center"])), Gap(0.5), rows]
    if dice.chance(0.5):
        elements.append(Barcode.draw(dice))
    turns = [ask(dice, "title", title), *(ask(dice, "field", f.value, label=spoken(dice, f.label)) for f in fields)]
    known = {"title": title} | {field.label: field.value for field in fields}
    framed = Framed(elements, dice.pick(["frame", "round_frame"]), dice.uniform(0.5, 1.2))
    return Draft([framed] if dice.chance(0.6) else elements, turns, known, None)
