"""Runs: every sink, what they survive, and what they refuse."""

import json
import os
import tarfile
import threading
from pathlib import Path

import pytest
from pyarrow import parquet

from mm.captioning import Job, Task, run
from mm.captioning import ledger as ledger_module
from mm.captioning import sinks as sinks_module
from mm.captioning.log import Log
from mm.captioning.sinks import find_target
from mm.errors import InputError, OptionError, ResourceError
from mm.generation.sampling import SamplingOptions
from tests.captioning.conftest import paint

VOLATILE = ("time", "seconds")


@pytest.fixture(autouse=True)
def _commit_at_once(monkeypatch):
    """Every answer is a commit of its own, so that there is something in between to be cut off."""
    monkeypatch.setattr(ledger_module, "COMMIT_EVERY_S", 0.0)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steady(path: Path) -> list[dict]:
    """Rows without what differs between two equal runs."""
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows(path)]


def test_a_row_says_all(do, pipe, tmp_path):
    paint(tmp_path / "in", 3)
    summary = do(tmp_path / "in", tmp_path / "out.jsonl")
    assert (summary.done, summary.skipped, summary.quarantined, summary.exit_status) == (3, 0, {}, 0)
    first = rows(tmp_path / "out.jsonl")[0]
    expected = pipe.caption(str(tmp_path / "in" / "0000.png"), max_new_tokens=3, max_tiles=1)
    assert (first["id"], first["text"], first["prompt"]) == ("0000.png", expected.text, "Describe the image.")
    assert (first["width"], first["height"], first["finish_reason"]) == (24, 16, expected.finish_reason)
    assert first["prompt_tokens"] == expected.usage.prompt_tokens and first["completion_tokens"] == 3
    assert (first["model"], first["seed"], first["error"]) == ("nano-vl2", None, None)
    again = do(tmp_path / "in", tmp_path / "out.jsonl")
    assert (again.done, again.skipped) == (0, 3)
    paint(tmp_path / "in", 4)
    assert do(tmp_path / "in", tmp_path / "out.jsonl").done == 1
    assert [row["id"] for row in rows(tmp_path / "out.jsonl")] == [f"000{number}.png" for number in range(4)]


def test_every_sink_holds_the_same_texts(do, tmp_path, monkeypatch):
    monkeypatch.setattr(sinks_module, "ROWS_PER_PART", {"parquet": 2, "webdataset": 2})
    paint(tmp_path / "in" / "sub", 5)
    texts = {}
    do(tmp_path / "in", tmp_path / "a.jsonl")
    texts["jsonl"] = [row["text"] for row in rows(tmp_path / "a.jsonl")]
    do(tmp_path / "in", tmp_path / "txt")
    texts["txt"] = [path.read_text()[:-1] for path in sorted((tmp_path / "txt" / "sub").iterdir())]
    for name, format in (("a.parquet", None), ("parquet", "parquet")):
        do(tmp_path / "in", tmp_path / name, format=format)
        files = [tmp_path / name] if format is None else sorted((tmp_path / name).glob("part-*.parquet"))
        texts[name] = [text for file in files for text in parquet.read_table(file)["text"].to_pylist()]
        assert len(files) == (1 if format is None else 3)
    for name, format in (("a.tar", None), ("tar", "webdataset")):
        do(tmp_path / "in", tmp_path / name, format=format)
        texts[name] = []
        for file in [tmp_path / name] if format is None else sorted((tmp_path / name).glob("part-*.tar")):
            with tarfile.open(file) as tar:
                names = tar.getnames()
                assert [Path(entry).suffix for entry in names[:3]] == [".png", ".txt", ".json"]
                texts[name] += [tar.extractfile(entry).read().decode() for entry in names if entry.endswith(".txt")]
    assert len(texts) == 6 and all(found == texts["jsonl"] and len(found) == 5 for found in texts.values())
    paint(tmp_path / "in" / "sub", 6)  # the open part is written again, full
    for name, format in (("parquet", "parquet"), ("tar", "webdataset")):
        assert do(tmp_path / "in", tmp_path / name, format=format).done == 1
        assert len(list((tmp_path / name).glob("part-*"))) == 3


def test_damaged_files_go_to_quarantine_and_are_tried_again_alone(do, tmp_path):
    paths = paint(tmp_path / "in", 6)
    good = paths[1].read_bytes()
    paths[1].write_bytes(good[:40])
    paths[3].write_bytes(b"")
    paths[4].unlink()
    paths[4].symlink_to("nowhere")
    summary = do(tmp_path / "in", tmp_path / "out.jsonl")
    assert (summary.done, summary.quarantined, summary.exit_status) == (3, {"image": 3}, 3)
    held = rows(summary.quarantine)
    assert [row["id"] for row in held] == ["0001.png", "0003.png", "0004.png"]
    assert "empty" in held[1]["error"]
    paths[1].write_bytes(good)
    assert do(tmp_path / "in", tmp_path / "out.jsonl").done == 0
    summary = do(tmp_path / "in", tmp_path / "out.jsonl", retry_quarantined=True)
    assert (summary.done, summary.quarantined) == (1, {"image": 2})
    assert [row["id"] for row in rows(tmp_path / "out.jsonl")] == ["0000.png", "0002.png", "0005.png", "0001.png"]


