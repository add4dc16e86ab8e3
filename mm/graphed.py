"""A function of one tensor as CUDA graphs: what it launches is recorded once for each shape and replayed as one piece.

For networks of many small kernels on few pictures, where launching takes longer than running.
"""

import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOST_SHAPES = 4  # each keeps the memory of its pass; the one that was not used for longest goes


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    given: Tensor  # where the graph reads
    found: Tensor  # where it leaves its result, until the next replay


class Graphed:
    """Runs ``work`` on CUDA tensors as a graph from the second call of a shape on; the first one runs as it is, which
    also warms up what its kernels need. May be called from several threads; each begins so, for cuBLAS cannot be set up
    while a call is recorded.

    Args:
        work: launches the same kernels on the same memory for equal shapes, and waits for nothing.
        most: rows of the first axis beyond which nothing is recorded: large passes do not wait for launches.
        modules: whose parameters the work reads; graphs are forgotten where one is elsewhere in memory than before.
    """

    def __init__(self, work: Callable[[Tensor], Tensor], *, most: int, modules: Sequence[nn.Module] = ()) -> None:
        self.work = work
        self.most = most
        # Where parameters are held, and their names there: another parameter may take the place of one.
        self._held = [
            (part._parameters, name) for module in modules for part in module.modules() for name in part._parameters
        ]
        self._places = self._where()
        self._lock = threading.Lock()
        self._seen: set[Hashable] = set()  # once, and in which thread: libraries are set up in each
        self._known: dict[Hashable, _Recorded] = {}
        self._refused = False

    @property
    def num_recorded(self) -> int:
        """Graphs that there are."""
        return len(self._known)

    def clear(self) -> None:
        """Forgets the graphs and gives back their memory; they are recorded again."""
        with self._lock:
            self._known.clear()

    def _where(self) -> list[int]:
        return [0 if (weight := held.get(name)) is None else weight.data_ptr() for held, name in self._held]

    @torch.inference_mode()
    def __call__(self, given: Tensor) -> Tensor:
        """What ``work`` gives, in memory of its own."""
        if given.device.type != "cuda" or self._refused or given.shape[0] > self.most:
            return self.work(given)
        stream = torch.cuda.current_stream(given.device)
        key = given.shape, given.dtype, given.device, stream.cuda_stream
        with self._lock:
            places = self._where()
            if places != self._places:
                self._known.clear()
                self._seen.clear()
                self._places = places
            known = self._known.pop(key, None)
            if known is None:
                seen = key, threading.get_ident()
                if seen not in self._seen:
                    self._seen.add(seen)
                    return self.work(given)
                known = self._record(given)
                if known is None:
                    return self.work(given)
                if len(self._known) == MOST_SHAPES:
                    del self._known[next(iter(self._known))]
            self._known[key] = known  # the last one is the one used last
            known.given.copy_(given)
            known.graph.replay()
            return known.found.clone()

    def _record(self, given: Tensor) -> _Recorded | None:
        place, graph = given.clone(), torch.cuda.CUDAGraph()
        current, own = torch.cuda.current_stream(given.device), torch.cuda.Stream(given.device)
        own.wait_stream(current)
        try:
            with torch.cuda.stream(own):
                graph.capture_begin(capture_error_mode="thread_local")  # other threads may use the device meanwhile
                try:
                    found = self.work(place)
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:  # tried again when there is more of it
            raise
        except RuntimeError as error:
            self._refused = True
            warnings.warn(f"a network could not be recorded as a CUDA graph and runs without: {error}", stacklevel=3)
            return None
        current.wait_stream(own)
        return _Recorded(graph, place, found)


def release_graphs(model: nn.Module) -> None:
    """Gives back the memory of all graphs that the towers and the painter of a model have recorded."""
    for module in model.modules():
        clear = getattr(getattr(module, "path", None), "clear", None)
        if clear is not None:
            clear()
