"""Prompts on their way through the decoder: which call takes which stretches of them.

Where the decoder can (``Decoder.joins_prompts``), stretches are padded at their ends to few lengths, so that a call is
one of few shapes and a replay of a CUDA graph from its second time on: a prompt of a large model launches hundreds of
kernels, and launching them takes longer than most prompts take to compute. Beginnings of prompts of about one length
go through together, each as it would alone: only the products of experts are common, whose rows do not depend on each
other. Elsewhere a stretch is launched as it is, alone.

Letters: N stretches, T tokens of the longest one, D hidden size.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from mm.contracts import Decoder
from mm.generation.graphs import Outputs
from mm.generation.prompt import common_prefix
from mm.generation.slots import LENGTH_BLOCK, MIN_REUSE, Slot, Slots
from mm.generation.steps import Steps
from mm.generation.task import ChosenTask, Lane, Task
from mm.generation.text import prefill, visible_bucket

CHUNKS_TOGETHER = 4  # prompt tokens of one call, in chunks, where no answer waits for the next step
Stretch = tuple[Tensor, Slot]
"""Embeddings (T, D) of what comes next in a slot."""


def padded_length(tokens: int) -> int:
    """The length that a stretch is padded to."""
    return visible_bucket(tokens - 1)


def is_alike(lane: Lane, other: Lane) -> bool:
    """Whether a prompt may go through the decoder together with one that is whole: whole too, padded to the same
    length, its images encoded."""
    alike = padded_length(lane.inputs.num_tokens) == padded_length(other.inputs.num_tokens)
    return alike and (lane.slot is None or not lane.slot.filled) and (not lane.inputs.spans or lane.embeds is not None)


def companions(first: Sequence[Lane], waiting: Iterable[Task], slots: Slots, most: int, places: int) -> list[Task]:
    """Requests whose prompts go along with these, so that there are 2, 4, 8, ... (few shapes).

    None of them begins as an earlier one does, or one whose beginning is in the cache: it is cheaper to go on there.

    Args:
        first: the prompts that begin the call.
        waiting: requests, longest first.
        slots: the cache.
        most: prompts of the call.
        places: most requests to begin.
    """
    lanes, chosen = list(first), list[Task]()

    def is_new(lane: Lane) -> bool:
        shared = max(common_prefix(lane.keys, each.keys) for each in lanes)
        return shared < MIN_REUSE and not slots.known(lane.keys, lane.inputs.spans)

    for task in waiting:
        if len(lanes) + len(task.lanes) > most or len(chosen) == places:
            break
        if isinstance(task, ChosenTask) and all(is_alike(lane, first[0]) and is_new(lane) for lane in task.lanes):
            chosen.append(task)
            lanes += task.lanes
    while len(lanes) & (len(lanes) - 1) and chosen:
        del lanes[-len(chosen.pop().lanes) :]
    return chosen


class Prefill:
    """Runs stretches of prompts. Used by the engine's thread only.

    Args:
        decoder: the language model.
        steps: of the same cache.
        chunk: most tokens of a stretch.
    """

    def __init__(self, decoder: Decoder, steps: Steps, chunk: int) -> None:
        self.decoder = decoder
        self.steps = steps
        self.most = CHUNKS_TOGETHER * padded_length(chunk)  # tokens of a call, padded
        self._embeds: Tensor | None = None  # (most, D), where recorded calls read

    @property
    def joins(self) -> bool:
        """Whether several stretches may go through together."""
        return self.decoder.joins_prompts

    def run(self, stretches: Sequence[Stretch]) -> Tensor:
        """Hidden states (N, D) after the last token of each; the cache holds what was computed.

        Args:
            stretches: of different slots; several only where ``joins``, padded no more than ``most`` in all, and either
                all or none of them from the beginnings of their slots.
        """
        if not self.joins:
            ((block, slot),) = stretches
            return prefill(self.decoder, block, slot.filled, self.steps.slots.row(slot))[-1:].clone()
        tokens = padded_length(max(len(block) for block, _ in stretches))
        stop = max(slot.filled + len(block) for block, slot in stretches)
        fresh = all(slot.filled == 0 for _, slot in stretches)
        # Of what stands before later ones few lengths: each is a shape.
        visible = None if fresh else min(max(LENGTH_BLOCK, 1 << (stop - 1).bit_length()), self.steps.slots.length)
        embeds = self._room(stretches[0][0])[: len(stretches) * tokens].unflatten(0, (len(stretches), tokens))
        for place, (block, _) in zip(embeds, stretches, strict=True):
            place[: len(block)] = block
        numbers = [[slot.index for _, slot in stretches], [slot.filled for _, slot in stretches]]
        numbers.append([len(block) for block, _ in stretches])
        shape = "prompts", len(stretches), tokens, visible
        (hidden,) = self.steps.launch(shape, partial(self._compute, embeds, visible), torch.tensor(numbers))
        return hidden.clone()

    def _room(self, like: Tensor) -> Tensor:
        """Where embeddings stand, in the same place for as long as recorded calls read them there."""
        if self._embeds is None or (self._embeds.dtype, self._embeds.device) != (like.dtype, like.device):
            self.steps.forget_graphs()
            self._embeds = like.new_empty(self.most, like.shape[1])
        return self._embeds

    def _compute(self, embeds: Tensor, visible: int | None, numbers: Tensor) -> Outputs:
        """The call itself: waits for nothing.

        Args:
            embeds: (N, T, D), anything behind the stretches.
            visible: see ``Decoder.prompts``.
            numbers: (3, N) int64: rows of the cache, first positions, tokens.
        """
        rows, starts, counts = numbers
        slots = self.steps.slots
        cache = slots.leading(len(slots.slots))
        found = self.decoder.prompts(embeds, rows=rows, starts=starts, counts=counts, cache=cache, visible=visible)
        return (found,)
