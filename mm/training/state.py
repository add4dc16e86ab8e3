"""What a run must remember: progress, weights, optimizer state and the running average, in one local file."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from mm.errors import ResourceError, WeightsError
from mm.families.table import load_model
from mm.training.objective import StepObjective
from mm.whole_file import replacing

STATE_FILE = "state.pt"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    done: float = 0.0  # share of the schedule, 0..1
    seconds: float = 0.0  # spent in the training loop
    rows: int = 0  # rows trained on, all ranks together


class Average:
    """Exponential moving average of all trained parameters, in float32.

    Early on the average forgets faster (decay (1 + n) / (10 + n) after n updates), so that it never holds the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights after ``step`` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the weights."""
        for value, parameter in zip(self.values, self._parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


def save_state(
    folder: Path,
    progress: Progress,
    objective: StepObjective,
    optimizers: Iterable[torch.optim.Optimizer],
    average: Average | None,
) -> None:
    """Writes the state beside the old one, then replaces it, so that a killed run leaves a whole file.

    Raises:
        ResourceError: the folder cannot be written.
    """
    state = {
        "progress": dataclasses.asdict(progress),
        "weights": objective.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "average": None if average is None else average.values,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / STATE_FILE, folder / f"{STATE_FILE}.new") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise ResourceError(f"cannot save the training state to {folder} ({error}). Choose another --state.") from error


def load_state(
    folder: Path,
    objective: StepObjective,
    optimizers: Iterable[torch.optim.Optimizer],
    average: Average | None,
    device: torch.device,
) -> Progress:
    """Restores everything that ``save_state`` wrote.

    Raises:
        WeightsError: the file is damaged or holds more than tensors and numbers, or belongs to another model, or to a
            run with other optimizers or without the average.
    """
    path = folder / STATE_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        objective.load_state_dict(state["weights"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if average is not None:
            values: list[Tensor] = state["average"]
            for value, saved_value in zip(average.values, values, strict=True):
                value.copy_(saved_value)
        return Progress(**state["progress"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError) as error:
        raise WeightsError(
            f"{path} does not fit this run ({shorten(str(error), 200)}). Resume with the recipe that wrote it, or name "
            "another --state."
        ) from error


def load_weights_from(folder: Path, objective: StepObjective) -> None:
    """Copies the weights of a model folder; heads that only training has, which folders do not hold, start fresh.

    Raises:
        WeightsError: the folder's model has other shapes.
    """
    weights = load_model(folder, device="cpu", dtype=torch.float32).state_dict()
    try:
        objective.model.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{folder} is not the model of this recipe: {shorten(str(error), 200)}") from error
