"""Who is next: a few requests run together, the others wait in the order they came and are told their place."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mm.errors import BusyError

T = TypeVar("T")

RUNNING, WAITING = 8, 32  # of a server; the engine steps together what runs
_LOOK_S, _TELL_S = 0.1, 1.0


class Place:
    """A place in the line. ``cancel`` gives it up."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.cancelled = False

    def cancel(self) -> None:
        """Wait no longer."""
        self.cancelled = True

    @property
    def ahead(self) -> int:
        """How many must end before this one may run, itself included; 0: it may run now."""
        return self._line.ahead(self)

    async def wait(self) -> AsyncIterator[str]:
        """Until it may run or is cancelled: where it stands, as a sentence, on every change and once a second."""
        told, when = 0, 0.0
        while (ahead := self.ahead) and not self.cancelled:
            if ahead != told or time.monotonic() - when > _TELL_S:
                told, when = ahead, time.monotonic()
                yield f"Waiting: place {ahead} of {self._line.num_waiting} in the queue."
            await asyncio.sleep(_LOOK_S)

    async def unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What some work gives; None soon after the place is given up, whatever a thread of the work still does."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_S))[0]:
                if self.cancelled:
                    return None
            return task.result()
        finally:
            task.cancel()


class Line:
    """The line of a server.

    Args:
        running: most requests that run together.
        waiting: most that wait; the next one is told to come back.
    """

    def __init__(self, running: int = RUNNING, waiting: int = WAITING) -> None:
        self._running = running
        self._waiting = waiting
        self._lock = threading.Lock()
        self._places: list[Place] = []  # in the order they came; the first ones run

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place, held inside the block.

        Raises:
            BusyError: too many wait.
        """
        place = Place(self)
        with self._lock:
            if len(self._places) >= self._running + self._waiting:
                raise BusyError(f"the queue is full: {self._waiting} wait already. Try again in a minute")
            self._places.append(place)
        try:
            yield place
        finally:
            with self._lock:
                self._places.remove(place)

    def ahead(self, place: Place) -> int:
        """See ``Place.ahead``."""
        with self._lock:
            return max(0, self._places.index(place) - self._running + 1)

    @property
    def num_running(self) -> int:
        """How many may run now."""
        with self._lock:
            return min(len(self._places), self._running)

    @property
    def num_waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return max(0, len(self._places) - self._running)
