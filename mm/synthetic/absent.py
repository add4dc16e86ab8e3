"""Questions that a document cannot answer: what other documents show, items and fields that are not there, lines below
the last one, and bars, slices and shapes. The answer is always ``ABSENT_ANSWER``.

A question is only asked when nothing in the text could be taken for its answer: each kind has clues that must be
missing, and no longer word of an item or a label may be printed.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from importlib import resources

from mm.synthetic.draft import Job
from mm.synthetic.fields import labels
from mm.synthetic.phrases import question
from mm.synthetic.questions import spoken
from mm.synthetic.sample import ABSENT_ANSWER, Turn

_DATE = (
    r"date|day|\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}|\b(19|20)\d\d|'\d\d|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|"
    r"born|issued|expire|valid|due|arriv|depart|check|hired|visit|created|updated|deadline|period|joined|since|"
    r"\d\d \d\d \d\d"
)
_MONEY = (
    r"total|amount|sum|due|pay|paid|price|cost|fee|balance|rent|\d[.,]\d\d\b|[$€£]|eur|usd|budget|salary|deposit|tax"
)
_STREET = (
    r"street|\bst\b|\bave|\brd\b|road|\bln\b|lane|drive|\bdr\b|way\b|blvd|court|place|square|close|terrace|hwy|address|"
    r"\d{5}|\b[a-z]{1,2}\d{1,2} \d[a-z]{2}\b|location|branch|\bcity|town"
)
_WORDS_OF_TOTAL = (
    r"total|amount|\bsum\b|due|pay|paid|price|cost|balance|spent|spend|bill"  # amounts in prose are no totals
)
_CLUES = {
    "phone": r"tel|phone|\bph\b|call|mobile|fax|hotline|contact|\d{3}[-. )]+\d{3}|\+\d|\d\d \d\d \d\d|\d{7}|\bt:",
    "website": r"www|http|web|url|link|homepage|site|online|[a-z]\.(com|net|org|co|de|fr|io|eu|info|shop|biz|edu)\b",
    "email": r"@|e-?mail|contact",
    "tip": r"\btip|gratuity|service",
    "discount": r"discount|saving|saved|coupon|promo|off\b|loyal|less|reduc|voucher|-\D{0,4}\d|\d-(\s|$)|\(\D{0,4}\d",
    "change": r"change|cash|tendered|back",
    "cash": r"cash|tendered|given|paid",
    "table": r"table|tbl",
    "cashier": r"cashier|serv|clerk|operator|agent|staff|driver|\bby\b|till|seller",
    "card": r"card|visa|amex|maestro|master|x{3}|\*{3}|account|iban|debit|credit|\.{3}\s?\d",
    "tax": r"tax|vat|gst|hst|mwst|tva|iva|incl|net|rate|%",
    "subtotal": r"sub|net|before|items|merchandise|total",
    "total": _MONEY,
    "date": _DATE,
    "time": r"time|\d[:h.]\d\d|\b[ap]m\b|hour|opening|duration|boarding|\d[ap]m|clock",
    "store": r"store|shop|market|company|compan|merchant|seller|vendor|brand|&|ltd|inc\b|gmbh|welcome|hotel|cafe",
    "address": _STREET,
    "number": r"receipt|\bno\b|no\.|#|number|ticket|trans|check|bill|bon|nr|order|ref|chk|doc|slip|rcpt|txn|inv|\d{5}",
    "sender": r"from|\bto\b|ship|send|sold|name|return",
    "recipient": r"\bto\b|ship|send|sold|customer|client|guest|name|attn|deliver|recipient",
    "buttons": r"button|\bok\b|cancel|save|submit|next|back|send|login|sign",
}  # fmt: skip
_SPEND = ("phone", "website", "email", "tip", "discount", "change", "cash", "table", "cashier", "card", "tax",
          "subtotal", "time", "address", "number", "sender", "recipient", "buttons")  # fmt: skip
_RECORD = ("phone", "website", "email", "tip", "discount", "change", "cash", "table", "cashier", "card", "tax",
           "subtotal", "total", "date", "time", "address", "number", "sender", "recipient")  # fmt: skip
_ALWAYS_KNOWN = {"receipt": _SPEND, "form": _RECORD, "table": _RECORD, "screen": _RECORD}
"""Kinds of questions by kind of document; plain text may be asked for everything, its store too."""

_WAYS = {
    "receipt": {"kind": 4.0, "item": 4.0, "label": 1.0, "fact": 3.0, "line": 0.7, "foreign": 2.0},
    "form": {"kind": 3.0, "item": 1.0, "fact": 6.0, "line": 0.7, "foreign": 2.0, "box": 0.5},
    "table": {"kind": 2.0, "item": 1.0, "fact": 1.5, "cell": 3.0, "line": 0.5, "foreign": 1.5},
    "screen": {"kind": 3.0, "item": 1.0, "label": 1.0, "fact": 2.5, "line": 0.7, "foreign": 2.0, "box": 0.5},
    "": {"kind": 3.0, "item": 2.0, "label": 1.0, "fact": 2.0, "line": 2.0, "foreign": 2.0},
}
_LABEL_CLUES = {"date": _DATE, "time": _CLUES["time"], "phone": _CLUES["phone"], "email": "@|mail",
                "url": _CLUES["website"], "street": _STREET, "money": _MONEY, "percent": "%|percent|rate",
                "measure": r"\d ?(\.\d+ ?)?[a-z°]{1,3}\b",
                "colour": "colo", "words": r"$^", "department": "dep|team|division|office",
                "person": r"customer|client|guest|serv|cashier|sold|bill to|operator|name|driver"}  # fmt: skip
"""Types of labels that are asked for on documents without labels, and what must not be printed."""

_STOP_TEXT = """
    what which does where this that there picture image photo many have tell could would please give with show
    shown according looking page document form card sheet screen record label paper scan screenshot answer
    value only text the and for than from
