"""Who is next: order, places, giving up, and too many."""

import asyncio

import pytest

from apps.line import Line
from mm.errors import BusyError


def test_places_are_told_and_kept_in_order() -> None:
    line = Line(running=1, waiting=5)
    told: dict[str, list[str]] = {"b": [], "c": []}
    ran: list[str] = []

    async def visitor(name: str, done: asyncio.Event) -> None:
        with line.place() as place:
            async for text in place.wait():
                told[name].append(text)
            ran.append(name)
            await done.wait()

    async def scene() -> None:
        done = asyncio.Event()
        with line.place() as first:
            assert first.ahead == 0
            waiting = [asyncio.create_task(visitor(name, done)) for name in "bc"]
            await asyncio.sleep(0.25)
            assert ran == [] and line.num_waiting == 2
        await asyncio.sleep(0.25)
        assert ran == ["b"]
        done.set()
        await asyncio.gather(*waiting)

    asyncio.run(scene())
    assert ran == ["b", "c"]
    assert told["b"][0].startswith("Waiting: place 1 of ")
    assert told["c"][0] == "Waiting: place 2 of 2 in the queue." and "place 1 of 1" in told["c"][-1]


def test_who_gives_up_lets_the_next_one_in() -> None:
    line = Line(running=1, waiting=2)

    async def scene() -> bool:
        with line.place(), line.place() as second, line.place() as third:
            waiting = asyncio.create_task(anext(second.wait(), None))
            second.cancel()
            async for _ in second.wait():
                raise AssertionError("waits although it gave up")
            await waiting
            return second.cancelled and third.ahead == 2

    assert asyncio.run(scene())
    assert line.num_waiting == 0


def test_who_gives_up_leaves_the_line_while_something_is_prepared() -> None:
    """As a PDF is, which may take a minute."""
    line = Line()

    async def scene() -> None:
        prepared = asyncio.Event()

        async def prepare() -> str:
            await prepared.wait()
            return "pages"

        with line.place() as place:
            asyncio.get_running_loop().call_later(0.01, prepared.set)
            assert await place.unless_cancelled(prepare()) == "pages"
            prepared.clear()
            asyncio.get_running_loop().call_later(0.01, place.cancel)
            assert await place.unless_cancelled(prepare()) is None

    asyncio.run(scene())
    assert line.num_running == 0


def test_too_many_are_told_to_come_back() -> None:
    line = Line(running=1, waiting=1)
    full = pytest.raises(BusyError, match="the queue is full: 1 wait already. Try again in a minute.")
    with line.place(), line.place(), full, line.place():
        raise AssertionError("got a place")
    with line.place() as place:
        assert place.ahead == 0
