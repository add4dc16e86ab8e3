"""How an answer is compared with the truth: a small table of scorers, by name.

A renderer gives each of its questions a scorer by name, ``Question(skill, prompt, answer, scorer="set")``. A scorer
returns a ``Mark``: points got and points there were. ``SCORERS[name].measure`` says what many marks become:

* ``share``: one point or none a question; the row is the share of right answers, with a Wilson interval.
* ``parts``: partial credit (right cells of a table); the row is all points over all there were, bootstrap over items.
* ``errors``: edits over characters; the row is an error rate, bootstrap over items.

============== ======= ============================================================================================
scorer         measure right when
============== ======= ============================================================================================
text           share   the answer, or one of ``accept``, is given (case, quotes, a last full stop do not count)
amount         share   the same amount; a currency sign or code does not count
number         share   the only number of the reply is at most ``tolerance`` (in its own units) off
set            share   the same labels, split at commas, semicolons or lines, in any order
conclusion     share   the conclusion of a reply of several lines: of "Highest: Milk (30)" it is "Milk", of "Difference:
                       30 - 12 = 18" it is "18". ``answer`` is the bare label or the bare number; with ``tolerance``
                       above 0 numbers are compared
absent         share   the reply says, in usual words, that the picture does not show it; ``answer`` is one way
caption        share   counts, sizes, colours, shapes, relation, place and background are all those of ``answer``
boxes          share   ``answer`` written as ``<|ref|>..<|/ref|><|det|>[[..]]<|/det|>``: as many boxes, each with an
                       intersection over union of at least 0.5 with its own one of the answer
table          parts   cells of a Markdown table beside the first column; rows are found by their first cell. With
                       ``tolerance`` above 0 cells are compared as numbers
transcription  errors  character error rate, see ``mm.evaluation.metrics``
============== ======= ============================================================================================

A renderer is ``render(index, fonts, *, seed=0) -> Document``; its line in ``mm.evaluation.tasks`` makes it a task. A
document whose ``text`` is empty is not asked for its transcription. Each skill of a document becomes one row of the
report, named by task and skill, over the first ``limit`` questions of that skill; skills that not every document asks
need more documents, see ``Task.documents``. A document may carry a question with ``skill="cannot be answered"`` and
``scorer="absent"``: it is a row of its task, and the task "unanswerable" asks it too.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mm.evaluation.captions import same_caption
from mm.evaluation.held_out_canvas import Question
from mm.evaluation.metrics import exact, normalize_answer, transcription_errors
from mm.grounding import COORDINATE_MAX, Box, parse_boxes

Measure = Literal["share", "parts", "errors"]

SHORT_ANSWER = 64  # tokens; the vocabulary of the bundled model is bytes
LONG_ANSWER = 384  # lists, captions, answers that go through the numbers first
TRANSCRIPTION = 1024

_NUMBER = re.compile(r"[-+−]?\d(?:[\d.,'’\u00a0\u202f ]*\d)?")
_MULTIPLES = {"k": 1e3, "m": 1e6, "mio": 1e6, "bn": 1e9}
_CONCLUSION = re.compile(r"(?i)^(?:highest|lowest|higher|lower|difference|answer|total)\s*:\s*")
_LAST_BRACKET = re.compile(r"\s*\([^()]*\d[^()]*\)$")
_RULE_CELL = re.compile(r":?-+:?")
_ABSENT = re.compile(
    r"""
    \b(?:(?:do|does|did|is|are|was|were|could)(?:n['’]?t|\ not)|can(?:['’]?t|\ ?not))\b.{0,40}?
        \b(?:show|shown|contain|include|included|display|displayed|say|tell|told|see|seen|read|find|found|answer|answered|
            present|visible|given|available|printed|mentioned|stated|specified|listed|provided|written|in|on|part|
            determine|determined|appear|have|possible|there|known|exist)\b
    | \b(?:not|never)\ (?:shown|present|visible|given|available|printed|mentioned|stated|specified|listed|provided|
            written|found|in|on|there|possible|known|seen|displayed|included|depicted|applicable|answerable)\b
    | \b(?:there|it)\ (?:is|are|has|have|shows)\ (?:no|none|nothing)\b
    | \b(?:there['’]s)\ (?:no|none|nothing)\b
    | \b(?:no\ such|no\ information|unknown|unanswerable|no\ answer|nothing\ (?:like|of)\ (?:that|the))\b
    | \b(?:shows|has|contains|see|find)\ no\b
    | \b(?:unable|impossible)\ to\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Mark:
    """Points of one answer, out of how many. For a transcription: edits and characters of the reference."""

    points: int
    of: int


@dataclass(frozen=True)
class Scorer:
    """How answers of a kind are compared (see the top of this module), and how many tokens they may take."""

    score: Callable[[str, Question], Mark]
    measure: Measure
    tokens: int


def parse_number(text: str) -> float | None:
    """The only number of a text, or None where there is none or more than one.

    Signs, percent, currencies and words around it are ignored; thousands may be set apart by commas, points, spaces or
    apostrophes: a separator that stands before exactly three digits and is not the only point is one. "12k" is 12,000.
    """
    found = _NUMBER.findall(unicodedata.normalize("NFC", text))
    if len(found) != 1:
        return None
    digits = re.sub(r"['’\u00a0\u202f ]", "", found[0]).replace("−", "-")
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0:
        mark, other = digits[last], "," if digits[last] == "." else "."
        thousands = digits.count(mark) > 1 or (mark == "," and other not in digits and len(digits) - last == 4)
        digits = digits.replace(other, "")
        digits = digits.replace(mark, "") if thousands else digits.replace(mark, ".")
    behind = re.match(r"\s?([A-Za-z]+)\b", text.partition(found[0])[2])
    return float(digits) * _MULTIPLES.get(behind[1].lower() if behind else "", 1.0)


def says_absent(text: str) -> bool:
    """Whether a reply says that the picture does not show what was asked for, in a sentence of at most 200 letters."""
    text = " ".join(text.split())
    return len(text) <= 200 and _ABSENT.search(text) is not None


def conclusion(text: str) -> str:
    """The last line of a reply without what announces it, and of a computation its result."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = _CONCLUSION.sub("", lines[-1].strip()) if lines else ""
    return last.rsplit(" = ", 1)[-1]


def table_cells(text: str) -> list[list[str]]:
    """Rows of a Markdown table, header first; rules and lines that are not of the table are left out."""
    rows = []
    for line in text.splitlines():
        line = line.strip()
        if "|" not in line:
            continue
        line = line.removeprefix("|").replace("\\|", "\0")
        line = line.removesuffix("|")
        cells = [cell.replace("\0", "|").strip() for cell in line.split("|")]
        if not all(_RULE_CELL.fullmatch(cell) for cell in cells):
            rows.append(cells)
    return rows


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _right(correct: bool) -> Mark:
    return Mark(int(correct), 1)


def _text(given: str, question: Question) -> Mark:
    return _right(any(exact(given, wanted) for wanted in (question.answer, *question.accept)))


def _amount(given: str, question: Question) -> Mark:
    return _right(any(exact(given, wanted, "amount") for wanted in (question.answer, *question.accept)))


def _near(given: str, wanted: str, tolerance: float) -> bool:
    number, truth = parse_number(given), parse_number(wanted)
    # A hair more than the tolerance: a share of an axis is not exact in binary.
    return number is not None and truth is not None and abs(number - truth) <= tolerance * (1 + 1e-9) + 1e-12


def _number(given: str, question: Question) -> Mark:
    return _right(any(_near(given, wanted, question.tolerance) for wanted in (question.answer, *question.accept)))


def _labels(text: str, separators: str) -> list[str]:
    return sorted(filter(None, (normalize_answer(part) for part in re.split(separators, text))))


def _set(given: str, question: Question) -> Mark:
    return _right(
        any(
            _labels(given, separators) == _labels(wanted, separators)
            for wanted in (question.answer, *question.accept)
            for separators in (r"[,;\n]", r"[,;\n]| and ")
        )
    )


def _conclusion(given: str, question: Question) -> Mark:
    end = conclusion(given)
    ends = {end, _LAST_BRACKET.sub("", end)}
    wanted = (question.answer, *question.accept)
    if question.tolerance > 0:
        return _right(any(_near(one, other, question.tolerance) for one in ends for other in wanted))
    return _right(any(exact(one, other, "amount") for one in ends for other in wanted))


def _absent(given: str, question: Question) -> Mark:
    return _right(exact(given, question.answer) or says_absent(given))


def _caption(given: str, question: Question) -> Mark:
    return _right(same_caption(given, question.answer))


def _boxes(given: str, question: Question) -> Mark:
    # Stretching both boxes alike leaves the overlap as it is, so the size of the picture does not matter.
    size = (COORDINATE_MAX, COORDINATE_MAX)
    found, wanted = parse_boxes(given, [size]), parse_boxes(question.answer, [size])
    free = [box.xyxy for box in found if box.xyxy is not None]
    if len(free) != len(found) or len(free) != len(wanted):
        return _right(False)
    return _right(_matched(wanted, free))


def _matched(wanted: Sequence[Box], free: Sequence[Sequence[float]]) -> bool:
    """Whether each wanted box has a found one of its own, the best one first."""
    rest = list(free)
    for box in wanted:
        if box.xyxy is None:
            raise ValueError(f"the answer of a question holds a box that is not valid: {box.text}")
        shares = [overlap(box.xyxy, other) for other in rest]
        if max(shares) < 0.5:
            return False
        del rest[shares.index(max(shares))]
    return True


def _table(given: str, question: Question) -> Mark:
    wanted, found = table_cells(question.answer)[1:], table_cells(given)[1:]
    names = [normalize_answer(row[0]) for row in found]
    width = max((len(row) for row in wanted), default=1) - 1
    points = 0
    for place, row in enumerate(wanted):
        name = normalize_answer(row[0])
        if names.count(name) == 1:
            place = names.index(name)
        elif len(found) != len(wanted):
            continue
        other = found[place]
        for cell, truth in zip(other[1:], row[1:], strict=False):
            same = _near(cell, truth, question.tolerance) if question.tolerance > 0 else exact(cell, truth, "amount")
            points += int(same)
    return Mark(points, max(len(wanted), len(found)) * width)


def _transcription(given: str, question: Question) -> Mark:
    return Mark(*transcription_errors(given, question.answer))


SCORERS = {
    "text": Scorer(_text, "share", SHORT_ANSWER),
    "amount": Scorer(_amount, "share", SHORT_ANSWER),
    "number": Scorer(_number, "share", SHORT_ANSWER),
    "set": Scorer(_set, "share", LONG_ANSWER),
    "conclusion": Scorer(_conclusion, "share", LONG_ANSWER),
    "absent": Scorer(_absent, "share", SHORT_ANSWER),
    "caption": Scorer(_caption, "share", LONG_ANSWER),
    "boxes": Scorer(_boxes, "share", LONG_ANSWER),
    "table": Scorer(_table, "parts", TRANSCRIPTION),
    "transcription": Scorer(_transcription, "errors", TRANSCRIPTION),
}
"""Scorers by name, see the top of this module."""
