"""Run a recorded case and say, field by field, whether this install computes what the official code computed.

    report = verify("path/to/case")       # or verify() for the small case in the package
    report.passed, report.rows, report.fields(), report.to_dict()

Bytes, ids, masks, texts, greedy tokens and image codes must be equal. Features may be 5e-5 apart, decoded pixels 1e-4
and logits 2e-4: float32 against float64 of the official code differs by at most 7e-6, 2e-5 and 3e-5, and the smallest
true mistake moves logits by 1e-3 (README of the recorded cases, "Tolerances"). Latents and velocities of a flow may
be 5e-5 apart and the pixels of its autoencoder 5e-4, of which the official code's own rounding is 6e-6 and 1e-4.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm.errors import InputError
from mm.evaluation.compare import Row
from mm.evaluation.recording import Recording
from mm.registry import Registry

# "family" of a cases.json -> (recording, device, progress) -> rows. A later family adds its table of fields here.
VERIFIERS = Registry(
    "family of recorded cases",
    {
        "deepseek_vl": "mm.evaluation.verify_vl:verify_vl",
        "deepseek_vl2": "mm.evaluation.verify_vl2:verify_vl2",
        "janus_pro": "mm.evaluation.verify_janus:verify_janus",
        "janusflow": "mm.evaluation.verify_janusflow:verify_janusflow",
        "vlm_image_processor": "mm.evaluation.verify_vlm_images:verify_vlm_images",
        "vl2_processor": "mm.evaluation.verify_vl2_processor:verify_vl2_processor",
    },
)

BUNDLED = Path(__file__).parent / "cases" / "deepseek_vl2_grouplimited_softmax"
BUNDLED_NOTICE = (
    "This ran a small recorded case that is part of the package. It proves the install: the same numbers as the "
    "official code from the same small checkpoint. It proves nothing about the weights of any other model."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``verify`` found.

    Attributes:
        case: the folder that was run.
        family: of the recording.
        rows: one per field and conversation.
        notice: what the result does and does not prove; empty for a case that the caller named.
        seconds: wall time.
    """

    case: str
    family: str
    rows: tuple[Row, ...]
    notice: str
    seconds: float

    @property
    def passed(self) -> bool:
        """No row differs, and at least one was compared."""
        return all(row.verdict != "differs" for row in self.rows) and any(row.verdict == "ok" for row in self.rows)

    def fields(self) -> tuple[Row, ...]:
        """One row a field: the worst one over all conversations, with their number in the note."""
        worst: dict[str, list[Row]] = {}
        for row in self.rows:
            worst.setdefault(row.field, []).append(row)
        return tuple(_summary(rows) for rows in worst.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: passed, case, family, notice, seconds, and rows with case, field, recorded, ours,
        difference, limit, verdict, note (difference null: not a number or another shape)."""
        return {
            "passed": self.passed,
            "case": self.case,
            "family": self.family,
            "notice": self.notice,
            "seconds": round(self.seconds, 3),
            "rows": [row.to_dict() for row in self.rows],
        }


def _summary(rows: list[Row]) -> Row:
    """The row that says most about all of them: a failure before a pass, then the largest difference."""
    failed = [row for row in rows if row.verdict == "differs"]
    candidates = failed or [row for row in rows if row.verdict == "ok"] or rows
    worst = max(candidates, key=lambda row: math.inf if row.difference is None else row.difference)
    counted = f"{len(rows) - len(failed)} of {len(rows)}" if len(rows) > 1 else ""
    return replace(worst, note="; ".join(part for part in (counted, worst.note) if part))


def verify(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a recorded case in float32 and compare everything that it recorded.

    Args:
        path: a case folder; None runs the small case in the package.
        device: where the model runs, with the settings that every user of the model has.
        progress: called with what is being done now.

    Raises:
        InputError: the folder is not a recorded case of a known family, or is damaged.
        CheckpointError: its checkpoint cannot be loaded.
    """
    start = time.perf_counter()
    recording = Recording(BUNDLED if path is None else Path(path))
    if recording.family not in VERIFIERS.names():
        raise InputError(
            f"{recording.folder} records the family {recording.family!r}; this version verifies "
            f"{', '.join(VERIFIERS.names())}"
        )
    run = VERIFIERS.load(recording.family)
    rows = tuple(run(recording, device, progress))
    return Report(
        case=str(recording.folder),
        family=recording.family,
        rows=rows,
        notice=BUNDLED_NOTICE if path is None else "",
        seconds=time.perf_counter() - start,
    )


def verify_case(folder: str | os.PathLike[str], *, device: str = "cpu") -> list[Row]:
    """The rows of ``verify`` for one folder."""
    return list(verify(folder, device=device).rows)


def verify_bundled(*, device: str = "cpu") -> Report:
    """``verify`` of the case in the package."""
    return verify(None, device=device)
