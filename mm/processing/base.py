"""What every processor has: checked settings, and the face the rest of the framework sees."""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from mm.chat import Message, Part, TextPart
from mm.contracts import Batch, DrawingPrompt, Inputs
from mm.errors import ConfigError, OptionError, PromptError, ResourceError
from mm.images import ImageSource
from mm.tokenizer import Tokenizer

Colour = tuple[float, float, float]


class ProcessorSpec(Protocol):
    """The published settings of a processor, checked, and what follows from them without a tokenizer.

    A grid is (tiles across, tiles down) besides the global view of an image; (0, 0) is the global view alone.
    """

    @property
    def image_size(self) -> int:
        """Pixels a side of one view."""
        ...

    @property
    def image_token(self) -> str:
        """The tag of an image in the official form; its id stands at every image position."""
        ...

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """The colour around an image that does not fill its canvas."""
        ...

    @property
    def tokens_per_view(self) -> int:
        """Tokens that encoder and adaptor make of one view."""
        ...

    def grid(
        self, size: tuple[int, int] | None, *, num_images: int = 1, max_tiles: int | None = None
    ) -> tuple[int, int]:
        """The tiles of an image of ``size`` (width, height) among ``num_images``; None: the size that needs most."""
        ...

    def num_tokens(self, grid: tuple[int, int]) -> int:
        """Image positions in the prompt of one image with this grid."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the published files.

        Raises:
            ResourceError: a file cannot be written.
        """
        ...


class Processor(Protocol):
    """Messages and images in, tensors out."""

    @property
    def spec(self) -> ProcessorSpec:
        """The settings."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Has every special token of the family."""
        ...

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

    def collate(self, rows: list[Inputs], side: Literal["left", "right"] = "left") -> Batch:
        """Several conversations as one rectangle."""
        ...

    def num_image_tokens(self, width: int, height: int, num_images: int = 1, max_tiles: int | None = None) -> int:
        """Tokens that one image takes."""
        ...

    def drawing_prompt(self, prompt: str, negative_prompt: str | None = None) -> DrawingPrompt:
        """Ids for drawing a picture of ``prompt``, and what guidance leads away from.

        Raises:
            PromptError: a prompt is empty.
            TaskError: models of this family cannot draw.
        """
        ...

    def process_prompt(
        self,
        prompt: str,
        images: Sequence[ImageSource],
        *,
        apply_template: bool,
        max_tiles: int | None = None,
        official_images: bool = False,
        special: frozenset[str] | None = None,
    ) -> Inputs:
        """A raw prompt, to be continued, as tensors.

        Args:
            prompt: the text with one image tag for each image; not for text of strangers.
            images: the images, in order.
            apply_template: wrap the prompt as one question; otherwise it is used as it is.
            max_tiles: see ``process``.
            official_images: see ``process``.
            special: the tokens that are control tokens in it, image tags always; None: every special token, as
                published.

        Raises:
            PromptError: the prompt is empty or its tags do not match the images.
            ImageError: an image cannot be opened.
            OptionError: ``max_tiles`` is below 1, or given where nothing is cut into tiles.
            TaskError: an image for a model that reads text only, or no known template to apply.
        """
        ...

    def process_infill(self, prefix: str, suffix: str) -> Inputs:
        """A gap between two texts, to be filled; special tokens in them are plain text.

        Raises:
            PromptError: both are empty.
            TaskError: the model has no tokens for this.
        """
        ...


def collate_rows(rows: list[Inputs], *, pad_id: int, ignore_id: int, side: Literal["left", "right"]) -> Batch:
    """Pad conversations to one length: pad ids, False in the masks, the ignore id in the labels.

    Raises:
        PromptError: no rows.
        OptionError: an unknown side.
    """
    if not rows:
        raise PromptError("cannot make a batch of no conversations. Pass at least one")
    if side not in ("left", "right"):
        raise OptionError(f"side must be 'left' or 'right', got {side!r}")
    shape = (len(rows), max(row.num_tokens for row in rows))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)  # (B, T)
    attention_mask = torch.zeros(shape, dtype=torch.bool)
    image_mask = torch.zeros(shape, dtype=torch.bool)
    labelled = all(row.labels is not None for row in rows)
    labels = torch.full(shape, ignore_id, dtype=torch.int64) if labelled else None
    for index, row in enumerate(rows):
        start = shape[1] - row.num_tokens if side == "left" else 0
        place = (index, slice(start, start + row.num_tokens))
        input_ids[place] = row.input_ids
        attention_mask[place] = True
        image_mask[place] = row.image_mask
        if labels is not None and row.labels is not None:
            labels[place] = row.labels
    return Batch(input_ids, attention_mask, image_mask, labels, tuple(rows))


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object of a settings file.

    Raises:
        ConfigError: the file is missing or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path.parent} has no {path.name}. Download the whole model folder again") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}. Download it again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, expected a JSON object. Download it again")
    return values


def write_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Write a settings file.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror or error}. Free space or pick another folder"
        ) from error


def check_setting(values: Mapping[str, Any], key: str, right: bool, expected: str, problems: list[str]) -> None:
    """Add a line to ``problems`` unless the value is right."""
    if not right:
        problems.append(f"{key} is {values[key]!r}, expected {expected}")


def is_int(value: object) -> bool:
    """A whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_colour(value: object, smallest: float) -> bool:
    """A list of three numbers from ``smallest`` to 1."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and smallest <= v <= 1 for v in value)
    )


def as_colour(values: Sequence[float]) -> Colour:
    """Three numbers as a tuple."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def whole_colour(mean: Colour) -> tuple[int, int, int]:
    """A mean of values in 0..1 as a colour of bytes, rounded down as published."""
    red, green, blue = (int(value * 255) for value in mean)
    return red, green, blue


def stripped(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts without white space at both ends, as the published processors strip a message."""
    kept = list(parts)
    while kept and isinstance(first := kept[0], TextPart):
        text = first.text.lstrip()
        if text:
            kept[0] = TextPart(text, first.special)
            break
        kept.pop(0)
    while kept and isinstance(last := kept[-1], TextPart):
        text = last.text.rstrip()
        if text:
            kept[-1] = TextPart(text, last.special)
            break
        kept.pop()
    return tuple(kept)


def common_start(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids agree from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
