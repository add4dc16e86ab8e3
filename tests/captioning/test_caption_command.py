"""``mm caption`` with --output: words, exit status, and the thin script."""

import json
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
        (("-o", "{out}.jsonl", "--shard", "3/2"), 2, "shard is 3/2; expected i/n with i from 1 to n"),
        (("-o", "{out}.jsonl", "--devices", "0,"), 2, "--devices is '0,'; expected devices with commas between"),
        (("-o", "{out}.jsonl", "--ray-address", "a:1"), 2, "are for a cluster. Use them with engine='ray'"),
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
    assert end.value.code == 0 and "images" in capsys.readouterr().out
