"""A request as the engine sees it, where requests wait, and the two kinds of chosen answers: text and image codes.

Letters: B rows computed, D hidden size, K ids that may be chosen from (tokens of the vocabulary, or image codes).
"""

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm.contracts import CancelToken, Inputs
from mm.generation.flow_picture import FlowRow
from mm.generation.handle import Handle
from mm.generation.prompt import Keys
from mm.generation.row import Answer, ChosenAnswer
from mm.generation.sampling import BatchSampler
from mm.generation.slots import Slot
from mm.generation.speculation import Drafter


@dataclass(eq=False, kw_only=True)
class Lane:
    """A prompt on its way through a row of the cache; what was chosen for the answer goes on behind it."""

    inputs: Inputs
    keys: Keys  # of the prompt
    slot: Slot | None = None
    embeds: Tensor | None = None  # of the positions from slot.filled on, as far as computed
    hidden: Tensor | None = None  # (1, D) after the last token of the prompt, until the answer begins

    @property
    def place(self) -> Slot:
        """Its row of the cache."""
        assert self.slot is not None
        return self.slot


@dataclass(eq=False, kw_only=True)
class Task(ABC):
    """A request."""

    lanes: tuple[Lane, ...]  # a guided one has two: what to draw, and what guidance leads away from
    row: Answer
    handle: Handle
    guidance_scale: float = 1.0
    cancel: CancelToken | None = None
    on_step: Callable[[], None] | None = None
    number: int = 0  # how many began before it

    @abstractmethod
    def length(self, lane: Lane) -> int:
        """Positions that prompt and answer may fill in a lane."""

    def is_cancelled(self) -> bool:
        """Whether its caller wants it to end."""
        return self.handle.cancelled or (self.cancel is not None and self.cancel.is_set())


@dataclass(eq=False, kw_only=True)
class ChosenTask(Task):
    """Chosen id after id. With two lanes its logits are u + scale * (c - u), c of the first and u of the second."""

    row: ChosenAnswer
    draws: bool = False  # a picture, of codes
    on_piece: Callable[[str], None] | None = None
    on_logits: Callable[[Tensor], None] | None = None
    unread: int = 0  # choices that the device has made, or will make, and the host has not read
    drafter: Drafter | None = None  # what guesses ahead, once the answer has begun
    _uniforms: deque[float] = field(default_factory=deque)  # taken from the row, not used yet

    @property
    def num_left(self) -> int:
        """Choices that the answer may need beyond those that are on their way."""
        return self.row.max_new_tokens - len(self.row.tokens) - self.unread

    @property
    def goes_on(self) -> bool:
        """Whether there are any."""
        return self.num_left > 0

    def uniforms(self, count: int) -> Sequence[float]:
        """The next random numbers of the answer. They stay the next ones: see ``use``."""
        while len(self._uniforms) < count:
            self._uniforms.append(self.row.uniform())
        return list(self._uniforms)[:count]

    def use(self, count: int) -> None:
        """The next ``count`` random numbers are used up."""
        for _ in range(count):
            self._uniforms.popleft()

    def length(self, lane: Lane) -> int:
        """Prompt and ids."""
        return lane.inputs.num_tokens + self.row.max_new_tokens


@dataclass(eq=False, kw_only=True)
class FlowLane(Lane):
    """Positions between its prompt and ``begin`` are hidden from the picture, which stands at ``begin``."""

    begin: int


@dataclass(eq=False, kw_only=True)
class FlowTask(Task):
    """A picture drawn by flow: all of its positions are computed anew in each step (``mm.generation.flow_picture``)."""

    lanes: tuple[FlowLane, ...]
    row: FlowRow

    def length(self, lane: Lane) -> int:
        """Up to the end of the picture."""
        assert isinstance(lane, FlowLane)
        return lane.begin + self.row.num_positions


class Side:
    """One kind of answers: what a hidden state becomes, and what the decoder is given after a choice.

    Args:
        embed: ids (B,) int64 -> (B, D).
        logits: hidden states (B, D) -> (B, K) float32.
        num_ids: K.
        num_rows: most answers that run together.
        device: where both are.
    """

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor], Tensor],
        *,
        num_ids: int,
        num_rows: int,
        device: torch.device,
    ) -> None:
        self.embed = embed
        self.logits = logits
        self.num_ids = num_ids
        self.sampler = BatchSampler(num_rows, num_ids, 1, device)
        self.running: list[ChosenTask] = []  # running[i] has row i of the sampler

    @property
    def is_guided(self) -> bool:
        """Whether an answer of two lanes runs."""
        return any(len(task.lanes) > 1 for task in self.running)

    def guided(self, hidden: Tensor, scales: Tensor) -> Tensor:
        """u + scale * (c - u).

        Args:
            hidden: (2 B, D): B rows for c, then B rows for u.
            scales: (B, 1) float32.

        Returns:
            (B, K) float32.
        """
        conditional, unconditional = self.logits(hidden).chunk(2)
        return unconditional + scales * (conditional - unconditional)

    def add(self, task: ChosenTask) -> None:
        """A task begins to run."""
        self.sampler.place(len(self.running), task.row.options, task.row.prompt_ids, task.row.max_new_tokens)
        self.running.append(task)

    def remove(self, task: ChosenTask) -> None:
        """A task runs no longer; the last one takes its place."""
        hole, last = self.running.index(task), len(self.running) - 1
        self.running[hole] = self.running[last]
        self.running.pop()
        self.sampler.swap(hole, last)
        self.sampler.free(last)

    def clear(self) -> None:
        """No task runs any longer."""
        for row in range(len(self.running)):
            self.sampler.free(row)
        self.running = []


@dataclass
class Statistics:
    """What an engine has done since its start."""

    begun: int = 0  # requests that got a place
    requests: int = 0  # ended, however
    prefilled_tokens: int = 0  # prompt tokens that went through the decoder
    reused_tokens: int = 0  # prompt tokens that did not have to
    decode_steps: int = 0
    decoded_tokens: int = 0  # by these steps; without the first token of each answer, which prefill gives
    drafted_tokens: int = 0  # guesses that went through the decoder (``mm.generation.speculation``)
    accepted_tokens: int = 0  # those of them that were right
    seconds: float = 0.0  # of the engine's thread in all steps: while the model computes
    flow_steps: int = 0  # of pictures drawn by flow, each over all positions of one picture


@dataclass
class Intake:
    """Requests that wait, shared by the engine's thread and everyone who submits. ``changed`` guards the rest."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: deque[Task] = field(default_factory=deque)
    closed: bool = False
    process: int | None = None  # where the engine's thread was started

    @property
    def is_foreign(self) -> bool:
        """Whether this is a forked process's copy, whose lock may be held by a thread that is not here."""
        return self.process not in (None, os.getpid())

    def close(self) -> None:
        """Take nothing in any more; the engine's thread ends within a step."""
        if not self.is_foreign:
            with self.changed:
                self.closed = True
                self.changed.notify_all()

    def tasks(self) -> list[Task]:
        """Those that wait now, longest first."""
        with self.changed:
            return list(self.waiting)

    def remove(self, task: Task) -> None:
        """Take it out, and let those in who wait for room."""
        with self.changed:
            self.waiting.remove(task)
            self.changed.notify_all()
