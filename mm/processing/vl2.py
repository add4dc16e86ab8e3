"""DeepSeek-VL2's processor: a conversation with images to ``Inputs``, message by message as the published one.

Letters: T tokens, N views, S pixels a side of a view, B rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm.chat import CHAT_TEMPLATES, ImagePart, Message, Part, TextPart, check_order, split_text
from mm.contracts import Batch, DrawingPrompt, ImageSpan, Inputs
from mm.errors import ImageError, OptionError, TaskError
from mm.images import ImageSource, open_image
from mm.processing import tiling
from mm.processing.base import collate_rows, stripped
from mm.processing.vl2_spec import VL2Spec
from mm.tokenizer import Tokenizer

# Appended to a tokenizer that lacks them, after the pad and the image token, in this order (published processor).
EXTRA_TOKENS = ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "<|User|>", "<|Assistant|>")


class VL2Processor:
    """Turns conversations into model inputs for DeepSeek-VL2. Holds no state of a conversation; safe to share.

    Attributes:
        spec: the published settings.
        tokenizer: has every special token of the family.
        image_id: the token id that stands at every image position.
        side: tokens a side of one tile.
        max_grid_tiles: tiles of the largest candidate grid.
    """

    def __init__(self, spec: VL2Spec, tokenizer: Tokenizer) -> None:
        """Combine settings and tokenizer.

        Raises:
            ConfigError: the tokenizer lacks a special token of the family (``from_folder`` adds them).
        """
        self.spec = spec
        self.tokenizer = tokenizer
        self.template = CHAT_TEMPLATES[spec.sft_format]
        self.image_id = tokenizer.token_id(spec.image_token)
        for token in EXTRA_TOKENS:
            tokenizer.token_id(token)
        self.side = spec.side
        self.max_grid_tiles = spec.max_grid_tiles
        self._role_tokens = frozenset(self.template.names.values())
        self._mean = torch.tensor(spec.image_mean, dtype=torch.float32).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.image_std, dtype=torch.float32).view(1, 3, 1, 1)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "VL2Processor":
        """Read a model folder; missing special tokens are appended in the published order.

        Raises:
            ConfigError: processor_config.json or the tokenizer files are missing or wrong.
        """
        spec = VL2Spec.from_folder(folder)
        missing = (spec.image_token, *EXTRA_TOKENS)
        return cls(spec, Tokenizer.from_folder(folder, missing, pad_token=spec.pad_token))

    def process(
        self,
        messages: Sequence[Message],
        *,
        max_tiles: int | None = None,
        official_images: bool = False,
        training: bool = False,
    ) -> Inputs:
        """One conversation, ready for the model.

        Args:
            messages: an optional system message, then questions and answers in turn. After a question at the end the
                model is to answer; an empty answer at the end means the same, any other is to be continued.
            max_tiles: largest number of tiles of an image besides its global view; None takes the published grids.
            official_images: open images as the published code does (no EXIF rotation, alpha dropped).
            training: the conversation is complete: its last answer keeps its end token, and labels hold the answers and
                their end tokens only, whatever ``mask_prompt`` says.

        Returns:
            ``Inputs``; labels are the ids, the ignore id at image positions (and on the prompt if ``mask_prompt``).

        Raises:
            PromptError: messages are empty or out of order, or ``training`` without a last answer.
            ImageError: an image cannot be opened.
            OptionError: ``max_tiles`` is below 1.
        """
        turns = check_order(messages, complete=training)
        self.check_max_tiles(max_tiles)
        sources = [source for message in turns for source in message.images]
        images = [open_image(source, official=official_images) for source in sources]
        row = _Row(self, images, max_tiles)
        shown = []
        for message in turns:
            parts = stripped(message.parts)
            shown.append((message.role, self._text(parts)))
            if message.role == "user":
                row.add(self._question(parts), answer=False)
            elif message.role == "assistant":
                row.add(parts, answer=True)
                row.end()
            else:
                row.add(parts, answer=False)
        if turns[-1].role == "user":
            shown.append(("assistant", ""))
        elif not training:
            row.drop_end()
        return row.inputs(self.template.display(shown), mask_prompt=training or self.spec.mask_prompt)

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
        """See ``Processor.process_prompt``; the template strips the prompt, as the published ``prompt=`` does."""
        self.check_max_tiles(max_tiles)
        special = self.tokenizer.special_tokens if special is None else special
        parts = split_text(prompt, images, special=special, image_tag=self.spec.image_token)
        shown = prompt
        if apply_template:
            parts = stripped(parts)
            shown = self.template.display([("user", self._text(parts)), ("assistant", "")])
            parts = self._question(parts)
        row = _Row(self, [open_image(image, official=official_images) for image in images], max_tiles)
        row.add(parts, answer=False)
        return row.inputs(shown, mask_prompt=self.spec.mask_prompt)

    def process_infill(self, prefix: str, suffix: str) -> Inputs:
        """Raise ``TaskError``: models that see were not trained to fill a gap."""
        raise TaskError(
            "this model was not trained to fill a gap between two texts. DeepSeek-Coder, DeepSeek-Coder-V2 and "
            "DeepSeek-V3 were"
        )

    def drawing_prompt(self, prompt: str, negative_prompt: str | None = None) -> DrawingPrompt:
        """Raise ``TaskError``: DeepSeek-VL2 understands images and does not draw them."""
        raise TaskError(f"DeepSeek-VL2 cannot draw, so there is no drawing of {prompt!r:.60}. Use a Janus model")

    def views(
        self, image: Image.Image, *, tiling: bool, max_tiles: int | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The global view and the tiles of one image.

        Args:
            image: mode RGB.
            tiling: False gives a grid of one tile, as published for more than two images.
            max_tiles: see ``process``.

        Returns:
            views (n, S, S, 3) uint8, the global view before the tiles row by row, and (tiles across, tiles down).

        Raises:
            ImageError: the image is not RGB.
            OptionError: ``max_tiles`` is below 1.
        """
        if image.mode != "RGB":
            raise ImageError(f"expected an RGB image, got mode {image.mode}. Open it with mm.images.open_image")
        self.check_max_tiles(max_tiles)
        size = self.spec.image_size
        across, down = self.spec.grid(image.size, max_tiles=max_tiles) if tiling else (1, 1)
        views = np.empty((1 + across * down, size, size, 3), dtype=np.uint8)
        views[0] = self._canvas(image, (size, size))
        if (across, down) == (1, 1):
            views[1] = views[0]
        else:
            grid = self._canvas(image, (across * size, down * size)).reshape(
                down, size, across, size, 3
            )  # (rows, S, columns, S, 3)
            views[1:].reshape(down, across, size, size, 3)[:] = grid.swapaxes(1, 2)
        return views, (across, down)

    def normalize(self, views: np.ndarray) -> Tensor:
        """(n, S, S, 3) uint8 -> (n, 3, S, S) float32: x / 255, then (x - mean) / std, each step in float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2))).float().div_(255)  # (n, 3, S, S)
        return pixels.sub_(self._mean).div_(self._std) if self.spec.normalize else pixels

    def collate(self, rows: list[Inputs], side: Literal["left", "right"] = "left") -> Batch:
        """Pad conversations to one length: pad ids, False in the masks, the ignore id in the labels.

        Raises:
            PromptError: no rows.
            OptionError: an unknown side.
        """
        return collate_rows(rows, pad_id=self.tokenizer.pad_id, ignore_id=self.spec.ignore_id, side=side)

    def num_image_tokens(self, width: int, height: int, num_images: int = 1, max_tiles: int | None = None) -> int:
        """Tokens of one image of ``width`` x ``height`` pixels in a conversation of ``num_images`` images."""
        if width < 1 or height < 1:
            raise ImageError(f"an image of {width}x{height} has no pixels. Sides must be at least 1")
        self.check_max_tiles(max_tiles)
        return self.spec.num_tokens(self.spec.grid((width, height), num_images=num_images, max_tiles=max_tiles))

    def check_max_tiles(self, max_tiles: int | None) -> None:
        """Raise ``OptionError`` unless ``max_tiles`` is None or a whole number from 1 on (large ones cap nothing)."""
        if max_tiles is not None and (isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1):
            raise OptionError(
                f"max_tiles must be a whole number from 1 (no tiling) to {self.max_grid_tiles}, got {max_tiles!r}"
            )

    def save(self, folder: str | Path) -> None:
        """Write processor_config.json and the tokenizer files in the published layout.

        Raises:
            ResourceError: the files cannot be written.
        """
        self.spec.save(folder)
        self.tokenizer.save(folder)

    def _canvas(self, image: Image.Image, canvas: tuple[int, int]) -> np.ndarray:
        """(height, width, 3) uint8: ``image`` scaled to fit (bicubic), centred on the pad colour."""
        size, corner = tiling.fit(image.size, canvas)
        resized = image.resize(size, resample=Image.Resampling.BICUBIC)
        if size == canvas:
            return np.asarray(resized)
        out = Image.new("RGB", canvas, self.spec.pad_color)
        out.paste(resized, corner)
        return np.asarray(out)

    def _question(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """A user's turn, up to where the answer starts."""
        names = self.template.names
        return (
            TextPart(names["user"], self._role_tokens),
            TextPart(": "),
            *parts,
            TextPart(self.template.turn_separator),
            TextPart(names["assistant"], self._role_tokens),
            TextPart(":"),
        )

    def _text(self, parts: tuple[Part, ...]) -> str:
        return "".join(self.spec.image_token if isinstance(part, ImagePart) else part.text for part in parts)


