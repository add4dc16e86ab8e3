"""Ctrl-C while something runs that can end in good order."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def first_interrupt(stop: Callable[[], object], *, second_exits: bool = False) -> Iterator[None]:
    """The first Ctrl-C inside the block calls ``stop``; a second one interrupts whatever still runs.

    Args:
        stop: what the first one calls.
        second_exits: the second one ends the process on the spot, for a run that may be killed at any moment: to unwind
            it would wait for the step that the model is in, which can take many seconds.
    """

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, _exit if second_exits else signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _exit(number: int, frame: object) -> None:
    """End without unwinding."""
    shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar has hidden the cursor
    os.write(2, f"{shown}Stopped.\n".encode())
    os._exit(130)
