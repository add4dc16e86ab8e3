"""Every kind of source into every kind of output: the same texts, in order, under the source's own ids."""

import base64
import csv
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mm.generation.sampling import SamplingOptions
from tests.captioning.conftest import paint

SINKS = {"jsonl": "a.jsonl", "txt": "txt", "parquet": "a.parquet", "tar": "a.tar"}


def in_folder(folder: Path, images: list[Path]) -> str:
    return str(images[0].parent)


def in_pattern(folder: Path, images: list[Path]) -> str:
    return str(images[0].parent / "*.png")


def in_list(folder: Path, images: list[Path]) -> str:
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in images))
    return str(folder / "list.txt")


def in_jsonl(folder: Path, images: list[Path]) -> str:
    rows = [{"id": path.name, "url": path.as_uri()} for path in images]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "t.jsonl")


def in_csv(folder: Path, images: list[Path]) -> str:
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path"])
        writer.writerows([path.name, str(path)] for path in images)
    return str(folder / "t.csv")


def in_parquet(folder: Path, images: list[Path]) -> str:
    rows = [{"id": path.name, "image": {"bytes": path.read_bytes()}} for path in images]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    return str(folder / "t.parquet")


def in_csv_bytes(folder: Path, images: list[Path]) -> str:
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "bytes"])
        writer.writerows([path.name, base64.b64encode(path.read_bytes()).decode()] for path in images)
    return str(folder / "t.csv")


def in_tar(folder: Path, images: list[Path]) -> str:
    with tarfile.open(folder / "in.tar", "w") as tar:
        for path in images:
            tar.add(path, path.name)
    return str(folder / "in.tar")


def in_file_system(folder: Path, images: list[Path]) -> str:
    return images[0].parent.as_uri()


def texts(output: Path, sink: str) -> list[tuple[str, str]]:
    """(the last part of the id, text) of each image."""
    if sink == "jsonl":
        found = [json.loads(line) for line in output.read_text().splitlines()]
    elif sink == "parquet":
        found = parquet.read_table(output).to_pylist()
    elif sink == "txt":
        paths = sorted(output.rglob("*.txt"))
        return [(path.stem + ".png", path.read_text()[:-1]) for path in paths]
    else:
        with tarfile.open(output) as tar:
            assert sum(name.endswith(".png") for name in tar.getnames()) == 2
            rows = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")]
            found = [json.load(row) for row in rows if row is not None]
    return [(row["id"].rpartition("/")[2], row["text"]) for row in found]


@pytest.mark.parametrize(
    "source",
    [in_folder, in_pattern, in_list, in_jsonl, in_csv, in_csv_bytes, in_parquet, in_tar, in_file_system],
)
@pytest.mark.parametrize("sink", SINKS)
def test_every_source_and_sink(do, tmp_path, source: Callable[[Path, list[Path]], str], sink):
    images = paint(tmp_path / "in", 2, kinds=1)
    name = SINKS[sink]
    one = SamplingOptions(max_new_tokens=1)
    summary = do(source(tmp_path, images), tmp_path / "out" / name, sampling=one)
    assert (summary.done, summary.quarantined) == (2, {})
    found = texts(tmp_path / "out" / name, sink)
    assert [entry[0] for entry in found] == ["0000.png", "0001.png"]
    assert found[0][1] == found[1][1] != ""
