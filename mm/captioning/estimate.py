"""What a run would have to do, and how long it would take, without writing anything."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mm.captioning.ledger import Run
from mm.captioning.sinks import Sidecars, Target, check_sidecars, find_target, make_folders
from mm.captioning.sources import Source

if TYPE_CHECKING:
    from mm.captioning.job import Job, Summary
    from mm.pipeline import Pipeline

SAMPLE = 8  # images that are tried


def dry_run(job: "Job", source: Source, target: Target, pipe: "Pipeline | None") -> "Summary":
    """Counts, and an estimate from a few images spread over the source. Nothing is written."""
    from mm.captioning.job import Summary

    identities = [item.id for item in source.items(with_data=False) if job.holds(item.id)]
    sidecars = Sidecars(target.path, appends=False, full_names=job.full_names)
    if target.format == "txt":
        check_sidecars(sidecars, identities)
    done: set[str] = set()
    if job.mode in (None, "skip"):
        done = set(_logged(target))
        if target.format == "txt":
            done |= {identity for identity in identities if sidecars.path(identity).exists()}
    wanted = [identity for identity in identities if identity not in done]
    chosen = set(wanted[:: max(1, len(wanted) // SAMPLE)][:SAMPLE])
    seconds, tokens, busy, quarantined = 0.0, 0, 0.0, {}
    if chosen:
        sample = replace(
            source, list_items=lambda data: (item for item in source.list_items(data) if item.id in chosen)
        )
        with TemporaryDirectory() as folder:
            trial = replace(job, output=str(Path(folder) / "rows.jsonl"), format=None, mode=None, shard=(1, 1))
            place = find_target(trial.output, None, (1, 1))
            make_folders(place)
            tried = Run(trial, sample, place, pipe, None, None).run()
        seconds, tokens, busy, quarantined = tried.seconds, tried.tokens, tried.busy, tried.quarantined
    return Summary(
        total=len(identities),
        done=0,
        skipped=len(identities) - len(wanted),
        quarantined=quarantined,
        seconds=seconds,
        tokens=tokens,
        busy=busy,
        interrupted=False,
        output=target.path,
        quarantine=target.state / "quarantine.jsonl",
        estimate=seconds / len(chosen) * len(wanted) if chosen else 0.0,
    )


def _logged(target: Target) -> Iterator[str]:
    """Ids in the log of an output, read without changing it."""
    for path in (target.log, target.state / "quarantine.jsonl"):
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield str(json.loads(line).get("id"))
