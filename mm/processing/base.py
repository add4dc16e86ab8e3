"""What every processor has: its published settings, and the face the rest of the framework sees."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from mm.chat import CHAT_TEMPLATES, Message
from mm.contracts import Batch, Inputs
from mm.errors import ConfigError, ResourceError
from mm.images import ImageSource
from mm.tokenizer import Tokenizer

_REQUIRED = (
    "candidate_resolutions",
    "downsample_ratio",
    "ignore_id",
    "image_mean",
    "image_std",
    "image_token",
    "mask_prompt",
    "normalize",
    "pad_token",
    "patch_size",
    "sft_format",
)
# Read by Hugging Face's loaders or unused by the published processor.
_IGNORED = ("add_special_token", "auto_map", "processor_class", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class ProcessorSpec:
    """processor_config.json of a DeepSeek-VL2 model, checked."""

    image_size: int  # pixels a side of one tile; published as the first candidate resolution
    patch_size: int  # pixels
    downsample_ratio: int
    candidate_resolutions: tuple[tuple[int, int], ...]  # width, height in pixels, in the published order
    image_mean: tuple[float, float, float]  # of values in 0..1
    image_std: tuple[float, float, float]
    normalize: bool
    image_token: str
    pad_token: str
    mask_prompt: bool
    ignore_id: int
    sft_format: str

    @classmethod
    def from_folder(cls, folder: str | Path) -> "ProcessorSpec":
        """Read ``folder``/processor_config.json.

        Raises:
            ConfigError: the file is missing or is not JSON, or see ``from_dict``.
        """
        path = Path(folder) / "processor_config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{folder} has no processor_config.json. Download the whole model folder again"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}. Download it again") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds a {type(values).__name__}, expected a JSON object. Download it again")
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ProcessorSpec":
        """Check the keys of processor_config.json; unknown ones give a warning.

        Raises:
            ConfigError: keys are missing, of a wrong type or contradict each other; all of them are named.
        """
        missing = [key for key in _REQUIRED if key not in values]
        if missing:
            raise ConfigError(
                f"processor_config.json lacks {', '.join(missing)}. Is this a DeepSeek-VL2 model? "
                "Download the file again"
            )
        unknown = sorted(set(values) - set(_REQUIRED) - set(_IGNORED))
        if unknown:
            warnings.warn(f"processor_config.json: unknown keys are not used: {', '.join(unknown)}", stacklevel=2)
        problems: list[str] = []
        if values.get("processor_class", "DeepseekVLV2Processor") != "DeepseekVLV2Processor":
            problems.append(f"processor_class is {values['processor_class']!r}, expected 'DeepseekVLV2Processor'")
        resolutions = _resolutions(values["candidate_resolutions"], problems)
        for key in ("patch_size", "downsample_ratio"):
            _check(values, key, _is_int(values[key]) and values[key] > 0, "a positive integer", problems)
        _check(
            values,
            "ignore_id",
            _is_int(values["ignore_id"]) and values["ignore_id"] < 0,
            "a negative integer",
            problems,
        )
        for key in ("image_token", "pad_token"):
            _check(values, key, isinstance(values[key], str) and bool(values[key]), "a string", problems)
        for key in ("mask_prompt", "normalize"):
            _check(values, key, isinstance(values[key], bool), "true or false", problems)
        _check(values, "image_mean", _is_colour(values["image_mean"], 0.0), "three numbers within 0..1", problems)
        _check(values, "image_std", _is_colour(values["image_std"], 1e-6), "three numbers above 0, up to 1", problems)
        known = values["sft_format"] in CHAT_TEMPLATES
        _check(values, "sft_format", known, f"one of {', '.join(CHAT_TEMPLATES)}", problems)
        if not problems and values["patch_size"] > resolutions[0][0]:
            problems.append(f"patch_size {values['patch_size']} is larger than a tile of {resolutions[0][0]} pixels")
        if problems:
            raise ConfigError(f"processor_config.json: {'; '.join(problems)}. Fix the file or download it again")
        return cls(
            image_size=resolutions[0][0],
            patch_size=values["patch_size"],
            downsample_ratio=values["downsample_ratio"],
            candidate_resolutions=resolutions,
            image_mean=_colour(values["image_mean"]),
            image_std=_colour(values["image_std"]),
            normalize=values["normalize"],
            image_token=values["image_token"],
            pad_token=values["pad_token"],
            mask_prompt=values["mask_prompt"],
            ignore_id=values["ignore_id"],
            sft_format=values["sft_format"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of processor_config.json, as published; ``from_dict`` reads them back."""
        return {
            "add_special_token": False,
            "candidate_resolutions": [list(size) for size in self.candidate_resolutions],
            "downsample_ratio": self.downsample_ratio,
            "ignore_id": self.ignore_id,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "image_token": self.image_token,
            "mask_prompt": self.mask_prompt,
            "normalize": self.normalize,
            "pad_token": self.pad_token,
            "patch_size": self.patch_size,
            "processor_class": "DeepseekVLV2Processor",
            "sft_format": self.sft_format,
        }

    def save(self, folder: str | Path) -> None:
        """Write ``folder``/processor_config.json.

        Raises:
            ResourceError: the file cannot be written.
        """
        path = Path(folder) / "processor_config.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ResourceError(
                f"cannot write {path}: {error.strerror or error}. Free space or pick another folder"
            ) from error

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """The colour around an image that does not fill its canvas: the mean, rounded down, as published."""
        red, green, blue = (int(value * 255) for value in self.image_mean)
        return red, green, blue


