"""Speculation: several tokens of an answer from one pass through the decoder.

    drafts = drafter.draft(tokens, most)              guesses of what follows, from what is known already
    chosen = ...                                      one pass over the newest token and the drafts behind it, and
                                                      what is chosen after each of them (mm.generation.verification)
    count = accepted(drafts, chosen) + 1              drafts that were right, and the choice after the last of these

What is chosen after a draft counts only where all drafts up to it were right, so the answer does not depend on the
guesses: they only decide how many passes it takes. Two ways to guess:

* ``PromptLookup``, for text: what the answer ends with has stood in the prompt or the answer before, so what followed
  there is proposed (prompt lookup decoding). Each choice is the one of plain decoding with the same random number:
  the same tokens with and without, greedy or sampled.
* ``mm.generation.jacobi``, for pictures: guesses that are made better from pass to pass. The same codes where the most
  likely one is taken; where codes are sampled, others of the same distribution.

Letters: B rows, T drafts.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from torch import Tensor

from mm.errors import OptionError
from mm.generation.jacobi import Jacobi

Speculation = Literal["jacobi", "prompt-lookup"]

DEFAULT_WINDOW = 16
MOST_WINDOW = 256
KINDS: dict[Speculation, str] = {"jacobi": "pictures", "prompt-lookup": "texts"}

LEAST_MATCH = 3  # tokens that must have stood before: fewer are often right by chance in a vocabulary of characters
DRAFT_SHARE = 2  # a draft is at most so many times as long as what matched: where little did, little is lost
MOST_TRIED = 32  # places that are compared, the newest first


def check_speculation(speculation: object, window: object) -> None:
    """Refuse what is no way to speculate.

    Raises:
        OptionError: an unknown name, a window out of its range, or a window for nothing.
    """
    if speculation is not None and speculation not in get_args(Speculation):
        known = " or ".join(repr(name) for name in get_args(Speculation))
        raise OptionError(f"speculation is {speculation!r}; expected {known}, or None.")
    if window is None:
        return
    if isinstance(window, bool) or not isinstance(window, int) or not 2 <= window <= MOST_WINDOW:
        raise OptionError(f"speculation_window is {window!r}; expected a whole number from 2 to {MOST_WINDOW}.")
    if speculation is None:
        raise OptionError(f"speculation_window is {window}, but nothing speculates. Name speculation= too.")


def check_speculates_on(what: Literal["pictures", "texts"], speculation: Speculation | None) -> None:
    """Refuse a way to speculate that is for answers of the other kind.

    Raises:
        OptionError: it is.
    """
    if speculation is not None and KINDS[speculation] != what:
        (right,) = (name for name, kind in KINDS.items() if kind == what)
        raise OptionError(
            f"speculation {speculation!r} is for {KINDS[speculation]}; expected {right!r} for {what}, or None."
        )


def accepted(drafts: Tensor, chosen: Tensor) -> Tensor:
    """How many drafts were right, one after the other from the first on.

    Args:
        drafts: (B, T) int64.
        chosen: (B, T) int64, what was chosen in the place of each.

    Returns:
        (B,) int64, 0 to T.
    """
    return (drafts == chosen).long().cumprod(dim=1).sum(dim=1)


class Drafter(Protocol):
    """Guesses what follows in one answer.

    Attributes:
        window: most tokens that one pass goes over: the newest one and the drafts behind it.
    """

    window: int

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most ``most`` guesses of what follows ``tokens``, the answer so far. Asked again, it guesses the same."""
        ...


def new_drafter(speculation: Speculation | None, window: int | None, prompt: Tensor, across: int) -> Drafter | None:
    """What guesses for one answer; None where nothing is to.

    Args:
        speculation: how.
        window: as in the options of an answer.
        prompt: (T,) int64, its token ids.
        across: codes in a row of a picture.
    """
    if speculation is None:
        return None
    if speculation == "jacobi":
        return Jacobi(window or DEFAULT_WINDOW, across)
    return PromptLookup(prompt.tolist(), window or DEFAULT_WINDOW)


class PromptLookup:
    """Guesses what followed where the newest tokens stood before, in the prompt or in the answer.

    Args:
        prompt: its token ids.
        window: see ``Drafter``.
    """

    def __init__(self, prompt: Sequence[int], window: int) -> None:
        self.window = window
        self._num_prompt = len(prompt)
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}  # where it goes on after these LEAST_MATCH tokens
        self._extend(prompt)

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """See ``Drafter``: what followed the longest match; of several, where most follows, the newest of these."""
        self._extend(tokens[len(self._ids) - self._num_prompt :])
        best, drafts = (0, 0), list[int]()
        for place in self._places.get(tuple(self._ids[-LEAST_MATCH:]), [])[: -MOST_TRIED - 1 : -1]:
            match = self._match(place)
            found = self._ids[place : place + min(most, DRAFT_SHARE * match)]
            if (match, len(found)) > best:
                best, drafts = (match, len(found)), found
        return drafts

    def _extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._places.setdefault(tuple(self._ids[-LEAST_MATCH:]), []).append(len(self._ids))
            self._ids.append(token)

    def _match(self, place: int) -> int:
        """Tokens before a place that are those at the end, at most as many as a window."""
        length = LEAST_MATCH
        while length < min(self.window, place) and self._ids[place - length - 1] == self._ids[-length - 1]:
            length += 1
        return length
