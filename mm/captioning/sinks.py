"""Where results go. Each row is in the run's log before anything else is written; a sink derives its files from the
log, and does so again after a crash without doubling anything."""

import io
import json
import tarfile
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Protocol

from mm.captioning.log import Row, cannot_write, discard, partial, replace_file, sync_folder
from mm.captioning.sources import IMAGE_ENDINGS, STATE_ENDING, Item
from mm.errors import ImageError, InputError, OptionError, ResourceError
from mm.whole_file import replacing

Format = Literal["txt", "jsonl", "parquet", "webdataset"]
FORMATS: tuple[Format, ...] = ("txt", "jsonl", "parquet", "webdataset")
_BY_ENDING: dict[str, Format] = {".jsonl": "jsonl", ".parquet": "parquet", ".tar": "webdataset"}
_NO_FOLDERS = frozenset((".txt", ".csv", ".tsv", ".json", ".md", ".gz", ".zip", *IMAGE_ENDINGS))
ROWS_PER_PART = {"parquet": 10_000, "webdataset": 500}  # images of a shard are in memory until it is written

GROUP = 64  # most rows that are committed together

Fetch = Callable[[Iterable[str]], dict[str, Item]]


@dataclass(frozen=True)
class Target:
    """Where a run writes.

    Attributes:
        path: a file, or the folder of sidecars or parts.
        format: of the results.
        is_file: ``path`` is one file.
        tag: of the shard, in file names.
    """

    path: Path
    format: Format
    is_file: bool
    tag: str = ""

    @property
    def state(self) -> Path:
        """The folder of the run's own files."""
        if self.is_file:
            return self.path.with_name(self.path.name + STATE_ENDING)
        return self.path / f"run{self.tag}{STATE_ENDING}"

    @property
    def log(self) -> Path:
        """The file of all rows: a .jsonl is its own log."""
        return self.path if self.format == "jsonl" else self.state / "rows.jsonl"

    def part(self, number: int) -> Path:
        """The file of one part."""
        if self.is_file:
            return self.path
        return self.path / f"part{self.tag}-{number:06d}{'.parquet' if self.format == 'parquet' else '.tar'}"

    def parts(self) -> list[Path]:
        """The parts that exist."""
        if self.format not in ROWS_PER_PART:
            return []
        if self.is_file:
            return [self.path] if self.path.exists() else []
        return sorted(self.path.glob(f"part{self.tag}-[0-9]*{self.part(0).suffix}"))


def find_target(output: str | Path, format: Format | None, shard: tuple[int, int]) -> Target:
    """What an output's name means: .jsonl, .parquet and .tar are files, anything else is a folder.

    Raises:
        OptionError: the format is unknown or contradicts the name.
        InputError: a folder stands where a file is to be, or the other way round.
    """
    path = Path(output)
    if not str(output).strip():
        raise OptionError("the output is empty. Name a folder, or a .jsonl, .parquet or .tar file; . is this folder")
    if format is not None and format not in FORMATS:
        raise OptionError(f"unknown format {format!r}. Known: {', '.join(FORMATS)}")
    named = None if path.is_dir() else _BY_ENDING.get(path.suffix.lower())
    if named and format not in (None, named):
        raise OptionError(f"the format {format!r} does not go with the output {str(path)!r}. Leave one of the two out")
    if format == "jsonl" and named is None:
        raise OptionError(f"the format 'jsonl' needs a file. Name the output {str(path) + '.jsonl'!r}")
    if named is None and path.exists() and not path.is_dir():
        raise InputError(f"the output {str(path)!r} is a file; expected a folder, or a .jsonl, .parquet or .tar file")
    if named is None and not path.exists() and path.suffix.lower() in _NO_FOLDERS:
        raise OptionError(
            f"the output {str(path)!r} would be a folder of {format or 'txt'} files, and its name is that of a file. "
            "Name a folder, or a .jsonl, .parquet or .tar file"
        )
    tag = "" if shard[1] == 1 else f"-{shard[0]}-of-{shard[1]}"
    if named and tag:
        path = path.with_name(f"{path.stem}{tag}{path.suffix}")
    return Target(path, named or format or "txt", named is not None, tag)


