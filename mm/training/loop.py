"""Training from synthesised data: one process a device, boxed in time, restartable.

    mm train configs/nano_vl2.yaml --out runs/nano
    torchrun --nproc-per-node 4 -m mm.training configs/nano_vl2.yaml --out runs/nano

The learning rate is a function of the share of the schedule that is done, not of steps, so a run of a given time
always ends cooled down, on any machine. A run that is stopped (Ctrl-C, SIGTERM, ``session_seconds``) saves its state
and goes on from there when it is started again with the same ``state`` folder.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.errors import ResourceError
from mm.families.table import MAX_SHARD_BYTES, build_model, load_config, save_pretrained
from mm.language.moe import MoE, Router
from mm.training.compilation import compile_blocks, narrow_residual
from mm.training.feed import BLOCK_STEPS, Feeder, StepPlan
from mm.training.gradients import Gradients, Passes
from mm.training.objective import StepObjective, TrainingBatch, initialize
from mm.training.optim import build_optimizers, lr_factor, set_lr
from mm.training.ranks import Ranks
from mm.training.recipe import Recipe
from mm.training.report import Report
from mm.training.ring import IGNORED_CHARACTER
from mm.training.session import Flag, RunAhead, Session, check_folder, model_folder, num_workers, stop_signals
from mm.training.source import SampleSource
from mm.training.state import STATE_FILE, Average, Progress, load_state, load_weights_from, save_state
from mm.training.subject import Subject, subject_of

RESERVED_SECONDS = 25.0  # of a session: saving, evaluation and the end of the last block
_PREFILL_TIMEOUT = 300.0


def train(recipe: Recipe, session: Session, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Trains, evaluates and saves; the summary is also written to ``out``/summary.json.

    Raises:
        ConfigError: the recipe or the model folder is wrong.
        ResourceError: no fonts, a folder that cannot be written or holds weights, or training that diverged.
        WeightsError: a state or warm start that belongs to another model.
    """
    begin = time.monotonic()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    ranks = Ranks()
    folder = model_folder(recipe.model)
    config, subject = load_config(folder), subject_of(recipe, folder)
    if ranks.is_main:
        check_folder(session.out)
    resuming = session.state is not None and (session.state / STATE_FILE).exists()
    source = SampleSource(
        recipe,
        subject.encoder,
        rank=ranks.rank,
        session=(session.state / STATE_FILE).stat().st_mtime_ns if session.state is not None and resuming else 0,
        num_workers=num_workers(recipe, ranks),
        with_evaluation=ranks.is_main and recipe.evaluation.samples > 0,
    )
    source.start()  # forks, so it comes before anything that touches a device
    try:
        ranks.connect(session.device)
        torch.manual_seed(recipe.seed)
        model = build_model(config, device="cpu")
        objective = subject.build(model)
        initialize(objective, torch.Generator().manual_seed(recipe.seed))
        if session.warm_start is not None and not resuming:
            load_weights_from(session.warm_start, objective)
        if not resuming:
            subject.begin(objective)
        run = _Run(recipe, session, ranks, source, subject, objective.to(ranks.device), begin, say)
        if resuming:
            assert session.state is not None
            run.progress = load_state(session.state, objective, run.optimizers, run.average, ranks.device)
        run.prepare()
        with stop_signals() as stopped:
            run.loop(stopped)
        return run.finish(folder)
    finally:
        source.close()
        ranks.close()
        torch.set_num_threads(threads)  # what prepare() sets for the run belongs to the process
        torch.set_float32_matmul_precision(precision)


