"""What a family gives to the rest of the library."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mm.config import DecoderConfig, Encoder, VisionConfig
from mm.errors import ConfigError
from mm.model import VisionLanguageModel
from mm.processing.base import Processor, ProcessorSpec
from mm.weights import KeyMap


class FamilyConfig(Protocol):
    """What the rest of the library may ask of any family's config; all else is between a config and its family."""

    def __hash__(self) -> int:
        """Equal configs are one key of a table."""
        ...

    @property
    def family(self) -> str:
        """Name in the table of families."""
        ...

    @property
    def vision(self) -> Encoder:
        """The encoder."""
        ...

    @property
    def decoder(self) -> DecoderConfig:
        """The language model."""
        ...


Config = TypeVar("Config", bound=FamilyConfig)


@dataclass(frozen=True, kw_only=True)
class Family(Generic[Config]):
    """One line of the table of families.

    Attributes:
        parse_config: config.json -> config.
        build: the model on the current default device.
        read_spec: the processor's settings in a folder, without its tokenizer.
        prompt_tokens: settings -> {purpose: text} of the tokens for roles and images, as prompts are made of them.
        build_processor: the processor of a folder, checked against the config.
        key_map: published tensors and parameters; ``keys`` is what holds for one config.
        unused_elements: numbers in a published file that the model does not use (the key map's dropped tensors).
        draws: whether its complete checkpoints have a generation side.
        flows: whether that draws by flow, through an autoencoder that is downloaded apart.
        sees: whether its models take images.
        key_map_of: where the names in files depend on the config: its key map.
        scale_block: config -> rows and columns of a weight that share a scale, or None; only of families whose files
            may hold FP8 weights.
        published_bytes: config -> bytes of a published file, where its weights are in FP8.
        restrict: config and {name: shape} of the tensors in a folder -> the config of the model that they are, or an
            error that says more than a list of names; None where a family's folders always hold all of it.
    """

    parse_config: Callable[[dict[str, Any]], Config]
    build: Callable[[Config], VisionLanguageModel]
    read_spec: Callable[[Path], ProcessorSpec]
    prompt_tokens: Callable[[Any], Mapping[str, str]]
    build_processor: Callable[[Path, Config], Processor]
    key_map: KeyMap
    unused_elements: Callable[[Config], int]
    restrict: Callable[[Config, Mapping[str, tuple[int, ...]]], Config] | None = None
    draws: bool = False
    flows: bool = False
    sees: bool = True
    key_map_of: Callable[[Config], KeyMap] | None = None
    scale_block: Callable[[Config], tuple[int, int] | None] | None = None
    published_bytes: Callable[[Config], int] | None = None

    def keys(self, config: Config) -> KeyMap:
        """The key map of a model with this config."""
        return self.key_map if self.key_map_of is None else self.key_map_of(config)

    def block(self, config: Config) -> tuple[int, int] | None:
        """Rows and columns of an FP8 weight that share a scale; None where the files hold no such weights."""
        return None if self.scale_block is None else self.scale_block(config)


def check_agreement(
    folder: Path, pairs: Iterable[tuple[str, object, str, object]], *, file: str = "processor_config.json"
) -> None:
    """What the processor makes must be what the model takes.

    Args:
        folder: for the message.
        pairs: key of ``file``, its value, the place in config.json that must agree, and the value there.
        file: of the processor.

    Raises:
        ConfigError: two values differ.
    """
    for key, found, place, expected in pairs:
        if found != expected:
            raise ConfigError(
                f"{folder}: {file} has {key} {found}, but {place} has {expected}. The two files are of "
                "different models: download the folder again."
            )


def pooling_head_parameters(vision: VisionConfig) -> int:
    """Parameters of SigLIP's attention-pooling head, which published files hold and no DeepSeek model uses.

    A learned query, q, kv and output projections, a LayerNorm and an MLP, all with biases (timm's AttentionPoolLatent).
    """
    width, inner = vision.width, vision.mlp_width
    attention = width + 4 * (width * width + width)
    return attention + 2 * width + 2 * width * inner + inner + width
