"""Readers in processes: the same report, and what is said when one of them fails."""

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mm import Pipeline
from mm.cli.app import app
from mm.errors import CheckpointNotFoundError, OptionError, ResourceError
from mm.evaluation.readers import PipelineOpener, open_readers
from mm.evaluation.stored import load_stored
from mm.evaluation.suites import evaluate

STORED = Path(__file__).parents[1] / "data" / "held_out"


@dataclass(frozen=True)
class Said:
    text: str

    @property
    def raw_text(self):
        return self.text


class OwnError(Exception):
    """Cannot be made again from its message alone."""

    def __init__(self, number, text):
        super().__init__(f"{number} {text}")


class Fingerprints:
    """Answers with what it was shown and asked; the image name ``fail`` says how to fail."""

    def __init__(self, fail):
        self.fail = fail

    def chat_batch(self, requests, /, *, batch_size, max_tiles, cancel):
        if self.fail == "end":
            os._exit(3)
        if self.fail == "refuse":
            raise ResourceError("no memory for this")
        if self.fail == "own":
            raise OwnError(7, "is wrong")
        asked = [(request.question, request.images.tobytes(), batch_size, max_tiles) for request in requests]
        return [Said(hashlib.sha256(repr(one).encode()).hexdigest()) for one in asked]


def open_fingerprints(fail, number):
    assert number in (0, 1)
    if fail == "begin":
        raise CheckpointNotFoundError("there is no such model")
    return Fingerprints(fail)


@pytest.fixture(scope="module")
def stored():
    return load_stored(STORED)


def test_processes_give_the_same_report(stored):
    seen = []
    alone = evaluate(Fingerprints(None), documents=stored, limit=12, control_limit=4, batch_size=2, max_tiles=1)
    with open_readers(partial(open_fingerprints, None), 2, batch_size=2, max_tiles=1) as pool:
        together = evaluate(pool, documents=stored, limit=12, control_limit=4, progress=seen.append)
    assert together == alone and len(alone.answers) > 100
    assert [step.done for step in seen] == sorted(step.done for step in seen)


@pytest.mark.parametrize(
    ("fail", "expected", "message"),
    [
        ("begin", CheckpointNotFoundError, "there is no such model"),
        ("end", ResourceError, r"process mm-reader-\d .* ended from outside.*use fewer \(--processes\)"),
        ("refuse", ResourceError, "no memory for this"),
        ("own", ResourceError, r"a process that runs the model failed: OwnError\('7 is wrong'\)"),
    ],
)
def test_what_fails_in_a_process_is_told(stored, fail, expected, message):
    with (
        open_readers(partial(open_fingerprints, fail), 1) as pool,
        pytest.raises(expected, match=message) as error,
    ):
        evaluate(pool, documents=stored, limit=2, control_limit=0)
    assert type(error.value) is expected


def test_numbers_are_checked():
    for options, message in (
        ((0,), "processes is 0; expected 1 or more"),
        ((65,), "processes is 65; expected at most 64"),
        ((1, 0), "batch_size is 0"),
    ):
        with (
            pytest.raises(OptionError, match=message),
            open_readers(partial(open_fingerprints, None), options[0], batch_size=(*options, 8)[1]),
        ):
            pass


def test_processes_share_the_cores_and_name_a_device_that_is_missing():
    before = torch.get_num_threads()
    try:
        pipe = PipelineOpener("nano-vl2", 2, device="cpu", max_running=3)(1)
        assert torch.get_num_threads() == max(1, before // 2)
    finally:
        torch.set_num_threads(before)
    assert isinstance(pipe, Pipeline) and pipe.model.device.type == "cpu"
    with pytest.raises(OptionError, match="cuda:9999"):
        PipelineOpener("nano-vl2", 2, device="cuda:9999")(0)


def test_the_command_refuses_before_any_process_starts():
    run = CliRunner()
    refused = run.invoke(app, ["eval", "no-such-model", "--processes", "2"])
    assert refused.exit_code == 1 and "no-such-model" in refused.output
    refused = run.invoke(app, ["eval", "nano-janus", "--task", "draw", "--processes", "2"])
    assert refused.exit_code == 2 and "--task draw runs in one process" in refused.output
    refused = run.invoke(app, ["eval", "nano-janus", "--task", "draw", "--task", "lines"])
    assert refused.exit_code == 2 and "--task draw runs alone. Leave the other tasks" in refused.output
