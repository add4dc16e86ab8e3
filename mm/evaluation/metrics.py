"""Scores of text against a reference: character error rate, exact match, and 95% intervals of both.

Normalisation of a transcription (``normalize_transcription``), applied to both sides before the character error rate:

1. Unicode NFC.
2. Every run of spaces, tabs and no-break spaces is one space; rows are stripped; empty rows go.
3. Decoration goes: a row of nothing but ``- = * _ . ~ # +`` and spaces, and inside a row every run of three or more of
   one such character (dotted leaders, rules to write on). A run of leaders is a gap: it becomes one space.
4. Line breaks stay, one ``\\n`` between two rows: a reader that loses the rows of a receipt is charged for it.
5. Case, punctuation and accents stay.

The character error rate is Levenshtein distance over characters (line breaks included), summed over all items and
divided by the summed length of the references (the micro average); it exceeds 1 when a reader writes much more than
there is.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

AnswerKind = Literal["text", "amount"]

_DECORATION_ROW = re.compile(r"[-=*_.~#+ ]*")
_LEADERS = re.compile(r"([-=*_.~#+])(?: ?\1){2,}")
_BLANKS = re.compile(r"[^\S\n]+")
_CURRENCY = re.compile(r"(?i)\b(?:usd|eur|gbp|chf|cad|aud)\b|[$€£]")
_Z95 = 1.959963984540054  # the 97.5% point of the standard normal distribution


@dataclass(frozen=True)
class Interval:
    """A score with its 95% interval. ``count`` is the number of items behind it."""

    score: float
    low: float
    high: float
    count: int


def normalize_transcription(text: str) -> str:
    """The text as it is compared, by the rules at the top of this module."""
    rows = []
    for row in unicodedata.normalize("NFC", text).splitlines():
        row = _BLANKS.sub(" ", row).strip()
        if _DECORATION_ROW.fullmatch(row):
            continue
        rows.append(_BLANKS.sub(" ", _LEADERS.sub(" ", row)).strip())
    return "\n".join(rows)


def normalize_answer(text: str, kind: AnswerKind = "text") -> str:
    """A short answer as it is compared: NFC, one space for white space, no case, no quotes, no full stop or colon last.

    ``kind="amount"`` also drops a currency sign or code, so that ``$12.40``, ``12.40`` and ``EUR 12.40`` are the same
    amount; digits, points and commas must agree.
    """
    text = unicodedata.normalize("NFC", text)
    if kind == "amount":
        text = _CURRENCY.sub(" ", text)
    text = " ".join(text.split())
    while True:
        shorter = text.strip().removesuffix(".").removesuffix(":").strip("\"'`“”‘’").strip()
        if shorter == text:
            return text.casefold()
        text = shorter


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions of one character that turn ``a`` into ``b``.

    Bit-parallel (Myers 1999 in Hyyro's form): a whole column of the table is two integers of ``len(a)`` bits, so that
    two texts of 400 characters take well under a millisecond.
    """
    if not a or not b:
        return len(a) + len(b)
    places: dict[str, int] = {}
    for i, char in enumerate(a):
        places[char] = places.get(char, 0) | 1 << i
    full = (1 << len(a)) - 1
    last = 1 << (len(a) - 1)
    plus, minus, distance = full, 0, len(a)  # vertical differences of +1 and -1 in the current column
    for char in b:
        match = places.get(char, 0)
        diagonal = (((match & plus) + plus) ^ plus) | match | minus
        rise = minus | (~(diagonal | plus) & full)
        fall = plus & diagonal
        if rise & last:
            distance += 1
        elif fall & last:
            distance -= 1
        rise = ((rise << 1) | 1) & full
        plus = ((fall << 1) & full) | (~(diagonal | rise) & full)
        minus = rise & diagonal
    return distance


def transcription_errors(output: str, reference: str) -> tuple[int, int]:
    """Edits needed and characters of the reference, both after normalisation."""
    wanted = normalize_transcription(reference)
    return edit_distance(normalize_transcription(output), wanted), len(wanted)


def cer(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Character error rate of all outputs together (micro average).

    Raises:
        ValueError: different numbers of outputs and references, or no character to compare with.
    """
    if len(outputs) != len(references):
        raise ValueError(f"{len(outputs)} outputs cannot be compared with {len(references)} references")
    pairs = [transcription_errors(out, ref) for out, ref in zip(outputs, references, strict=True)]
    total = sum(length for _, length in pairs)
    if total == 0:
        raise ValueError("the references hold no character, so an error rate has no meaning")
    return sum(edits for edits, _ in pairs) / total


def exact(output: str, reference: str, kind: AnswerKind = "text") -> bool:
    """Whether a short answer is right, see ``normalize_answer``."""
    return normalize_answer(output, kind) == normalize_answer(reference, kind)


def wilson(successes: int, count: int) -> Interval:
    """Share of successes with its 95% Wilson score interval (Wilson 1927), which stays within 0..1.

    Raises:
        ValueError: ``count`` below 1, or successes outside 0..count.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} successes out of {count} is not a share")
    share = successes / count
    z2 = _Z95 * _Z95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * float(np.sqrt(share * (1 - share) / count + z2 / (4 * count * count)))
    # At both ends one bound is exactly the share; the formula gives it only up to rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Interval(share, low, high, count)


def bootstrap_cer(errors: Sequence[tuple[int, int]], *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Character error rate of (edits, characters) pairs with its 95% percentile bootstrap interval over items.

    Items, not characters, are drawn again, because the errors of one image are not independent.

    Raises:
        ValueError: no pairs, or no characters in them.
    """
    table = np.asarray(errors, dtype=np.float64).reshape(-1, 2)  # (items, 2)
    if table.shape[0] == 0 or table[:, 1].sum() == 0:
        raise ValueError("there is no character to compare with, so an error rate has no meaning")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, table.shape[0], size=(resamples, table.shape[0]))  # (resamples, items)
    sums = table[picks].sum(axis=1)  # (resamples, 2)
    rates = sums[:, 0] / np.maximum(sums[:, 1], 1.0)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(float(table[:, 0].sum() / table[:, 1].sum()), float(low), float(high), table.shape[0])
