"""One run over many images: from a source to an output, resumable after any end.

    from mm.captioning import Job, run
    summary = run(Job("photos", "captions.jsonl"))

The order of things makes it safe. Results are committed in the order of the source, a group at a time: rows to the log
(written, synced), then the files that a sink derives from them. What is in the log or in the quarantine is done; what
is not is asked again by the next run. Nothing is in both.
"""

import hashlib
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from mm.captioning.log import Log, Row, cannot_write, encode, replace_file
from mm.captioning.prepare import Prepared, Preparer, RefusedError, Workers
from mm.captioning.sinks import (
    GROUP,
    Format,
    LogOnly,
    Parts,
    Sidecars,
    Sink,
    Target,
    check_sidecars,
    find_target,
    make_folders,
)
from mm.captioning.sources import Item, Source, open_source
from mm.captioning.state import Lock, Mode, State, decide, load_state
from mm.captioning.tasks import Task
from mm.contracts import CancelToken
from mm.errors import OptionError
from mm.generation.sampling import SamplingOptions

if TYPE_CHECKING:
    from mm.captioning.answers import Answer
    from mm.pipeline import Pipeline

COMMIT_EVERY_S = 1.0
_SAMPLE = 8  # images that a dry run tries, for its estimate


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. ``total`` is what this run has to do."""

    done: int
    quarantined: int
    total: int


@dataclass(frozen=True)
class Job:
    """What a run is to do.

    Args:
        source: see ``mm.captioning.sources.open_source``.
        output: a folder (sidecars or parts), or a .jsonl, .parquet or .tar file.
        format: "txt", "jsonl", "parquet" or "webdataset"; None takes what the output's name says, "txt" for a folder.
        mode: what to do with results that are there: "skip", "overwrite" or "append"; None goes on with a run of the
            same settings and refuses anything else.
        task: what is asked.
        model: as for ``Pipeline.from_pretrained``, with revision, device, dtype, context.
        sampling: of every answer.
        max_tiles: most tiles an image is cut into.
        system: a system prompt.
        batch_size: answers that run together at most.
        workers: processes that open and resize images; None takes half of the cores, 0 none.
        timeout: most seconds to open an image, and for its answer.
        shard: (i, n): only the i-th of n parts of the source, with an output of its own; i from 1 to n.
        retry_quarantined: only what is in the quarantine.
        full_names: sidecars are named "a.jpg.txt".

    Raises:
        OptionError: a value out of its range.
    """

    source: str
    output: str
    format: Format | None = None
    mode: Mode | None = None
    task: Task = field(default_factory=Task)
    model: str = "nano-vl2"
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    context: int | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tiles: int | None = None
    system: str | None = None
    batch_size: int = 16
    workers: int | None = None
    timeout: float = 300.0
    shard: tuple[int, int] = (1, 1)
    retry_quarantined: bool = False
    full_names: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("max_tiles", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (value is None and name != "batch_size"):
                raise OptionError(f"{name} is {value!r}; expected a whole number of {least} or more")
        if not 0 < self.timeout < math.inf:
            raise OptionError(f"timeout is {self.timeout!r}; expected a number of seconds above 0")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise OptionError(f"shard is {self.shard[0]}/{self.shard[1]}; expected i/n with i from 1 to n")

    def settings(self) -> dict[str, Any]:
        """Everything that the texts depend on, for the record of a run."""
        import json

        task = {name: getattr(self.task, name) for name in self.task.__dataclass_fields__}
        sampling = {name: getattr(self.sampling, name) for name in self.sampling.__dataclass_fields__}
        names = ("source", "model", "revision", "dtype", "context", "max_tiles", "system", "shard", "full_names")
        values = {"task": task, "sampling": sampling, **{name: getattr(self, name) for name in names}}
        plain: dict[str, Any] = json.loads(encode(values))  # tuples are lists, as they will be read
        return plain


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        total: images of the source (of this shard).
        done: results that this run wrote.
        skipped: images that had a result, or were in the quarantine.
        quarantined: images in the quarantine now, by reason.
        seconds: of the run, without loading the model.
        tokens: of the answers.
        busy: share of the time in which the model had work.
        interrupted: it was stopped; the same job goes on with it.
        output: where the results are.
        quarantine: file of what got none.
        estimate: seconds that the whole would take; of a dry run.
    """

    total: int
    done: int
    skipped: int
    quarantined: dict[str, int]
    seconds: float
    tokens: int
    busy: float
    interrupted: bool
    output: Path
    quarantine: Path
    estimate: float | None = None

    @property
    def exit_status(self) -> int:
        """0: all done; 3: something is in the quarantine; 130: interrupted."""
        return 130 if self.interrupted else 3 if self.quarantined else 0


