"""The processor of DeepSeek-VL, Janus and JanusFlow: a conversation is one prompt, tokenised as a whole.

Letters: T tokens, N images, S pixels a side of an image as the model sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from mm.chat import ImagePart, Message, Part, Role, TextPart, check_order, split_text
from mm.contracts import Batch, DrawingPrompt, ImageSpan, Inputs
from mm.errors import OptionError, PromptError, TaskError
from mm.images import ImageSource, open_image
from mm.processing.base import collate_rows, common_start, stripped
from mm.processing.square import SquareImages
from mm.processing.vlm_spec import VLMSpec
from mm.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """How turns become one prompt: "system prompt, separator, Role: text, separator, Role: answer, end token, ..."."""

    names: Mapping[Role, str]  # of user and assistant, as the model reads them
    system_prompt: str
    separator: str = "\n\n"  # after the system prompt and each question


@dataclass(frozen=True)
class _Chunk:
    """Part of a prompt that ends with an end token or with the prompt, so that no token reaches over its borders."""

    parts: tuple[Part, ...]
    answer: int | None = None  # the first part of the answer in it


class VLMProcessor:
    """Turns conversations into model inputs. Holds no state of a conversation; safe to share.

    Attributes:
        spec: the published settings.
        tokenizer: has every special token of the family.
        image_id: the token id that stands at every image position.
        pad_id: of rows in a batch, and of what an unconditional prompt leaves out.
        squares: images to pixels.
    """

    def __init__(self, spec: VLMSpec, tokenizer: Tokenizer, template: PromptTemplate) -> None:
        """Combine settings, tokenizer and template.

        Raises:
            ConfigError: the tokenizer lacks a token that the settings name (``from_folder`` adds the image tag).
        """
        self.spec = spec
        self.tokenizer = tokenizer
        self.template = template
        tags = spec.tags
        self.image_id = tokenizer.token_id(tags.image)
        self.pad_id = tokenizer.pad_id if tags.pad is None else tokenizer.token_id(tags.pad)
        self._before = [] if tags.image_start is None else [tokenizer.token_id(tags.image_start)]
        self._after = [] if tags.image_end is None else [tokenizer.token_id(tags.image_end)]
        self._begin = [tokenizer.bos_id] if tokenizer.add_bos else []
        self._control = frozenset((*template.names.values(), tokenizer.eos_token))
        self.squares = SquareImages(
            size=spec.image_size,
            min_size=spec.min_size,
            background=spec.background_color,
            rescale_factor=spec.rescale_factor,
            mean_std=(spec.image_mean, spec.image_std) if spec.normalize else None,
        )

    @classmethod
    def from_folder(cls, folder: str | Path, spec: VLMSpec, template: PromptTemplate) -> "VLMProcessor":
        """Read the tokenizer of a model folder; an image tag that it lacks is appended, as published, and so are all
        tags of a model that draws by flow.

        Raises:
            ConfigError: the tokenizer files are missing or wrong.
        """
        tags = spec.tags
        added = [tags.image]
        if tags.generation is not None:
            added += [tag for tag in (tags.generation, tags.image_start, tags.image_end) if tag is not None]
        tokenizer = Tokenizer.from_folder(folder, added, pad_token=tags.pad, pad_with_end=tags.pad is None)
        return cls(spec, tokenizer, template)

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
            messages: an optional system message, which takes the place of the family's system prompt, then questions
                and answers in turn. After a question at the end the model is to answer; an empty answer at the end
                means the same, any other is to be continued.
            max_tiles: None; these models do not cut images into tiles.
            official_images: open images as the published code does (no EXIF rotation, alpha dropped).
            training: the conversation is complete: its last answer keeps its end token, and labels hold the answers and
                their end tokens only, whatever ``mask_prompt`` says.

        Returns:
            ``Inputs``; labels are the ids, the ignore id at image positions (and on the prompt if ``mask_prompt``).

        Raises:
            PromptError: messages are empty or out of order, or ``training`` without a last answer.
            ImageError: an image cannot be opened.
            OptionError: ``max_tiles`` is given.
        """
        turns = check_order(messages, complete=training)
        _refuse_tiles(max_tiles)
        images = [open_image(source, official=official_images) for turn in turns for source in turn.images]
        chunks = self._chunks(turns, complete=training)
        return self._inputs(chunks, images, mask_prompt=training or self.spec.mask_prompt)

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
        """See ``Processor.process_prompt``."""
        _refuse_tiles(max_tiles)
        special = self.tokenizer.special_tokens if special is None else special
        parts = split_text(prompt, images, special=special, image_tag=self.spec.image_token)
        chunks = [_Chunk(parts)]
        if apply_template:
            chunks = self._chunks((Message("user", parts),), complete=False)
        opened = [open_image(image, official=official_images) for image in images]
        return self._inputs(chunks, opened, mask_prompt=self.spec.mask_prompt)

    def process_infill(self, prefix: str, suffix: str) -> Inputs:
        """Raise ``TaskError``: models that see were not trained to fill a gap."""
        raise TaskError(
            "this model was not trained to fill a gap between two texts. DeepSeek-Coder, DeepSeek-Coder-V2 and "
            "DeepSeek-V3 were"
        )

    def drawing_prompt(self, prompt: str, negative_prompt: str | None = None) -> DrawingPrompt:
        """Ids for drawing a picture of ``prompt``: the question alone, with no system prompt, up to where it begins.

        The unconditional ids are the conditional ones with everything between the first and the last replaced by the
        pad id, as published; a negative prompt takes their place. For a flow the last one is replaced too, and of the
        unconditional ids only the first is attended, as published.

        Args:
            prompt: what to draw; special tokens in it are plain text.
            negative_prompt: what not to draw.

        Raises:
            PromptError: a prompt is empty.
            TaskError: the family has no token where a picture begins.
        """
        if not self._before:
            raise TaskError("this model's prompts have no place for a picture, so it cannot draw")
        conditional, text = self._drawing_ids(prompt, "the prompt is empty. Write what to draw")
        attended = None
        if negative_prompt is None and self.spec.tags.generation is not None:
            unconditional, attended = [conditional[0], *[self.pad_id] * (len(conditional) - 1)], 1
        elif negative_prompt is None:
            unconditional = [conditional[0], *[self.pad_id] * (len(conditional) - 2), conditional[-1]]
        else:
            unconditional, _ = self._drawing_ids(
                negative_prompt, "the negative prompt is empty. Write what not to draw, or leave it out"
            )
        return DrawingPrompt(
            conditional=torch.tensor(conditional, dtype=torch.int64),
            unconditional=torch.tensor(unconditional, dtype=torch.int64),
            text=text,
            attended=attended,
        )

    def collate(self, rows: list[Inputs], side: Literal["left", "right"] = "left") -> Batch:
        """Pad conversations to one length: pad ids, False in the masks, the ignore id in the labels.

        Raises:
            PromptError: no rows.
            OptionError: an unknown side.
        """
        return collate_rows(rows, pad_id=self.pad_id, ignore_id=self.spec.ignore_id, side=side)

    def num_image_tokens(self, width: int, height: int, num_images: int = 1, max_tiles: int | None = None) -> int:
        """Tokens of one image, whatever its size and number."""
        return self.spec.num_tokens((0, 0))

    def save(self, folder: str | Path) -> None:
        """Write both settings files and the tokenizer files in the published layout.

        Raises:
            ResourceError: the files cannot be written.
        """
        self.spec.save(folder)
        self.tokenizer.save(folder)

    def _chunks(self, turns: Sequence[Message], *, complete: bool) -> list["_Chunk"]:
        """A conversation's prompt, cut after the end token of each answer."""
        names, separator = self.template.names, TextPart(self.template.separator)
        chunks: list[_Chunk] = []
        parts: list[Part] = []
        system: tuple[Part, ...] = (TextPart(self.template.system_prompt),)
        if turns[0].role == "system":
            system, turns = turns[0].parts, turns[1:]
        if any(isinstance(part, ImagePart) or part.text for part in system):
            parts += [*system, separator]
        for turn in turns:
            parts += [TextPart(names[turn.role], self._control), TextPart(":")]
            if turn.role == "user":
                parts += [TextPart(" "), *stripped(turn.parts), separator]
                continue
            answer = len(parts)
            parts += [TextPart(" "), *stripped(turn.parts)]
            if complete or turn is not turns[-1]:
                parts.append(TextPart(self.tokenizer.eos_token, self._control))
            chunks.append(_Chunk(tuple(parts), answer))
            parts = []
        if turns[-1].role == "user":
            parts += [TextPart(names["assistant"], self._control), TextPart(":")]
            chunks.append(_Chunk(tuple(parts)))
        return chunks

    def _drawing_ids(self, prompt: str, complaint: str) -> tuple[list[int], str]:
        if not prompt.strip():
            raise PromptError(complaint)
        names = self.template.names
        start = self.spec.tags.generation or self.spec.tags.image_start
        assert start is not None
        parts: tuple[Part, ...] = (
            TextPart(names["user"], self._control),
            TextPart(f": {prompt.strip()}{self.template.separator}"),
            TextPart(names["assistant"], self._control),
            TextPart(":"),
            TextPart(start, frozenset((start,))),
        )
        return [*self._begin, *self._ids(parts)[0]], self._text(parts)

    def _ids(self, parts: Sequence[Part]) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids without the begin token, and where the positions of each image start and stop."""
        ids: list[int] = []
        places = []
        texts: list[tuple[str, frozenset[str]]] = []
        for part in parts:
            if isinstance(part, TextPart):
                texts.append((part.text, part.special))
                continue
            ids += [*self.tokenizer.encode_parts(texts), *self._before]
            texts.clear()
            start = len(ids) - self.spec.tags.start_is_image
            places.append((start, len(ids) + self.spec.num_image_tokens))
            ids += [*[self.image_id] * self.spec.num_image_tokens, *self._after]
        return ids + self.tokenizer.encode_parts(texts), places

    def _inputs(self, chunks: list["_Chunk"], images: list[Image.Image], *, mask_prompt: bool) -> Inputs:
        ids = list(self._begin)
        learn = [False] * len(ids)
        places: list[tuple[int, int]] = []
        for chunk in chunks:
            new, inside = self._ids(chunk.parts)
            places += [(len(ids) + start, len(ids) + stop) for start, stop in inside]
            # The chunk is tokenised at once, so its answer begins where the ids of what precedes it end.
            kept = len(new) if chunk.answer is None else common_start(new, self._ids(chunk.parts[: chunk.answer])[0])
            ids += new
            learn += [False] * kept + [True] * (len(new) - kept)
        assert len(places) == len(images)
        input_ids = torch.tensor(ids, dtype=torch.int64)  # (T,)
        image_mask = torch.zeros(len(ids), dtype=torch.bool)
        for start, stop in places:
            image_mask[start:stop] = True
        ignored = image_mask | ~torch.tensor(learn, dtype=torch.bool) if mask_prompt else image_mask
        side = self.spec.image_size
        views = [self.squares.view(image) for image in images]
        return Inputs(
            input_ids=input_ids,
            image_mask=image_mask,
            pixels=self.squares.normalize(np.stack(views) if views else np.empty((0, side, side, 3), dtype=np.uint8)),
            tile_grids=torch.zeros(len(images), 2, dtype=torch.int64),
            spans=tuple(
                ImageSpan(start, stop, image.width, image.height)
                for (start, stop), image in zip(places, images, strict=True)
            ),
            prompt="".join(self._text(chunk.parts) for chunk in chunks),
            labels=input_ids.masked_fill(ignored, self.spec.ignore_id),
        )

    def _text(self, parts: Sequence[Part]) -> str:
        return "".join(self.spec.image_token if isinstance(part, ImagePart) else part.text for part in parts)


def _refuse_tiles(max_tiles: int | None) -> None:
    if max_tiles is not None:
        raise OptionError(
            f"max_tiles is {max_tiles!r}, but this model does not cut images into tiles: every image takes the same "
            "number of tokens. Leave max_tiles out"
        )
