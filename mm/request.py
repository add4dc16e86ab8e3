"""What a caller may ask of a pipeline, checked before any work."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict, cast

from mm.chat import Message, SpecialTokens, TextPart, parse_messages, user_message
from mm.contracts import CancelToken, Inputs
from mm.errors import OptionError, PromptError
from mm.generation.sampling import SamplingOptions, as_stop_strings
from mm.generation.speculation import Speculation, check_speculates_on
from mm.images import ImageSource

Images = ImageSource | Sequence[ImageSource] | None
Messages = Sequence[Mapping[str, Any] | Message]


class SampleOptions(TypedDict, total=False):
    """How tokens are chosen and when an answer ends; ``mm.generation.sampling.SamplingOptions`` says more of each."""

    max_new_tokens: int | None
    do_sample: bool | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float
    no_repeat_ngram_size: int
    seed: int | None
    stop: str | Sequence[str] | None
    logprobs: bool
    detect_loops: bool
    speculation: Speculation | None
    speculation_window: int | None


class PromptOptions(TypedDict, total=False):
    """How the prompt is made.

    ``system``: text before the conversation. ``max_tiles``: most tiles an image is cut into. ``special_tokens``: which
    special tokens in a text are control tokens ("auto", "all", "none"; see ``mm.chat``). ``official_images``: open
    images as the official code does (no EXIF rotation, transparency dropped). ``constrain_boxes``: every ``<|det|>``
    of the answer closes with four integers a box.
    """

    system: str | None
    max_tiles: int | None
    special_tokens: SpecialTokens
    official_images: bool
    constrain_boxes: bool


class RowOptions(SampleOptions, PromptOptions, total=False):
    """Options of one conversation."""


class ChatOptions(RowOptions, total=False):
    """Options of a call. ``cancel``: an object with ``is_set()``, such as ``threading.Event``; once it says True the
    call ends within one step, with the finish reason "cancelled"."""

    cancel: CancelToken | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversation of a batch: a question about images, or ``messages``. ``options`` override the batch's."""

    question: str | None = None
    images: Images = None
    messages: Messages | None = None
    options: RowOptions = field(default_factory=lambda: RowOptions())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of one conversation, checked."""

    sampling: SamplingOptions
    system: str | None = None
    max_tiles: int | None = None
    special_tokens: SpecialTokens = "auto"
    official_images: bool = False
    constrain_boxes: bool = False
    cancel: CancelToken | None = None


_MOST_TILES = 16  # more than any published grid has

# What people write after other libraries.
_OTHER_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "system_prompt": "system",
    "stop_strings": "stop",
    "repeat_penalty": "repetition_penalty",
    "generator": "seed",
}


def parse_options(options: Mapping[str, Any]) -> Settings:
    """Check the options of a call.

    Raises:
        OptionError: an unknown option, or a value out of its range.
    """
    known = sorted(ChatOptions.__optional_keys__)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = _OTHER_NAMES.get(name) or (close[0] if close else None)
            hint = f" Did you mean {meant!r}?" if meant else ""
            raise OptionError(f"unknown option {name!r}.{hint} Known: {', '.join(known)}.")
    given = dict(options)
    given["stop"] = as_stop_strings(given.get("stop"))
    names = {item.name for item in fields(SamplingOptions)}
    sampling = SamplingOptions(**{name: given.pop(name) for name in list(given) if name in names})
    check_speculates_on("texts", sampling.speculation)
    for name in ("official_images", "constrain_boxes"):
        if not isinstance(given.get(name, False), bool):
            raise OptionError(f"{name} is {given[name]!r}; expected True or False.")
    if given.get("system") is not None and not isinstance(given["system"], str):
        raise OptionError(f"system is {given['system']!r}; expected a string.")
    if given.get("cancel") is not None and not callable(getattr(given["cancel"], "is_set", None)):
        raise OptionError(f"cancel is {given['cancel']!r}; expected an object with is_set(), such as threading.Event.")
    return Settings(sampling=sampling, **given)


def as_list(images: Images) -> list[ImageSource]:
    """None, one image or several as a list."""
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [cast(ImageSource, images)]


def conversation(request: Request, settings: Settings) -> tuple[Message, ...]:
    """The messages of a request.

    Raises:
        PromptError: nothing is asked, two forms are mixed, or see ``mm.chat``.
    """
    images, question = as_list(request.images), request.question
    if request.messages is not None:
        if question is not None or images:
            raise PromptError(
                "got both messages= and a question or images. Put the question and its images into the last message."
            )
        messages = parse_messages(request.messages, special_tokens=settings.special_tokens)
    elif question is None:
        got = f"only {_shown(images[0])} as an image" if images else "neither an image nor a question"
        raise PromptError(f"no question: got {got}. Write chat(image, question), or chat(None, question) for text.")
    else:
        messages = (user_message(question, images, special_tokens=settings.special_tokens),)
    if settings.system is None:
        return messages
    if messages[0].role == "system":
        raise PromptError("got both system= and a system message. Leave one of the two out.")
    return (Message("system", (TextPart(settings.system),)), *messages)


def as_request(item: object) -> Request:
    """An item of ``Pipeline.chat_batch``: a Request, ``(images, question)``, or a list of messages.

    Raises:
        PromptError: anything else.
    """
    if isinstance(item, Request):
        return item
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], str):
        return Request(images=item[0], question=item[1])
    if isinstance(item, list):
        return Request(messages=item)
    raise PromptError(
        f"a batch holds Request objects, (images, question) pairs or lists of messages; got {_shown(item)}."
    )


def overflow_message(
    inputs: Inputs,
    settings: Settings,
    name: str,
    *,
    context: int,
    trained: int,
    num_image_tokens: Callable[[int, int, int, int], int],
) -> str:
    """How far a prompt is over the limit, and what to shrink.

    Args:
        inputs: the prompt.
        settings: of its conversation.
        name: of the model.
        context: most tokens of prompt and answer together.
        trained: what the model was trained for.
        num_image_tokens: of width, height, number of images and max_tiles (``Processor.num_image_tokens``).
    """
    wanted, prompt, num_images = settings.sampling.max_new_tokens, inputs.num_tokens, len(inputs.spans)
    text_tokens = prompt - sum(span.stop - span.start for span in inputs.spans)
    share = f" ({prompt - text_tokens:,} of them for {num_images} image{'s' * (num_images != 1)})" if num_images else ""
    answer = "at least one token of answer" if wanted is None else f"{wanted:,} tokens of answer"
    text = f"the prompt takes {prompt:,} tokens{share} and {answer}, but the context of {name} is {context:,} tokens."
    room = context - (wanted or min(256, context // 4))  # an answer of a few words should fit too
    for tiles in range((settings.max_tiles or _MOST_TILES) - 1, 0, -1) if num_images else ():
        shrunk = text_tokens + sum(
            num_image_tokens(span.width, span.height, num_images, tiles) for span in inputs.spans
        )
        if shrunk <= room:
            return f"{text} With max_tiles={tiles} (--max-tiles {tiles}) the prompt takes {shrunk:,} tokens and fits."
    if prompt < context:
        text += f" Use max_new_tokens={context - prompt} or less (--max-new-tokens), or shorten the text"
    else:
        text += " Shorten the text"
    if num_images:
        text += " or use fewer images; no max_tiles fits"
    return f"{text}. A larger context= (--context) works too, with worse answers beyond the trained {trained:,}."


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | tuple | dict) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