class Processor(Protocol):
    """Messages and images in, tensors out."""

    spec: ProcessorSpec
    tokenizer: Tokenizer

    def process(
        self,
        messages: Sequence[Message],
        *,
        max_tiles: int | None = None,
        official_images: bool = False,
        training: bool = False,
    ) -> Inputs:
        """One conversation as tensors."""
        ...

    def views(
        self, image: Image.Image, *, tiling: bool, max_tiles: int | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """(n, S, S, 3) uint8 views of one image, the global view first, and its grid."""
        ...

    def normalize(self, views: np.ndarray) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, 3, S, S) float32."""
        ...

    def collate(self, rows: list[Inputs], side: Literal["left", "right"] = "left") -> Batch:
        """Several conversations as one rectangle."""
        ...

    def num_image_tokens(self, width: int, height: int, num_images: int = 1, max_tiles: int | None = None) -> int:
        """Tokens that one image takes."""
        ...

    def process_prompt(
        self,
        prompt: str,
        images: Sequence[ImageSource],
        *,
        apply_template: bool,
        max_tiles: int | None = None,
        official_images: bool = False,
    ) -> Inputs:
        """A prompt string in which special tokens are control tokens, as tensors."""
        ...


def _check(values: dict[str, Any], key: str, right: bool, expected: str, problems: list[str]) -> None:
    if not right:
        problems.append(f"{key} is {values[key]!r}, expected {expected}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_colour(value: object, smallest: float) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and smallest <= v <= 1 for v in value)
    )


def _colour(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _resolutions(value: object, problems: list[str]) -> tuple[tuple[int, int], ...]:
    """The candidate resolutions; what is wrong with them goes to ``problems``."""
    right = (
        isinstance(value, list)
        and value
        and all(
            isinstance(size, list) and len(size) == 2 and all(_is_int(side) and side > 0 for side in size)
            for size in value
        )
    )
    if not right or not isinstance(value, list):
        problems.append("candidate_resolutions must be a list of [width, height] in pixels")
        return ((1, 1),)
    tile = value[0][0]
    if value[0][1] != tile:
        problems.append(f"the first of candidate_resolutions must be one square tile, got {value[0]}")
    odd = [size for size in value if size[0] % tile or size[1] % tile]
    if odd:
        problems.append(f"candidate_resolutions {odd} are not multiples of the tile of {tile} pixels (the first entry)")
    return tuple((width, height) for width, height in value)
