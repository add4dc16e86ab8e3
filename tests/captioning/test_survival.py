"""What a run survives: being killed, a full disk, wrong permissions, a removed output, a second run, damaged images."""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mm.captioning import ledger
from mm.captioning.state import Lock
from mm.errors import ResourceError
from mm.generation.sampling import SamplingOptions
from tests.captioning.conftest import paint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="captioning many images needs flock")

VOLATILE = ("time", "seconds")
TWO = SamplingOptions(max_new_tokens=2)


@pytest.fixture(scope="module")
def forked() -> Iterator[Callable[..., dict[str, Any]]]:
    """forked(source=..., output=..., kill_at=...): see ``tests.captioning.forked``."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.captioning.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
    ) as process:

        def call(**order: Any) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            order.update(source=str(order["source"]), output=str(order["output"]))
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield call
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def steady(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in VOLATILE}


def lines(path: Path) -> list[dict[str, Any]]:
    return [steady(json.loads(line)) for line in path.read_text().splitlines()]


def contents(output: Path) -> object:
    """All that a run has written, but for times."""
    if output.suffix == ".jsonl":
        return lines(output)
    if output.suffix == ".parquet":
        return parquet.read_table(output).drop(list(VOLATILE)).to_pylist()
    if output.suffix == ".tar":
        found = {}
        with tarfile.open(output) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                found[member.name] = steady(json.loads(data)) if member.name.endswith(".json") else data
        return found
    return {path.name: path.read_bytes() for path in output.glob("*.txt")}


@pytest.mark.parametrize(("output", "moments"), [("a.jsonl", 20), ("txt", 4), ("a.parquet", 4), ("a.tar", 4)])
def test_killed_at_random_moments_and_resumed(do, forked, tmp_path, output, moments):
    """Half of them between two steps of a commit, half at any time."""
    paths = paint(tmp_path / "in", 24 if moments == 20 else 12, kinds=3)
    paths[7].write_bytes(b"broken")
    started = time.monotonic()
    do(tmp_path / "in", tmp_path / "whole" / output, sampling=TWO)
    share = (time.monotonic() - started) / moments  # on any machine all of them together are no whole run
    draw, cut, killed = random.Random(output), tmp_path / "cut" / output, 0
    for number in range(moments):
        if number % 2:
            moment: dict[str, Any] = {"kill_after": share * draw.uniform(0.2, 1.8)}
        else:
            moment = {"kill_at": draw.randint(2, 9), "late": draw.random() < 0.5}
        killed += forked(source=tmp_path / "in", output=cut, **moment) == {"killed": True}
    assert killed > moments / 2
    summary = do(tmp_path / "in", cut, sampling=TWO)
    assert summary.quarantined == {"image": 1} and summary.skipped > 0
    assert contents(cut) == contents(tmp_path / "whole" / output) and len(contents(cut)) >= len(paths) - 1
    assert lines(summary.quarantine) == lines(do(tmp_path / "in", tmp_path / "whole" / output, sampling=TWO).quarantine)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("output", ["a.jsonl", "txt", "a.parquet", "a.tar"])
def test_a_full_disk_is_an_error_that_loses_nothing(do, forked, tmp_path, output):
    paint(tmp_path / "in", 6, kinds=3)
    answer = forked(source=tmp_path / "in", output=tmp_path / output, limit=1500)
    assert "ResourceError: cannot write" in answer["error"] and "run the same command again" in answer["error"]
    summary = do(tmp_path / "in", tmp_path / output, sampling=TWO)
    assert summary.skipped > 0 and summary.done + summary.skipped == 6
    do(tmp_path / "in", tmp_path / "whole" / output, sampling=TWO)
    assert contents(tmp_path / output) == contents(tmp_path / "whole" / output)


def test_a_worker_whose_run_was_killed_ends_without_a_word():
    code = "from mm.captioning.prepare import work; work()"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_worker_whose_answer_nobody_waits_for_ends_without_a_word():
    code = "from mm.captioning import processes; a = processes.answers_to_parent(); input(); "
    code += "processes.answer(a, b'x' * 10**6); print('went on')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert process.communicate(b"\n", timeout=120) == (None, b"")
    assert process.returncode == 0


def test_permissions(forked, open_folder):
    paths = paint(open_folder / "in", 3)
    given, closed = open_folder / "given", open_folder / "closed"
    given.mkdir()
    given.chmod(0o777)
    closed.mkdir()
    closed.chmod(0o555)
    paths[1].chmod(0o000)
    order = {"source": open_folder / "in", "unprivileged": True}
    assert forked(output=given / "a.jsonl", **order) == {"done": 2, "quarantined": {"image": 1}, "status": 3}
    held = lines(given / "a.jsonl.mm-caption" / "quarantine.jsonl")
    assert held[0]["id"] == "0001.png" and "ermission" in held[0]["error"]
    refused = forked(output=closed / "a.jsonl", **order)["error"]
    assert "ResourceError: cannot make the folder" in refused and "Check the path and its permissions" in refused
    (given / "there.jsonl").touch()
    (given / "there.jsonl").chmod(0o444)
    assert "ResourceError: cannot write" in forked(output=given / "there.jsonl", **order)["error"]
    (open_folder / "in").chmod(0o000)
    assert "InputError: cannot read the folder" in forked(output=given / "b.jsonl", **order)["error"]


@pytest.mark.parametrize("output", ["a.jsonl", "txt", "parts"])
def test_the_output_removed_in_mid_run(do, tmp_path, monkeypatch, output):
    monkeypatch.setattr(ledger, "COMMIT_EVERY_S", 0.0)
    paint(tmp_path / "in", 12, kinds=2)
    format = "parquet" if output == "parts" else None

    def remove(_: object) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)

    with pytest.raises(ResourceError, match="cannot write .*out"):
        do(tmp_path / "in", tmp_path / "out" / output, format=format, on_progress=remove)
    assert do(tmp_path / "in", tmp_path / "out" / output, format=format).done == 12


def test_two_runs_on_one_output(do, tmp_path):
    paint(tmp_path / "in", 1)
    do(tmp_path / "in", tmp_path / "out.jsonl")
    lock = Lock(tmp_path / "out.jsonl.mm-caption")
    with pytest.raises(ResourceError, match="another run is at work on this output"):
        do(tmp_path / "in", tmp_path / "out.jsonl")
    lock.release()
    assert do(tmp_path / "in", tmp_path / "out.jsonl").skipped == 1


def test_two_hundred_damaged_among_two_thousand(do, tmp_path):
    """Few different pictures, each asked once; every damaged file is another one."""
    good = [path.read_bytes() for path in paint(tmp_path / "few", 3)]
    (tmp_path / "in").mkdir()
    damaged = set(random.Random(0).sample(range(2000), 200))
    for number in range(2000):
        path, kind = tmp_path / "in" / f"{number:04d}.png", number % 4
        data = good[number % len(good)]
        if number not in damaged:
            path.write_bytes(data)
        elif kind == 0:
            path.symlink_to(f"nowhere-{number}")
        else:
            mark = str(number).encode()
            path.write_bytes((data[:33] + mark, mark, data[:20] + mark)[kind - 1])
    summary = do(tmp_path / "in", tmp_path / "a.jsonl", sampling=TWO, batch_size=16, deduplicate=True)
    assert (summary.done, summary.quarantined, summary.exit_status) == (1800, {"image": 200}, 3)
    found = lines(tmp_path / "a.jsonl")
    assert [int(row["id"][:4]) for row in found] == sorted(set(range(2000)) - damaged)
    assert sum("copy_of" not in row for row in found) == 3 and summary.tokens == 6
    assert {int(row["id"][:4]) for row in lines(summary.quarantine)} == damaged


NAMES = ("-rf.png", "a\nb.png", "\U0001f600 \u202e.png", "{name}.png", "--output.png", ".hidden.png", "c'$(d)\".png")


@pytest.mark.parametrize("output", ["a.jsonl", "txt", "a.parquet", "a.tar"])
def test_odd_names_through_every_sink(do, tmp_path, output):
    for name, path in zip(NAMES, paint(tmp_path / "in" / "-x", len(NAMES), kinds=1), strict=True):
        path.rename(path.with_name(name))
    (tmp_path / "in" / "-x" / "loop").symlink_to(tmp_path / "in")
    assert do(tmp_path / "in", tmp_path / output, sampling=TWO).done == len(NAMES)
    expected = sorted(f"-x/{name}" for name in NAMES)
    if output == "txt":
        assert sorted(path.name for path in (tmp_path / "txt" / "-x").iterdir()) == sorted(
            name.removesuffix(".png") + ".txt" for name in NAMES
        )
    elif output == "a.tar":
        rows = [value for name, value in contents(tmp_path / output).items() if name.endswith(".json")]
        assert sorted(row["id"] for row in rows) == expected
    else:
        assert sorted(row["id"] for row in contents(tmp_path / output)) == expected
