"""The loop at toy size: it learns, it resumes exactly, it refuses before it works."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mm.errors import ConfigError, ResourceError, WeightsError
from mm.families.table import load_model
from mm.processing.vl2 import VL2Processor
from mm.training.__main__ import main
from mm.training.data import SampleEncoder
from mm.training.loop import RESERVED_SECONDS, train
from mm.training.recipe import load_recipe
from mm.training.session import Session

TOY = Path(__file__).parents[2] / "configs" / "nano_vl2_toy.yaml"
SMALL = (
    "data.buckets=[{views: 1, length: 224, rows: 4}]",
    "data.phases=[{until: 1.0, level: [0.0, 0.0], max_tiles: 1, kinds: {line: 1.0}}]",
    "data.prefill=4",
    "evaluation.samples=1",
)


def _train(folder: Path, out: Path, *overrides: str, **session: Any) -> dict[str, Any]:
    recipe = load_recipe(TOY, (f"model={folder}", *SMALL, *overrides))
    return train(recipe, Session(out=out, device="cpu", **session), say=lambda line: None)


def test_a_toy_run_learns_its_samples_by_heart_and_saves_a_loadable_model(toy_folder: Path, tmp_path: Path) -> None:
    summary = _train(toy_folder, tmp_path / "out", "schedule.max_steps=80")
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert log[0]["answer"] > 4
    assert log[-1]["answer"] < 0.3
    assert log[-1]["character"] < 0.6 * log[0]["character"]
    assert log[-1]["expert_share"][0] >= 0.02
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [point["step"] for point in curve] == [record["step"] for record in log]
    assert summary["step"] == 80
    assert summary["progress"] == 1.0
    assert set(summary["evaluation"]) == {"line/longest"}
    model = load_model(tmp_path / "out", device="cpu", dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == summary["parameters"]

    _train(toy_folder, tmp_path / "again", "schedule.max_steps=16", warm_start=tmp_path / "out")
    first = json.loads((tmp_path / "again" / "train_log.jsonl").read_text().splitlines()[0])
    assert first["answer"] < 0.5 * log[0]["answer"]


def test_a_stopped_run_goes_on_exactly(toy_folder: Path, tmp_path: Path) -> None:
    steps = "schedule.max_steps=40"
    _train(toy_folder, tmp_path / "whole", steps)
    state = tmp_path / "state"
    recipe = load_recipe(TOY, (f"model={toy_folder}", *SMALL, steps, "run.state_seconds=0", "run.log_seconds=0"))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, Session(out=tmp_path / "cut", device="cpu", state=state), say=_interrupt_second_line)
    rest = _train(toy_folder, tmp_path / "rest", steps, "run.log_seconds=0", state=state)
    assert rest["step"] == 40
    log = [json.loads(line) for line in (tmp_path / "rest" / "train_log.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 32  # the state of step 16 is the last one that was saved before the interrupt at 32
    whole = load_model(tmp_path / "whole", device="cpu", dtype=torch.float32).state_dict()
    resumed = load_model(tmp_path / "rest", device="cpu", dtype=torch.float32).state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def _interrupt_second_line(line: str) -> None:
    """Listens to a run and interrupts it after its second block, as a second Ctrl-C would."""
    if line.startswith("step 32"):
        raise KeyboardInterrupt


def test_mistakes_are_found_before_any_work(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").touch()
    with pytest.raises(ResourceError, match=r"full already holds weights .model.safetensors.. Choose an empty --out"):
        _train(toy_folder, tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write to .*file.* Choose another --out folder"):
        _train(toy_folder, tmp_path / "file" / "out")
    with pytest.raises(ResourceError, match="No font of the 'train' families was found in"):
        _train(toy_folder, tmp_path / "out", f"data.fonts={tmp_path}")
    over = r"session_seconds 5 were over before training began: 25 of them .* Allow more time, or lower data.prefill"
    for finish in (True, False):  # before the first step, whether the schedule is fitted into the session or goes on
        with pytest.raises(ResourceError, match=over):
            _train(toy_folder, tmp_path / "over", session_seconds=5.0, finish=finish)
    assert [path.name for path in (tmp_path / "over").iterdir() if path.suffix != ".jsonl"] == []
    with pytest.raises(ResourceError, match=r"data.ring_gib 1e-05 gives a bucket of 1 views 0 slots"):
        _train(toy_folder, tmp_path / "out", "data.ring_gib=1.0e-5")


def test_a_state_of_another_run_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    torch.save({"weights": {}}, state / "state.pt")
    with pytest.raises(WeightsError, match=r"state.pt does not fit this run .* Resume with the recipe that wrote it"):
        _train(toy_folder, tmp_path / "out", state=state)
    torch.save({"step": Path("x")}, state / "state.pt")  # more than tensors and numbers
    with pytest.raises(WeightsError, match=r"state.pt does not fit this run .*Weights only"):
        _train(toy_folder, tmp_path / "out", state=state)
    (state / "state.pt").write_bytes(b"")  # cut short when the machine lost its power
    with pytest.raises(WeightsError, match=r"state.pt does not fit this run"):
        _train(toy_folder, tmp_path / "out", state=state)


def test_a_vocabulary_that_does_not_fit_16_bits_is_refused(toy_folder: Path) -> None:
    processor = VL2Processor.from_folder(toy_folder)
    recipe = load_recipe(TOY, (f"model={toy_folder}", *SMALL))
    processor.tokenizer.highest_id = 32765
    SampleEncoder(processor, recipe.data.buckets)
    processor.tokenizer.highest_id = 129_279
    with pytest.raises(ConfigError, match=r"ids up to 129279; .* which hold ids up to 32765\. Train a model with a"):
        SampleEncoder(processor, recipe.data.buckets)


def test_settings_of_the_process_are_put_back(toy_folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        _train(toy_folder, tmp_path / "out", "schedule.max_steps=1", "evaluation.samples=0")
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_the_command_line_reports_a_mistake_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(TOY), "--out", str(tmp_path), "--set", "run.speed=1"]) == 1
    assert capsys.readouterr().err == (
        "mm train: cannot set 'run.speed=1': write section.key=value with a key that the recipe has.\n"
    )


def test_renderer_processes_feed_a_run_that_ends_in_its_time(toy_folder: Path, tmp_path: Path) -> None:
    summary = _train(
        toy_folder,
        tmp_path / "out",
        "data.workers=1",
        "data.prefill=12",
        "schedule.max_steps=null",
        "schedule.train_seconds=2.0",
        session_seconds=RESERVED_SECONDS + 60,
        finish=False,
    )
    assert summary["progress"] == 1.0
    assert 2.0 <= summary["train_seconds"] < 30
    assert summary["step"] >= 16
    assert summary["failed_samples"] == 0
