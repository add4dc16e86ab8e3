"""The engine against a plain greedy loop without a cache, and everything that others in it must not change."""

import asyncio
import gc
import random
import resource
import subprocess
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path

import pytest
import torch

from mm.errors import BusyError, OptionError, ResourceError, TaskError
from tests.generation.tiny import IMAGE_ID, Embedder, new_engine, picture_inputs, plain_greedy, text_inputs

PROMPTS = [list(range(1, 60)), [7, 8, 9], list(range(100, 130)), [5]]


@pytest.fixture
def engine(decoder):
    with new_engine(decoder) as engine:
        yield engine


def run(decoder, rows, prompts, **options):
    """All requests at once; their texts."""
    with new_engine(decoder, **options) as engine:
        handles = [engine.submit(text_inputs(ids), row) for ids, row in zip(prompts, rows, strict=True)]
        for handle in handles:
            handle.result()
        return [handle.text for handle in handles]


def run_one(decoder, new_row, prompt):
    """The text of one request alone."""
    with new_engine(decoder) as engine:
        handle = engine.submit(prompt, new_row(prompt.input_ids))
        handle.result()
        return handle.text


# One answer, and several that share a batch


def test_cached_greedy_equals_running_everything_again(decoder, new_row):
    for prompt in PROMPTS:
        row = new_row(prompt)
        text = run(decoder, [row], [prompt])
        assert row.tokens == plain_greedy(decoder, prompt, 16)
        assert text == [bytes(t % 256 for t in row.tokens).decode("utf-8", "replace")]
        assert row.finish_reason == "length"


def test_an_answer_may_cross_the_blocks_of_visible_slots(decoder, new_row):
    row = new_row(PROMPTS[0], max_new_tokens=220, detect_loops=False)
    run(decoder, [row], PROMPTS[:1])
    assert row.tokens == plain_greedy(decoder, PROMPTS[0], 220)


@pytest.mark.parametrize("chunk", [1, 7, 29, 59, 60, 512])
def test_chunked_prefill_equals_whole(decoder, new_row, chunk):
    rows = [new_row(prompt) for prompt in PROMPTS]
    run(decoder, rows, PROMPTS, chunk=chunk)
    assert [row.tokens for row in rows] == [plain_greedy(decoder, prompt, 16) for prompt in PROMPTS]


def test_a_batch_of_different_lengths_and_options_equals_single_runs(decoder, new_row):
    options = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 40, "temperature": 0.9, "seed": 11},
        {"max_new_tokens": 30, "temperature": 1.2, "top_p": 0.8, "top_k": 20, "seed": 12, "repetition_penalty": 1.3},
        {"max_new_tokens": 25, "no_repeat_ngram_size": 2, "repetition_penalty": 0.8, "logprobs": True},
    ]
    together = [new_row(prompt, **option) for prompt, option in zip(PROMPTS, options, strict=True)]
    texts = run(decoder, together, PROMPTS)
    for row, text, prompt, option in zip(together, texts, PROMPTS, options, strict=True):
        alone = new_row(prompt, **option)
        assert run(decoder, [alone], [prompt]) == [text]
        assert alone.tokens == row.tokens
        assert alone.finish_reason == row.finish_reason == "length"
        assert len(row.tokens) == option["max_new_tokens"]
        torch.testing.assert_close(torch.tensor(row.logprobs), torch.tensor(alone.logprobs), atol=1e-4, rtol=1e-4)


def test_rows_end_on_their_own(decoder, new_row):
    free = [plain_greedy(decoder, prompt, 16) for prompt in PROMPTS]
    end = free[1][4]
    rows = [new_row(prompt, end_ids=[end]) for prompt in PROMPTS]
    run(decoder, rows, PROMPTS)
    for row, tokens in zip(rows, free, strict=True):
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        assert row.tokens == expected
        assert row.finish_reason == ("stop" if end in tokens else "length")


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(decoder, new_row):
    rows = [new_row(PROMPTS[2], temperature=1.0, seed=seed, max_new_tokens=30) for seed in (1, 1, 2)]
    run(decoder, rows, [PROMPTS[2]] * 3)
    assert rows[0].tokens == rows[1].tokens != rows[2].tokens