class Sink(Protocol):
    """Files that are made of the log's rows."""

    def extend(self, row: Row, item: Item) -> Row:
        """A row with what the sink needs to write it again."""
        ...

    def restore(self, rows: Iterator[Row]) -> None:
        """Bring the files up to the log, from its beginning."""
        ...

    def apply(self, rows: Sequence[Row], items: Mapping[str, Item]) -> None:
        """Write rows that are in the log now."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class LogOnly:
    """A .jsonl: the log is the output."""

    def extend(self, row: Row, item: Item) -> Row:
        """Nothing more is needed."""
        return row

    def restore(self, rows: Iterator[Row]) -> None:
        """Nothing is derived."""

    def apply(self, rows: Sequence[Row], items: Mapping[str, Item]) -> None:
        """Nothing is derived."""

    def finish(self) -> None:
        """Nothing is left."""


class Sidecars:
    """A .txt for each image, at the image's id below the output folder.

    Args:
        folder: the output.
        appends: new text is added to a file's end.
        full_names: "a.jpg.txt" and not "a.txt".
        tag: of the shard.
    """

    def __init__(self, folder: Path, *, appends: bool, full_names: bool, tag: str = "") -> None:
        self._folder, self._appends, self._full_names, self._tag = folder, appends, full_names, tag

    def path(self, identity: str) -> Path:
        """The file of an image; always below the folder."""
        plain = identity.partition("://")[2] or identity
        parts = [part for part in plain.split("/") if part not in ("", ".", "..")] or ["image"]
        path = PurePosixPath(*parts)
        known = path.suffix.lower() in IMAGE_ENDINGS and not self._full_names
        return self._folder / (path.with_suffix(".txt") if known else path.with_name(path.name + ".txt"))

    def extend(self, row: Row, item: Item) -> Row:
        """With what the file is now, so that a row is seen to be written or not, and adding twice adds once."""
        old = _fingerprint(self.path(item.id))
        return {**row, "old": old, "before": old[0] if self._appends and old else 0}

    def restore(self, rows: Iterator[Row]) -> None:
        """Only the last group of rows can be missing: the next one is logged after its files are written. A file that
        was changed since then is left alone."""
        last: deque[Row] = deque(rows, maxlen=GROUP)
        newest = {row["id"]: row for row in last if "before" in row}
        for folder in {self.path(row["id"]).parent for row in last}:
            discard(partial(folder, self._tag))
        self.apply([row for row in newest.values() if _fingerprint(self.path(row["id"])) == row["old"]], {})

    def apply(self, rows: Sequence[Row], items: Mapping[str, Item]) -> None:
        """Replace each file in one step."""
        folders: set[Path] = set()
        for row in rows:
            path = self.path(row["id"])
            try:
                if not self._folder.is_dir():
                    raise FileNotFoundError(2, "the output folder was removed", str(self._folder))
                path.parent.mkdir(parents=True, exist_ok=True)
                old = path.read_bytes()[: row["before"]] if row["before"] else b""
            except OSError as error:
                raise cannot_write(path, error) from error
            gap = b"\n" if old and not old.endswith(b"\n") else b""
            replace_file(path, old + gap + _line(row["text"]), tag=self._tag, sync=False)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)

    def finish(self) -> None:
        """Nothing is left."""


def _groups(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while group := list(islice(rows, size)):
        yield group


def _fingerprint(path: Path) -> list[int] | None:
    """Length and checksum of a file; None where there is none."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise cannot_write(path, error) from error
    return [len(data), zlib.crc32(data)]


