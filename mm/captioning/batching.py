"""How many answers run together, on how many engines, and which image is next."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from mm.environment import device_memory
from mm.pipeline import SINGLE_THREAD_BYTES
from mm.planner import Planner, Workload
from mm.preparing import DEFAULT_MAX_NEW_TOKENS
from mm.transforms.quantize import quantization_of
from mm.transforms.split import weight_bytes

if TYPE_CHECKING:
    from mm.captioning.job import Job
    from mm.pipeline import Pipeline

# Where more rows stop paying. A decode step of the bundled model takes 0.95 ms a row with 8 rows and 0.73 ms with 16
# (one core, 512 positions); an accelerator goes on gaining until prompts are what it spends its time with.
MOST_TOGETHER_CPU = 16
MOST_TOGETHER = 128
MEMORY_SHARE = 0.8  # of what is free
MOST_ENGINES = 4  # in one process: their Python takes turns


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engines_for(model: nn.Module, device: torch.device, num_images: int) -> int:
    """Engines of one process that share the weights of a model.

    One for an accelerator, and for a model whose decode step uses all cores. A small model's step runs on one core
    (``mm.pipeline.SINGLE_THREAD_BYTES``): with one engine the others would wait for it. Never more than
    ``torch.get_num_threads()``, which is the user's wish.
    """
    decoder = model.get_submodule("decoder")
    if device.type != "cpu" or weight_bytes(decoder) >= SINGLE_THREAD_BYTES:
        return 1
    return max(1, min(torch.get_num_threads(), cores(), MOST_ENGINES, num_images))


def batch_size(pipe: "Pipeline", job: "Job", engines: int) -> int:
    """Answers that run together: as many as the free memory holds of the largest images, within what pays.

    Counted by ``mm.planner.Planner``: cache, embeddings, activations and quantised weights made
    wide, beside the weights that are loaded already.
    """
    most = MOST_TOGETHER_CPU * engines if pipe.model.device.type == "cpu" else MOST_TOGETHER
    assert pipe.folder is not None
    planner = Planner(pipe.folder, quantization_of(pipe.model.decoder))
    free = MEMORY_SHARE * device_memory(str(pipe.model.device)).available
    wanted = job.sampling.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    while most > 1:
        work = Workload(max_new_tokens=min(wanted, pipe.context), batch=most, max_tiles=job.max_tiles)
        tokens = min(planner.tokens(work), pipe.context)
        cache = most * tokens * planner.cache_bytes_per_token(pipe.model.dtype)
        activations = planner.activations(work, pipe.model.dtype, pipe.model.device.type, bulk=True)
        if cache + engines * activations <= free:
            break
        most //= 2
    return most


class Sweep:
    """Chooses the next image so that those of like length run together: a step reads as many positions of every row as
    the longest one has. Goes up through the lengths that wait, then down, so that none waits for ever."""

    def __init__(self) -> None:
        self._level = 0
        self._rising = True

    def choose(self, lengths: Sequence[int]) -> int:
        """The place of the next one among those that wait.

        Args:
            lengths: tokens of their prompts, at least one; of equal ones the first is taken.
        """
        for _ in range(2):
            ahead = [
                index
                for index, length in enumerate(lengths)
                if (length >= self._level if self._rising else length <= self._level)
            ]
            if ahead:
                place = min(ahead, key=lambda index: abs(lengths[index] - self._level))
                self._level = lengths[place]
                return place
            self._rising = not self._rising
        raise AssertionError("some length lies on one side")
