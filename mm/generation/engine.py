"""The engine: one thread that owns a decoder, and requests from any number of threads and event loops.

    engine = Engine(decoder, embed, device=device)
    handle = engine.submit(inputs, row)
    for piece in handle: ...          # or: async for piece in handle; or: handle.result()

``mm.generation.scheduler`` says what the thread does. Everything that answers runs through here: nothing else runs a
decode loop, but for one that is measured (``mm.evaluation.drafting``). Several tokens of an answer may come from one
step: ``mm.generation.speculation``.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from mm.contracts import CancelToken, Decoder, DrawingPrompt, FlowHead, ImageHead, Inputs
from mm.devices import steady_attention
from mm.errors import BusyError, OptionError, ResourceError
from mm.generation.flow_picture import FlowRow
from mm.generation.graphs import StepGraphs
from mm.generation.handle import Handle
from mm.generation.image import ImageRow, prompt_inputs
from mm.generation.prompt import token_keys
from mm.generation.row import Row
from mm.generation.scheduler import Embed, EmbedMany, Scheduler
from mm.generation.task import ChosenTask, FlowLane, FlowTask, Intake, Lane, Statistics, Task
from mm.generation.text import GPU_PREFILL_CHUNK, PREFILL_CHUNK

DEFAULT_SLOTS = 16
DEFAULT_QUEUE = 256


class Engine:
    """Answers requests with one decoder, many at once.

    The answer to a request does not depend on what else runs. Prompts that begin like one that was answered lately are
    computed from where they differ. The thread starts with the first request; it ends with ``close``, when the engine
    is garbage, and at the end of the process.

    Args:
        decoder: the language model.
        embed: embeddings (T, D) of a prompt or a piece of one, images in place; called from the engine's thread.
        device: where both are.
        image_head: the generation side, where there is one: what ``draw`` needs for pictures of codes.
        flow_head: likewise for pictures by flow.
        num_slots: most requests that run together; less where the memory does not suffice.
        max_waiting: most requests that wait for one of these places.
        chunk: most prompt tokens that go through the decoder at once; None takes what suits the device.
        decode_threads: CPU threads of a decode step; None leaves torch's setting.
        version: of the weights, asked for with every request; where it differs from before, nothing that was computed
            earlier is reused. None: they never change.
        release: gives up memory that only saves time; called from the engine's thread when there is none left.
        graphs: on CUDA, record decode steps as graphs and replay them (``mm.generation.graphs``).
        embed_many: embeddings of several prompts, their images encoded together. Where given, only the last answer is
            waited for: a step takes in prompts until its places are full, and embeds those that wait with the first
            of them. None keeps what runs moving while a prompt is taken in.

    Raises:
        OptionError: a number below 1.
    """

    def __init__(
        self,
        decoder: Decoder,
        embed: Embed,
        *,
        device: torch.device,
        image_head: ImageHead | None = None,
        flow_head: FlowHead | None = None,
        num_slots: int = DEFAULT_SLOTS,
        max_waiting: int = DEFAULT_QUEUE,
        chunk: int | None = None,
        decode_threads: int | None = None,
        version: Callable[[], object] | None = None,
        release: Callable[[], None] | None = None,
        graphs: bool = True,
        embed_many: EmbedMany | None = None,
    ) -> None:
        if chunk is None:
            chunk = GPU_PREFILL_CHUNK if device.type == "cuda" else PREFILL_CHUNK
        for name, value in (("num_slots", num_slots), ("max_waiting", max_waiting), ("chunk", chunk)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"{name} is {value!r}; expected a whole number of 1 or more.")
        self.max_waiting = max_waiting
        self._scheduler = Scheduler(
            decoder,
            embed,
            device=device,
            num_slots=num_slots,
            image_head=image_head,
            flow_head=flow_head,
            chunk=chunk,
            decode_threads=decode_threads,
            version=version,
            release=release,
            graphs=graphs,
            embed_many=embed_many,
        )
        self._worker: threading.Thread | None = None
        # The thread knows the scheduler, not the engine: when nobody has the engine any more, this ends the thread.
        weakref.finalize(self, self._scheduler.intake.close).atexit = False

    @property
    def vocab_size(self) -> int:
        """Tokens that texts are chosen from."""
        return self._scheduler.text.num_ids

    @property
    def statistics(self) -> Statistics:
        """Counts since the start."""
        return self._scheduler.statistics

    @property
    def graphs(self) -> StepGraphs | None:
        """The recorded decode steps: how many, how often replayed, and what recording took; None where there are
        none."""
        return self._scheduler.steps.graphs

    @property
    def cache_bytes(self) -> int:
        """Memory that the cache takes now."""
        return self._scheduler.slots.num_bytes

    def submit(
        self,
        inputs: Inputs,
        row: Row,
        *,
        cancel: CancelToken | None = None,
        on_piece: Callable[[str], None] | None = None,
        on_logits: Callable[[Tensor], None] | None = None,
        block: bool = True,
        timeout: float | None = None,
    ) -> Handle:
        """Hand a request in. May be called from any thread.

        Args:
            inputs: the prompt.
            row: a fresh row: options, limits and stop rules of the answer.
            cancel: asked before every step; see also ``Handle.cancel``.
            on_piece: called from the engine's thread with each piece of text. Must be quick. What it raises ends the
                request.
            on_logits: likewise with the logits (V,) float32 of each token, before penalties and temperature; not to
                be written to.
            block: when the queue is full: wait for room (True) or raise at once.
            timeout: most seconds to wait for room.

        Raises:
            BusyError: the queue is full.
            ResourceError: the engine is closed.
        """
        task = ChosenTask(
            lanes=(Lane(inputs=inputs, keys=token_keys(inputs)),),
            row=row,
            handle=Handle(row),
            cancel=cancel,
            on_piece=on_piece,
            on_logits=on_logits,
        )
        return self._hand_in(task, block=block, timeout=timeout)

    def draw(
        self,
        prompt: DrawingPrompt,
        row: ImageRow,
        *,
        guidance_scale: float,
        cancel: CancelToken | None = None,
        on_step: Callable[[], None] | None = None,
        on_logits: Callable[[Tensor], None] | None = None,
        block: bool = True,
        timeout: float | None = None,
    ) -> Handle:
        """Hand a picture in; otherwise as ``submit``. It shares the engine with all other requests.

        Args:
            prompt: what to draw, and what guidance leads away from.
            row: a fresh row: options and random numbers of the picture.
            guidance_scale: 1 runs without the unconditional prompt.
            cancel: see ``submit``.
            on_step: called from the engine's thread after each code. Must be quick. What it raises ends the request.
            on_logits: likewise with the guided logits (K,) float32, before temperature.
            block: see ``submit``.
            timeout: see ``submit``.

        Raises:
            BusyError: the queue is full.
            ResourceError: the engine is closed.
        """
        assert self._scheduler.pictures is not None, "the engine was made without an image head"
        ids = (prompt.conditional,) if guidance_scale == 1 else (prompt.conditional, prompt.unconditional)
        task = ChosenTask(
            lanes=tuple(Lane(inputs=inputs, keys=token_keys(inputs)) for inputs in map(prompt_inputs, ids)),
            row=row,
            handle=Handle(row),
            draws=True,
            guidance_scale=guidance_scale,
            cancel=cancel,
            on_step=on_step,
            on_logits=on_logits,
        )
        return self._hand_in(task, block=block, timeout=timeout)

    def draw_flow(
        self,
        prompt: DrawingPrompt,
        row: FlowRow,
        *,
        guidance_scale: float,
        cancel: CancelToken | None = None,
        on_step: Callable[[], None] | None = None,
        block: bool = True,
        timeout: float | None = None,
    ) -> Handle:
        """Hand a picture in that is drawn by flow; otherwise as ``draw``, ``on_step`` being called after each step."""
        assert self._scheduler.flow_head is not None, "the engine was made without a flow head"
        attended = len(prompt.unconditional) - 1 if prompt.attended is None else prompt.attended
        # The last token of either prompt gives its place to the time.
        places = [(prompt.conditional[:-1], len(prompt.conditional) - 1)]
        if guidance_scale != 1:
            places.append((prompt.unconditional[:attended], len(prompt.unconditional) - 1))
        # No keys: prompts are not looked for in the cache. What was computed in other pieces differs in its last bits,
        # and a prompt to draw is short beside one step of its picture.
        keys = token_keys(prompt_inputs(prompt.conditional[:0]))
        task = FlowTask(
            lanes=tuple(FlowLane(inputs=prompt_inputs(ids), keys=keys, begin=begin) for ids, begin in places),
            row=row,
            handle=Handle(row),
            guidance_scale=guidance_scale,
            cancel=cancel,
            on_step=on_step,
        )
        return self._hand_in(task, block=block, timeout=timeout)

    def _hand_in(self, task: Task, *, block: bool, timeout: float | None) -> Handle:
        intake = self._scheduler.intake
        if intake.is_foreign:
            raise ResourceError(
                "the engine was started before this process was forked, and its thread did not come along. Make a new "
                "one here, or start processes with multiprocessing's 'spawn'."
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        with intake.changed:
            while not intake.closed and len(intake.waiting) >= self.max_waiting:
                left = None if deadline is None else deadline - time.monotonic()
                full = not block or (left is not None and left <= 0)
                if full or threading.current_thread() is self._worker:  # who would make room?
                    raise BusyError(
                        f"{len(intake.waiting)} requests are waiting, and the limit is {self.max_waiting}. Try again "
                        "later, or wait for room with block=True."
                    )
                intake.changed.wait(0.5 if left is None else min(left, 0.5))
            if intake.closed:
                raise ResourceError("the engine is closed. Make a new one.")
            if self._worker is None or self._worker.ident is None:
                # Written down before it starts: after a Ctrl-C in between, a second one must not join the first.
                self._worker = _new_worker(self._scheduler)
                self._worker.start()
            intake.waiting.append(task)
            intake.changed.notify_all()
        return task.handle

    def close(self) -> None:
        """End the thread within one step and give the memory back. What still runs or waits ends as "cancelled"."""
        self._scheduler.intake.close()
        if self._worker is not None and self._worker.ident and self._worker is not threading.current_thread():
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Threads that run, each with the intake whose closing ends it. They are held here until they have ended to their last
# instruction: a thread that frees a model while the interpreter is taken down aborts the process (torch gives up the
# interpreter's lock when it frees a tensor, and would never get it back).
_workers: dict[threading.Thread, Intake] = {}


def _new_worker(scheduler: Scheduler) -> threading.Thread:
    for thread in list(_workers):
        if not thread.is_alive():
            _workers.pop(thread, None)
    worker = threading.Thread(target=_work, args=(scheduler,), name="mm-engine", daemon=True)
    scheduler.intake.process = os.getpid()
    _workers[worker] = scheduler.intake
    return worker


def _has_work(scheduler: Scheduler) -> bool:
    """Wait for a request, or for the end; False at the end."""
    intake = scheduler.intake
    with intake.changed:
        intake.changed.wait_for(lambda: intake.closed or not scheduler.idle)
        return not intake.closed


def _work(scheduler: Scheduler) -> None:
    """The engine's thread."""
    intake, error = scheduler.intake, None
    try:
        if scheduler.device.type == "cuda" and scheduler.device.index is not None:
            torch.cuda.set_device(scheduler.device)
        with torch.inference_mode():
            while _has_work(scheduler):
                started = time.monotonic()
                try:
                    with steady_attention(scheduler.device):
                        scheduler.step()
                except BaseException as failure:  # not of one request: a decode step failed
                    scheduler.end_begun(failure)
                scheduler.statistics.seconds += time.monotonic() - started
                scheduler.let_go()
    except BaseException as failure:
        error = failure
        raise
    finally:  # nobody may wait for a thread that has ended
        intake.close()
        try:
            scheduler.end_begun(error)
        finally:
            scheduler.end_waiting(error)
            scheduler.let_go()
            del scheduler  # tracebacks of failed requests lead here


@atexit.register
def _close_all() -> None:
    """Wait for all threads, each for the end of its step."""
    try:
        for intake in list(_workers.values()):
            intake.close()
        for worker in list(_workers):
            while worker.is_alive():
                worker.join(timeout=0.5)  # without a limit, Ctrl-C would not get through everywhere
    except KeyboardInterrupt:
        os._exit(130)  # a long step of a large model: going on beside it would abort the process


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_workers.clear)