def test_repetition_penalty_counts_the_prompt(decoder, new_row):
    prompt = PROMPTS[2]
    first = plain_greedy(decoder, prompt, 1)[0]
    row = new_row([*prompt, first], repetition_penalty=1e9, max_new_tokens=20)
    run(decoder, [row], [prompt])
    assert first not in row.tokens
    assert len(set(row.tokens)) == 20


def test_a_constraint_narrows_its_own_row_only(decoder, new_row):
    class EvenTokens:
        open = False

        def allowed(self):
            return torch.arange(300) % 2 == 0

        def advance(self, token):
            assert token % 2 == 0

    rows = [new_row(PROMPTS[0], constraint=EvenTokens()), new_row(PROMPTS[0])]
    run(decoder, rows, PROMPTS[:1] * 2)
    assert all(token % 2 == 0 for token in rows[0].tokens)
    assert rows[1].tokens == plain_greedy(decoder, PROMPTS[0], 16)


def test_callbacks_get_pieces_and_logits(engine, decoder, new_row):
    pieces, logits, row = [], [], new_row(PROMPTS[0], repetition_penalty=1.5)
    handle = engine.submit(text_inputs(PROMPTS[0]), row, on_piece=pieces.append, on_logits=logits.append)
    handle.result()
    assert "".join(pieces) == handle.text
    assert all(pieces)
    assert len(logits) == 16
    hidden = decoder(decoder.embed(torch.tensor([PROMPTS[0]])))
    torch.testing.assert_close(logits[0], decoder.logits(hidden[0, -1]), atol=1e-4, rtol=1e-4)


def test_the_callers_tensors_are_unchanged(engine, new_row):
    inputs = text_inputs(PROMPTS[0])
    engine.submit(inputs, new_row(PROMPTS[0])).result()
    assert inputs.input_ids.tolist() == PROMPTS[0]


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_decode_steps_may_run_on_fewer_threads_than_the_rest_and_nobody_else_notices(decoder, new_row):
    seen, others, before = [], [], torch.get_num_threads()

    def look(*_):
        seen.append(torch.get_num_threads())
        others.append(threads_of_a_new_thread())

    hook = decoder.lm_head.register_forward_hook(look)
    try:
        torch.set_num_threads(3)
        with new_engine(decoder, decode_threads=1) as engine:
            engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=4)).result()
            assert seen == [3, 1, 1, 1]  # prefill, then three steps
            assert others == [3] * 4
            torch.set_num_threads(2)  # the user changes his mind
            engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=3)).result()
            assert seen[4:] == [2, 1, 1]
            assert others[4:] == [2] * 3
            assert torch.get_num_threads() == threads_of_a_new_thread() == 2
    finally:
        hook.remove()
        torch.set_num_threads(before)


# Any order of things


def arrivals(count, seed):
    """Random requests: prompt (some begin alike), options of the row, and after how many pieces it is cancelled."""
    rng = random.Random(seed)

    def some(count):
        return [rng.choice([IMAGE_ID, *range(297)] if rng.random() < 0.1 else range(297)) for _ in range(count)]

    shared = [[IMAGE_ID, *some(80)] for _ in range(3)]
    found = []
    for number in range(count):
        prompt = some(rng.randrange(1, 90)) + [IMAGE_ID] * (rng.random() < 0.3) + some(1)
        if rng.random() < 0.5:
            prompt = rng.choice(shared)[: rng.randrange(10, 80)] + prompt
        prompt = picture_inputs(prompt, [rng.choice([0.5, 1.0, 2.0]) for token in prompt if token == IMAGE_ID])
        options = {"max_new_tokens": rng.choice([1, 2, 5, 20, 60]), "seed": number}
        if rng.random() < 0.5:
            options |= {"temperature": 1.0, "top_p": 0.9}
        if rng.random() < 0.3:
            options |= {"repetition_penalty": 1.3}
        if rng.random() < 0.3:
            options |= {"no_repeat_ngram_size": 2}
        if rng.random() < 0.3:
            options |= {"end_ids": list(range(0, 300, 20))}
        found.append((prompt, options, rng.randrange(1, 40) if rng.random() < 0.25 else None))
    return found, rng


