"""Prompts that are padded and share calls of the decoder, as on an accelerator: everybody gets what he gets alone."""

import random

import pytest
import torch

from mm.errors import TaskError
from mm.generation.prefill import padded_length
from tests.generation import test_image
from tests.generation.test_engine import PROMPTS, arrivals, check_against_alone, run_at_random_moments
from tests.generation.test_image import alone, case, draw, model, prompts  # noqa: F401
from tests.generation.test_scheduler import Steps
from tests.generation.test_steps import as_on_an_accelerator
from tests.generation.tiny import IMAGE_ID, Embedder, new_engine, picture_inputs, plain_greedy, text_inputs


class Joining:
    """A decoder that takes several prompts at once, and the shapes (N, T) of its calls."""

    joins_prompts = True

    def __init__(self, decoder, most=99):
        self.decoder = decoder
        self.most = most
        self.calls = []

    def prompts(self, embeds, **options):
        self.calls.append(tuple(embeds.shape[:2]))
        if embeds.shape[0] > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.decoder.prompts(embeds, **options)


class Replaying:
    """Recorded calls as far as a CPU can have them: what a shape's second time was given as work is done again each
    later time, with other numbers in the same place."""

    def __init__(self):
        self.known = {}
        self.replays = []

    def clear(self):
        self.known.clear()

    def run(self, shape, work, *given):
        if shape not in self.known:
            self.known[shape] = None
            return work(*given)
        if self.known[shape] is None:
            self.known[shape] = work, tuple(map(torch.empty_like, given))
        first, places = self.known[shape]
        for place, numbers in zip(places, given, strict=True):
            place.copy_(numbers)
        self.replays.append(shape)
        return first(*places)


def joining(engine):
    """An engine whose prompts share calls, which are recorded."""
    scheduler = as_on_an_accelerator(engine)._scheduler
    scheduler.prefill.decoder = Joining(scheduler.decoder)
    scheduler.steps.graphs = Replaying()
    return engine


def replayed(engine):
    """Shapes of the prompts that were replays."""
    return [shape for shape in engine._scheduler.steps.graphs.replays if isinstance(shape, tuple)]


def stepped(decoder, new_row, *, most=99, **options):
    steps = Steps(decoder, new_row, **options)
    steps.scheduler.prefill.decoder = Joining(decoder, most)
    return steps


def calls(steps):
    return steps.scheduler.prefill.decoder.calls


def new_prompts(count, lengths=range(130, 250)):
    rng = random.Random(count)
    return [[rng.randrange(297) for _ in range(rng.choice(lengths))] for _ in range(count)]


def test_prompts_that_wait_go_through_together_and_begin_in_one_step(decoder, new_row):
    asked = new_prompts(7)
    with stepped(decoder, new_row, chunk=512) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=5) for prompt in asked]
        steps.step()
        assert calls(steps) == [(4, 256)]
        assert [len(handle.row.tokens) for handle in handles] == [1, 1, 1, 1, 0, 0, 0]
        steps.step()  # now answers wait: no more tokens at once than a long prompt has
        assert calls(steps)[1:] == [(2, 256)]
        steps.finish()
        assert calls(steps)[2:] == [(1, 256)]
        assert steps.scheduler.statistics.prefilled_tokens == sum(map(len, asked))
        assert steps.scheduler.statistics.begun == 7
    for handle, prompt in zip(handles, asked, strict=True):
        assert handle.row.tokens == plain_greedy(decoder, prompt, 5)


def test_where_no_answer_goes_on_many_go_together_all_the_time(decoder, new_row):
    with stepped(decoder, new_row, chunk=128) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=1) for prompt in new_prompts(7, range(90, 120))]
        steps.finish()
        assert calls(steps) == [(4, 128), (2, 128), (1, 128)]
    assert all(len(handle.row.tokens) == 1 for handle in handles)


def test_only_as_many_as_find_a_place(decoder, new_row):
    with stepped(decoder, new_row, num_slots=3) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in new_prompts(5)]
        steps.step()
        assert calls(steps) == [(2, 256)]
        steps.step()
        assert calls(steps)[1:] == [(1, 256)]
        steps.finish()
    assert all(len(handle.row.tokens) == 3 for handle in handles)


