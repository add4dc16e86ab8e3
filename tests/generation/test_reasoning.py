"""Reasoning and answer, apart, however the text is cut into pieces."""

import pytest

from mm.contracts import Reasoning
from mm.generation.reasoning import ReasoningSplitter, split_reasoning

CASES: list[tuple[Reasoning, str, str, str]] = [
    ("begun", "First, 2 < 3.\n\nSo yes.\n</think>\n\nYes.\n", "First, 2 < 3.\n\nSo yes.", "Yes.\n"),
    ("begun", "<think>\nHm.</think>Yes", "Hm.", "Yes"),
    ("begun", "\n\n</think>\n\nYes", "", "Yes"),
    ("begun", "cut off </thi", "cut off </thi", ""),
    ("begun", "a </b></think>c </think> d", "a </b>", "c </think> d"),
    ("may begin", "<think>\nHm.\n</think>\n\nYes", "Hm.", "Yes"),
    ("may begin", " Plain answer.", "", " Plain answer."),
    ("may begin", "<thing> is no mark", "", "<thing> is no mark"),
    ("may begin", "x <think> y", "", "x <think> y"),
    ("may begin", "", "", ""),
    ("may begin", "<thi", "", "<thi"),
]


@pytest.mark.parametrize(("reasoning", "text", "thought", "answer"), CASES)
def test_parts(reasoning: Reasoning, text: str, thought: str, answer: str) -> None:
    assert split_reasoning(text, reasoning) == (thought, answer)


@pytest.mark.parametrize(("reasoning", "text", "thought", "answer"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_pieces_join_to_the_parts(reasoning: Reasoning, text: str, thought: str, answer: str, size: int) -> None:
    splitter = ReasoningSplitter(reasoning)
    pieces = [piece for start in range(0, len(text), size) for piece in splitter.push(text[start : start + size])]
    pieces += splitter.flush()
    assert all(piece for _, piece in pieces)
    assert "".join(piece for kind, piece in pieces if kind == "reasoning") == thought
    assert "".join(piece for kind, piece in pieces if kind == "answer") == answer
    assert [kind for kind, _ in pieces] == sorted((kind for kind, _ in pieces), reverse=True)  # reasoning first


def test_what_is_certain_is_not_held_back() -> None:
    splitter = ReasoningSplitter("begun")
    assert splitter.push("Let me think <") == [("reasoning", "Let me think")]
    assert splitter.push("/b>") == [("reasoning", " </b>")]
    assert splitter.push("</think>\n") == []
    assert splitter.push("\nYes") == [("answer", "Yes")]
    assert splitter.push(" sir") == [("answer", " sir")]
