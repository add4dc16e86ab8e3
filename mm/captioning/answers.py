"""Prepared images in, answers out: a client of the engine that keeps it supplied."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from mm.captioning.prepare import Prepared, RefusedError
from mm.captioning.sources import Item
from mm.captioning.tasks import Task
from mm.errors import InputError
from mm.generation.handle import Handle
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.pipeline import Pipeline

RETRY_TEMPERATURE = 0.7  # a greedy answer that is wrong would be the same again


@dataclass(kw_only=True)
class Answer:
    """One image with the model.

    Attributes:
        text: what is written, once it has ended well.
        seed: of its random numbers; None where the most likely tokens were taken.
    """

    number: int
    item: Item
    prepared: Prepared
    started: float
    attempt: int = 0
    row: Row | None = None
    handle: Handle | None = None
    late: bool = False
    text: str = ""
    seed: int | None = None
    seconds: float = 0.0


class Asker:
    """Hands images to a pipeline's engine and judges the answers.

    Args:
        pipe: the model.
        task: what makes an answer good.
        sampling: of every image; a seed is the start of the seeds, each image has its own.
        timeout: most seconds for one answer.
        ended: called from the engine's thread with an answer that has ended.
    """

    def __init__(
        self,
        pipe: Pipeline,
        task: Task,
        sampling: SamplingOptions,
        timeout: float,
        ended: Callable[[Answer], None],
    ) -> None:
        self._pipe, self._task, self._sampling, self._timeout, self._ended = pipe, task, sampling, timeout, ended
        self.running: dict[int, Answer] = {}

    def ask(self, answer: Answer) -> None:
        """Begin an answer, or a further attempt at it.

        Raises:
            RefusedError: prompt and answer do not fit the context.
        """
        inputs, sampling = answer.prepared.inputs, self._sampling
        if answer.attempt:
            sampling = replace(sampling, do_sample=None, temperature=sampling.temperature or RETRY_TEMPERATURE)
        if sampling.samples:  # an image's own, whatever its place among the others
            identity = zlib.crc32(answer.item.id.encode("utf-8", errors="surrogateescape"))
            answer.seed = ((sampling.seed or 0) + (answer.attempt << 32) + identity) % 2**63
        answer.row = self._pipe.new_row(inputs, replace(sampling, seed=answer.seed))
        if answer.row is None:
            raise RefusedError(
                "context",
                f"the prompt takes {inputs.num_tokens} tokens and the answer {sampling.max_new_tokens or 1}, but the "
                f"context is {self._pipe.context}. Use fewer tiles (--max-tiles) or a shorter answer",
            )
        answer.handle = self._pipe.engine.submit(inputs, answer.row)
        self.running[answer.number] = answer
        if not self._task.wants_json:  # the pixels are needed for a second attempt only
            empty = inputs.pixels.new_empty((0, *inputs.pixels.shape[1:]))
            answer.prepared = replace(answer.prepared, inputs=replace(inputs, pixels=empty))
        answer.handle.when_ended(lambda: self._ended(answer))

    def judge(self, answer: Answer) -> bool:
        """Whether an ended answer is good (its ``text`` is set); False: it was asked again.

        Raises:
            RefusedError: it is not, and there is no further attempt.
            MMError: the engine failed.
        """
        assert answer.handle is not None and answer.row is not None
        self.running.pop(answer.number)
        try:
            answer.handle.result()
        except InputError as error:
            raise RefusedError("failed", str(error)) from error
        answer.seconds = time.monotonic() - answer.started
        if answer.late:
            raise RefusedError("timeout", f"the answer took longer than {self._timeout:g} s")
        text, reason = answer.handle.text, answer.row.finish_reason
        if reason == "loop":
            raise RefusedError("loop", f"the answer repeats itself: {text[:80]!r}")
        try:
            answer.text = self._task.finish(text)
        except ValueError as error:
            if not self._task.wants_json or answer.attempt >= self._task.retries:
                raise RefusedError("json" if self._task.wants_json else "empty", str(error)) from error
            answer.attempt += 1
            self.ask(answer)
            return False
        return True

    def end_late(self) -> None:
        """Cancel answers that take too long."""
        now = time.monotonic()
        for answer in self.running.values():
            if now - answer.started > self._timeout and answer.handle is not None:
                answer.late = True
                answer.handle.cancel()

    def cancel(self) -> None:
        """End everything within one step."""
        for answer in self.running.values():
            if answer.handle is not None:
                answer.handle.cancel()
