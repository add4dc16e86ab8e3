"""From an item to tensors, in processes of their own: a picture that crashes or hangs its decoder costs only itself."""

import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mm.captioning import processes
from mm.captioning.sources import Item
from mm.captioning.tasks import Task
from mm.chat import SpecialTokens
from mm.contracts import Inputs
from mm.errors import InputError, MMError
from mm.request import Request, Settings, conversation


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
            question = ask(self.task, item)
            # A file's name or tags are plain text, whatever they contain.
            special: SpecialTokens = "auto" if self.task.prompt is None or question == self.task.prompt else "none"
            settings = Settings(sampling=SamplingOptions(), system=self.system, special_tokens=special)
            messages = conversation(Request(images=item.source(), question=question), settings)
            return Prepared(inputs=self.processor.process(messages, max_tiles=self.max_tiles), question=question)
        except InputError as error:
            raise RefusedError(type(error).__name__.removesuffix("Error").lower(), str(error)) from error
        except (MMError, OSError, ValueError, ArithmeticError, MemoryError, SyntaxError) as error:
            raise RefusedError("failed", f"{type(error).__name__}: {error}") from error


def ask(task: Task, item: Item) -> str:
    """The question about an image, its tags read where the task wants them."""
    tags = item.tags
    if task.reads_tags and not tags and item.tag_path:
        with suppress(FileNotFoundError):
            tags = Path(item.tag_path).read_text(encoding="utf-8", errors="replace").strip()
    return task.question(item.name, tags)


class Workers:
    """Prepares items in the background, in the order they are handed in. Its processes start at once.

    Args:
        preparer: what is done with each.
        count: processes; 0 prepares in a thread of this process, without the time limit.
        timeout: most seconds for one image.
    """

    def __init__(self, preparer: Preparer, count: int, timeout: float) -> None:
        self._preparer, self._timeout, self._count = preparer, timeout, count
        self._processes = {_Process(preparer) for _ in range(count)}
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(max(1, count), thread_name_prefix="mm-prepare")
        self._closed = False

    def wait(self) -> None:
        """Until all processes have started; one that could not is told of with its first image."""
        for process in self._processes:
            with suppress(EOFError):
                process.wait()

    def submit(self, item: Item) -> "Future[Prepared]":
        """Its future raises ``RefusedError`` for an image that cannot be used."""
        return self._threads.submit(self._prepare, item)

    def _prepare(self, item: Item) -> Prepared:
        if self._count == 0:
            return self._preparer.prepare(item)
        process = self._idle.get()  # there are as many as threads
        try:
            return process.ask(item, self._timeout)
        except EOFError:  # it crashed or was killed: the next image gets a new one
            self._processes.discard(process)
            reason = process.end()
            if not self._closed:
                process = _Process(self._preparer)
                self._processes.add(process)
            raise RefusedError(*reason) from None
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """End the processes; what waits is dropped."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.end()
        self._threads.shutdown(wait=True)
        for process in list(self._processes):  # what was started meanwhile
            process.end()


class _Process:
    """One worker, used by one thread at a time."""

    def __init__(self, preparer: Preparer) -> None:
        self._process = processes.start("mm.captioning.prepare:work", threads=1)
        self._message = preparer
        self._started = False
        self._late = False

    def wait(self) -> None:
        """Until it has loaded what it needs; EOFError when it has ended."""
        if self._started:
            return
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            processes.send(self._process.stdin, self._message)
            processes.receive(self._process.stdout)
        except (OSError, ValueError) as error:  # ValueError: closed by end()
            raise EOFError from error
        self._started = True

    def ask(self, item: Item, timeout: float) -> Prepared:
        """Raises ``RefusedError`` for an image that cannot be used, EOFError when the process is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self.wait()  # the time limit is the image's, not that of loading torch
        timer = threading.Timer(timeout, self._kill)
        timer.daemon = True
        timer.start()
        try:
            processes.send(self._process.stdin, item)
            answer = processes.receive(self._process.stdout)
        except (OSError, ValueError) as error:
            raise EOFError from error
        finally:
            timer.cancel()
        if isinstance(answer, Prepared):
            return answer
        raise RefusedError(*answer)

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    def end(self) -> tuple[str, str]:
        """End it, and say why it was gone."""
        status = processes.end(self._process)
        if self._late:
            return "timeout", "opening the image took too long"
        return "crash", f"the process that opened the image ended with status {status}"


def work() -> None:
    """A worker's life."""
    import torch

    answers = processes.answers_to_parent()
    torch.set_num_threads(1)
    try:
        preparer: Preparer = processes.receive(sys.stdin.buffer)
    except EOFError:
        return  # the run was killed while this began
    processes.answer(answers, "ready")
    while True:
        try:
            item: Item = processes.receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            processes.answer(answers, preparer.prepare(item))
        except RefusedError as refusal:
            processes.answer(answers, (refusal.reason, str(refusal)))
