"""Files that are written whole or not at all: what was there stays until all that is new can take its place."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mm.errors import ResourceError


@contextmanager
def replacing(path: Path, fresh: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of another in one step at the end of the block.

    All that was written is on the disk by then (fsync), so that a power cut leaves the one file or the other. To make
    the rename itself last, sync the folder. Where the block or the writing fails, ``fresh`` is removed.

    Args:
        path: what is replaced; it need not be there.
        fresh: on the same file system, in a folder that exists; written anew.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with open(fresh, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a user's file, whole or not at all: half a picture looks like one. Where it fails, what was there stays.

    What is no file (a pipe, a device, /dev/stdout) is written to as it is, and so is a file in a folder where no other
    can be made.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        if _is_stream(path):
            path.write_bytes(data)
        else:
            _replace(Path(os.path.realpath(path)), data)  # of a link, what it leads to
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}. Name another file") from error


def _is_stream(path: Path) -> bool:
    """Whether a path is written to as it is: a pipe, a device, what a process has open (which may lead to a file)."""
    absolute = os.path.abspath(path)
    return absolute.startswith(("/dev/std", "/dev/fd/", "/proc/")) or (
        os.path.exists(path) and not os.path.isfile(path)
    )


def _replace(path: Path, data: bytes) -> None:
    """Write to a new file beside a file, which takes its place and its rights once it is whole."""
    there = os.path.exists(path)
    if there:
        with open(path, "ab"):  # a file that is protected stays
            pass
    beside = path.parent / f".{secrets.token_hex(8)}.part"  # short: the file's own name may be as long as names can be
    try:
        try:
            file = open(beside, "xb")  # noqa: SIM115  # closed below
        except PermissionError:
            if not there:
                raise
            path.write_bytes(data)  # a folder that takes no new files
            return
        with file:
            if there:
                with suppress(PermissionError):  # a file system without rights
                    os.chmod(beside, stat.S_IMODE(path.stat().st_mode))
            file.write(data)
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written. What is there stays as it is; a pipe is not opened, which would wait for
    its reader and, closed again, tell him that nothing comes.

    Raises:
        ResourceError: its folder does not exist, or it cannot be written.
    """
    if path.is_fifo() and os.access(path, os.W_OK):
        return
    if not path.absolute().parent.is_dir():
        raise ResourceError(f"cannot write {str(path)!r}: its folder does not exist. Name a folder that exists")
    new = not path.exists()
    try:
        with open(path, "ab"):
            pass
        if new:
            os.unlink(os.path.realpath(path))  # of a link, what it leads to
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}. Name another file") from error
