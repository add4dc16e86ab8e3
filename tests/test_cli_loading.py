"""Options of loading are the same for every command that loads a model, and are checked before it is fetched."""

import inspect
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from typer.testing import CliRunner

from mm.captioning import Job
from mm.captioning.engines import ENGINES
from mm.captioning.sinks import FORMATS
from mm.captioning.state import MODES
from mm.captioning.tasks import PROMPTS
from mm.chat import SpecialTokens
from mm.cli import caption, chat, check, complete, draw, info, options, read
from mm.cli.app import app
from mm.cli.loading import load_pipeline
from mm.errors import OptionError
from mm.evaluation.readers import PipelineOpener
from mm.families.table import load_config
from mm.hub import find_config
from mm.transforms.split import part_sizes

RECEIPT = str(Path(__file__).parents[1] / "examples" / "receipt.png")
LOADING = [chat.chat, complete.complete, read.ocr, read.ground, draw.draw, caption.caption, check.evaluate]


def invoke(*words):
    """The command in this process: exit status, output, messages as one line."""
    result = CliRunner().invoke(app, list(words), prog_name="mm")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("command", LOADING, ids=lambda command: command.__name__)
def test_every_command_that_loads_a_model_takes_them(command):
    parameters = inspect.signature(command).parameters
    for name, kind in (
        ("quantization", options.Quantization),
        ("compile", options.Compile),
        ("device_map", options.DeviceMap),
    ):
        assert parameters[name].annotation == kind
    assert inspect.signature(info.plan).parameters["quantization"].annotation == options.Quantization


def test_the_words_are_those_of_the_library():
    assert get_args(options.SpecialTokensChoice) == get_args(SpecialTokens)
    assert get_args(caption.FormatChoice) == FORMATS and get_args(caption.ModeChoice) == MODES
    assert get_args(caption.EngineChoice) == ENGINES and get_args(caption.TaskChoice) == tuple(PROMPTS)


def test_an_answer_with_quantised_weights():
    words = ["--quantization", "int4", "--device", "cpu", "--max-new-tokens", "4", "--json"]
    status, out, _ = invoke("chat", RECEIPT, "What is the total?", *words)
    assert status == 0 and json.loads(out)["usage"]["completion_tokens"] <= 4


def test_a_compiled_encoder():
    pipe = load_pipeline("nano-vl2", None, "cpu", "auto", compile=True)
    blocks = [module for name, module in pipe.model.vision.named_modules() if name.endswith("blocks.0")]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)  # compiled when first used


@pytest.mark.parametrize("command", ["chat", "ocr", "caption"])
def test_what_is_wrong_is_told_before_a_model_is_fetched(command, monkeypatch):
    words = [command, RECEIPT, *(["Why?"] if command == "chat" else []), "-m", "nobody/has-this-model"]
    monkeypatch.setattr("mm.cli.loading.check_sees", lambda *_: None)
    for module in (chat, caption, read):
        monkeypatch.setattr(module, "check_sees", lambda *_: None)
    status, _, err = invoke(*words, "--quantization", "int3")
    assert status == 2 and "'int3' is not one of" in err and "int4" in err
    status, _, err = invoke(*words, "--device-map", "auto", "--device", "cpu")
    assert status == 2 and "--device is 'cpu' and there is a --device-map: both" in err
    if not torch.cuda.is_available():
        status, _, err = invoke(*words, "--device-map", "auto")
        assert status == 2 and "splits a model over GPUs, and torch" in err
        status, _, err = invoke(*words, "--quantization", "fp8", "--device", "cuda")
        assert status == 2 and "sees no GPU" in err


def test_one_model_over_all_gpus_is_no_matter_of_several_processes():
    status, _, err = invoke("eval", "--device-map", "auto", "--processes", "2")
    assert status == 2 and "--device-map spreads one model over all GPUs. Leave --processes 2 out" in err
    for other in ({"devices": ("cpu", "cpu")}, {"engine": "ray"}):
        with pytest.raises(OptionError, match="device_map makes one model of all GPUs, and .* one of each"):
            Job("a", "b.jsonl", device_map="auto", **other)


def test_a_plan_counts_the_bytes_of_quantised_weights():
    name = "deepseek-ai/deepseek-vl2-tiny"
    plans = {}
    for kind in (None, "int8", "int4"):
        words = [] if kind is None else ["--quantization", kind]
        status, out, err = invoke("plan", name, "--device", "cpu", "--dtype", "bfloat16", "--json", *words)
        assert status == 0, err
        plans[kind] = json.loads(out)
        assert plans[kind]["quantization"] == kind
    config = load_config(find_config(name).folder)
    for kind in ("int8", "int4"):
        assert plans[kind]["weight_bytes"] == part_sizes(config, torch.bfloat16, kind).total
        assert plans[kind]["peak"]["activations"] > plans[None]["peak"]["activations"]
    assert plans["int4"]["weight_bytes"] < plans["int8"]["weight_bytes"] < plans[None]["weight_bytes"]
    assert plans["int8"]["parameters"] == plans[None]["parameters"]
    assert "float32, int8 on cpu" in invoke("plan", "--quantization", "int8", "--device", "cpu")[1]


def test_texts_of_other_weights_are_another_run():
    plain, small = Job("a", "b.jsonl"), Job("a", "b.jsonl", quantization="int8")
    assert "quantization" not in plain.settings()  # as in the records of runs of before
    assert small.settings() == {**plain.settings(), "quantization": "int8"}


def test_processes_of_an_evaluation_load_as_asked():
    pipe = PipelineOpener("nano-vl2", 1, device="cpu", quantization="int8")(0)
    assert pipe.model.decoder.quantization == "int8"
