"""The processor of models that read text only: turns and raw prompts to token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mm.chat import ImagePart, Message, Part, TextPart, check_order
from mm.contracts import Batch, DrawingPrompt, Inputs, Reasoning
from mm.errors import ConfigError, OptionError, PromptError, TaskError
from mm.images import ImageSource
from mm.processing.base import collate_rows, common_start, read_settings
from mm.text_templates import (
    END_THINK,
    FILL_BEGIN,
    FILL_END,
    FILL_HOLE,
    TEXT_TEMPLATES,
    THINK,
    TextTemplate,
    published_template,
    template_of,
)
from mm.tokenizer import Tokenizer

IGNORE_ID = -100  # torch's cross_entropy leaves it out
_REASONING: dict[str, Reasoning | None] = {"none": None, "free": "may begin", "forced": "begun"}


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """What the files beside the weights say of prompts.

    Attributes:
        template: the name of the chat format (``mm.text_templates``); None: base checkpoints have none.
        has_template: whether the folder has a chat template at all, known or not.
    """

    template: str | None
    has_template: bool

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TextSpec":
        """Read the chat template of a model folder, as text.

        Raises:
            ConfigError: a file cannot be read.
        """
        folder = Path(folder)
        path, file = folder / "chat_template.jinja", None
        try:
            file = path.read_text(encoding="utf-8") if path.is_file() else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Download it again") from error
        config = folder / "tokenizer_config.json"
        jinja = published_template(read_settings(config) if config.is_file() else {}, file)
        return cls(template=None if jinja is None else template_of(jinja), has_template=jinja is not None)

    @property
    def image_size(self) -> int:
        """No image."""
        return 0

    @property
    def image_token(self) -> str:
        """No token stands for an image."""
        return ""

    @property
    def pad_color(self) -> tuple[int, int, int]:
        """No image."""
        return 0, 0, 0

    @property
    def tokens_per_view(self) -> int:
        """No image."""
        return 0

    def grid(
        self, size: tuple[int, int] | None, *, num_images: int = 1, max_tiles: int | None = None
    ) -> tuple[int, int]:
        """No image."""
        return 0, 0

    def num_tokens(self, grid: tuple[int, int]) -> int:
        """No image."""
        return 0

    def save(self, folder: str | Path) -> None:
        """Nothing of its own: the template is in the tokenizer's files."""


