"""Which requests have a place: who comes in, who goes out, and what becomes of what went wrong.

A request waits in the intake, takes its rows of the cache (``mm.generation.slots``), is prefilled, runs, and ends. What
goes wrong in a caller's code or with his picture ends his request only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from traceback import clear_frames, walk_stack, walk_tb
from types import FrameType
from typing import TypeVar

import numpy as np
import torch

from mm.contracts import Decoder
from mm.devices import is_out_of_memory
from mm.generation.slots import CacheMemoryError, Slots
from mm.generation.steps import Steps
from mm.generation.task import ChosenTask, FlowTask, Intake, Lane, Side, Statistics, Task

T = TypeVar("T")


class Admission:
    """The requests of an engine, from their coming to their end. Used by the engine's thread only.

    Args:
        decoder: the language model.
        sides: kinds of answers: texts, and pictures where there is an image head.
        device: where all of it is.
        num_slots: most requests that run together.
        num_rows: most rows of the cache.
        version: of the weights; where it differs from before, nothing that was computed earlier is reused.
        release: gives up memory that only saves time; called when there is none left.
        graphs: record decode steps as CUDA graphs, on a CUDA device.
    """

    def __init__(
        self,
        decoder: Decoder,
        sides: Sequence[Side],
        *,
        device: torch.device,
        num_slots: int,
        num_rows: int,
        version: Callable[[], object] | None,
        release: Callable[[], None] | None,
        graphs: bool,
    ) -> None:
        self.sides = list(sides)
        self.device = device
        self.num_slots = num_slots
        self.version = version
        self.release = release
        self.intake = Intake()
        self.slots = Slots(decoder, device, num_rows)
        self.steps = Steps(decoder, self.sides, self.slots, device, num_rows, graphs=graphs)
        self.lanes: list[Lane] = []  # of what runs; lanes[i] has slot i
        self.prefilling: Task | None = None
        self.joined: list[Task] = []  # begun with it, and next
        self.flowing: FlowTask | None = None  # the picture that is being drawn by flow
        self.statistics = Statistics()
        self._failed: list[FrameType] = []
        self._known_version: object = None

    @property
    def choosing(self) -> list[ChosenTask]:
        """What runs now and is chosen id after id."""
        return [task for side in self.sides for task in side.running]

    @property
    def running(self) -> list[Task]:
        """What runs now."""
        return [*self.choosing, *([] if self.flowing is None else [self.flowing])]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.lanes or self.prefilling or self.joined or self.flowing or self.intake.waiting)

    def let_go(self) -> None:
        """Empty the calls in which requests have failed: who keeps an error must not keep the tensors and the engine
        that its traceback leads to. Its lines stay. To be called after a step. (A closure would escape this: a
        call keeps its function.)"""
        for frame in self._failed:
            with suppress(RuntimeError):  # still running: the engine's thread itself
                frame.clear()
        self._failed.clear()

    def end_begun(self, error: BaseException | None) -> None:
        """End every request that has a slot, with an error or as cancelled, and forget all that was computed."""
        tasks = self.begun()
        self.lanes, self.prefilling, self.joined, self.flowing = [], None, [], None
        try:
            for side in self.sides:
                side.clear()
            self.slots.forget()
            self.steps.clear()
        finally:  # a device that failed may refuse all that comes after it: nobody waits for these requests any longer
            for task in tasks:
                self._finish(task, error)

    def end_waiting(self, error: BaseException | None) -> None:
        """End every request that waits, likewise."""
        for task in self.intake.tasks():
            self.end(task, error)

    def begun(self) -> list[Task]:
        """Every request that has a slot."""
        return [*self.running, *([self.prefilling] if self.prefilling else []), *self.joined]

    def side_of(self, task: Task) -> Side:
        """What a request chooses from."""
        assert isinstance(task, ChosenTask)
        return self.sides[int(task.draws)]

    def drop_cancelled(self, waiting: list[Task]) -> None:
        """End what is not wanted any more."""
        for task in self.begun() + waiting:
            with self.failing_alone(task):
                if task.is_cancelled():
                    self.end(task)

    def admit(self, waiting: list[Task]) -> None:
        """Begin with the request that has waited longest, when there is a slot for it; those that have begun with the
        one before come first."""
        if self.joined:
            self.prefilling = self.joined.pop(0)
            return
        task = next((task for task in waiting if not task.handle.ended and self._may_begin(task)), None)
        if task is None or len(self.running) >= self.num_slots:
            return
        with self.failing_alone(task):
            version = None if self.version is None else self.version()
            if version != self._known_version:
                self.slots.distrust()
                self.steps.forget_graphs()
                self._known_version = version
            if self.begin(task):
                self.prefilling = task

    def begin(self, task: Task) -> bool:
        """Give a request that waits its slots, where there are any."""
        if not self.with_room(partial(self._take_slots, task)):
            return False
        self.intake.remove(task)
        for lane in task.lanes:
            if lane.embeds is not None:  # computed while it waited, from the prompt's beginning
                lane.embeds = lane.embeds[lane.place.filled :]
        task.number = self.statistics.begun
        self.statistics.begun += 1
        task.handle.reused_tokens = sum(lane.place.filled for lane in task.lanes)
        self.statistics.reused_tokens += task.handle.reused_tokens
        return True

    def _may_begin(self, task: Task) -> bool:
        """Whether it need not wait for another one to end: pictures by flow are drawn one after another."""
        return self.flowing is None or not isinstance(task, FlowTask)

    def _take_slots(self, task: Task) -> bool:
        """A slot for each lane, or none at all (False) while others have to end first.

        Raises:
            CacheMemoryError: they do not fit even alone.
        """
        taken: list[Lane] = []
        try:
            for lane in task.lanes:
                lane.slot = self.slots.take(lane.keys, lane.inputs.spans, task.length(lane))
                if lane.slot is None:
                    break
                taken.append(lane)
            if len(taken) == len(task.lanes):
                return True
            if taken and not self.begun():  # nothing ends that would make room
                raise CacheMemoryError(
                    f"a guided picture needs two rows of the cache, and {self.device} has memory for one. Use "
                    "guidance_scale=1, or free some memory."
                )
        except BaseException:
            self._give_back(taken)
            raise
        self._give_back(taken)
        return False

    def _give_back(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            self.slots.give_back(lane.place, lane.keys[: lane.place.filled])
            lane.slot = None

    def end(self, task: Task, error: BaseException | None = None) -> None:
        """Take a request out, wherever it stands. Its slot keeps what was computed, unless it failed."""
        try:
            self._take_out(task, keep=error is None)
        finally:  # whatever has become of the device, nobody waits for this request any longer
            self._finish(task, error)

    def _take_out(self, task: Task, *, keep: bool) -> None:
        if task.lanes[0].slot is None:
            self.intake.remove(task)
            return
        if task is self.prefilling:
            self.prefilling = None
        elif task in self.joined:
            self.joined.remove(task)
        elif task is self.flowing:
            self.flowing = None
        elif isinstance(task, ChosenTask) and task in self.side_of(task).running:
            self.side_of(task).remove(task)
            for lane in task.lanes:
                last = len(self.lanes) - 1
                hole = lane.place.index
                self.lanes[hole] = self.lanes[last]
                self.lanes.pop()
                self.slots.move(lane.place, last)
                self.steps.move(last, hole)
        for lane in task.lanes:
            if not keep:
                self.slots.wipe(lane.place)
                continue
            written = lane.keys
            if isinstance(task, ChosenTask) and not task.draws:  # a prompt may go on with a text; codes are no tokens
                written = np.concatenate((written, np.array(task.row.tokens, dtype=np.int64)))
            # Its last token was not fed back, unless a step ran ahead.
            self.slots.give_back(lane.place, written[: lane.place.filled])

    def _finish(self, task: Task, error: BaseException | None) -> None:
        """Tell the caller that it has ended."""
        for lane in task.lanes:
            lane.slot = lane.embeds = lane.hidden = None
        self.statistics.requests += 1
        if task.row.finish_reason is None:
            try:
                task.handle.add(task.row.finish("cancelled"))
            except BaseException as own:  # the caller's decoding of tokens to text
                task.row.finish_reason = "cancelled"
                error = error or own
        if error is not None:
            self._failed += _frames_of(error)
        task.handle.end(error)

    @contextmanager
    def failing_alone(self, task: Task) -> Iterator[None]:
        """What goes wrong inside, a caller's own code included, ends this request only."""
        try:
            yield
        except BaseException as error:  # a caller's token may raise anything; it is raised again where he waits
            if not task.handle.ended:
                self.end(task, error)

    def with_room(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Where memory is lacking, what is kept only to save time is given up, once."""
        try:
            return work()
        except (CacheMemoryError, MemoryError, RuntimeError) as error:
            kept = self.release is not None or self.steps.graphs is not None
            if not kept or not (isinstance(error, CacheMemoryError) or is_out_of_memory(error)):
                raise
        self.steps.forget_graphs()  # not in the block above: the error holds the tensors of what failed
        if self.release is not None:
            self.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return work()

    def shed(self, error: BaseException) -> None:
        """End the request that began last with ``error``, an allocation that failed: what it leaves may do for the
        others."""
        task = max(self.begun(), key=lambda task: task.number)
        self.end(task, error)
        clear_frames(error.__traceback__)  # they hold the tensors of the step that failed
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """Frames of the framework and of torch that an error's traceback leads to."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in [*frames, *(frame for frame, _ in walk_stack(frames[0].f_back if frames else None))]:
        if frame.f_globals.get("__name__", "").startswith(("mm.", "torch.", "timm.")):
            yield frame
