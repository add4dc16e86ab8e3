"""Decode steps and prompts as CUDA graphs: what a call launches is recorded once for each shape and then replayed as
one piece.

A step of a large model launches hundreds of kernels, and launching one takes longer than many of them run. A replay
costs the host one call. Shapes are few, because rows, visible positions (``mm.generation.steps``) and lengths of
prompts (``mm.generation.prefill``) come in buckets.

The first step of a shape runs as it would without graphs, which also warms up what its kernels need; the second one is
recorded. A shape that cannot be recorded goes on without a graph, with a warning that says why.
"""

import time
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
Work = Callable[..., Outputs]
"""What the host tells a call: tensors of one shape each -> what it computes."""


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]  # where the graph reads its numbers
    outputs: Outputs  # where it leaves what it computed, until the next replay


class StepGraphs:
    """The recorded steps of one engine. Used by the engine's thread only.

    Attributes:
        num_recorded: graphs recorded since the start.
        seconds: what recording them took.
        replays: calls that were a replay.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.num_recorded = 0
        self.seconds = 0.0
        self.replays = 0
        self._recorded: dict[Hashable, _Recorded | None] = {}  # None: run once, or not to be recorded
        self._refused: set[Hashable] = set()
        self._pool: Any = None  # torch's handle of the memory that all of them share
        self._stream: torch.cuda.Stream | None = None

    def clear(self) -> None:
        """Forget all graphs: memory that they read and write is about to go, or weights have moved."""
        self._recorded.clear()
        self._pool = None

    def run(self, shape: Hashable, work: Work, *given: Tensor) -> Outputs:
        """What ``work`` gives for these numbers.

        Args:
            shape: equal shapes launch the same kernels on the same memory.
            work: must not wait for the device, and must keep its state in tensors that stay where they are.
            given: its arguments, in pinned memory of the host.

        Returns:
            Tensors on the device that hold until the next call.
        """
        if shape not in self._recorded:
            self._recorded[shape] = None
            return self._eager(work, given)
        known = self._recorded[shape]
        if known is None:
            if shape in self._refused:
                return self._eager(work, given)
            known = self._recorded[shape] = self._record(work, given)
            if known is None:
                self._refused.add(shape)
                return self._eager(work, given)
        for place, numbers in zip(known.given, given, strict=True):
            place.copy_(numbers, non_blocking=True)
        known.graph.replay()
        self.replays += 1
        return known.outputs

    def _eager(self, work: Work, given: tuple[Tensor, ...]) -> Outputs:
        return work(*(numbers.to(self.device, non_blocking=True) for numbers in given))

    def _record(self, work: Work, given: tuple[Tensor, ...]) -> _Recorded | None:
        """Recording runs nothing: the state of what runs is the same before and after."""
        started = time.perf_counter()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        static = tuple(torch.empty_like(numbers, device=self.device) for numbers in given)
        graph = torch.cuda.CUDAGraph()
        stream, current = self._stream, torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                # Threads of callers may use the device meanwhile (a picture is decoded in its caller's thread).
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    outputs = work(*static)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            warnings.warn(f"a step could not be recorded as a CUDA graph and runs without: {error}", stacklevel=2)
            return None
        current.wait_stream(stream)
        self.num_recorded += 1
        self.seconds += time.perf_counter() - started
        return _Recorded(graph, static, outputs)