def cancelling(pieces):
    """Options of a request that is cancelled at this many pieces of text."""
    token, count = threading.Event(), 0

    def heard(_):
        nonlocal count
        count += 1
        if count == pieces:
            token.set()

    return {"on_piece": heard, "cancel": token}


def run_at_random_moments(engine, requests, rows, rng):
    """Submits what ``arrivals`` made, with pauses, and waits for all of it."""
    handles = []
    for (prompt, _, cancel), row in zip(requests, rows, strict=True):
        handles.append(engine.submit(prompt, row, **cancelling(cancel)))
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.02)
    for handle in handles:
        handle.result()


def run_from_threads(engine, requests, rows, count):
    """Has ``count`` threads submit and read, each every count-th request."""

    def ask(first):
        for number in range(first, len(requests), count):
            "".join(engine.submit(requests[number][0], rows[number]))

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_against_alone(decoder, new_row, requests, rows):
    cancelled = 0
    for (prompt, options, cancel), row in zip(requests, rows, strict=True):
        with new_engine(decoder) as engine:
            alone = engine.submit(prompt, new_row(prompt.input_ids, **options)).result()
        if row.finish_reason == "cancelled":
            assert cancel is not None
            assert row.tokens == alone.tokens[: len(row.tokens)]
            cancelled += 1
        else:
            assert row.tokens == alone.tokens
            assert row.finish_reason == alone.finish_reason
    return cancelled


@pytest.mark.parametrize(("seed", "bulk"), [(0, False), (1, False), (2, False), (3, True)])
def test_any_interleaving_of_fifty_requests_gives_each_what_it_gets_alone(decoder, new_row, seed, bulk):
    requests, rng = arrivals(50, seed)
    embed = Embedder(decoder)
    many = {"embed_many": lambda prompts: list(map(embed, prompts))} if bulk else {}
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with new_engine(decoder, embed, num_slots=rng.choice([3, 8, 16]), chunk=rng.choice([16, 64]), **many) as engine:
        run_at_random_moments(engine, requests, rows, rng)
        assert engine.statistics.requests == 50
        assert engine.statistics.reused_tokens > 0
    assert check_against_alone(decoder, new_row, requests, rows) > 0


def test_requests_from_many_threads(decoder, new_row):
    requests, _ = arrivals(40, 9)
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with new_engine(decoder, num_slots=4, max_waiting=2) as engine:
        run_from_threads(engine, requests, rows, 8)
    assert check_against_alone(decoder, new_row, requests, rows) == 0


