"""Python processes of a run's own: pickled messages on standard input and output. One ends when its input does, so none
outlives a run that is killed."""

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


def start(function: str, *, threads: int) -> "subprocess.Popen[bytes]":
    """A process that runs a function.

    Args:
        function: "package.module:name", without arguments.
        threads: of torch in it.
    """
    import mm

    module, _, name = function.partition(":")
    root = str(Path(mm.__file__).parent.parent)  # it is to find the same mm
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-c", f"from {module} import {name}; {name}()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,  # Ctrl-C is for the run, which finishes what it has in hand
    )


def end(process: "subprocess.Popen[bytes]") -> int:
    """End a process, and its status."""
    process.kill()
    status = process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except (OSError, ValueError):
            continue  # what could not be sent is for nobody
    return status


def answers_to_parent() -> IO[bytes]:
    """In a process: where its messages go. What a library prints goes to standard error from now on."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def send(stream: IO[bytes], value: object) -> None:
    """Write a message."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def answer(stream: IO[bytes], value: object) -> None:
    """Write a message to the parent. Where it is gone, the process ends, without a word."""
    try:
        send(stream, value)
    except BrokenPipeError:
        os._exit(0)  # what is left in the stream's buffer is for nobody


def receive(stream: IO[bytes]) -> Any:
    """Read a message; EOFError at the end. Both ends are processes of this run: nothing of a stranger is unpickled."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)
