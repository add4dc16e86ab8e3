"""Where images come from: files, folders, patterns, lists, tables, tar shards, and what pyarrow's file systems reach.

Every image is an ``Item`` with an id that is the same whenever the source is read: its path below the folder that was
named, the id or path in its row of a table, or its name in its shard. Items come in a fixed order.
"""

import base64
import glob
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mm.errors import ImageError, InputError
from mm.images import decode_data_uri

IMAGE_ENDINGS = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".jp2",
        ".ppm",
        ".tga",
        ".qoi",
    )
)
TABLE_ENDINGS = frozenset((".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"))
STATE_ENDING = ".mm-caption"  # of the folder where a run keeps its state
MAX_FILE_BYTES = 512 * 2**20
URL_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image that is not opened yet.

    Attributes:
        id: names it in the results.
        path: a local path, an address that pyarrow opens, http(s)://, a data URI, or (with ``size``) a shard.
        data: its bytes, where the source holds them.
        offset: where it starts in a shard.
        size: its bytes in a shard.
        tags: what its row says.
        tag_path: a text file that may hold its tags.
    """

    id: str
    path: str = ""
    data: bytes | None = None
    offset: int = 0
    size: int | None = None
    tags: str = ""
    tag_path: str = ""

    @property
    def name(self) -> str:
        """The path that {name} and {directory} are taken from."""
        return self.path if self.size is None and self.data is None and self.path[:5].lower() != "data:" else self.id

    def source(self) -> str | bytes:
        """What ``mm.images.open_image`` takes: the path of a local file, otherwise the bytes.

        Raises:
            ImageError: it cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.size is None and "://" not in self.path and self.path[:5].lower() != "data:":
            return os.path.join(".", self.path)  # a leading "~" or a scheme is part of the name
        return self.read()

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            ImageError: it cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.path[:5].lower() == "data:":
            return decode_data_uri(self.path)
        try:
            if self.path.lower().startswith(("http://", "https://")):
                return _download(self.path)
            with open_stream(self.path) as stream:
                if self.size is not None:
                    stream.seek(self.offset)
                data = stream.read(MAX_FILE_BYTES + 1 if self.size is None else self.size)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(
                f"cannot read {self.path[:200]!r}: {reason}. Check the path and its permissions"
            ) from error
        if len(data) > MAX_FILE_BYTES or (self.size is not None and len(data) != self.size):
            raise ImageError(f"{self.path[:200]!r} gave {len(data)} bytes, which is no whole image file. Check it")
        return data


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images of one place. ``items()`` lists them, each time from the start.

    Attributes:
        name: as it was named.
        list_items: gives the items; with False, without the bytes that a table holds.
        folder: the folder that ids are paths below, for sources of files.
    """

    name: str
    list_items: Callable[[bool], Iterator[Item]]
    folder: Path | None = None

    def items(self, *, with_data: bool = True) -> Iterator[Item]:
        """The items, each id once."""
        seen: set[str] = set()
        for item in self.list_items(with_data):
            if item.id not in seen:
                seen.add(item.id)
                yield item


def open_source(name: str) -> Source:
    """A source by its name: a file, a folder, a pattern with * ? [ ], a .txt list, a .jsonl, .csv or .parquet table, a
    .tar of WebDataset (a pattern names several), or one of these behind s3://, gs://, file:// and the like.

    Raises:
        InputError: there is nothing, or nothing of these kinds.
    """
    if not name.strip():
        raise InputError("the source is empty. Name a file, a folder, a pattern, a list, a table or a tar file")
    if "://" in name:
        return _remote_source(name)
    path = Path(name)
    if path.is_dir():
        return Source(name=name, list_items=lambda _: _walk(path), folder=path)
    if os.path.lexists(path):
        return _file_source(name)
    if glob.has_magic(name):
        found = sorted(glob.glob(name, recursive=True, include_hidden=True))
        if not found:
            raise InputError(f"no file matches {name!r}. Check the pattern; put it in quotes, so that mm sees it")
        return _pattern_source(name, found)
    raise InputError(f"there is no {name!r}. Name a file, a folder, a pattern, a list (.txt), a table or a tar file")


def _pattern_source(name: str, found: list[str]) -> Source:
    shards = [entry for entry in found if entry.lower().endswith(".tar")]
    if shards:
        return Source(name=name, list_items=lambda _: (item for shard in shards for item in _tar_items(shard)))
    plain = list(Path(name).parts)
    while plain and glob.has_magic(os.path.join(*plain)):
        plain.pop()
    root = Path(*plain) if plain else Path()

    def listed(_: bool) -> Iterator[Item]:
        for entry in found:
            path = Path(entry)
            if path.suffix.lower() in IMAGE_ENDINGS and not path.is_dir():
                yield _file_item(path, root)

    return Source(name=name, list_items=listed, folder=root)


def _file_source(name: str) -> Source:
    path, ending = Path(name), Path(name).suffix.lower()
    if ending in TABLE_ENDINGS:
        from mm.captioning.tables import table_items

        return Source(name=name, list_items=lambda data: table_items(name, with_data=data))
    if ending == ".tar":
        return Source(name=name, list_items=lambda _: _tar_items(name))
    if ending in (".txt", ".lst"):
        return Source(name=name, list_items=lambda _: _list_items(name))
    return Source(name=name, list_items=lambda _: iter([_file_item(path, path.parent)]), folder=path.parent)


def _remote_source(name: str) -> Source:
    from pyarrow import fs

    scheme = name.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return Source(name=name, list_items=lambda _: iter([Item(id=name, path=name)]))
    try:
        system, root = fs.FileSystem.from_uri(name)
        info = system.get_file_info(root)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open {name!r}: {error}. Check the address and what gives access to it") from error
    if info.type == fs.FileType.NotFound:
        raise InputError(f"there is nothing at {name!r}. Check the address")
    if info.type == fs.FileType.File:
        return (
            _file_source(name)
            if PurePosixPath(name).suffix.lower() not in IMAGE_ENDINGS
            else Source(name=name, list_items=lambda _: iter([Item(id=PurePosixPath(name).name, path=name)]))
        )

    def listed(_: bool) -> Iterator[Item]:
        found = system.get_file_info(fs.FileSelector(root, recursive=True))
        for entry in sorted(found, key=lambda entry: str(entry.path)):
            if entry.type == fs.FileType.File and PurePosixPath(entry.path).suffix.lower() in IMAGE_ENDINGS:
                below = entry.path.removeprefix(root.rstrip("/")).lstrip("/")
                yield Item(id=below, path=f"{name.rstrip('/')}/{below}")

    return Source(name=name, list_items=listed)


def open_stream(path: str) -> BinaryIO:
    """A file to read: a local path, or an address that pyarrow opens."""
    if "://" not in path:
        return open(path, "rb")
    from pyarrow import fs

    system, inner = fs.FileSystem.from_uri(path)
    return io.BufferedReader(system.open_input_file(inner))  # pyarrow's own knows no lines


def _walk(root: Path) -> Iterator[Item]:
    """Images below a folder in the order of their names. Links are followed; a folder that contains itself is not
    entered again."""

    def visit(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Item]:
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(
                f"cannot read the folder {str(folder)!r}: {error.strerror}. Check its permissions"
            ) from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        for entry in entries:
            path = folder / entry.name
            if path.is_dir():  # False for a link that leads to itself
                if not entry.name.endswith(STATE_ENDING):
                    yield from visit(path, above | {here})
            elif path.suffix.lower() in IMAGE_ENDINGS:
                yield _file_item(path, root)

    return visit(root, frozenset())


def _file_item(path: Path, root: Path) -> Item:
    """The item of a local file; a broken link is one too, and fails when it is opened."""
    below = path.relative_to(root) if path.is_relative_to(root) else path
    return Item(id=below.as_posix(), path=str(path), tag_path=str(path.with_suffix(".txt")))


def _list_items(name: str) -> Iterator[Item]:
    """One path or address a line; relative paths are below the list's folder."""
    with io.TextIOWrapper(open_stream(name), encoding="utf-8-sig", errors="surrogateescape") as stream:
        for line in stream:
            text = line.rstrip("\r\n")
            if text.strip():
                yield located(text, text, name)


