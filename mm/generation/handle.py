"""The caller's end of a request: text while it is made, the end, an error, cancelling."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

from mm.generation.row import Answer

# On some systems a thread that waits without limit cannot be interrupted by Ctrl-C.
_WAIT_S = 0.5


class Handle:
    """One answer on its way. Any thread may read, wait for it and cancel it.

    Iterating (``for`` or ``async for``) gives the pieces of text as they come, none of them empty, all of them to every
    reader. An error of the request is raised to each reader at the end.

    Attributes:
        row: the answer; its tokens may be read once ``ended`` is true.
        reused_tokens: prompt tokens that the engine found computed already, once it has begun.
    """

    def __init__(self, row: Answer) -> None:
        self.row = row
        self.reused_tokens = 0
        self.ended = False
        self.cancelled = False
        self.error: BaseException | None = None
        self._pieces: list[str] = []
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []  # called from the engine's thread after every change
        self._at_end: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """End the answer within one step, with the reason "cancelled". What there is by then can be read."""
        self.cancelled = True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; whether it has come."""
        if timeout is not None:
            with self._changed:
                return self._changed.wait_for(lambda: self.ended, timeout)
        while not self.wait(_WAIT_S):
            pass
        return True

    def result(self) -> Answer:
        """Wait for the end and return the row.

        Raises:
            BaseException: what the request ended with.
        """
        self.wait()
        self._raise()
        return self.row

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._pieces)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call once the answer has ended, from the engine's thread, or now if it has. Must be quick and not raise."""
        with self._changed:
            if not self.ended:
                self._at_end.append(call)
                return
        call()

    def __iter__(self) -> Iterator[str]:
        read = 0
        while True:
            with self._changed:
                if read == len(self._pieces) and not self.ended:
                    self._changed.wait(_WAIT_S)
                new, ended = self._pieces[read:], self.ended
            yield from new
            read += len(new)
            if ended:
                self._raise()
                return

    async def __aiter__(self) -> AsyncIterator[str]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._listeners.append(wake)
        read = 0
        try:
            while True:
                changed.clear()
                with self._changed:
                    new, ended = self._pieces[read:], self.ended
                for piece in new:
                    yield piece
                read += len(new)
                if ended:
                    self._raise()
                    return
                await changed.wait()
        finally:
            with self._changed:
                self._listeners.remove(wake)

    def add(self, piece: str) -> None:
        """The engine's side: more text."""
        if piece:
            with self._changed:
                self._pieces.append(piece)
                self._tell()

    def end(self, error: BaseException | None = None) -> None:
        """The engine's side: the end."""
        with self._changed:
            self.ended, self.error = True, error
            self._tell()
            at_end, self._at_end = self._at_end, []
        for call in at_end:
            try:
                call()
            except BaseException as own:  # told as from any thread; the engine goes on
                threading.excepthook(
                    threading.ExceptHookArgs((type(own), own, own.__traceback__, threading.current_thread()))
                )

    def _tell(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error
