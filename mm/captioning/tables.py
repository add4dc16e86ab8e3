"""Tables of images: .jsonl, .csv, .tsv and .parquet, with a column of paths, addresses or bytes."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from mm.captioning.sources import Item, as_bytes, located, open_stream
from mm.errors import InputError

# Columns that are looked at, the first one that a table has.
PATH_COLUMNS = ("path", "file", "file_name", "filename", "image_path", "url", "image_url", "image")
BYTES_COLUMNS = ("bytes", "image_bytes", "image", "jpg", "png")
_BATCH = 64  # rows of a parquet file that are in memory together


def table_items(name: str, *, with_data: bool) -> Iterator[Item]:
    """The images of a table, row by row.

    The id is the column ``id``, else the path or address, else the file's name and the row's number.

    Args:
        name: path or address of the table.
        with_data: False leaves the bytes of images out.

    Raises:
        InputError: the table cannot be read, or has no column of images.
    """
    ending = PurePosixPath(name).suffix.lower()
    reader = {".parquet": _parquet_rows, ".csv": _csv_rows, ".tsv": _csv_rows}.get(ending, _jsonl_rows)
    try:
        for number, row in enumerate(reader(name)):
            yield _item(row, name, number, with_data)
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot read the table {name!r}: {error}. Check the file") from error


def _item(row: Mapping[str, Any], name: str, number: int, with_data: bool) -> Item:
    tags = row.get("tags") or ""
    text = ", ".join(map(str, tags)) if isinstance(tags, list) else str(tags)
    path = next((row[key] for key in PATH_COLUMNS if isinstance(row.get(key), str) and row[key]), None)
    given = row.get("id")
    identity = str(given) if given not in (None, "") else path or f"{PurePosixPath(name).name}#{number}"
    if path is not None and path[:5].lower() == "data:" and identity == path:
        identity = f"{PurePosixPath(name).name}#{number}"
    for key in BYTES_COLUMNS:
        value = row.get(key)
        if isinstance(value, bytes | dict) or (isinstance(value, str) and key in BYTES_COLUMNS[:2]):
            data = as_bytes(value)
            if data is not None:
                return Item(id=identity, data=data if with_data else b"", tags=text)
            if isinstance(value, dict) and isinstance(value.get("path"), str):
                return located(str(given) if given else value["path"], value["path"], name, text)
    if path is None:
        raise InputError(
            f"row {number} of {name!r} names no image: its columns are {', '.join(map(str, row)) or 'none'}; expected "
            f"one of {', '.join(dict.fromkeys(PATH_COLUMNS + BYTES_COLUMNS))}. Rename the column"
        )
    return located(identity, path, name, text)


def _jsonl_rows(name: str) -> Iterator[Mapping[str, Any]]:
    with open_stream(name) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"line {number} of {name!r} is no JSON: {error}. Correct the line") from error
            if not isinstance(row, dict):
                raise InputError(f"line {number} of {name!r} is no JSON object. Write one object a line")
            yield row


def _csv_rows(name: str) -> Iterator[Mapping[str, Any]]:
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # bytes as base64 are longer than 128 KiB
    with io.TextIOWrapper(open_stream(name), encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from csv.DictReader(text, delimiter=delimiter)


def _parquet_rows(name: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with open_stream(name) as stream:
            for batch in parquet.ParquetFile(stream).iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"cannot read the table {name!r}: {error}. Check that it is a parquet file") from error
