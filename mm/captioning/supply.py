"""The images of a run in their order, handed out as fast as they are done with."""

from collections.abc import Iterator, Mapping, Set
from typing import Protocol

from mm.captioning.sources import Item
from mm.contracts import CancelToken


class Work(Protocol):
    """Where what answers takes its images from."""

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether the run is to end early."""
        ...

    def take(self) -> tuple[int, Item] | None:
        """The next image with its number; None when there is none now. Never waits."""
        ...


class Supply:
    """The images of one run. Every one gets a number, from 0 on.

    Args:
        items: of the source.
        wanted: ids of those that are to be done.
        copies: id of an image -> id of an earlier one whose text it shares; such an image is not handed out.
        stop: once it says True, no more are.
        most_ahead: images that may be done before an earlier one.
    """

    def __init__(
        self,
        items: Iterator[Item],
        wanted: Set[str],
        *,
        copies: Mapping[str, str],
        stop: CancelToken | None,
        most_ahead: int,
    ) -> None:
        self._items = (item for item in items if item.id in wanted)
        self._copies, self._stop, self._most_ahead = copies, stop, most_ahead
        self._ended = False
        self.total = len(wanted)
        self.num_taken = 0
        self.num_committed = 0  # kept up to date by who commits
        self.pending: dict[int, Item] = {}  # taken and not committed

    @property
    def stopped(self) -> bool:
        """Whether the run is to end early."""
        return self._stop is not None and self._stop.is_set()

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self._ended or self.stopped

    def take(self) -> tuple[int, Item] | None:
        """The next image with its number; None when there is none now."""
        while not self.over and self.num_taken - self.num_committed < self._most_ahead:
            taken = self._next()
            if taken is not None:
                return taken
        return None

    def all(self) -> Iterator[tuple[int, Item]]:
        """All that are left, with no bound. What has no file of its own is not kept until its commit."""
        while not self._ended:
            taken = self._next()
            if taken is not None:
                if taken[1].data is not None:
                    self.pending[taken[0]] = Item(id=taken[1].id)
                yield taken

    def _next(self) -> tuple[int, Item] | None:
        item = next(self._items, None)
        if item is None:
            self._ended = True
            return None
        number = self.num_taken
        self.num_taken += 1
        self.pending[number] = item
        return None if item.id in self._copies else (number, item)
