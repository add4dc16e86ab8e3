"""The benchmark harness runs and measures what its table says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
