"""One run on an output that is locked: what is to be done, and results in the order of the source, group by group."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mm.captioning.copies import find_copies
from mm.captioning.engines import open_engine
from mm.captioning.log import Log, Row, discard, encode, holds_a_row, replace_file
from mm.captioning.rows import copied
from mm.captioning.sinks import GROUP, LogOnly, Parts, Sidecars, Sink, Target, check_sidecars
from mm.captioning.sources import Item, Source
from mm.captioning.state import State, decide, load_state
from mm.captioning.supply import Supply
from mm.contracts import CancelToken
from mm.errors import ResourceError

if TYPE_CHECKING:
    from mm.captioning.engines import AnswerEngine
    from mm.captioning.job import Job, Progress, Summary
    from mm.pipeline import Pipeline

COMMIT_EVERY_S = 1.0
MOST_AHEAD = 512  # images that are done and wait for an earlier one


class Run:
    """Decides, asks, commits.

    Args:
        job: what to do.
        source: of its images.
        target: its output.
        pipe: the model, loaded, or None.
        on_progress: called after each commit.
        stop: ends the run early.
    """

    def __init__(
        self,
        job: "Job",
        source: Source,
        target: Target,
        pipe: "Pipeline | None",
        on_progress: "Callable[[Progress], None] | None",
        stop: CancelToken | None,
    ) -> None:
        self.job, self.source, self.target, self.pipe = job, source, target, pipe
        self.on_progress, self.stop = on_progress, stop
        self.identities = [item.id for item in source.items(with_data=False) if job.holds(item.id)]
        self.quarantine_path = target.state / "quarantine.jsonl"
        self.tokens = self.done = self.refused = 0
        self.busy = 0.0

    def run(self) -> "Summary":
        """From the decision what to do to the summary."""
        from mm.captioning.job import Summary

        job, target = self.job, self.target
        sidecars = Sidecars(target.path, appends=False, full_names=job.full_names)
        if target.format == "txt":
            check_sidecars(sidecars, self.identities)
        last, settings = load_state(target.state), job.settings()
        log_is_whole = last is not None or target.format in ("txt", "jsonl")
        if last is not None and not self._binds(last, settings):
            last = None
        action = decide(last, settings, job.mode, exists=self._exists(sidecars), log_is_whole=log_is_whole)
        for leftover in target.state.glob(".mm*.partial"):
            discard(leftover)
        self.log = Log(target.log)
        self.quarantine = Log(self.quarantine_path)
        engine: AnswerEngine | None = None
        try:
            done = self._done_before(action, last, sidecars)
            wanted = set(self.identities) - done
            if wanted:
                engine = open_engine(job, self.pipe, len(wanted))  # before anything is removed
            state = self._begin(action, last, settings)
            appends = state.mode == "append"
            if target.format == "txt":
                self.sink: Sink = Sidecars(target.path, appends=appends, full_names=job.full_names, tag=target.tag)
            elif target.format == "jsonl":
                self.sink = LogOnly()
            else:
                self.sink = Parts(target, self.log.rows, self._fetch)
            self.sink.restore(self.log.rows())
            started = time.monotonic()
            stopped = engine is not None and self._work(engine, wanted, state.start)
            if self.log.size or not stopped:  # no empty file where it was stopped before the first row
                self.sink.finish()
            quarantined = self._tidy_quarantine(state.start)
            if not stopped:
                replace(state, finished=True).save(target.state)
            return Summary(
                total=len(self.identities),
                done=self.done,
                skipped=len(self.identities) - len(wanted),
                quarantined=quarantined,
                seconds=time.monotonic() - started,
                tokens=self.tokens,
                busy=self.busy,
                interrupted=stopped,
                output=target.path,
                quarantine=self.quarantine_path,
            )
        finally:
            if engine is not None:
                engine.close()
            self.log.close()
            self.quarantine.close()

    def _binds(self, last: State, settings: dict[str, Any]) -> bool:
        """Whether this run has to do with the last one: it has written something, or this one can go on with it."""
        if last.settings == settings and self.job.mode in (None, "skip", last.mode):
            return True
        return holds_a_row(self.target.log, last.begun) or holds_a_row(self.quarantine_path)

    def _exists(self, sidecars: Sidecars) -> bool:
        """Whether there are results already."""
        target = self.target
        if target.format == "txt":
            return any(sidecars.path(identity).exists() for identity in self.identities)
        if target.format == "jsonl":
            return target.path.exists() and target.path.stat().st_size > 0
        return bool(target.parts())

    def _done_before(self, action: str, last: State | None, sidecars: Sidecars) -> set[str]:
        """Ids that this run does not ask."""
        if action in ("overwrite", "append"):
            return set()
        start = last.start if last is not None and not last.finished else 0
        done = {str(row.get("id")) for row in self.log.rows(start)}
        if self.target.format == "txt" and (last is None or last.mode == "skip" or last.finished):
            done |= {identity for identity in self.identities if sidecars.path(identity).exists()}
        held = {str(row["id"]) for row in self.quarantine.rows()} - done
        return set(self.identities) - held if self.job.retry_quarantined else done | held

    def _begin(self, action: str, last: State | None, settings: dict[str, Any]) -> State:
        """Make the record of this run. Cut off anywhere in here, the next run sees less done, not more."""
        if action == "continue" and last is not None:
            state = replace(last, settings=settings, finished=False)
        else:
            self.quarantine.clear()
            if action == "overwrite":
                for part in self.target.parts():
                    discard(part)
                self.log.clear()
            mode = {"new": self.job.mode or "new", "continue": "skip"}.get(action, action)
            start = self.log.size if action == "append" else 0
            state = State(settings=settings, mode=mode, start=start, begun=self.log.size, finished=False)
        state.save(self.target.state)
        return state

    def _fetch(self, identities: Iterable[str]) -> dict[str, Item]:
        wanted = set(identities)
        return {item.id: item for item in self.source.items() if item.id in wanted}

    def _work(self, engine: "AnswerEngine", wanted: set[str], start: int) -> bool:
        """Ask about every wanted image; whether it was stopped before the end."""
        copies: Mapping[str, str] = {}
        known: dict[str, Row] = {}  # rows that copies are made of, as far as there are
        if self.job.deduplicate:
            copies = find_copies(self.source, self.job, wanted, lambda: self.log.rows(start), known)
        originals = set(copies.values())
        supply = Supply(self.source.items(), wanted, copies=copies, stop=self.stop, most_ahead=MOST_AHEAD)
        ready: dict[int, Row] = {}
        last_commit = time.monotonic()

        def commit(*, least: int) -> None:
            """What is ready next in order, when it is so much."""
            nonlocal last_commit
            group: list[tuple[Item, Row]] = []
            while (number := supply.num_committed + len(group)) in supply.pending:
                item = supply.pending[number]
                row = ready.get(number)
                if row is None and item.id in copies and copies[item.id] in known:
                    row = copied(known[copies[item.id]], item.id)
                if row is None:
                    break
                if item.id in originals:
                    known[item.id] = row
                group.append((item, row))
            if len(group) < least:
                return
            for first in range(0, len(group), GROUP):
                part = group[first : first + GROUP]
                self._commit(part, supply.total)
                for _ in part:
                    supply.pending.pop(supply.num_committed)
                    ready.pop(supply.num_committed, None)
                    supply.num_committed += 1
            last_commit = time.monotonic()

        with closing(engine.answer(supply)) as outcomes:
            for outcome in outcomes:
                if outcome is not None:
                    ready[outcome.number] = outcome.row
                late = time.monotonic() - last_commit > COMMIT_EVERY_S
                if late or supply.num_taken - supply.num_committed >= GROUP:
                    commit(least=1 if late else GROUP)
        commit(least=1)
        self.busy = engine.busy
        if supply.num_committed < supply.num_taken and not supply.stopped:
            raise ResourceError(
                f"{supply.num_taken - supply.num_committed} images were handed out and came back without a result. "
                "What was committed before is kept: run the same command again"
            )
        return supply.num_committed < supply.total and supply.stopped

    def _commit(self, group: list[tuple[Item, Row]], total: int) -> None:
        from mm.captioning.job import Progress

        good = [(item, self.sink.extend(row, item)) for item, row in group if row["error"] is None]
        bad = [row for _, row in group if row["error"] is not None]
        self.log.append([row for _, row in good])
        self.sink.apply([row for _, row in good], {item.id: item for item, _ in good})
        self.quarantine.append(bad)
        self.done += len(good)
        self.refused += len(bad)
        self.tokens += sum(row["completion_tokens"] for _, row in good if "copy_of" not in row)
        if self.on_progress is not None:
            self.on_progress(Progress(done=self.done, quarantined=self.refused, total=total))

    def _tidy_quarantine(self, start: int) -> dict[str, int]:
        """Leave one line for each image that has no result; count them by reason."""
        rows = {str(row["id"]): row for row in self.quarantine.rows()}
        if rows:
            good = {str(row.get("id")) for row in self.log.rows(start)}
            kept = [row for identity, row in rows.items() if identity not in good]
            replace_file(self.quarantine_path, b"".join(map(encode, kept)))
            return dict(Counter(str(row["error"]).partition(":")[0] for row in kept))
        return {}
