"""One answer in the making: everything about it that does not depend on the batch it is computed in."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from mm.errors import OptionError
from mm.generation.detokenize import Detokenizer
from mm.generation.sampling import SamplingOptions
from mm.generation.speculation import check_speculates_on
from mm.generation.stopping import FinishReason, LoopDetector, StopStrings


class TokenConstraint(Protocol):
    """Forbids tokens, depending on what the answer holds so far. One object per answer."""

    @property
    def open(self) -> bool:
        """Whether the answer would be malformed if it ended now: the loop detector's verdict then waits."""
        ...

    def allowed(self) -> Tensor | None:
        """(V,) bool on the CPU: which tokens may come next, at least one; None allows all."""
        ...

    def advance(self, token: int) -> None:
        """Take note of the token that was chosen."""
        ...


class Answer(Protocol):
    """What the engine knows of any answer in the making, a text or a picture."""

    finish_reason: FinishReason | None

    def finish(self, reason: FinishReason) -> str:
        """End it as it is; returns text that was held back."""
        ...


class ChosenAnswer(Answer, Protocol):
    """One that is chosen id after id: a text (``Row``) or the codes of a picture (``mm.generation.image``)."""

    options: SamplingOptions
    max_new_tokens: int
    prompt_ids: Tensor  # (T,) int64, for the repetition penalty
    tokens: list[int]  # what was chosen so far

    @property
    def is_constrained(self) -> bool:
        """Whether what may be chosen next can depend on the choice before."""
        ...

    def allowed(self) -> Tensor | None:
        """(K,) bool: what may be chosen next; None allows all."""
        ...

    def uniform(self) -> float:
        """The next random number of this answer, in [0, 1)."""
        ...

    def push(self, token: int, logprob: float | None) -> str:
        """Take the next choice; returns the text that it completes and sets ``finish_reason`` at the end."""
        ...


class Row:
    """The state of one answer: options, random numbers, tokens, text, and why it ended.

    Args:
        prompt_ids: (T,) int64, for the repetition penalty.
        options: how to choose tokens.
        max_new_tokens: most tokens of this answer (``options.max_new_tokens`` may be None).
        end_ids: tokens that end the answer with the reason "stop"; the one met is counted, not shown.
        stop_ids: tokens that end it with the reason "stop_string", likewise.
        hidden_ids: tokens that are kept in ``tokens`` and left out of the text.
        decode: text of a list of token ids.
        constraint: narrows the choice of tokens; while it does, n-gram bans do not apply.

    Raises:
        OptionError: speculation of the kind for pictures, or together with a constraint.
    """

    def __init__(
        self,
        *,
        prompt_ids: Tensor,
        options: SamplingOptions,
        max_new_tokens: int,
        end_ids: frozenset[int],
        stop_ids: frozenset[int] = frozenset(),
        hidden_ids: frozenset[int],
        decode: Callable[[Sequence[int]], str],
        constraint: TokenConstraint | None = None,
    ) -> None:
        assert max_new_tokens >= 1
        check_speculates_on("texts", options.speculation)
        if options.speculation is not None and constraint is not None:
            raise OptionError(
                "a constraint (constrain_boxes) needs each token before the next is chosen, and speculation chooses "
                "several at once. Leave one of the two out."
            )
        self.prompt_ids = prompt_ids
        self.options = options
        self.max_new_tokens = max_new_tokens
        self.constraint = constraint
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self._end_ids = end_ids
        self._stop_ids = stop_ids
        self._hidden_ids = hidden_ids
        self._decode = decode
        self._detokenizer = Detokenizer(decode)
        self._stops = StopStrings(options.stop)
        self._loops = LoopDetector() if options.detect_loops else None
        self._met_stop = False  # whether a stop string was met in the text
        self._given = 0  # characters of text given out
        self._generator = torch.Generator()
        if options.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(options.seed)

    @property
    def is_constrained(self) -> bool:
        """Whether a constraint narrows the choice of tokens."""
        return self.constraint is not None

    def allowed(self) -> Tensor | None:
        """(V,) bool: tokens that the constraint allows next; None when there is no constraint or it allows all."""
        if self.constraint is None or self.finish_reason is not None:
            return None
        return self.constraint.allowed()

    def uniform(self) -> float:
        """The next random number of this row, in [0, 1)."""
        return torch.rand((), generator=self._generator).item()

    def push(self, token: int, logprob: float | None) -> str:
        """Take the next token of the answer; returns the text that it completes and sets ``finish_reason`` at the end.

        Args:
            token: its id.
            logprob: kept when the options ask for log-probabilities.
        """
        assert self.finish_reason is None
        text = self._push(token, logprob)
        self._given += len(text)
        return text

    def _push(self, token: int, logprob: float | None) -> str:
        self.tokens.append(token)
        if self.options.logprobs and logprob is not None:
            self.logprobs.append(logprob)
        if self.constraint is not None:
            self.constraint.advance(token)
        if token in self._end_ids:
            return self._finish("stop")
        if token in self._stop_ids:
            return self._finish("stop_string")
        text, stopped = "", False
        if token not in self._hidden_ids:
            text, stopped = self._stops.push(self._detokenizer.push(token))
        if stopped:
            self.finish_reason, self._met_stop = "stop_string", True
        elif self._loops is not None and self._loops.push(token) and not (self.constraint and self.constraint.open):
            text += self._finish("loop")
        elif len(self.tokens) >= self.max_new_tokens:
            text += self._finish("length")
        return text

    def finish(self, reason: FinishReason) -> str:
        """End the answer; returns the text that was held back for a character or a stop string to be completed."""
        assert self.finish_reason is None
        text = self._finish(reason)
        self._given += len(text)
        return text

    def _finish(self, reason: FinishReason) -> str:
        text, stopped = self._stops.push(self._detokenizer.flush())
        self.finish_reason, self._met_stop = ("stop_string", True) if stopped else (reason, False)
        return text if stopped else text + self._stops.flush()

    def raw_text(self) -> str:
        """Text of the whole answer, hidden tokens included and end tokens left out. Where a stop string was met in the
        text, it and what follows it are left out too; a stop token stays, so that what it closes is closed."""
        tokens = [token for token in self.tokens if token not in self._end_ids]
        if not self._met_stop:
            return self._decode(tokens)
        left, text = self._given, ""
        for hidden, run in groupby(tokens, self._hidden_ids.__contains__):
            piece = self._decode(list(run))
            if not hidden and len(piece) > left:
                return text + piece[:left]
            left -= 0 if hidden else len(piece)
            text += piece
        return text