def test_memory_stays_flat_over_2000_requests(decoder, new_row):
    with new_engine(decoder, num_slots=4) as engine:

        def ask(count):
            for _ in range(count // 10):
                prompts = [PROMPTS[1], *([n, n + 1, 3] for n in range(9))]
                for handle in [engine.submit(text_inputs(ids), new_row(ids, max_new_tokens=2)) for ids in prompts]:
                    handle.result()

        def measure():
            gc.collect()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, engine.cache_bytes, len(gc.get_objects())

        ask(400)
        memory, cache, objects = measure()
        ask(1600)
        after = measure()
    assert engine.statistics.requests == 2000
    assert after[0] - memory < 4096  # kB
    assert after[1] == cache
    assert after[2] - objects < 500


# Cancelling


class CancelAfter:
    def __init__(self, calls):
        self.calls = calls

    def is_set(self):
        self.calls -= 1
        return self.calls < 0


def test_cancel_is_honoured_within_one_step_of_prefill_and_of_decoding(decoder, new_row):
    with new_engine(decoder, chunk=10) as engine:
        row = new_row(PROMPTS[0], max_new_tokens=100)
        engine.submit(text_inputs(PROMPTS[0]), row, cancel=CancelAfter(4)).result()
        assert (row.finish_reason, row.tokens) == ("cancelled", [])
        assert engine.statistics.prefilled_tokens == 40  # of 59, in chunks of 10
    with new_engine(decoder) as engine:
        rows = [new_row(prompt, max_new_tokens=100, decode=lambda tokens: "a" * len(tokens)) for prompt in PROMPTS]
        handles = [
            engine.submit(text_inputs(prompt), row, **cancelling(5)) for prompt, row in zip(PROMPTS, rows, strict=True)
        ]
        for handle in handles:
            handle.result()
    assert [len(row.tokens) for row in rows] == [5] * 4
    assert {row.finish_reason for row in rows} == {"cancelled"}


def test_cancel_gives_out_text_that_was_held_back(engine, new_row):
    row = new_row(PROMPTS[1], max_new_tokens=100, stop=("aab",), decode=lambda tokens: "a" * len(tokens))
    handle = engine.submit(text_inputs(PROMPTS[1]), row, cancel=CancelAfter(5))
    handle.result()
    assert handle.text == "a" * len(row.tokens) != ""


def test_a_request_that_waits_can_be_cancelled(decoder, new_row):
    with new_engine(decoder, num_slots=1) as engine:
        long = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=3000, detect_loops=False))
        waiting = engine.submit(text_inputs([6]), new_row([6]))
        waiting.cancel()
        assert waiting.wait(5)
        assert (waiting.row.finish_reason, waiting.row.tokens) == ("cancelled", [])
        assert not long.ended
        long.cancel()
        assert long.result().finish_reason == "cancelled"


# A request that fails fails alone


class BrokenError(Exception):
    pass


def raising(*_):
    raise BrokenError("here")


class BadConstraint:
    open = False

    def __init__(self, when):
        self.when = when

    def allowed(self):
        if self.when == "allowed":
            raise BrokenError("here")

    def advance(self, token):
        if self.when == "advance":
            raise BrokenError("here")


def test_what_a_callers_code_raises_reaches_him_and_nobody_else(decoder, new_row):
    class Token:
        is_set = raising

    bad = [
        ({}, {"cancel": Token()}),
        ({}, {"on_piece": raising}),
        ({}, {"on_logits": raising}),
        ({"decode": raising}, {}),
        ({"constraint": BadConstraint("allowed")}, {}),
        ({"constraint": BadConstraint("advance")}, {}),
    ]
    with new_engine(decoder) as engine:
        handles, good = [], []
        for row_options, options in bad:
            row = new_row(PROMPTS[0], **{"decode": lambda tokens: "a" * len(tokens), **row_options})
            handles.append(engine.submit(text_inputs(PROMPTS[0]), row, **options))
            good.append(engine.submit(text_inputs(PROMPTS[2]), new_row(PROMPTS[2])))
        for handle in handles:
            with pytest.raises(BrokenError, match="here"):
                handle.result()
            with pytest.raises(BrokenError, match="here"):
                list(handle)
            assert handle.row.finish_reason == "cancelled"
        for handle in good:
            assert handle.result().tokens == plain_greedy(decoder, PROMPTS[2], 16)
    assert engine.statistics.requests == 12


def test_who_keeps_an_error_keeps_no_tensors_and_no_engine(decoder, new_row):
    class Failing(Embedder):
        def __call__(self, inputs):
            raise BrokenError("here")

    def ask(embed, **options):
        engine = new_engine(decoder, embed)
        scheduler = weakref.ref(engine._scheduler)
        with pytest.raises(BrokenError) as caught:
            engine.submit(text_inputs([5]), new_row([5]), **options).result()
        engine.close()
        del engine  # this frame, too, is in the traceback
        return caught.value, scheduler

    hidden = []

    def fail_in_a_step(module, args, out):
        if out.shape[1] == 1 and len(hidden) < 2:
            hidden.append(weakref.ref(out))
            if len(hidden) == 2:
                raise BrokenError("here")

    failures = [ask(Failing(decoder)), ask(Embedder(decoder), on_logits=raising)]
    hook = decoder.model.layers[0].register_forward_hook(fail_in_a_step)
    failures.append(ask(Embedder(decoder)))
    hook.remove()
    for error, scheduler in failures:
        gc.collect()
        assert scheduler() is None
        assert "raise BrokenError" in "".join(traceback.format_exception(error))
    assert len(hidden) == 2