"""
_STOP = frozenset(_STOP_TEXT.split())
"""Words of questions that say nothing about what is asked for."""


@lru_cache(maxsize=1)
def facts() -> tuple[tuple[tuple[str, ...], str], ...]:
    """Names of facts that documents may lack with what must not be printed, from ``data/absent_labels.txt``."""
    text = resources.files("mm.synthetic").joinpath("data/absent_labels.txt").read_text(encoding="utf-8")
    rows = [line.split(" = ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return tuple((tuple(names.split(";")), clue) for names, clue in rows)


def absent_turns(
    job: Job, kind: str, rows: Sequence[str], present: Collection[str], count: int, names: Collection[str] = ()
) -> list[Turn]:
    """Up to ``count`` questions that a document does not answer.

    Args:
        job: source of every choice, and the words.
        kind: kind of the document.
        rows: its transcription.
        present: kinds of questions that it answers.
        count: how many; fewer where no fitting one was drawn.
        names: what its fields are called; none of these is asked for.
    """
    dice = job.dice
    text = "\n".join([*rows, *names]).lower()
    ways = _WAYS.get(kind, _WAYS[""])
    turns: list[Turn] = []
    for _ in range(8 * count):
        if len(turns) == count:
            break
        asked = _draw(job, dice.weighted(ways), kind, rows, text, present)
        if asked is not None:
            turns.append(Turn(asked, ABSENT_ANSWER))
    return turns


def _draw(job: Job, way: str, kind: str, rows: Sequence[str], text: str, present: Collection[str]) -> str | None:
    """A question of one way to ask in vain, or None where the document might answer it."""
    dice, words = job.dice, job.words
    match way:
        case "kind":
            name = dice.pick(_ALWAYS_KNOWN.get(kind, tuple(_CLUES)))
            clue = _WORDS_OF_TOTAL if name == "total" and kind not in _ALWAYS_KNOWN else _CLUES[name]
            return None if name in present or re.search(clue, text) else question(dice, name)
        case "fact":
            fact, clue = dice.pick(facts())
            if re.search(clue, text):
                return None
            if "birth" in clue and dice.chance(0.6):
                return question(dice, "birth")
            return question(dice, "field", label=spoken(dice, dice.pick(fact)))
        case "item":
            item = words.entry(dice, "items") if dice.chance(0.7) else words.title(dice, dice.integer(1, 2))
            form = dice.weighted({"price": 5, "quantity": 1, "unit_price": 0.7})
            return question(dice, form, item=spoken(dice, item)) if unprinted(item, text) else None
        case "label":
            group = dice.pick(tuple(_LABEL_CLUES))
            label = dice.pick(labels()[group])
            free = unprinted(label, text) and not re.search(_LABEL_CLUES[group], text)
            return question(dice, "field", label=spoken(dice, label)) if free else None
        case "cell":
            row = words.title(dice, 1) if dice.chance(0.5) else words.person(dice)
            column = dice.pick(rows[0].split())
            return question(dice, "cell", row=row, column=column) if unprinted(row, text) else None
        case "box":
            label = words.title(dice, dice.integer(1, 2))
            return question(dice, "checked", label=label) if unprinted(label, text) else None
        case "line":
            return question(dice, "line", n=str(len(rows) + dice.integer(2, 20)))
        case _:
            asked = question(dice, "foreign")
            return asked if unprinted(asked, text) else None


def unprinted(name: str, text: str) -> bool:
    """Whether no word of three letters or more of ``name`` is printed in ``text`` (small letters)."""
    found = [word for word in re.findall(r"[^\W\d_]{3,}", name.lower()) if word not in _STOP]
    return bool(found) and not any(word in text or word.rstrip("s") in text for word in found)
