"""The loop as it is on an accelerator: one step ahead of the host, rows and positions in buckets."""

import random
import traceback

import pytest
import torch

from mm.errors import TaskError
from mm.generation.text import VISIBLE_BLOCK, visible_bucket
from tests.generation import test_image
from tests.generation.test_engine import (
    PROMPTS,
    arrivals,
    cancelling,
    check_against_alone,
    run_at_random_moments,
    run_from_threads,
)
from tests.generation.test_image import CODES, alone, case, draw, model, prompts  # noqa: F401
from tests.generation.test_image import new_row as picture_row
from tests.generation.tiny import Embedder, new_engine, plain_greedy, text_inputs


def as_on_an_accelerator(engine):
    engine._scheduler.runs_ahead = engine._scheduler.steps.rounds_rows = True
    return engine


def ahead(decoder, *arguments, **options):
    return as_on_an_accelerator(new_engine(decoder, *arguments, **options))


def test_answers_are_those_of_a_loop_without_a_cache(decoder, new_row):
    rows = [new_row(prompt, max_new_tokens=20 + 7 * n) for n, prompt in enumerate(PROMPTS)]
    with ahead(decoder) as engine:
        for handle in [engine.submit(text_inputs(p), row) for p, row in zip(PROMPTS, rows, strict=True)]:
            handle.result()
        # A step that runs ahead may compute a row too many, never a step for nobody.
        assert engine.statistics.decode_steps <= sum(len(row.tokens) for row in rows)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens == plain_greedy(decoder, prompt, row.max_new_tokens)


def test_no_step_is_computed_for_an_answer_whose_last_token_is_on_its_way(decoder, new_row):
    with ahead(decoder) as engine:
        engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=8)).result()
        assert engine.statistics.decode_steps == 7


@pytest.mark.parametrize("seed", range(2))
def test_any_interleaving_gives_each_what_it_gets_alone(decoder, new_row, seed):
    requests, rng = arrivals(50, seed)
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with ahead(decoder, num_slots=rng.choice([3, 8]), chunk=32) as engine:
        run_at_random_moments(engine, requests, rows, rng)
        assert engine.statistics.reused_tokens > 0
    assert check_against_alone(decoder, new_row, requests, rows) > 0


def test_the_next_turn_goes_on_from_what_a_step_ahead_has_written(decoder, new_row):
    end = plain_greedy(decoder, PROMPTS[0], 9)[-1]
    with ahead(decoder) as engine:
        first = engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=30, end_ids=[end])).result()
        assert first.finish_reason == "stop"
        turn = [*PROMPTS[0], *first.tokens, 17, 18]
        handle = engine.submit(text_inputs(turn), new_row(turn))
        assert handle.result().tokens == plain_greedy(decoder, turn, 16)
        assert handle.reused_tokens >= len(PROMPTS[0]) + len(first.tokens) - 1


def test_cancel_is_honoured_within_one_step(decoder, new_row):
    rows = [new_row(prompt, max_new_tokens=100, decode=lambda tokens: "a" * len(tokens)) for prompt in PROMPTS]
    with ahead(decoder) as engine:
        for handle in [
            engine.submit(text_inputs(prompt), row, **cancelling(5)) for prompt, row in zip(PROMPTS, rows, strict=True)
        ]:
            handle.result()
    assert [(len(row.tokens), row.finish_reason) for row in rows] == [(5, "cancelled")] * 4


class OneStepApart:
    """The next token is a function of the last one: a step that ran ahead would choose from the wrong ones."""

    open = False

    def __init__(self):
        self.last = 0

    def allowed(self):
        return torch.arange(300) % 7 == self.last % 7

    def advance(self, token):
        assert token % 7 == self.last % 7
        self.last += 1


def test_a_constraint_joins_and_leaves_answers_that_run_ahead(decoder, new_row):
    free, bound = new_row(PROMPTS[0], max_new_tokens=60), new_row(PROMPTS[2], constraint=OneStepApart())
    with ahead(decoder) as engine:
        handles = [engine.submit(text_inputs(PROMPTS[0]), free)]
        next(iter(handles[0]))
        handles.append(engine.submit(text_inputs(PROMPTS[2]), bound))
        for handle in handles:
            handle.result()
    assert free.tokens == plain_greedy(decoder, PROMPTS[0], 60)
    assert [token % 7 for token in bound.tokens] == [n % 7 for n in range(16)]
    with new_engine(decoder) as engine:
        alone = new_row(PROMPTS[2], constraint=OneStepApart())
        assert engine.submit(text_inputs(PROMPTS[2]), alone).result().tokens == bound.tokens


def test_who_listens_hears_the_logits_of_each_token(decoder, new_row):
    heard, row = [], new_row(PROMPTS[0], logprobs=True)
    with ahead(decoder) as engine:
        engine.submit(text_inputs(PROMPTS[0]), row, on_logits=heard.append).result()
    assert [logits.argmax().item() for logits in heard] == row.tokens == plain_greedy(decoder, PROMPTS[0], 16)
    found = [logits.log_softmax(-1).max().item() for logits in heard]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(row.logprobs), atol=1e-5, rtol=1e-5)


