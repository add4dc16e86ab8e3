"""The benchmark harness runs and measures what its table says."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from benchmarks import alternatives, gpu
from benchmarks.random_model import random_pipeline
from benchmarks.run import PAGE_TEXT, RECEIPT_TEXT

HARNESS = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_every_row_is_measured(golden: Callable[[str], Path]) -> None:
    model = str(golden("deepseek_vl2_tiny") / "checkpoint")
    command = [sys.executable, str(HARNESS), "--model", model, "--repeat", "1", "--tokens", "16", "--device", "cpu"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["seconds"]
    assert set(rows) == {
        "load",
        "first piece",
        "next piece, same image",
        "decode, 1 row, a token",
        "decode, 8 rows, a step",
        "ocr of a page",
        "chart question, new image",
        "receipt of 110 characters",
        "page of 400 characters",
    }
    assert [len(text) for text in (RECEIPT_TEXT, PAGE_TEXT)] == [110, 400]
    assert all(len(values) == 1 and values[0] >= 0 for values in rows.values())
    assert rows["load"][0] > 0


@pytest.mark.parametrize("weights", [[], ["--random-weights", "--prompt", "40"]])
def test_requests_at_once_are_measured_against_one_after_another(
    golden: Callable[[str], Path], tmp_path: Path, weights: list[str]
) -> None:
    model, out = str(golden("deepseek_vl2_tiny") / "checkpoint"), tmp_path / "t.json"
    command = [sys.executable, str(HARNESS.parent / "throughput.py"), "--model", model, "--device", "cpu"]
    command += ["--requests", "3", "--tokens", "5", "--repeat", "1", "--out", str(out), *weights]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "At once" in done.stdout and "| at once |" in done.stdout
    report = json.loads(out.read_text())
    alone, together = report["runs"]["one after another"], report["runs"]["at once"]
    assert alone["decode_steps"] == 3 * 4
    assert 4 <= together["decode_steps"] <= 4 + 3 * 2
    assert report["reused_tokens"] < 3 * 20  # no more than the words before a picture
    for run in (alone, together):
        assert run["floor_seconds"] > 0 and run["seconds"][0] > 0
    assert together["floor"]["decode_step"] > alone["floor"]["decode_step"]
    assert together["floor_seconds"] < alone["floor_seconds"]


def test_random_weights_answer_the_same_with_and_without_what_makes_them_fast(golden: Callable[[str], Path]) -> None:
    name, answers = str(golden("deepseek_vl2_tiny") / "checkpoint"), []
    for fast in (True, False):
        pipe = random_pipeline(name, torch.device("cpu"), torch.float32, tokens=30, fast=fast, layers=2)
        answers.append([r.token_ids for r in pipe.chat_batch([(None, "a"), (None, "b")], max_new_tokens=5)])
        pipe.engine.close()
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1] and all(len(ids) == 5 for ids in answers[0])


def test_a_row_that_fails_says_so_and_the_table_marks_what_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = gpu.Rows(argparse.Namespace(device="cpu", profile=False, repeat=1, brief=False, lock=None))

    def fail() -> dict[str, float]:
        raise RuntimeError("no such kernel")

    rows.row("VQ decode, 1 image", fail)
    rows.row("VL2-Tiny decode, 1 row", lambda: {"value": 2100.0})
    rows.row("VL2-Tiny prefill, 1 x 1,536", lambda: {"value": 9.0})
    rows.row("them: VL2-Tiny prefill, 1 x 1,536", lambda: {"value": 18.0})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ROW ")]
    table = gpu.markdown([json.loads(line[4:]) for line in lines])
    assert "- VQ decode, 1 image: {'error': 'RuntimeError: no such kernel'" in table
    assert "| VL2-Tiny decode, 1 row | 2100 tok/s | 3712 | 57% | 1500 | 2000 | 764 (earlier) | 2.7 x | goal |" in table
    found = [json.loads(line[4:]) for line in lines]
    before = [{"job": row["job"], "value": 8.0} for row in found]
    assert gpu.losses(found, before) == ["- worse than before by 12%: VL2-Tiny prefill, 1 x 1,536, 8 -> 9 ms"]
    assert "| VL2-Tiny prefill, 1 x 1,536 | 9 ms | 1.7 | 19% | 8 | 5 | 18 (them) | 2.0 x | missed |" in table


def test_what_a_user_would_run_instead_is_measured_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("STEPS", 2), ("OFFICIAL_STEPS", 2), ("CODES", 8)):
        monkeypatch.setattr(alternatives, name, value)
    monkeypatch.setattr(torch, "compile", lambda model, mode=None: model)  # that takes a minute
    rows = gpu.Rows(argparse.Namespace(device="cpu", profile=False, repeat=1, brief=True, lock=None))
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    latents = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    alternatives.language(rows, "A", "DeepseekV2", {**alternatives.SMALL, **sizes, **experts, **latents}, context=6)
    layers = {"mlp_layer_types": ["dense", "sparse"]}
    alternatives.language(rows, "B", "DeepseekOcr2Text", {**alternatives.TINY, **sizes, **experts, **layers}, context=6)
    alternatives.drawing(rows, "C", {**alternatives.JANUS_1B, **sizes}, prompt=4)
    tower = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
    alternatives.towers(
        rows,
        siglip={**tower, "img_size": 28, "patch_size": 14, "class_token": False, "global_pool": ""},
        sam={**tower, "img_size": 32, "use_rel_pos": True, "window_size": 0, "global_attn_indexes": (0,)},
    )
    alternatives.painter(rows, widths=(32,), latent=8)
    found = [json.loads(line[4:]) for line in capsys.readouterr().out.splitlines() if line.startswith("ROW ")]
    assert [row for row in found if "error" in row] == []
    assert len(found) == 2 * 6 + 4 + 8 + 4 and all(row["value"] > 0 for row in found)


def test_the_gpu_round_names_a_part_that_it_does_not_know(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", str(HARNESS.with_name("gpu_round.sh")), str(tmp_path / "out"), "times", "time"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "error: no part is called time\n"
    assert not list((tmp_path / "out").glob("*.log"))  # nothing was begun


def test_the_gpu_round_asks_for_options_recipes_and_groups_that_there_are(tmp_path: Path) -> None:
    for model in ("vl2", "janus"):
        (tmp_path / model).mkdir()
    parts = ["tests", "times", "captions", "vl2", "vq", "janus", "scores"]
    command = ["bash", str(HARNESS.with_name("gpu_round.sh")), str(tmp_path), *parts]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHON": "echo"})
    lines = [line.split() for part in parts for line in (tmp_path / f"{part}.log").read_text().splitlines()]
    assert len(lines) == 1 + 1 + 3 + 1 + 1 + 1 + 2

    @cache
    def told(*program: str) -> str:
        command = [sys.executable, *program, "--help"]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=HARNESS.parent.parent).stdout

    for words in lines:
        known = told(*words[: 3 if words[1] == "mm" else 2 if words[0] == "-m" else 1])
        assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == []
    for word in (word for words in lines for word in words if word.startswith(("configs/", "mm/"))):
        assert (HARNESS.parent.parent / word).exists(), word
    times = lines[1]
    assert set(times[times.index("--groups") + 1].split(",")) <= set(gpu.GROUPS)
