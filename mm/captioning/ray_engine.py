"""The model in actors of a Ray cluster. Ray Data hands the images out and asks again what a lost worker or node had in
hand; results come back to this process, which alone writes them, each number once.
"""

import json
import logging
import os
import pickle
import platform
import socket
import sys
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm.captioning.log import encode
from mm.captioning.rows import Outcome
from mm.captioning.sources import Item, open_source
from mm.captioning.supply import Supply
from mm.errors import MissingExtraError, MMError, ResourceError

try:
    import ray
    import ray.data
    import ray.exceptions
except ImportError as error:
    raise MissingExtraError("ray[data]", "ray", "captioning on a cluster") from error

if TYPE_CHECKING:
    from mm.captioning.job import Job

# What an actor is handed at once, and what is asked again when it is lost.
_BLOCK = 16
_BLOCK_OF_GPU = 64
_CALLS = 2  # of an actor at once: the next images are there when the engine has room
# What is put into Ray's object store at once; the models are loaded anew for each such part of a source. A block takes
# half a millisecond to put there, so that the first answers come after seconds.
_MOST_IMAGES = 2**18
_STORE_SHARE = 0.25  # of the memory of all nodes' stores


class RayEngine:
    """Actors with the model: one for each GPU of the cluster, or ``job.actors_per_node`` on each node without.

    Args:
        job: what is asked.
        num_images: most images that will come.

    Raises:
        ResourceError: the cluster cannot be reached.
    """

    def __init__(self, job: "Job", num_images: int) -> None:
        self._job = job
        self._shares: dict[str, float] = {}  # of the time, by actor
        self._gpus: float | None  # of an actor
        self._cpus: float | None
        self._joined = not ray.is_initialized()
        if self._joined:
            _join(job.ray_address)
        self._bars = _context().enable_progress_bars
        _context().enable_progress_bars = False  # the run has its own
        listed: Any = ray.nodes  # untyped in Ray
        nodes = [node["Resources"] for node in listed() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            self.close()
            raise ResourceError("no node of the Ray cluster offers a CPU. Start nodes without --num-cpus 0")
        gpus = int(sum(node.get("GPU", 0) for node in nodes)) if job.device != "cpu" else 0
        if gpus:
            self._gpus, self._cpus, count = 1.0, None, gpus
        else:
            cpus = int(min(node["CPU"] for node in nodes))
            self._gpus, self._cpus = None, max(1.0, cpus // job.actors_per_node)
            count = len(nodes) * min(job.actors_per_node, max(1, cpus))
        self._block = max(1, min(job.batch_size or (_BLOCK_OF_GPU if gpus else _BLOCK), -(-num_images // count)))
        self._count = max(1, min(count, -(-num_images // self._block)))

    @property
    def busy(self) -> float:
        """Share of the time in which the models computed, over all actors that answered."""
        return sum(self._shares.values()) / max(1, len(self._shares))

    def answer(self, supply: Supply) -> Generator[Outcome | None]:
        """What becomes of each image, in the order in which blocks of them end. Stopping drops what the actors have in
        hand; the next run asks it again.

        Raises:
            ResourceError: the cluster is lost, or an actor could not answer.
        """
        images = supply.all()
        while blocks := self._blocks(images):
            yield from self._answer(blocks, supply)
            if supply.stopped:
                return

    def _answer(self, blocks: list[Any], supply: Supply) -> Generator[Outcome | None]:
        """What becomes of the images of some blocks."""
        strategy = ray.data.ActorPoolStrategy(
            size=self._count,
            max_tasks_in_flight_per_actor=2 * _CALLS,
            max_concurrent_calls_per_actor=_CALLS,
            enable_true_multi_threading=True,
        )
        answers = ray.data.from_arrow_refs(blocks).map_batches(
            _Actor,
            fn_constructor_args=(self._job, self._block, os.getcwd(), _needed_paths(self._job.source)),
            batch_size=self._block,
            batch_format="pyarrow",
            compute=strategy,
            num_gpus=self._gpus,
            num_cpus=self._cpus,
        )
        given: set[int] = set()
        try:
            table: Any
            for table in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in table.to_pylist():
                    self._shares[row["actor"]] = row["busy"]
                    if row["number"] not in given:  # Ray may do a block twice
                        given.add(row["number"])
                        yield Outcome(row["number"], json.loads(row["row"]))
                if supply.stopped:
                    return
                yield None
        except ray.exceptions.RayError as error:
            raise _explained(error) from error

    def _blocks(self, images: Iterator[tuple[int, Item]]) -> list[Any]:
        """The next images in Ray's object store: as many as may be there at once, none at the end."""
        blocks: list[Any] = []
        resources: Any = ray.cluster_resources  # untyped in Ray
        room = _STORE_SHARE * resources().get("object_store_memory", 2**30)
        while room > 0 and len(blocks) * self._block < _MOST_IMAGES and (some := list(islice(images, self._block))):
            numbers, items = zip(*some, strict=True)
            packed = list(map(pickle.dumps, items))
            room -= sum(map(len, packed))
            blocks.append(ray.put(pa.table({"number": numbers, "item": packed})))
        return blocks

    def close(self) -> None:
        """Leave the cluster, if it was joined for this."""
        _context().enable_progress_bars = self._bars
        if self._joined:
            ray.shutdown()


class _Actor:
    """A model in a Ray worker. Ray calls it with blocks of images, in two threads."""

    def __init__(self, job: "Job", block: int, folder: str, needed: Sequence[str]) -> None:
        from mm.captioning.local import LocalEngine

        missing = [path for path in needed if not os.path.lexists(path)]
        if missing:
            raise ResourceError(
                f"the node {platform.node()!r} has no {missing[0]!r}. Every node must see the images under the same "
                "path: put them on a shared disk or in an object store"
            )
        if os.path.isdir(folder):
            os.chdir(folder)  # that relative paths are below
        alone = replace(job, engine="local", ray_address=None, actors_per_node=1)
        self._engine = LocalEngine(alone, num_images=block * _CALLS)
        self._name = uuid.uuid4().hex

    def __call__(self, table: pa.Table) -> pa.Table:
        work = _Block(zip(table["number"].to_pylist(), map(pickle.loads, table["item"].to_pylist()), strict=True))
        outcomes = [outcome for outcome in self._engine.answer(work) if outcome is not None]
        count = len(outcomes)
        return pa.table(
            {
                "number": pa.array([outcome.number for outcome in outcomes], pa.int64()),
                "row": pa.array([encode(outcome.row) for outcome in outcomes], pa.binary()),
                "actor": pa.array([self._name] * count, pa.string()),
                "busy": pa.array([self._engine.busy] * count, pa.float64()),
            }
        )


class _Block:
    """Images that are all here."""

    stopped = False

    def __init__(self, items: Iterable[tuple[int, Item]]) -> None:
        self._items = deque(items)

    @property
    def over(self) -> bool:
        """Whether all are handed out."""
        return not self._items

    def take(self) -> tuple[int, Item] | None:
        """The next one."""
        return self._items.popleft() if self._items else None


def _context() -> Any:
    return ray.data.DataContext.get_current()


def _join(address: str | None) -> None:
    # Ray's own log files stay; of its notes on standard error only errors do.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that starts here tells nobody
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if address is not None and "://" not in address and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        with _silence():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
        raise ResourceError(
            f"cannot join the Ray cluster {address or 'of this machine'!r}: {error}. Start one with 'ray start --head' "
            "and give its address, host:6379"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing of this process gets to standard error inside: where no cluster answers, Ray's compiled part writes lines
    of its own there, whatever it is told. What it raises says the same."""
    sys.stderr.flush()
    own = os.dup(2)
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(own, 2)
        os.close(own)


def _needed_paths(source: str) -> list[str]:
    """What every node must see of a source."""
    if "://" in source:
        return []
    folder = open_source(source).folder
    return [os.path.abspath(source if folder is None else folder)]


def _explained(error: Exception) -> MMError:
    """What went wrong on the cluster; an error of ours as it was."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MMError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    if isinstance(cause, MMError):
        return type(cause)(str(cause))
    told = str(error).strip().splitlines() or [type(error).__name__]
    return ResourceError(
        f"the Ray cluster failed: {told[-1]}. What was committed before is kept: run the same command again"
    )
