"""Files that survive: a log that is appended to and whose torn tail is cut, and files that are replaced in one step."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm.errors import ResourceError
from mm.whole_file import replacing

Row = dict[str, Any]


def encode(row: Mapping[str, Any]) -> bytes:
    """A row as one line of JSON, in UTF-8; names that are no UTF-8 are escaped."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name of other bytes: half a surrogate pair
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def cannot_write(path: Path, error: OSError) -> ResourceError:
    """What to tell when a file cannot be written."""
    return ResourceError(
        f"cannot write {str(path)!r}: {error.strerror or error}. What was committed before is kept. Check the folder, "
        "its permissions and the space on the disk, then run the same command again"
    )


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last, where the system can."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def partial(folder: Path, tag: str = "") -> Path:
    """The name of a file in a folder until it is whole. It is always the same, so that what a killed run has left is
    found by the next one; and it does not grow with the file's own name, which may be as long as names can be."""
    return folder / f".mm{tag}.partial"


def discard(path: Path) -> None:
    """Remove a file that may be there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_file(path: Path, data: bytes, *, tag: str = "", sync: bool = True) -> None:
    """Write a file in one step: it holds what it held before, or all of ``data``.

    Args:
        path: in a folder that exists.
        data: what it is to hold.
        tag: of who writes in this folder; the new file's name until it is whole (``partial``) says it.
        sync: also make the rename last. Who writes many files calls ``sync_folder`` once instead.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        with replacing(path, partial(path.parent, tag)) as file:
            file.write(data)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def holds_a_row(path: Path, start: int = 0) -> bool:
    """Whether a log has a row behind an offset in bytes; one that was cut off is none. Nothing is changed.

    Raises:
        ResourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            line = file.readline()
        return line.endswith(b"\n") or bool(json.loads(line or b"null"))
    except (FileNotFoundError, ValueError):
        return False
    except OSError as error:
        raise ResourceError(f"cannot read {str(path)!r}: {error.strerror}. Check its permissions") from error


class Log:
    """Rows of JSON, one a line, in a file that only grows. What ``append`` has returned from is on the disk.

    Args:
        path: the file; its folder exists. A last line that was cut off in the middle is removed.

    Raises:
        ResourceError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab+", buffering=0)
            self.size = self._cut_tail()
            sync_folder(path.parent)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _cut_tail(self) -> int:
        size = end = self._file.seek(0, os.SEEK_END)
        tail = b""
        while end > 0 and b"\n" not in tail:
            start = max(0, end - 65536)
            self._file.seek(start)
            tail = self._file.read(end - start) + tail
            end = start
        rest = tail[tail.rfind(b"\n") + 1 :]
        if not rest:
            return size
        try:
            json.loads(rest)
        except ValueError:
            size -= len(rest)
            self._file.truncate(size)
            return size
        self._file.write(b"\n")  # a whole row of another program, without its end of line
        return size + 1

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        """Rows from one offset in bytes to another.

        Raises:
            ResourceError: a line is no JSON object.
        """
        with self.path.open("rb") as file:
            file.seek(start)
            position = start
            for line in file:
                if position >= (self.size if stop is None else stop):
                    return
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise ResourceError(
                        f"{str(self.path)!r} has a line at byte {position} that is no JSON object. Correct or remove "
                        "this line, or start anew with the mode 'overwrite'"
                    )
                position += len(line)
                yield row

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows and wait until they are on the disk.

        Raises:
            ResourceError: they could not be written, or the file is gone; none of them counts then.
        """
        if not rows:
            return
        data = memoryview(b"".join(map(encode, rows)))
        try:
            self._check_present()
            done = 0
            while done < len(data):
                done += self._file.write(data[done:])
            os.fsync(self._file.fileno())
        except OSError as error:
            try:
                self._file.truncate(self.size)
            except OSError as second:
                error.add_note(f"nor could it be cut back: {second}")  # the next run cuts the tail
            raise cannot_write(self.path, error) from error
        self.size += len(data)

    def _check_present(self) -> None:
        """An open file can be written to after it was removed, and nobody would ever read it."""
        ours, there = os.fstat(self._file.fileno()), self.path.stat()
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(2, "it was replaced while the run went on", str(self.path))

    def clear(self) -> None:
        """Remove all rows.

        Raises:
            ResourceError: the file cannot be written.
        """
        try:
            self._file.truncate(0)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.size = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()
