"""Where images come from, their ids, and odd names."""

import base64
import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mm.captioning.sources import open_source
from mm.errors import ImageError, InputError
from mm.images import open_image
from tests.captioning.conftest import paint


def ids(name: object) -> list[str]:
    return [item.id for item in open_source(str(name)).items()]


def sizes(name: object) -> list[tuple[int, int]]:
    return [open_image(item.source()).size for item in list(open_source(str(name)).items())]


EXPECTED = [(24, 16), (25, 16), (26, 16)]


def test_a_folder_is_read_to_its_depth_in_the_order_of_names(tmp_path):
    paint(tmp_path / "b", 2)
    paint(tmp_path / "a", 1)
    (tmp_path / "a" / "note.md").write_text("no image")
    assert ids(tmp_path) == ["a/0000.png", "b/0000.png", "b/0001.png"]
    assert ids(tmp_path / "b" / "0001.png") == ["0001.png"]


def test_links_that_lead_back_end_and_others_are_followed(tmp_path):
    paint(tmp_path / "in" / "deep", 1)
    paint(tmp_path / "other", 1)
    (tmp_path / "in" / "deep" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "broken.png").symlink_to("nowhere.png")
    assert ids(tmp_path / "in") == ["broken.png", "deep/0000.png", "more/0000.png"]


@pytest.mark.parametrize(
    "name", ["-rf.png", "a\nb.png", "\U0001f600.png", "~.png", ".hidden.png", "{name}.png", "s3:.png"]
)
def test_odd_names(tmp_path, monkeypatch, name):
    paint(tmp_path, 1)[0].rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert ids(".") == [name]
    assert sizes(".") == EXPECTED[:1]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_utf8(tmp_path):
    os.rename(os.fsencode(paint(tmp_path, 1)[0]), os.fsencode(tmp_path) + b"/\xff.png")
    assert ids(tmp_path) == ["\udcff.png"]
    assert sizes(tmp_path) == EXPECTED[:1]


def test_a_pattern(tmp_path):
    paint(tmp_path / "x" / "y", 2)
    assert ids(tmp_path / "**" / "*1.png") == ["x/y/0001.png"]
    with pytest.raises(InputError, match="no file matches .*put it in quotes"):
        open_source(str(tmp_path / "*.jpg"))


def test_a_list_of_paths_below_its_folder(tmp_path):
    paint(tmp_path / "x", 3)
    (tmp_path / "list.txt").write_text(f"x/0000.png\n\nx/0001.png\r\n{tmp_path}/x/0002.png\nx/0000.png\n")
    assert ids(tmp_path / "list.txt") == ["x/0000.png", "x/0001.png", f"{tmp_path}/x/0002.png"]
    assert sizes(tmp_path / "list.txt") == EXPECTED


@pytest.mark.parametrize("kind", ["path", "bytes", "data URI", "address"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_tables(tmp_path, kind, ending):
    rows = []
    for number, path in enumerate(paint(tmp_path / "x", 3)):
        data = path.read_bytes()
        value: dict[str, object] = {
            "path": {"path": f"x/{path.name}"},
            "bytes": {"bytes": data if ending == ".parquet" else base64.b64encode(data).decode()},
            "data URI": {"image": "data:image/png;base64," + base64.b64encode(data).decode()},
            "address": {"url": path.as_uri()},
        }[kind]
        rows.append({"id": f"image {number}", **value, "tags": "red, small"})
    table = tmp_path / f"table{ending}"
    if ending == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == ".csv":
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), table)
    assert ids(table) == ["image 0", "image 1", "image 2"]
    assert sizes(table) == EXPECTED
    assert list(open_source(str(table)).items())[0].tags == "red, small"


def test_a_table_without_ids_or_without_images(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text('{"file_name": "a.png"}\n{"bytes": "aGk="}\n')
    assert ids(table) == ["a.png", "t.jsonl#1"]
    table.write_text('{"name": "a.png"}\n')
    with pytest.raises(InputError, match="row 0 .* names no image: its columns are name; expected one of path, "):
        ids(table)
    table.write_text("{\n")
    with pytest.raises(InputError, match="line 1 .* is no JSON"):
        ids(table)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot read the table"):
        ids(tmp_path / "t.parquet")


def write_tar(path: Path, images: list[Path]) -> None:
    with tarfile.open(path, "w") as tar:
        for image in images:
            tar.add(image, image.name)
            text = b"blue\n"
            member = tarfile.TarInfo(image.stem + ".txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))


def test_tar_shards_alone_and_by_a_pattern(tmp_path):
    images = paint(tmp_path / "x", 3)
    write_tar(tmp_path / "0.tar", images[:2])
    write_tar(tmp_path / "1.tar", images[2:])
    assert ids(tmp_path / "0.tar") == ["0.tar/0000.png", "0.tar/0001.png"]
    assert sizes(tmp_path / "*.tar") == EXPECTED
    assert {item.tags for item in open_source(str(tmp_path / "0.tar")).items()} == {"blue"}
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 300)
    with pytest.raises(InputError, match="cannot read the tar file"):
        ids(tmp_path / "bad.tar")


def test_file_systems_of_pyarrow(tmp_path):
    images = paint(tmp_path / "x", 3)
    write_tar(tmp_path / "0.tar", images)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"path": f"x/{path.name}"}) + "\n" for path in images))
    assert ids((tmp_path / "x").as_uri()) == ["0000.png", "0001.png", "0002.png"]
    for name in ("x", "0.tar", "t.jsonl"):
        assert sizes((tmp_path / name).as_uri()) == EXPECTED
    with pytest.raises(InputError, match="there is nothing at"):
        open_source((tmp_path / "y").as_uri())


def test_what_is_no_source(tmp_path):
    with pytest.raises(InputError, match="there is no .*Name a file, a folder"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(InputError, match="the source is empty"):
        open_source(" ")
    (tmp_path / "l.txt").write_text("http://127.0.0.1:1/a.png\n")
    with pytest.raises(ImageError, match="cannot read 'http://127.0.0.1:1/a.png'"):
        sizes(tmp_path / "l.txt")