def test_output_that_is_not_a_number_fails_alone_and_leaves_nothing_behind(decoder, new_row):
    class Sometimes(Embedder):
        def __call__(self, inputs):
            embeds = super().__call__(inputs)
            return torch.full_like(embeds, torch.nan) if inputs.input_ids[0] == 299 else embeds

    with new_engine(decoder, Sometimes(decoder), num_slots=2) as engine:
        for _ in range(3):
            long = engine.submit(text_inputs(PROMPTS[2]), new_row(PROMPTS[2]))
            broken = engine.submit(text_inputs([299] * 100), new_row([299]))
            with pytest.raises(TaskError, match=r"token 1 of the answer is not a number.*dtype='bfloat16'"):
                broken.result()
            after = engine.submit(text_inputs(PROMPTS[1]), new_row(PROMPTS[1]))  # in the same slot, and shorter
            assert long.result().tokens == plain_greedy(decoder, PROMPTS[2], 16)
            assert after.result().tokens == plain_greedy(decoder, PROMPTS[1], 16)


def test_an_image_that_cannot_be_embedded_fails_alone(decoder, new_row):
    class Picky(Embedder):
        def __call__(self, inputs):
            if inputs.input_ids[0] == 299:
                raise BrokenError("no such picture")
            return super().__call__(inputs)

    with new_engine(decoder, Picky(decoder)) as engine:
        good = engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0]))
        bad = engine.submit(text_inputs([299]), new_row([299]))
        with pytest.raises(BrokenError, match="no such picture"):
            bad.result()
        assert good.result().tokens == plain_greedy(decoder, PROMPTS[0], 16)


def test_in_bulk_images_of_several_prompts_are_embedded_together(decoder, new_row):
    embed, groups = Embedder(decoder), []

    def many(prompts):
        groups.append(len(prompts))
        return list(map(embed, prompts))

    prompts = [picture_inputs([9, IMAGE_ID, 3], [0.1 * number]) for number in range(6)]
    started = threading.Event()
    with new_engine(decoder, embed, num_slots=2, embed_many=many) as engine:
        first = engine.submit(text_inputs([1, 2, 3]), new_row([1, 2, 3]), on_piece=lambda _: started.wait(5))
        handles = [engine.submit(prompt, new_row(prompt.input_ids)) for prompt in prompts]
        started.set()
        texts = [handle.result() and handle.text for handle in [first, *handles]]
    assert max(groups) > 1 and embed.calls == 7
    assert texts == [run_one(decoder, new_row, prompt) for prompt in [text_inputs([1, 2, 3]), *prompts]]


def test_in_bulk_an_image_that_cannot_be_embedded_fails_alone(decoder, new_row):
    embed = Embedder(decoder)

    def embed_or_fail(prompt):
        if prompt.pixels.shape[0] and prompt.pixels.mean() > 0.9:
            raise ValueError("too bright")
        return embed(prompt)

    prompts = [picture_inputs([9, IMAGE_ID, 3], [brightness]) for brightness in (0.1, 1.0, 0.2)]
    with new_engine(decoder, embed_or_fail, embed_many=lambda many: list(map(embed_or_fail, many))) as engine:
        handles = [engine.submit(prompt, new_row(prompt.input_ids)) for prompt in prompts]
        with pytest.raises(ValueError, match="too bright"):
            handles[1].result()
        texts = [handles[index].result() and handles[index].text for index in (0, 2)]
    assert texts == [run_one(decoder, new_row, prompts[index]) for index in (0, 2)]


