"""Boxes as DeepSeek-VL2 writes them, and documents, tables and charts that ask where something is printed.

Fields are asked for by name ("the total": the box of its value), printed text by the text itself, and the other way
round: what is printed in a box. Boxes are around the ink (``ground_ink``). A word that also names a field is asked for
in quotes only, so that ``the total`` is always the amount and ``the word "Total"`` always the label.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mm.chat import TASK_PROMPTS
from mm.errors import OptionError
from mm.grounding import COORDINATE_MAX, DET_CLOSE, DET_OPEN, REF_CLOSE, REF_OPEN
from mm.synthetic import charts, data_tables, documents
from mm.synthetic.dice import Dice
from mm.synthetic.enlarge import enlarged
from mm.synthetic.fonts import FontSet
from mm.synthetic.ground_ink import Box, find_in_row, find_text
from mm.synthetic.sample import ABSENT_ANSWER, Sample, Turn
from mm.synthetic.style import TILE
from mm.synthetic.words import lexicon

_Render = Callable[[str, np.random.Generator, FontSet, float], Sample]

_SOURCES: Mapping[str, tuple[_Render, Mapping[str, float]]] = {
    "receipt_ground": (documents.render, {"receipt": 1.0}),
    "form_ground": (documents.render, {"form": 1.0}),
    "screen_ground": (documents.render, {"screen": 1.0}),
    "line_ground": (documents.render, {"word": 0.15, "line": 0.3, "lines": 0.4, "paragraph": 0.15}),
    "table_ground": (documents.render, {"table": 1.0}),
    "data_table_ground": (data_tables.render, {"data_table": 1.0}),
    "chart_ground": (charts.render, {"bar": 0.5, "line_chart": 0.25, "pie": 0.25}),
}

KINDS = tuple(_SOURCES)
"""Kinds of samples with boxes: each is another kind of sample with questions about places."""

_FIELDLESS = ("line_ground", "chart_ground")  # what a chart's fields name need not be printed

_PHRASES: Mapping[str, Sequence[str]] = {
    "total": ("total", "the total", "the total", "the total", "the total amount", "the grand total", "the total price",
              "the sum", "the amount due", "the final amount", "the total sum"),
    "date": ("date", "the date", "the date", "the date", "the date of the purchase", "the day", "the date on it",
             "the date of the receipt"),
    "store": ("store", "the store", "the store", "the store name", "the name of the store", "the shop", "the shop name",
              "the name of the shop", "the store's name", "the merchant", "the name of the business", "the company"),
    "time": ("time", "the time", "the time of day"),
    "title": ("title", "the title", "the title", "the heading", "the headline"),
    "vat": ("VAT", "the VAT", "the tax"),
    "tax": ("tax", "the tax", "the tax amount"),
}  # fmt: skip

_PRICES = ("the price of {}", "the price of {}", "the price of the {}", "price of {}", "the price for {}", "{}'s price",
           "what {} costs", "the cost of {}")  # fmt: skip

_VALUES = ("{}", "{}", "the {}", "the {}", "the {}", "the value of {}", "the entry for {}", "the value of the field {}",
           "what it says for {}", "the {} given here", "the {} field")  # fmt: skip

_TOTALS = ("total", "sum", "due", "to pay", "balance", "amount")
"""What stands before the total where the same amount is printed more than once."""

_STRANGERS = (
    "signature", "discount", "phone number", "telephone number", "email address", "tip", "subtotal", "cashier",
    "passport number", "blood type", "weather", "insurance number", "flight number", "license plate", "map", "tree",
    "red circle", "blue star", "green triangle", "yellow square", "pink heart", "black cat", "red car", "dog", "house",
)  # fmt: skip
"""What is not printed where neither the text nor the names of the fields hold one of its words."""

_STRANGERS_ELSEWHERE = (
    "total",
    "store name",
    "grand total",
    "cash tendered",
    "name of the shop",
    "VAT",
    "receipt number",
)
"""The same where there is no receipt, on which these may be printed in other words."""

_READ_AT = (
    "Read the text in {}.",
    "Read the text in {}.",
    "What is written in {}?",
    "What text is at {}?",
    "What does it say at {}?",
    "What is at {}?",
)

_PLACES: Mapping[str, tuple[int, int | None]] = {
    "the first line": (0, None),
    "the last line": (-1, None),
    "the first word": (0, 0),
    "the last word": (-1, -1),
    "the second line": (1, None),
    "line 2": (1, None),
    "line 3": (2, None),
}
"""Row of the text, and word of that row or the whole of it."""


def scaled_box(box: Box, size: tuple[int, int]) -> list[int]:
    """A box in pixels of an image of ``size`` as [x1, y1, x2, y2] in 0..999."""
    return [
        min(COORDINATE_MAX, max(0, round(value / size[index % 2] * COORDINATE_MAX))) for index, value in enumerate(box)
    ]


def in_columns(boxes: Sequence[Box]) -> list[Box]:
    """Boxes from left to right; those that start less than half a box apart are a column, read from top to bottom.

    By the left side alone a pixel would decide the order of what stands one below the other, which nobody can tell.
    """
    order: list[Box] = []
    column: list[Box] = []
    for box in sorted(boxes):
        if column and box[0] > column[0][0] + 0.5 * (column[0][2] - column[0][0]):
            order += sorted(column, key=lambda one: one[1])
            column = []
        column.append(box)
    return order + sorted(column, key=lambda one: one[1])


def ground_answer(query: str, boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """``<|ref|>query<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>``: boxes ``in_columns``, in 0..999 of the image."""
    return f"{REF_OPEN}{query}{REF_CLOSE}{DET_OPEN}{[scaled_box(box, size) for box in in_columns(boxes)]}{DET_CLOSE}"


def ground_question(dice: Dice, query: str) -> str:
    """How a box is asked for: nearly always in the words of ``Pipeline.ground``."""
    if dice.chance(0.88):
        return TASK_PROMPTS["ground"].format(query=query)
    tagged = f"{REF_OPEN}{query}{REF_CLOSE}"
    return dice.pick(
        [tagged, f"Find {tagged}.", f"Where is {tagged}?", f"Locate {query}.", f"Draw a box around {query}."]
    )


def ground_turn(dice: Dice, query: str, boxes: Sequence[Box], size: tuple[int, int]) -> Turn:
    """A question for the boxes of ``query`` with its answer; without boxes it says that the image does not show it."""
    return Turn(ground_question(dice, query), ground_answer(query, boxes, size) if boxes else ABSENT_ANSWER)


def place_question(dice: Dice, templates: Sequence[str], box: Box, size: tuple[int, int]) -> str:
    """A question about what is in ``box``: mostly between the box tokens, sometimes as plain numbers."""
    numbers = scaled_box(box, size)
    place = f"{DET_OPEN}{[numbers]}{DET_CLOSE}" if dice.chance(0.85) else str(numbers)
    return dice.pick(templates).format(place)


def field_boxes(sample: Sample) -> dict[str, Box]:
    """Fields whose place is known: the value is printed once, or in one row with what the field is called."""
    found = {name: _field_box(sample, name, value) for name, value in sample.fields.items()}
    return {name: box for name, box in found.items() if box is not None}


def _field_box(sample: Sample, name: str, value: str) -> Box | None:
    box = find_text(sample.glyphs, value)
    rows = sample.text.split("\n")
    if box is not None or sum(row.count(value) for row in rows) < 2:
        return box
    label = name.removeprefix("price of ").removesuffix(" number").lower()
    labels = _TOTALS if name == "total" else (label,)
    other = "sub" if name == "total" else "\n"  # a subtotal is not the total
    called = [any(text in row.lower() for text in labels) and other not in row.lower() for row in rows]
    fitting = [index for index, row in enumerate(rows) if value in row and called[index]]
    return find_in_row(sample.glyphs, rows, value, fitting[0]) if len(fitting) == 1 else None


def field_query(dice: Dice, name: str) -> str:
    """How a user names a field."""
    if name in _PHRASES:
        return dice.pick(_PHRASES[name])
    shown = name if dice.chance(0.7) else name.lower()
    if name.startswith("price of "):
        return dice.pick(_PRICES).format(shown[len("price of ") :])
    return dice.pick(_VALUES).format(shown)


def _text_queries(sample: Sample, dice: Dice, count: int) -> list[tuple[str, str, Box]]:
    """Up to ``count`` printed texts (words, runs of words, lines): how to ask for them, the text and its box."""
    rows = [row for row in sample.text.split("\n") if row.strip()]
    names = {
        word
        for name in (*sample.fields, *_PHRASES, *_STRANGERS, *_STRANGERS_ELSEWHERE)
        for word in name.lower().split()
    }
    found: dict[str, tuple[str, str, Box]] = {}
    for _ in range(4 * count):
        if len(found) == count or not rows:
            break
        words = dice.pick(rows).split()
        length = dice.weighted({1: 5.0, 2: 2.0, 3: 1.0, len(words): 2.5})
        start = dice.integer(0, max(0, len(words) - length))
        text = " ".join(words[start : start + length])
        box = find_text(sample.glyphs, text) if 2 <= len(text) <= 48 else None
        if box is None:
            continue
        kind = "word" if length == 1 else "text"
        plain = not names & {word.strip(":.,").lower() for word in text.split()}
        queries = [f'the {kind} "{text}"', f'the {kind} "{text}"', f'"{text}"', f"the {kind} {text}"]
        found[text] = (text if plain and dice.chance(0.6) else dice.pick(queries), text, box)
    return list(found.values())


def _place_turns(sample: Sample, dice: Dice) -> list[Turn]:
    """Boxes of whole lines and of single words by where they stand in the text."""
    rows = sample.text.split("\n")
    turns = []
    for query in dice.sample(list(_PLACES), 2):
        row, word = _PLACES[query]
        if not -len(rows) <= row < len(rows) or not rows[row].split():
            continue
        box = find_text(sample.glyphs, rows[row] if word is None else rows[row].split()[word])
        if box is not None:
            turns.append(ground_turn(dice, query, [box], sample.image.size))
    return turns


def _stranger(sample: Sample, dice: Dice, fonts: FontSet) -> Turn | None:
    """Asks for something that is not there; None where it may be there in other words."""
    known = f"{' '.join(sample.fields)} {sample.text}".lower()
    if dice.chance(0.35):
        words = lexicon(fonts.split)
        word = words.word(dice) if dice.chance(0.5) else words.title(dice, dice.integer(1, 2))
        query = dice.pick(['the word "{}"', '"{}"', "{}", "the {}", "the price of {}", "the value of {}"]).format(word)
        parts = word.lower().split()
    else:
        names = _STRANGERS if sample.kind == "receipt" else (*_STRANGERS, *_STRANGERS_ELSEWHERE)
        name = dice.pick(names)
        query = name if dice.chance(0.2) else f"the {name}"
        parts = [part for part in name.lower().split() if part not in ("of", "the", "number")]
        parts += ["@"] if "email" in parts else ["tel", "phone"] if "phone" in parts or "telephone" in parts else []
    if any(part in known for part in parts):
        return None
    return Turn(ground_question(dice, query), ABSENT_ANSWER)


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """A document, table or chart that asks where its fields and texts are.

    Args:
        kind: one of ``KINDS``.
        rng: every draw comes from it.
        fonts: what to write with.
        level: as for documents.

    Raises:
        OptionError: another kind.
    """
    if kind not in _SOURCES:
        raise OptionError(f"Unknown kind {kind!r} of a document with boxes. Known kinds: {', '.join(KINDS)}.")
    dice = Dice(rng)
    source, kinds = _SOURCES[kind]
    large = dice.chance(0.8 * level)
    if dice.chance(0.35):  # a short one: its few large texts teach what coordinates are
        level *= 0.3
    sample = source(dice.weighted(kinds), rng, fonts, level)
    if large:
        sample = enlarged(sample, dice)
    size = sample.image.size
    boxes = {} if kind in _FIELDLESS else field_boxes(sample)
    wanted = dice.integer(4, 7) + (2 if max(size) > 2 * TILE else 0)  # the picture is most of a sample's cost
    turns = [ground_turn(dice, field_query(dice, name), [boxes[name]], size)
             for name in dice.sample(list(boxes), dice.integer(max(1, wanted - 2), wanted))]  # fmt: skip
    if kind == "line_ground":
        turns += dice.sample(_place_turns(sample, dice), dice.integer(0, 2))
    for query, text, box in _text_queries(sample, dice, max(1, wanted - len(turns))):
        if dice.chance(0.4):
            turns.append(Turn(place_question(dice, _READ_AT, box, size), text))
        else:
            turns.append(ground_turn(dice, query, [box], size))
    if boxes and dice.chance(0.3):  # what a field's box holds
        name = dice.pick(list(boxes))
        turns.append(Turn(place_question(dice, _READ_AT, boxes[name], size), sample.fields[name]))
    if dice.chance(0.17):
        stranger = _stranger(sample, dice, fonts)
        turns += [stranger] if stranger is not None else []
    if len(turns) < 2 or dice.chance(0.15):
        short = [turn for turn in sample.turns if len(turn.answer) < 60]
        turns += dice.sample(short if short or turns else sample.turns, 1)
    unique = {turn.question: turn for turn in turns}
    turns = dice.shuffled(list(unique.values()))
    return Sample(sample.image, tuple(turns), sample.glyphs, sample.text, sample.fields, kind)
