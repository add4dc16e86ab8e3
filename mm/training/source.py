"""Where training samples come from: renderer processes that fill the rings, and the plan of which bucket comes next.

Letters: B rows, K buckets.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from numpy.typing import NDArray

from mm.errors import ResourceError
from mm.synthetic.fonts import FontSet
from mm.synthetic.render import WITHOUT_FONTS, render
from mm.training.data import Encoding
from mm.training.recipe import PhaseRecipe, Recipe
from mm.training.ring import Ring

_NICENESS = 10  # renderers yield to the process that feeds the device
_MAX_FAILED_SHARE = 0.01


def phase_at(phases: tuple[PhaseRecipe, ...], progress: float) -> PhaseRecipe:
    """What is rendered at a point of the schedule."""
    return next((phase for phase in phases if progress < phase.until), phases[-1])


def kinds_of(recipe: Recipe) -> tuple[str, ...]:
    """Every kind that a recipe renders or evaluates, sorted: a sample's kind is an index into this."""
    names = {name for phase in recipe.data.phases for name in phase.kinds}
    return tuple(sorted(names | set(recipe.evaluation.kinds)))


@dataclass(frozen=True)
class _Job:
    """What one renderer does: first its share of the evaluation set, then training samples until told to stop."""

    rings: tuple[Ring, ...]
    evaluation_rings: tuple[Ring, ...]
    evaluation: tuple[tuple[str, int], ...]  # kind and number of each held-out sample
    seed: tuple[int, ...]
    limit: int | None  # training samples, None without end


