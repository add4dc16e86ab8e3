"""Drawing pictures with the engine: from prompts to codes or latents, from these to pixels, and which of them is best.

All pictures of a call are handed in together, as far as the memory goes; one that is whole is decoded in the caller's
thread, while the engine goes on with the others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm.chat import Message, TextPart, task_message
from mm.contracts import DrawingPrompt, Inputs
from mm.errors import ContextOverflowError, InputError
from mm.generation.engine import DEFAULT_SLOTS, Engine
from mm.generation.handle import Handle
from mm.generation.rerank import ClipScorer, ForcedTokens
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.generation.vq import to_bytes
from mm.out_of_memory import explained
from mm.pictures import Drawings, DrawOptions, Picture, Preview
from mm.processing.base import Processor
from mm.reply import AnyOf, CancelFlag
from mm.sketches import Sketch, Sketcher


@dataclass(eq=False)
class _Job:
    """One picture on its way."""

    prompt: str
    ids: DrawingPrompt
    seed: int | None
    sketch: Sketch
    handle: Handle | None = None
    pixels: Tensor | None = None  # (3, H, W) float32 on the CPU, once it is whole
    score: float | None = None

    @property
    def image(self) -> Image.Image:
        """The whole picture, its bytes truncated as published."""
        assert self.pixels is not None
        return Image.fromarray(to_bytes(self.pixels[None])[0])


class DrawingProgress:
    """Where a run is; given to ``callback_on_step`` in the thread that called for the pictures.

    The engine does not wait for the callback: one that takes long misses steps.

    Attributes:
        step: codes that are chosen, or steps that are taken, of all pictures.
        num_steps: codes or steps of all pictures.
        finished: pictures that are whole.
        num_pictures: how many are drawn, those that ``best_of`` leaves out included.
    """

    def __init__(self, jobs: Sequence[_Job], cancelled: CancelFlag) -> None:
        self._jobs = jobs
        self._cancelled = cancelled
        self.step = sum(job.sketch.num_done for job in jobs)
        self.num_steps = sum(job.sketch.num_steps for job in jobs)
        self.finished = sum(job.sketch.is_whole for job in jobs)
        self.num_pictures = len(jobs)

    def cancel(self) -> None:
        """End the run within one step; pictures that are whole by then are returned."""
        self._cancelled.set()

    def preview(self, picture: int = 0) -> Preview:
        """A picture so far: the rows of codes that are whole, decoded as a picture of less height; or what a flow
        leads to as it is now.

        Raises:
            InputError: there is no such picture.
        """
        if not 0 <= picture < len(self._jobs):
            raise InputError(f"there is no picture {picture}; expected 0 to {len(self._jobs) - 1}")
        return self._jobs[picture].sketch.preview()


class Drawer:
    """Draws with one model.

    Args:
        engine: made with the model's generation side.
        sketcher: of the model.
        processor: of the same checkpoint.
        context: most positions of prompt and picture together.
        name: of the model, for messages.
        device: where it is, for messages.
    """

    def __init__(
        self, engine: Engine, sketcher: Sketcher, processor: Processor, *, context: int, name: str, device: torch.device
    ) -> None:
        self._engine = engine
        self._sketcher = sketcher
        self._processor = processor
        self._context = context
        self._name = name
        self._device = device

    def draw(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str | None],
        options: DrawOptions,
        callback: Callable[[DrawingProgress], None] | None,
    ) -> Drawings:
        """All pictures of some prompts; see ``Pipeline.generate_images``."""
        jobs = self._jobs(prompts, negative_prompts, options)
        clip = ClipScorer.load() if options.judge == "clip" else None
        if options.judge == "self":
            blank = Image.new("RGB", (8, 8))
            for prompt in prompts:
                self._scoring(blank, prompt)  # refuses now what would not fit
        cancelled = CancelFlag()
        with self._running(cancelled):
            for job in self._drawn(jobs, options, cancelled, callback):
                job.pixels = job.sketch.pixels()
            ended_early = any(job.pixels is None for job in jobs)
            whole = [job for job in jobs if job.pixels is not None]
            if options.judge is not None and not ended_early:
                scores = self._own_scores(whole, options, cancelled) if clip is None else _clip_scores(whole, clip)
                for job, score in zip(whole, scores, strict=True):
                    job.score = score
                ended_early = any(job.score is None for job in whole)
        chosen: list[_Job] = []
        for index in range(len(prompts)):
            own = jobs[index * options.num_drawn : (index + 1) * options.num_drawn]
            own = [job for job in own if job.pixels is not None]
            if options.best_of is not None:
                own.sort(key=lambda job: -float("inf") if job.score is None else job.score, reverse=True)
            chosen += own[: options.num_images]
        return Drawings(
            images=_as_output(chosen, options, self._sketcher.size),
            pictures=tuple(
                Picture(prompt=job.prompt, seed=job.seed, codes=job.sketch.codes, score=job.score) for job in chosen
            ),
            cancelled=ended_early,
        )

    def _jobs(self, prompts: Sequence[str], negative_prompts: Sequence[str | None], options: DrawOptions) -> list[_Job]:
        """Everything before the model.

        Raises:
            InputError: a prompt cannot be used or does not fit the context.
        """
        positions = self._sketcher.num_positions
        generators = iter(options.generators(len(prompts)))
        jobs = []
        for prompt, negative in zip(prompts, negative_prompts, strict=True):
            ids = self._processor.drawing_prompt(prompt, negative)
            longest = max(len(ids.conditional), len(ids.unconditional))
            if longest + positions > self._context:
                raise ContextOverflowError(
                    f"the prompt takes {longest:,} tokens and a picture {positions:,}, but the context of "
                    f"{self._name} is {self._context:,} tokens. Shorten the prompt to "
                    f"{self._context - positions:,} tokens"
                )
            for _ in range(options.num_drawn):
                seed, generator = next(generators)
                jobs.append(_Job(prompt, ids, seed, self._sketcher.sketch(options, generator)))
        return jobs

    def _drawn(
        self,
        jobs: Sequence[_Job],
        options: DrawOptions,
        cancelled: CancelFlag,
        callback: Callable[[DrawingProgress], None] | None,
    ) -> Iterator[_Job]:
        """The pictures as they become whole."""
        news: SimpleQueue[_Job | None] = SimpleQueue()  # None: a step; else who has ended
        waiting, running = list(reversed(jobs)), 0
        most = options.batch_size or DEFAULT_SLOTS
        token = AnyOf(cancelled, options.cancel)

        def submit() -> int:
            started = 0
            while waiting and running + started < most and not token.is_set():
                job = waiting.pop()
                on_step = None if callback is None else partial(news.put, None)
                job.handle = job.sketch.start(self._engine, job.ids, options.guidance_scale, token, on_step)
                job.handle.when_ended(partial(news.put, job))
                started += 1
            return started

        running += submit()
        self._sketcher.warm_up()
        while running:
            ended = _all_of(news)
            if callback is not None:
                callback(DrawingProgress(jobs, cancelled))
            for job in ended:
                running -= 1
                assert job.handle is not None
                job.handle.result()
            running += submit()
            yield from (job for job in ended if job.sketch.is_whole)

    @contextmanager
    def _running(self, cancelled: CancelFlag) -> Iterator[None]:
        """What is handed in inside ends with the block, also by Ctrl-C."""
        try:
            with explained(self._memory_message):
                yield
        finally:
            cancelled.set()

    def _memory_message(self) -> str:
        return (
            f"out of memory on {self._device} while drawing: one picture with guidance needs two rows of the cache. "
            "Use guidance_scale=1 (one row), dtype='bfloat16', or a smaller model"
        )

    def _scoring(self, image: Image.Image, prompt: str) -> tuple[Inputs, list[int]]:
        """What is asked about a picture, and the tokens of the prompt as its answer.

        Raises:
            ContextOverflowError: they do not fit the context.
        """
        answer = Message("assistant", (TextPart(prompt),))
        inputs = self._processor.process((task_message("caption", [image]), answer))
        question = self._processor.process((task_message("caption", [image]),))
        start = question.num_tokens
        while not torch.equal(inputs.input_ids[:start], question.input_ids[:start]):
            start -= 1  # the last token of the question went on into the answer
        if inputs.num_tokens > self._context:
            raise ContextOverflowError(
                f"rerank='self' reads the picture and the prompt, {inputs.num_tokens:,} tokens, and the context of "
                f"{self._name} is {self._context:,}. Shorten the prompt or use rerank='clip'"
            )
        tokens = inputs.input_ids[start:].tolist()
        return replace(
            inputs, input_ids=inputs.input_ids[:start], image_mask=inputs.image_mask[:start], labels=None
        ), tokens

    def _own_scores(self, jobs: Sequence[_Job], options: DrawOptions, cancelled: CancelFlag) -> list[float | None]:
        """The log-likelihood of each prompt given its picture; None where the run was cancelled.

        The engine writes the prompt as the answer to the caption question: every other token is forbidden, and
        log-probabilities are the model's own.
        """
        tokenizer = self._processor.tokenizer
        vocab_size = self._engine.vocab_size
        rows, handles = [], []
        for job in jobs:
            inputs, tokens = self._scoring(job.image, job.prompt)
            row = Row(
                prompt_ids=inputs.input_ids,
                options=SamplingOptions(logprobs=True, detect_loops=False),
                max_new_tokens=len(tokens),
                end_ids=frozenset(),
                hidden_ids=frozenset(),
                decode=tokenizer.decode,
                constraint=ForcedTokens(tokens, vocab_size),
            )
            rows.append(row)
            handles.append(self._engine.submit(inputs, row, cancel=AnyOf(cancelled, options.cancel)))
        for handle in handles:
            handle.result()
        return [sum(row.logprobs) if row.finish_reason == "length" else None for row in rows]


def _clip_scores(jobs: Sequence[_Job], clip: ClipScorer) -> list[float | None]:
    return [clip.score(job.image, job.prompt) for job in jobs]


def _all_of(news: "SimpleQueue[_Job | None]") -> list[_Job]:
    """Wait for news, and take all there are: who has ended."""
    found: list[_Job] = []
    waited = False
    while True:
        try:
            job = news.get_nowait() if waited else news.get(timeout=0.5)  # without a limit, Ctrl-C may not get through
        except Empty:
            if waited:
                return found
            continue
        waited = True
        if job is not None:
            found.append(job)


def _as_output(
    jobs: Sequence[_Job], options: DrawOptions, size: tuple[int, int]
) -> "list[Image.Image] | np.ndarray[tuple[int, ...], np.dtype[np.float32]] | Tensor":
    if options.output_type == "pil":
        return [job.image for job in jobs]
    pixels = [job.pixels for job in jobs if job.pixels is not None]
    batch = torch.stack(pixels) if pixels else torch.empty(0, 3, *size)
    batch = ((batch + 1) / 2).clamp(0, 1)
    return batch if options.output_type == "pt" else batch.permute(0, 2, 3, 1).contiguous().numpy()
