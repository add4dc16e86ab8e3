"""One more token in every running answer, as one function of what stands on the device.

The newest choice of every row of the cache stays on the device (``Steps.ids``), where the next step reads it: that
step can be launched before the host knows what was chosen. What a step is told by the host are positions, which rows
belong to which answer, random numbers and guidance scales. On an accelerator its shapes come in buckets: rows and
answers in powers of two, visible positions in blocks. What rows beyond the running ones compute is not read.

Letters: B rows, N answers of a side, D hidden size, K ids that are chosen from.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mm.contracts import Cache, Decoder
from mm.generation.graphs import Outputs, StepGraphs, Work
from mm.generation.slots import Slots
from mm.generation.task import ChosenTask, Lane, Side
from mm.generation.text import advance, visible_bucket


@dataclass(frozen=True)
class Part:
    """One side's share of a step."""

    side: int  # its place among the sides
    answers: int  # N
    guided: bool
    sampler: tuple[bool, ...]  # what its sampler does


@dataclass(frozen=True)
class Shape:
    """What a step launches: equal shapes launch the same kernels."""

    rows: int  # B
    visible: int
    parts: tuple[Part, ...]

    def split(self, ints: Tensor, floats: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """The numbers of a step -> positions (B,), drawn (B,), and of each part: first rows (N,), last rows (N,),
        uniforms (N,), scales (N, 1)."""
        counts = [part.answers for part in self.parts]
        positions, drawn, *rows = _cut(ints, [self.rows, self.rows, *(n for n in counts for _ in range(2))])
        numbers = _cut(floats, [n for n in counts for _ in range(2)])
        parts = [(rows[i], rows[i + 1], numbers[i], numbers[i + 1].unsqueeze(1)) for i in range(0, 2 * len(counts), 2)]
        return positions, drawn, parts


def _cut(values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return [values[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


class Choice:
    """What was chosen for some answers, on its way to the host.

    Args:
        tasks: whose answers.
        tokens: (at least as many,) int64 on the device.
        logprobs: likewise, float32; None where nobody asked.
        logits: (at least as many, K) float32 on the device, where somebody listens.
        errors: what callers' code raised before the choice.

    Attributes:
        counts: how many each of the answers gets: 1.
    """

    def __init__(
        self,
        tasks: list[ChosenTask],
        tokens: Tensor,
        logprobs: Tensor | None,
        logits: Tensor | None,
        errors: dict[ChosenTask, BaseException],
    ) -> None:
        self.tasks = tasks
        self.logits = logits
        self.errors = errors
        count = len(tasks)
        self.counts = [1] * count
        self._tokens, self._logprobs = tokens[:count], None if logprobs is None else logprobs[:count]
        self._ready: torch.cuda.Event | None = None
        if tokens.device.type == "cuda":
            self._tokens = self._tokens.to("cpu", non_blocking=True)
            if self._logprobs is not None:
                self._logprobs = self._logprobs.to("cpu", non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    def read(self) -> Iterator[tuple[ChosenTask, int, float | None, Tensor | None]]:
        """Task, choice, its log-probability, its logits (K,). Waits for the device."""
        if self._ready is not None:
            self._ready.synchronize()
        ids: list[int] = self._tokens.tolist()
        scores: list[float | None] = [None] * len(ids) if self._logprobs is None else self._logprobs.tolist()
        for index, task in enumerate(self.tasks):
            yield task, ids[index], scores[index], None if self.logits is None else self.logits[index]


class Steps:
    """Runs and chooses for the rows of a cache. Used by the engine's thread only.

    Args:
        decoder: the language model.
        sides: kinds of answers.
        slots: the cache.
        device: where all of it is.
        num_rows: most rows of the cache.
        graphs: record steps as CUDA graphs; without effect on other devices.
    """

    def __init__(
        self,
        decoder: Decoder,
        sides: Sequence[Side],
        slots: Slots,
        device: torch.device,
        num_rows: int,
        *,
        graphs: bool,
    ) -> None:
        self.decoder = decoder
        self.sides = sides
        self.slots = slots
        self.device = device
        # On an accelerator few batch sizes occur, for its graphs. A CPU computes the running rows only.
        self.rounds_rows = device.type != "cpu"
        self.graphs = StepGraphs(device) if graphs and device.type == "cuda" else None
        self._nobody = num_rows  # the place in ids of rows whose choice nobody reads
        self.ids = torch.zeros(num_rows + 1, dtype=torch.int64, device=device)  # newest choice of each row
        self._generation = -1

    def move(self, source: int, target: int) -> None:
        """The lane of row ``source`` goes to row ``target``, and ``source`` has none. An id of one side must not be
        left for the other one to look up."""
        if source != target:
            self.ids[target] = self.ids[source]
        self.ids[source] = 0

    def clear(self) -> None:
        """No row has a lane."""
        self.forget_graphs()
        self.ids = torch.zeros_like(self.ids)

    def forget_graphs(self) -> None:
        """The weights are elsewhere in memory, or may be."""
        if self.graphs is not None:
            self.graphs.clear()

    def run(self, lanes: Sequence[Lane], uniforms: dict[ChosenTask, float]) -> list[Choice]:
        """One more choice for each running answer.

        Args:
            lanes: lanes[i] has row i.
            uniforms: the next random number of each answer that samples.
        """
        shape = self._shape(lanes)
        errors: dict[ChosenTask, BaseException] = {}
        allowed = [self.allowed(self.sides[part.side], part.answers, errors) for part in shape.parts]
        listened = any(task.on_logits is not None for side in self.sides for task in side.running)
        ints, floats = self._numbers(shape, lanes, uniforms)
        cache = self.slots.leading(shape.rows)
        work = partial(self.compute, shape, cache, allowed, listened)
        recordable = len(shape.parts) == 1 and allowed == [None] and not listened
        recordable = recordable and not self.sides[shape.parts[0].side].sampler.counts_ngrams
        found = self.launch(shape if recordable else None, work, ints, floats)
        choices = []
        for part, (tokens, logprobs, logits) in zip(shape.parts, _triples(found), strict=True):
            side = self.sides[part.side]
            scores = logprobs if side.sampler.any_logprobs else None
            choices.append(Choice(list(side.running), tokens, scores, logits if listened else None, errors))
        return choices

    def compute(
        self,
        shape: Shape,
        cache: Cache,
        allowed: Sequence[Tensor | None],
        listened: bool,
        ints: Tensor,
        floats: Tensor,
    ) -> tuple[Tensor, ...]:
        """The step itself: reads and writes ``ids``, the cache and the samplers' state; waits for nothing.

        Returns:
            Of each part: tokens (N,) int64, log-probabilities (N,) float32, logits (N, K); the uniforms stand where
            nobody asked for these. A recorded step keeps its results for as long as it lives, and logits are large.
        """
        positions, drawn, parts = shape.split(ints, floats)
        embeds = self.embed([part.side for part in shape.parts], self.ids[: shape.rows], drawn)
        hidden = advance(self.decoder, embeds, positions, cache, shape.visible)
        found: list[Tensor] = []
        for part, (first, last, uniforms, scales), mask in zip(shape.parts, parts, allowed, strict=True):
            side, most = self.sides[part.side], shape.rows - 1
            if part.guided:
                logits = side.guided(hidden[torch.cat((first, last)).clamp(max=most)], scales)
            else:
                logits = side.logits(hidden[first.clamp(max=most)])
            tokens, logprobs = side.sampler.choose(logits, uniforms, mask)
            found += [tokens, uniforms if logprobs is None else logprobs, logits if listened else uniforms]
        # Last, and of all parts: a step for which memory was lacking is done again.
        for part, (first, last, _, _), tokens in zip(shape.parts, parts, found[::3], strict=True):
            self.sides[part.side].sampler.remember(tokens)
            self.place(first, last, tokens)
        return tuple(found)

    def launch(self, shape: Hashable, work: Work, *given: Tensor) -> Outputs:
        """What ``work`` gives for what the host tells it, as a replay where such a call is recorded.

        Args:
            shape: see ``StepGraphs.run``; None for a call that cannot be recorded.
            work: on the cache of ``slots``.
            given: in memory of the host.

        Returns:
            Tensors that hold until the next call.
        """
        if self.graphs is None or shape is None:
            return work(*(self.put(numbers) for numbers in given))
        if self.slots.generation != self._generation:  # another cache, elsewhere in memory
            self.graphs.clear()
            self._generation = self.slots.generation
        return self.graphs.run(shape, work, *(self._pinned(numbers) for numbers in given))

    def begin(self, side: Side, logits: Tensor, uniform: float) -> Choice:
        """The first choice of the answer that was added to a side last, from logits (1, K) after its prompt."""
        task, row = side.running[-1], len(side.running) - 1
        errors: dict[ChosenTask, BaseException] = {}
        allowed = self._mask([task], 1, side.num_ids, errors)
        tokens, logprobs = side.sampler(logits, self.put(torch.tensor([uniform])), allowed, start=row)
        first, last = self.put(torch.tensor([task.lanes[0].place.index, task.lanes[-1].place.index])).split(1)
        self.place(first, last, tokens)
        return Choice([task], tokens, logprobs, logits if task.on_logits is not None else None, errors)

    def place(self, first: Tensor, last: Tensor, tokens: Tensor) -> None:
        """The newest choices (N,) of some answers, whose lanes begin and end at these rows (N,)."""
        known = tokens.clamp(min=0)  # -1 is no number that a model gave; its answer ends when the host reads it
        self.ids[first] = known
        self.ids[last] = known

    def _shape(self, lanes: Sequence[Lane]) -> Shape:
        count = len(lanes)
        rows = min(_rounded(count), len(self.slots.slots)) if self.rounds_rows else count
        parts = []
        for number, side in enumerate(self.sides):
            if side.running:
                answers = len(side.running)
                if self.rounds_rows:
                    answers = min(_rounded(answers), side.sampler.num_rows)
                parts.append(Part(number, answers, side.is_guided, side.sampler.work))
        visible = visible_bucket(max(lane.place.filled for lane in lanes))
        return Shape(rows, min(visible, self.slots.length), tuple(parts))

    def embed(self, sides: Sequence[int], ids: Tensor, drawn: Tensor) -> Tensor:
        """What the decoder is given after these choices.

        Args:
            sides: those that answers of run.
            ids: (B,) or (B, T).
            drawn: likewise, 1 where it is a code.

        Returns:
            (B, D) or (B, T, D).
        """
        if len(sides) == 1:
            return self.sides[sides[0]].embed(ids)
        text, pictures = self.sides
        return torch.where(drawn[..., None] == 1, pictures.embed(ids * drawn), text.embed(ids * (1 - drawn)))

    def _numbers(self, shape: Shape, lanes: Sequence[Lane], uniforms: dict[ChosenTask, float]) -> tuple[Tensor, Tensor]:
        """What ``Shape.split`` takes apart, on the host."""
        # Rows that nobody reads write to the position that no request uses.
        positions, drawn = [self.slots.length] * shape.rows, [0] * shape.rows
        for index, lane in enumerate(lanes):
            positions[index] = lane.place.filled
        ints, floats = positions + drawn, list[float]()
        for part in shape.parts:
            side = self.sides[part.side]
            pad = part.answers - len(side.running)
            for end in (0, -1):
                ints += [task.lanes[end].place.index for task in side.running] + [self._nobody] * pad
            floats += [uniforms.get(task, 0.0) for task in side.running] + [0.0] * pad
            floats += [task.guidance_scale for task in side.running] + [1.0] * pad
            for task in side.running:
                for lane in task.lanes:
                    ints[shape.rows + lane.place.index] = int(task.draws)
        return torch.tensor(ints), torch.tensor(floats)

    def allowed(self, side: Side, answers: int, errors: dict[ChosenTask, BaseException]) -> Tensor | None:
        """(N, K) bool of what constraints allow next, None when nothing is constrained now.

        Args:
            side: whose answers.
            answers: N, as many as run or more.
            errors: what callers' code raises comes here.
        """
        return self._mask(side.running, answers, side.num_ids, errors)

    def _mask(
        self, tasks: Sequence[ChosenTask], answers: int, num_ids: int, errors: dict[ChosenTask, BaseException]
    ) -> Tensor | None:
        masks: list[Tensor | None] = []
        for task in tasks:
            try:
                masks.append(task.row.allowed())
            except BaseException as error:  # of a caller's code; the rows must keep their places for now
                errors[task] = error
                masks.append(None)
        if all(mask is None for mask in masks):
            return None
        free = torch.ones(num_ids, dtype=torch.bool)
        masks += [None] * (answers - len(masks))
        return self.put(torch.stack([free if mask is None else mask for mask in masks]))

    def put(self, tensor: Tensor) -> Tensor:
        """A copy where the decoder is, without waiting for what runs there."""
        return self._pinned(tensor).to(self.device, non_blocking=True)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _rounded(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _triples(found: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for index in range(0, len(found), 3):
        yield found[index], found[index + 1], found[index + 2]
