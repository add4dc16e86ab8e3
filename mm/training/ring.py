"""Rings of rendered samples in memory that the renderers and the trainer share.

One ring a bucket (samples of one shape). A renderer takes the next serial number and overwrites the oldest slot; the
trainer draws slots at random and never waits. The memory is anonymous and shared by fork: nothing is copied or pickled.

Letters: K slots, N views, S pixels a side, G patches a side, T tokens.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkContext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm.training.recipe import BucketRecipe

IGNORED_CHARACTER = 255  # in a character map: no loss is taken here

_WRITING = -1  # stamp of a slot whose bytes are being replaced


@dataclass(frozen=True)
class EncodedSample:
    """One sample as the trainer needs it.

    ``source`` says for every token where its embedding comes from: 0 and above, the token of the sample's own views
    (view * tokens a view + position); -1, the newline vector; -2, the view separator; -3 - id, that id's embedding.
    """

    views: NDArray[np.uint8]  # (N, S, S, 3); one view for an image of one tile
    characters: NDArray[np.uint8]  # (N, G, G, 2)
    source: NDArray[np.int16]  # (T,)
    labels: NDArray[np.int16]  # (T,); -1 where no loss is taken
    kind: int


@dataclass(frozen=True)
class Rows:
    """Rows drawn from one ring, as numpy arrays that belong to the caller."""

    views: NDArray[np.uint8]  # (B, N, S, S, 3)
    characters: NDArray[np.uint8]  # (B, N, G, G, 2)
    source: NDArray[np.int16]  # (B, T)
    labels: NDArray[np.int16]  # (B, T)
    kinds: NDArray[np.uint8]  # (B,)


# Makes the arrays that rows are copied into, from shape and type (pinned memory on a machine with a GPU).
EmptyArrays = Callable[[tuple[int, ...], Any], NDArray[Any]]


def _empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.empty(shape, dtype)


class Ring:
    """Samples of one bucket. Built before the renderers are forked; ``put`` is theirs, ``draw`` is the trainer's.

    Args:
        bucket: the shape.
        capacity: number of slots.
        view_size: pixels a side of a view.
        grid: patches a side of a view.
        padding: value of ``source`` behind a sample's end.
        context: the fork context of the renderers.
    """

    def __init__(
        self, bucket: BucketRecipe, *, capacity: int, view_size: int, grid: int, padding: int, context: ForkContext
    ) -> None:
        self.bucket = bucket
        self.capacity = capacity
        self.padding = padding
        self._views = _shared((capacity, bucket.views, view_size, view_size, 3), np.uint8)
        self._characters = _shared((capacity, bucket.views, grid, grid, 2), np.uint8)
        self._source = _shared((capacity, bucket.length), np.int16)
        self._labels = _shared((capacity, bucket.length), np.int16)
        self._kinds = _shared((capacity,), np.uint8)
        self._stamps = _shared((capacity,), np.int64)  # 0: never written; -1: being written; else serial + 1
        self._next = context.Value("q", 0)

    @staticmethod
    def slot_bytes(bucket: BucketRecipe, view_size: int, grid: int) -> int:
        """Bytes that one slot takes."""
        return bucket.views * (view_size * view_size * 3 + grid * grid * 2) + 4 * bucket.length + 9

    @property
    def num_written(self) -> int:
        """Samples written since the start, overwritten ones included."""
        return int(self._next.value)

    def put(self, sample: EncodedSample) -> None:
        """Writes a sample into the oldest slot."""
        with self._next.get_lock():
            serial = int(self._next.value)
            self._next.value = serial + 1
        slot = serial % self.capacity
        self._stamps[slot] = _WRITING
        views, tokens = sample.views.shape[0], sample.source.shape[0]
        self._views[slot, :views] = sample.views
        self._characters[slot, :views] = sample.characters
        self._characters[slot, views:] = IGNORED_CHARACTER
        self._source[slot, :tokens] = sample.source
        self._source[slot, tokens:] = self.padding
        self._labels[slot, :tokens] = sample.labels
        self._labels[slot, tokens:] = -1
        self._kinds[slot] = sample.kind
        self._stamps[slot] = serial + 1

    def draw(self, rng: np.random.Generator, num_rows: int, empty: EmptyArrays = _empty) -> Rows:
        """``num_rows`` samples drawn uniformly from those in the ring."""
        return self.read(rng.integers(0, min(self.num_written, self.capacity), size=num_rows), empty)

    def read(self, slots: NDArray[np.int64], empty: EmptyArrays = _empty) -> Rows:
        """Copies of the samples in some slots; one that is replaced while it is copied comes without labels."""
        stamps = self._stamps[slots]
        copies = []
        for array in (self._views, self._characters, self._source, self._labels, self._kinds):
            out = empty((len(slots), *array.shape[1:]), array.dtype)
            np.take(array, slots, axis=0, out=out, mode="clip")  # "clip" writes straight into out
            copies.append(out)
        rows = Rows(*copies)
        torn = (stamps <= 0) | (stamps != self._stamps[slots])
        rows.labels[torn] = -1
        rows.characters[torn] = IGNORED_CHARACTER
        rows.source[torn] = self.padding
        return rows


def _shared(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A zeroed array in anonymous memory that forked processes share; pages are only taken when touched."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1))
    return np.frombuffer(memory, dtype=dtype, count=count).reshape(shape)
