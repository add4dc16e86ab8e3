"""Held-out documents in order, drawn by worker processes ahead of whoever reads them."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mm.evaluation.held_out_canvas import Document
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.tasks import load_renderer

DRAWN_TOGETHER = 8  # documents of one errand of a worker
ERRANDS_AHEAD = 3  # for each worker: bounds the memory of pictures that wait


def default_workers() -> int:
    """The cores of this process but one, which feeds the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores - 1)


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
        """
        if self._pool is None:
            render = load_renderer(task)
            yield from (render(number, self._fonts) for number in numbers)
            return
        errands = deque(numbers[start : start + DRAWN_TOGETHER] for start in range(0, len(numbers), DRAWN_TOGETHER))
        running: deque[Future[list[Document]]] = deque()
        while errands or running:
            while errands and len(running) < ERRANDS_AHEAD * self._workers:
                running.append(self._pool.submit(_draw, task, errands.popleft(), self._fonts))
            yield from running.popleft().result()


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
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield Painter(fonts, pool, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _draw(task: str, numbers: range, fonts: HeldOutFonts) -> list[Document]:
    """Runs in a worker."""
    render = load_renderer(task)
    return [render(number, fonts) for number in numbers]
