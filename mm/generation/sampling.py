"""How the next token is chosen: the options of a row, and the tensor code that applies them to a batch of rows.

Letters: B rows, V vocabulary, N tokens of answer that a row may have at most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mm.errors import OptionError
from mm.generation.speculation import Speculation, check_speculation

LONG_ROW, PIECES = 32768, 64  # see `largest`


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """What one answer may look like. Immutable; one per row, so rows of a batch may differ.

    Greedy decoding is the default. Asking for a ``temperature`` above 0, a ``top_p`` or a ``top_k`` means sampling;
    ``do_sample=True`` alone samples at temperature 1; temperature 0 is greedy; ``do_sample=False`` together with an
    option that only sampling uses is a contradiction and an error.

    Args:
        max_new_tokens: most tokens of answer, end token included; None leaves it to the caller.
        do_sample: True, False, or None to decide by the other options as above.
        temperature: divides the logits, 0 or more; None means 1.
        top_p: keep the smallest set of most likely tokens whose probability reaches it, in (0, 1]; None keeps all.
        top_k: keep this many most likely tokens; None or 0 keeps all.
        repetition_penalty: above 0. Logits of tokens that stand in the prompt or the answer are divided by it when
            positive and multiplied when negative (CTRL, arXiv 1909.05858, section 4.1; transformers' rule).
        no_repeat_ngram_size: no sequence of this many tokens occurs twice in the answer (the prompt does not count,
            so that an answer may quote it); 0 is off.
        seed: start of this row's own random numbers, 0 to 2**63 - 1; None takes a fresh one.
        stop: strings that end the answer; they are not part of it.
        logprobs: also return the log-probability of every token of the answer.
        detect_loops: end an answer that repeats itself without end, with the finish reason "loop".
        speculation: choose several tokens in one pass over the weights (``mm.generation.speculation``): "prompt-lookup"
            for texts, "jacobi" for pictures; None chooses one after the other. Not together with repetition_penalty or
            no_repeat_ngram_size, which need each token before the next.
        speculation_window: most tokens of such a pass, 2 to 256; None is 16.

    Raises:
        OptionError: a value out of its range, or a contradiction.
    """

    max_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    detect_loops: bool = True
    speculation: Speculation | None = None
    speculation_window: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            _check_integer("max_new_tokens", self.max_new_tokens, 1)
        if self.temperature is not None:
            _check_number("temperature", self.temperature, lambda value: value >= 0, "a number of 0 or more")
        if self.top_p is not None:
            _check_number("top_p", self.top_p, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
        if self.top_k is not None:
            _check_integer("top_k", self.top_k, 0)
        _check_number("repetition_penalty", self.repetition_penalty, lambda value: value > 0, "a number above 0")
        _check_integer("no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0, 2**63 - 1)
        for name in ("do_sample", "logprobs", "detect_loops"):
            value = getattr(self, name)
            if not (isinstance(value, bool) or (value is None and name == "do_sample")):
                raise OptionError(f"{name} is {value!r}; expected True or False.")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise OptionError(f"stop is {self.stop!r}; expected a tuple of strings that are not empty.")
        check_speculation(self.speculation, self.speculation_window)
        if self.speculation is not None and (self.repetition_penalty != 1 or self.no_repeat_ngram_size):
            name = "no_repeat_ngram_size" if self.no_repeat_ngram_size else "repetition_penalty"
            raise OptionError(
                f"{name}={getattr(self, name)} needs each token before the next is chosen, and speculation chooses "
                "several at once. Leave one of the two out."
            )
        asked = [name for name in ("temperature", "top_p", "top_k") if getattr(self, name)]
        if self.do_sample is False and asked:
            raise OptionError(
                f"do_sample=False asks for the most likely token, but {asked[0]}={getattr(self, asked[0])} is used by "
                "sampling only. Leave one of the two out."
            )

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn (True) or the most likely one is taken (False)."""
        if self.temperature == 0:
            return False
        return bool(self.do_sample or self.temperature or self.top_p or self.top_k)


def _check_number(name: str, value: object, valid: Callable[[float], bool], expected: str) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and valid(value):
        return
    raise OptionError(f"{name} is {value!r}; expected {expected}.")


def _check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise OptionError(f"{name} is {value!r}; expected a whole number {bound}.")


class BatchSampler:
    """The sampling state of ``num_rows`` rows as tensors, so that one step serves rows with different options.

    Nothing in a call waits for the device, and no shape depends on data. A row's result depends on its own logits,
    options and uniforms only.

    Args:
        num_rows: B.
        vocab_size: V.
        max_new_tokens: N, the longest answer of any row.
        device: where the logits are.
    """

    def __init__(self, num_rows: int, vocab_size: int, max_new_tokens: int, device: torch.device) -> None:
        self.device = device
        self.num_rows = num_rows
        self._options = [SamplingOptions()] * num_rows
        self._written: list[SamplingOptions | None] = [None] * num_rows  # what the tensors below hold
        self._temperature = torch.ones(num_rows, 1, device=device)
        self._top_p = torch.ones(num_rows, 1, device=device)
        self._top_k = torch.full((num_rows, 1), vocab_size, device=device)
        self._greedy = torch.ones(num_rows, dtype=torch.bool, device=device)
        self._penalty = torch.ones(num_rows, 1, device=device)
        self._seen = torch.zeros(num_rows, vocab_size, dtype=torch.bool, device=device)
        self._ngram_size = torch.zeros(num_rows, 1, dtype=torch.int64, device=device)
        self._answer = torch.zeros(num_rows, max_new_tokens, dtype=torch.int64, device=device)
        self._count = torch.zeros(num_rows, 1, dtype=torch.int64, device=device)
        self._refresh()

    def place(self, row: int, options: SamplingOptions, prompt_ids: Tensor, max_new_tokens: int = 0) -> None:
        """Start a new answer in ``row``.

        Args:
            row: which.
            options: of the answer.
            prompt_ids: (T,) int64, count for the repetition penalty.
            max_new_tokens: makes room for an answer longer than any before.
        """
        self._options[row] = options
        if options.no_repeat_ngram_size and max_new_tokens > self._answer.shape[1]:
            self._answer = F.pad(self._answer, (0, max_new_tokens - self._answer.shape[1]))
        if options != self._written[row]:  # seven launches
            self._write(row, options)
        self._count[row] = 0
        if options.repetition_penalty != 1.0:
            self._seen[row] = False
            self._seen[row, prompt_ids.to(self.device)] = True
        self._refresh()

    def _write(self, row: int, options: SamplingOptions) -> None:
        vocab_size = self._seen.shape[1]
        self._temperature[row] = 1.0 if not options.samples or options.temperature is None else options.temperature
        self._top_p[row] = 1.0 if options.top_p is None else options.top_p
        self._top_k[row] = min(options.top_k, vocab_size) if options.top_k else vocab_size
        self._greedy[row] = not options.samples
        self._penalty[row] = options.repetition_penalty
        self._ngram_size[row] = options.no_repeat_ngram_size
        self._written[row] = options

    def swap(self, first: int, second: int) -> None:
        """Exchange the answers of two rows."""
        if first == second:
            return
        states: list[Tensor] = []  # that are read of one of the two, and differ
        either = self._options[first], self._options[second]
        if self._written[first] is None or self._written[first] != self._written[second]:
            states += self._temperature, self._top_p, self._top_k, self._greedy, self._penalty, self._ngram_size
        if any(options.repetition_penalty != 1.0 for options in either):
            states.append(self._seen)
        if any(options.no_repeat_ngram_size for options in either):
            states += self._answer, self._count
        for state in states:
            kept = state[first].clone()
            state[first] = state[second]
            state[second] = kept
        self._options[first], self._options[second] = self._options[second], self._options[first]
        self._written[first], self._written[second] = self._written[second], self._written[first]

    def free(self, row: int) -> None:
        """The answer of this row has ended: its options cost the others nothing from now on."""
        self._options[row] = SamplingOptions()
        self._refresh()

    def _refresh(self) -> None:
        self._any_penalty = any(options.repetition_penalty != 1.0 for options in self._options)
        self._max_ngram = max(options.no_repeat_ngram_size for options in self._options)
        self.any_logprobs = any(options.logprobs for options in self._options)
        self.any_sampled = any(options.samples for options in self._options)
        self._any_truncated = any(options.top_k or options.top_p not in (None, 1) for options in self._options)

    @property
    def work(self) -> tuple[bool, ...]:
        """What a call computes: equal values launch the same kernels on a device."""
        return self._any_penalty, self._max_ngram > 0, self.any_logprobs, self.any_sampled

    @property
    def counts_ngrams(self) -> bool:
        """Whether a call depends on how long the longest n-gram and answer are."""
        return self._max_ngram > 0

    def __call__(
        self, logits: Tensor, uniforms: Tensor, allowed: Tensor | None = None, *, start: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """``choose`` and ``remember``."""
        tokens, logprobs = self.choose(logits, uniforms, allowed, start=start)
        self.remember(tokens, start=start)
        return tokens, logprobs

    def choose(
        self, logits: Tensor, uniforms: Tensor, allowed: Tensor | None = None, *, start: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Choose one token a row. Changes nothing, so that a step that ran out of memory can be done again.

        Args:
            logits: (B, V) float32 of all rows, or of B from ``start`` on; not written to.
            uniforms: (B,) float32 in [0, 1), one random number a row; greedy rows ignore theirs.
            allowed: (B, V) bool, False forbids a token, at least one True a row; None allows all. It wins over n-gram
                bans: they do not apply to a row in which a token is forbidden.
            start: the first of these rows.

        Returns:
            tokens (B,) int64, -1 where the logits are not numbers, and log-probabilities (B,) float32 of these tokens
            in the model's own distribution (before penalties and temperature), or None when no row asked for them.
        """
        scores, rows = logits, slice(start, start + logits.shape[0])
        seen, answer, count = self._seen[rows], self._answer[rows], self._count[rows]
        if self._any_penalty:
            penalty = self._penalty[rows]
            penalised = torch.where(scores > 0, scores / penalty, scores * penalty)
            scores = torch.where(seen, penalised, scores)
        if self._max_ngram:
            banned = self._repeats(answer, count, rows, logits.shape[1])
            if allowed is not None:
                banned &= allowed.all(dim=1, keepdim=True)  # what is allowed must stay possible
            scores = scores.masked_fill(banned, -torch.inf)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        best, tokens = largest(scores)
        if self.any_sampled:
            drawn = draw(scores, uniforms, self._temperature[rows], self._top_k[rows], self._top_p[rows])
            tokens = torch.where(self._greedy[rows], tokens, drawn)
        logprobs = None
        if self.any_logprobs:
            logprobs = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
        return torch.where(best.isnan(), -1, tokens), logprobs

    def choose_ahead(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor | None]:
        """What ``choose`` gives at several places, for rows that have no penalties and n-gram bans. Changes nothing.

        Args:
            logits: (B, T, V) float32 of all rows.
            uniforms: (B, T) float32 in [0, 1).

        Returns:
            tokens (B, T) and log-probabilities (B, T) or None, as ``choose``.
        """
        rows, places = logits.shape[:2]
        best, tokens = logits.max(dim=-1)
        if self.any_sampled:
            temperature, top_k, top_p = self._repeated(slice(0, rows), places)
            drawn = draw(logits.flatten(0, 1), uniforms.flatten(), temperature, top_k, top_p).view_as(tokens)
            tokens = torch.where(self._greedy[:rows, None], tokens, drawn)
        logprobs = None
        if self.any_logprobs:
            logprobs = logits.log_softmax(dim=-1).gather(2, tokens[..., None])[..., 0]
        return torch.where(best.isnan(), -1, tokens), logprobs

    def distributions(self, logits: Tensor, rows: Tensor) -> Tensor:
        """What ``choose`` draws from, for rows that have no penalties and n-gram bans.

        Args:
            logits: (M, T, V) float32 at several places of some rows.
            rows: (M,) int64, which.

        Returns:
            (M, T, V) float32 that add up to 1; of a greedy row 1 at the most likely token.
        """
        temperature, top_k, top_p = self._repeated(rows, logits.shape[1])
        flat = logits.flatten(0, 1)
        if self._any_truncated:
            probs = probabilities(flat, temperature, top_k, top_p)
        else:
            probs = (flat / temperature).softmax(dim=-1)
        certain = torch.zeros_like(probs).scatter_(1, flat.argmax(dim=-1, keepdim=True), 1.0)
        greedy = self._greedy[rows].repeat_interleave(logits.shape[1])
        return torch.where(greedy[:, None], certain, probs).view_as(logits)

    def _repeated(self, rows: slice | Tensor, places: int) -> tuple[Tensor, Tensor, Tensor]:
        """Temperature, top-k and top-p of rows, (B * places, 1)."""
        return (
            self._temperature[rows].repeat_interleave(places, dim=0),
            self._top_k[rows].repeat_interleave(places, dim=0),
            self._top_p[rows].repeat_interleave(places, dim=0),
        )

    def remember(self, tokens: Tensor, *, start: int = 0) -> None:
        """Count the chosen tokens (B,) of the rows from ``start`` on: for penalties and n-grams."""
        rows, chosen = slice(start, start + tokens.shape[0]), tokens.clamp(min=0)[:, None]
        if self._any_penalty:
            self._seen[rows].scatter_(1, chosen, True)
        if self._max_ngram:
            answer, count = self._answer[rows], self._count[rows]
            answer.scatter_(1, count.clamp(max=answer.shape[1] - 1), chosen)
            count += 1

    def _repeats(self, answer: Tensor, count: Tensor, rows: slice, vocab_size: int) -> Tensor:
        """(B, V) bool: tokens that would end an n-gram which the row's answer (B, N), ``count`` tokens, has already."""
        size = self._ngram_size[rows]
        index = torch.arange(answer.shape[1], device=answer.device)  # (N,)
        match = (index < count) & (size > 0)  # (B, N): a known token stands here
        match &= (index >= size - 1) & (count >= size - 1)
        for back in range(1, self._max_ngram):
            last = answer.gather(1, (count - back).clamp(0, answer.shape[1] - 1))  # (B, 1)
            match &= (answer.roll(back, dims=1) == last) | (back >= size)
        target = torch.where(match, answer, vocab_size)
        found = torch.zeros(answer.shape[0], vocab_size + 1, dtype=torch.bool, device=answer.device)
        return found.scatter_(1, target, True)[:, :vocab_size]


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(B, V) -> the largest of each row (B,), nan where there is one, and the first place of it (B,) int64.

    In two rounds where rows are long: torch reduces few long rows on a GPU in as few pieces (28 us of 102,400 numbers,
    H200).
    """
    size = scores.shape[1]
    if size < LONG_ROW or size % PIECES:
        best, places = scores.max(dim=-1)
        return best, places
    highest, inside = scores.unflatten(1, (PIECES, -1)).max(dim=-1)  # (B, PIECES)
    best, piece = highest.max(dim=-1)
    return best, piece * (size // PIECES) + inside.gather(1, piece[:, None])[:, 0]


def draw(scores: Tensor, uniforms: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Draw by the inverse of the cumulative distribution, most likely token first.

    Temperature comes first, then top-k, then top-p over what top-k left, as in transformers.

    Args:
        scores: (B, V) float32 logits.
        uniforms: (B,) float32 in [0, 1).
        temperature: (B, 1) float32 above 0.
        top_k: (B, 1) int64 from 1 to V.
        top_p: (B, 1) float32 in (0, 1].

    Returns:
        (B,) int64 tokens.
    """
    probs, tokens = _likeliest_first(scores, temperature, top_k, top_p)
    cumulative = probs.cumsum(dim=-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    chosen = (cumulative <= target).sum(dim=-1, keepdim=True)  # (B, 1)
    # Rounding may carry the target to the very end: the last token with any probability is then meant.
    last = (probs > 0).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, chosen.minimum(last).clamp(min=0))[:, 0]


def probabilities(scores: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """(B, V) float32, what ``draw`` draws from; arguments as there."""
    probs, tokens = _likeliest_first(scores, temperature, top_k, top_p)
    return torch.zeros_like(probs).scatter_(1, tokens, probs / probs.sum(dim=-1, keepdim=True))


def _likeliest_first(scores: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (B, V), those that are left out 0 and the others not scaled up for it, and whose they are."""
    ordered, tokens = (scores / temperature).sort(dim=-1, descending=True, stable=True)  # (B, V)
    rank = torch.arange(scores.shape[1], device=scores.device)
    probs = ordered.masked_fill(rank >= top_k, -torch.inf).softmax(dim=-1)
    below = probs.cumsum(dim=-1) - probs  # probability of everything more likely
    return torch.where((below < top_p) | (rank == 0), probs, 0.0), tokens


def as_stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Stop strings in the forms that users write: None, one string, or several.

    Raises:
        OptionError: something else.
    """
    if stop is None:
        return ()
    if isinstance(stop, str):
        return (stop,)
    if not isinstance(stop, Sequence):
        raise OptionError(f"stop is {stop!r}; expected a string or a list of strings.")
    return tuple(stop)
