"""Recorded decode steps on a GPU: the answers of steps that are launched anew, in any order of things."""

import copy
import random

import pytest
import torch

from mm.families.table import load_model, load_processor
from mm.transforms.optimize import prepare
from tests.generation import test_image
from tests.generation.test_engine import PROMPTS, arrivals, check_against_alone, run_at_random_moments
from tests.generation.test_image import draw
from tests.generation.tiny import new_engine, plain_greedy, text_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_long_answers_are_replays_and_equal_a_loop_without_a_cache(decoder, on_gpu, new_row):
    rows = [new_row(prompt, max_new_tokens=150, detect_loops=False) for prompt in PROMPTS]
    with new_engine(on_gpu) as engine:
        for handle in [engine.submit(text_inputs(p), row) for p, row in zip(PROMPTS, rows, strict=True)]:
            handle.result()
        assert engine.graphs.num_recorded >= 2  # two blocks of visible positions at least
        assert engine.graphs.replays > 100
        assert engine.graphs.seconds > 0
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens == plain_greedy(decoder, prompt, 150)


def test_graphs_can_be_switched_off(on_gpu, new_row):
    with new_engine(on_gpu, graphs=False) as engine:
        assert engine.graphs is None
        row = engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=40)).result()
    with new_engine(on_gpu) as engine:
        assert (
            engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=40)).result().tokens == row.tokens
        )


def test_any_interleaving_gives_each_what_it_gets_alone(on_gpu, new_row):
    """The cache grows meanwhile, rows move, and options of all kinds come and go."""
    requests, rng = arrivals(50, 2)
    rows = [new_row(prompt.input_ids, **options) for prompt, options, _ in requests]
    with new_engine(on_gpu, num_slots=8, chunk=32) as engine:
        run_at_random_moments(engine, requests, rows, rng)
        assert engine.graphs.replays > 0
    assert check_against_alone(on_gpu, new_row, requests, rows) > 0


def test_changed_weights_are_used(on_gpu, new_row):
    model = copy.deepcopy(on_gpu)
    with new_engine(model, version=lambda: model.lm_head.weight.data_ptr()) as engine:
        engine.submit(text_inputs(PROMPTS[0]), new_row(PROMPTS[0], max_new_tokens=40)).result()
        with torch.no_grad():  # elsewhere in memory, and the old place is given to something else
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.flip(0), requires_grad=False)
        found = engine.submit(text_inputs(PROMPTS[2]), new_row(PROMPTS[2], max_new_tokens=40)).result().tokens
    assert found == plain_greedy(model, PROMPTS[2], 40)


def test_seeded_pictures_are_those_of_steps_launched_anew(golden):
    folder = golden("janus_pro") / "checkpoint"
    model, processor = load_model(folder, device="cuda", dtype="float32"), load_processor(folder)
    prepare(model.decoder)
    jobs = [(processor.drawing_prompt("red " * n + "circles"), n, 5.0 if n % 3 else 1.0) for n in range(1, 8)]
    with test_image.new_engine(model, graphs=False) as engine:
        plain = draw(engine, jobs)
    random.Random(0).shuffle(order := list(range(len(jobs))))
    with test_image.new_engine(model) as engine:
        assert draw(engine, [jobs[n] for n in order]) == [plain[n] for n in order]
        assert draw(engine, jobs[:1] * 3) == plain[:1] * 3
        assert engine.graphs.replays > 0