class SampleSource:
    """Rings of training and evaluation samples of one rank.

    With ``workers`` 0 the training set is fixed: ``prefill`` samples rendered by ``start`` in this process, the same
    for the same seed. Otherwise processes render without end, with seeds that no earlier session used.

    Args:
        recipe: the run.
        encoder: makes of a sample what the rings hold.
        rank: this process among the ``world`` ones that train together.
        session: a number that no earlier session of this run had.
        with_evaluation: whether to render the held-out set as well.

    Raises:
        ResourceError: no fonts were found.
    """

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoding,
        *,
        rank: int,
        session: int,
        num_workers: int,
        with_evaluation: bool,
    ) -> None:
        data = recipe.data
        self.recipe = recipe
        self.kinds = kinds_of(recipe)
        self.num_workers = num_workers
        folders = None if data.fonts is None else [data.fonts]
        written = not WITHOUT_FONTS.issuperset(self.kinds)
        self._fonts = FontSet.find("train", folders) if written else FontSet("train", ())
        self._held_out_fonts = FontSet("held_out", ())
        if with_evaluation and written:
            self._held_out_fonts = FontSet.find("held_out", folders)
        self._encoder = encoder
        self._context = multiprocessing.get_context("fork")
        self._seed = (recipe.seed, session, rank)
        self._stop = self._context.Value("b", 0)
        self._progress = self._context.Value("d", 0.0)
        self._failed = self._context.Value("q", 0)
        self._first_failure = self._context.SimpleQueue()
        count = recipe.evaluation.samples * len(recipe.evaluation.kinds) if with_evaluation else 0
        self._evaluation = tuple(
            (kind, i) for i in range(recipe.evaluation.samples) for kind in recipe.evaluation.kinds
        )
        share = data.ring_gib * 2**30 / len(data.buckets)
        self.rings: list[Ring] = []
        self.evaluation_rings: list[Ring] = []
        for bucket in data.buckets:
            slot = Ring.slot_bytes(bucket, encoder.view_size, encoder.grid)
            for rings, capacity in ((self.rings, int(share / slot)), (self.evaluation_rings, count)):
                if rings is self.rings and capacity < bucket.rows:
                    raise ResourceError(
                        f"data.ring_gib {data.ring_gib} gives a bucket of {bucket.views} views {capacity} slots, fewer "
                        f"than its {bucket.rows} rows. Raise ring_gib or lower rows."
                    )
                if capacity:
                    rings.append(
                        Ring(
                            bucket,
                            capacity=capacity,
                            view_size=encoder.view_size,
                            grid=encoder.grid,
                            padding=self._encoder.padding,
                            context=self._context,
                        )
                    )
        self._processes: list[BaseProcess] = []

    def start(self) -> None:
        """Forks the renderers; call before CUDA is touched. Without workers, renders everything here and returns."""
        rings, held_out = tuple(self.rings), tuple(self.evaluation_rings)
        evaluation = self._evaluation if held_out else ()
        if self.num_workers == 0:
            self._render(_Job(rings, held_out, evaluation, self._seed[:1], self.recipe.data.prefill))
            return
        for worker in range(self.num_workers):
            job = _Job(rings, held_out, evaluation[worker :: self.num_workers], (*self._seed, worker), None)
            process = self._context.Process(target=self._work, args=(job, os.getpid()), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns of any fork beside threads; the renderers use none of the parent's.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            self._processes.append(process)

    def close(self) -> None:
        """Stops the renderers."""
        self._stop.value = 1
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes = []

    def set_progress(self, progress: float) -> None:
        """Tells the renderers how much of the schedule is done."""
        self._progress.value = progress

    def counts(self) -> NDArray[np.int64]:
        """(K,) samples written to each ring so far."""
        return np.array([ring.num_written for ring in self.rings])

    def wait(self, num_samples: int, timeout: float) -> float:
        """Waits until that many samples are rendered and every evaluation sample; returns the seconds it took.

        Raises:
            ResourceError: the renderers failed, or nothing came within ``timeout`` seconds.
        """
        begin = time.monotonic()
        while True:
            self.check()
            held_out = sum(ring.num_written for ring in self.evaluation_rings)
            if self.counts().sum() >= num_samples and (held_out or not self.evaluation_rings):
                return time.monotonic() - begin
            if time.monotonic() - begin > timeout:
                if self.counts().sum() == 0:
                    raise ResourceError(f"no sample was rendered within {timeout:.0f} s. Raise data.workers.")
                return timeout
            time.sleep(0.05)

    def check(self) -> None:
        """Raises ResourceError when renderers died or more than one sample in a hundred failed."""
        failed, done = int(self._failed.value), int(self.counts().sum())
        dead = [process for process in self._processes if not process.is_alive()]
        if dead or failed > 20 + _MAX_FAILED_SHARE * done:
            reason = "no traceback" if self._first_failure.empty() else self._first_failure.get()
            raise ResourceError(f"{failed} samples failed to render, {len(dead)} renderers ended. The first: {reason}")

    @property
    def num_failed(self) -> int:
        """Samples that raised or fitted no bucket."""
        return int(self._failed.value)

    def _work(self, job: _Job, parent: int) -> None:
        """Body of a renderer process."""
        _die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(_NICENESS)
        torch.set_num_threads(1)
        self._render(job)

    def _render(self, job: _Job) -> None:
        most_tiles = max(phase.max_tiles for phase in self.recipe.data.phases)
        for kind, number in job.evaluation:
            rng = np.random.default_rng((self.recipe.seed, 1, self.kinds.index(kind), number))
            self._add(kind, rng, self._held_out_fonts, 1.0, most_tiles, job.evaluation_rings)
        rng = np.random.default_rng((*job.seed, 2))
        rendered = 0
        while not self._stop.value and (job.limit is None or rendered < job.limit):
            phase = phase_at(self.recipe.data.phases, self._progress.value + self.recipe.data.look_ahead)
            weights = np.array(list(phase.kinds.values()))
            kind = list(phase.kinds)[int(rng.choice(len(weights), p=weights / weights.sum()))]
            self._add(kind, rng, self._fonts, float(rng.uniform(*phase.level)), phase.max_tiles, job.rings)
            rendered += 1

    def _add(
        self, kind: str, rng: np.random.Generator, fonts: FontSet, level: float, max_tiles: int, rings: tuple[Ring, ...]
    ) -> None:
        """Renders one sample into its ring; what fails is counted and the first traceback kept."""
        try:
            encoded = self._encoder.encode(render(kind, rng, fonts, level), self.kinds.index(kind), max_tiles)
            if encoded is None:
                raise ResourceError(f"a sample of kind {kind!r} fits no bucket; add a longer one or lower max_tiles")
        except Exception:
            with self._failed.get_lock():
                self._failed.value += 1
                if self._failed.value == 1:
                    self._first_failure.put(traceback.format_exc())
            return
        bucket, sample = encoded
        rings[bucket].put(sample)


def _die_with_parent(parent: int) -> None:
    """A renderer must not outlive a trainer that was killed (on Linux; elsewhere it ends with a clean exit only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