def _line(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


class Parts:
    """Parquet files or WebDataset shards. Part k holds rows k*N to (k+1)*N of the log, so that it can be written again.

    Args:
        target: where; one file holds all rows and is written at the end.
        rows: of the log, from its beginning.
        fetch: finds items by their ids, for the images of a shard.
    """

    def __init__(self, target: Target, rows: Callable[[], Iterator[Row]], fetch: Fetch) -> None:
        self._target, self._rows, self._fetch = target, rows, fetch
        self._size = None if target.is_file else ROWS_PER_PART[target.format]
        self._count = 0  # rows of parts that are full
        self._open: list[Row] = []
        self._items: dict[str, Item] = {}
        self._changed = False

    def extend(self, row: Row, item: Item) -> Row:
        """Nothing more is needed."""
        return row

    def restore(self, rows: Iterator[Row]) -> None:
        """Write full parts that are missing; remember the rows of the open one."""
        if self._size is None:
            self._changed = not self._target.path.exists()
            return
        for group in _groups(rows, self._size):
            if len(group) < self._size:
                self._open = group
                self._changed = True
            else:
                if not self._target.part(self._count // self._size).exists():
                    self._seal(group)
                self._count += self._size

    def apply(self, rows: Sequence[Row], items: Mapping[str, Item]) -> None:
        """Write the parts that are full now."""
        self._changed = True
        if self._size is None:
            return
        for row in rows:
            self._open.append(row)
            item = items[row["id"]]
            if self._target.format == "webdataset" and (item.path or item.data is not None):  # else it is fetched
                self._items[row["id"]] = item
            if len(self._open) == self._size:
                self._seal(self._open)
                self._count += self._size
                self._open, self._items = [], {}

    def finish(self) -> None:
        """Write the open part, or the one file."""
        if not self._changed:
            return
        if self._size is None:
            self._write(self._target.path, self._rows())
        elif self._open:
            self._seal(self._open)
        self._changed = False

    def _seal(self, rows: list[Row]) -> None:
        assert self._size is not None
        self._write(self._target.part(self._count // self._size), iter(rows))

    def _write(self, path: Path, rows: Iterator[Row]) -> None:
        """In one step: a file beside it, then its rename."""
        try:
            if not path.parent.is_dir():
                raise FileNotFoundError(2, "the output folder was removed", str(path.parent))
            with replacing(path, partial(self._target.state, "-part")) as file:
                if self._target.format == "parquet":
                    _write_parquet(file, rows)
                else:
                    self._write_shard(file, rows)
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _write_shard(self, file: BinaryIO, rows: Iterator[Row]) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for first, group in enumerate(_groups(rows, ROWS_PER_PART["webdataset"])):
                start = self._count + first * ROWS_PER_PART["webdataset"]
                missing = [row["id"] for row in group if row["id"] not in self._items]
                items = {**self._items, **(self._fetch(missing) if missing else {})}
                for number, row in enumerate(group, start=start):
                    _add_sample(tar, f"{number:09d}", row, items.get(row["id"]))


def _add_sample(tar: tarfile.TarFile, key: str, row: Row, item: Item | None) -> None:
    """The image as it is, its text, and its row."""
    members = [(".txt", row["text"].encode()), (".json", json.dumps(row, ensure_ascii=True).encode())]
    try:
        if item is None:
            raise ImageError("it is no longer in the source")
        ending = PurePosixPath(item.name if item.size is None else item.id).suffix.lower()
        members.insert(0, (ending if ending in IMAGE_ENDINGS else _ending(item.read()), item.read()))
    except ImageError as error:
        warnings.warn(f"the image {row['id']!r} is not in its shard, only its text: {error}", stacklevel=2)
    for ending, data in members:
        member = tarfile.TarInfo(key + ending)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _ending(data: bytes) -> str:
    """The ending that an image file's first bytes ask for; they were opened as an image before."""
    for start, ending in ((b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"RIFF", ".webp"), (b"BM", ".bmp")):
        if data.startswith(start):
            return ending
    return ".tif" if data[:4] in (b"II*\0", b"MM\0*") else ".jpg"


def _write_parquet(file: BinaryIO, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    text, number = pa.string(), pa.int64()
    kinds: dict[str, Any] = {
        "id": text, "text": text, "prompt": text, "model": text, "revision": text, "sampling": text, "seed": number,
        "finish_reason": text, "prompt_tokens": number, "image_tokens": number, "completion_tokens": number,
        "width": number, "height": number, "time": text, "seconds": pa.float64(), "error": text, "copy_of": text,
    }  # fmt: skip
    schema = pa.schema(list(kinds.items()))
    with parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(rows, ROWS_PER_PART["parquet"]):
            cells = [{name: _cell(row.get(name)) for name in kinds} for row in group]
            writer.write_table(pa.Table.from_pylist(cells, schema=schema))


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return value.encode("utf-8", errors="backslashreplace").decode() if isinstance(value, str) else value


def check_sidecars(sidecars: Sidecars, identities: Iterable[str]) -> None:
    """Raise ``InputError`` when two images would write one text file."""
    taken: dict[Path, str] = {}
    for identity in identities:
        other = taken.setdefault(sidecars.path(identity), identity)
        if other != identity:
            raise InputError(
                f"{other!r} and {identity!r} would both write {sidecars.path(identity).name!r}. Use full_names "
                "(--full-names), which keeps the image's ending in the name, or a .jsonl output"
            )


def make_folders(target: Target) -> None:
    """Make the folders that a run writes to.

    Raises:
        ResourceError: they cannot be made.
    """
    try:
        target.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot make the folder {str(target.state)!r}: {error.strerror}. Check the path and its permissions"
        ) from error
