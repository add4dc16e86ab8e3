"""Everything before the model: options, messages, images, tokens and limits become a job."""

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mm.contracts import Inputs, MultimodalModel
from mm.errors import ContextOverflowError, InputError, OptionError, PromptError, TaskError
from mm.generation.row import Row, TokenConstraint
from mm.generation.sampling import SamplingOptions
from mm.grounding import BOX_TOKENS
from mm.images import ImageSource
from mm.jobs import Job
from mm.processing.base import Processor
from mm.request import Request, Settings, conversation, overflow_message

if TYPE_CHECKING:
    from mm.generation.grounding import BoxGrammar

# Longest answer when the caller names none, clamped to what the context has left. Enough for a dense page.
DEFAULT_MAX_NEW_TOKENS = 1024
# The same where the model reasons before it answers.
DEFAULT_REASONING_TOKENS = 8192


class Preparing:
    """Makes jobs of what is asked; whatever can be refused is refused here. May be shared by threads.

    Args:
        model: what the jobs are for.
        processor: of the same checkpoint.
        name: of the model, for messages.
        context: most tokens of prompt and answer together.
        needs_image: the model was trained with pictures only: a conversation without one is refused.
    """

    def __init__(
        self, model: MultimodalModel, processor: Processor, *, name: str, context: int, needs_image: bool
    ) -> None:
        self._processor, self._name, self._context, self._needs_image = processor, name, context, needs_image
        self._trained, self._vocab_size = model.decoder.max_positions, model.decoder.vocab_size
        self._lock = threading.Lock()
        self._grammar: BoxGrammar | None = None

    def chat(self, request: Request, settings: Settings, *, default_new: int = DEFAULT_MAX_NEW_TOKENS) -> Job:
        """A conversation.

        Args:
            request: what is asked.
            settings: its options.
            default_new: longest answer where they name none, clamped to what the context has left.

        Raises:
            InputError: see ``Pipeline.chat``.
            TaskError: images for a model that reads text only.
        """
        messages = conversation(request, settings)
        self._check_sees([image for message in messages for image in message.images])
        inputs = self._processor.process(
            messages,
            max_tiles=settings.max_tiles,
            official_images=settings.official_images,
        )
        if self._needs_image and not inputs.spans:
            raise InputError(
                f"{self._name} was trained with pictures only: it answers questions about an image, and nothing "
                "without one. Give it an image, or ask another model."
            )
        if self._is_base:
            warnings.warn(
                f"{self._name} is a base checkpoint, which continues text and was not trained to chat. Use complete() "
                "or 'mm complete', or the chat checkpoint of this name.",
                stacklevel=3,
            )
        return self._job(inputs, settings, default_new)

    def completion(self, prompt: str, suffix: str | None, images: list[ImageSource], settings: Settings) -> Job:
        """Raw text to be continued, or a gap to be filled; see ``Pipeline.complete``.

        Raises:
            InputError: the texts, the images or the options cannot be used, or do not fit the context.
            TaskError: images for a model that reads text only, or a suffix for one that cannot fill gaps.
        """
        if settings.system is not None:
            raise OptionError("system belongs to a chat; a completion has no system prompt. Write it into the prompt.")
        for name, text in (("prompt", prompt), ("suffix", suffix)):
            if not isinstance(text, str) and not (name == "suffix" and text is None):
                raise PromptError(f"the {name} must be a string, got {type(text).__name__}")
        self._check_sees(images)
        if suffix is not None:
            if images:
                raise PromptError("a gap between two texts is filled without images. Leave the images or suffix out.")
            inputs = self._processor.process_infill(prompt, suffix)
        else:
            tag = self._processor.spec.image_token
            if images and tag not in prompt:
                prompt = f"{tag}\n" * len(images) + prompt
            inputs = self._processor.process_prompt(
                prompt,
                images,
                apply_template=False,
                max_tiles=settings.max_tiles,
                official_images=settings.official_images,
                special=None if settings.special_tokens == "all" else frozenset(),
            )
        return self._job(inputs, settings)

    def _job(self, inputs: Inputs, settings: Settings, default_new: int = DEFAULT_MAX_NEW_TOKENS) -> Job:
        """A prompt with its limits checked."""
        if inputs.reasoning is not None:
            default_new = max(default_new, DEFAULT_REASONING_TOKENS)
        row = self.new_row(inputs, settings.sampling, default_new=default_new, constrain_boxes=settings.constrain_boxes)
        if row is None:
            raise ContextOverflowError(
                overflow_message(
                    inputs,
                    settings,
                    self._name,
                    context=self._context,
                    trained=self._trained,
                    num_image_tokens=self._processor.num_image_tokens,
                )
            )
        return Job(inputs, settings, row)

    def new_row(
        self,
        inputs: Inputs,
        options: SamplingOptions,
        *,
        default_new: int = DEFAULT_MAX_NEW_TOKENS,
        constrain_boxes: bool = False,
    ) -> Row | None:
        """See ``Pipeline.new_row``."""
        left = self._context - inputs.num_tokens
        if left < (options.max_new_tokens or 1):
            return None
        max_new_tokens = options.max_new_tokens or min(default_new, left)
        tokenizer = self._processor.tokenizer
        return Row(
            prompt_ids=inputs.input_ids,
            options=options,
            max_new_tokens=max_new_tokens,
            end_ids=frozenset({tokenizer.eos_id}),
            stop_ids=frozenset(tokenizer.token_id(text) for text in options.stop if text in tokenizer.special_tokens),
            hidden_ids=tokenizer.hidden_ids,
            decode=tokenizer.decode,
            constraint=self._constraint(max_new_tokens) if constrain_boxes else None,
        )

    def _check_sees(self, images: Sequence[ImageSource]) -> None:
        """Raise ``TaskError`` for images of a model that reads text only, before any of them is opened."""
        if images and not self._processor.spec.tokens_per_view:
            from mm.families.table import cannot_see

            raise cannot_see(self._name)

    @property
    def _is_base(self) -> bool:
        """Whether the name says so: files of base and chat checkpoints may be the same."""
        return Path(self._name).name.lower().endswith("-base")

    def check_boxes(self, what: str) -> None:
        """Raise ``TaskError`` unless the vocabulary has the markup of boxes."""
        missing = [token for token in BOX_TOKENS if token not in self._processor.tokenizer.special_tokens]
        if missing:
            raise TaskError(
                f"{self._name} cannot {what}: its vocabulary has no {missing[0]}, so it writes no boxes. Use a "
                "DeepSeek-VL2 model, such as nano-vl2"
            )

    def _constraint(self, max_new_tokens: int) -> TokenConstraint:
        from mm.generation.grounding import BoxConstraint, BoxGrammar

        self.check_boxes("constrain boxes")
        with self._lock:
            if self._grammar is None:
                self._grammar = BoxGrammar(self._processor.tokenizer, self._vocab_size)
        return BoxConstraint(self._grammar, max_new_tokens)
