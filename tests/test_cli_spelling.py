"""Errors of the command line name options as they are typed; the same errors in Python name parameters."""

from pathlib import Path

import pytest

from mm.captioning import Job
from mm.cli import spelling
from mm.errors import ConfigError, InputError, MMError, OptionError, PromptError
from mm.pictures import DrawOptions
from tests.test_cli import RECEIPT, fails, invoke

SPLIT = "device_map='auto' splits a model over GPUs, and torch 2 sees none. Leave it out"


@pytest.fixture(autouse=True)
def draw_was_named() -> None:
    """As when `mm draw` runs."""
    invoke("draw", "--help")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["draw", "a", "-n", "4", "--best-of", "2"], "error: --best-of is 2; expected a whole number from 4 to 1,024."),
        (["draw", "a", "-n", "0"], "error: --number is 0; expected"),
        (["draw", "a", "--steps", "0"], "error: --steps is 0; expected"),
        (["draw", "a", "--temperature", "-1"], "error: --temperature is -1.0; expected a number of 0 or more."),
        (
            ["draw", "a", "--speculation", "x"],
            "--speculation is 'x'; expected 'jacobi' or 'prompt-lookup', or leave it out.",
        ),
        (
            ["draw", "a", "--speculation-window", "4"],
            "--speculation-window is 4, but nothing speculates. Name --speculation too.",
        ),
        (
            ["draw", "a", "--negative-prompt", "b", "--guidance-scale", "1"],
            "--negative-prompt needs guidance, and --guidance-scale is 1.",
        ),
        (["chat", RECEIPT, "a", "--top-p", "2"], "error: --top-p is 2.0; expected"),
        (["chat", RECEIPT, "a", "--speculation", "jacobi"], "error: --speculation 'jacobi' is for pictures; expected"),
        (["chat", RECEIPT, "a", "--context", "20"], "no --max-tiles fits. A larger --context works too, with"),
        (["chat", RECEIPT, "a", "--device", "tpu"], "error: --device 'tpu' is unknown; use auto, cpu,"),
        (["complete", "a", "--stop", ""], "--stop is ('',); expected texts that are not empty."),
        (
            ["caption", "a", "-o", "b.jsonl", "--devices", "0", "--device", "cpu"],
            "error: --devices (cuda:0) does not go with --device.",
        ),
        (
            ["caption", "a", "-o", "b.jsonl", "--ray-address", "c:1"],
            "error: --ray-address and --actors-per-node are for a cluster. Use them with --engine ray.",
        ),
        (["plan", "--image-size", "0x0"], "error: --image-size is (0, 0); expected"),
    ],
)
def test_options_are_named_as_they_are_typed(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    fails(result, said, status=1 if "--context" in words else 2)
    assert "None" not in result.err


def test_python_keeps_its_names() -> None:
    with pytest.raises(OptionError, match="^best_of is 2; expected"):
        DrawOptions(num_images=4, best_of=2)
    with pytest.raises(OptionError, match="^num_images_per_prompt is 0; expected"):
        DrawOptions(num_images=0)
    with pytest.raises(OptionError, match="Use them with engine='ray'"):
        Job("a", "b.jsonl", ray_address="c:1")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OptionError(SPLIT + ", or give a device for each layer: device_map={'layers.0': 'cpu', ...}."),
            "--device-map auto splits a model over GPUs, and torch 2 sees none. Leave it out.",
        ),
        (OptionError("best_of=4 is less than num_images_per_prompt=8"), "--best-of 4 is less than --number 8."),
        (OptionError("max_tiles is 2"), "max_tiles is 2."),  # no option of `mm draw`
        (OptionError("unknown app 'best_of'; known: draw"), "unknown app 'best_of'; known: draw."),
        (
            PromptError("the prompt 'seed=1 top_k' of the model's own, with top_k=5"),
            "the prompt 'seed=1 top_k' of the model's own, with --top-k 5.",
        ),
        (PromptError("seed is a word here, and steps are too"), "seed is a word here, and steps are too."),
        (
            MMError("With top_k=5 (--top-k 5) it fits. A larger top_p= (--top-p) too"),
            "With --top-k 5 it fits. A larger --top-p too.",
        ),
        (MMError("models/top_k/x, a.seed=3 and http://x/?seed=1"), "models/top_k/x, a.seed=3 and http://x/?seed=1."),
        (MMError("Use model='my models/a' or dtype='float32'"), "Use --model 'my models/a' or --dtype float32."),
        (
            InputError(
                "made with other settings: sampling.top_p: None before, 0.5 now; source: 'a' before, 'b' now; "
                "model: 'c; d' before, None now. Use the same"
            ),
            "made with other settings: --top-p: nothing before, 0.5 now; source: 'a' before, 'b' now; "
            "--model: 'c; d' before, nothing now. Use the same.",
        ),
        (ConfigError("config.json has top_k 3, batch_size=2"), "config.json has top_k 3, batch_size=2."),
    ],
)
def test_only_options_are_respelled(error: MMError, said: str) -> None:
    assert spelling.error_text(error) == said