class _Row:
    """One conversation while it grows."""

    def __init__(self, processor: VL2Processor, images: list[Image.Image], max_tiles: int | None) -> None:
        self._processor = processor
        self._images = images
        self._max_tiles = max_tiles
        self._tiled = len(images) <= tiling.MAX_TILED_IMAGES
        self._ids: list[int] = []
        self._learn: list[bool] = []  # answers and their end tokens
        self._spans: list[ImageSpan] = []
        self._views: list[np.ndarray] = []
        self._grids: list[tuple[int, int]] = []
        if processor.tokenizer.add_bos:
            self._extend([processor.tokenizer.bos_id], answer=False)

    def add(self, parts: tuple[Part, ...], *, answer: bool) -> None:
        texts: list[tuple[str, frozenset[str]]] = []
        for part in parts:
            if isinstance(part, TextPart):
                texts.append((part.text, part.special))
                continue
            self._extend(self._processor.tokenizer.encode_parts(texts), answer=answer)
            texts.clear()
            self._add_image()
        self._extend(self._processor.tokenizer.encode_parts(texts), answer=answer)

    def end(self) -> None:
        self._extend([self._processor.tokenizer.eos_id], answer=True)

    def drop_end(self) -> None:
        self._ids.pop()
        self._learn.pop()

    def inputs(self, prompt: str, *, mask_prompt: bool) -> Inputs:
        processor, spec = self._processor, self._processor.spec
        assert len(self._spans) == len(self._images)
        input_ids = torch.tensor(self._ids, dtype=torch.int64)  # (T,)
        image_mask = torch.zeros(len(self._ids), dtype=torch.bool)
        for span in self._spans:
            image_mask[span.start : span.stop] = True
        ignored = image_mask | ~torch.tensor(self._learn, dtype=torch.bool) if mask_prompt else image_mask
        empty = np.empty((0, spec.image_size, spec.image_size, 3), dtype=np.uint8)
        return Inputs(
            input_ids=input_ids,
            image_mask=image_mask,
            pixels=processor.normalize(np.concatenate(self._views) if self._views else empty),
            tile_grids=torch.tensor(self._grids, dtype=torch.int64).view(-1, 2),
            spans=tuple(self._spans),
            prompt=prompt,
            labels=input_ids.masked_fill(ignored, spec.ignore_id),
        )

    def _add_image(self) -> None:
        processor = self._processor
        image = self._images[len(self._spans)]
        views, grid = processor.views(image, tiling=self._tiled, max_tiles=self._max_tiles)
        start = len(self._ids)
        self._extend([processor.image_id] * tiling.num_tokens(grid, processor.side), answer=False)
        self._spans.append(ImageSpan(start, len(self._ids), image.width, image.height))
        self._views.append(views)
        self._grids.append(grid)

    def _extend(self, ids: list[int], *, answer: bool) -> None:
        self._ids += ids
        self._learn += [answer] * len(ids)
