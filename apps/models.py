"""The models of a server: which there are, what each needs, which are loaded.

Visitors choose from what the operator named at the start, what is bundled, and what is in the Hugging Face cache of
this machine. A page never takes a name that a visitor types, so nobody makes the server fetch a model.
"""

import gc
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import constants

from mm.config import Quantization
from mm.devices import resolve_device
from mm.environment import device_memory
from mm.errors import MMError, OptionError, ResourceError, TaskError
from mm.families.table import FAMILIES, drawing_models, find_runnable, load_config, runs
from mm.hub import bundled_models, cached_models, find_config, published_configs
from mm.pipeline import Pipeline
from mm.plan import Plan, Workload, make_plan
from mm.transforms.quantize import check_quantization

from .line import Line

Task = Literal["chat", "read", "draw"]
DEFAULTS: dict[Task, str] = {"chat": "nano-vl2", "read": "nano-vl2", "draw": "nano-janus"}
VERBS: dict[Task, str] = {"chat": "look at pictures", "read": "read pages", "draw": "draw"}
GB = 1e9

_log = logging.getLogger("mm.apps")


@dataclass(frozen=True)
class Entry:
    """A model that a visitor may choose."""

    label: str  # in the page
    name: str  # what loads it
    tasks: frozenset[Task]