class TextProcessor:
    """Turns conversations and raw prompts into model inputs. Holds no state of a conversation; safe to share."""

    def __init__(self, spec: TextSpec, tokenizer: Tokenizer) -> None:
        """Combine settings and tokenizer.

        Raises:
            ConfigError: the tokenizer ends answers with another token than its chat template.
        """
        self.spec = spec
        self.tokenizer = tokenizer
        self.template = None if spec.template is None else TEXT_TEMPLATES[spec.template]
        if self.template is not None:
            end = self.template.end_token
            if end is not None and end != tokenizer.eos_token:
                raise ConfigError(
                    f"the chat template ends answers with {end}, but tokenizer_config.json says eos_token "
                    f"{tokenizer.eos_token}. The two are of different models: download the folder again."
                )
            for token in self.template.controls:
                tokenizer.token_id(token)

    @classmethod
    def from_folder(cls, folder: str | Path, spec: TextSpec) -> "TextProcessor":
        """Read the tokenizer of a model folder. All of its added tokens in angle brackets are control tokens, whatever
        the file says of them: V3's role tokens are published as plain ones.

        Raises:
            ConfigError: the tokenizer files are missing or wrong.
        """
        tokenizer = Tokenizer.from_folder(folder, pad_with_end=True, bracketed=True, shown=(THINK, END_THINK))
        return cls(spec, tokenizer)

    def process(
        self,
        messages: Sequence[Message],
        *,
        max_tiles: int | None = None,
        official_images: bool = False,
        training: bool = False,
    ) -> Inputs:
        """One conversation, ready for the model. Texts are not stripped: published templates do not.

        Args:
            messages: an optional system message, then questions and answers in turn; an answer at the end that is not
                empty is to be continued.
            max_tiles: None; there are no images.
            official_images: likewise without meaning.
            training: the conversation is complete: its last answer keeps its end token, and labels hold the answers and
                their end tokens.

        Raises:
            PromptError: messages are empty or out of order, or ``training`` without a last answer.
            TaskError: an image; or the model has no chat template that is known.
            OptionError: ``max_tiles`` is given.
        """
        turns = check_order(messages, complete=training)
        _refuse_tiles(max_tiles)
        template = self._known_template()
        controls = template.controls
        pieces: list[tuple[tuple[Part, ...], bool]] = []  # each with whether it is learnt
        if turns[0].role == "system":
            pieces.append(((*turns[0].parts, TextPart(template.after_system)), False))
            turns = turns[1:]
        elif template.system:
            pieces.append(((TextPart(template.system),), False))
        for turn in turns:
            if turn.role == "user":
                around = TextPart(template.before_question, controls), TextPart(template.after_question)
                pieces.append(((around[0], *turn.parts, around[1]), False))
                continue
            continued = turn is turns[-1] and not training
            pieces.append(((TextPart(template.before_answer, controls),), False))
            pieces.append((self._answer(template, turn, continued), True))
            if not continued and template.after_end:
                pieces.append(((TextPart(template.after_end),), False))
        reasoning = None
        if turns[-1].role == "user":
            pieces.append(((TextPart(template.opening, controls),), False))
            reasoning = _REASONING[template.thinking]
        return self._inputs(pieces, begin=True, reasoning=reasoning)

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
        """See ``Processor.process_prompt``; without images."""
        if images:
            raise _no_images()
        if not prompt.strip():
            raise PromptError("the prompt is empty. Write what the model is to continue")
        part = TextPart(prompt, self.tokenizer.special_tokens if special is None else special)
        if apply_template:
            return self.process([Message("user", (part,))], max_tiles=max_tiles)
        _refuse_tiles(max_tiles)
        return self._inputs([((part,), False)], begin=self.tokenizer.add_bos, reasoning=None)

    def process_infill(self, prefix: str, suffix: str) -> Inputs:
        """A gap to be filled: what stands before and after it. Special tokens in both are plain text.

        Raises:
            PromptError: both are empty.
            TaskError: the tokenizer has no tokens for this.
        """
        marks = (FILL_BEGIN, FILL_HOLE, FILL_END)
        if not all(mark in self.tokenizer.special_tokens for mark in marks):
            raise TaskError(
                "this model cannot fill a gap: its tokenizer has no fill-in-the-middle tokens "
                f"({', '.join(marks)}). DeepSeek-Coder, DeepSeek-Coder-V2 and DeepSeek-V3 have them"
            )
        if not prefix.strip() and not suffix.strip():
            raise PromptError("nothing stands before or after the gap. Write at least one of the two")
        begin, hole, end = (TextPart(mark, frozenset({mark})) for mark in marks)
        parts = (begin, TextPart(prefix), hole, TextPart(suffix), end)
        return self._inputs([(parts, False)], begin=self.tokenizer.add_bos, reasoning=None)

    def collate(self, rows: list[Inputs], side: Literal["left", "right"] = "left") -> Batch:
        """Pad conversations to one length."""
        return collate_rows(rows, pad_id=self.tokenizer.pad_id, ignore_id=IGNORE_ID, side=side)

    def num_image_tokens(self, width: int, height: int, num_images: int = 1, max_tiles: int | None = None) -> int:
        """There are no images."""
        return 0

    def drawing_prompt(self, prompt: str, negative_prompt: str | None = None) -> DrawingPrompt:
        """Raise ``TaskError``: a language model does not draw."""
        raise TaskError(f"a language model cannot draw, so there is no drawing of {prompt!r:.60}. Use a Janus model")

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer files, which hold the chat template.

        Raises:
            ResourceError: the files cannot be written.
        """
        self.tokenizer.save(folder)

    def _known_template(self) -> TextTemplate:
        if self.template is not None:
            return self.template
        if self.spec.has_template:
            raise TaskError(
                "this model's chat template is none of the formats that are known "
                f"({', '.join(TEXT_TEMPLATES)}), and templates of checkpoints are never run. Write the prompt in its "
                "format yourself, with its tokens, and have it continued: Pipeline.complete(prompt, "
                "special_tokens='all'), or mm complete --special-tokens all"
            )
        raise TaskError(
            "this model's files hold no chat template: it is a base model, which continues text and does not answer. "
            "Use Pipeline.complete or 'mm complete', or choose the chat model of this name"
        )

    def _answer(self, template: TextTemplate, turn: Message, continued: bool) -> tuple[Part, ...]:
        parts = turn.parts
        if template.thinking != "none" and not continued:
            parts = _without_thoughts(parts)
        if continued:
            return parts
        end = self.tokenizer.eos_token
        return (*parts, TextPart(template.after_answer), TextPart(end, frozenset({end})))

    def _inputs(
        self, pieces: Sequence[tuple[tuple[Part, ...], bool]], *, begin: bool, reasoning: Reasoning | None
    ) -> Inputs:
        """Ids of the pieces, joined as one text; the labels of those that are learnt."""
        ids = [self.tokenizer.bos_id] if begin else []
        learn = [False] * len(ids)
        given: list[tuple[str, frozenset[str]]] = []
        text = ""
        for parts, learnt in pieces:
            texts = _texts(parts)
            text += "".join(piece for piece, _ in texts)
            # What precedes an answer is tokenised together with it: its tokens begin where those of both differ.
            before = self.tokenizer.encode_parts(given) if learnt else []
            given += texts
            if learnt:
                new = self.tokenizer.encode_parts(given)
                kept = common_start(new, before)
                ids += new
                learn += [False] * kept + [True] * (len(new) - kept)
                given = []
        rest = self.tokenizer.encode_parts(given)
        input_ids = torch.tensor(ids + rest, dtype=torch.int64)  # (T,)
        learn += [False] * len(rest)
        return Inputs(
            input_ids=input_ids,
            image_mask=torch.zeros(len(input_ids), dtype=torch.bool),
            pixels=torch.zeros(0, 3, 1, 1),
            tile_grids=torch.zeros(0, 2, dtype=torch.int64),
            spans=(),
            prompt=text,
            labels=input_ids.masked_fill(~torch.tensor(learn, dtype=torch.bool), IGNORE_ID),
            reasoning=reasoning,
        )


def _texts(parts: tuple[Part, ...]) -> list[tuple[str, frozenset[str]]]:
    texts = []
    for part in parts:
        if isinstance(part, ImagePart):
            raise _no_images()
        texts.append((part.text, part.special))
    return texts


def _without_thoughts(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """What follows the last ``</think>``, as published: an answer without its reasoning."""
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        if isinstance(part, TextPart) and END_THINK in part.text:
            return (TextPart(part.text.rpartition(END_THINK)[2], part.special), *parts[index + 1 :])
    return parts


def _no_images() -> TaskError:
    return TaskError("this model reads text only and takes no image. Leave the image out, or choose a model that sees")


def _refuse_tiles(max_tiles: int | None) -> None:
    if max_tiles is not None:
        raise OptionError(f"max_tiles is {max_tiles!r}, but this model takes no images. Leave max_tiles out")