def located(identity: str, text: str, listing: str, tags: str = "") -> Item:
    """The item of a path or address that a list or table gives."""
    if "://" in text or text[:5].lower() == "data:":
        return Item(id=identity, path=text, tags=tags)
    if "://" in listing and not os.path.isabs(text):
        return Item(id=identity, path=f"{listing.rpartition('/')[0]}/{text}", tags=tags)
    path = os.path.join(os.path.dirname(listing), text)
    return Item(id=identity, path=path, tags=tags, tag_path=str(Path(path).with_suffix(".txt")) if path else "")


def _tar_items(name: str) -> Iterator[Item]:
    """Images of a shard. The text of a member is found by the name before its first dot, as WebDataset pairs them."""
    shard = PurePosixPath(name.replace(os.sep, "/")).name
    texts: dict[str, str] = {}
    images: list[tarfile.TarInfo] = []
    try:
        with open_stream(name) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                ending = PurePosixPath(member.name).suffix.lower()
                if member.isreg() and ending in IMAGE_ENDINGS:
                    images.append(member)
                elif member.isreg() and ending == ".txt" and member.size < 2**20:
                    file = tar.extractfile(member)
                    assert file is not None
                    texts[_sample(member.name)] = file.read().decode("utf-8", errors="replace").strip()
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"cannot read the tar file {name!r}: {error}. Check it; compressed ones are not read"
        ) from error
    for member in images:
        yield Item(
            id=f"{shard}/{member.name}",
            path=name,
            offset=member.offset_data,
            size=member.size,
            tags=texts.get(_sample(member.name), ""),
        )


def _sample(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _download(url: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(url, timeout=URL_TIMEOUT_S) as answer:  # errors of HTTP are OSErrors
        data: bytes = answer.read(MAX_FILE_BYTES + 1)
    return data


def as_bytes(value: Any) -> bytes | None:
    """Bytes of a table's cell: bytes, base64 text, or the {"bytes": ...} of Hugging Face datasets."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise InputError(f"a cell of bytes is not base64: {error}. Encode the image file with base64") from error
    return value if isinstance(value, bytes) else None