def test_in_bulk_too_many_images_for_the_memory_are_told_of_once(decoder, new_row):
    embed, groups = Embedder(decoder), []

    def many(prompts):
        groups.append(sum(prompt.pixels.shape[0] for prompt in prompts))
        if groups[-1] > 8:
            raise MemoryError
        return list(map(embed, prompts))

    prompts = [picture_inputs([9, IMAGE_ID, 3], [0.1 * number]) for number in range(8)]
    started = threading.Event()
    said = r"does not suffice to encode \d+ views of images together: from now on at most [5-8] of several prompts"
    with new_engine(decoder, embed, num_slots=2, embed_many=many) as engine, pytest.warns(UserWarning, match=said):
        first = engine.submit(text_inputs([1, 2, 3]), new_row([1, 2, 3]), on_piece=lambda _: started.wait(5))
        handles = [engine.submit(prompt, new_row(prompt.input_ids)) for prompt in prompts]
        started.set()
        texts = [handle.result() and handle.text for handle in [first, *handles]]
    assert sum(count > 8 for count in groups) == 1, "never again"
    assert texts == [run_one(decoder, new_row, prompt) for prompt in [text_inputs([1, 2, 3]), *prompts]]


def test_a_request_too_long_for_the_memory_is_refused_and_the_next_one_runs(engine, decoder, new_row):
    row = new_row([5], max_new_tokens=10**13)
    said = r"a request of 10,000,000,000,001 tokens .* needs a cache of [\d.]+ GiB, and [\d.]+ GiB are free on cpu"
    with pytest.raises(ResourceError, match=said):
        engine.submit(text_inputs([5]), row).result()
    assert engine.submit(text_inputs([5]), new_row([5])).result().tokens == plain_greedy(decoder, [5], 16)


def test_a_step_that_fails_ends_those_in_it_and_the_engine_goes_on(decoder, new_row):
    def fail(module, args):
        if args[0].shape[:2] == (2, 32):  # the step of two rows
            raise RuntimeError("out of order")

    with new_engine(decoder) as engine:
        hook = decoder.lm_head.register_forward_pre_hook(fail)
        try:
            rows = [new_row(p, max_new_tokens=2000, repetition_penalty=1.1) for p in PROMPTS[:2]]
            handles = [engine.submit(text_inputs(p), row) for p, row in zip(PROMPTS, rows, strict=False)]
            for handle in handles:
                with pytest.raises(RuntimeError, match="out of order"):
                    handle.result()
        finally:
            hook.remove()
        assert engine.submit(text_inputs([5]), new_row([5])).result().tokens == plain_greedy(decoder, [5], 16)
        assert not engine._scheduler.text.sampler._any_penalty  # nor do their options cost the others anything


@pytest.mark.parametrize("place", ["embed", "prefill", "decode"])
def test_memory_that_only_saves_time_is_given_up_before_a_request_fails(decoder, new_row, place):
    full, released = [True], []

    def release():
        released.append(place)
        full[0] = False

    def fail(_, __, out):
        if full[0] and (out.shape[1] == 1) == (place == "decode") and place != "embed":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    class Embed(Embedder):
        def __call__(self, inputs):
            if full[0] and place == "embed":
                raise MemoryError
            return super().__call__(inputs)

    hook = decoder.model.norm.register_forward_hook(fail)
    try:
        with new_engine(decoder, Embed(decoder), release=release) as engine:
            row = engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0])).result()
            assert released == [place]
            full[0] = True
            release = engine._scheduler.release = lambda: None  # nothing there to give up: it is tried once more
            with pytest.raises((RuntimeError, MemoryError)):
                engine.submit(text_inputs(PROMPTS[2]), new_row(PROMPTS[2])).result()
    finally:
        hook.remove()
    assert row.tokens == plain_greedy(decoder, PROMPTS[0], 16)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the engine's thread ends so
@pytest.mark.parametrize("refused", ["slots.wipe", "steps.clear"])
def test_nobody_waits_for_a_request_when_the_device_has_failed(decoder, new_row, monkeypatch, refused):
    def fail(*_):
        raise RuntimeError("device-side assert triggered")

    class Embed(Embedder):
        def __call__(self, inputs):
            if inputs.input_ids[0] == 299:
                fail()
            return super().__call__(inputs)

    with new_engine(decoder, Embed(decoder)) as engine:
        running = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=3000, detect_loops=False))
        next(iter(running))
        part, _, name = refused.partition(".")
        monkeypatch.setattr(getattr(engine._scheduler, part), name, fail)  # as every later call on such a device
        monkeypatch.setattr(engine._scheduler.slots, "wipe", fail)
        bad = engine.submit(text_inputs([299]), new_row([299]))
        for handle in (bad, running):
            with pytest.raises(RuntimeError, match="device-side assert"):
                handle.result()


