"""Which bucket every step takes, and its rows on the device, a few steps ahead of the trainer."""

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mm.training.objective import TrainingBatch
from mm.training.ring import Ring, Rows

BLOCK_STEPS = 16  # steps that are planned at once
_AHEAD = 3  # batches that are copied while the device works
_MEMORY_SAMPLES = 8192  # the bucket mix follows about this many of the latest samples of a rank


class StepPlan:
    """The buckets of the coming steps: each bucket is used in proportion to what is rendered for it.

    All ranks give the same counts to ``next_block`` and so take the same bucket in every step; none waits for another.
    """

    def __init__(self, rows: Iterable[int], seed: int) -> None:
        self.rows = np.array(list(rows), dtype=np.float64)  # (K,)
        self.seed = seed
        self._last = np.zeros_like(self.rows)
        self._recent = np.zeros_like(self.rows)

    def next_block(self, counts: NDArray[np.float64], block: int) -> list[int]:
        """Bucket of each step of a block.

        Args:
            counts: (world, K) samples written so far; a bucket is used once every rank has a step's worth.
            block: number of the block since the start of the run, part of the seed.
        """
        total = counts.sum(axis=0)
        new = np.maximum(total - self._last, 0)
        self._last = total
        self._recent = self._recent * 0.5 ** (new.sum() / (_MEMORY_SAMPLES * len(counts))) + new
        weights = np.where(counts.min(axis=0) >= self.rows, self._recent / self.rows, 0.0)
        if weights.sum() == 0:  # the very first samples: the fullest bucket, with repeated rows
            weights[int(total.argmax())] = 1.0
        rng = np.random.default_rng((self.seed, 3, block))
        return [int(bucket) for bucket in rng.choice(len(weights), size=BLOCK_STEPS, p=weights / weights.sum())]


class Feeder:
    """Draws, copies and moves batches in a thread of its own.

    Args:
        rings: one a bucket.
        device: where batches go.
        seed: every step's draw is a function of this and the step alone.
    """

    def __init__(self, rings: list[Ring], device: torch.device, seed: tuple[int, ...]) -> None:
        self._rings = rings
        self._device = device
        self._seed = seed
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feeder")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: deque[tuple[int, int]] = deque()
        self._running: deque[Future[tuple[TrainingBatch, Tensor, Any]]] = deque()
        self.waited = 0.0  # seconds that the trainer spent waiting for data

    def request(self, steps: Iterable[tuple[int, int]]) -> None:
        """Queues (step, bucket) pairs."""
        self._waiting.extend(steps)
        self._fill()

    def next(self) -> tuple[TrainingBatch, Tensor]:
        """The next requested batch and its kinds (B,), ready for the current stream."""
        begin = time.perf_counter()
        batch, kinds, copied = self._running.popleft().result()
        self.waited += time.perf_counter() - begin
        self._fill()
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in (batch.views, batch.characters, batch.source, batch.labels, kinds):
                tensor.record_stream(stream)
        return batch, kinds

    def close(self) -> None:
        """Drops what is queued and ends the thread."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < _AHEAD:
            self._running.append(self._pool.submit(self._fetch, *self._waiting.popleft()))

    def _fetch(self, step: int, bucket: int) -> tuple[TrainingBatch, Tensor, Any]:
        ring = self._rings[bucket]
        rng = np.random.default_rng((*self._seed, 4, step))
        if self._stream is None:
            batch, kinds = to_device(ring.draw(rng, ring.bucket.rows), self._device)
            return batch, kinds, None
        rows = ring.draw(rng, ring.bucket.rows, _empty_pinned)
        with torch.cuda.stream(self._stream):
            batch, kinds = to_device(rows, self._device)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        return batch, kinds, copied


def to_device(rows: Rows, device: torch.device) -> tuple[TrainingBatch, Tensor]:
    """Rows as a batch on the device, and their kinds (B,) int64."""

    def move(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    batch = TrainingBatch(
        views=move(rows.views), characters=move(rows.characters), source=move(rows.source), labels=move(rows.labels)
    )
    return batch, move(rows.kinds).long()


def _empty_pinned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A numpy array over pinned memory, which copies to the device without the host waiting."""
    kinds = {np.dtype(np.uint8): torch.uint8, np.dtype(np.int16): torch.int16}
    array: NDArray[Any] = torch.empty(shape, dtype=kinds[np.dtype(dtype)], pin_memory=True).numpy()
    return array
