"""The model on several devices of one machine: a process for each, supplied with images as fast as it answers.

A process that dies leaves its images to the others; they are asked again there, and none is counted twice.
"""

import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from mm.captioning import processes
from mm.captioning.batching import cores
from mm.captioning.rows import Outcome
from mm.captioning.sources import Item
from mm.captioning.supply import Supply
from mm.errors import MMError, ResourceError

if TYPE_CHECKING:
    from mm.captioning.job import Job

_PAUSE_S = 0.5
_END = "end"


class Fleet:
    """A process with the model for each of ``job.devices``.

    Args:
        job: what is asked.
        num_images: most images that will come.

    Raises:
        MMError: what the first process that could not load the model ended with.
    """

    def __init__(self, job: "Job", num_images: int) -> None:
        self._events: SimpleQueue[tuple[_Member, Any]] = SimpleQueue()
        self._members: list[_Member] = []
        self._shares: list[float] = []
        count = min(len(job.devices), max(1, num_images))
        threads = max(1, cores() // count)
        workers = max(1, min(8, cores() // (2 * count))) if job.workers is None else job.workers
        try:
            for device in job.devices[:count]:
                own = replace(job, device=device, devices=(), workers=workers)
                self._members.append(_Member(own, num_images, threads, self._events))
            waiting = set(self._members)
            while waiting:
                member, message = self._events.get()
                if isinstance(message, MMError):
                    raise message
                if message is None:
                    raise ResourceError(
                        f"the process for the device {member.device!r} ended with status {member.end()} while it "
                        "loaded the model. Its own message stands above; free memory, or name fewer devices"
                    )
                member.room = message
                waiting.discard(member)
        except BaseException:
            self.close()
            raise

    @property
    def busy(self) -> float:
        """Share of the time in which the models computed, over all devices that came to the end."""
        return sum(self._shares) / max(1, len(self._shares))

    def answer(self, supply: Supply) -> Generator[Outcome | None]:
        """What becomes of each image, in the order of their ends.

        Raises:
            ResourceError: all processes have died, or one ran out of memory.
        """
        again: deque[tuple[int, Item]] = deque()  # of processes that died
        while True:
            self._hand_out(supply, again)
            at_work = any(member.begun for member in self._members)
            if supply.over and not again and not at_work:
                break
            try:
                member, message = self._events.get(timeout=_PAUSE_S if at_work else 0.01)
            except Empty:
                yield None
                continue
            if isinstance(message, Outcome):
                del member.begun[message.number]
                yield message
            elif isinstance(message, MMError):
                raise message
            else:
                again.extend(member.begun.items())
                self._lose(member)
        yield from self._finish()

    def _hand_out(self, supply: Supply, again: deque[tuple[int, Item]]) -> None:
        """Images for whoever has room, those first that a process left behind."""
        while self._members:
            member = min(self._members, key=lambda member: len(member.begun) - member.room)
            if len(member.begun) >= member.room:
                return
            taken = again.popleft() if again else supply.take()
            if taken is None:
                return
            member.begin(*taken)

    def _lose(self, member: "_Member") -> None:
        self._members.remove(member)
        status = member.end()
        if not self._members:
            raise ResourceError(
                f"the last process with the model, for the device {member.device!r}, ended with status {status}. What "
                "was committed before is kept: run the same command again, on fewer devices if memory was short"
            )
        warnings.warn(
            f"the process for the device {member.device!r} ended with status {status}; others take over its images",
            stacklevel=2,
        )

    def _finish(self) -> Generator[Outcome | None]:
        """Ask each for its share of the time."""
        waiting = set(self._members)
        for member in self._members:
            member.finish()
        while waiting:
            member, message = self._events.get()
            if isinstance(message, float):
                self._shares.append(message)
            waiting.discard(member)  # a share, or it has died: all its images are done
        yield None

    def close(self) -> None:
        """End the processes."""
        for member in self._members:
            member.end()
        self._members = []


class _Member:
    """One process, seen from the run."""

    def __init__(self, job: "Job", num_images: int, threads: int, events: "SimpleQueue[tuple[_Member, Any]]") -> None:
        self.device = job.device
        self.room = 0  # images that it takes
        self.begun: dict[int, Item] = {}
        self._process = processes.start("mm.captioning.fleet:work", threads=threads)
        self._reader = threading.Thread(target=self._read, args=(events,), name="mm-device", daemon=True)
        self._reader.start()
        self._send((job, num_images))

    def begin(self, number: int, item: Item) -> None:
        """Hand it an image."""
        self.begun[number] = item
        self._send((number, item))

    def finish(self) -> None:
        """Tell it that no more will come."""
        self._send(_END)

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            processes.send(self._process.stdin, message)
        except OSError:
            return  # it has died: the reader tells

    def _read(self, events: "SimpleQueue[tuple[_Member, Any]]") -> None:
        assert self._process.stdout is not None
        while True:
            try:
                message = processes.receive(self._process.stdout)
            except (OSError, ValueError, EOFError):
                events.put((self, None))
                return
            events.put((self, message))

    def end(self) -> int:
        """End the process, and its status."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        return processes.end(self._process)


class _Inbox:
    """Images that come through a pipe."""

    stopped = False  # who sends them decides

    def __init__(self, stream: IO[bytes]) -> None:
        self.over = False
        self._items: SimpleQueue[tuple[int, Item]] = SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), name="mm-inbox", daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        while True:
            try:
                message = processes.receive(stream)
            except EOFError:
                os._exit(1)  # the run was killed: nobody wants the rest
            if message == _END:
                self.over = True
                return
            self._items.put(message)

    def take(self) -> tuple[int, Item] | None:
        """The next one, if it is there."""
        try:
            return self._items.get_nowait()
        except Empty:
            return None


def work() -> None:
    """A process's life: load the model, answer, tell the share of the time in which it computed."""
    from mm.captioning.local import LocalEngine

    answers = processes.answers_to_parent()
    job, num_images = processes.receive(sys.stdin.buffer)
    try:
        engine = LocalEngine(job, num_images=num_images)
    except MMError as error:
        processes.answer(answers, error)
        return
    try:
        processes.answer(answers, 2 * engine.batch)
        for outcome in engine.answer(_Inbox(sys.stdin.buffer)):
            if outcome is not None:
                processes.answer(answers, outcome)
        processes.answer(answers, engine.busy)
    except MMError as error:
        processes.answer(answers, error)
    finally:
        engine.close()
