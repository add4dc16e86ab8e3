"""Pictures on a GPU: the codes of the CPU, and no waiting in a step."""

from pathlib import Path

import pytest
import torch

from mm.evaluation.verify_janus import draw_greedily
from mm.families.table import load_model, load_processor
from tests.generation.host_waits import host_waits
from tests.generation.test_image import CODES, draw, new_engine, new_row

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def folder(golden) -> Path:
    return golden("janus_pro") / "checkpoint"


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, device="cuda", dtype="float32")


def test_guided_greedy_codes_are_those_of_the_plain_loop(folder, model) -> None:
    prompt = load_processor(folder).drawing_prompt("two red circles")
    plain = draw_greedily(model, model.image_head, prompt, steps=CODES, guidance_scale=5.0, pictures=1)
    with new_engine(model) as engine:
        assert draw(engine, [(prompt, None, 5.0)] * 3) == [plain.codes[0].tolist()] * 3


def test_a_seed_gives_the_same_codes_in_a_batch(folder, model) -> None:
    processor = load_processor(folder)
    jobs = [(processor.drawing_prompt("red " * n + "circles"), n, 5.0) for n in range(1, 7)]
    alone = []
    for job in jobs:
        with new_engine(model) as engine:
            alone += draw(engine, [job])
    with new_engine(model) as engine:
        assert draw(engine, jobs[::-1]) == alone[::-1]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_step_does_not_wait_for_the_host(folder, model) -> None:
    prompt = load_processor(folder).drawing_prompt("two red circles")
    with new_engine(model, graphs=False) as engine, host_waits(engine._scheduler) as waits:
        rows = [new_row(seed) for seed in range(6)]
        scales = [5.0, 1.0, 5.0, 5.0, 1.0, 3.0]
        handles = [engine.draw(prompt, row, guidance_scale=scale) for row, scale in zip(rows, scales, strict=True)]
        for handle in handles:
            handle.result()
    assert waits == []
    assert {len(row.tokens) for row in rows} == {CODES}
