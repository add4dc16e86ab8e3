"""Settings of the processor of DeepSeek-VL, Janus and JanusFlow: processor_config.json, preprocessor_config.json."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm.errors import ConfigError
from mm.processing.base import (
    Colour,
    as_colour,
    check_setting,
    is_colour,
    is_int,
    read_settings,
    whole_colour,
    write_settings,
)

PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Tokens around and for an image, by string; published files name some of them, the processor class the rest."""

    image: str
    image_start: str | None  # None: nothing stands before and after an image
    image_end: str | None
    pad: str | None  # None: the tokenizer's, else its end token
    generation: str | None = None  # after it a picture is drawn by flow; None: not in this family
    start_is_image: bool = False  # the model puts a vector of its own in the place of ``image_start``


_TAG_KEYS = {"image_tag": "image", "image_start_tag": "image_start", "image_end_tag": "image_end", "pad_tag": "pad"}
_FLOW_KEYS = {**_TAG_KEYS, "image_gen_tag": "generation"}
_PROCESSOR_KEYS = ("ignore_id", "mask_prompt", "num_image_tokens", "sft_format")
_PREPROCESSOR_KEYS = (
    "do_normalize",
    "image_mean",
    "image_size",
    "image_std",
    "min_size",
    "rescale_factor",
)
# The published class computes it from the mean; files that it saved name it as well.
_BACKGROUND = "background_color"
# Read by Hugging Face's loaders or unused by the published processor.
_IGNORED = ("add_special_token", "auto_map", "image_processor_type", "processor_class", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class VLMSpec:
    """Both files, checked. An image is one view: scaled to fit a square, with bars of the background colour."""

    image_size: int  # pixels a side of the square
    min_size: int  # pixels that the shorter side keeps at least
    background_color: tuple[int, int, int]
    image_mean: Colour  # of values in 0..1
    image_std: Colour
    rescale_factor: float  # bytes times this are 0..1
    normalize: bool
    num_image_tokens: int
    tags: Tags
    mask_prompt: bool
    ignore_id: int
    sft_format: str

    @classmethod
    def from_folder(cls, folder: str | Path, *, tags: Tags, formats: Collection[str]) -> "VLMSpec":
        """Read a model folder.

        Args:
            folder: holds both files.
            tags: the defaults of the family.
            formats: the values of ``sft_format`` that the family knows.

        Raises:
            ConfigError: a file is missing or is not JSON, or see ``from_dicts``.
        """
        processor, preprocessor = (read_settings(Path(folder) / name) for name in (PROCESSOR, PREPROCESSOR))
        return cls.from_dicts(processor, preprocessor, tags=tags, formats=formats)

    @classmethod
    def from_dicts(
        cls, processor: Mapping[str, Any], preprocessor: Mapping[str, Any], *, tags: Tags, formats: Collection[str]
    ) -> "VLMSpec":
        """Check the keys of both files; unknown ones give a warning.

        Raises:
            ConfigError: keys are missing or wrong; all of a file are named.
        """
        names = _TAG_KEYS if tags.generation is None else _FLOW_KEYS
        _check_keys(PROCESSOR, processor, _PROCESSOR_KEYS, (*names, *_IGNORED))
        _check_keys(PREPROCESSOR, preprocessor, _PREPROCESSOR_KEYS, (_BACKGROUND, *_IGNORED))
        problems: list[str] = []
        given = {key: processor[key] for key in names if key in processor}
        for key, value in given.items():
            check_setting(given, key, isinstance(value, str) and bool(value), "a string", problems)
        check_setting(
            processor, "ignore_id", is_int(processor["ignore_id"]) and processor["ignore_id"] < 0, "a negative integer",
            problems,
        )  # fmt: skip
        _check_positive(processor, "num_image_tokens", problems)
        check_setting(processor, "mask_prompt", isinstance(processor["mask_prompt"], bool), "true or false", problems)
        known = isinstance(processor["sft_format"], str) and processor["sft_format"] in formats
        check_setting(processor, "sft_format", known, f"one of {', '.join(formats)}", problems)
        _refuse(PROCESSOR, problems)
        _check_preprocessor(preprocessor, problems)
        _refuse(PREPROCESSOR, problems)
        mean = as_colour(preprocessor["image_mean"])
        red, green, blue = preprocessor.get(_BACKGROUND, whole_colour(mean))
        return cls(
            image_size=preprocessor["image_size"],
            min_size=preprocessor["min_size"],
            background_color=(red, green, blue),
            image_mean=mean,
            image_std=as_colour(preprocessor["image_std"]),
            rescale_factor=float(preprocessor["rescale_factor"]),
            normalize=preprocessor["do_normalize"],
            num_image_tokens=processor["num_image_tokens"],
            tags=replace(tags, **{names[key]: value for key, value in given.items()}),
            mask_prompt=processor["mask_prompt"],
            ignore_id=processor["ignore_id"],
            sft_format=processor["sft_format"],
        )

    def to_dicts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keys of both files, as published; ``from_dicts`` reads them back."""
        tags = {key: getattr(self.tags, name) for key, name in _FLOW_KEYS.items()}
        processor = {
            "add_special_token": False,
            "ignore_id": self.ignore_id,
            **{key: tag for key, tag in tags.items() if tag is not None},
            "mask_prompt": self.mask_prompt,
            "num_image_tokens": self.num_image_tokens,
            "processor_class": "VLChatProcessor",
            "sft_format": self.sft_format,
        }
        preprocessor = {
            "background_color": list(self.background_color),
            "do_normalize": self.normalize,
            "image_mean": list(self.image_mean),
            "image_processor_type": "VLMImageProcessor",
            "image_size": self.image_size,
            "image_std": list(self.image_std),
            "min_size": self.min_size,
            "processor_class": "VLChatProcessor",
            "rescale_factor": self.rescale_factor,
        }
        return processor, preprocessor

    def save(self, folder: str | Path) -> None:
        """Write both files.

        Raises:
            ResourceError: a file cannot be written.
        """
        for name, values in zip((PROCESSOR, PREPROCESSOR), self.to_dicts(), strict=True):
            write_settings(Path(folder) / name, values)

    @property
    def image_token(self) -> str:
        """The tag of an image."""
        return self.tags.image

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """The colour of the bars."""
        return self.background_color

    @property
    def tokens_per_view(self) -> int:
        """Tokens of an image."""
        return self.num_image_tokens

    def grid(
        self, size: tuple[int, int] | None, *, num_images: int = 1, max_tiles: int | None = None
    ) -> tuple[int, int]:
        """(0, 0), whatever is asked for: an image is its global view alone."""
        return 0, 0

    def num_tokens(self, grid: tuple[int, int]) -> int:
        """Image positions of one image."""
        return self.num_image_tokens + self.tags.start_is_image


def _check_keys(file: str, values: Mapping[str, Any], required: Collection[str], known: Collection[str]) -> None:
    missing = [key for key in required if key not in values]
    if missing:
        raise ConfigError(
            f"{file} lacks {', '.join(missing)}. Is this a DeepSeek-VL or Janus model? Download the file again"
        )
    unknown = sorted(set(values) - set(required) - set(known))
    if unknown:
        warnings.warn(f"{file}: unknown keys are not used: {', '.join(unknown)}", stacklevel=4)


def _check_preprocessor(values: Mapping[str, Any], problems: list[str]) -> None:
    for key in ("image_size", "min_size"):
        _check_positive(values, key, problems)
    if _BACKGROUND in values:
        colour = values[_BACKGROUND]
        right = isinstance(colour, list) and len(colour) == 3 and all(is_int(n) and 0 <= n <= 255 for n in colour)
        check_setting(values, _BACKGROUND, right, "three whole numbers within 0..255", problems)
    check_setting(values, "image_mean", is_colour(values["image_mean"], 0.0), "three numbers within 0..1", problems)
    check_setting(values, "image_std", is_colour(values["image_std"], 1e-6), "three numbers above 0, up to 1", problems)
    check_setting(values, "do_normalize", isinstance(values["do_normalize"], bool), "true or false", problems)
    factor = values["rescale_factor"]
    right = isinstance(factor, (int, float)) and not isinstance(factor, bool) and 0 < factor <= 1
    check_setting(values, "rescale_factor", right, "a number above 0, up to 1", problems)
    if not problems and values["min_size"] > values["image_size"]:
        problems.append(f"min_size {values['min_size']} is larger than image_size {values['image_size']}")


def _check_positive(values: Mapping[str, Any], key: str, problems: list[str]) -> None:
    check_setting(values, key, is_int(values[key]) and values[key] > 0, "a positive integer", problems)


def _refuse(file: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError(f"{file}: {'; '.join(problems)}. Fix the file or download it again")
