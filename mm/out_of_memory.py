"""Out of memory, turned into an error that says what would fit."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mm.config import Quantization
from mm.devices import is_out_of_memory
from mm.environment import device_memory
from mm.errors import ResourceError
from mm.generation.slots import CacheMemoryError

if TYPE_CHECKING:
    from mm.planner import Workload  # at run time only where something has failed: every run passes through this module

GIB = 2**30


@contextmanager
def explained(message: Callable[[], str]) -> Iterator[None]:
    """Turn a failed allocation inside the block into a ResourceError with ``message()``."""
    try:
        yield
    except CacheMemoryError:
        raise ResourceError(message()) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the run that failed
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise ResourceError(message()) from None


def run_message(
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    work: "Workload",
    quantization: Quantization | None = None,
) -> str:
    """Why a run did not fit, and the largest change of options that would.

    Args:
        folder: the model's folder; None when the model did not come from one.
        device: where it ran.
        dtype: of the weights.
        work: what was run.
        quantization: of the weights.
    """
    text = (
        f"out of memory on {device} while answering {work.batch} prompt{'s' * (work.batch > 1)} with {work.images} "
        f"image{'s' * (work.images != 1)} and up to {work.max_new_tokens:,} new tokens each"
    )
    if folder is None:
        return f"{text}. Use a smaller batch, max_tiles or max_new_tokens."
    from mm.planner import Planner

    planner, free = Planner(folder, quantization), device_memory(str(device)).available

    def needed(work: "Workload") -> int:
        peak = planner.peak(work, dtype, device.type)
        return peak.cache + peak.activations

    text += f": about {needed(work) / GIB:.1f} GiB beside the weights, {free / GIB:.1f} GiB are free."
    for option, value, smaller in _smaller(work):
        if needed(smaller) <= free:
            return f"{text} What would fit: {option}={value}."
    return f"{text} No smaller batch, max_tiles or max_new_tokens would fit; use a smaller model or dtype='bfloat16'."


def _smaller(work: "Workload") -> Iterator[tuple[str, int, "Workload"]]:
    """Changes in the order of what they cost the user, each on its own, the least change first."""
    for batch in _halves(work.batch, 1):
        yield "batch_size", batch, replace(work, batch=batch)
    if work.images:
        for tiles in _halves(work.max_tiles or 16, 1):
            yield "max_tiles", tiles, replace(work, max_tiles=tiles)
    for tokens in _halves(work.max_new_tokens, 16):
        yield "max_new_tokens", tokens, replace(work, max_new_tokens=tokens)


def _halves(value: int, least: int) -> Iterator[int]:
    while value // 2 >= least:
        value //= 2
        yield value


def load_message(
    name: str, folder: Path, device: torch.device, dtype: torch.dtype, quantization: Quantization | None = None
) -> str:
    """Why a model could not be loaded, and what would fit."""
    from mm.families.table import load_config
    from mm.transforms.split import part_sizes

    config, free = load_config(folder), device_memory(str(device)).available
    size = part_sizes(config, dtype, quantization).total
    kind = "" if quantization is None else f" and {quantization}"
    text = (
        f"out of memory while loading {name} on {device}: its weights take {size / GIB:.1f} GiB in "
        f"{str(dtype).removeprefix('torch.')}{kind}, {free / GIB:.1f} GiB are free."
    )
    others: list[tuple[torch.dtype, Quantization | None]] = [(torch.bfloat16, quantization)] * (dtype.itemsize > 2)
    if quantization is None:
        others += [(torch.bfloat16, "int8")]
    if quantization != "int4":
        others += [(torch.bfloat16, "int4")]
    for number, other in others:  # in the order of what they cost
        smaller = part_sizes(config, number, other).total
        if smaller <= free:
            options = ["dtype='bfloat16'"] * (number != dtype) + [f"quantization={other!r}"] * (other != quantization)
            return f"{text} What would fit: {', '.join(options)} ({smaller / GIB:.1f} GiB)."
    return f"{text} Free some memory, or use a smaller model: 'mm plan MODEL' says what each needs."
