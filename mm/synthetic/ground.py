"""Boxes as DeepSeek-VL2 writes them, and documents whose fields are asked for by box."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mm.chat import TASK_PROMPTS
from mm.errors import OptionError
from mm.grounding import COORDINATE_MAX, DET_CLOSE, DET_OPEN, REF_CLOSE, REF_OPEN
from mm.synthetic import documents
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.sample import ABSENT_ANSWER, Sample, Turn

KINDS = {"receipt_ground": "receipt", "form_ground": "form", "screen_ground": "screen"}
"""Kinds of samples with boxes, and the documents that they are made of."""

Box = tuple[float, float, float, float]

_PHRASES = {
    "total": ("total", "the total", "the total amount"),
    "date": ("date", "the date"),
    "store": ("store", "the store name", "the name of the store"),
    "time": ("time", "the time"),
    "title": ("title", "the title"),
}


def ground_answer(query: str, boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """``<|ref|>query<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>``, boxes from left to right, 0..999 of the image."""
    width, height = size
    scaled = sorted(
        [_scaled(x0, width), _scaled(y0, height), _scaled(x1, width), _scaled(y1, height)] for x0, y0, x1, y1 in boxes
    )
    return f"{REF_OPEN}{query}{REF_CLOSE}{DET_OPEN}{scaled}{DET_CLOSE}"


def _scaled(value: float, length: int) -> int:
    return min(COORDINATE_MAX, max(0, round(value / length * COORDINATE_MAX)))


def find_text(glyphs: NDArray[np.float32], text: str) -> Box | None:
    """The box around the only place where ``text`` (spaces left out) is printed on one line, or None."""
    letters = [ord(letter) for letter in text if not letter.isspace()]
    codes, count = glyphs[:, 0].astype(np.int64), len(letters)
    if count == 0 or count > len(codes):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(codes, count)
    starts = np.flatnonzero((windows == np.array(letters)).all(axis=1))
    if len(starts) != 1:
        return None
    found = glyphs[starts[0] : starts[0] + count]
    heights = found[:, 4] - found[:, 2]
    box = (float(found[:, 1].min()), float(found[:, 2].min()), float(found[:, 3].max()), float(found[:, 4].max()))
    return box if box[3] - box[1] < 2.2 * float(np.median(heights)) else None


def field_boxes(sample: Sample) -> dict[str, Box]:
    """Fields whose value is printed exactly once, with its box."""
    found = {name: find_text(sample.glyphs, value) for name, value in sample.fields.items()}
    return {name: box for name, box in found.items() if box is not None}


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """A document that asks where its fields are.

    Args:
        kind: a key of ``KINDS``.
        rng: every draw comes from it.
        fonts: what to write with.
        level: as for documents.

    Raises:
        OptionError: another kind.
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown kind {kind!r} of a document with boxes. Known kinds: {', '.join(KINDS)}.")
    dice = Dice(rng)
    sample = documents.render(KINDS[kind], rng, fonts, level)
    boxes = field_boxes(sample)
    turns = []
    for name in dice.sample(list(boxes), dice.integer(2, 4)):
        query = dice.pick(_PHRASES.get(name, (name, name, f"the {name}")))
        answer = ground_answer(query, [boxes[name]], sample.image.size)
        turns.append(Turn(TASK_PROMPTS["ground"].format(query=query), answer))
    if dice.chance(0.15):
        known = " ".join(sample.fields).lower() + sample.text.lower()
        strangers = [
            name
            for name in ("website", "signature", "logo", "discount", "birthday", "the red circle")
            if name not in known
        ]
        turns.append(Turn(TASK_PROMPTS["ground"].format(query=dice.pick(strangers)), ABSENT_ANSWER))
    turns += dice.sample(sample.turns, 2 if len(turns) < 2 else dice.integer(0, 1))
    return Sample(sample.image, tuple(dice.shuffled(turns)), sample.glyphs, sample.text, sample.fields, kind)
