"""When an answer ends: stop strings across token borders, and answers that repeat themselves without end."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

FinishReason = Literal["stop", "stop_string", "length", "loop", "cancelled"]
"""Why an answer ended: the model's end token, a stop string of the caller, the token limit, an endless repetition, or
the caller's cancel token."""


class StopStrings:
    """Finds stop strings in text that arrives in pieces and holds back what may yet become one.

    Args:
        strings: none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Text that is safe to show now, and whether a stop string was met (it and what follows it are dropped)."""
        if not self._strings:
            return piece, False
        text = self._held + piece
        starts = [start for string in self._strings if (start := text.find(string)) >= 0]
        if starts:
            self._held = ""
            return text[: min(starts)], True
        keep = max(_overlap(text, string) for string in self._strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Text that was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``string`` (and not all of it)."""
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0


class LoopDetector:
    """Says when the tail of an answer has become periodic.

    A tail counts as a loop when the same 1 to ``max_period`` tokens stand there at least ``min_repeats`` times and fill
    at least ``min_span`` tokens: long enough that rules, dotted leaders and rows of equal cells pass. A step costs one
    vector operation over ``max_period`` numbers.
    """

    def __init__(self, *, max_period: int = 128, min_repeats: int = 6, min_span: int = 160) -> None:
        self._periods = np.arange(1, max_period + 1)
        # A run of r matches at distance p means r + p tokens of period p.
        self._needed = np.maximum(self._periods * (min_repeats - 1), min_span - self._periods)
        self._recent = np.full(max_period, -1, dtype=np.int64)  # newest first
        self._runs = np.zeros(max_period, dtype=np.int64)

    def push(self, token: int) -> bool:
        """Take the next token; True when the answer has run into a loop."""
        self._runs += 1
        self._runs *= self._recent == token
        self._recent[1:] = self._recent[:-1]
        self._recent[0] = token
        return bool((self._runs >= self._needed).any())
