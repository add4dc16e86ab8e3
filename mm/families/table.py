"""Every family in one table, and what one does with a checkpoint folder: read its config, build, load, save."""

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mm.devices import resolve_device, resolve_dtype
from mm.errors import CheckpointNotFoundError, ConfigError, OptionError, ResourceError, TaskError
from mm.families.family import Family, FamilyConfig
from mm.generation.image_head import ImageHead
from mm.hub import AUTOENCODER_FILES, Checkpoint, bundled_models, find_checkpoint, find_config, published_configs
from mm.model import VisionLanguageModel
from mm.pictures import DrawDefaults
from mm.processing.base import Processor, ProcessorSpec
from mm.registry import Registry
from mm.shards import tensor_shapes
from mm.weights import Placement, Progress, load_weights, save_weights

# The shipped models stay under the size that plain git and every code host accept.
MAX_SHARD_BYTES = 15 * 2**20
PUBLISHED_SHARD_BYTES = 5 * 10**9

# Files of a checkpoint that are copied when a model is saved: everything small that is not weights.
COPIED_SUFFIXES = (".json", ".md", ".txt", ".model", ".jinja")


FAMILIES = Registry(
    "model family",
    {
        "deepseek_vl": "mm.families.deepseek_vl:FAMILY",
        "deepseek_vl2": "mm.families.deepseek_vl2:FAMILY",
        "janus": "mm.families.janus:FAMILY",
        "janusflow": "mm.families.janusflow:FAMILY",
        "text": "mm.families.text:FAMILY",
    },
)
_TEXT = ("llama", "qwen2", "deepseek", "deepseek_v2", "deepseek_v3")
MODEL_TYPES = ("deepseek_vl_v2", "multi_modality", *_TEXT)
# Three families share a model_type; the first key that a config.json has decides.
_MULTI_MODALITY = {"gen_vision_config": "janus", "vision_gen_enc_config": "janusflow", "vision_config": "deepseek_vl"}


def drawing_defaults(folder: Path) -> DrawDefaults:
    """What a model draws with where a caller names nothing: ``drawing`` of the folder's generation_config.json.

    Raises:
        ConfigError: the file or the value is no JSON object, a key is unknown, or a number is out of its range.
    """
    path = folder / "generation_config.json"
    values = read_json(path).get("drawing", {}) if path.is_file() else {}
    known = [field.name for field in fields(DrawDefaults)]
    numbers = values.values() if isinstance(values, dict) else [None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) or not {*values} <= {*known}:
        raise ConfigError(
            f"{path} has drawing {values!r}; expected an object of numbers, of {', '.join(known)}. Correct it, or "
            "leave it out."
        )
    try:
        return DrawDefaults(**values)
    except OptionError as error:
        raise ConfigError(f"{path}: {error}. Correct it, or leave it out.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointNotFoundError: no such file.
        ConfigError: not a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{path.parent} has no {path.name}, so it is no model folder. Expected config.json, processor_config.json, "
            "tokenizer.json and *.safetensors or *.bin files."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Check its permissions.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not readable as JSON ({error}). Download it again.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}; expected a JSON object.")
    return raw


def family_of(raw: dict[str, Any]) -> str:
    """The family's name for a config.json.

    Raises:
        ConfigError: a model of another kind.
    """
    model_type = raw.get("model_type")
    if model_type == "deepseek_vl_v2":
        return "deepseek_vl2"
    if model_type in _TEXT:
        return "text"
    if model_type == "multi_modality":
        name = next((name for key, name in _MULTI_MODALITY.items() if key in raw), None)
        if name in FAMILIES.names():
            return str(name)
        kind = f"of a {name} model" if name else f"of none of its kinds: it has none of {', '.join(_MULTI_MODALITY)}"
        raise ConfigError(
            f"config.json says model_type 'multi_modality' and is {kind}, which mm does not run. Choose another model; "
            "'mm models' lists what is known."
        )
    raise ConfigError(
        f"config.json says model_type {model_type!r}, which mm does not run; it runs {', '.join(MODEL_TYPES)}. "
        "Choose another model; 'mm models' lists what is known."
    )


def runs(raw: dict[str, Any] | None) -> bool:
    """Whether a config.json is of a family that runs; nothing but its kind is looked at."""
    try:
        return raw is not None and bool(family_of(raw))
    except ConfigError:
        return False