# The queue


def test_a_full_queue_refuses_or_waits(decoder, new_row):
    with new_engine(decoder, num_slots=1, max_waiting=2) as engine:
        long = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=10**5, detect_loops=False))
        while len(long.row.tokens) < 2:
            time.sleep(0.001)
        waiting = [engine.submit(text_inputs([6]), new_row([6])) for _ in range(2)]
        said = "2 requests are waiting, and the limit is 2. Try again later, or wait for room with block=True"
        with pytest.raises(BusyError, match=said):
            engine.submit(text_inputs([7]), new_row([7]), block=False)
        with pytest.raises(BusyError, match=said):
            engine.submit(text_inputs([7]), new_row([7]), timeout=0.05)
        threading.Timer(0.05, long.cancel).start()
        last = engine.submit(text_inputs([7]), new_row([7]))  # waits for room
        for handle, prompt in zip([*waiting, last], ([6], [6], [7]), strict=True):
            assert handle.result().tokens == plain_greedy(decoder, prompt, 16)


def test_the_engines_own_thread_is_not_made_to_wait_for_room(decoder, new_row):
    with new_engine(decoder, max_waiting=1) as engine:
        found = []

        def ask(_):
            try:
                found.append(engine.submit(text_inputs([7]), new_row([7])))
            except BusyError as error:
                found.append(error)

        row = new_row([5], max_new_tokens=3, decode=lambda tokens: "a" * len(tokens))
        engine.submit(text_inputs([5]), row, on_piece=lambda piece: (ask(piece), ask(piece))).result()
        assert isinstance(found[1], BusyError)
        assert found[0].result().tokens == plain_greedy(decoder, [7], 16)


@pytest.mark.parametrize("name", ["num_slots", "max_waiting", "chunk"])
@pytest.mark.parametrize("value", [0, True, 1.5])
def test_numbers_that_make_no_engine(decoder, name, value):
    with pytest.raises(OptionError, match=rf"{name} is {value}; expected a whole number of 1 or more\."):
        new_engine(decoder, **{name: value})


# Readers


def test_several_readers_get_all_of_it(engine, new_row):
    handle = engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=60, detect_loops=False))
    found = []
    threads = [threading.Thread(target=lambda: found.append("".join(handle))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [handle.text] * 3
    assert "".join(handle) == handle.text
    told = []
    handle.when_ended(lambda: told.append(True))
    assert told == [True]
    assert handle.wait(0)


def test_an_event_loop_reads_several_answers_at_once(decoder, new_row):
    async def read(engine, prompt):
        handle = engine.submit(text_inputs(prompt), new_row(prompt))
        return handle, [piece async for piece in handle]

    async def main(engine):
        return await asyncio.gather(*(read(engine, prompt) for prompt in PROMPTS))

    async def broken(engine):
        handle = engine.submit(text_inputs([5]), new_row([5]), on_logits=raising)
        async for _ in handle:
            pass

    with new_engine(decoder) as engine:
        for (handle, pieces), prompt in zip(asyncio.run(main(engine)), PROMPTS, strict=True):
            assert handle.row.tokens == plain_greedy(decoder, prompt, 16)
            assert "".join(pieces) == handle.text
        with pytest.raises(BrokenError):
            asyncio.run(broken(engine))


def test_a_reader_that_leaves_its_event_loop_disturbs_nobody(engine, decoder, new_row):
    async def leave():
        handle = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=300, detect_loops=False))
        await anext(aiter(handle))
        return handle

    handle = asyncio.run(leave())
    assert len(handle.result().tokens) == 300


# The thread


def engine_threads():
    return [thread for thread in threading.enumerate() if thread.name == "mm-engine"]


