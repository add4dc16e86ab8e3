"""The engine on a GPU: what holds on the CPU holds there, in float32."""

import threading

import pytest
import torch

from tests.generation.host_waits import host_waits
from tests.generation.test_engine import PROMPTS, arrivals, cancelling, check_against_alone, run_at_random_moments
from tests.generation.tiny import IMAGE_ID, new_engine, picture_inputs, plain_greedy, text_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_answers_are_those_of_the_cpu_and_of_a_loop_without_a_cache(decoder, on_gpu, new_row):
    rows = [new_row(prompt, max_new_tokens=40) for prompt in PROMPTS]
    with new_engine(on_gpu) as engine:
        for handle in [engine.submit(text_inputs(p), row) for p, row in zip(PROMPTS, rows, strict=True)]:
            handle.result()
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens == plain_greedy(on_gpu, prompt, 40) == plain_greedy(decoder, prompt, 40)


def test_any_interleaving_gives_each_what_it_gets_alone(on_gpu, new_row):
    requests, rng = arrivals(50, 0)
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with new_engine(on_gpu, num_slots=8, chunk=32) as engine:
        run_at_random_moments(engine, requests, rows, rng)
        assert engine.statistics.reused_tokens > 0
    assert check_against_alone(on_gpu, new_row, requests, rows) > 0


def test_cancel_is_honoured_within_one_step(on_gpu, new_row):
    rows = [new_row(prompt, max_new_tokens=400, decode=lambda tokens: "a" * len(tokens)) for prompt in PROMPTS]
    with new_engine(on_gpu) as engine:
        for handle in [
            engine.submit(text_inputs(prompt), row, **cancelling(5)) for prompt, row in zip(PROMPTS, rows, strict=True)
        ]:
            handle.result()
    assert [(len(row.tokens), row.finish_reason) for row in rows] == [(5, "cancelled")] * 4


def test_a_second_turn_computes_its_new_tokens_only(on_gpu, new_row):
    first = picture_inputs([*range(30), IMAGE_ID, *range(30)], [0.5])
    with new_engine(on_gpu) as engine:
        answer = engine.submit(first, new_row(first.input_ids, max_new_tokens=20)).result()
        turn = picture_inputs([*range(30), IMAGE_ID, *range(30), *answer.tokens, 250, 251], [0.5])
        before = engine.statistics.prefilled_tokens
        handle = engine.submit(turn, new_row(turn.input_ids))
        handle.result()
        assert handle.reused_tokens == first.num_tokens + 19
        assert engine.statistics.prefilled_tokens - before == 3
    with new_engine(on_gpu) as engine:
        assert engine.submit(turn, new_row(turn.input_ids)).result().tokens == handle.row.tokens


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_decode_steps_of_many_rows_do_not_wait_for_the_host(on_gpu, new_row):
    with new_engine(on_gpu, graphs=False) as engine, host_waits(engine._scheduler) as waits:
        rows = [new_row(prompt, max_new_tokens=12) for prompt in PROMPTS * 4]
        threads = [
            threading.Thread(target=lambda p=p, row=row: engine.submit(text_inputs(p), row).result())
            for p, row in zip(PROMPTS * 4, rows, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert waits == []
    assert {len(row.tokens) for row in rows} == {12}
