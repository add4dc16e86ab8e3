"""One run over many images: from a source to an output, resumable after any end.

    from mm.captioning import Job, run
    summary = run(Job("photos", "captions.jsonl"))

The order of things makes it safe. Results are committed in the order of the source, a group at a time: rows to the log
(written, synced), then the files that a sink derives from them. What is in the log or in the quarantine is done; what
is not is asked again by the next run. Nothing is in both.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mm.captioning.engines import ENGINES, EngineName, check_engine
from mm.captioning.log import encode
from mm.captioning.sinks import Format, find_target, make_folders
from mm.captioning.sources import open_source
from mm.captioning.state import Lock, Mode
from mm.captioning.tasks import Task
from mm.config import Quantization
from mm.contracts import CancelToken
from mm.errors import OptionError
from mm.generation.sampling import SamplingOptions

if TYPE_CHECKING:
    from mm.pipeline import Pipeline


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
        model: as for ``Pipeline.from_pretrained``, with revision, device, dtype, context, quantization, compile,
            device_map.
        sampling: of every answer.
        max_tiles: most tiles an image is cut into.
        system: a system prompt.
        batch_size: answers that run together at most, on each device; None takes what its memory holds and pays.
        workers: processes that open and resize images, for each device; None takes half of the cores, 0 none.
        timeout: most seconds to open an image, and for its answer.
        shard: (i, n): only the i-th of n parts of the source, with an output of its own; i from 1 to n.
        retry_quarantined: only what is in the quarantine.
        full_names: sidecars are named "a.jpg.txt".
        deduplicate: of images with the same bytes and the same question one is asked and the others get its text; every
            image is read once more, before the run.
        devices: a process with the model for each of these ("cuda:0", "cuda:1"); a device may be named twice. Empty:
            one model in this process, on ``device``.
        engine: "local", or "ray": the model in actors of a Ray cluster, whose nodes all see the images under the same
            paths. Results are written by this process.
        ray_address: of the cluster, as for ``ray.init``; None joins the one of this machine, or starts one here.
        actors_per_node: models on each node of a cluster without GPUs; on one with GPUs there is one for each.

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
    quantization: Quantization | None = None
    compile: bool = False
    device_map: Literal["auto"] | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tiles: int | None = None
    system: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    timeout: float = 300.0
    shard: tuple[int, int] = (1, 1)
    retry_quarantined: bool = False
    full_names: bool = False
    deduplicate: bool = False
    devices: tuple[str, ...] = ()
    engine: EngineName = "local"
    ray_address: str | None = None
    actors_per_node: int = 1

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("max_tiles", 1), ("actors_per_node", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (value is None and name != "actors_per_node"):
                raise OptionError(f"{name} is {value!r}; expected a whole number of {least} or more")
        if not 0 < self.timeout < math.inf:
            raise OptionError(f"timeout is {self.timeout!r}; expected a number of seconds above 0")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise OptionError(f"shard is {self.shard[0]}/{self.shard[1]}; expected i/n with i from 1 to n")
        if self.engine not in ENGINES:
            raise OptionError(f"unknown engine {self.engine!r}. Known: {', '.join(ENGINES)}")
        if self.devices and (self.engine == "ray" or self.device != "auto"):
            other = "the engine 'ray', which gives each actor a device" if self.engine == "ray" else "device"
            raise OptionError(f"devices ({', '.join(self.devices)}) does not go with {other}. Leave one of the two out")
        if self.device_map is not None and (self.devices or self.engine == "ray"):
            other = "devices" if self.devices else "the engine 'ray'"
            raise OptionError(
                f"device_map makes one model of all GPUs, and {other} one of each. Leave one of the two out"
            )
        if self.engine != "ray" and (self.ray_address is not None or self.actors_per_node != 1):
            raise OptionError("ray_address and actors_per_node are for a cluster. Use them with engine='ray'")

    def holds(self, identity: str) -> bool:
        """Whether an image belongs to the shard: by its id alone, so that new images move no others."""
        if self.shard[1] == 1:
            return True
        digest = hashlib.blake2b(identity.encode("utf-8", errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest) % self.shard[1] == self.shard[0] - 1

    def settings(self) -> dict[str, Any]:
        """Everything that the texts depend on, for the record of a run."""
        task = {name: getattr(self.task, name) for name in self.task.__dataclass_fields__}
        sampling = {name: getattr(self.sampling, name) for name in self.sampling.__dataclass_fields__}
        names = ["source", "model", "revision", "dtype", "context", "max_tiles", "system", "shard", "full_names"]
        names += ["deduplicate"]
        names += ["quantization"] if self.quantization is not None else []  # runs of before had none
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
        busy: share of the time in which the model computed: of each core that decodes, or of the devices.
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
        OptionError: a device that is not there, or a loaded model for other processes; before anything is made.
        ResourceError: the disk, the memory or another run is in the way. What was committed is kept.
    """
    from mm.captioning.estimate import dry_run as try_out
    from mm.captioning.ledger import Run

    check_engine(job, pipe)
    source = open_source(job.source)
    target = find_target(job.output, job.format, job.shard)
    if dry_run:
        return try_out(job, source, target, pipe)
    make_folders(target)
    lock = Lock(target.state)
    try:
        return Run(job, source, target, pipe, on_progress, stop).run()
    finally:
        lock.release()