def test_modes_of_sidecars(do, tmp_path):
    paint(tmp_path / "in", 2)
    out = tmp_path / "in"  # beside the images
    (out / "0000.txt").write_text("mine")
    with pytest.raises(InputError, match="the output exists. Say what to do with it: --mode skip"):
        do(out, out)
    assert do(out, out, mode="skip").done == 1
    assert (out / "0000.txt").read_text() == "mine"
    text = (out / "0001.txt").read_text()
    assert do(out, out, mode="append").done == 2
    assert (out / "0001.txt").read_text() == text * 2
    assert (out / "0000.txt").read_text().startswith("mine\n")
    assert do(out, out, mode="overwrite").done == 2
    assert (out / "0001.txt").read_text() == text
    (out / "0000.txt").write_text("corrected")
    assert do(out, out).done == 0
    assert (out / "0000.txt").read_text() == "corrected"


def test_modes_of_a_jsonl(do, tmp_path):
    paint(tmp_path / "in", 2)
    out = tmp_path / "out.jsonl"
    out.write_text('{"id": "0000.png", "text": "mine"}')  # without its end of line
    with pytest.raises(InputError, match="the output exists"):
        do(tmp_path / "in", out)
    assert do(tmp_path / "in", out, mode="skip").done == 1
    assert [row["text"] for row in rows(out)][0] == "mine"
    assert do(tmp_path / "in", out, mode="append").done == 2 and len(rows(out)) == 4
    assert do(tmp_path / "in", out, mode="overwrite").done == 2 and len(rows(out)) == 2


def test_other_settings_are_refused_with_the_difference(do, tmp_path):
    paint(tmp_path / "in", 1)
    do(tmp_path / "in", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"task.prompt: None before, 'What\?' now"):
        do(tmp_path / "in", tmp_path / "out.jsonl", task=Task(prompt="What?"))
    assert do(tmp_path / "in", tmp_path / "out.jsonl", task=Task(prompt="What?"), mode="append").done == 1
    (tmp_path / "p.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="the record of the run that wrote it is gone"):
        do(tmp_path / "in", tmp_path / "p.parquet", mode="skip")


@pytest.mark.parametrize("output", ["out.jsonl", "out", "out.parquet"])
def test_a_run_that_wrote_nothing_binds_nobody(do, tmp_path, monkeypatch, output):
    """Stopped before its first result, here."""
    other, stop = Task(prompt="What?"), threading.Event()
    paint(tmp_path / "in", 2)
    stop.set()
    for values in ({}, {"task": other}, {}):
        assert do(tmp_path / "in", tmp_path / output, stop=stop, **values).exit_status == 130
    assert do(tmp_path / "in", tmp_path / output, task=other).done == 2
    do(tmp_path / "in", tmp_path / output, stop=stop, mode="append", task=Task(prompt="Waht?"))
    with pytest.raises(InputError, match="the output exists. Say what to do with it"):
        do(tmp_path / "in", tmp_path / output)
    assert do(tmp_path / "in", tmp_path / output, mode="append").done == 2, "the corrected command"
    with pytest.raises(InputError, match="the output was made with other settings"):
        do(tmp_path / "in", tmp_path / output, task=other)
    log = find_target(str(tmp_path / output), None, (1, 1)).log
    assert [row["prompt"] for row in rows(log)] == ["What?"] * 2 + ["Describe the image."] * 2


@pytest.mark.parametrize(("tail", "binds"), [(b'{"id": "0000.png", "te', False), (b'{"id": "a"}\n{"i', True)])
def test_what_was_cut_off_binds_nobody(do, tmp_path, tail, binds):
    paint(tmp_path / "in", 1)
    stop = threading.Event()
    stop.set()
    assert do(tmp_path / "in", tmp_path / "out.jsonl", stop=stop).exit_status == 130
    (tmp_path / "out.jsonl").write_bytes(tail)
    if binds:
        with pytest.raises(
            InputError, match=r"unfinished run with other settings: task.prompt: None before, 'What\?' now"
        ):
            do(tmp_path / "in", tmp_path / "out.jsonl", task=Task(prompt="What?"))
        assert (tmp_path / "out.jsonl").read_bytes() == tail, "who is refused changes nothing"
    else:
        assert do(tmp_path / "in", tmp_path / "out.jsonl", mode="skip", task=Task(prompt="What?")).done == 1


def test_an_empty_source_binds_nobody_and_the_quarantine_does(do, tmp_path):
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "in", 1)[0].write_bytes(b"broken")
    assert do(tmp_path / "empty", tmp_path / "out.jsonl").total == 0
    assert do(tmp_path / "in", tmp_path / "out.jsonl").quarantined == {"image": 1}
    with pytest.raises(InputError, match="the output was made with other settings: source: "):
        do(tmp_path / "empty", tmp_path / "out.jsonl")


