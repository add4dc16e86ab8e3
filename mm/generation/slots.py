"""The rows of the cache, what each of them holds, and which one a new request gets.

A slot keeps what was computed in it after its request has ended, so that the next turn of the conversation, or another
question about the same images, starts from there. The cache begins small and grows with what is asked of it, as far as
the memory of the device allows: in rows when several requests run together, in length when one needs more.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from mm.contracts import Cache, Decoder, ImageSpan
from mm.environment import device_memory
from mm.errors import ResourceError
from mm.generation.prompt import Keys, common_prefix, whole_images

LENGTH_BLOCK = 512  # slots are as long as the longest request so far, rounded up to this
MIN_REUSE = 16  # tokens; shorter common beginnings (a system prompt's first words) are computed again
KEPT_SLOTS = 4  # conversations kept although one slot would do
KEPT_SHARE = 0.1  # of the free memory, for keeping them
CACHE_SHARE = 0.8  # of the free memory, at most; the rest is for activations
GIB = 2**30


class CacheMemoryError(ResourceError):
    """The cache of a request does not fit the device, however few others run beside it."""


def _nothing() -> Keys:
    return np.empty(0, dtype=np.int64)


@dataclass(eq=False)
class Slot:
    """One row of the cache."""

    index: int  # of the row
    keys: Keys = field(default_factory=_nothing)  # what the positions hold, of which the first `filled` are computed
    filled: int = 0
    busy: bool = False
    length: int = 0  # positions that its request may fill
    used: int = 0  # when it was last taken or given back
    epoch: int = 0  # of the weights that it is computed with


class Slots:
    """All slots. Used by the engine's thread only.

    Args:
        decoder: whose cache it is.
        device: where it is.
        limit: most slots.
    """

    def __init__(self, decoder: Decoder, device: torch.device, limit: int) -> None:
        self._decoder = decoder
        self._device = device
        self._limit = limit
        self._bytes: dict[torch.device, int] = {}  # of a token, on each device that has layers
        self._clock = 0
        self._epoch = 0
        self._leading: dict[int, Cache] = {}
        self._cache: Cache | None = None
        self.slots: list[Slot] = []  # by index
        self.length = 0  # positions of a slot; the cache has one more, for rows whose result nobody reads
        self.generation = 0  # of the cache: counts the times that it was made anew, elsewhere in memory

    def take(self, keys: Keys, spans: Sequence[ImageSpan], length: int) -> Slot | None:
        """A slot for a request, its first ``filled`` positions computed already.

        Args:
            keys: of the prompt.
            spans: its images; the reused part ends inside none.
            length: positions that prompt and answer may fill.

        Returns:
            None when a request has to end first.

        Raises:
            CacheMemoryError: it does not fit even alone.
        """
        source, reused = self._longest_prefix(keys, spans)
        # Go on where the old one ends, unless more would be lost than gained: then the beginning is copied.
        goes_on = source is not None and not source.busy and source.filled - reused <= reused
        if not self._make_room(length, keep=not goes_on):
            return None
        if source not in self.slots or source.filled < reused:  # lost for want of memory
            source, reused = self._longest_prefix(keys, spans)
        idle = [slot for slot in self.slots if not slot.busy]
        target = source if goes_on and source in idle else min(idle, key=lambda slot: (slot.filled > 0, slot.used))
        assert target is not None
        if source is not None and source is not target:
            self._whole.copy_row(target.index, self._whole, source.index, reused)
        target.keys, target.filled, target.length, target.busy = keys, reused, length, True
        target.epoch = self._epoch
        self._touch(target)
        return target

    def known(self, keys: Keys, spans: Sequence[ImageSpan]) -> int:
        """How many positions of a prompt ``take`` would find computed."""
        return self._longest_prefix(keys, spans)[1]

    def give_back(self, slot: Slot, keys: Keys) -> None:
        """Its request has ended; ``keys`` say what is computed, to be found by later prompts."""
        if slot.epoch != self._epoch:
            keys = _nothing()
        slot.keys, slot.filled, slot.busy = keys, len(keys), False
        self._touch(slot)

    def wipe(self, slot: Slot) -> None:
        """Its request has failed: nothing of it is kept. Numbers that are none would reach later requests even from
        positions that they do not attend to (0 * nan)."""
        self._whole.clear_row(slot.index)
        self.give_back(slot, _nothing())

    def distrust(self) -> None:
        """The weights have changed: nothing that was computed before is found any more. What runs goes on."""
        self._epoch += 1
        for slot in self.slots:
            if not slot.busy:
                slot.keys, slot.filled = _nothing(), 0

    def move(self, slot: Slot, index: int) -> None:
        """Exchange it with the one at ``index``."""
        other = self.slots[index]
        if other is slot:
            return
        self._whole.swap_rows(slot.index, index, max(slot.filled, other.filled))
        self.slots[slot.index], self.slots[index] = other, slot
        slot.index, other.index = index, slot.index

    def leading(self, count: int) -> Cache:
        """The first ``count`` rows."""
        if count not in self._leading:
            self._leading[count] = self._whole.rows(0, count)
        return self._leading[count]

    def trailing(self, count: int) -> Cache:
        """The last ``count`` rows."""
        return self._whole.rows(len(self.slots) - count, len(self.slots))

    def row(self, slot: Slot) -> Cache:
        """The row of one slot."""
        return self._whole.rows(slot.index, slot.index + 1)

    def forget(self) -> None:
        """Give all memory back. No slot may be used after this."""
        self.slots, self._cache, self._leading, self.length = [], None, {}, 0
        self.generation += 1

    @property
    def num_bytes(self) -> int:
        """Memory of the cache."""
        return 0 if self._cache is None else self._size(len(self.slots), self.length)

    @property
    def _whole(self) -> Cache:
        assert self._cache is not None
        return self._cache

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def _longest_prefix(self, keys: Keys, spans: Sequence[ImageSpan]) -> tuple[Slot | None, int]:
        """The slot that shares the longest beginning with a prompt, all but its last token, and its length."""
        best: tuple[Slot | None, int] = None, 0
        current = [slot for slot in self.slots if slot.epoch == self._epoch]
        for slot in sorted(current, key=lambda slot: slot.busy):
            length = whole_images(spans, common_prefix(slot.keys[: slot.filled], keys[:-1]))
            if length >= MIN_REUSE and length > best[1]:
                best = slot, length
        return best

    def _make_room(self, length: int, *, keep: bool) -> bool:
        """See to it that there is an idle slot of ``length`` positions; ``keep``: if it costs little, an empty one."""
        busy = [slot for slot in self.slots if slot.busy]
        count, idle = len(self.slots), len(self.slots) > len(busy)
        if len(busy) >= self._limit:
            return False
        if idle and length <= self.length:
            crowded = keep and all(slot.filled for slot in self.slots) and count < min(KEPT_SLOTS, self._limit)
            if crowded and self._size(2 * count, self.length) <= KEPT_SHARE * self._free():
                with suppress(CacheMemoryError):  # then one of those that are kept makes room
                    self._resize(min(2 * count, self._limit), self.length)
            return True
        needed = -(-length // LENGTH_BLOCK) * LENGTH_BLOCK
        longest = max(needed, self.length)
        tight = max([needed, *(slot.length for slot in busy)])
        wanted = count if idle else min(max(2 * count, 1), self._limit)
        reclaimed = 0 if busy else self.num_bytes  # nothing runs: the old cache may go first
        free = self._free() + reclaimed
        for rows, room in ((wanted, longest), (len(busy) + 1, longest), (len(busy) + 1, tight)):
            if self._size(rows, room) <= CACHE_SHARE * free:
                try:
                    self._resize(rows, room)
                except CacheMemoryError:  # less was free than it seemed
                    if not busy:
                        raise
                    continue
                return True
        if busy:
            return False
        raise CacheMemoryError(
            f"a request of {length:,} tokens (prompt and answer) needs a cache of {self._size(1, needed) / GIB:.1f} "
            f"GiB, and {free / GIB:.1f} GiB are free on {self._device}. Use a smaller max_new_tokens or a shorter "
            "prompt."
        )

    def _resize(self, rows: int, length: int) -> None:
        """A new cache with what is in the slots now: all busy ones, and of the others as many as there is room for."""
        kept = sorted((slot for slot in self.slots if slot.busy), key=lambda slot: slot.index)
        old = self._cache
        if kept or self._size(rows, length) <= CACHE_SHARE * self._free():
            kept += sorted((slot for slot in self.slots if not slot.busy and slot.filled), key=lambda slot: -slot.used)
        else:
            old = None
            self.forget()
        try:
            new = self._decoder.new_cache(rows, length + 1)
        except (RuntimeError, MemoryError) as error:
            raise CacheMemoryError(
                f"the memory of {self._device} has no {self._size(rows, length) / GIB:.1f} GiB for the cache. Use a "
                "smaller max_new_tokens or a shorter prompt."
            ) from error
        kept = kept[:rows]
        for index, slot in enumerate(kept):
            assert old is not None
            slot.filled = min(slot.filled, length)
            new.copy_row(index, old, slot.index, slot.filled)
            slot.index = index
        self.slots = kept + [Slot(index) for index in range(len(kept), rows)]
        self._cache, self._leading, self.length = new, {}, length
        self.generation += 1

    def _size(self, rows: int, length: int) -> int:
        return rows * (length + 1) * sum(self._bytes_per_token().values())

    def _bytes_per_token(self) -> dict[torch.device, int]:
        if not self._bytes:
            self._bytes = self._decoder.new_cache(1, 1).bytes_by_device()
        return self._bytes

    def _free(self) -> int:
        """Bytes that a new cache may take. On several devices it is full where the first of them is."""
        sizes = self._bytes_per_token()
        if len(sizes) == 1:
            return _free_on(self._device)
        whole = sum(sizes.values())
        return min(_free_on(device) * whole // size for device, size in sizes.items())


def _free_on(device: torch.device) -> int:
    free = device_memory(str(device)).available
    if device.type == "cuda":  # what torch holds and does not use
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free