def test_each_length_goes_with_its_own(decoder, new_row):
    asked = [*new_prompts(2, range(3, 100)), *new_prompts(3, range(130, 250)), [1], [2, 3]]
    with stepped(decoder, new_row) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=4) for prompt in asked]
        steps.finish()
        assert calls(steps) == [(4, 128), (2, 256), (1, 256)]
    for handle, prompt in zip(handles, asked, strict=True):
        assert handle.row.tokens == plain_greedy(decoder, prompt, 4)


def test_prompts_that_begin_alike_are_taken_in_from_where_they_differ(decoder, new_row):
    begin = new_prompts(1)[0]
    asked = [[*begin, n] for n in range(4)]
    with stepped(decoder, new_row) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in asked]
        steps.finish()
        assert {call[0] for call in calls(steps)} == {1}
    assert [handle.reused_tokens for handle in handles] == [0, *[len(begin)] * 3]
    for handle, prompt in zip(handles, asked, strict=True):
        assert handle.row.tokens == plain_greedy(decoder, prompt, 3)


def test_a_long_prompt_goes_through_in_chunks_alone(decoder, new_row):
    asked = new_prompts(2, [400])
    with stepped(decoder, new_row, chunk=150) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in asked]
        steps.finish()
        assert calls(steps) == [(1, 256), (1, 256), (1, 128)] * 2
    for handle, prompt in zip(handles, asked, strict=True):
        assert handle.row.tokens == plain_greedy(decoder, prompt, 3)


def test_images_are_encoded_first(decoder, new_row):
    asked = [picture_inputs([n, IMAGE_ID, n], [n / 4]) for n in range(1, 4)]
    with stepped(decoder, new_row) as steps:
        handles = [steps.submit(prompt, max_new_tokens=3) for prompt in asked]
        steps.finish()
        assert {call[0] for call in calls(steps)} == {1}
    with Steps(decoder, new_row) as steps:
        expected = [steps.submit(prompt, max_new_tokens=3) for prompt in asked]
        steps.finish()
    assert [handle.row.tokens for handle in handles] == [handle.row.tokens for handle in expected]


def test_with_images_that_are_encoded_together(decoder, new_row):
    asked = [picture_inputs([n, IMAGE_ID, n], [n / 4]) for n in range(1, 5)]
    many = [Embedder(decoder)]
    options = {"embed_many": lambda asked: list(map(many[0], asked))}
    with stepped(decoder, new_row, **options) as steps:
        handles = [steps.submit(prompt, max_new_tokens=3) for prompt in asked]
        steps.step()
        assert calls(steps) == [(4, 128)]
        steps.finish()
    with Steps(decoder, new_row) as steps:
        expected = [steps.submit(prompt, max_new_tokens=3) for prompt in asked]
        steps.finish()
    assert [handle.row.tokens for handle in handles] == [handle.row.tokens for handle in expected]


def test_who_is_cancelled_or_fails_leaves_the_others(decoder, new_row):
    class Failing:
        def is_set(self):
            raise ValueError("a caller's own")

    asked = new_prompts(4)
    with stepped(decoder, new_row) as steps:
        embed = steps.scheduler.embed

        def careful(inputs):
            if inputs.input_ids.tolist() == asked[2]:
                raise ValueError("no embeddings")
            return embed(inputs)

        steps.scheduler.embed = careful
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in asked]
        handles.append(steps.submit(text_inputs([5]), cancel=Failing()))
        steps.scheduler.intake.tasks()[1].handle.cancel()
        steps.finish()
    assert [handle.row.finish_reason for handle in handles] == [
        "length",
        "cancelled",
        "cancelled",
        "length",
        "cancelled",
    ]
    assert [type(handle.error) for handle in handles] == [type(None), type(None), ValueError, type(None), ValueError]
    for index in (0, 3):
        assert handles[index].row.tokens == plain_greedy(decoder, asked[index], 3)


def test_cancelled_between_being_computed_and_beginning(decoder, new_row):
    asked = new_prompts(2)
    with stepped(decoder, new_row) as steps:
        first = steps.submit(text_inputs(asked[0]), max_new_tokens=3)
        second = steps.submit(text_inputs(asked[1]), max_new_tokens=3)
        run = steps.scheduler.prefill.decoder.prompts

        def cancelling(embeds, **options):
            first.cancel()
            second.cancel()
            return run(embeds, **options)

        steps.scheduler.prefill.decoder.prompts = cancelling
        steps.finish()
    assert [handle.row.finish_reason for handle in (first, second)] == ["cancelled"] * 2
    assert all(not slot.busy for slot in steps.scheduler.slots.slots)