def load_config(folder: Path) -> FamilyConfig:
    """The parsed config.json of a checkpoint folder.

    Raises:
        CheckpointNotFoundError: no config.json there.
        ConfigError: a file that is not understood to the last key.
    """
    raw = read_json(Path(folder) / "config.json")
    family: Family[Any] = FAMILIES.load(family_of(raw))
    config: FamilyConfig = family.parse_config(raw)
    return config


def find_runnable(name: str, revision: str | None = None) -> Checkpoint:
    """Like `mm.hub.find_checkpoint`; a hub id of a model that does not run is refused before its weights are fetched.

    Raises:
        CheckpointError: as there, or its config.json is not of a model that runs.
    """
    config = find_config(name, revision)
    if config.source == "hub":
        load_config(config.folder)
    return find_checkpoint(name, revision)


def build_model(config: FamilyConfig, *, device: str | torch.device = "meta") -> VisionLanguageModel:
    """The model with uninitialised ("meta") or freshly initialised weights."""
    family: Family[Any] = FAMILIES.load(config.family)
    with torch.device(device):
        return family.build(config)


def unused_elements(config: FamilyConfig) -> int:
    """Numbers that a published file of this model holds and the model does not use."""
    family: Family[Any] = FAMILIES.load(config.family)
    return family.unused_elements(config)


def published_bytes(config: FamilyConfig, elements: int) -> int:
    """Bytes of a published file of this model with so many numbers: two each, but where weights are in FP8."""
    family: Family[Any] = FAMILIES.load(config.family)
    if family.published_bytes is None or family.block(config) is None:
        return elements * torch.bfloat16.itemsize
    return family.published_bytes(config)


def load_model(
    folder: Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    progress: Progress | None = None,
    placement: Placement | None = None,
) -> VisionLanguageModel:
    """The model of a checkpoint folder, strictly loaded, in evaluation mode, without gradients.

    Args:
        folder: of the checkpoint.
        device: where the model goes.
        dtype: type of its weights there.
        progress: see `mm.weights.load_weights`.
        placement: where each parameter goes instead.

    Raises:
        CheckpointError: the folder is not a complete checkpoint of a known family.
        OptionError: unknown device or dtype.
    """
    folder = Path(folder)
    config = load_config(folder)
    family: Family[Any] = FAMILIES.load(config.family)
    place = resolve_device(device)
    if family.restrict is not None:
        config = family.restrict(config, tensor_shapes(folder))
    model = build_model(config)
    load_weights(
        model,
        folder,
        family.keys(config),
        device=place if placement is None else placement,
        dtype=resolve_dtype(dtype, place),
        scale_block=family.block(config),
        progress=progress,
    )
    model.decoder.read_placement()
    return model.eval().requires_grad_(False)


def known_parameters() -> dict[FamilyConfig, int]:
    """Parameters of the bundled and the published models, by config: counted once, for building each takes seconds.

    The numbers are those of ``parameters.json`` beside this file, which a test counts again.
    """
    numbers = read_json(Path(__file__).with_name("parameters.json"))
    folders = {**bundled_models(), **published_configs()}
    return {load_config(folder): numbers[name] for name, folder in folders.items() if name in numbers}


def drawing_models() -> list[str]:
    """Names of the known models that can draw: bundled ones, then published ones."""
    folders = {**bundled_models(), **published_configs()}
    return [name for name, folder in folders.items() if FAMILIES.load(load_config(folder).family).draws]


def image_head_of(model: VisionLanguageModel, name: str) -> ImageHead:
    """The generation side of a model; ``name`` is for the message.

    Raises:
        TaskError: it has none.
    """
    if model.image_head is None:
        raise cannot_draw(name)
    return model.image_head


def seeing_models() -> list[str]:
    """Names of the known models that take images: bundled ones, then published ones."""
    folders = {**bundled_models(), **published_configs()}
    return [name for name, folder in folders.items() if FAMILIES.load(load_config(folder).family).sees]


def cannot_see(name: str) -> TaskError:
    """What to tell who shows an image to a model that reads text only."""
    return TaskError(
        f"{name} reads text only and takes no image. Leave the image out, or choose a model that sees: "
        f"{', '.join(seeing_models())}"
    )


def cannot_draw(name: str) -> TaskError:
    """What to tell who wants a picture of a model without a generation side."""
    return TaskError(
        f"{name} has no generation side (its weights hold none), so it cannot draw. Models that can: "
        f"{', '.join(drawing_models())}"
    )


def has_no_codes(name: str) -> TaskError:
    """What to tell who wants image codes of a model that draws by flow."""
    others = [
        known for known in drawing_models() if not FAMILIES.load(load_config(find_config(known).folder).family).flows
    ]
    return TaskError(f"{name} draws by flow and has no image codes. Models that have some: {', '.join(others)}")