class _Run:
    """The parts of a run that the loop needs in every step."""

    def __init__(
        self,
        recipe: Recipe,
        session: Session,
        ranks: Ranks,
        source: SampleSource,
        subject: Subject,
        objective: StepObjective,
        begin: float,
        say: Callable[[str], None],
    ) -> None:
        self.recipe, self.session, self.ranks, self.source = recipe, session, ranks, source
        self.subject, self.objective = subject, objective
        self.begin = begin
        self.say = say if ranks.is_main else _silent
        self.autocast = recipe.run.precision == "bf16"
        self.gradients = Gradients([p for p in objective.parameters() if p.requires_grad])
        self.passes = Passes(objective, self.gradients, autocast=self.autocast)
        self.progress = Progress()
        self.optimizers = build_optimizers(objective, recipe.optimizer)
        self.average = Average(objective, recipe.run.ema_decay) if recipe.run.ema_decay > 0 else None
        self.routers = [module for module in objective.modules() if isinstance(module, Router)]
        for module in objective.modules():
            if isinstance(module, MoE):
                module.dispatch = recipe.run.moe_dispatch
        if self.autocast:
            narrow_residual(objective)
        objective.train()
        objective.model.decoder.rope.ensure(max(b.length for b in recipe.data.buckets), ranks.device)
        folder = session.out if ranks.is_main else None
        self.report = Report(folder, source.kinds, objective.reported, ranks.device, self.say)
        self.loads = torch.zeros(len(self.routers), *(self.routers[0].load.shape if self.routers else (1,)))
        self.loads = self.loads.to(ranks.device)

    def prepare(self) -> None:
        """Compiles the blocks and captures every shape on blank batches while the rings fill."""
        recipe, begin = self.recipe, time.monotonic()
        if self.ranks.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            if recipe.run.compile:
                compile_blocks(self.objective)
        torch.set_num_threads(max(1, min(4, torch.get_num_threads())))
        if recipe.run.cuda_graphs and self.ranks.device.type == "cuda":
            self.passes.capture([self._blank_batch(index) for index in range(len(recipe.data.buckets))])
            self._clear_loads()
            self.say(f"captured {len(recipe.data.buckets)} shapes in {time.monotonic() - begin:.1f} s")
        elif recipe.run.compile and self.ranks.device.type == "cuda":
            for index in range(len(recipe.data.buckets)):  # compiles now, before the schedule's clock starts
                self.passes(index, self._blank_batch(index), 0.0)
            self._clear_loads()
            self.say(f"compiled {len(recipe.data.buckets)} shapes in {time.monotonic() - begin:.1f} s")
        self.say(f"drawing the first {recipe.data.prefill} samples")
        waited = self.source.wait(recipe.data.prefill, max(1.0, min(_PREFILL_TIMEOUT, self._session_left())))
        self.ranks.barrier()
        count = sum(p.numel() for p in self.objective.model.parameters())
        self.say(
            f"{count:,} parameters on {self.ranks.world} x {self.ranks.device}; {self.source.counts().sum()} samples "
            f"ready after {time.monotonic() - self.begin:.0f} s (waited {waited:.0f} s for them)"
        )

    def loop(self, stopped: Flag) -> None:
        """Trains until the schedule is done, the session is over or a signal came."""
        recipe, session, progress = self.recipe, self.session, self.progress
        plan = StepPlan((bucket.rows for bucket in recipe.data.buckets), recipe.seed)
        feeder = Feeder(self.source.rings, self.ranks.device, (recipe.seed, self.ranks.rank))
        speed = self._progress_per_second()
        first, first_step, last_saved = time.monotonic(), progress.step, time.monotonic()
        start_done, start_seconds = progress.done, progress.seconds
        limiter = RunAhead(self.ranks.device)
        try:
            while True:
                now = time.monotonic()
                progress.seconds = start_seconds + now - first
                if recipe.schedule.max_steps is not None:
                    progress.done = progress.step / recipe.schedule.max_steps
                else:
                    progress.done = start_done + (now - first) * speed
                over = session.session_seconds is not None and (
                    now - self.begin > session.session_seconds - RESERVED_SECONDS
                )
                decisions = [progress.done, progress.seconds, 2.0 if stopped.is_set() else float(over)]
                gathered = self.ranks.gather(np.array([*decisions, *self.source.counts()], dtype=np.float64))
                progress.done, progress.seconds = min(float(gathered[0, 0]), 1.0), float(gathered[0, 1])
                if gathered[:, 2].any() or progress.done >= 1.0:
                    if progress.step == first_step and progress.done < 1.0 and gathered[:, 2].max() < 2.0:
                        raise self._over_before_training()
                    break
                self.source.set_progress(progress.done)
                self.source.check()
                buckets = plan.next_block(gathered[:, 3:], progress.step // BLOCK_STEPS)
                if recipe.schedule.max_steps is not None:
                    buckets = buckets[: recipe.schedule.max_steps - progress.step]
                feeder.request(enumerate(buckets, start=progress.step))
                for bucket in buckets:
                    self._step(bucket, *feeder.next())
                    limiter.wait()
                if self.report.seconds >= recipe.run.log_seconds or progress.step == first_step + len(buckets):
                    self._flush(feeder.waited, gathered[:, 3:].sum())
                    feeder.waited = 0.0
                if session.state is not None and time.monotonic() - last_saved >= recipe.run.state_seconds:
                    self._save_state()
                    last_saved = time.monotonic()
        finally:
            feeder.close()
        if self.report.steps:
            self._flush(feeder.waited, self.source.counts().sum())

    def finish(self, model_folder: Path) -> dict[str, Any]:
        """Saves the state and the weights, evaluates, writes the summary."""
        summary: dict[str, Any] = {
            "step": self.progress.step,
            "progress": self.progress.done,
            "train_seconds": self.progress.seconds,
            "rows": self.progress.rows,
            "parameters": sum(p.numel() for p in self.objective.model.parameters()),
            "failed_samples": self.source.num_failed,
        }
        if self.session.state is not None:
            self._save_state()
        if self.ranks.is_main:
            try:
                self._choose_weights(summary)
            finally:  # whatever an evaluation runs into, what was trained is kept
                save_pretrained(
                    self.objective.model, self.session.out, source=model_folder, max_shard_bytes=MAX_SHARD_BYTES
                )
            self.report.save_curve()
            (self.session.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
            for name in ("evaluation", "evaluation_average"):
                for key, scores in summary.get(name, {}).items():
                    self.say(f"{name} {key}: " + " ".join(f"{k} {v:.4g}" for k, v in scores.items()))
            done = 100 * self.progress.done
            self.say(f"saved {self.session.out} at step {self.progress.step}, {done:.1f} % of the schedule")
        self.ranks.barrier()
        return summary

    def _choose_weights(self, summary: dict[str, Any]) -> None:
        """Leaves the average in the model, or the last weights where these evaluate better."""
        evaluates = bool(self.source.evaluation_rings)
        try:
            if evaluates:
                summary["evaluation"] = self._evaluate()
        finally:
            if self.average is not None:
                self.average.swap()  # what is shipped is the average; the weights themselves are in the state
        if self.average is not None and evaluates:
            summary["evaluation_average"] = self._evaluate()
            if _mean_error(summary["evaluation"]) < _mean_error(summary["evaluation_average"]):
                self.average.swap()

    def _step(self, bucket: int, batch: TrainingBatch, kinds: Tensor) -> None:
        recipe, progress = self.recipe, self.progress
        if recipe.schedule.max_steps is not None:
            progress.done = progress.step / recipe.schedule.max_steps
        factor = self._lr_factor()
        set_lr(self.optimizers, factor)
        losses = self.passes(bucket, batch, self.objective.weight(progress.done))
        self.ranks.average_(self.gradients.flat)
        norm = self.gradients.clip_(recipe.optimizer.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self._balance(recipe.router.bias_step * factor)
        self._clear_loads()
        progress.step += 1
        self.objective.after_step(progress.step, progress.done, self.ranks)
        progress.rows += kinds.shape[0] * self.ranks.world
        if self.average is not None:
            self.average.update(progress.step)
        self.report.add(losses, kinds, norm)

    @torch.no_grad()
    def _balance(self, step: float) -> None:
        """Moves each expert's routing bias towards its fair share (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)."""
        if not self.routers:
            return
        loads = torch.stack([router.load for router in self.routers])  # (L, E)
        self.ranks.sum_(loads)
        self.loads += loads
        moves = step * (loads.mean(dim=1, keepdim=True) - loads).sign()
        for router, move in zip(self.routers, moves, strict=True):
            if router.config.method == "noaux_tc":
                router.e_score_correction_bias.add_(move)

    def _clear_loads(self) -> None:
        for router in self.routers:
            router.load.zero_()

    def _lr_factor(self) -> float:
        schedule = self.recipe.schedule
        return lr_factor(
            self.progress.done,
            warm_up=schedule.warm_up,
            cool_down=schedule.cool_down,
            final=schedule.final_lr,
        )

    def _progress_per_second(self) -> float:
        """Share of the schedule per second; a session that finishes fits what is left into its own time."""
        if self.recipe.schedule.train_seconds is None:
            return 0.0
        if self.session.session_seconds is None or not self.session.finish:
            return 1.0 / self.recipe.schedule.train_seconds
        left = self._session_left()
        if left <= 0:
            raise self._over_before_training()
        return (1.0 - self.progress.done) / left

    def _over_before_training(self) -> ResourceError:
        return ResourceError(
            f"session_seconds {self.session.session_seconds:.0f} were over before training began: "
            f"{RESERVED_SECONDS:.0f} of them are for the end of the run. Allow more time, or lower data.prefill."
        )

    def _session_left(self) -> float:
        """Seconds of this session that are left for training; infinite without a limit."""
        if self.session.session_seconds is None:
            return math.inf
        return self.session.session_seconds - RESERVED_SECONDS - (time.monotonic() - self.begin)

    def _flush(self, waited: float, rendered: float) -> None:
        facts = {
            "step": self.progress.step,
            "progress": self.progress.done,
            "seconds": self.progress.seconds,
            "lr": self._lr_factor(),
            "world": self.ranks.world,
            "rendered": int(rendered),
            "reuse": self.progress.rows / max(float(rendered), 1.0),
            "wait_share": waited / max(self.report.seconds, 1e-9),
            "failed": self.source.num_failed,
        }
        if self.ranks.device.type == "cuda":
            facts["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        record = self.report.flush(facts, self.loads)
        self.loads.zero_()
        if not np.isfinite(record[self.objective.reported[0]]):
            raise ResourceError(
                f"training diverged before step {self.progress.step}: the loss is not a number. Lower the learning "
                "rates."
            )

    def _save_state(self) -> None:
        assert self.session.state is not None
        if self.ranks.is_main:
            save_state(self.session.state, self.progress, self.objective, self.optimizers, self.average)

    def _evaluate(self) -> dict[str, dict[str, float]]:
        return self.subject.evaluate(
            self.objective,
            self.source.evaluation_rings,
            self.source.kinds,
            device=self.ranks.device,
            autocast=self.autocast,
        )

    def _blank_batch(self, bucket: int) -> TrainingBatch:
        shape, encoder = self.recipe.data.buckets[bucket], self.subject.encoder
        size, grid = encoder.view_size, encoder.grid
        device, rows = self.ranks.device, shape.rows
        labels = torch.full((rows, shape.length), -1, dtype=torch.int16, device=device)
        labels[:, -1] = 0
        return TrainingBatch(
            views=torch.zeros(rows, shape.views, size, size, 3, dtype=torch.uint8, device=device),
            characters=torch.full(
                (rows, shape.views, grid, grid, 2), IGNORED_CHARACTER, dtype=torch.uint8, device=device
            ),
            source=torch.full((rows, shape.length), -3, dtype=torch.int16, device=device),
            labels=labels,
        )


def _mean_error(scores: dict[str, dict[str, float]]) -> float:
    return float(np.mean([value["token_error"] for value in scores.values()])) if scores else 0.0


def _silent(line: str) -> None:
    """Ranks other than the first say nothing."""