class Models:
    """The models of a server, shared by its visitors.

    Args:
        names: bundled names, folders or hub ids that the operator asked for; the first one that can do a task is the
            task's default. Without any, the bundled models are.
        device: where models go.
        dtype: of their weights.
        quantization: likewise, as ``Pipeline.from_pretrained`` takes it.
        compile: compile their image encoders.
        line: who may run them.

    Raises:
        CheckpointError: one of the names leads to no model that runs.
        OptionError: the device is not there, or lacks the type of the quantisation.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        device: str = "auto",
        dtype: str = "auto",
        quantization: Quantization | None = None,
        compile: bool = False,
        line: Line | None = None,
    ) -> None:
        if quantization is not None:
            check_quantization(quantization, resolve_device(device))
        self.line = line or Line()
        self._device = device
        self._dtype = dtype
        self._quantization: Quantization | None = quantization
        self._compile = compile
        self._named = tuple(names)
        self._entries: dict[str, Entry] = {}
        self._pipes: dict[str, Pipeline] = {}  # the one that was used last stands at the end
        self._borrowed: set[str] = set()  # a caller's own, never closed here
        self._users: defaultdict[str, int] = defaultdict(int)
        self._plans: dict[str, Plan] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        for name in names:
            self._add(name, _tasks(find_config(name).folder))
        for name in [*bundled_models(), *_cached()]:
            if not any(entry.name == name for entry in self._entries.values()):
                self._add_if_understood(name)

    @classmethod
    def of(cls, pipe: Pipeline) -> "Models":
        """The models around one that is loaded, which is the default of every task that it can do."""
        models = cls()
        models._entries = {label: entry for label, entry in models._entries.items() if entry.name != pipe.name}
        others = models._entries
        models._entries = {}
        label = models._add(pipe.name, frozenset[Task](("chat", "draw" if _draws(pipe) else "read")))
        models._entries.update(others)
        models._named = (pipe.name,)
        models._pipes[label] = pipe
        models._borrowed.add(label)
        return models

    def labels(self, task: Task) -> list[str]:
        """What can do a task."""
        return [label for label, entry in self._entries.items() if task in entry.tasks]

    def default(self, task: Task) -> str | None:
        """What does a task before a visitor chooses: one that the operator named, or bundled; None without any."""
        labels = self.labels(task)
        wanted = [*self._named, DEFAULTS[task]]
        return next((label for name in wanted for label in labels if self._entries[label].name == name), None)

    def lacking(self, task: Task) -> str:
        """Why what the operator asked for does not do a task, as a sentence; empty where it does."""
        named = [entry for entry in self._entries.values() if entry.name in self._named]
        if any(task in entry.tasks for entry in named):
            return ""
        if named:
            names = " and ".join(entry.label for entry in named)
            said = f"{names} cannot {VERBS[task]}."
        elif self.default(task) is not None:
            return ""
        else:
            said = f"{DEFAULTS[task]} is not part of this installation."
        able = self.labels(task)
        if task == "draw":
            able = list(dict.fromkeys([*able, *drawing_models()]))
        return f"{said} Models that can {VERBS[task]}: {', '.join(able) or 'none is here'}."

    def is_loaded(self, label: str | None) -> bool:
        """Whether it can be asked at once."""
        return label in self._pipes

    def get(self, label: str | None, task: Task) -> Pipeline:
        """A loaded model.

        Raises:
            TaskError: there is none for this task.
            OptionError: no such model, or it is not loaded.
        """
        if label is None:
            raise TaskError(self.lacking(task) or f"no model is chosen. Choose one that can {VERBS[task]}")
        if label not in self.labels(task):
            raise OptionError(f"unknown model {label!r}; known: {', '.join(self.labels(task))}")
        pipe = self._pipes.get(label)
        if pipe is None:
            raise OptionError(f"{label} is not loaded. Open the page again and press Load beside its name")
        return pipe

    @contextmanager
    def using(self, label: str | None, task: Task) -> Iterator[Pipeline]:
        """A loaded model, which stays loaded inside the block.

        Raises:
            MMError: as ``get``.
        """
        with self._lock:
            pipe = self.get(label, task)
            assert label is not None
            self._pipes[label] = self._pipes.pop(label)
            self._users[label] += 1
        try:
            yield pipe
        except MMError as error:  # a visitor need not know where the folder of a model is
            name, text = self._entries[label].name, str(error)
            hidden = text.replace(str(Path(name).absolute()), label).replace(name, label)
            if hidden == text:
                raise
            raise type(error)(hidden) from error
        finally:
            with self._lock:
                self._users[label] -= 1

    def plan(self, label: str) -> Plan:
        """What a model needs for one request."""
        if label not in self._plans:
            entry = self._entries[label]
            draws = "draw" in entry.tasks
            work = Workload(images=0, prompt_tokens=64, max_new_tokens=576, batch=2) if draws else Workload()
            checkpoint = find_config(entry.name)
            self._plans[label] = make_plan(
                checkpoint, work, device=self._device, dtype=self._dtype, quantization=self._quantization
            )
        return self._plans[label]

    def needs(self, label: str) -> str:
        """The size of a model, in words."""
        plan = self.plan(label)
        free = device_memory(str(resolve_device(self._device))).available
        return (
            f"{_size(plan.download_bytes)} to read, about {_size(_own_bytes(plan))} of memory while it runs; "
            f"{_size(free)} are free."
        )

    def load(self, label: str, progress: Callable[[str], None] | None = None) -> Pipeline:
        """Load a model, unless it is there. Where it does not fit, models that nobody uses make room.

        Args:
            label: in the page.
            progress: told what happens, in words.

        Raises:
            MMError: it cannot be loaded; the message says why.
        """
        entry = self._entries[label]
        tell = progress or (lambda text: None)
        with self._loading:
            if label not in self._pipes:
                self._fetch(entry, tell)
                self._make_room(label)
                tell(f"Loading {label} ...")
                pipe = Pipeline.from_pretrained(
                    entry.name,
                    device=self._device,
                    dtype=self._dtype,
                    quantization=self._quantization,
                    compile=self._compile,
                    progress=lambda done, whole: tell(f"Loading {label}: {100 * done // whole} %"),
                )
                if pipe.model.image_head is not None:
                    pipe.decode_image([[0]])  # what this imports is there when the first picture is drawn
                with self._lock:
                    self._pipes[label] = pipe
            return self._pipes[label]

    def defaults(self, tasks: Sequence[Task]) -> list[str]:
        """What the tasks start with."""
        return list(dict.fromkeys(label for label in map(self.default, tasks) if label is not None))

    def load_defaults(self, tasks: Sequence[Task]) -> None:
        """Load what the tasks start with.

        Raises:
            MMError: see ``load``.
        """
        for label in self.defaults(tasks):
            self.load(label)

    def close(self) -> None:
        """End every answer, and unload what was loaded here."""
        with self._lock:
            own = [label for label in self._pipes if label not in self._borrowed]
            pipes = [self._pipes.pop(label) for label in own]
        for pipe in pipes:
            pipe.engine.close()

    def _fetch(self, entry: Entry, tell: Callable[[str], None]) -> None:
        """Bring the files of a hub id that are not here yet."""
        if find_config(entry.name).source in ("bundled", "local"):
            return
        wanted, done = self.plan(entry.label).download_bytes, threading.Event()

        def watch() -> None:
            while not done.wait(1):
                here = _cached_bytes(entry.name)
                tell(f"Fetching {entry.label}: {_size(min(here, wanted))} of {_size(wanted)}")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            find_runnable(entry.name)
        except MMError as error:  # it names folders of this machine
            _log.warning("%s", error)
            raise ResourceError(
                f"{entry.label} is not on this server and could not be fetched; the server's log says why. Choose "
                "another model"
            ) from error
        finally:
            done.set()
            watcher.join()

    def _make_room(self, label: str) -> None:
        """Unload models that nobody uses until this one fits.

        Raises:
            ResourceError: it does not fit.
        """
        place = resolve_device(self._device)
        wanted = _own_bytes(self.plan(label))
        while device_memory(str(place)).available < wanted:
            with self._lock:
                idle = [name for name in self._pipes if name not in self._borrowed and not self._users[name]]
                if not idle:
                    raise ResourceError(
                        f"{label} does not fit: {self.needs(label)} Choose a smaller model, start the server with "
                        "--dtype bfloat16, or come back when others have finished"
                    )
                pipe = self._pipes.pop(idle[0])
            _log.info("%s makes room for %s", idle[0], label)
            pipe.engine.close()
            del pipe
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _add(self, name: str, tasks: frozenset[Task]) -> str:
        """A new entry; a folder is called by its last part, so that no visitor sees where it is."""
        base = Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name
        base = name if name in bundled_models() else base
        label, number = base, 1
        while label in self._entries:
            number += 1
            label = f"{base} ({number})"
        self._entries[label] = Entry(label, name, tasks)
        return label

    def _add_if_understood(self, name: str) -> None:
        """What lies in a cache need not be whole."""
        try:
            self._add(name, _tasks(find_config(name).folder))
        except MMError as error:
            _log.info("%s is not offered: %s", name, error)


def _tasks(folder: Path) -> frozenset[Task]:
    """What a checkpoint can do. Those that draw see pictures of one small size, too small for pages."""
    family = FAMILIES.load(load_config(folder).family)
    if family.draws:
        return frozenset[Task](("chat", "draw"))
    return frozenset[Task](("chat", "read") if family.sees else ())


def _draws(pipe: Pipeline) -> bool:
    """Whether a loaded model has a generation side."""
    try:
        return pipe.picture_size is not None
    except TaskError:
        return False


def _cached() -> list[str]:
    """Names of models in the Hugging Face cache that run."""
    try:
        found = cached_models()
    except ResourceError as error:
        _log.warning("%s", error)
        return []
    published = published_configs()
    return [model.name for model in found if runs(model.config) or model.name in published]


def _cached_bytes(name: str) -> int:
    """Bytes of a hub id that have arrived, unfinished files included."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in folder.glob("*") if path.exists())


def _own_bytes(plan: Plan) -> int:
    """Memory beside what the server takes already."""
    return plan.peak.total - plan.peak.overhead


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= 0.95 * GB else f"{num_bytes / 1e6:.0f} MB"