def test_the_thread_starts_with_the_first_request_and_ends_with_close(decoder, new_row):
    before = len(engine_threads())
    engine = new_engine(decoder)
    assert len(engine_threads()) == before
    handle = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=10**5, detect_loops=False))
    assert len(engine_threads()) == before + 1
    assert all(thread.daemon for thread in engine_threads())
    waiting = engine.submit(text_inputs([5]), new_row([5]))
    next(iter(handle))
    engine.close()
    engine.close()
    assert len(engine_threads()) == before
    assert handle.result().finish_reason == "cancelled"
    assert waiting.wait(5)
    assert engine.cache_bytes == 0
    with pytest.raises(ResourceError, match="the engine is closed. Make a new one."):
        engine.submit(text_inputs([5]), new_row([5]))


def test_an_engine_that_is_dropped_takes_its_thread_and_memory_with_it(decoder, new_row):
    engine = new_engine(decoder)
    engine.submit(text_inputs([5]), new_row([5])).result()
    scheduler, thread = weakref.ref(engine._scheduler), engine._worker
    del engine
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    del thread
    gc.collect()
    assert scheduler() is None


START = """
import os, sys, time
import numpy as np, torch
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from tests.generation.conftest import build_decoder, decode_bytes
from tests.generation.tiny import Embedder, new_engine, text_inputs

def new_row(tokens):
    return Row(prompt_ids=torch.arange(5), options=SamplingOptions(detect_loops=False), max_new_tokens=tokens,
               end_ids=frozenset(), hidden_ids=frozenset(), decode=decode_bytes)
"""

ENDS = {
    "in the middle of an answer": """
engine = new_engine(build_decoder(latent=True))
next(iter(engine.submit(text_inputs([5]), new_row(3000))))
""",
    "while another waits": """
engine = new_engine(build_decoder(latent=True), num_slots=1)
handles = [engine.submit(text_inputs([5]), new_row(3000)) for _ in range(3)]
next(iter(handles[0]))
""",
    "while a dropped engine frees its model": """
class Slow(np.ndarray):  # freed inside torch, without the interpreter's lock most of the time
    def __del__(self):
        for _ in range(60):
            time.sleep(0.005)

def ask():
    embed = Embedder(build_decoder(latent=True))
    embed.kept = torch.from_numpy(np.zeros(4).view(Slow))
    new_engine(embed.decoder, embed).submit(text_inputs([5]), new_row(3)).result()

ask()
time.sleep(0.1)  # by now its thread has nothing else to do
""",
    "interrupted while a long step ends": """
import signal, threading
class Long(Embedder):
    def __call__(self, inputs):
        time.sleep(30)
engine = new_engine(build_decoder(latent=True), Long(build_decoder(latent=True)))
engine.submit(text_inputs([5]), new_row(3))
time.sleep(0.3)
timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
timer.daemon = True
timer.start()
""",
    "in a forked process": """
from mm.errors import ResourceError
engine = new_engine(build_decoder(latent=True))
engine.submit(text_inputs([5]), new_row(3)).result()
child = os.fork()
if not child:
    try:
        engine.submit(text_inputs([5]), new_row(3))
    except ResourceError as error:
        print(error, flush=True)
    engine.close()
    raise SystemExit(0)
assert os.waitpid(child, 0)[1] == 0
engine.submit(text_inputs([5]), new_row(3)).result()
""",
}


@pytest.mark.parametrize("when", ENDS)
def test_a_process_may_end(when):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + ENDS[when] + "print('end', flush=True)"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    said = done.stdout.splitlines()
    status = 130 if when.startswith("interrupted") else 0
    assert (said[-1:], done.stderr, done.returncode) == (["end"], "", status)
    if when == "in a forked process":
        assert said[0].startswith("the engine was started before this process was forked, and its thread did not come")


def test_a_listener_that_raises_disturbs_nobody(engine, decoder, new_row, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    handle = engine.submit(text_inputs([5]), new_row([5], max_new_tokens=100, detect_loops=False))
    handle.when_ended(raising)
    assert len(handle.result().tokens) == 100
    assert engine.submit(text_inputs([6]), new_row([6])).result().tokens == plain_greedy(decoder, [6], 16)
    assert told == [BrokenError]