def load_processor(folder: Path) -> Processor:
    """The processor (tokenizer, template, image geometry) of a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, contradicts itself, or contradicts config.json.
    """
    folder = Path(folder)
    config = load_config(folder)
    family: Family[Any] = FAMILIES.load(config.family)
    processor: Processor = family.build_processor(folder, config)
    _check_vocabulary(folder, config, processor)
    return processor


@dataclass(frozen=True)
class PromptToken:
    """A token that prompts are made of."""

    purpose: str  # "user", "assistant", "image", ...
    text: str
    id: int | None  # None: several tokens, or there is no tokenizer in the folder


def prompt_tokens(folder: Path) -> list[PromptToken]:
    """Role and image tokens of a checkpoint; ids only where its tokenizer is in the folder.

    Raises:
        CheckpointError: a file is missing or wrong.
    """
    folder = Path(folder)
    family: Family[Any] = FAMILIES.load(load_config(folder).family)
    texts = family.prompt_tokens(family.read_spec(folder))
    ids = load_processor(folder).tokenizer.ids(texts.values()) if (folder / "tokenizer.json").is_file() else {}
    return [PromptToken(purpose, text, ids.get(text)) for purpose, text in texts.items()]


def load_spec(folder: Path) -> ProcessorSpec:
    """The processor's settings in a checkpoint folder; needs no tokenizer.

    Raises:
        CheckpointError: config.json or the processor's files are missing or wrong.
    """
    family: Family[Any] = FAMILIES.load(load_config(folder).family)
    return family.read_spec(Path(folder))


def _check_vocabulary(folder: Path, config: FamilyConfig, processor: Processor) -> None:
    """A wrong id would end a CUDA process, not a call."""
    highest, rows = processor.tokenizer.highest_id, config.decoder.vocab_size
    if highest >= rows:
        place = "language_config." if FAMILIES.load(config.family).sees else ""
        raise ConfigError(
            f"{folder}: the tokenizer has ids up to {highest} (special tokens that it lacked included), but "
            f"{place}vocab_size is {rows}. The tokenizer is of another model: download the folder again."
        )


def save_pretrained(
    model: VisionLanguageModel,
    folder: Path,
    *,
    source: Path,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = PUBLISHED_SHARD_BYTES,
) -> None:
    """Write a checkpoint folder in the published layout, which other engines load as well.

    Args:
        model: a model of the architecture that ``source`` describes.
        folder: created when missing; must not hold other weights.
        source: the folder the model was built from: its config, tokenizer and processor files are copied, the
            autoencoder of a model that draws by flow where it is in the folder ``vae``, and the tensors that the model
            drops on purpose, where it has weights.
        dtype: type on disk.
        max_shard_bytes: largest size of one file.

    Raises:
        ResourceError: the folder cannot be written or holds weights already.
        TaskError: the model's weights are in one byte each.
    """
    if model.decoder.quantization is not None:
        raise TaskError(
            f"weights in {model.decoder.quantization} cannot be written in the published layout, and what was rounded "
            "is lost. Load the model without quantization and save that."
        )
    folder, source = Path(folder), Path(source)
    config = load_config(source)
    family: Family[Any] = FAMILIES.load(config.family)
    has_weights = any(source.glob("*.safetensors")) or any(source.glob("*.bin"))
    copied: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
        if present:
            raise ResourceError(f"{folder} already holds weights ({present[0]}). Choose an empty folder.")
        if folder.resolve() != source.resolve():
            files = [path for path in sorted(source.iterdir()) if path.suffix in COPIED_SUFFIXES]
            files = [path for path in files if not path.name.endswith(".index.json")]
            if model.flow_head is not None:
                files += [path for path in (source / "vae" / name for name in AUTOENCODER_FILES) if path.is_file()]
            for path in files:
                target = folder / path.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    copied.append(target)
                shutil.copyfile(path, target)
        if family.block(config) is not None:
            _drop_quantization(folder / "config.json")
        save_weights(
            model,
            folder,
            family.keys(config),
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
            source=source if has_weights else None,
            scale_block=family.block(config),
        )
    except (OSError, ResourceError) as error:
        for path in copied:
            path.unlink(missing_ok=True)
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(f"cannot write to {folder} ({error.strerror}). Choose another folder.") from error


def _drop_quantization(path: Path) -> None:
    """What is saved is in one type, so its config.json must not promise FP8 weights with scales."""
    raw = read_json(path)
    raw.pop("quantization_config", None)
    path.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
