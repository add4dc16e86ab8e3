"""The one loop that runs the decoder: which request does what in each step.

    waiting --admit--> prefilling (one at a time) --last chunk--> running --end--> ended
                 a slot with the longest known prefix      slots 0..n-1

A step does three things: one more token in every running answer; one share of prompt work for the request that is being
prefilled (an image through the encoder, or a chunk through the decoder); then the next token of every answer is chosen
and read back. Running answers therefore keep moving while a long prompt is taken in, and a request that ends makes room
at once. Running requests hold the first n rows of the cache, so that a step computes these and no others.

Letters: B rows computed, V vocabulary.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mm.contracts import CancelToken, Decoder, Inputs
from mm.devices import is_out_of_memory
from mm.errors import TaskError
from mm.generation.handle import Handle
from mm.generation.prompt import Keys, next_piece
from mm.generation.row import Row
from mm.generation.sampling import BatchSampler
from mm.generation.slots import CacheMemoryError, Slot, Slots
from mm.generation.text import PREFILL_CHUNK, VISIBLE_BLOCK, decode_step, prefill
from mm.generation.threads import ThreadCount

T = TypeVar("T")

Embed = Callable[[Inputs], Tensor]
"""Embeddings (T, D) of a prompt or a piece of one, images in place."""


@dataclass(eq=False, kw_only=True)
class Task:
    """A request as the scheduler sees it."""

    inputs: Inputs
    keys: Keys  # of the prompt
    row: Row
    handle: Handle
    cancel: CancelToken | None = None
    on_piece: Callable[[str], None] | None = None
    on_logits: Callable[[Tensor], None] | None = None
    slot: Slot | None = None
    embeds: Tensor | None = None  # of the positions from slot.filled on, as far as computed

    @property
    def length(self) -> int:
        """Positions that prompt and answer may fill."""
        return self.inputs.num_tokens + self.row.max_new_tokens

    def is_cancelled(self) -> bool:
        """Whether its caller wants it to end."""
        return self.handle.cancelled or (self.cancel is not None and self.cancel.is_set())


@dataclass
class Statistics:
    """What an engine has done since its start."""

    requests: int = 0  # ended, however
    prefilled_tokens: int = 0  # prompt tokens that went through the decoder
    reused_tokens: int = 0  # prompt tokens that did not have to
    decode_steps: int = 0
    decoded_tokens: int = 0  # by these steps; without the first token of each answer, which prefill gives


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


class Scheduler:
    """Runs the requests of an intake, step by step, in one thread.

    Args:
        decoder: the language model.
        embed: embeddings of prompts.
        device: where both are.
        num_slots: most requests that run together.
        chunk: most prompt tokens that go through the decoder at once.
        decode_threads: CPU threads of a decode step; None leaves torch's setting.
        version: of the weights; where it differs from before, nothing that was computed earlier is reused.
        release: gives up memory that only saves time; called when there is none left.
    """

    def __init__(
        self,
        decoder: Decoder,
        embed: Embed,
        *,
        device: torch.device,
        num_slots: int,
        chunk: int = PREFILL_CHUNK,
        decode_threads: int | None = None,
        version: Callable[[], object] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.decoder = decoder
        self.embed = embed
        self.device = device
        self.chunk = chunk
        self.decode_threads = decode_threads
        self._threads = ThreadCount()
        self._failed: list[FrameType] = []
        self.version = version
        self.release = release
        self._known_version: object = None
        # On an accelerator few batch sizes occur, for its graphs. What the rows beyond compute is not read, and they
        # write it to the position that no request uses. A CPU computes the running rows only.
        self.rounds_rows = device.type != "cpu"
        self.intake = Intake()
        self.slots = Slots(decoder, device, num_slots)
        self.sampler = BatchSampler(num_slots, decoder.vocab_size, 1, device)
        self.running: list[Task] = []  # running[i] has slot i
        self.prefilling: Task | None = None
        self.statistics = Statistics()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.running or self.prefilling or self.intake.waiting)

    def step(self) -> None:
        """One step; see the module."""
        waiting = self.intake.tasks()  # who comes later was not asked whether he is cancelled, and waits for a step
        self._drop_cancelled(waiting)
        if self.prefilling is None:
            self._admit(waiting)
        logits = self._decode() if self.running else None
        if self.prefilling is not None:
            first = self._prefill(self.prefilling)
            if first is not None:
                logits = first if logits is None else torch.cat((logits, first))
        if logits is not None:
            self._choose(logits)

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
        tasks = self._begun()
        for index in range(len(self.running)):
            self.sampler.free(index)
        self.running, self.prefilling = [], None
        self.slots.forget()
        for task in tasks:
            self._finish(task, error)

    def end_waiting(self, error: BaseException | None) -> None:
        """End every request that waits, likewise."""
        for task in self.intake.tasks():
            self._end(task, error)

    def _begun(self) -> list[Task]:
        return [*self.running, self.prefilling] if self.prefilling else list(self.running)

    # One request after another: in, and out

    def _drop_cancelled(self, waiting: list[Task]) -> None:
        for task in self._begun() + waiting:
            with self._failing_alone(task):
                if task.is_cancelled():
                    self._end(task)

    def _admit(self, waiting: list[Task]) -> None:
        """Begin with the request that has waited longest, when there is a slot for it."""
        task = next((task for task in waiting if not task.handle.ended), None)
        if task is None:
            return
        with self._failing_alone(task):
            version = None if self.version is None else self.version()
            if version != self._known_version:
                self.slots.distrust()
                self._known_version = version
            task.slot = self._with_room(partial(self.slots.take, task.keys, task.inputs.spans, task.length))
            if task.slot is not None:
                self.intake.remove(task)
                self.prefilling = task
                task.handle.reused_tokens = task.slot.filled
                self.statistics.reused_tokens += task.slot.filled

    def _end(self, task: Task, error: BaseException | None = None) -> None:
        """Take a request out, wherever it stands. Its slot keeps what was computed, unless it failed."""
        try:
            self._take_out(task, keep=error is None)
        finally:  # whatever has become of the device, nobody waits for this request any longer
            self._finish(task, error)

    def _take_out(self, task: Task, *, keep: bool) -> None:
        slot = task.slot
        if slot is None:
            self.intake.remove(task)
            return
        if task is self.prefilling:
            self.prefilling = None
        elif task in self.running:
            last = len(self.running) - 1
            hole = slot.index
            self.running[hole] = self.running[last]
            self.running.pop()
            self.slots.move(slot, last)
            self.sampler.swap(hole, last)
            self.sampler.free(last)
        if keep:
            written = np.concatenate((task.keys, np.array(task.row.tokens, dtype=np.int64)))
            self.slots.give_back(slot, written[: slot.filled])  # the last token of an answer was not fed back
        else:
            self.slots.wipe(slot)

    def _finish(self, task: Task, error: BaseException | None) -> None:
        """Tell the caller that it has ended."""
        task.slot = task.embeds = None
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
    def _failing_alone(self, task: Task) -> Iterator[None]:
        """What goes wrong inside, a caller's own code included, ends this request only."""
        try:
            yield
        except BaseException as error:  # a caller's token may raise anything; it is raised again where he waits
            if not task.handle.ended:
                self._end(task, error)

    def _with_room(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Where memory is lacking, what is kept only to save time is given up, once."""
        try:
            return work()
        except (CacheMemoryError, MemoryError, RuntimeError) as error:
            if self.release is None or not (isinstance(error, CacheMemoryError) or is_out_of_memory(error)):
                raise
        self.release()  # not in the block above: the error holds the tensors of what failed
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return work()

    # The three parts of a step

    def _decode(self) -> Tensor:
        """(B, V) float32 logits after the newest token of every running answer."""
        tokens = [task.row.tokens[-1] for task in self.running]
        positions = [self._slot(task).filled for task in self.running]
        visible = min((max(positions) // VISIBLE_BLOCK + 1) * VISIBLE_BLOCK, self.slots.length)
        count = len(tokens)
        beyond = min(2 ** (count - 1).bit_length(), len(self.slots.slots)) - count if self.rounds_rows else 0
        inputs = self._on_device(torch.tensor([tokens + [0] * beyond, positions + [self.slots.length] * beyond]))
        cache = self.slots.leading(count + beyond)
        self._use_threads(self.decode_threads)
        logits = self._with_room(partial(decode_step, self.decoder, inputs[0], inputs[1], cache, visible))
        for task in self.running:
            self._slot(task).filled += 1
        self.statistics.decode_steps += 1
        self.statistics.decoded_tokens += count
        return logits[:count]

    def _prefill(self, task: Task) -> Tensor | None:
        """One share of work for the prompt; (1, V) logits after its last token, when it has come to that."""
        slot, first = self._slot(task), None
        self._use_threads(None)
        with self._failing_alone(task):
            wanted = min(self.chunk, task.inputs.num_tokens - slot.filled)
            while task.embeds is None or task.embeds.shape[0] < wanted:
                done = 0 if task.embeds is None else task.embeds.shape[0]
                piece = next_piece(task.inputs, slot.filled + done)
                new = self._with_room(partial(self.embed, piece))
                task.embeds = new if task.embeds is None else torch.cat((task.embeds, new))
                if piece.spans and self.running:
                    return None  # the encoder has had this step's share
            block, row = task.embeds[:wanted], self.slots.row(slot)
            hidden = self._with_room(partial(prefill, self.decoder, block, slot.filled, row))
            task.embeds = task.embeds[wanted:]
            slot.filled += wanted
            self.statistics.prefilled_tokens += wanted
            if slot.filled == task.inputs.num_tokens:
                logits = self.decoder.logits(hidden[-1:])
                task.embeds = None
                self.prefilling = None
                index = len(self.running)
                self.slots.move(slot, index)
                self.running.append(task)
                self.sampler.place(index, task.row.options, task.row.prompt_ids, task.row.max_new_tokens)
                first = logits
        return first

    def _choose(self, logits: Tensor) -> None:
        """Choose the next token of every running answer, read all of them back at once, and end what has ended."""
        tasks, errors = list(self.running), dict[Task, BaseException]()
        tokens, logprobs = self.sampler(logits, self._uniforms(), self._allowed(errors))
        ids: list[int] = tokens.tolist()
        scores: list[float | None] = [None] * len(ids) if logprobs is None else logprobs.tolist()
        for task, token, score, values in zip(tasks, ids, scores, logits, strict=True):
            with self._failing_alone(task):
                if task in errors:
                    raise errors[task]
                if task.on_logits is not None:
                    task.on_logits(values)
                self._push(task, token, score)
                if task.row.finish_reason is not None:
                    self._end(task)

    def _push(self, task: Task, token: int, score: float | None) -> None:
        if token < 0:
            raise TaskError(
                f"the model's output at token {len(task.row.tokens) + 1} of the answer is not a number. In float16 "
                "this is an overflow: load the model with dtype='bfloat16' or 'float32'. Otherwise its weights are "
                "damaged."
            )
        piece = task.row.push(token, score)
        task.handle.add(piece)
        if piece and task.on_piece is not None:
            task.on_piece(piece)

    def _uniforms(self) -> Tensor:
        """(B,) float32, one new random number for each answer that samples."""
        values = [task.row.uniform() if task.row.options.samples else 0.0 for task in self.running]
        return self._on_device(torch.tensor(values))

    def _allowed(self, errors: dict[Task, BaseException]) -> Tensor | None:
        """(B, V) bool of the tokens that constraints allow, None when nothing is constrained now."""
        masks = []
        for task in self.running:
            try:
                masks.append(task.row.allowed())
            except BaseException as error:  # as in _failing_alone, but the rows must keep their places for now
                errors[task] = error
                masks.append(None)
        if all(mask is None for mask in masks):
            return None
        free = torch.ones(self.decoder.vocab_size, dtype=torch.bool)
        return self._on_device(torch.stack([free if mask is None else mask for mask in masks]))

    def _on_device(self, tensor: Tensor) -> Tensor:
        """A copy where the decoder is, without waiting for what runs there."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _use_threads(self, count: int | None) -> None:
        if self.decode_threads is not None:
            self._threads.use(count)

    @staticmethod
    def _slot(task: Task) -> Slot:
        assert task.slot is not None
        return task.slot


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """Frames of the framework and of torch that an error's traceback leads to."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in [*frames, *(frame for frame, _ in walk_stack(frames[0].f_back if frames else None))]:
        if frame.f_globals.get("__name__", "").startswith(("mm.", "torch.", "timm.")):
            yield frame