def test_where_memory_does_not_suffice_for_several_they_go_one_by_one(decoder, new_row):
    asked = new_prompts(4)
    with stepped(decoder, new_row, most=1, chunk=256) as steps:
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in asked]
        with pytest.warns(UserWarning, match="to take 4 prompts in together: from now on at most 512 tokens"):
            steps.step()
        with pytest.warns(UserWarning, match="to take 2 prompts in together: from now on at most 256 tokens"):
            steps.finish()
            late = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in new_prompts(2)]
            steps.finish()
    for handle, prompt in zip([*handles, *late], [*asked, *new_prompts(2)], strict=True):
        assert handle.row.tokens == plain_greedy(decoder, prompt, 3)


def test_a_pair_for_which_there_is_no_room_yet_waits_for_the_one_before(decoder, new_row, monkeypatch):
    """Room for three rows: the second pair gets one of its two while the first one is taken in."""
    asked = new_prompts(4)
    with stepped(decoder, new_row) as steps:
        slots, waiting = steps.scheduler.slots, steps.scheduler.intake.waiting
        monkeypatch.setattr(slots, "_free", lambda: 6 * slots._size(1, 512) - slots.num_bytes)
        handles = [steps.submit(text_inputs(prompt), max_new_tokens=3) for prompt in asked]
        for guided in (waiting[0], waiting[2]):
            other = waiting[waiting.index(guided) + 1]
            guided.lanes += other.lanes
            waiting.remove(other)
        steps.finish()
    for index in (0, 2):
        assert handles[index].error is None
        assert handles[index].row.tokens == plain_greedy(decoder, asked[index], 3)


def test_output_that_is_not_a_number_fails_alone(decoder, new_row):
    class Sometimes(Embedder):
        def __call__(self, inputs):
            embeds = super().__call__(inputs)
            return torch.full_like(embeds, torch.nan) if inputs.input_ids[0] == 299 else embeds

    with joining(new_engine(decoder, Sometimes(decoder))) as engine:
        for _ in range(2):
            handles = [engine.submit(text_inputs(ids), new_row(ids)) for ids in ([299] * 20, *PROMPTS)]
            with pytest.raises(TaskError, match="token 1 of the answer is not a number"):
                handles[0].result()
            for handle, prompt in zip(handles[1:], PROMPTS, strict=True):
                assert handle.result().tokens == plain_greedy(decoder, prompt, 16)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_any_interleaving_gives_each_what_it_gets_alone(decoder, new_row, seed, bulk):
    requests, rng = arrivals(50, seed)
    embed = Embedder(decoder)
    many = {"embed_many": lambda asked: list(map(embed, asked))} if bulk else {}
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    chunk = (512, 32)[seed]
    with joining(new_engine(decoder, embed, num_slots=rng.choice([3, 8]), chunk=chunk, **many)) as engine:
        run_at_random_moments(engine, requests, rows, rng)
        assert engine.statistics.reused_tokens > 0
        assert chunk == 32 or max(count for count, _ in engine._scheduler.prefill.decoder.calls) > 1
        assert {shape[3] is None for shape in replayed(engine)} == {True, False}  # beginnings and later pieces
    assert check_against_alone(decoder, new_row, requests, rows) > 0


def test_pictures_take_both_of_their_prompts_at_once(model, prompts, alone):  # noqa: F811
    seeds = list(range(8))
    with joining(test_image.new_engine(model, num_slots=8)) as engine:
        assert draw(engine, [(prompts[seed], seed, 5.0) for seed in seeds]) == [alone[seed] for seed in seeds]
        assert all(count % 2 == 0 for count, _ in engine._scheduler.prefill.decoder.calls[:1])


def test_another_cache_is_not_written_to_by_what_was_recorded_for_the_old_one(decoder, new_row):
    with joining(new_engine(decoder)) as engine:
        for length in (300, 310, 320, 900, 330, 340, 350):  # the cache grows meanwhile
            (prompt,) = new_prompts(1, [length])
            row = new_row(prompt, max_new_tokens=3)
            assert engine.submit(text_inputs(prompt), row).result().tokens == plain_greedy(decoder, prompt, 3)
        assert replayed(engine)


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 1536, 2048])
def test_few_lengths(tokens):
    length = padded_length(tokens)
    assert tokens <= length < tokens + 128
    assert padded_length(length) == length
