"""Decoding in which every ``<|det|>`` closes with whole boxes.

Once a row has produced ``<|det|>``, only tokens are allowed that keep its text a beginning of
``[[x1, y1, x2, y2], ...]`` with integers 0..999, x1 <= x2 and y1 <= y2, until ``<|/det|>``; and only as long as the
tokens that remain suffice to close the list. A token may hold several characters ("12", "]]", ", "): the automaton
below reads characters, so any vocabulary works that can spell digits, brackets and the comma one by one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mm.errors import ConfigError, OptionError

DET_OPEN, DET_CLOSE = "<|det|>", "<|/det|>"
_MAX = 999
_DIGITS = len(str(_MAX))
_ALPHABET = frozenset("[], 0123456789")
_SPELLED = "[],0123456789"  # a space is never needed
_AMPLE = 64  # tokens; more than the longest way to close a list from anywhere
_REMEMBERED = 1024  # states whose allowed tokens are kept


class Vocabulary(Protocol):
    """What the constraint needs of a tokenizer."""

    vocab_size: int
    special_ids: frozenset[int]

    def token_id(self, text: str) -> int:
        """The id of one token by its text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a sequence of ids."""
        ...


class State(NamedTuple):
    """Where the text of a list stands.

    ``phase`` is what was read last: "start" nothing, "list" the first ``[``, "box" the ``[`` or the ``,`` before a
    number, "number" a digit, "closed" the ``]`` of a box, "comma" the ``,`` after it, "end" the last ``]``.
    """

    phase: str
    numbers: tuple[int, ...]  # whole numbers of the box being read
    digits: str  # of the number being read
    boxes: int  # whole boxes so far
    spaced: bool  # whether the space after a comma was read


START = State("start", (), "", 0, False)


def advance(state: State, character: str, max_boxes: int) -> State | None:
    """The state after one more character, or None when no well-formed list continues so."""
    phase, numbers, digits, boxes, spaced = state
    if phase == "start":
        return State("list", (), "", 0, False) if character == "[" else None
    if phase == "list":
        return State("box", (), "", boxes, True) if character == "[" else None
    if phase == "comma":
        if character == " " and not spaced:
            return state._replace(spaced=True)
        return State("box", (), "", boxes, True) if character == "[" else None
    if phase == "closed":
        if character == "," and boxes < max_boxes:
            return State("comma", (), "", boxes, False)
        return State("end", (), "", boxes, False) if character == "]" else None
    if phase == "end":
        return None
    if character in "0123456789":
        digits += character
        return State("number", numbers, digits, boxes, True) if _completion(numbers, digits) is not None else None
    if phase == "box":
        return state._replace(spaced=True) if character == " " and numbers and not spaced else None
    if _completion(numbers, digits) != 0:
        return None
    if character == "," and len(numbers) < 3:
        return State("box", (*numbers, int(digits)), "", boxes, False)
    if character == "]" and len(numbers) == 3:
        return State("closed", (), "", boxes + 1, False)
    return None


def _completion(numbers: tuple[int, ...], digits: str) -> int | None:
    """How many more digits the number needs at least to reach its lower bound; None when it cannot."""
    low = numbers[len(numbers) - 2] if len(numbers) >= 2 else 0  # x2 >= x1, y2 >= y1
    if digits.startswith("0"):
        return 0 if digits == "0" and low == 0 else None
    for more in range(_DIGITS - len(digits) + 1):
        if digits + "9" * more and int(digits + "9" * more) >= low:
            return more
    return None


def characters_to_close(state: State) -> int:
    """Length of the shortest text from ``state`` to the end of the list."""
    phase, numbers, digits, _, _ = state
    if phase == "end":
        return 0
    if phase == "closed":
        return 1
    opening = {"start": 2, "list": 1, "comma": 1}.get(phase, 0)
    total = opening + 2  # "]]"
    known = list(numbers)
    while len(known) < 4:
        more = _completion(tuple(known), digits)
        assert more is not None  # advance() keeps every state completable
        total += more + (len(known) < 3)  # a comma after the first three
        low = known[len(known) - 2] if len(known) >= 2 else 0
        # The smallest number of that many digits that will do: it asks least of the numbers that follow.
        least = int(digits + "0" * more) if digits + "0" * more else 0
        known.append(max(least, low) if more or digits else low)
        digits = ""
    return total


class _Node:
    """A place in the tree of the spellings that tokens have."""

    __slots__ = ("children", "ids")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.ids: list[int] = []


class BoxGrammar:
    """Which tokens of a vocabulary may follow in a list of boxes. Made once per model, shared by all answers.

    Args:
        vocabulary: the tokenizer; every token is decoded once (a quarter of a second for 128,000).
        vocab_size: width of the model's logits; ids that the tokenizer does not have are never allowed in a list.
        max_boxes: most boxes in one list, so that a list ends; at least 1.

    Raises:
        OptionError: ``max_boxes`` below 1.
        ConfigError: the vocabulary cannot spell a list one character at a time, or has no ``<|det|>``.
    """

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, *, max_boxes: int = 32) -> None:
        if max_boxes < 1:
            raise OptionError(f"max_boxes is {max_boxes}; expected 1 or more.")
        self.vocab_size = vocab_size
        self.max_boxes = max_boxes
        self.open_id = vocabulary.token_id(DET_OPEN)
        self.close_id = vocabulary.token_id(DET_CLOSE)
        self._texts = _spellings(vocabulary, vocab_size)
        self._root = _Node()
        for token, text in self._texts.items():
            node = self._root
            for character in text:
                node = node.children.setdefault(character, _Node())
            node.ids.append(token)
        missing = [c for c in _SPELLED if c not in self._root.children or not self._root.children[c].ids]
        if missing:
            raise ConfigError(
                f"the tokenizer has no token of its own for {', '.join(map(repr, missing))}, so boxes cannot be "
                "decoded under a constraint. Run without it."
            )
        self._remembered: dict[tuple[State, int], tuple[int, ...]] = {}

    def read(self, state: State, token: int) -> State | None:
        """The state after ``token``; None when it does not belong there."""
        reached: State | None = state
        for character in self._texts.get(token, "?"):
            reached = None if reached is None else advance(reached, character, self.max_boxes)
        return reached

    def next_tokens(self, state: State, remaining: int) -> tuple[int, ...]:
        """Tokens that keep the list well formed and leave it closable; never empty.

        Args:
            state: where the list stands.
            remaining: tokens that the answer may still have, the next one and ``<|/det|>`` included. When they do not
                suffice, as if they did.
        """
        key = (state, min(remaining, _AMPLE))
        ids = self._remembered.get(key)
        if ids is None:
            # At worst one token a character, and <|/det|>.
            found = list(self._walk(state, key[1] - 2)) or list(self._walk(state, _AMPLE))
            if state.phase == "end":
                found.append(self.close_id)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = ids = tuple(found)
        return ids

    def _walk(self, state: State, budget: int) -> Iterator[int]:
        """Tokens after which the list is well formed so far and at most ``budget`` characters from its end."""
        stack: list[tuple[_Node, State]] = [(self._root, state)]
        while stack:
            node, reached = stack.pop()
            if node.ids and characters_to_close(reached) <= budget:
                yield from node.ids
            for character, child in node.children.items():
                following = advance(reached, character, self.max_boxes)
                if following is not None:
                    stack.append((child, following))


class BoxConstraint:
    """A ``TokenConstraint`` for one answer; see the module.

    Args:
        grammar: of the model's vocabulary.
        max_new_tokens: most tokens of the answer. No list is begun that could not be closed within them.
    """

    def __init__(self, grammar: BoxGrammar, max_new_tokens: int) -> None:
        self._grammar = grammar
        self._remaining = max_new_tokens
        self._state: State | None = None

    @property
    def open(self) -> bool:
        """Whether a list is being written, so that the answer would be malformed if it ended now."""
        return self._state is not None

    def allowed(self) -> Tensor | None:
        """(V,) bool on the CPU: which tokens may come next; None allows all."""
        grammar = self._grammar
        if self._state is not None:
            mask = torch.zeros(grammar.vocab_size, dtype=torch.bool)
            mask[list(grammar.next_tokens(self._state, self._remaining))] = True
            return mask
        if self._remaining >= 2 + characters_to_close(START):  # <|det|>, the list, <|/det|>
            return None
        mask = torch.ones(grammar.vocab_size, dtype=torch.bool)
        mask[grammar.open_id] = False
        return mask

    def advance(self, token: int) -> None:
        """Take note of the token that was chosen. One that was not allowed ends the list."""
        self._remaining -= 1
        if token == self._grammar.open_id:
            self._state = START
        elif self._state is not None:
            self._state = self._grammar.read(self._state, token)


def _spellings(vocabulary: Vocabulary, vocab_size: int) -> dict[int, str]:
    """{id: text} of every token made of brackets, commas, spaces and digits only.

    Each token is decoded behind another one, because some decoders strip a space at the very beginning.
    """
    plain = [token for token in range(min(vocabulary.vocab_size, vocab_size)) if token not in vocabulary.special_ids]
    anchor = next((token for token in plain if vocabulary.decode([token]) == "0"), None)
    if anchor is None:
        raise ConfigError("the tokenizer has no token for '0', so boxes cannot be decoded under a constraint.")
    texts = {}
    for token in plain:
        text = vocabulary.decode([anchor, token]).removeprefix("0")
        if text and _ALPHABET.issuperset(text):
            texts[token] = text
    return texts