def test_output_that_is_not_a_number_fails_alone(decoder, new_row):
    class Sometimes(Embedder):
        def __call__(self, inputs):
            embeds = super().__call__(inputs)
            return torch.full_like(embeds, torch.nan) if inputs.input_ids[0] == 299 else embeds

    with ahead(decoder, Sometimes(decoder), num_slots=2) as engine:
        for _ in range(3):
            long = engine.submit(text_inputs(PROMPTS[2]), new_row(PROMPTS[2]))
            broken = engine.submit(text_inputs([299] * 100), new_row([299]))
            with pytest.raises(TaskError, match="token 1 of the answer is not a number"):
                broken.result()
            after = engine.submit(text_inputs(PROMPTS[1]), new_row(PROMPTS[1]))
            assert long.result().tokens == plain_greedy(decoder, PROMPTS[2], 16)
            assert after.result().tokens == plain_greedy(decoder, PROMPTS[1], 16)


# Pictures


def test_pictures_and_texts_share_the_engine(model, prompts, alone, new_row):  # noqa: F811
    seeds = list(range(12))
    random.Random(0).shuffle(seeds)
    with as_on_an_accelerator(test_image.new_engine(model, num_slots=5)) as engine:
        text = new_row([5, 6, 7], max_new_tokens=70)
        handle = engine.submit(text_inputs([5, 6, 7]), text)
        jobs = [(prompts[seed % 8], seed, 5.0) for seed in seeds]
        assert draw(engine, jobs) == [alone[seed] for seed in seeds]
        handle.result()
        assert draw(engine, jobs[:1]) == [alone[seeds[0]]]  # ids of the text are not looked up as codes
    assert text.tokens == plain_greedy(model.decoder, [5, 6, 7], 70)


def test_a_picture_takes_as_many_random_numbers_as_it_has_codes(model, prompts):  # noqa: F811
    row = picture_row(3)
    with as_on_an_accelerator(test_image.new_engine(model)) as engine:
        engine.draw(prompts[0], row, guidance_scale=5.0).result()
    expected = torch.Generator().manual_seed(3)
    torch.rand(CODES, generator=expected)
    for _ in range(3):
        assert row.uniform() == pytest.approx(torch.rand((), generator=expected).item())


# Out of memory


@pytest.mark.parametrize("make", [new_engine, ahead])
def test_out_of_memory_in_a_step_ends_the_newest_answers_until_the_rest_fits(decoder, new_row, make):
    def fail(module, args):
        if args[0].shape[0] > 2 and args[0].shape[1] == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    rows = [
        new_row(prompt, max_new_tokens=60, detect_loops=False, temperature=1.0, seed=n)
        for n, prompt in enumerate(PROMPTS)
    ]
    with make(decoder) as engine:
        hook = decoder.model.layers[0].register_forward_pre_hook(fail)
        try:
            handles = [engine.submit(text_inputs(p), row) for p, row in zip(PROMPTS, rows, strict=True)]
            for handle in handles:
                handle.wait()
        finally:
            hook.remove()
        assert [handle.error is None for handle in handles] == [True, True, False, False]
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            handles[2].result()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "fail" in names  # its lines stay
        again = engine.submit(text_inputs(PROMPTS[3]), new_row(PROMPTS[3])).result()
    assert again.tokens == plain_greedy(decoder, PROMPTS[3], 16)
    for prompt, row, number in zip(PROMPTS[:2], rows, range(2), strict=False):
        with new_engine(decoder) as engine:  # the random numbers of those that go on are not drawn twice
            alone = new_row(prompt, max_new_tokens=60, detect_loops=False, temperature=1.0, seed=number)
            assert engine.submit(text_inputs(prompt), alone).result().tokens == row.tokens


def test_an_answer_that_does_not_fit_alone_fails_and_the_engine_goes_on(decoder, new_row):
    def fail(module, args):
        if args[0].shape[1] == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with new_engine(decoder) as engine:
        hook = decoder.model.layers[0].register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="out of memory"):
                engine.submit(text_inputs([5]), new_row([5])).result()
        finally:
            hook.remove()
        assert engine.submit(text_inputs([5]), new_row([5])).result().tokens == plain_greedy(decoder, [5], 16)


def test_steps_from_many_threads(decoder, new_row):
    requests, _ = arrivals(24, 31)
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with ahead(decoder, num_slots=4, max_waiting=2) as engine:
        run_from_threads(engine, requests, rows, 6)
    requests = [(prompt, options, None) for prompt, options, _ in requests]
    check_against_alone(decoder, new_row, requests, rows)


@pytest.mark.parametrize("position", [0, 127, 128, 1023, 1024, 2047, 2048, 2049, 5000, 131071])
def test_few_buckets_of_visible_positions_and_never_too_few(position):
    bucket = visible_bucket(position)
    assert position < bucket <= max(position + VISIBLE_BLOCK, position * 9 / 8 + 1)
    assert visible_bucket(bucket - 1) == bucket
    assert len({visible_bucket(p) for p in range(4096, 8192)}) == 8
