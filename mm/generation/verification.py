"""A pass that goes over a window of drafts in every running answer that speculates (``mm.generation.speculation``).

It takes the place of a decode step (``mm.generation.steps``) wherever there are drafts. Answers without any come along
with their newest token alone. Row by row, the decoder is given

    newest token | draft | draft | ...          at the positions from the newest one's on

and each place gives the choice that follows it. The host reads what was chosen before it launches anything else: only
then does it know where the answers stand. So nothing runs ahead while an answer speculates, and passes are launched as
they are, not replayed as graphs.

A guess may lead to what is no number where the answer itself does not (an overflow in float16). It must not end the
answer: what such a guess left in the cache is zeroed, for it would reach others even from where they do not attend to
(0 * nan), and where it has reached a choice that counts, the pass is done again without guesses for that answer.

Letters: B rows, T places, N answers of a side, M of them pictures that speculate, D hidden size, K ids that are chosen
from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mm.contracts import Cache, Decoder
from mm.generation.jacobi import Jacobi, prior, redraw
from mm.generation.slots import Slot
from mm.generation.speculation import Drafter, accepted
from mm.generation.steps import Steps
from mm.generation.task import ChosenTask, Lane, Side
from mm.generation.text import visible_bucket

NO_DRAFT = -2  # equal to no choice: ids are 0 or more, and -1 is no number


class Verified:
    """What a pass has chosen for the answers of a side; like ``mm.generation.steps.Choice``, and read already.

    Attributes:
        tasks: whose answers.
        counts: how many choices each of them gets, 1 or more.
        errors: what callers' code raised before the choice.

    Args:
        tokens: (N, T), of which each answer gets the first ones.
        logprobs: likewise; None where nobody asked.
        logits: (N, T, K) float32, where somebody listens.
    """

    def __init__(
        self,
        tasks: list[ChosenTask],
        counts: list[int],
        tokens: list[list[int]],
        logprobs: list[list[float]] | None,
        logits: Tensor | None,
        errors: dict[ChosenTask, BaseException],
    ) -> None:
        self.tasks = tasks
        self.counts = counts
        self.errors = errors
        self._tokens, self._logprobs, self._logits = tokens, logprobs, logits

    def read(self) -> Iterator[tuple[ChosenTask, int, float | None, Tensor | None]]:
        """Task, choice, its log-probability, its logits (K,); of each task one after the other."""
        for index, (task, count) in enumerate(zip(self.tasks, self.counts, strict=True)):
            for place in range(count):
                score = None if self._logprobs is None else self._logprobs[index][place]
                yield (
                    task,
                    self._tokens[index][place],
                    score,
                    None if self._logits is None else self._logits[index, place],
                )


@dataclass(frozen=True)
class SideNumbers:
    """What a pass is told of the answers of one side."""

    first: Tensor  # (N,) int64, their first rows
    last: Tensor  # (N,) int64
    drafts: Tensor  # (N, T - 1) int64, NO_DRAFT where there is none
    uniforms: Tensor  # (N, T) float32
    scales: Tensor  # (N, 1, 1) float32, of guidance
    allowed: Tensor | None  # (N, K) bool, of the first place
    looks_ahead: bool  # whether an answer other than a picture has drafts


@dataclass(frozen=True)
class JacobiNumbers:
    """What a pass is told of the pictures that speculate."""

    rows: Tensor  # (M,) int64, which of the pictures
    probs: Tensor  # (M, S, K) float32, of the pass before
    drafts: Tensor  # (M, T) int64, 0 where there is none
    source: Tensor  # (M, T) int64, see ``mm.generation.jacobi.prior``
    fresh: Tensor  # (M, T) bool
    uniforms: Tensor  # (M, T, 2) float32


@dataclass(frozen=True)
class Outcome:
    """What a pass gives for one side."""

    tokens: Tensor  # (N, T) int64; -1: not a number
    counts: Tensor  # (N,) int64
    logprobs: Tensor | None  # (N, T) float32
    logits: Tensor  # (N, T, K) float32
    probs: Tensor | None  # (M, T, K) float32, what pictures that speculate are drawn from


class Verifier:
    """Runs such passes for the rows of a cache. Used by the engine's thread only.

    Args:
        decoder: the language model.
        steps: of the same cache: the newest choices of all rows.
    """

    def __init__(self, decoder: Decoder, steps: Steps) -> None:
        self.decoder = decoder
        self.steps = steps

    def run(self, lanes: Sequence[Lane], drafts: Mapping[ChosenTask, list[int]]) -> list[Verified]:
        """One pass. All choices so far must have been read.

        Args:
            lanes: lanes[i] has row i.
            drafts: of each answer that speculates, perhaps none.
        """
        steps = self.steps
        running = [number for number, side in enumerate(steps.sides) if side.running]
        while True:
            width = 1 + max(len(guesses) for guesses in drafts.values())
            if steps.rounds_rows:  # few shapes, as in steps
                width = max(task.drafter.window for task in drafts if task.drafter is not None)
            errors: dict[ChosenTask, BaseException] = {}
            sides = [self._side_numbers(steps.sides[number], drafts, width, errors) for number in running]
            jacobi = [self._jacobi_numbers(steps.sides[number], drafts, width) for number in running]
            ids, positions, drawn = self._rows(lanes, drafts, width)
            visible = visible_bucket(max(lane.place.filled for lane in lanes) + width - 1)
            cache = steps.slots.leading(len(lanes))
            outcomes = self.compute(
                running, cache, min(visible, steps.slots.length), ids, positions, drawn, sides, jacobi
            )
            chosen = [(outcome.tokens.tolist(), outcome.counts.tolist()) for outcome in outcomes]
            misled = self._clean(running, chosen, drafts)
            if not misled:
                break
            drafts = {**drafts, **{task: drafter.draft(task.row.tokens, 0) for task, drafter in misled.items()}}
        self._keep(running, sides, outcomes)
        found = []
        for number, outcome, (tokens, counts) in zip(running, outcomes, chosen, strict=True):
            tasks = list(steps.sides[number].running)
            probs = iter(() if outcome.probs is None else outcome.probs)
            for task, codes, count in zip(tasks, tokens, counts, strict=True):
                places = 1 + len(drafts.get(task, []))
                if isinstance(task.drafter, Jacobi):
                    task.drafter.settle(codes[:places], count, next(probs))
                if task.row.options.samples:
                    task.use(2 * places if isinstance(task.drafter, Jacobi) else count)
            scores = None if outcome.logprobs is None else outcome.logprobs.tolist()
            listened = any(task.on_logits is not None for task in tasks)
            found.append(Verified(tasks, counts, tokens, scores, outcome.logits if listened else None, errors))
        return found

    def compute(
        self,
        running: Sequence[int],
        cache: Cache,
        visible: int,
        ids: Tensor,
        positions: Tensor,
        drawn: Tensor,
        sides: Sequence[SideNumbers],
        jacobi: Sequence[JacobiNumbers | None],
    ) -> list[Outcome]:
        """The pass itself: writes nothing but the cache, so that it can be done again.

        Args:
            running: the sides that answers of run.
            cache: of B rows.
            visible: of its slots.
            ids: (B, T) int64.
            positions: (B, T) int64.
            drawn: (B, T) int64, 1 where ids are codes.
            sides: of each side of ``running``.
            jacobi: likewise; None where nothing of the kind runs.
        """
        embeds = self.steps.embed(running, ids, drawn)  # (B, T, D)
        hidden = self.decoder(embeds, positions=positions, cache=cache, visible=visible)
        outcomes = []
        for number, told, pictures in zip(running, sides, jacobi, strict=True):
            side = self.steps.sides[number]
            if side.is_guided:
                logits = side.guided(hidden[torch.cat((told.first, told.last))], told.scales)  # (N, T, K)
            else:
                logits = side.logits(hidden[told.first])
            outcomes.append(self._choose(side, logits, told, pictures))
        return outcomes

    def _keep(self, running: Sequence[int], sides: Sequence[SideNumbers], outcomes: Sequence[Outcome]) -> None:
        """The pass counts: note the newest choices, and what the samplers count."""
        for number, told, outcome in zip(running, sides, outcomes, strict=True):
            self.steps.sides[number].sampler.remember(outcome.tokens[:, 0])  # those that count them have no drafts
            newest = outcome.tokens.gather(1, outcome.counts[:, None] - 1)[:, 0]
            self.steps.place(told.first, told.last, newest)

    def _clean(
        self,
        running: Sequence[int],
        chosen: Sequence[tuple[list[list[int]], list[int]]],
        drafts: Mapping[ChosenTask, list[int]],
    ) -> dict[ChosenTask, Drafter]:
        """Zero in the cache what guesses left there that led to what is no number.

        Args:
            running: the sides that answers of run.
            chosen: of each side, tokens (N, T) and counts (N,).
            drafts: of each answer that speculates.

        Returns:
            Whose choices that count are none because of it, perhaps, and what guesses for these.
        """
        misled: dict[ChosenTask, Drafter] = {}
        for number, (tokens, counts) in zip(running, chosen, strict=True):
            for task, codes, count in zip(self.steps.sides[number].running, tokens, counts, strict=True):
                guesses = drafts.get(task)
                if not guesses or task.drafter is None or -1 not in codes[: 1 + len(guesses)]:
                    continue
                final = count
                if -1 in codes[:count]:
                    misled[task], final = task.drafter, 0
                for lane in task.lanes:
                    self._keep_beginning(lane.place, lane.place.filled + final)
        return misled

    def _keep_beginning(self, slot: Slot, length: int) -> None:
        """Zeros behind the first ``length`` positions of a slot."""
        row, kept = self.steps.slots.row(slot), self.decoder.new_cache(1, length)
        kept.copy_row(0, row, 0, length)
        row.clear_row(0)
        row.copy_row(0, kept, 0, length)

    def _choose(self, side: Side, logits: Tensor, told: SideNumbers, pictures: JacobiNumbers | None) -> Outcome:
        first, first_scores = side.sampler.choose(logits[:, 0], told.uniforms[:, 0], told.allowed)
        tokens, scores = first[:, None], None if first_scores is None else first_scores[:, None]
        if told.looks_ahead:
            ahead, ahead_scores = side.sampler.choose_ahead(logits[:, 1:], told.uniforms[:, 1:])
            tokens = torch.cat((tokens, ahead), dim=1)
            if scores is not None and ahead_scores is not None:
                scores = torch.cat((scores, ahead_scores), dim=1)
        else:
            # What pictures that speculate get stands there below; none of them wants log-probabilities.
            tokens = F.pad(tokens, (0, logits.shape[1] - 1))
            scores = None if scores is None else F.pad(scores, (0, logits.shape[1] - 1))
        probs = None
        if pictures is not None:
            probs = side.sampler.distributions(logits[pictures.rows], pictures.rows)
            before = prior(pictures.probs, pictures.drafts, pictures.source, pictures.fresh)
            codes = redraw(probs, before, pictures.drafts, pictures.uniforms)
            tokens[pictures.rows] = torch.where(logits[pictures.rows].amax(dim=2).isnan(), -1, codes)
        counts = accepted(told.drafts, tokens[:, :-1]) + 1
        return Outcome(tokens=tokens, counts=counts, logprobs=scores, logits=logits, probs=probs)

    def _rows(
        self, lanes: Sequence[Lane], drafts: Mapping[ChosenTask, list[int]], width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, positions and which are codes, each (B, T)."""
        steps = self.steps
        ids = torch.zeros(len(lanes), width, dtype=torch.int64)
        # Places that nobody reads write to the position that no request uses.
        positions = torch.full((len(lanes), width), steps.slots.length, dtype=torch.int64)
        drawn = torch.zeros(len(lanes), width, dtype=torch.int64)
        for side in steps.sides:
            for task in side.running:
                known = torch.tensor([task.row.tokens[-1], *drafts.get(task, [])])
                for lane in task.lanes:
                    row = lane.place.index
                    ids[row, : len(known)] = known
                    positions[row, : len(known)] = lane.place.filled + torch.arange(len(known))
                    drawn[row] = int(task.draws)
        return steps.put(ids), steps.put(positions), steps.put(drawn)

    def _side_numbers(
        self,
        side: Side,
        drafts: Mapping[ChosenTask, list[int]],
        width: int,
        errors: dict[ChosenTask, BaseException],
    ) -> SideNumbers:
        guesses = torch.full((len(side.running), width - 1), NO_DRAFT, dtype=torch.int64)
        uniforms = torch.zeros(len(side.running), width)
        for index, task in enumerate(side.running):
            own = drafts.get(task, [])
            guesses[index, : len(own)] = torch.tensor(own, dtype=torch.int64)
            if task.row.options.samples and not isinstance(task.drafter, Jacobi):
                uniforms[index, : len(own) + 1] = torch.tensor(task.uniforms(len(own) + 1))
        put = self.steps.put
        return SideNumbers(
            first=put(torch.tensor([task.lanes[0].place.index for task in side.running])),
            last=put(torch.tensor([task.lanes[-1].place.index for task in side.running])),
            drafts=put(guesses),
            uniforms=put(uniforms),
            scales=put(torch.tensor([task.guidance_scale for task in side.running])[:, None, None]),
            allowed=self.steps.allowed(side, len(side.running), errors),
            looks_ahead=any(drafts.get(task) and not isinstance(task.drafter, Jacobi) for task in side.running),
        )

    def _jacobi_numbers(self, side: Side, drafts: Mapping[ChosenTask, list[int]], width: int) -> JacobiNumbers | None:
        found = [(index, task) for index, task in enumerate(side.running) if isinstance(task.drafter, Jacobi)]
        if not found:
            return None
        count, put = len(found), self.steps.put
        guesses = torch.zeros(count, width, dtype=torch.int64)
        source = torch.full((count, width), -1, dtype=torch.int64)
        fresh = torch.zeros(count, width, dtype=torch.bool)
        uniforms = torch.zeros(count, width, 2)
        probs = torch.zeros(count, self._places_before(found), side.num_ids, device=self.steps.device)
        for row, (_, task) in enumerate(found):
            own, drafter = drafts[task], task.drafter
            assert isinstance(drafter, Jacobi)
            guesses[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
            source[row, : drafter.num_kept] = drafter.shift + torch.arange(drafter.num_kept)
            fresh[row, drafter.num_kept : len(own)] = True
            if task.row.options.samples:
                numbers = task.uniforms(2 * (len(own) + 1))
                uniforms[row, : len(own) + 1] = torch.tensor(numbers).view(-1, 2)
            if drafter.probs is not None:
                probs[row, : len(drafter.probs)] = drafter.probs
        return JacobiNumbers(
            rows=put(torch.tensor([index for index, _ in found])),
            probs=probs,
            drafts=put(guesses),
            source=put(source),
            fresh=put(fresh),
            uniforms=put(uniforms),
        )

    @staticmethod
    def _places_before(found: Sequence[tuple[int, ChosenTask]]) -> int:
        kept = [task.drafter.probs for _, task in found if isinstance(task.drafter, Jacobi)]
        return max((len(probs) for probs in kept if probs is not None), default=1)
