"""Conversations that are ready for the model, and their way through the engine to an answer."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from mm.config import Quantization
from mm.contracts import Inputs
from mm.generation.engine import Engine
from mm.generation.handle import Handle
from mm.generation.reasoning import split_reasoning
from mm.generation.row import Row
from mm.grounding import parse_boxes
from mm.out_of_memory import explained, run_message
from mm.reply import AnyOf, CancelFlag, Reply, TextStream, Usage
from mm.request import Settings


@dataclass
class Job:
    """One conversation on its way to an answer."""

    inputs: Inputs  # without its pixels once it is handed in
    settings: Settings
    row: Row
    handle: Handle | None = None  # once it is handed in
    number: int = 0  # in its batch

    def drop_pixels(self) -> None:
        """Give their memory back."""
        self.inputs = replace(self.inputs, pixels=self.inputs.pixels.new_empty((0, *self.inputs.pixels.shape[1:])))


class Answering:
    """Hands conversations to an engine and makes replies of what comes back. May be shared by threads.

    Args:
        engine: what answers.
        folder: of the model, if it came from files; for messages.
        device: where the model is, for messages.
        dtype: of the model, likewise.
        quantization: of its weights, likewise.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path | None,
        device: torch.device,
        dtype: torch.dtype,
        quantization: Quantization | None = None,
    ) -> None:
        self._engine = engine
        self._folder, self._device, self._dtype, self._quantization = folder, device, dtype, quantization

    def stream(self, job: Job) -> TextStream:
        """The answer as it comes; nothing runs before it is read."""
        cancelled = CancelFlag()

        def pieces() -> Iterator[str]:
            with self._submitted(lambda: [job], cancelled):
                self._submit(job, cancelled)
                assert job.handle is not None
                yield from job.handle

        async def async_pieces() -> AsyncIterator[str]:
            with self._submitted(lambda: [job], cancelled):
                self._submit(job, cancelled, block=False)
                assert job.handle is not None
                async for piece in job.handle:
                    yield piece

        return TextStream(pieces(), async_pieces(), lambda: self._reply(job), cancelled, job.inputs.reasoning)

    def answers(self, jobs: Iterable[Job], batch_size: int) -> Iterator[tuple[int, Reply]]:
        """Number and reply of each job, as they end. At most ``batch_size`` run together; the next one is taken when
        one has ended, so that no more than these are in memory."""
        cancelled = CancelFlag()
        ended: SimpleQueue[Job] = SimpleQueue()
        running: dict[int, Job] = {}

        def next_reply() -> tuple[int, Reply]:
            while True:
                try:
                    job = ended.get(timeout=0.5)  # without a limit, Ctrl-C would not get through everywhere
                    break
                except Empty:
                    continue
            reply = self._reply(job)
            del running[job.number]
            return job.number, reply

        with self._submitted(running.values, cancelled):
            for number, job in enumerate(jobs):
                job.number = number
                running[number] = job
                self._submit(job, cancelled).when_ended(partial(ended.put, job))
                if len(running) == batch_size:
                    yield next_reply()
            while running:
                yield next_reply()

    def _submit(self, job: Job, cancelled: CancelFlag, *, block: bool = True) -> Handle:
        cancel = AnyOf(cancelled, job.settings.cancel)
        job.handle = self._engine.submit(job.inputs, job.row, cancel=cancel, block=block)
        job.drop_pixels()
        return job.handle

    @contextmanager
    def _submitted(self, jobs: Callable[[], Iterable[Job]], cancelled: CancelFlag) -> Iterator[None]:
        """What is handed in inside ends with the block, also by Ctrl-C or when nobody reads on."""
        try:
            with explained(lambda: self._memory_message(list(jobs()))):
                yield
        finally:
            cancelled.set()

    def _memory_message(self, jobs: list[Job]) -> str:
        """Why these jobs did not fit together, and what would."""
        from mm.planner import Workload

        largest = max(jobs, key=lambda job: job.inputs.num_tokens)
        spans = largest.inputs.spans
        work = Workload(
            prompt_tokens=largest.inputs.num_tokens - int(largest.inputs.image_mask.sum()),
            images=len(spans),
            image_size=(spans[0].width, spans[0].height) if spans else None,
            max_new_tokens=max(job.row.max_new_tokens for job in jobs),
            batch=len(jobs),
            max_tiles=largest.settings.max_tiles,
        )
        return run_message(self._folder, self._device, self._dtype, work, self._quantization)

    def _reply(self, job: Job) -> Reply:
        """The whole answer of a job, once it has ended; raises what it failed with."""
        row, inputs, text = job.row, job.inputs, ""
        if job.handle is not None:
            job.handle.result()
            text = job.handle.text
        elif row.finish_reason is None:  # interrupted before it was handed in
            row.finish("cancelled")
        assert row.finish_reason is not None
        raw_text, reasoning = row.raw_text(), None
        if inputs.reasoning is not None:
            reasoning, text = split_reasoning(text, inputs.reasoning)
        return Reply(
            text=text,
            reasoning=reasoning,
            finish_reason=row.finish_reason,
            usage=Usage(
                prompt_tokens=inputs.num_tokens,
                image_tokens=int(inputs.image_mask.sum()),
                completion_tokens=len(row.tokens),
            ),
            boxes=tuple(parse_boxes(raw_text, [(span.width, span.height) for span in inputs.spans])),
            raw_text=raw_text,
            token_ids=tuple(row.tokens),
            logprobs=tuple(row.logprobs) if row.options.logprobs else None,
        )
