"""Finds where a decode step on a GPU waits for what runs there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mm.generation.scheduler import Scheduler


@contextmanager
def host_waits(scheduler: Scheduler) -> Iterator[list[str]]:
    """A list that receives the message of each wait in a decode step; the step that waits fails.

    For an engine without graphs: to record one waits. Choices are read back between the steps, which has to wait.
    """
    waits: list[str] = []
    decode = scheduler._decode

    def watched() -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            decode()
        except RuntimeError as error:
            waits.append(str(error))
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    scheduler._decode = watched  # type: ignore[method-assign]
    yield waits