def test_a_record_of_an_older_version(do, tmp_path):
    paint(tmp_path / "in", 2)
    do(tmp_path / "in", tmp_path / "out.jsonl")
    record = tmp_path / "out.jsonl.mm-caption" / "run.json"
    older = {**json.loads(record.read_text()), "version": 1}
    del older["begun"]
    record.write_text(json.dumps(older))
    with pytest.raises(InputError, match="the output was made with other settings"):
        do(tmp_path / "in", tmp_path / "out.jsonl", task=Task(prompt="What?"))
    assert do(tmp_path / "in", tmp_path / "out.jsonl").skipped == 2


def test_refused_before_a_model_is_loaded(tmp_path):
    paint(tmp_path / "in", 1)
    source = str(tmp_path / "in")
    with pytest.raises(OptionError, match="the format 'txt' does not go with the output"):
        run(Job(source, str(tmp_path / "a.jsonl"), format="txt", model="none"))
    with pytest.raises(OptionError, match="shard is 3/2; expected i/n"):
        Job(source, "out", shard=(3, 2))
    with pytest.raises(OptionError, match="batch_size is 0"):
        Job(source, "out", batch_size=0)
    paint(tmp_path / "in", 1, ending=".jpg")
    with pytest.raises(InputError, match="would both write '0000.txt'. Use full_names"):
        run(Job(source, str(tmp_path / "out"), model="none"))
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="the output exists"):
        run(Job(source, str(tmp_path / "a.jsonl"), model="none"))


@pytest.mark.parametrize("output", ["out.jsonl", "out", "out.parquet"])
def test_stopping_saves_what_is_begun(do, tmp_path, output):
    paint(tmp_path / "in", 16)
    stop = threading.Event()
    first = do(tmp_path / "in", tmp_path / output, stop=stop, on_progress=lambda progress: stop.set())
    assert first.interrupted and first.exit_status == 130 and 0 < first.done < 16
    second = do(tmp_path / "in", tmp_path / output)
    assert (second.done, second.skipped, second.exit_status) == (16 - first.done, first.done, 0)


def test_a_torn_tail_is_cut_and_a_torn_middle_is_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "te')
    log = Log(path)
    assert list(log.rows()) == [{"id": 1}]
    log.close()
    path.write_text('{"id": 1}\n{"i\n{"id": 2}\n')
    log = Log(path)
    with pytest.raises(ResourceError, match="a line at byte 10 that is no JSON object"):
        list(log.rows())
    log.close()


def test_shards_share_the_images_out(do, tmp_path):
    paint(tmp_path / "in", 9)
    found = []
    for index in (1, 2):
        do(tmp_path / "in", tmp_path / "out.jsonl", shard=(index, 2))
        found += [row["id"] for row in rows(tmp_path / f"out-{index}-of-2.jsonl")]
    assert sorted(found) == [f"000{number}.png" for number in range(9)]


def test_a_dry_run_writes_nothing(do, tmp_path):
    paint(tmp_path / "in", 5)
    summary = do(tmp_path / "in", tmp_path / "out.jsonl", dry_run=True)
    assert (summary.total, summary.done, summary.skipped) == (5, 0, 0) and summary.estimate > 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sampled_answers_do_not_depend_on_what_else_runs(do, tmp_path):
    paint(tmp_path / "in", 4)
    hot = SamplingOptions(max_new_tokens=3, temperature=2.0, seed=5)
    do(tmp_path / "in", tmp_path / "a.jsonl", sampling=hot)
    do(tmp_path / "in", tmp_path / "b.jsonl", sampling=hot, batch_size=1)
    assert steady(tmp_path / "a.jsonl") == steady(tmp_path / "b.jsonl")
    assert len({row["seed"] for row in rows(tmp_path / "a.jsonl")}) == 4


def test_workers_survive_what_kills_them(pipe, tmp_path):
    from mm.captioning.prepare import Preparer, RefusedError, Workers
    from mm.captioning.sources import Item

    path = paint(tmp_path / "in", 1)[0]
    workers = Workers(Preparer(folder=pipe.folder, task=Task(), max_tiles=1), 1, timeout=2.0)
    try:
        assert workers.submit(Item(id="a", path=str(path))).result().inputs.num_tokens > 0
        os.mkfifo(tmp_path / "hangs.png")
        with pytest.raises(RefusedError, match="opening the image took too long") as late:
            workers.submit(Item(id="b", path=str(tmp_path / "hangs.png"))).result()
        assert late.value.reason == "timeout"
        with pytest.raises(RefusedError, match="there is no image"):
            workers.submit(Item(id="c", path=str(tmp_path / "none.png"))).result()
    finally:
        workers.close()
