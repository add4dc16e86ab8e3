"""One forward and backward pass of a step: the gradients in one flat buffer, and CUDA graphs on a GPU.

A pass of nano-vl2 is bound by memory traffic (see ``mm.training.compilation``); a graph alone saves 3% of it on an
idle host. But the host also feeds rows and shares its cores with the renderers: captured once for each bucket shape, a
pass is one launch, and the optimizer's step is prepared while the device still works on it.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from mm.training.objective import Losses, StepObjective, TrainingBatch

_WARM_UP_PASSES = 2  # library handles and workspaces must exist before a capture


class Gradients:
    """Gradients of all parameters as views of one float32 vector, so that each operation on them is a single one.

    Args:
        parameters: all on one device; their ``grad`` is set here and must not be replaced afterwards.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), device=parameters[0].device)
        for parameter, piece in zip(parameters, self.flat.split(sizes), strict=True):
            parameter.grad = piece.view_as(parameter)

    def clip_(self, max_norm: float) -> Tensor:
        """Scales the gradients down to a total norm of at most ``max_norm``; returns the norm before, ()."""
        norm: Tensor = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    batch: TrainingBatch  # what a replay reads
    losses: Losses  # what it writes


class Passes:
    """Computes losses and leaves their gradients in ``gradients``, which are overwritten, not added to.

    Args:
        objective: in training mode, on its device.
        gradients: of the objective's parameters.
        autocast: bfloat16 autocast.
    """

    def __init__(self, objective: StepObjective, gradients: Gradients, *, autocast: bool) -> None:
        self._objective = objective
        self._gradients = gradients
        self._autocast = autocast
        self._weight = torch.zeros((), device=gradients.flat.device)
        self._captured: dict[int, _Captured] = {}

    def capture(self, batches: Sequence[TrainingBatch]) -> None:
        """Captures one graph a bucket; ``batches`` are blank rows of the buckets' shapes, on a CUDA device.

        All graphs share one pool of memory: one runs at a time, and what a replay wrote is read before the next.
        """
        stream = torch.cuda.Stream(self._weight.device)
        pool = torch.cuda.graph_pool_handle()
        for bucket, batch in enumerate(batches):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_PASSES):
                    self._run(batch)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # "thread_local": other threads (NCCL's watchdog) may query events meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                losses = self._run(batch)
            self._captured[bucket] = _Captured(graph, batch, losses)
        gc.collect()
        torch.cuda.empty_cache()  # what the warm-up passes took

    def __call__(self, bucket: int, batch: TrainingBatch, weight: float) -> Losses:
        """Losses of a batch of a bucket's shape; valid until the next call. ``weight`` goes to the objective."""
        self._weight.fill_(weight)
        captured = self._captured.get(bucket)
        if captured is None:
            return self._run(batch)
        for field in fields(TrainingBatch):
            getattr(captured.batch, field.name).copy_(getattr(batch, field.name))
        captured.graph.replay()
        return captured.losses

    def _run(self, batch: TrainingBatch) -> Losses:
        self._gradients.flat.zero_()
        with torch.autocast(self._weight.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            losses: Losses = self._objective(batch, self._weight)
        losses.total.backward()
        return replace(losses, total=losses.total.detach())