def run(
    job: Job,
    *,
    pipe: "Pipeline | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: CancelToken | None = None,
    dry_run: bool = False,
) -> Summary:
    """Do a job, or go on with it.

    Args:
        job: what to do.
        pipe: the model, loaded; None loads ``job.model`` once it is clear that there is work.
        on_progress: called after each commit.
        stop: once it says True, what the model has in hand is finished and saved, and the call returns.
        dry_run: write nothing; count, and try a few images for an estimate of the time.

    Raises:
        InputError: the source or the output cannot be used so; before the model is loaded.
        ResourceError: the disk, the memory or another run is in the way. What was committed is kept.
    """
    source = open_source(job.source)
    target = find_target(job.output, job.format, job.shard)
    if dry_run:
        return _dry_run(job, source, target, pipe)
    make_folders(target)
    lock = Lock(target.state)
    try:
        return _Run(job, source, target, pipe, on_progress, stop).run()
    finally:
        lock.release()


def _of_shard(identity: str, shard: tuple[int, int]) -> bool:
    """Whether an image belongs to a shard: by its id alone, so that new images move no others."""
    if shard[1] == 1:
        return True
    digest = hashlib.blake2b(identity.encode("utf-8", errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) % shard[1] == shard[0] - 1


def _load(job: Job) -> "Pipeline":
    from mm.pipeline import Pipeline

    return Pipeline.from_pretrained(
        job.model,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        context=job.context,
        max_running=job.batch_size,
    )


class _Run:
    """One run, with its output locked."""

    def __init__(
        self,
        job: Job,
        source: Source,
        target: Target,
        pipe: "Pipeline | None",
        on_progress: Callable[[Progress], None] | None,
        stop: CancelToken | None,
    ) -> None:
        self.job, self.source, self.target, self.pipe = job, source, target, pipe
        self.on_progress, self.stop = on_progress, stop
        self.identities = [item.id for item in source.items(with_data=False) if _of_shard(item.id, job.shard)]
        self.quarantine_path = target.state / "quarantine.jsonl"
        self.tokens = self.done = self.refused = 0
        self.busy = 0.0

    def run(self) -> Summary:
        """From the decision what to do to the summary."""
        job, target = self.job, self.target
        sidecars = Sidecars(target.path, appends=False, full_names=job.full_names)
        if target.format == "txt":
            check_sidecars(sidecars, self.identities)
        last, settings = load_state(target.state), job.settings()
        action = decide(
            last, settings, job.mode, exists=self._exists(sidecars), log_is_whole=target.format in ("txt", "jsonl")
        )
        self.log = Log(target.log)
        self.quarantine = Log(self.quarantine_path)
        try:
            done = self._done_before(action, last, sidecars)
            wanted = set(self.identities) - done
            if wanted and self.pipe is None:
                self.pipe = _load(job)  # before anything is removed
            if self.pipe is not None and self.pipe.folder is None:
                raise OptionError("the pipeline was not loaded from files, which its workers need. Save it and load it")
            state = self._begin(action, last, settings)
            appends = state.mode == "append"
            if target.format == "txt":
                self.sink: Sink = Sidecars(target.path, appends=appends, full_names=job.full_names)
            elif target.format == "jsonl":
                self.sink = LogOnly()
            else:
                self.sink = Parts(target, self.log.rows, self._fetch)
            self.sink.restore(self.log.rows())
            started = time.monotonic()
            stopped = bool(wanted) and self._work(wanted)
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
            self.log.close()
            self.quarantine.close()

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
                    try:
                        part.unlink()
                    except OSError as error:
                        raise cannot_write(part, error) from error
                self.log.clear()
            mode = {"new": self.job.mode or "new", "continue": "skip"}.get(action, action)
            start = self.log.size if action == "append" else 0
            state = State(settings=settings, mode=mode, start=start, finished=False)
        state.save(self.target.state)
        return state

    def _fetch(self, identities: Iterable[str]) -> dict[str, Item]:
        wanted = set(identities)
        return {item.id: item for item in self.source.items() if item.id in wanted}

    def _work(self, wanted: set[str]) -> bool:
        """Ask about every wanted image; whether it was stopped before the end."""
        from mm.captioning.answers import Answer, Asker

        assert self.pipe is not None and self.pipe.folder is not None
        job = self.job
        count = max(1, min(8, _cores() // 2)) if job.workers is None else job.workers
        preparer = Preparer(folder=self.pipe.folder, task=job.task, max_tiles=job.max_tiles, system=job.system)
        workers = Workers(preparer, count, job.timeout)
        events: SimpleQueue[Answer | None] = SimpleQueue()  # None: an image is prepared
        asker = Asker(self.pipe, job.task, job.sampling, job.timeout, events.put)
        items = (item for item in self.source.items() if item.id in wanted)
        waiting: deque[tuple[int, Item, Future[Prepared]]] = deque()
        ready: dict[int, tuple[Item, Row]] = {}
        together = job.batch_size + max(1, job.batch_size // 4)  # the engine never waits for the next one
        number = committed = 0
        last_commit = started = now = time.monotonic()
        idle, more, stopped = 0.0, True, False

        def refuse(index: int, item: Item, refusal: RefusedError) -> None:
            ready[index] = (item, {"id": item.id, **self._origin(), "error": f"{refusal.reason}: {refusal}"})

        try:
            while True:
                if not stopped and self.stop is not None and self.stop.is_set():
                    stopped, more = True, False
                    waiting.clear()  # the rest is committed: what the engine has is the beginning of what is left
                while more and len(waiting) < together and number - committed < 16 * together:
                    item = next(items, None)
                    if item is None:
                        more = False
                        break
                    future = workers.submit(item)
                    future.add_done_callback(lambda _: events.put(None))
                    waiting.append((number, item, future))
                    number += 1
                while waiting and waiting[0][2].done() and len(asker.running) < together:
                    index, item, future = waiting.popleft()
                    try:
                        asker.ask(Answer(number=index, item=item, prepared=future.result(), started=time.monotonic()))
                    except RefusedError as refusal:
                        refuse(index, item, refusal)
                was_idle = not asker.running
                if asker.running or waiting:
                    answer = _next(events)
                    idle, now = idle + (time.monotonic() - now if was_idle else 0.0), time.monotonic()
                    if answer is not None:
                        try:
                            if asker.judge(answer):
                                ready[answer.number] = (answer.item, self._row(answer))
                        except RefusedError as refusal:
                            refuse(answer.number, answer.item, refusal)
                    asker.end_late()
                over = not asker.running and not waiting and not more
                group = 0
                while committed + group in ready:
                    group += 1
                if group and (over or group >= GROUP or now - last_commit > COMMIT_EVERY_S):
                    for first in range(committed, committed + group, GROUP):
                        last = min(first + GROUP, committed + group)
                        self._commit([ready.pop(index) for index in range(first, last)], len(wanted))
                    committed, last_commit = committed + group, now
                if over:
                    break
        finally:
            asker.cancel()
            workers.close()
        self.busy = 1 - idle / max(time.monotonic() - started, 1e-9)
        return stopped

    def _commit(self, group: list[tuple[Item, Row]], total: int) -> None:
        good = [(item, self.sink.extend(row, item)) for item, row in group if row["error"] is None]
        bad = [row for _, row in group if row["error"] is not None]
        self.log.append([row for _, row in good])
        self.sink.apply([row for _, row in good], {item.id: item for item, _ in good})
        self.quarantine.append(bad)
        self.done += len(good)
        self.refused += len(bad)
        self.tokens += sum(row["completion_tokens"] for _, row in good)
        if self.on_progress is not None:
            self.on_progress(Progress(done=self.done, quarantined=self.refused, total=total))

    def _origin(self) -> Row:
        assert self.pipe is not None and self.pipe.folder is not None
        commit = self.pipe.folder.name if self.pipe.folder.parent.name == "snapshots" else self.job.revision
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"model": self.pipe.name, "revision": commit, "time": now}

    def _row(self, answer: "Answer") -> Row:
        """A result as it is written."""
        assert answer.row is not None
        inputs, options = answer.prepared.inputs, answer.row.options
        span = inputs.spans[0]
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram_size")
        return {
            "id": answer.item.id,
            "text": answer.text,
            "prompt": answer.prepared.question,
            **self._origin(),
            "sampling": {
                "do_sample": options.samples,
                **{name: getattr(options, name) for name in names},
                "max_new_tokens": answer.row.max_new_tokens,
            },
            "seed": answer.seed,
            "finish_reason": answer.row.finish_reason,
            "prompt_tokens": inputs.num_tokens,
            "image_tokens": int(inputs.image_mask.sum()),
            "completion_tokens": len(answer.row.tokens),
            "width": span.width,
            "height": span.height,
            "seconds": round(answer.seconds, 3),
            "error": None,
        }

    def _tidy_quarantine(self, start: int) -> dict[str, int]:
        """Leave one line for each image that has no result; count them by reason."""
        rows = {str(row["id"]): row for row in self.quarantine.rows()}
        if rows:
            good = {str(row.get("id")) for row in self.log.rows(start)}
            kept = [row for identity, row in rows.items() if identity not in good]
            replace_file(self.quarantine_path, b"".join(map(encode, kept)))
            return dict(Counter(str(row["error"]).partition(":")[0] for row in kept))
        return {}


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next(events: "SimpleQueue[Answer | None]") -> "Answer | None":
    try:
        return events.get(timeout=0.5)  # limits are looked at meanwhile
    except Empty:
        return None


def _dry_run(job: Job, source: Source, target: Target, pipe: "Pipeline | None") -> Summary:
    """Counts, and an estimate from a few images spread over the source. Nothing is written."""
    from tempfile import TemporaryDirectory

    identities = [item.id for item in source.items(with_data=False) if _of_shard(item.id, job.shard)]
    sidecars = Sidecars(target.path, appends=False, full_names=job.full_names)
    if target.format == "txt":
        check_sidecars(sidecars, identities)
    done: set[str] = set()
    if job.mode in (None, "skip"):
        done = set(_logged(target))
        if target.format == "txt":
            done |= {identity for identity in identities if sidecars.path(identity).exists()}
    wanted = [identity for identity in identities if identity not in done]
    chosen = set(wanted[:: max(1, len(wanted) // _SAMPLE)][:_SAMPLE])
    seconds, tokens, busy, quarantined = 0.0, 0, 0.0, {}
    if chosen:
        sample = replace(
            source, list_items=lambda data: (item for item in source.list_items(data) if item.id in chosen)
        )
        with TemporaryDirectory() as folder:
            trial = replace(job, output=str(Path(folder) / "rows.jsonl"), format=None, mode=None, shard=(1, 1))
            place = find_target(trial.output, None, (1, 1))
            make_folders(place)
            tried = _Run(trial, sample, place, pipe, None, None).run()
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
    import json

    for path in (target.log, target.state / "quarantine.jsonl"):
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield str(json.loads(line).get("id"))
