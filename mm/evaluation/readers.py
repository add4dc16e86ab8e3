"""Readers in processes of their own, which answer parts of an evaluation beside each other.

A small model leaves most of a GPU idle: the time goes into Python and the starts of kernels. Several processes fill it,
and several GPUs. Which questions are asked does not depend on their number.
"""

import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mm.config import Quantization
from mm.errors import OptionError, ResourceError
from mm.evaluation.asking import Asked, OwnDesk, Reader, places_for
from mm.evaluation.rendering import without_interrupts
from mm.evaluation.report import Answer

OpenReader = Callable[[int], Reader]
"""Makes the reader of the process with this number, from 0 on. A function or a partial of a module, so that it can be
sent to the process."""

MOST_PROCESSES = 64  # of one machine: each has the model, and a gigabyte of main memory for Python and torch
_END_SECONDS = 3.0  # for the processes to end by themselves: a step of the model, or not at all while one is loaded


@dataclass(frozen=True)
class PipelineOpener:
    """Opens a ``Pipeline``; the fields are arguments of ``Pipeline.from_pretrained``.

    Where ``device`` names no GPU by number, the processes take the GPUs in turn. On the CPU they share its cores.
    """

    model: str
    processes: int
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_running: int = 8
    quantization: Quantization | None = None
    compile: bool = False

    def __call__(self, number: int) -> Reader:
        """The pipeline of the process ``number``."""
        import torch

        from mm.devices import resolve_device
        from mm.pipeline import Pipeline

        device = resolve_device(self.device)
        if device.type == "cuda" and self.device in ("auto", "cuda"):
            device = torch.device("cuda", number % torch.cuda.device_count())
        if device.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // self.processes))
        return Pipeline.from_pretrained(
            self.model,
            revision=self.revision,
            device=device,
            dtype=self.dtype,
            max_running=self.max_running,
            quantization=self.quantization,
            compile=self.compile,
        )


class ReaderPool:
    """Processes that each have a reader, for ``suites.evaluate``. Made by ``open_readers``."""

    def __init__(self, workers: "Sequence[_Worker]", batch_size: int, max_tiles: int | None) -> None:
        self.max_tiles = max_tiles
        self.places = len(workers) * places_for(batch_size)
        self._workers = workers

    def submit(self, asked: Sequence[Asked]) -> Future[list[Answer]]:
        """Have questions answered by the process that has the least to do; it raises what went wrong there."""
        return min(self._workers, key=lambda worker: len(worker.pending)).submit(asked)


class _Worker:
    """A process as its caller sees it: errands go out, answers come back to a thread."""

    def __init__(self, open_reader: OpenReader, number: int, batch_size: int, max_tiles: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve,
            args=(there, open_reader, number, batch_size, max_tiles),
            name=f"mm-reader-{number}",
            daemon=True,
        )
        with without_interrupts():
            self.process.start()
        there.close()
        self.pending: dict[int, Future[list[Answer]]] = {}
        self.error: Exception | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, name=f"{self.process.name}-{target.__name__.strip('_')}", daemon=True)
            for target in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, asked: Sequence[Asked]) -> Future[list[Answer]]:
        """Send questions; whoever hands them in waits until they are packed."""
        future: Future[list[Answer]] = Future()
        with self._lock:
            number = next(self._numbers)
            self.pending[number] = future
        if self.error is not None:
            self._fail(self.error)
        self._outgoing.put(pickle.dumps((number, list(asked)), protocol=pickle.HIGHEST_PROTOCOL))
        return future

    def close(self) -> None:
        """No more will come."""
        self._outgoing.put(None)

    def join(self, seconds: float) -> None:
        """Wait so long for its end, then bring it about."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _send(self) -> None:
        with suppress(OSError):  # the process has ended: the other thread says so
            while (errand := self._outgoing.get()) is not None:
                self._connection.send_bytes(errand)
            self._connection.send_bytes(pickle.dumps(None))

    def _receive(self) -> None:
        error: Exception = ResourceError(
            f"process {self.process.name} that runs the model was ended from outside, perhaps for want of memory: use "
            "fewer (--processes), or a smaller --batch-size. In a script of your own, call open_readers below "
            "if __name__ == '__main__'"
        )
        with suppress(EOFError, OSError):
            while True:
                number, answers = self._connection.recv()
                if number is None:  # it could not begin
                    error = answers
                    break
                with self._lock:
                    future = self.pending.pop(number)
                if isinstance(answers, BaseException):
                    future.set_exception(answers)
                else:
                    future.set_result(answers)
        self._fail(error)
        self._outgoing.put(None)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.error = error
            left = list(self.pending.values())
            self.pending.clear()
        for future in left:
            future.set_exception(error)


@contextmanager
def open_readers(
    open_reader: OpenReader, processes: int, *, batch_size: int = 8, max_tiles: int | None = None
) -> Iterator[ReaderPool]:
    """Processes that each open a reader; they end with the block.

    They are spawned, not forked, and load while the first pictures are drawn. What a process cannot load is raised
    where its first answer is awaited.

    Args:
        open_reader: called in each process.
        processes: how many.
        batch_size: questions that run together in each.
        max_tiles: most tiles that a picture is cut into; None as published.

    Raises:
        OptionError: ``processes`` or ``batch_size`` out of its range.
    """
    if processes > MOST_PROCESSES:
        raise OptionError(
            f"processes is {processes:,}; expected at most {MOST_PROCESSES}: each loads the model and takes about 1 GB "
            "of main memory. 8 fill a GPU"
        )
    for name, value in (("processes", processes), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(f"{name} is {value}; expected 1 or more")
    workers: list[_Worker] = []
    try:
        for number in range(processes):
            workers.append(_Worker(open_reader, number, batch_size, max_tiles))
        yield ReaderPool(workers, batch_size, max_tiles)
    finally:
        for worker in workers:
            worker.close()
        end = time.monotonic() + _END_SECONDS
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))


def _serve(
    connection: Connection, open_reader: OpenReader, number: int, batch_size: int, max_tiles: int | None
) -> None:
    """Runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    try:
        reader = open_reader(number)
    except Exception as error:
        _tell(connection, None, error)
        return
    telling = threading.Lock()

    def tell(errand: int, future: Future[list[Answer]]) -> None:
        if not future.cancelled():
            with telling:
                _tell(connection, errand, future.exception() or future.result())

    with OwnDesk(reader, batch_size, max_tiles) as desk, suppress(EOFError, OSError):  # who asked is gone
        while (received := connection.recv()) is not None:
            errand, asked = received
            desk.submit(asked).add_done_callback(partial(tell, errand))
    connection.close()
    os._exit(0)  # nothing here needs an end in order, and to unload a GPU's libraries takes seconds


def _tell(connection: Connection, number: int | None, answers: list[Answer] | BaseException) -> None:
    """Send what came of an errand; an error that cannot be sent as it is goes as its text."""
    try:
        data = pickle.dumps((number, answers))
        pickle.loads(data)  # an error may refuse only here
    except Exception:
        data = pickle.dumps((number, ResourceError(f"a process that runs the model failed: {answers!r}")))
    with suppress(OSError):  # who asked is gone
        connection.send_bytes(data)
