"""One process of a run: how long, where to, and how it is stopped."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm.errors import ResourceError
from mm.hub import bundled_models
from mm.training.ranks import Ranks
from mm.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Session:
    """How this process is run; the recipe says what is trained."""

    out: Path  # receives weights, log and curve; must not hold weights yet
    state: Path | None = None  # resumes from here when a state is there, and saves here
    warm_start: Path | None = None  # a model folder to begin from instead of fresh weights
    session_seconds: float | None = None  # this process ends within so many seconds
    finish: bool = True  # whether the rest of the schedule is fitted into session_seconds
    device: str = "auto"


def model_folder(name: str) -> Path:
    """The folder of a bundled model's name; any other name is a folder."""
    bundled = bundled_models()
    return bundled[name] if name in bundled else Path(name)


def num_workers(recipe: Recipe, ranks: Ranks) -> int:
    """Renderer processes of this rank: the recipe's, or its share of the cores but two."""
    if recipe.data.workers is not None:
        return recipe.data.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.world - 2)


def check_folder(out: Path) -> None:
    """Fails before any work when the result could not be saved."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
        present = [path.name for path in out.iterdir() if path.suffix in (".safetensors", ".bin")]
    except OSError as error:
        raise ResourceError(f"cannot write to {out} ({error.strerror}). Choose another --out folder.") from error
    if present:
        raise ResourceError(f"{out} already holds weights ({present[0]}). Choose an empty --out folder.")


class RunAhead:
    """Keeps the host at most two steps ahead of the device, so that times are true and memory is bounded."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[Any] = []

    def wait(self) -> None:
        """Call once a step, after its last launch."""
        if self._cuda:
            event = torch.cuda.Event()
            event.record()
            self._events.append(event)
            if len(self._events) > 2:
                self._events.pop(0).synchronize()


class Flag:
    """Set by a signal."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Asks the loop to stop."""
        self._set = True

    def is_set(self) -> bool:
        """Whether the loop was asked to stop."""
        return self._set


@contextmanager
def stop_signals() -> Iterator[Flag]:
    """Ctrl-C and SIGTERM ask the loop to stop at the next block; a second Ctrl-C interrupts at once."""
    flag = Flag()

    def ask(number: int, frame: Any) -> None:
        if flag.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    old: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: whoever runs us handles signals
        pass
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
