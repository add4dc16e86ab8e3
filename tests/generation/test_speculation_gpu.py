"""Speculation on a GPU: the answers of plain decoding, and pictures that do not depend on what runs beside them."""

from pathlib import Path

import pytest
import torch

from mm.evaluation.verify_janus import draw_greedily
from mm.families.table import load_model, load_processor
from tests.generation.test_image import CODES, new_engine
from tests.generation.test_jacobi import draw_ahead
from tests.generation.test_speculation import LOOKUP, PROMPTS, decoder, run  # noqa: F401
from tests.generation.tiny import plain_greedy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_texts_are_those_of_a_loop_without_a_cache(decoder, new_row) -> None:  # noqa: F811
    rows = [new_row(prompt, max_new_tokens=60 + n, **LOOKUP) for n, prompt in enumerate(PROMPTS)]
    plain = [
        new_row(prompt, max_new_tokens=40, detect_loops=False) for prompt in PROMPTS
    ]  # replayed where nothing guesses
    on_gpu = decoder.to("cuda")
    try:
        statistics = run(on_gpu, [*rows, *plain])
        for row in (*rows, *plain):
            assert row.tokens == plain_greedy(on_gpu, row.prompt_ids.tolist(), row.max_new_tokens)
    finally:
        decoder.to("cpu")
    assert 0 < statistics.accepted_tokens < statistics.drafted_tokens


def test_pictures(golden) -> None:
    folder: Path = golden("janus_pro") / "checkpoint"
    model = load_model(folder, device="cuda", dtype="float32")
    processor = load_processor(folder)
    prompts = [processor.drawing_prompt("red " * n + "circles") for n in range(1, 7)]
    plain = draw_greedily(model, model.image_head, prompts[1], steps=CODES, guidance_scale=5.0, pictures=1)
    with new_engine(model) as engine:
        assert draw_ahead(engine, [(prompts[1], None, 5.0)] * 3) == [plain.codes[0].tolist()] * 3
    jobs = [(prompt, seed, 5.0 if seed % 2 else 1.0) for seed, prompt in enumerate(prompts)]
    alone = []
    for job in jobs:
        with new_engine(model) as engine:
            alone += draw_ahead(engine, [job], top_k=5)
    with new_engine(model) as engine:
        assert draw_ahead(engine, jobs[::-1], top_k=5) == alone[::-1]
