"""From an item to tensors, in processes of their own: a picture that crashes or hangs its decoder costs only itself.

A worker is a Python process that runs ``work``. It is told with pickled messages on its standard input what to prepare
and answers on its standard output; it ends when its input does, so none outlives a run that is killed.
"""

import os
import pickle
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mm.captioning.sources import Item
from mm.captioning.tasks import Task
from mm.chat import SpecialTokens
from mm.contracts import Inputs
from mm.errors import InputError, MMError
from mm.request import Request, Settings, conversation

_LENGTH = struct.Struct("<Q")


class RefusedError(Exception):
    """An image that gets no answer: a reason of one word for the counts, and the message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image that is ready for the model."""

    inputs: Inputs
    question: str


@dataclass(kw_only=True)
class Preparer:
    """Opens, resizes and tokenises.

    Args:
        folder: of the model, for its processor.
        task: what is asked.
        max_tiles: most tiles an image is cut into.
        system: a system prompt.
    """

    folder: Path
    task: Task
    max_tiles: int | None = None
    system: str | None = None
    processor: Any = field(default=None, repr=False)  # loaded with the first image; never sent to a worker

    def prepare(self, item: Item) -> Prepared:
        """Raises ``RefusedError`` for an image that cannot be used."""
        from mm.families.table import load_processor
        from mm.generation.sampling import SamplingOptions

        if self.processor is None:
            self.processor = load_processor(self.folder)
        try:
            question = self.task.question(item.name, self._tags(item))
            # A file's name or tags are plain text, whatever they contain.
            special: SpecialTokens = "auto" if self.task.prompt is None or question == self.task.prompt else "none"
            settings = Settings(sampling=SamplingOptions(), system=self.system, special_tokens=special)
            messages = conversation(Request(images=item.source(), question=question), settings)
            return Prepared(inputs=self.processor.process(messages, max_tiles=self.max_tiles), question=question)
        except InputError as error:
            raise RefusedError(type(error).__name__.removesuffix("Error").lower(), str(error)) from error
        except (MMError, OSError, ValueError, ArithmeticError, MemoryError, SyntaxError) as error:
            raise RefusedError("failed", f"{type(error).__name__}: {error}") from error

    def _tags(self, item: Item) -> str:
        if not self.task.reads_tags or item.tags or not item.tag_path:
            return item.tags
        try:
            return Path(item.tag_path).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return ""


class Workers:
    """Prepares items in the background, in the order they are handed in.

    Args:
        preparer: what is done with each.
        count: processes; 0 prepares in a thread of this process, without the time limit.
        timeout: most seconds for one image.
    """

    def __init__(self, preparer: Preparer, count: int, timeout: float) -> None:
        self._preparer, self._timeout, self._count = preparer, timeout, count
        self._local = threading.local()
        self._processes: list[_Process] = []
        self._threads = ThreadPoolExecutor(max(1, count), thread_name_prefix="mm-prepare")

    def submit(self, item: Item) -> "Future[Prepared]":
        """Its future raises ``RefusedError`` for an image that cannot be used."""
        return self._threads.submit(self._prepare, item)

    def _prepare(self, item: Item) -> Prepared:
        if self._count == 0:
            return self._preparer.prepare(item)
        process: _Process | None = getattr(self._local, "process", None)
        if process is None:
            process = self._local.process = _Process(self._preparer)
            self._processes.append(process)
        try:
            return process.ask(item, self._timeout)
        except EOFError:  # it crashed or was killed: the next image gets a new one
            self._processes.remove(process)
            self._local.process = None
            raise RefusedError(*process.end()) from None

    def close(self) -> None:
        """End the processes; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.end()
        self._threads.shutdown(wait=True)


class _Process:
    """One worker, used by one thread."""

    def __init__(self, preparer: Preparer) -> None:
        import mm

        root = str(Path(mm.__file__).parent.parent)  # the worker is to find the same mm
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from mm.captioning.prepare import work; work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the run, which finishes what it has in hand
        )
        self._message = preparer
        self._started = False
        self._late = False

    def ask(self, item: Item, timeout: float) -> Prepared:
        """Raises ``RefusedError`` for an image that cannot be used, EOFError when the process is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if not self._started:  # the time limit is the image's, not that of loading torch
                _send(self._process.stdin, self._message)
                _receive(self._process.stdout)
                self._started = True
            timer = threading.Timer(timeout, self._kill)
            timer.daemon = True
            timer.start()
            try:
                _send(self._process.stdin, item)
                answer = _receive(self._process.stdout)
            finally:
                timer.cancel()
        except (OSError, ValueError) as error:  # ValueError: closed by end()
            raise EOFError from error
        if isinstance(answer, Prepared):
            return answer
        raise RefusedError(*answer)

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    def end(self) -> tuple[str, str]:
        """End it, and say why it was gone."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except (OSError, ValueError):
                continue  # what could not be sent is for nobody
        if self._late:
            return "timeout", "opening the image took too long"
        return "crash", f"the process that opened the image ended with status {status}"


def _send(stream: IO[bytes], value: object) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """Raises EOFError at the end. Both ends are processes of this run: nothing of a stranger is unpickled."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def work() -> None:
    """A worker's life."""
    import torch

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    torch.set_num_threads(1)
    preparer: Preparer = _receive(sys.stdin.buffer)
    _send(answers, "ready")
    while True:
        try:
            item: Item = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _send(answers, preparer.prepare(item))
        except RefusedError as refusal:
            _send(answers, (refusal.reason, str(refusal)))
