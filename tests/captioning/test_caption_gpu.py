"""Captioning on CUDA: images encoded together, prompts taken in whole, a process for each device."""

import json
from pathlib import Path

import pytest
import torch

from mm.captioning import Job, run
from mm.captioning.batching import MOST_TOGETHER, batch_size
from mm.pipeline import Pipeline
from tests.captioning.conftest import SHORT, paint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("devices", [(), ("cuda:0",), ("cuda:0", "cuda:0")])
def test_the_texts_of_a_cpu(tmp_path, devices):
    paint(tmp_path / "in", 40)
    values = {"sampling": SHORT, "max_tiles": 1, "dtype": "float32", "batch_size": 8, "workers": 1}
    run(Job(str(tmp_path / "in"), str(tmp_path / "cpu.jsonl"), device="cpu", **values))
    device = {"devices": devices} if devices else {"device": "cuda"}
    summary = run(Job(str(tmp_path / "in"), str(tmp_path / "gpu.jsonl"), **device, **values))
    assert (summary.done, summary.quarantined) == (40, {}) and 0 < summary.busy <= 1
    assert texts(tmp_path / "gpu.jsonl") == texts(tmp_path / "cpu.jsonl")


def test_batch_size_of_a_large_memory():
    pipe = Pipeline.from_pretrained("nano-vl2", device="cuda")
    assert batch_size(pipe, Job("in", "out", sampling=SHORT), engines=1) == MOST_TOGETHER
