"""The one loop that runs the decoder: which request does what in each step.

    waiting --admit--> prefilling (one at a time) --last chunk--> running --end--> ended
                 a slot with the longest known prefix      slots 0..n-1

A step does three things: one more token in every running answer; one share of prompt work for the request that is being
prefilled (an image through the encoder, or a chunk through the decoder); then the next token of every answer is chosen
and read back. Running answers therefore keep moving while a long prompt is taken in, and a request that ends makes room
at once. Running requests hold the first n rows of the cache, so that a step computes these and no others.

Answers are text or pictures (``mm.generation.task.Side``): what differs is what a hidden state becomes, and what the
decoder is given after a choice. A picture under guidance has two rows of the cache and is chosen once.

Letters: B rows computed, D hidden size, K ids that are chosen from, V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate, pairwise
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mm.contracts import Cache, Decoder, ImageHead, Inputs
from mm.devices import is_out_of_memory
from mm.errors import TaskError
from mm.generation.prompt import next_piece
from mm.generation.slots import CacheMemoryError, Slots
from mm.generation.task import Intake, Lane, Side, Statistics, Task
from mm.generation.text import PREFILL_CHUNK, VISIBLE_BLOCK, advance, decode_step, prefill
from mm.generation.threads import ThreadCount

T = TypeVar("T")

Embed = Callable[[Inputs], Tensor]
"""Embeddings (T, D) of a prompt or a piece of one, images in place."""


class Scheduler:
    """Runs the requests of an intake, step by step, in one thread.

    Args:
        decoder: the language model.
        embed: embeddings of prompts.
        device: where both are.
        num_slots: most requests that run together.
        image_head: the generation side, where there is one.
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
        image_head: ImageHead | None = None,
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
        self.num_slots = num_slots
        self.text = Side(decoder.embed, decoder.logits, num_ids=decoder.vocab_size, num_rows=num_slots, device=device)
        self.sides = [self.text]
        self.pictures: Side | None = None
        if image_head is not None:
            self.pictures = Side(
                image_head.embed, image_head.logits, num_ids=image_head.num_codes, num_rows=num_slots, device=device
            )
            self.sides.append(self.pictures)
        self.slots = Slots(decoder, device, num_slots if self.pictures is None else 2 * num_slots)
        self.lanes: list[Lane] = []  # of what runs; lanes[i] has slot i
        self.prefilling: Task | None = None
        self.statistics = Statistics()

    @property
    def running(self) -> list[Task]:
        """What runs now."""
        return [task for side in self.sides for task in side.running]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.lanes or self.prefilling or self.intake.waiting)

    def step(self) -> None:
        """One step; see the module."""
        waiting = self.intake.tasks()  # who comes later was not asked whether he is cancelled, and waits for a step
        self._drop_cancelled(waiting)
        if self.prefilling is None:
            self._admit(waiting)
        logits = self._decode() if self.lanes else {}
        if self.prefilling is not None:
            side = self._side(self.prefilling)
            first = self._prefill(self.prefilling)
            if first is not None:
                logits[side] = torch.cat((logits[side], first)) if side in logits else first
        for side, values in logits.items():
            self._choose(side, values)

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
        self.lanes, self.prefilling = [], None
        for side in self.sides:
            side.clear()
        self.slots.forget()
        for task in tasks:
            self._finish(task, error)

    def end_waiting(self, error: BaseException | None) -> None:
        """End every request that waits, likewise."""
        for task in self.intake.tasks():
            self._end(task, error)

    def _begun(self) -> list[Task]:
        return [*self.running, self.prefilling] if self.prefilling else self.running

    def _side(self, task: Task) -> Side:
        if not task.draws:
            return self.text
        assert self.pictures is not None
        return self.pictures

    # One request after another: in, and out

    def _drop_cancelled(self, waiting: list[Task]) -> None:
        for task in self._begun() + waiting:
            with self._failing_alone(task):
                if task.is_cancelled():
                    self._end(task)

    def _admit(self, waiting: list[Task]) -> None:
        """Begin with the request that has waited longest, when there is a slot for it."""
        task = next((task for task in waiting if not task.handle.ended), None)
        if task is None or sum(len(side.running) for side in self.sides) >= self.num_slots:
            return
        with self._failing_alone(task):
            version = None if self.version is None else self.version()
            if version != self._known_version:
                self.slots.distrust()
                self._known_version = version
            if self._with_room(partial(self._take_slots, task)):
                self.intake.remove(task)
                self.prefilling = task
                task.handle.reused_tokens = sum(lane.place.filled for lane in task.lanes)
                self.statistics.reused_tokens += task.handle.reused_tokens

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
            if taken and not self.lanes:  # nothing ends that would make room
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

    def _end(self, task: Task, error: BaseException | None = None) -> None:
        """Take a request out, wherever it stands. Its slot keeps what was computed, unless it failed."""
        try:
            self._take_out(task, keep=error is None)
        finally:  # whatever has become of the device, nobody waits for this request any longer
            self._finish(task, error)

    def _take_out(self, task: Task, *, keep: bool) -> None:
        if task.lanes[0].slot is None:
            self.intake.remove(task)
            return
        side = self._side(task)
        if task is self.prefilling:
            self.prefilling = None
        elif task in side.running:
            side.remove(task)
            for lane in task.lanes:
                last = len(self.lanes) - 1
                hole = lane.place.index
                self.lanes[hole] = self.lanes[last]
                self.lanes.pop()
                self.slots.move(lane.place, last)
        for lane in task.lanes:
            if not keep:
                self.slots.wipe(lane.place)
                continue
            written = lane.keys
            if not task.draws:  # a prompt may go on with a text; codes are no tokens
                written = np.concatenate((written, np.array(task.row.tokens, dtype=np.int64)))
            self.slots.give_back(lane.place, written[: lane.place.filled])  # its last token was not fed back

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

    def _decode(self) -> dict[Side, Tensor]:
        """Of each side that runs, (B, K) float32 logits after the newest choice of its answers."""
        sides = [side for side in self.sides if side.running]
        count = len(self.lanes)
        rows = min(2 ** (count - 1).bit_length(), len(self.slots.slots)) if self.rounds_rows else count
        ids, positions, drawn = [0] * rows, [self.slots.length] * rows, [0] * rows
        for side in sides:
            for task in side.running:
                for lane in task.lanes:
                    index = lane.place.index
                    ids[index], positions[index] = task.row.tokens[-1], lane.place.filled
                    drawn[index] = int(task.draws)
        visible = min((max(positions[:count]) // VISIBLE_BLOCK + 1) * VISIBLE_BLOCK, self.slots.length)
        # Rows of each side, in the order of its tasks: of their first lanes, then of their last ones.
        picks = [[task.lanes[end].place.index for end in (0, -1) for task in side.running] for side in sides]
        numbers = self._numbers([ids, positions, drawn, *picks])
        scales = [self._on_device(torch.tensor([[task.guidance_scale] for task in side.running])) for side in sides]
        cache = self.slots.leading(rows)
        self._use_threads(self.decode_threads)
        logits = self._with_room(partial(self._run, sides, numbers, scales, cache, visible))
        for lane in self.lanes:
            lane.place.filled += 1
        self.statistics.decode_steps += 1
        self.statistics.decoded_tokens += sum(len(side.running) for side in sides)
        return logits

    def _run(
        self, sides: list[Side], numbers: list[Tensor], scales: list[Tensor], cache: Cache, visible: int
    ) -> dict[Side, Tensor]:
        """The logits of each side."""
        if sides == [self.text]:
            logits = decode_step(self.decoder, numbers[0], numbers[1], cache, visible)
            return {self.text: logits[: len(self.text.running)]}
        hidden = advance(self.decoder, self._embed(sides, numbers[0], numbers[2]), numbers[1], cache, visible)
        found = {}
        for side, pick, scale in zip(sides, numbers[3:], scales, strict=True):
            if side.is_guided:
                found[side] = side.guided(hidden[pick], scale)
            else:
                found[side] = side.logits(hidden[pick[: len(side.running)]])
        return found

    def _embed(self, sides: list[Side], ids: Tensor, drawn: Tensor) -> Tensor:
        """(B, D), what the decoder is given after these choices (B,), of which ``drawn`` (B,) says 1 for codes."""
        if len(sides) == 1:
            return sides[0].embed(ids)
        text, pictures = sides
        return torch.where(drawn[:, None] == 1, pictures.embed(ids * drawn), text.embed(ids * (1 - drawn)))

    def _prefill(self, task: Task) -> Tensor | None:
        """One share of work for the prompt; (1, K) logits after its last token, when it has come to that."""
        side, first, left = self._side(task), None, self.chunk
        self._use_threads(None)
        with self._failing_alone(task):
            for lane in task.lanes:
                while lane.hidden is None and left:
                    done = self._take_in(lane, left)
                    if not done:
                        return None  # the encoder has had this step's share
                    left -= done
            if task.lanes[-1].hidden is not None:
                hidden = [lane.hidden for lane in task.lanes if lane.hidden is not None]
                if len(hidden) > 1:
                    scale = self._on_device(torch.tensor([[task.guidance_scale]]))
                    logits = side.guided(torch.cat(hidden), scale)
                else:
                    logits = side.logits(hidden[0])
                self.prefilling = None
                for lane in task.lanes:
                    lane.hidden = None
                    self.slots.move(lane.place, len(self.lanes))
                    self.lanes.append(lane)
                side.add(task)
                first = logits
        return first

    def _take_in(self, lane: Lane, most: int) -> int:
        """Up to ``most`` tokens of a prompt; how many went through the decoder, 0 where only an image was encoded."""
        slot = lane.place
        wanted = min(most, lane.inputs.num_tokens - slot.filled)
        while lane.embeds is None or lane.embeds.shape[0] < wanted:
            done = 0 if lane.embeds is None else lane.embeds.shape[0]
            piece = next_piece(lane.inputs, slot.filled + done)
            new = self._with_room(partial(self.embed, piece))
            lane.embeds = new if lane.embeds is None else torch.cat((lane.embeds, new))
            if piece.spans and self.lanes:
                return 0
        block, row = lane.embeds[:wanted], self.slots.row(slot)
        hidden = self._with_room(partial(prefill, self.decoder, block, slot.filled, row))
        lane.embeds = lane.embeds[wanted:]
        slot.filled += wanted
        self.statistics.prefilled_tokens += wanted
        if slot.filled == lane.inputs.num_tokens:
            lane.embeds, lane.hidden = None, hidden[-1:].clone()
        return wanted

    def _choose(self, side: Side, logits: Tensor) -> None:
        """Choose for every running answer of a side, read all choices back at once, and end what has ended."""
        tasks, errors = list(side.running), dict[Task, BaseException]()
        tokens, logprobs = side.sampler(logits, self._uniforms(side), self._allowed(side, errors))
        ids: list[int] = tokens.tolist()
        scores: list[float | None] = [None] * len(ids) if logprobs is None else logprobs.tolist()
        for task, token, score, values in zip(tasks, ids, scores, logits, strict=True):
            with self._failing_alone(task):
                if task in errors:
                    raise errors[task]
                if task.on_logits is not None:
                    task.on_logits(values)
                self._push(task, token, score)
                if task.on_step is not None:
                    task.on_step()
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

    def _uniforms(self, side: Side) -> Tensor:
        """(B,) float32, one new random number for each answer that samples."""
        values = [task.row.uniform() if task.row.options.samples else 0.0 for task in side.running]
        return self._on_device(torch.tensor(values))

    def _allowed(self, side: Side, errors: dict[Task, BaseException]) -> Tensor | None:
        """(B, K) bool of what constraints allow, None when nothing is constrained now."""
        masks = []
        for task in side.running:
            try:
                masks.append(task.row.allowed())
            except BaseException as error:  # as in _failing_alone, but the rows must keep their places for now
                errors[task] = error
                masks.append(None)
        if all(mask is None for mask in masks):
            return None
        free = torch.ones(side.num_ids, dtype=torch.bool)
        return self._on_device(torch.stack([free if mask is None else mask for mask in masks]))

    def _numbers(self, lists: list[list[int]]) -> list[Tensor]:
        """Each list as an int64 tensor where the decoder is; they go there in one piece."""
        borders = accumulate((len(numbers) for numbers in lists), initial=0)
        everything = self._on_device(torch.tensor([number for numbers in lists for number in numbers]))
        return [everything[start:stop] for start, stop in pairwise(borders)]

    def _on_device(self, tensor: Tensor) -> Tensor:
        """A copy where the decoder is, without waiting for what runs there."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _use_threads(self, count: int | None) -> None:
        if self.decode_threads is not None:
            self._threads.use(count)


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """Frames of the framework and of torch that an error's traceback leads to."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in [*frames, *(frame for frame, _ in walk_stack(frames[0].f_back if frames else None))]:
        if frame.f_globals.get("__name__", "").startswith(("mm.", "torch.", "timm.")):
            yield frame
