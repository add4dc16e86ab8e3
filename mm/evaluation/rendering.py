"""Held-out documents in order, drawn by worker processes ahead of whoever reads them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from mm.errors import ResourceError
from mm.evaluation.held_out_canvas import Document
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.tasks import load_renderer

DRAWN_TOGETHER = 8  # documents of one errand of a worker
ERRANDS_AHEAD = 3  # for each worker: bounds the memory of pictures that wait


def default_workers(processes: int = 1) -> int:
    """The cores of this process but those that feed the model, in so many processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0 if processes == 1 else 1, cores - processes)


class Painter:
    """Draws the documents of tasks. Equal numbers give equal documents, whoever draws them.

    Made by ``open_painter``.
    """

    def __init__(self, fonts: HeldOutFonts, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._fonts, self._pool, self._workers = fonts, pool, workers

    def documents(self, task: str, numbers: range) -> Iterator[Document]:
        """The documents ``numbers`` of a task, in order.

        Raises:
            OptionError: an unknown task.
            ResourceError: a process ended by itself.
        """
        if self._pool is None:
            render = load_renderer(task)
            yield from (render(number, self._fonts) for number in numbers)
            return
        errands = deque(numbers[start : start + DRAWN_TOGETHER] for start in range(0, len(numbers), DRAWN_TOGETHER))
        running: deque[Future[list[Document]]] = deque()
        while errands or running:
            try:
                while errands and len(running) < ERRANDS_AHEAD * self._workers:
                    with without_interrupts():  # the first ones start processes
                        running.append(self._pool.submit(_draw, task, errands.popleft(), self._fonts))
                drawn = running.popleft().result()
            except BrokenProcessPool as error:
                raise ResourceError(
                    "a process that draws pictures was ended from outside, perhaps for want of memory: use fewer than "
                    f"{self._workers} workers (--workers). In a script of your own, call evaluate below "
                    "if __name__ == '__main__', or with workers=0"
                ) from error
            yield from drawn


@contextmanager
def open_painter(workers: int, folders: Sequence[Path] | None = None) -> Iterator[Painter]:
    """A painter with so many processes; 0 draws in this one.

    The processes are spawned, not forked: a fork of a process whose libraries run threads may never wake up.

    Args:
        workers: processes.
        folders: where the fonts are, if not where the system keeps its fonts.

    Raises:
        ResourceError: held-out fonts are missing.
    """
    fonts = HeldOutFonts.find(folders)
    if workers == 0:
        yield Painter(fonts, None, 0)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield Painter(fonts, pool, workers)
    except BaseException:  # Ctrl-C, too: nobody waits for the pictures that are being drawn
        for process in list(pool._processes.values()):  # Python 3.14 has kill_workers
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started inside never hear of Ctrl-C, which is for the process that reads: they inherit that it
    is ignored. (On Windows, and from another thread than the main one, they hear of it while they begin.)"""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    """Ctrl-C is for the process that reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(task: str, numbers: range, fonts: HeldOutFonts) -> list[Document]:
    """Runs in a worker."""
    render = load_renderer(task)
    return [render(number, fonts) for number in numbers]
