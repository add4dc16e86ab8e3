"""What a model thought before it answered, apart from the answer, while the text arrives."""

from typing import Literal

from mm.contracts import Reasoning
from mm.text_templates import END_THINK, THINK

Kind = Literal["reasoning", "answer"]


class ReasoningSplitter:
    """Splits a text at ``<think>`` and ``</think>``; white space around the marks belongs to neither part.

    Text is given out as soon as it is certain which part it is of: what may be the beginning of a mark is held back,
    and white space of the reasoning until something follows it.

    Args:
        reasoning: whether the prompt has begun the reasoning, or the text may begin with ``<think>``.
    """

    def __init__(self, reasoning: Reasoning) -> None:
        self._part: Literal["start", Kind] = "start"
        self._first: Kind = "reasoning" if reasoning == "begun" else "answer"  # where the text begins with no mark
        self._held = ""
        self._trim = reasoning == "begun"  # whether white space that comes next is dropped

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """More text; the pieces that it completes, none of them empty."""
        self._held += text
        if self._part == "start":
            beginning = self._held.lstrip()
            if beginning.startswith(THINK):
                self._part, self._held, self._trim = "reasoning", beginning.removeprefix(THINK), True
            elif THINK.startswith(beginning):
                return []
            else:
                self._part = self._first
        pieces: list[tuple[Kind, str]] = []
        if self._part == "reasoning":
            thought, mark, rest = self._held.partition(END_THINK)
            sure = (thought if mark else self._held[: len(self._held) - _overlap(self._held)]).rstrip()
            pieces += self._given("reasoning", sure)
            self._held = self._held.removeprefix(sure)
            if mark:
                self._part, self._held, self._trim = "answer", rest, True
        if self._part == "answer":
            pieces += self._given("answer", self._held)
            self._held = ""
        return pieces

    def flush(self) -> list[tuple[Kind, str]]:
        """What was held back, once the text has ended."""
        kind = self._first if self._part == "start" else self._part
        held, self._held = self._held, ""
        return self._given(kind, held.rstrip() if kind == "reasoning" else held)

    def _given(self, kind: Kind, text: str) -> list[tuple[Kind, str]]:
        text = text.lstrip() if self._trim else text
        self._trim = self._trim and not text
        return [(kind, text)] if text else []


def split_reasoning(text: str, reasoning: Reasoning) -> tuple[str, str]:
    """The reasoning and the answer in a whole text."""
    splitter = ReasoningSplitter(reasoning)
    pieces = [*splitter.push(text), *splitter.flush()]
    thought, answer = ("".join(text for kind, text in pieces if kind == part) for part in ("reasoning", "answer"))
    return thought, answer


def _overlap(text: str) -> int:
    """How many characters at the end may be the beginning of ``</think>``."""
    return next((size for size in range(len(END_THINK) - 1, 0, -1) if text.endswith(END_THINK[:size])), 0)
