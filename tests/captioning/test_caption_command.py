"""``mm caption`` with --output: words, exit status, and the thin script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm.cli.app import app
from tests.captioning.conftest import paint

SMALL = ("--max-tiles", "1", "--max-new-tokens", "2", "--workers", "0")


def invoke(*words: object):
    return CliRunner().invoke(app, ["caption", *map(str, words)], prog_name="mm")


def test_many_images_and_those_without_a_text(tmp_path):
    paint(tmp_path / "in", 3)[1].write_bytes(b"broken")
    result = invoke(tmp_path / "in", "--output", tmp_path / "out.jsonl", "--json", *SMALL)
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["schema"], summary["done"], summary["quarantined"]) == ("mm.caption-batch/1", 2, {"image": 1})
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text().partition("mm.caption-batch/1")[2]
    assert all(f"`{name}`" in documented for name in summary if name != "schema")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--mode", "skip"), 2, "these options are for many images: add --output OUT"),
        ((), 1, "is a folder. Say where its texts go: --output FOLDER"),
        (("-o", "{out}.jsonl", "--shard", "2"), 2, "--shard is '2'; expected I/N, such as 1/4"),
        (("-o", "{out}.jsonl", "--shard", "3/2"), 2, "--shard is 3/2; expected i/n with i from 1 to n"),
        (("-o", "{out}.jsonl", "--devices", "0,"), 2, "--devices is '0,'; expected devices with commas between"),
        (("-o", "{out}.jsonl", "--ray-address", "a:1"), 2, "are for a cluster. Use them with --engine ray."),
        (("-o", ""), 2, "the output is empty. Name a folder, or a .jsonl, .parquet or .tar file"),
        (("-o", "{out}.txt"), 2, "would be a folder of txt files, and its name is that of a file"),
        (("--engine", "ray"), 2, "these options are for many images: add --output OUT"),
        (("-o", "{out}", "--schema", "none.json"), 1, "cannot read the schema 'none.json'"),
    ],
)
def test_mistakes(tmp_path, words, status, message):
    result = invoke(tmp_path, *(word.replace("{out}", str(tmp_path / "out")) for word in words))
    assert (result.exit_code, result.stdout) == (status, "") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_script_is_the_command(tmp_path, capsys):
    from apps.batch_caption import main

    (tmp_path / "in").mkdir()
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "in"), "--output", str(tmp_path / "out.jsonl")])
    told = capsys.readouterr()
    assert end.value.code == 0 and "images" in told.out
    assert "There are no images in the source, or in this shard of it." in told.err


@pytest.mark.skipif(os.name == "nt", reason="captioning many images needs flock")
def test_a_second_interrupt_ends_at_once_and_loses_nothing(tmp_path):
    paths, out = paint(tmp_path / "in", 40), tmp_path / "out.jsonl"
    words = ["caption", str(tmp_path / "in"), "-o", str(out), "--max-new-tokens", "200", "--batch-size", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mm", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (out.is_file() and out.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("finishing what is begun, then saving; Ctrl-C again ends at once")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - started < 3, "without the end of the step that the model is in"
    assert (process.returncode, stdout, stderr) == (130, "", "Stopped.\n")

    def told() -> list[str]:
        held = tmp_path / "out.jsonl.mm-caption" / "quarantine.jsonl"  # of those that are too long
        return [json.loads(line)["id"] for file in (out, held) for line in file.read_text().splitlines()]

    assert 0 < len(told()) < len(paths)
    assert CliRunner().invoke(app, words).exit_code in (0, 3)
    assert sorted(told()) == [path.name for path in paths]
