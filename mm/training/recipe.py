"""Training recipes: a YAML file read once into frozen dataclasses. An unknown or missing key is an error."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.errors import ConfigError, MissingExtraError
from mm.training.optim import OptimizerRecipe


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe:
    """How long to train and how the learning rate moves; every share is of the whole schedule (0..1).

    Exactly one of ``train_seconds`` and ``max_steps`` is set: time spent in the training loop, or optimizer steps.
    """

    train_seconds: float | None
    max_steps: int | None
    warm_up: float
    cool_down: float
    final_lr: float  # factor of the peak at the end

    def __post_init__(self) -> None:
        if (self.train_seconds is None) == (self.max_steps is None):
            raise ConfigError("schedule: set exactly one of train_seconds and max_steps, and the other to null.")


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """The auxiliary character map (weight linear from start to end) and the weight of an answer by its length."""

    char_map_start: float
    char_map_end: float
    char_map_blank: float  # weight of patches without text
    length_power: float  # a row's answer tokens weigh num_tokens ** length_power each


@dataclass(frozen=True, kw_only=True)
class DrawingLossRecipe:
    """Training of a Janus: every row is a drawing (prompt, then codes) and a picture with questions."""

    drawn_length: int  # the first tokens of a row, prompt and codes; the rest are the picture with questions
    condition_dropout: float  # share of drawings whose prompt is replaced by the unconditional one
    text: float  # weight of the answers beside the codes
    length_power: float  # an answer token of a row with n of them weighs n ** length_power
    patch_start: float  # weight of the map of shapes and colours, linear from start to end
    patch_end: float
    patch_blank: float  # weight of patches without an object
    codes_from_tokenizer: bool  # code embeddings begin as the rows of the codebook
    vision_from: str | None  # a model whose encoder's first blocks are taken over, where the widths agree


@dataclass(frozen=True, kw_only=True)
class TokenizerLossRecipe:
    """Training of a Janus's image tokenizer; nothing else of the model is trained."""

    foreground: float  # weight of pixels near an object; the background's is 1
    squared: float  # weight of the squared error beside the absolute one
    commitment: float  # weight of the distance of a vector to its code; the code's to the vector weighs 1
    free_until: float  # share of the schedule before which pictures are painted from vectors, not yet from codes
    reseed_steps: int  # codes that no picture used in so many steps are moved to vectors of the latest pictures
    reseed_until: float  # share of the schedule after which no code is moved
    right_decibels: float  # pictures with a lower PSNR count as wrong in the log


@dataclass(frozen=True, kw_only=True)
class RouterRecipe:
    """Auxiliary-loss-free balancing: ``bias_step`` times the learning-rate factor is added or taken a step."""

    bias_step: float


@dataclass(frozen=True, kw_only=True)
class BucketRecipe:
    """Samples of one shape: at most ``views`` encoder views and ``length`` tokens; a step takes ``rows`` of them.

    An image of one tile needs one view only: its global view and its tile are the same pixels.
    """

    views: int
    length: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe:
    """The mix of sample kinds, and the range of their difficulty, that is rendered until a share of the schedule."""

    until: float
    level: tuple[float, float]  # drawn uniformly for each sample; 0 is clean and short, 1 is everything
    max_tiles: int  # of an image; a larger image is scaled down
    kinds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Rendering: processes, memory and shapes."""

    workers: int | None  # per rank; 0 renders in the training process, null takes the machine's cores but two
    ring_gib: float  # per rank, for all buckets together
    prefill: int  # samples of a rank before the first step
    look_ahead: float  # the mix is taken this share of the schedule ahead, for what the rings hold
    fonts: str | None  # a folder of fonts, null for the machine's
    buckets: tuple[BucketRecipe, ...]
    phases: tuple[PhaseRecipe, ...]

    def __post_init__(self) -> None:
        if not self.phases or self.phases[-1].until < 1.0:
            raise ConfigError("data.phases: the last phase must reach until: 1.0.")
        if not self.buckets:
            raise ConfigError("data.buckets: at least one bucket is needed.")
        for phase in self.phases:
            if not phase.kinds or min(phase.kinds.values()) < 0 or sum(phase.kinds.values()) <= 0:
                raise ConfigError(f"data.phases: the phase until {phase.until} needs kinds with positive weights.")


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """The check at the end, on unseen fonts and words."""

    kinds: tuple[str, ...]
    samples: int  # per kind


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """Precision, launches, averaging and how often to report and save."""

    precision: typing.Literal["bf16", "float32"]
    compile: bool  # on a GPU, fused kernels for the blocks; elsewhere without meaning
    cuda_graphs: bool  # on a GPU, one launch a pass for each bucket's shape; elsewhere without meaning
    moe_dispatch: typing.Literal["auto", "dense"]
    ema_decay: float  # per step; 0 keeps no average
    log_seconds: float
    state_seconds: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run."""

    model: str  # a bundled model's name or a folder with config.json and the tokenizer
    seed: int
    schedule: ScheduleRecipe
    optimizer: OptimizerRecipe
    loss: LossRecipe | DrawingLossRecipe | TokenizerLossRecipe  # by its keys; decides what is trained
    router: RouterRecipe
    data: DataRecipe
    evaluation: EvaluationRecipe
    run: RunRecipe


def load_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: the YAML file.
        overrides: ``section.key=value`` strings, the value in YAML.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown or missing, a value has the wrong type.
        MissingExtraError: pyyaml is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "train", "reading a training recipe") from error
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the recipe {path} cannot be read ({error.strerror}). Name a YAML file such as configs/nano_vl2.yaml."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"the recipe {path} must hold a mapping, got {type(raw).__name__}.")
    for override in overrides:
        name, equals, value = override.partition("=")
        *sections, key = name.split(".")
        target: Any = raw
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not equals or not isinstance(target, dict) or key not in target:
            raise ConfigError(f"cannot set {override!r}: write section.key=value with a key that the recipe has.")
        target[key] = yaml.safe_load(value)
    recipe: Recipe = _parse(Recipe, raw, "recipe")
    return recipe


def _parse(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind``: a dataclass, tuple, mapping, literal, union with None or plain type."""
    if dataclasses.is_dataclass(kind):
        return _parse_record(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        inner = [argument for argument in arguments if argument is not type(None)]
        if value is None and len(inner) < len(arguments):
            return None
        # Of several records the one that shares most keys with the value.
        keys = set(value) if isinstance(value, dict) else set()

        def shared(record: Any) -> int:
            return len(keys & typing.get_type_hints(record).keys())

        return _parse(inner[0] if len(inner) == 1 else max(inner, key=shared), value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(value)}.")
        return tuple(_parse(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {str(key): _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: got {value!r}, expected one of {', '.join(map(repr, arguments))}.")
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: got {value!r}, expected {getattr(kind, '__name__', kind)}.")


def _parse_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: got {value!r}, expected a mapping.")
    hints = typing.get_type_hints(kind)
    unknown, missing = sorted(value.keys() - hints.keys()), sorted(hints.keys() - value.keys())
    if unknown or missing:
        parts = [f"unknown: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        raise ConfigError(f"{where}: {'; '.join(parts)}. The keys are {', '.join(hints)}.")
    return kind(**{name: _parse(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
