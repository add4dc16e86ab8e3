"""What a run tells: one line every few seconds, the same and more as JSON lines, and the loss curve."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.training.objective import Losses


class Report:
    """Gathers losses on the device and reads them back only when a line is due.

    Args:
        folder: where ``train_log.jsonl`` and ``curve.json`` go; None on ranks that do not report.
        kinds: names of the sample kinds.
        reported: names of the losses to report.
        device: of the losses.
        say: takes each line of text.
    """

    def __init__(
        self,
        folder: Path | None,
        kinds: tuple[str, ...],
        reported: tuple[str, ...],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._kinds = kinds
        self._reported = reported
        self._say = say
        self._sums = torch.zeros(len(reported) + 1, device=device)
        self._by_kind = torch.zeros(len(kinds), 4, device=device)  # rows with answers, their loss, tokens, wrong tokens
        self.steps = 0
        self._rows = 0
        self._since = time.monotonic()
        self.curve: list[dict[str, Any]] = []

    @torch.no_grad()
    def add(self, losses: Losses, kinds: Tensor, grad_norm: Tensor) -> None:
        """Adds one step; nothing is read back from the device."""
        self._sums += torch.stack([*(getattr(losses, name) for name in self._reported), grad_norm]).float()
        has_answer = (losses.row_tokens > 0).float()
        wrong = losses.wrong.flatten(1).sum(dim=1)
        columns = torch.stack((has_answer, losses.row_loss, losses.row_tokens, wrong), dim=1)
        self._by_kind.index_add_(0, kinds, columns.float())
        self.steps += 1
        self._rows += kinds.shape[0]

    @property
    def seconds(self) -> float:
        """Time since the last line."""
        return time.monotonic() - self._since

    def flush(self, facts: dict[str, Any], loads: Tensor) -> dict[str, Any]:
        """Writes a line and starts afresh.

        Args:
            facts: step, progress, learning rate and so on; ``world`` scales the rows a second.
            loads: (L, E) tokens per expert and MoE layer since the last line.

        Returns:
            The record. The first reported loss is not a number when training diverged.
        """
        sums = (self._sums / max(self.steps, 1)).tolist()
        seconds = max(self.seconds, 1e-9)
        shares = (loads / loads.sum(dim=1, keepdim=True).clamp(min=1)).cpu()  # (L, E)
        record = {
            **facts,
            **dict(zip((*self._reported, "grad_norm"), sums, strict=True)),
            "steps_per_second": self.steps / seconds,
            "samples_per_second": self._rows * facts["world"] / seconds,
            "expert_share": [float(shares.min()), float(shares.max())] if shares.numel() else [1.0, 1.0],
            "kinds": {
                name: {"rows": int(rows), "loss": loss / rows, "token_error": wrong / max(tokens, 1)}
                for name, (rows, loss, tokens, wrong) in zip(self._kinds, self._by_kind.tolist(), strict=True)
                if rows
            },
        }
        self._sums.zero_()
        self._by_kind.zero_()
        self.steps = self._rows = 0
        self._since = time.monotonic()
        if self._folder is not None:
            self.curve.append({key: record[key] for key in ("step", "seconds", "progress", "lr", *self._reported)})
            with (self._folder / "train_log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            self._say(_line(record, self._reported))
        return record

    def save_curve(self) -> None:
        """Writes the loss curve as JSON."""
        if self._folder is not None:
            (self._folder / "curve.json").write_text(json.dumps(self.curve), encoding="utf-8")


def _line(record: dict[str, Any], reported: tuple[str, ...]) -> str:
    kinds = " ".join(f"{name} {values['token_error']:.3f}" for name, values in record["kinds"].items())
    losses = " ".join(f"{name} {record[name]:.4f}" for name in reported)
    low, high = record["expert_share"]
    return (
        f"step {record['step']} {100 * record['progress']:.1f}% {record['seconds']:.0f}s lr {record['lr']:.2f} "
        f"{losses} "
        f"norm {record['grad_norm']:.2f} | {record['steps_per_second']:.1f} steps/s "
        f"{record['samples_per_second']:.0f} rows/s reuse {record['reuse']:.2f} wait {record['wait_share']:.3f} "
        f"experts {low:.3f}-{high:.3f} | {kinds}"
    )
