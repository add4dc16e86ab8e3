"""Labels of forms and values that suit them."""

from collections.abc import Callable
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice
from mm.synthetic.draft import Job
from mm.synthetic.field_rows import Field
from mm.synthetic.money import cents, date_text, money_style, time_text
from mm.synthetic.questions import ask
from mm.synthetic.sample import ABSENT_ANSWER, Turn
from mm.synthetic.texts import token
from mm.synthetic.words import capital, upper

_UNITS = ("kg", "g", "cm", "mm", "m", "km", "lb", "in", "ml", "L", "V", "W", "bar")
_LISTED = {"first": "first_names", "last": "surnames", "country": "countries", "state": "states", "job": "jobs",
           "department": "departments", "status": "status", "colour": "colours"}  # fmt: skip
_ASKED_IN_VAIN = ("date", "time", "phone", "email", "url", "street", "money", "measure", "percent", "colour", "job",
                  "code", "number", "words", "person", "country", "company")  # fmt: skip
"""Types whose labels name nothing that a field of another type could answer."""


@lru_cache(maxsize=1)
def labels() -> dict[str, tuple[str, ...]]:
    """Type of value -> labels, from ``data/labels.txt``."""
    text = resources.files("mm.synthetic").joinpath("data/labels.txt").read_text(encoding="utf-8")
    rows = [line.split(": ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {kind: tuple(names.split(";")) for kind, names in rows}


def make_value(job: Job, kind: str) -> str:
    """A value of the given type (the keys of ``labels()``)."""
    dice, words, extras = job.dice, job.words, job.style.extras
    simple: dict[str, Callable[[Dice], str]] = {
        "person": words.person, "code": words.code, "phone": words.phone, "email": words.email, "url": words.url,
        "street": words.street, "town": words.town, "date": date_text, "time": time_text,
    }  # fmt: skip
    if kind in simple:
        return simple[kind](dice)
    if kind in _LISTED:
        return words.entry(dice, _LISTED[kind])
    match kind:
        case "company":
            return f"{words.title(dice, dice.integer(1, 2))} {words.entry(dice, 'store_second')}"
        case "money":
            return money_style(dice, extras).full(cents(dice) * dice.pick([1, 1, 10, 100]))
        case "number":
            return str(dice.integer(0, dice.pick([9, 99, 999, 9999])))
        case "measure":
            units = (*_UNITS, "°C") if "°" in extras else _UNITS
            return f"{dice.integer(1, 400)}{dice.pick(['', '.5', '.25', '.8'])} {dice.pick(units)}"
        case "percent":
            return f"{dice.integer(0, 100)}{dice.pick(['', '.5', '.75'])}{dice.pick(['%', '%', ' %'])}"
        case "product" if dice.chance(0.5):
            return words.entry(dice, "items")
    if dice.chance(0.15):
        return " ".join(token(dice, words, extras) for _ in range(dice.integer(1, 2)))
    text = " ".join(words.word(dice) for _ in range(dice.integer(1, 4)))
    if dice.chance(0.06):
        text = words.accented(dice, text, extras)
    return capital(text)


def make_fields(job: Job, count: int, columns: int) -> list[Field]:
    """``count`` fields with different labels, each at most ``columns`` characters wide (fewer when none fit)."""
    dice, words = job.dice, job.words
    kinds = {kind: float(len(names)) ** 0.6 for kind, names in labels().items()}
    cases: dict[Callable[[str], str], float] = {str: 7, str.upper: 2, str.title: 0.7, str.lower: 0.3}
    case = dice.weighted(cases)
    upper_values = dice.chance(0.1)
    fields: list[Field] = []
    seen: set[str] = set()
    for _ in range(count * 8):
        if len(fields) == count:
            break
        kind = dice.weighted(kinds)
        label = dice.pick(labels()[kind])
        if dice.chance(0.2):  # labels that nobody thought of
            word = words.word(dice).capitalize()
            label = dice.pick([word, f"{word} {label.lower()}", f"{label} {dice.integer(2, 9)}", words.title(dice, 2)])
        value = make_value(job, kind)
        value = upper(value) if upper_values else value
        if len(value) > columns or len(label) > columns:
            continue
        key = label.lower().strip(".")
        if key in seen or (any(key in other or other in key for other in seen) and dice.chance(0.7)):
            continue  # "Name" beside "Last name" is rare: the question means the label that it names exactly
        seen.add(key)
        fields.append(Field(case(label), value, kind))
    return fields or [Field("Code", words.code(dice), "code")]


def absent_field(job: Job, fields: list[Field]) -> Turn | None:
    """A question for a field that the form does not have, of a type that it does not have either."""
    dice, there = job.dice, {field.kind for field in fields}
    texts = " ".join(field.label.lower() for field in fields)
    free = [kind for kind in _ASKED_IN_VAIN if kind not in there and kind not in texts]
    if not free:
        return None
    label = dice.pick(labels()[dice.pick(free)])
    words = [word for word in label.lower().replace(".", " ").split() if len(word) > 2 or label == word]
    if not words or any(word in texts for word in words):
        return None
    return ask(dice, "field", ABSENT_ANSWER, label=label.lower() if dice.chance(0.5) else label)
