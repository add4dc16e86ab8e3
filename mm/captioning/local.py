"""Answers of one process: images are prepared in processes beside it, and engines that share one model are kept
supplied."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import torch

from mm.captioning.answers import Answer, Asker
from mm.captioning.batching import Sweep, batch_size, cores, engines_for
from mm.captioning.prepare import Prepared, Preparer, RefusedError, Workers
from mm.captioning.rows import Outcome, answered, origin, refused
from mm.captioning.sources import Item
from mm.captioning.supply import Work
from mm.errors import OptionError
from mm.families.table import find_runnable
from mm.pipeline import Pipeline

if TYPE_CHECKING:
    from mm.captioning.job import Job

READY_BYTES = 512 * 2**20  # pixels that wait for the model
MOST_WAITING = 16  # in the queue of an accelerator's engine, which encodes the images of those that wait together
_PAUSE_S = 0.5  # limits are looked at, and results handed over, at least so often


class LocalEngine:
    """A model on one device, and what it needs to answer about many images. ``answer`` may be called from several
    threads at once; the answers share the engines.

    Args:
        job: what is asked; ``device``, ``batch_size`` and ``workers`` are of this process.
        pipe: the model, loaded; None loads ``job.model``.
        num_images: most images that will come.

    Raises:
        OptionError: the pipeline was not loaded from files.
        CheckpointError: the model cannot be loaded.
        ResourceError: it does not fit the memory.
    """

    def __init__(self, job: "Job", *, pipe: Pipeline | None = None, num_images: int) -> None:
        folder = find_runnable(job.model, job.revision).folder if pipe is None else pipe.folder
        if folder is None:
            raise OptionError("the pipeline was not loaded from files, which its workers need. Save it and load it")
        preparer = Preparer(folder=folder, task=job.task, max_tiles=job.max_tiles, system=job.system)
        workers = max(1, min(8, cores() // 2)) if job.workers is None else job.workers
        self.workers = Workers(preparer, workers, job.timeout)
        self.pipes: list[Pipeline] = []
        self._threads = torch.get_num_threads()
        try:
            self.job, self.pipe = job, pipe or _load(job)
            if not workers:
                preparer.processor = self.pipe.processor  # what is prepared in this process needs no other one
            self._make_engines(num_images)
            self.workers.wait()
        except BaseException:
            self.close()
            raise
        self._started = time.monotonic()

    def _make_engines(self, num_images: int) -> None:
        """Engines of the run's own, so that a pipeline that is given can be used beside it."""
        pipe = self.pipe
        count = engines_for(pipe.model, pipe.model.device, num_images)  # type: ignore[arg-type]
        self.batch = min(self.job.batch_size or batch_size(pipe, self.job, count), max(1, num_images))
        if count > 1:
            torch.set_num_threads(max(1, self._threads // count))
        for _ in range(count):
            own = Pipeline(
                pipe.model,
                pipe.processor,
                name=pipe.name,
                folder=pipe.folder,
                context=min(pipe.context, pipe.model.decoder.max_positions),
                max_running=-(-self.batch // count),
                bulk=True,
            )
            own.context = pipe.context  # beyond what was trained: whoever loaded it was warned
            self.pipes.append(own)

    @property
    def busy(self) -> float:
        """Share of the time since the start in which the model computed, over all engines."""
        computing = sum(pipe.engine.statistics.seconds for pipe in self.pipes)
        return min(1.0, computing / len(self.pipes) / max(time.monotonic() - self._started, 1e-9))

    def answer(self, work: Work) -> Generator[Outcome | None]:
        """What becomes of each image, in the order of their ends; None now and then, for who has other things to do."""
        return _Answering(self, work).run()

    def close(self) -> None:
        """End the processes and the engines; what runs is dropped."""
        self.workers.close()
        for pipe in self.pipes:
            pipe.engine.close()
        torch.set_num_threads(self._threads)


def _load(job: "Job") -> Pipeline:
    return Pipeline.from_pretrained(
        job.model,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        context=job.context,
        quantization=job.quantization,
        compile=job.compile,
        device_map=job.device_map,
    )


class _Answering:
    """One call of ``LocalEngine.answer``."""

    def __init__(self, engine: LocalEngine, work: Work) -> None:
        self.engine, self.job, self.work = engine, engine.job, work
        self.events: SimpleQueue[Answer | None] = SimpleQueue()  # None: an image is prepared
        job = engine.job
        self.askers = [Asker(pipe, job.task, job.sampling, job.timeout, self.events.put) for pipe in engine.pipes]
        share = -(-engine.batch // len(self.askers))
        waiting = max(1, share // 4) if engine.pipe.model.device.type == "cpu" else min(share, MOST_WAITING)
        self.most_asked = share + waiting  # of one engine, which never waits for the next one
        self.waiting: dict[int, tuple[Item, Future[Prepared]]] = {}
        self.ready: list[tuple[int, Item, Prepared]] = []
        self.sweep = Sweep()
        self.last_asked = -1

    def run(self) -> Generator[Outcome | None]:
        try:
            while True:
                self._take()
                yield from self._prepared()
                yield from self._ask()
                if not (self.waiting or self.ready or any(asker.running for asker in self.askers)):
                    if self.work.over:
                        return
                    time.sleep(0.01)  # for images that were sent and have not come yet
                    yield None
                    continue
                yield self._ended()
                for asker in self.askers:
                    asker.end_late()
        finally:
            for asker in self.askers:
                asker.cancel()

    def _take(self) -> None:
        """Have images prepared, as many as run together; when the run is to stop, none, and drop the later ones."""
        if self.work.stopped:
            for number in [number for number in self.waiting if number > self.last_asked]:
                del self.waiting[number]
            self.ready = [entry for entry in self.ready if entry[0] < self.last_asked]
        kept = sum(prepared.inputs.pixels.nbytes for _, _, prepared in self.ready)
        while len(self.waiting) + len(self.ready) < 2 * self.engine.batch and kept < READY_BYTES:
            taken = self.work.take()
            if taken is None:
                return
            future = self.engine.workers.submit(taken[1])
            self.waiting[taken[0]] = (taken[1], future)
            future.add_done_callback(lambda _: self.events.put(None))

    def _prepared(self) -> Iterator[Outcome]:
        for number in [number for number, (_, future) in self.waiting.items() if future.done()]:
            item, future = self.waiting.pop(number)
            try:
                self.ready.append((number, item, future.result()))
            except RefusedError as refusal:
                yield self._refused(number, item, refusal)

    def _ask(self) -> Iterator[Outcome]:
        while self.ready:
            asker = min(self.askers, key=lambda asker: len(asker.running))
            if len(asker.running) >= self.most_asked:
                return
            place = self.sweep.choose([prepared.inputs.num_tokens for _, _, prepared in self.ready])
            number, item, prepared = self.ready.pop(place)
            self.last_asked = max(self.last_asked, number)
            try:
                asker.ask(Answer(number=number, item=item, prepared=prepared, started=time.monotonic()))
            except RefusedError as refusal:
                yield self._refused(number, item, refusal)

    def _ended(self) -> Outcome | None:
        """Wait for the next event."""
        try:
            answer = self.events.get(timeout=_PAUSE_S)
        except Empty:
            return None
        if answer is None:
            return None
        asker = next(asker for asker in self.askers if answer.number in asker.running)
        try:
            good = asker.judge(answer)
        except RefusedError as refusal:
            return self._refused(answer.number, answer.item, refusal)
        return answered(answer, origin(self.engine.pipe, self.job.revision)) if good else None

    def _refused(self, number: int, item: Item, refusal: RefusedError) -> Outcome:
        return refused(number, item.id, refusal, origin(self.engine.pipe, self.job.revision))
