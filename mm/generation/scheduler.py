"""The one loop that runs the decoder: which request does what in each step.

    waiting --admit--> prefilling (one at a time) --last chunk--> running --end--> ended
                 a slot with the longest known prefix      slots 0..n-1

A step does three things: one more token in every running answer; one share of prompt work for the request that is being
prefilled (an image through the encoder, or a chunk through the decoder); then the next token of every answer is chosen
and read back. Running answers therefore keep moving while a long prompt is taken in, and a request that ends makes room
at once. Running requests hold the first n rows of the cache, so that a step computes these and no others. Where prompts
may share a call (``mm.generation.prefill``), whole ones that wait and are about as long go along with a short one.

Answers are text or pictures (``mm.generation.task.Side``): what differs is what a hidden state becomes, and what the
decoder is given after a choice. A picture under guidance has two rows of the cache and is chosen once.

A picture by flow (``mm.generation.flow_picture``) is computed whole in each of its steps, which fills a device: such
pictures are drawn one after another, and an engine step takes one step of the one that is being drawn. So it never
depends on what else runs, to the last bit. Its rows are the last ones of the cache, which no decode step computes.

An answer that speculates (``mm.generation.speculation``) may get several tokens in a step, and nothing runs ahead then.

Letters: B rows computed, D hidden size, K ids that are chosen from, V tokens of the vocabulary.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from traceback import clear_frames

import torch
from torch import Tensor

from mm.contracts import Decoder, FlowHead, ImageHead, Inputs
from mm.devices import exact_inputs, is_out_of_memory
from mm.errors import ResourceError, TaskError
from mm.generation.admission import Admission
from mm.generation.flow_picture import guided, velocities
from mm.generation.prefill import Prefill, Stretch, companions, is_alike, padded_length
from mm.generation.prompt import next_piece
from mm.generation.speculation import new_drafter
from mm.generation.steps import Choice
from mm.generation.task import ChosenTask, FlowTask, Lane, Side, Task
from mm.generation.text import PREFILL_CHUNK
from mm.generation.threads import ThreadCount
from mm.generation.verification import Verified, Verifier

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
        self.verifier = Verifier(decoder, self.steps)
        self.prefill = Prefill(decoder, self.steps, chunk)
        self.flow_head = flow_head
        self.across = 1 if image_head is None else image_head.grid[1]  # codes in a row of a picture
        self.decoder = decoder
        self.embed = embed
        self.embed_many = embed_many
        self._views_together = VIEWS_TOGETHER
        self._tokens_together = self.prefill.most
        self.chunk = chunk
        self.decode_threads = decode_threads
        self.runs_ahead = device.type == "cuda"
        self._threads = ThreadCount()
        self._chosen: list[Choice | Verified] = []  # not read yet

    def step(self) -> None:
        """One step; see the module."""
        waiting = self.intake.tasks()  # who comes later was not asked whether he is cancelled, and waits for a step
        self.drop_cancelled(waiting)
        if self.prefilling is None:
            self.admit(waiting)
        ahead = self.runs_ahead and not any(task.row.is_constrained or task.drafter for task in self.choosing)
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
            if self.prefilling is None and self.joined:
                self.admit([])  # its prompt is computed
                continue
            if self.embed_many is None:
                return
            if self.prefilling is not task:
                self.admit(self.intake.tasks())

    def _decode(self) -> None:
        """Launch one more choice for all running answers, or several for those that speculate, unless the choices on
        their way are the last ones."""
        guesses = True
        while any(task.goes_on for task in self.choosing):
            self._use_threads(self.decode_threads)
            drafts = self._drafts() if guesses else {}
            # A picture goes on as it began, so that its last code does not depend on what else has drafts.
            ahead = any(found or task.draws for task, found in drafts.items())
            try:
                with exact_inputs():
                    choices = self._verify(drafts) if ahead else self._advance()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if not ahead:
                    self.shed(error)
                    continue
                clear_frames(error.__traceback__)  # they hold the tensors of the pass that failed
                if any(task.draws for task in drafts):
                    self.shed(self._too_wide(drafts))
                else:  # the same tokens, one by one
                    guesses = False
                    if self.device.type == "cuda":
                        torch.cuda.empty_cache()
                continue
            self._chosen += choices
            for choice in choices:
                for task, count in zip(choice.tasks, choice.counts, strict=True):
                    task.unread += count
                    for lane in task.lanes:
                        lane.place.filled += count
                    self.statistics.decoded_tokens += count
            self.statistics.decode_steps += 1
            return

    def _advance(self) -> Sequence[Choice | Verified]:
        """One more choice for all running answers."""
        sampling = [task for task in self.choosing if task.goes_on and task.row.options.samples]
        uniforms = {task: task.uniforms(1)[0] for task in sampling}
        choices = self.with_room(partial(self.steps.run, self.lanes, uniforms))
        for task in sampling:
            task.use(1)
        return choices

    def _drafts(self) -> dict[ChosenTask, list[int]]:
        """What the running answers that speculate expect next; everything chosen so far has been read."""
        return {
            task: task.drafter.draft(task.row.tokens, min(task.drafter.window, task.num_left) - 1)
            for task in self.choosing
            if task.drafter is not None
        }

    def _too_wide(self, drafts: dict[ChosenTask, list[int]]) -> ResourceError:
        """What to say where the memory does not suffice for a pass over guesses."""
        window = max(task.drafter.window for task in drafts if task.drafter is not None)
        return ResourceError(
            f"out of memory on {self.device} in a pass over up to {window} places of {len(self.lanes)} "
            f"row{'s' * (len(self.lanes) > 1)}. Use a smaller speculation_window (now {window}, 2 at least), no "
            "speculation, or fewer pictures at a time."
        )

    def _verify(self, drafts: dict[ChosenTask, list[int]]) -> Sequence[Choice | Verified]:
        """As many more choices for the running answers as their drafts allow."""
        found = self.with_room(partial(self.verifier.run, self.lanes, drafts))
        self.statistics.drafted_tokens += sum(len(guesses) for guesses in drafts.values())
        self.statistics.accepted_tokens += sum(count - 1 for choice in found for count in choice.counts)
        return found

    def _read(self, choices: list[Choice | Verified] | None = None) -> None:
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
                    done = self._take_in(task, lane, left)
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
                options = task.row.options
                task.drafter = new_drafter(
                    options.speculation, options.speculation_window, task.row.prompt_ids, self.across
                )
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

    def _take_in(self, task: Task, lane: Lane, most: int) -> int:
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
        lanes = [lane, *self._company(task, lane)] if wanted == lane.inputs.num_tokens else [lane]
        hidden = self._through(lanes, wanted)
        taken = lanes[: len(hidden)]  # the first one only where the memory did not suffice for all
        for each, state in zip(taken, hidden.split(1), strict=True):
            assert each.embeds is not None
            done = wanted if each is lane else len(each.embeds)
            each.embeds = each.embeds[done:]
            each.place.filled += done
            self.statistics.prefilled_tokens += done
            if each.place.filled == each.inputs.num_tokens:
                each.embeds, each.hidden = None, state
        return wanted

    def _through(self, lanes: Sequence[Lane], wanted: int) -> Tensor:
        """The next ``wanted`` tokens of the first of some prompts through the decoder, and the other ones whole, if the
        memory suffices: hidden states (N, D) of all of them, or (1, D) of the first one."""
        stretches: list[Stretch] = [(lane.embeds, lane.place) for lane in lanes if lane.embeds is not None]
        stretches[0] = stretches[0][0][:wanted], lanes[0].place
        try:
            return self.with_room(partial(self.prefill.run, stretches))
        except (MemoryError, RuntimeError) as error:
            if len(lanes) == 1 or not is_out_of_memory(error):
                raise
            clear_frames(error.__traceback__)  # they hold the tensors of the call that failed
        self._tokens_together //= 2
        warnings.warn(
            f"the memory does not suffice to take {len(lanes)} prompts in together: from now on at most "
            f"{self._tokens_together} tokens of several prompts, which is slower.",
            stacklevel=2,
        )
        return self.with_room(partial(self.prefill.run, stretches[:1]))

    def _company(self, task: Task, lane: Lane) -> list[Lane]:
        """Prompts that go through the decoder in one call with that of ``lane``, which is whole: the other one of its
        request, and those of requests that wait. These begin now, and come next."""
        tokens = self._tokens_together
        if self.embed_many is None and any(running.goes_on for running in self.choosing):
            tokens = min(self.chunk, tokens)  # no more than a long prompt would keep these answers waiting
        most = tokens // padded_length(lane.inputs.num_tokens)
        if not self.prefill.joins or most < 2:
            return []
        company = [each for each in task.lanes if each is not lane and each.hidden is None and is_alike(each, lane)]
        for each in company:
            self._embed_whole(each)
        places = self.num_slots - len(self.running) - 1 - len(self.joined)
        wanted = partial(self._is_wanted, task)
        for other in companions([lane, *company], filter(wanted, self.intake.tasks()), self.slots, most, places):
            with self.failing_alone(other):
                if not self.begin(other):
                    break
                self.joined.append(other)
                for each in other.lanes:
                    self._embed_whole(each)
                company += [each for each in other.lanes if not each.place.filled]
        return company

    def _is_wanted(self, task: Task, other: Task) -> bool:
        """Whether a request that waits, other than ``task``, may begin."""
        wanted = False
        with self.failing_alone(other):  # it asks callers' code
            wanted = other is not task and not other.handle.ended and not other.is_cancelled()
        return wanted

    def _embed_whole(self, lane: Lane) -> None:
        if lane.embeds is None:
            lane.embeds = self.with_room(partial(self.embed, lane.inputs))

    def _embed_many(self, lane: Lane, embed: EmbedMany) -> None:
        """The embeddings of a prompt, and of as many that wait as go through the encoder with it."""
        lanes, views = [lane], lane.inputs.pixels.shape[0]
        for task in self.intake.tasks():
            for other in task.lanes:
                views += other.inputs.pixels.shape[0]
                if views > self._views_together:
                    break
                if other.embeds is None:
                    lanes.append(other)
        found, lacking = None, False
        try:
            found = self.with_room(partial(embed, [each.inputs for each in lanes]))
        except Exception as error:  # of any of them: each is embedded alone, and fails alone
            lacking = is_out_of_memory(error)
        if found is None:  # not in the block above: the error holds the tensors of what failed
            lanes, found = [lane], [self.with_room(partial(self.embed, lane.inputs))]
        if lacking:
            self._views_together = max(views // 2, 1)
            warnings.warn(
                f"the memory does not suffice to encode {views} views of images together: from now on at most "
                f"{self._views_together} of several prompts, which is slower. A smaller batch_size leaves more room.",
                stacklevel=2,
            )
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
