"""The one loop that runs the decoder: which request does what in each step.

    waiting --admit--> prefilling (one at a time) --last chunk--> running --end--> ended
                 a slot with the longest known prefix      slots 0..n-1

A step does three things: one more token in every running answer; one share of prompt work for the request that is being
prefilled (an image through the encoder, or a chunk through the decoder); then the next token of every answer is chosen
and read back. Running answers therefore keep moving while a long prompt is taken in, and a request that ends makes room
at once. Running requests hold the first n rows of the cache, so that a step computes these and no others.

Answers are text or pictures (``mm.generation.task.Side``): what differs is what a hidden state becomes, and what the
decoder is given after a choice. A picture under guidance has two rows of the cache and is chosen once.

A picture by flow (``mm.generation.flow_picture``) is computed whole in each of its steps, which fills a device: such
pictures are drawn one after another, and an engine step takes one step of the one that is being drawn. So it never
depends on what else runs, to the last bit. Its rows are the last ones of the cache, which no decode step computes.

Letters: B rows computed, D hidden size, K ids that are chosen from, V tokens of the vocabulary.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mm.contracts import Decoder, FlowHead, ImageHead, Inputs
from mm.devices import is_out_of_memory
from mm.errors import TaskError
from mm.generation.admission import Admission
from mm.generation.flow_picture import guided, velocities
from mm.generation.prompt import next_piece
from mm.generation.steps import Choice
from mm.generation.task import ChosenTask, FlowTask, Lane, Side, Task
from mm.generation.text import PREFILL_CHUNK, prefill
from mm.generation.threads import ThreadCount

Embed = Callable[[Inputs], Tensor]
"""Embeddings (T, D) of a prompt or a piece of one, images in place."""


EmbedMany = Callable[[list[Inputs]], list[Tensor]]
"""Embeddings (T_i, D) of several prompts, their images encoded together."""

VIEWS_TOGETHER = 32  # of several prompts, encoded together


class Scheduler(Admission):
    """Runs the requests of an intake, step by step, in one thread.

    Args:
        decoder: the language model.
        embed: embeddings of prompts.
        device: where both are.
        num_slots: most requests that run together.
        image_head: the generation side, where there is one.
        flow_head: likewise for pictures by flow.
        chunk: most prompt tokens that go through the decoder at once.
        decode_threads: CPU threads of a decode step; None leaves torch's setting.
        version: of the weights; where it differs from before, nothing that was computed earlier is reused.
        release: gives up memory that only saves time; called when there is none left.
        graphs: record decode steps as CUDA graphs, on a CUDA device.
    """

    def __init__(
        self,
        decoder: Decoder,
        embed: Embed,
        *,
        device: torch.device,
        num_slots: int,
        image_head: ImageHead | None = None,
        flow_head: FlowHead | None = None,
        chunk: int = PREFILL_CHUNK,
        decode_threads: int | None = None,
        version: Callable[[], object] | None = None,
        release: Callable[[], None] | None = None,
        graphs: bool = True,
        embed_many: EmbedMany | None = None,
    ) -> None:
        self.text = Side(decoder.embed, decoder.logits, num_ids=decoder.vocab_size, num_rows=num_slots, device=device)
        self.pictures: Side | None = None
        if image_head is not None:
            self.pictures = Side(
                image_head.embed, image_head.logits, num_ids=image_head.num_codes, num_rows=num_slots, device=device
            )
        sides = [self.text] if self.pictures is None else [self.text, self.pictures]
        draws = self.pictures is not None or flow_head is not None
        super().__init__(
            decoder,
            sides,
            device=device,
            num_slots=num_slots,
            num_rows=2 * num_slots if draws else num_slots,
            version=version,
            release=release,
            graphs=graphs,
        )
        self.flow_head = flow_head
        self.decoder = decoder
        self.embed = embed
        self.embed_many = embed_many
        self.chunk = chunk
        self.decode_threads = decode_threads
        self.runs_ahead = device.type == "cuda"
        self._threads = ThreadCount()
        self._chosen: list[Choice] = []  # not read yet

    def step(self) -> None:
        """One step; see the module."""
        waiting = self.intake.tasks()  # who comes later was not asked whether he is cancelled, and waits for a step
        self.drop_cancelled(waiting)
        if self.prefilling is None:
            self.admit(waiting)
        ahead = self.runs_ahead and not any(task.row.is_constrained for task in self.choosing)
        if not ahead:
            self._read()
        before, self._chosen = self._chosen, []
        self._decode()
        if any(task.goes_on for task in self.choosing) or self.prefilling is None:
            self._read(before)
            before = []
        self._take_prompts_in()
        if self.flowing is not None:
            self._flow(self.flowing)
        self._read(before)  # nobody waits for it but the end: the device is busy with the next prompt meanwhile
        if not ahead:
            self._read()
        if not self.lanes:
            self._chosen = []  # of answers that have ended

    def end_begun(self, error: BaseException | None) -> None:
        """End every request that has a slot, with an error or as cancelled, and forget all that was computed."""
        self._chosen = []
        super().end_begun(error)

    def _take_prompts_in(self) -> None:
        """This step's share of prompts: of one, or (with ``embed_many``) all that find a place."""
        while (task := self.prefilling) is not None:
            self._prefill(task)
            if self.embed_many is None:
                return
            if self.prefilling is not task:
                self.admit(self.intake.tasks())

    def _decode(self) -> None:
        """Launch one more choice for all running answers, unless the choices on their way are the last ones."""
        uniforms: dict[ChosenTask, float] = {}
        while any(task.goes_on for task in self.choosing):
            for task in self.choosing:
                if task.goes_on and task.row.options.samples and task not in uniforms:
                    uniforms[task] = task.row.uniform()
            self._use_threads(self.decode_threads)
            try:
                self._chosen += self.with_room(partial(self.steps.run, self.lanes, uniforms))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.shed(error)
                continue
            for lane in self.lanes:
                lane.place.filled += 1
            for task in self.choosing:
                task.unread += 1
            self.statistics.decode_steps += 1
            self.statistics.decoded_tokens += len(self.choosing)
            return

    def _read(self, choices: list[Choice] | None = None) -> None:
        """Read what was chosen (None: all of it), give it to the answers, and end those that have come to their end."""
        if choices is None:
            choices, self._chosen = self._chosen, []
        for choice in choices:
            for task, token, score, logits in choice.read():
                task.unread -= 1
                if task.handle.ended:
                    continue
                with self.failing_alone(task):
                    if task in choice.errors:
                        raise choice.errors[task]
                    if task.on_logits is not None and logits is not None:
                        task.on_logits(logits)
                    self._push(task, token, score)
                    if task.on_step is not None:
                        task.on_step()
                    if task.row.finish_reason is not None:
                        self.end(task)

    def _prefill(self, task: Task) -> None:
        """One share of work for the prompt, and the first choice of the answer when it has come to that. A picture by
        flow then begins instead."""
        left = self.chunk
        self._use_threads(None)
        with self.failing_alone(task):
            for lane in task.lanes:
                while lane.hidden is None and left:
                    done = self._take_in(lane, left)
                    if not done:
                        return  # the encoder has had this step's share
                    left -= done
            if isinstance(task, FlowTask) and task.lanes[-1].hidden is not None:
                self.prefilling, self.flowing = None, task
            elif isinstance(task, ChosenTask) and task.lanes[-1].hidden is not None:
                side = self.side_of(task)
                hidden = [lane.hidden for lane in task.lanes if lane.hidden is not None]
                if len(hidden) > 1:
                    scale = torch.full((1, 1), task.guidance_scale, device=self.device)
                    logits = side.guided(torch.cat(hidden), scale)
                else:
                    logits = side.logits(hidden[0])
                self.prefilling = None
                for lane in task.lanes:
                    lane.hidden = None
                    self.slots.move(lane.place, len(self.lanes))
                    self.lanes.append(lane)
                side.add(task)
                uniform = task.row.uniform() if task.row.options.samples else 0.0
                self._chosen.append(self.steps.begin(side, logits, uniform))
                task.unread += 1

    def _flow(self, task: FlowTask) -> None:
        """One step of a picture by flow."""
        assert self.flow_head is not None
        self._use_threads(None)
        with self.failing_alone(task):
            first = len(self.slots.slots) - len(task.lanes)
            for offset, lane in enumerate(task.lanes):
                self.slots.move(lane.place, first + offset)
            step = partial(
                velocities,
                self.decoder,
                self.flow_head,
                task.row.latents,
                task.row.time,
                prompts=[lane.inputs.num_tokens for lane in task.lanes],
                begins=[lane.begin for lane in task.lanes],
                cache=self.slots.trailing(len(task.lanes)),
            )
            task.row.advance(guided(self.with_room(step), task.guidance_scale))
            self.statistics.flow_steps += 1
            if task.on_step is not None:
                task.on_step()
            if task.row.finish_reason is not None:
                self.end(task)

    def _take_in(self, lane: Lane, most: int) -> int:
        """Up to ``most`` tokens of a prompt; how many went through the decoder, 0 where only an image was encoded."""
        slot = lane.place
        wanted = min(most, lane.inputs.num_tokens - slot.filled)
        while lane.embeds is None or lane.embeds.shape[0] < wanted:
            done = 0 if lane.embeds is None else lane.embeds.shape[0]
            if self.embed_many is not None and not slot.filled + done:
                self._embed_many(lane, self.embed_many)
                break
            piece = next_piece(lane.inputs, slot.filled + done)
            new = self.with_room(partial(self.embed, piece))
            lane.embeds = new if lane.embeds is None else torch.cat((lane.embeds, new))
            if piece.spans and self.lanes and self.embed_many is None:
                return 0
        assert lane.embeds is not None
        block, row = lane.embeds[:wanted], self.slots.row(slot)
        hidden = self.with_room(partial(prefill, self.decoder, block, slot.filled, row))
        lane.embeds = lane.embeds[wanted:]
        slot.filled += wanted
        self.statistics.prefilled_tokens += wanted
        if slot.filled == lane.inputs.num_tokens:
            lane.embeds, lane.hidden = None, hidden[-1:].clone()
        return wanted

    def _embed_many(self, lane: Lane, embed: EmbedMany) -> None:
        """The embeddings of a prompt, and of as many that wait as go through the encoder with it."""
        lanes, views = [lane], lane.inputs.pixels.shape[0]
        for task in self.intake.tasks():
            for other in task.lanes:
                views += other.inputs.pixels.shape[0]
                if views > VIEWS_TOGETHER:
                    break
                if other.embeds is None:
                    lanes.append(other)
        try:
            found = self.with_room(partial(embed, [each.inputs for each in lanes]))
        except Exception:  # of any of them: each is embedded alone, and fails alone
            lanes, found = [lane], [self.with_room(partial(self.embed, lane.inputs))]
        for each, embeds in zip(lanes, found, strict=True):
            each.embeds = embeds

    def _push(self, task: ChosenTask, token: int, score: float | None) -> None:
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

    def _use_threads(self, count: int | None) -> None:
        if self.decode_threads is not None:
            self._threads.use(count)
