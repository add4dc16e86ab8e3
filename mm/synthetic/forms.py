"""Forms: labels with values in many arrangements; cards, badges, shipping labels, tickets, invoices' heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice
from mm.synthetic.draft import Draft, Job
from mm.synthetic.fonts import Pen
from mm.synthetic.layout import Element, Gap, Line, Rule, next_baseline
from mm.synthetic.money import cents, date_text, money_style, time_text
from mm.synthetic.page import Colour, Page
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.style import Style
from mm.synthetic.texts import token
from mm.synthetic.words import Lexicon, letter_case


@dataclass(frozen=True)
class Field:
    """A label with its value, both as printed (the label without its colon)."""

    label: str
    value: str


@lru_cache(maxsize=1)
def _labels() -> dict[str, tuple[str, ...]]:
    text = resources.files("mm.synthetic").joinpath("data/labels.txt").read_text(encoding="utf-8")
    rows = [line.split(": ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {kind: tuple(names.split(";")) for kind, names in rows}


def _value(job: Job, kind: str) -> str:
    """A value of the given type (the keys of ``data/labels.txt``)."""
    dice, words, extras = job.dice, job.words, job.style.extras
    simple: dict[str, Callable[[Dice], str]] = {
        "person": words.person, "code": words.code, "phone": words.phone, "email": words.email, "url": words.url,
        "street": words.street, "town": words.town, "date": date_text, "time": time_text,
    }  # fmt: skip
    listed = {"first": "first_names", "last": "surnames", "country": "countries", "state": "states", "job": "jobs",
              "department": "departments", "status": "status", "colour": "colours"}  # fmt: skip
    if kind in simple:
        return simple[kind](dice)
    if kind in listed:
        return words.entry(dice, listed[kind])
    match kind:
        case "company":
            return f"{words.title(dice, dice.integer(1, 2))} {words.entry(dice, 'store_second')}"
        case "money":
            return money_style(dice, extras).full(cents(dice) * dice.pick([1, 1, 10, 100]))
        case "number":
            return str(dice.integer(0, dice.pick([9, 99, 999, 9999])))
        case "measure":
            unit = dice.pick(
                [
                    "kg",
                    "g",
                    "cm",
                    "mm",
                    "m",
                    "km",
                    "lb",
                    "in",
                    "ml",
                    "L",
                    "V",
                    "W",
                    "bar",
                    *(["°C"] if "°" in extras else []),
                ]
            )
            return f"{dice.integer(1, 400)}{dice.pick(['', '.5', '.25', '.8'])} {unit}"
        case "percent":
            return f"{dice.integer(0, 100)}{dice.pick(['', '.5', '.75'])}{dice.pick(['%', '%', ' %'])}"
        case "product":
            return words.entry(dice, "items") if dice.chance(0.5) else words.title(dice, 2)
        case _:
            if dice.chance(0.15):
                return " ".join(token(dice, words, extras) for _ in range(dice.integer(1, 2)))
            text = " ".join(words.word(dice) for _ in range(dice.integer(1, 4)))
            return text[:1].upper() + text[1:]


def make_fields(job: Job, count: int, columns: int) -> list[Field]:
    """``count`` fields with different labels, each at most ``columns`` characters wide."""
    dice, words = job.dice, job.words
    kinds = {kind: float(len(names)) ** 0.6 for kind, names in _labels().items()}
    case = dice.weighted({str: 7, str.upper: 2, str.title: 0.7, str.lower: 0.3})
    upper_values = dice.chance(0.1)
    fields: list[Field] = []
    seen: set[str] = set()
    for _ in range(count * 12):
        if len(fields) == count:
            break
        kind = dice.weighted(kinds)
        label = dice.pick(_labels()[kind])
        if dice.chance(0.2):  # labels that nobody thought of
            word = words.word(dice)
            label = dice.pick([word.capitalize(), f"{word.capitalize()} {label.lower()}", f"{label} {dice.integer(2, 9)}",
                               words.title(dice, 2)])  # fmt: skip
        value = _value(job, kind)
        value = value.upper() if upper_values else value
        if len(value) > columns or len(label) > columns:
            continue
        key = label.lower().strip(".")
        if key in seen or any(key in other or other in key for other in seen):
            continue  # "Name" beside "Last name" would make the question ambiguous
        seen.add(key)
        fields.append(Field(case(label), value))
    return fields or [Field("Code", words.code(dice))]


@dataclass(frozen=True)
class FieldRows:
    """Fields in ``across`` columns, all in one arrangement."""

    fields: Sequence[Field]
    across: int
    form: str  # inline, aligned, right, above, below, boxed, underline
    label_pen: Pen
    value_pen: Pen
    colon: str
    label_ink: Colour
    pad: float  # extra space below a row, em
    gap: float = 1.5  # between columns, em

    def _label(self, field: Field) -> str:
        return field.label + self.colon

    def _label_width(self) -> float:
        return max(self.label_pen.width(self._label(field)) for field in self.fields)

    def _field_width(self, field: Field, style: Style) -> float:
        label, value = self.label_pen.width(self._label(field)), self.value_pen.width(field.value)
        em = style.em
        match self.form:
            case "above" | "below":
                return max(label, value)
            case "boxed":
                return max(label, value + em)
            case "aligned":
                return self._label_width() + 0.8 * em + value
            case "underline":
                return label + 0.5 * em + value + em
            case "right":
                return label + 1.5 * em + value
            case _:
                return label + max(self.label_pen.advance(" "), 0.3 * em) + value

    def natural_width(self, style: Style) -> float:
        widest = max(self._field_width(field, style) for field in self.fields)
        return widest * self.across + self.gap * style.em * (self.across - 1)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        step = (width + self.gap * style.em) / self.across
        column = step - self.gap * style.em
        for start in range(0, len(self.fields), self.across):
            row = [(x + index * step, field) for index, field in enumerate(self.fields[start : start + self.across])]
            if self.form in {"above", "below", "boxed"}:
                self._place_stacked(page, style, row, column)
            else:
                self._place_inline(page, style, row, column)
            page.top += self.pad * style.em

    def _place_inline(self, page: Page, style: Style, row: list[tuple[float, Field]], column: float) -> None:
        larger = max(self.label_pen, self.value_pen, key=lambda pen: pen.size)
        baseline, thin = next_baseline(page, style, larger), max(1, round(style.em / 16))
        for x, field in row:
            label = self._label(field)
            page.text(x, baseline, label, self.label_pen, self.label_ink)
            end = x + self.label_pen.width(label)
            at = {
                "aligned": x + self._label_width() + 0.8 * style.em,
                "right": x + column - self.value_pen.width(field.value),
                "underline": end + 0.8 * style.em,
            }.get(self.form, end + max(self.label_pen.advance(" "), 0.3 * style.em))
            page.text(at, baseline, field.value, self.value_pen, style.ink)
            if self.form == "underline":
                y = baseline + self.value_pen.descent + 1
                page.shape("line", (end + 0.4 * style.em, y, x + column, y), style.accent, thin)

    def _place_stacked(self, page: Page, style: Style, row: list[tuple[float, Field]], column: float) -> None:
        thin = max(1, round(style.em / 16))
        first, second = self.label_pen, self.value_pen
        if self.form == "below":
            first, second = second, first
        upper = next_baseline(page, style, first)
        page.top += 0.15 * style.em if self.form == "boxed" else 0.0
        top = page.top
        lower = next_baseline(page, style, second)
        page.top += 0.2 * style.em if self.form == "boxed" else 0.0
        for x, field in row:
            inset = 0.5 * style.em if self.form == "boxed" else 0.0
            at_label, at_value = (lower, upper) if self.form == "below" else (upper, lower)
            page.text(x, at_label, self._label(field), self.label_pen, self.label_ink)
            page.text(x + inset, at_value, field.value, self.value_pen, style.ink)
            if self.form == "boxed":
                page.shape("frame", (x, top, x + column, page.top), style.accent, thin)


@dataclass(frozen=True)
class CheckRow:
    """Options with a box before each, ticked or not; ``drawn`` boxes are shapes, others are ``[x]`` in print."""

    options: Sequence[tuple[str, bool]]
    pen: Pen
    drawn: bool

    def _width(self, label: str, style: Style) -> float:
        return self.pen.width(label) + (1.3 * style.em if self.drawn else self.pen.width("[x] ")) + 1.5 * style.em

    def natural_width(self, style: Style) -> float:
        return sum(self._width(label, style) for label, _ in self.options)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        baseline, thin = next_baseline(page, style, self.pen), max(1, round(style.em / 14))
        for label, ticked in self.options:
            mark = "[x]" if ticked else "[ ]"
            if self.drawn:
                side = 0.75 * style.em
                box = (x, baseline - side, x + side, baseline)
                page.shape("frame", box, style.ink, thin)
                if ticked:
                    page.shape("line", (box[0], box[1], box[2], box[3]), style.ink, thin + 1)
                    page.shape("rise", (box[0], box[1], box[2], box[3]), style.ink, thin + 1)
                page.mark(x, baseline, mark)
                page.text(x + 1.3 * style.em, baseline, label, self.pen, style.ink)
            else:
                page.text(x, baseline, f"{mark} {label}", self.pen, style.ink)
            x += self._width(label, style)


@dataclass(frozen=True)
class Framed:
    """Elements inside a frame (a card, a label)."""

    inside: Sequence[Element]
    kind: str  # frame or round_frame
    pad: float  # em

    def natural_width(self, style: Style) -> float:
        return max(element.natural_width(style) for element in self.inside) + 2 * self.pad * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        pad, top = self.pad * style.em, page.top
        page.top += pad
        for element in self.inside:
            element.place(page, style, x + pad, width - 2 * pad)
        page.top += pad
        page.shape(self.kind, (x, top, x + width, page.top), style.accent, max(1, round(style.em / 10)))


_FORMS = {"inline": 5.0, "aligned": 3.5, "right": 1.5, "above": 2.0, "below": 0.3, "boxed": 1.5, "underline": 1.5}


def form(job: Job) -> Draft:
    """A form, card, badge or label: a title, fields, perhaps check boxes and a note."""
    dice, style = job.dice, job.style
    layout = dice.weighted(_FORMS)
    across = 2 if job.budget.columns >= 44 and dice.chance(0.4) else 1
    if across == 2 and job.budget.columns >= 70 and dice.chance(0.2):
        across = 3
    pad = dice.pick([0.0, 0.0, 0.2, 0.5, 1.0]) + (0.5 if layout in {"above", "boxed", "underline"} else 0.0)
    height = (2.0 if layout in {"above", "below", "boxed"} else 1.0) + pad / style.pitch
    title = dice.chance(0.75) and job.budget.lines >= 3
    room = int((job.budget.lines - (2 if title else 0)) / height) * across
    count = max(1, min(room, dice.weighted({2: 1, 3: 2, 4: 2, 5: 2, 6: 2, 8: 1.5, 10: 1, 14: 0.7, 18: 0.4})))
    columns = job.budget.columns // across - 2
    limit = columns if layout in {"above", "below", "boxed"} else max(7, columns // 2)
    fields = make_fields(job, count, limit)
    shrink = dice.uniform(0.75, 0.95) if layout in {"above", "boxed"} and style.em >= 18 and dice.chance(0.6) else 1.0
    grow = dice.uniform(1.1, 1.5) if layout == "below" else 1.0
    rows = FieldRows(
        fields=fields,
        across=across,
        form=layout,
        label_pen=style.pen("bold" if style.bold_keys else "body", shrink),
        value_pen=style.pen("bold" if not style.bold_keys and dice.chance(0.15) else "body", grow),
        colon=dice.weighted({":": 6, "": 2.5, " :": 0.5}) if layout != "below" else "",
        label_ink=style.soft if dice.chance(0.4) else style.ink,
        pad=pad,
    )
    elements: list[Element] = []
    turns: list[Turn] = []
    known: dict[str, str] = {}
    if title:
        elements += _title(job, turns, known)
    elements.append(rows)
    for field in fields:
        known[field.label] = field.value
        turns.append(ask(dice, "field", field.value, label=spoken(dice, field.label)))
    left = job.budget.lines - round(height * len(fields) / across) - 3
    if left > 2 and dice.chance(0.25):
        elements += _checks(job, turns)
    if left > 3 and dice.chance(0.25):
        elements += [Gap(0.6), Line(_note(job), style.pen(), dice.pick(["left", "center"]))]
    if dice.chance(0.2):
        elements = [Framed(elements, dice.pick(["frame", "round_frame"]), dice.uniform(0.5, 1.5))]
    full = job.budget.width if dice.chance(0.3) else None
    return Draft(elements, turns, known, ("date", "store", "total", "table", "address", "phone", "website", "tip", "discount",
                                          "change", "cash", "cashier"), full)  # fmt: skip


def _title(job: Job, turns: list[Turn], known: dict[str, str]) -> list[Element]:
    dice, style, words = job.dice, job.style, job.words
    text = words.entry(dice, "form_titles") if dice.chance(0.6) else words.title(dice, dice.integer(1, 3))
    text = letter_case(dice)(text)
    scale = dice.uniform(1.0, 1.8)
    while scale > 1.0 and len(text) * scale > job.budget.columns:
        scale = max(1.0, scale - 0.2)
    bar = style.accent if style.coloured and not style.dark and dice.chance(0.4) else None
    align = dice.weighted({"left": 5, "center": 5})
    ink = None if bar is None else style.paper
    elements: list[Element] = [Line(text, style.pen("head", scale), align, ink, bar)]
    if dice.chance(0.35):
        elements.append(
            Rule(dice.weighted({"line": 4, "thick": 1, "double": 1, "dashes": 1, "-": 1, "=": 1}), style.pen())
        )
    elements.append(Gap(dice.uniform(0.1, 1.0)))
    turns.append(ask(dice, "title", text))
    known["title"] = text
    return elements


def _checks(job: Job, turns: list[Turn]) -> list[Element]:
    dice, words = job.dice, job.words
    options = [
        (words.title(dice, 1), dice.chance(0.5))
        for _ in range(dice.integer(1, max(1, min(4, job.budget.columns // 16))))
    ]
    drawn = dice.chance(0.6)
    for label, ticked in options[:2]:
        turns.append(ask(dice, "checked", "Yes" if ticked else "No", label=label))
    return [Gap(0.4), CheckRow(options, job.style.pen(), drawn)]


def _note(job: Job) -> str:
    dice, words = job.dice, job.words
    text = " ".join(words.word(dice) for _ in range(max(1, job.budget.columns // 10)))
    return (text[:1].upper() + text[1:])[: job.budget.columns].strip()


def field_value(job: Job, words: Lexicon) -> Field:
    """One field on its own (for tables and screens)."""
    return make_fields(job, 1, 24)[0]
