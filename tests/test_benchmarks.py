"""The benchmark harness runs and measures what its table says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_every_row_is_measured(golden: Callable[[str], Path]) -> None:
    model = str(golden("deepseek_vl2_tiny") / "checkpoint")
    command = [sys.executable, str(HARNESS), "--model", model, "--repeat", "1", "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["seconds"]
    assert set(rows) == {
        "load",
        "first piece",
        "next piece, same image",
        "decode, 1 row, a token",
        "decode, 8 rows, a step",
        "ocr of a page",
    }
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
