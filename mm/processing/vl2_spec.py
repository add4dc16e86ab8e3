"""DeepSeek-VL2's processor_config.json: read strictly, with the geometry that follows from it."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.chat import CHAT_TEMPLATES
from mm.errors import ConfigError
from mm.processing import tiling
from mm.processing.base import (
    as_colour,
    check_setting,
    is_colour,
    is_int,
    read_settings,
    whole_colour,
    write_settings,
)

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
class VL2Spec:
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
    def from_folder(cls, folder: str | Path) -> "VL2Spec":
        """Read ``folder``/processor_config.json.

        Raises:
            ConfigError: the file is missing or is not JSON, or see ``from_dict``.
        """
        return cls.from_dict(read_settings(Path(folder) / "processor_config.json"))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VL2Spec":
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
            check_setting(values, key, is_int(values[key]) and values[key] > 0, "a positive integer", problems)
        check_setting(
            values,
            "ignore_id",
            is_int(values["ignore_id"]) and values["ignore_id"] < 0,
            "a negative integer",
            problems,
        )
        for key in ("image_token", "pad_token"):
            check_setting(values, key, isinstance(values[key], str) and bool(values[key]), "a string", problems)
        for key in ("mask_prompt", "normalize"):
            check_setting(values, key, isinstance(values[key], bool), "true or false", problems)
        check_setting(values, "image_mean", is_colour(values["image_mean"], 0.0), "three numbers within 0..1", problems)
        check_setting(
            values, "image_std", is_colour(values["image_std"], 1e-6), "three numbers above 0, up to 1", problems
        )
        known = values["sft_format"] in CHAT_TEMPLATES
        check_setting(values, "sft_format", known, f"one of {', '.join(CHAT_TEMPLATES)}", problems)
        if not problems and values["patch_size"] > resolutions[0][0]:
            problems.append(f"patch_size {values['patch_size']} is larger than a tile of {resolutions[0][0]} pixels")
        if problems:
            raise ConfigError(f"processor_config.json: {'; '.join(problems)}. Fix the file or download it again")
        return cls(
            image_size=resolutions[0][0],
            patch_size=values["patch_size"],
            downsample_ratio=values["downsample_ratio"],
            candidate_resolutions=resolutions,
            image_mean=as_colour(values["image_mean"]),
            image_std=as_colour(values["image_std"]),
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
        write_settings(Path(folder) / "processor_config.json", self.to_dict())

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """The colour around an image that does not fill its canvas: the mean, rounded down, as published."""
        return whole_colour(self.image_mean)

    @property
    def side(self) -> int:
        """Tokens a side of one tile."""
        return tiling.tokens_per_side(self.image_size, self.patch_size, self.downsample_ratio)

    @property
    def tokens_per_view(self) -> int:
        """Tokens that encoder and adaptor make of one tile or global view."""
        return self.side**2

    @property
    def grids(self) -> dict[tuple[int, int], tuple[int, int]]:
        """{candidate resolution: (tiles across, tiles down)} in the published order."""
        return {
            (width, height): (width // self.image_size, height // self.image_size)
            for width, height in self.candidate_resolutions
        }

    @property
    def max_grid_tiles(self) -> int:
        """Tiles of the largest candidate grid."""
        return max(across * down for across, down in self.grids.values())

    def grid(
        self, size: tuple[int, int] | None, *, num_images: int = 1, max_tiles: int | None = None
    ) -> tuple[int, int]:
        """See ``ProcessorSpec``; more than two images of a conversation are one tile each, as published."""
        if num_images > tiling.MAX_TILED_IMAGES:
            return 1, 1
        limit = self.max_grid_tiles if max_tiles is None else max_tiles
        allowed = {pixels: grid for pixels, grid in self.grids.items() if grid[0] * grid[1] <= limit}
        if size is None:
            return max(allowed.values(), key=self.num_tokens, default=(1, 1))
        return allowed[tiling.choose_resolution(size, list(allowed))]

    def num_tokens(self, grid: tuple[int, int]) -> int:
        """Image positions of one image with this grid of tiles."""
        return tiling.num_tokens(grid, self.side)


def _resolutions(value: object, problems: list[str]) -> tuple[tuple[int, int], ...]:
    """The candidate resolutions; what is wrong with them goes to ``problems``."""
    right = (
        isinstance(value, list)
        and value
        and all(
            isinstance(size, list) and len(size) == 2 and all(is_int(side) and side > 0 for side in size)
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
