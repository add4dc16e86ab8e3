"""Conversations as data: messages of text and image parts, the three forms users write them in, chat templates.

Which special tokens are control tokens is decided here, part by part; everything else in a text is plain characters.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from mm.errors import ImageError, PromptError
from mm.images import ImageSource
from mm.text_templates import ASSISTANT, END_THINK, EOT, FILL_BEGIN, FILL_END, FILL_HOLE, THINK, USER

Role = Literal["system", "user", "assistant"]
SpecialTokens = Literal["auto", "all", "none"]

GROUNDING_TOKENS = frozenset({"<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"})
CONTROL_TOKENS = frozenset(
    {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<|User|>", "<|Assistant|>"}
    | {USER, ASSISTANT, EOT, THINK, END_THINK, FILL_BEGIN, FILL_HOLE, FILL_END}  # of language models
)

# What stands for an image in the official form: of DeepSeek-VL2, and of DeepSeek-VL and Janus.
IMAGE_TAGS = ("<image>", "<image_placeholder>")

# The instructions that the bundled models are trained on, word for word.
TASK_PROMPTS = {
    "ocr": "Read all the text in the image.",
    "caption": "Describe the image.",
    "ground": "<|ref|>{query}<|/ref|>.",
}

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "User": "user",
    "<|User|>": "user",
    USER: "user",
    "assistant": "assistant",
    "Assistant": "assistant",
    "<|Assistant|>": "assistant",
    ASSISTANT: "assistant",
}
_SOURCE_KEYS = ("image", "path", "url")
_EXAMPLE = '{"role": "user", "content": "<image>\\nWhat is this?", "images": ["photo.png"]}'


@dataclass(frozen=True)
class TextPart:
    """Text in which only the tokens of ``special`` are control tokens."""

    text: str
    special: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ImagePart:
    """An image, not opened yet."""

    source: ImageSource


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The image sources, in order."""
        return tuple(part.source for part in self.parts if isinstance(part, ImagePart))

    @property
    def is_empty(self) -> bool:
        """No image, and no text but white space."""
        return not any(isinstance(part, ImagePart) or part.text.strip() for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """How turns become text. ``names`` are the roles as the model reads them."""

    names: Mapping[Role, str]
    turn_separator: str  # after a user's text
    end_separator: str  # after an answer, in the display text (ids hold the end token)

    def display(self, turns: Sequence[tuple[Role, str]]) -> str:
        """The conversation as one string, as the published processors print it; never used to make ids.

        The published code alternates the two separators by position, so a system turn shifts them; kept as recorded.
        """
        text = ""
        for index, (role, content) in enumerate(turns):
            name = self.names[role]
            if content:
                text += f"{name}: {content}{self.end_separator if index % 2 else self.turn_separator}"
            else:
                text += f"{name}:"
        return text.strip()


# By ``sft_format`` of processor_config.json (DeepSeek-VL2, official conversation templates).
CHAT_TEMPLATES = {
    "deepseek": ChatTemplate(
        names={"system": "system", "user": "<|User|>", "assistant": "<|Assistant|>"},
        turn_separator="\n\n",
        end_separator="<｜end▁of▁sentence｜>",
    ),
}


def user_message(
    text: str,
    images: Sequence[ImageSource] = (),
    *,
    special_tokens: SpecialTokens = "auto",
    image_tags: Sequence[str] = IMAGE_TAGS,
) -> Message:
    """One question about some images.

    Each image stands in front of the text on its own line, unless the text has exactly one image tag for every image:
    then the images stand where the tags are.

    Args:
        text: the question.
        images: what the question is about, in order.
        special_tokens: "auto" honours the image tag and the ref/det/grounding tokens, "all" also the begin, end, pad
            and role tokens, "none" takes every character of the text as text, the image tag too.
        image_tags: the tags that stand for an image.

    Raises:
        PromptError: the text is empty, or its image tags do not match the images.
    """
    _check_special_tokens(special_tokens)
    if not isinstance(text, str):
        raise PromptError(f"the question must be a string, got {type(text).__name__}")
    if not text.strip():
        raise PromptError("the question is empty. Write what you want to know about the image")
    _check_image_list(images, "images")
    special = _special_of_string(special_tokens)
    num_tags = 0 if special_tokens == "none" else _count_tags(text, image_tags)
    if num_tags == 0:
        parts: list[Part] = _image_lines(images)
        parts.append(TextPart(text, special))
        return Message("user", tuple(parts))
    if num_tags != len(images):
        raise PromptError(_tag_mismatch("the question", num_tags, len(images), image_tags))
    return Message("user", _place_images(text, images, special, image_tags))


def task_message(task: str, images: Sequence[ImageSource], query: str | None = None) -> Message:
    """The message of a built-in task (``TASK_PROMPTS``); ``query`` fills the place of {query} and is plain text.

    Raises:
        PromptError: an unknown task, or a query that is missing, empty or not wanted.
    """
    if task not in TASK_PROMPTS:
        raise PromptError(f"unknown task {task!r}. Known tasks: {', '.join(TASK_PROMPTS)}")
    before, placeholder, after = TASK_PROMPTS[task].partition("{query}")
    if placeholder and (query is None or not query.strip()):
        raise PromptError(f"the task {task!r} needs a query: say what to look for, for example 'the red car'")
    if not placeholder and query is not None:
        raise PromptError(f"the task {task!r} takes no query, got {query!r}. Ask it as a question instead")
    _check_image_list(images, "images")
    parts = [*_image_lines(images), TextPart(before, GROUNDING_TOKENS)]
    if query is not None:
        parts += [TextPart(query.strip()), TextPart(after, GROUNDING_TOKENS)]
    return Message("user", tuple(parts))


def parse_messages(
    messages: Sequence[Mapping[str, Any] | Message],
    *,
    image_tags: Sequence[str] = IMAGE_TAGS,
    special_tokens: SpecialTokens = "auto",
) -> tuple[Message, ...]:
    """Turn a conversation in any of the three forms into ``Message`` records. The caller's objects are not changed.

    Forms of one message (they may be mixed):
        official: ``{"role": "<|User|>", "content": "<image>\\nWhat?", "images": ["a.png"]}``
        content parts: ``{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", ...}]}``
        OpenAI: the same with ``{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}``

    In content parts an image stands on a line of its own, so that the three forms of the same question give the same
    tokens. A conversation may end with an empty answer, as the official form does, or with the question.

    Args:
        messages: the conversation; a first message may have the role "system". An answer that is not empty at the end
            is continued.
        image_tags: the tags of the official form.
        special_tokens: "auto": content strings honour ref/det/grounding tokens and, in user messages, the image tag;
            content parts are plain text. "all": begin, end, pad and role tokens are control tokens as well, in both.
            "none": all text is plain; images of the official form then stand in front of the text.

    Raises:
        PromptError: a message is malformed, empty or out of order, or its tags do not match its images.
        ImageError: an ``image_url`` is not a data URI.
    """
    _check_special_tokens(special_tokens)
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise PromptError(f"messages must be a list of messages, got {type(messages).__name__}. Example: [{_EXAMPLE}]")
    parsed = [
        message if isinstance(message, Message) else _parse_message(message, index, image_tags, special_tokens)
        for index, message in enumerate(messages)
    ]
    return check_order(parsed)


def check_order(messages: Sequence[Message], *, complete: bool = False) -> tuple[Message, ...]:
    """The conversation without an empty last answer, once its order is right.

    Args:
        messages: the conversation.
        complete: it must end with an answer, as one that is trained on does.

    Raises:
        PromptError: no question, an empty message, two messages of one role in a row, a late system message, an image
            outside a user message, or no answer at the end of a complete conversation.
    """
    turns = list(messages)
    if turns and turns[-1].role == "assistant" and turns[-1].is_empty:
        turns.pop()
    start = 1 if turns and turns[0].role == "system" else 0
    if len(turns) == start:
        raise PromptError(f"the conversation has no question. Add a user message, for example: {_EXAMPLE}")
    for index, message in enumerate(turns):
        place = f"message {index} ({message.role})"
        if message.role == "system" and index > 0:
            raise PromptError(f"{place} must be the first message. Move it to the start")
        if message.is_empty and message.role != "system":
            raise PromptError(f"{place} is empty. Write its text, or leave the message out")
        if message.images and message.role != "user":
            raise PromptError(f"{place} holds an image; only user messages can. Move the image there")
        expected = "user" if (index - start) % 2 == 0 else "assistant"
        if index >= start and message.role != expected:
            raise PromptError(
                f"{place} stands where a message of role {expected!r} is expected: questions and answers alternate, "
                "the question first. Join neighbouring messages of one role into one"
            )
    if complete and turns[-1].role != "assistant":
        raise PromptError("a training conversation must end with an answer. Add an assistant message")
    return tuple(turns)


def split_text(
    text: str, images: Sequence[ImageSource], *, special: frozenset[str], image_tag: str
) -> tuple[Part, ...]:
    """A raw prompt with each ``image_tag`` replaced by the next image; ``special`` are control tokens in the rest.

    Raises:
        PromptError: the prompt is empty, or the number of tags is not the number of images.
    """
    if not text.strip():
        raise PromptError("the prompt is empty. Write what the model is to continue")
    _check_image_list(images, "images")
    if text.count(image_tag) != len(images):
        raise PromptError(_tag_mismatch("the prompt", text.count(image_tag), len(images), (image_tag,)))
    return _place_images(text, images, special - {image_tag}, (image_tag,))


def _parse_message(message: object, index: int, image_tags: Sequence[str], special_tokens: SpecialTokens) -> Message:
    place = f"message {index}"
    if not isinstance(message, Mapping):
        raise PromptError(f"{place} must be a dict, got {type(message).__name__}. Example: {_EXAMPLE}")
    unknown = sorted(str(key) for key in message if key not in ("role", "content", "images"))
    missing = [key for key in ("role", "content") if key not in message]
    if unknown or missing:
        raise PromptError(
            f"{place} has "
            + " and ".join([f"no {key!r}" for key in missing] + [f"the unknown key {key!r}" for key in unknown])
            + f". A message has role, content and, optionally, images. Example: {_EXAMPLE}"
        )
    name, content = message["role"], message["content"]
    if not isinstance(name, str) or name not in _ROLES:
        raise PromptError(f"{place} has the unknown role {name!r}. Known roles: {', '.join(_ROLES)}")
    role = _ROLES[name]
    place = f"{place} ({role})"
    images = message.get("images")
    images = [] if images is None else images
    _check_image_list(images, f"{place}: images")
    if isinstance(content, str):
        return Message(role, _parse_string(content, images, role, place, image_tags, special_tokens))
    if content is None and role == "assistant":
        return Message(role, ())
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        if images:
            raise PromptError(f"{place} has both content parts and images. Put each image into the content list")
        return Message(role, _parse_parts(content, place, special_tokens))
    raise PromptError(f"{place}: content must be a string or a list of parts, got {type(content).__name__}")


def _parse_string(
    text: str,
    images: Sequence[ImageSource],
    role: Role,
    place: str,
    image_tags: Sequence[str],
    special_tokens: SpecialTokens,
) -> tuple[Part, ...]:
    special = _special_of_string(special_tokens)
    if special_tokens == "none" or role != "user":
        lines = _image_lines(images)
        return (*lines, TextPart(text, special)) if text or not lines else tuple(lines)
    num_tags = _count_tags(text, image_tags)
    if num_tags != len(images):
        raise PromptError(_tag_mismatch(place, num_tags, len(images), image_tags))
    return _place_images(text, images, special, image_tags)


def _parse_parts(content: Sequence[Any], place: str, special_tokens: SpecialTokens) -> tuple[Part, ...]:
    special = GROUNDING_TOKENS | CONTROL_TOKENS if special_tokens == "all" else frozenset[str]()
    parts: list[Part] = []
    for number, item in enumerate(content):
        part = _parse_part(item, f"{place}, part {number}", special)
        if parts and not _breaks_line(parts[-1], part):
            parts.append(TextPart("\n"))
        parts.append(part)
    return tuple(parts)


def _parse_part(item: object, place: str, special: frozenset[str]) -> Part:
    if not isinstance(item, Mapping):
        raise PromptError(
            f'{place} must be a dict such as {{"type": "text", "text": "..."}}, got {type(item).__name__}'
        )
    kind = item.get("type")
    if kind == "text":
        _check_keys(item, ("type", "text"), place)
        if not isinstance(item.get("text"), str):
            raise PromptError(f'{place}: "text" must be a string, got {type(item.get("text")).__name__}')
        return TextPart(item["text"], special)
    if kind == "image":
        _check_keys(item, ("type", *_SOURCE_KEYS), place)
        given = [key for key in _SOURCE_KEYS if item.get(key) is not None]
        if len(given) != 1:
            raise PromptError(
                f"{place}: an image part needs exactly one of image, path and url, got {' and '.join(given) or 'none'}"
            )
        return ImagePart(cast(ImageSource, item[given[0]]))
    if kind == "image_url":
        _check_keys(item, ("type", "image_url"), place)
        return ImagePart(_data_uri(item.get("image_url"), place))
    raise PromptError(f"{place} has the unknown type {kind!r}. Known types: text, image, image_url")


def _data_uri(value: object, place: str) -> str:
    if isinstance(value, Mapping):
        _check_keys(value, ("url", "detail"), f"{place}: image_url")  # "detail" asks a service for a price class
        value = value.get("url")
    if not isinstance(value, str):
        raise PromptError(f'{place}: image_url must be {{"url": "data:image/png;base64,..."}} or that string')
    if value[:5].lower() != "data:":
        shown = repr(value if len(value) <= 80 else value[:77] + "...")
        raise ImageError(
            f"{place}: image_url {shown} is not a data URI, and images are never downloaded here. Save the image, "
            'then pass {"type": "image", "path": "..."} or a data:image/png;base64,... URI'
        )
    return value


def _breaks_line(before: Part, after: Part) -> bool:
    """Whether two neighbouring parts need no line break: text beside text, or white space at the border."""
    if isinstance(before, TextPart) and isinstance(after, TextPart):
        return True
    if isinstance(before, TextPart):
        return before.text[-1:].isspace() or not before.text
    return isinstance(after, TextPart) and (after.text[:1].isspace() or not after.text)


def _image_lines(images: Sequence[ImageSource]) -> list[Part]:
    """Each image on a line of its own."""
    parts: list[Part] = []
    for image in images:
        parts += [ImagePart(image), TextPart("\n")]
    return parts


def _place_images(
    text: str, images: Sequence[ImageSource], special: frozenset[str], image_tags: Sequence[str]
) -> tuple[Part, ...]:
    pieces = re.split("|".join(map(re.escape, image_tags)), text)
    assert len(pieces) == len(images) + 1
    parts: list[Part] = [TextPart(pieces[0], special)]
    for image, piece in zip(images, pieces[1:], strict=True):
        parts += [ImagePart(image), TextPart(piece, special)]
    return tuple(part for part in parts if isinstance(part, ImagePart) or part.text)


def _special_of_string(special_tokens: SpecialTokens) -> frozenset[str]:
    if special_tokens == "none":
        return frozenset()
    return GROUNDING_TOKENS | CONTROL_TOKENS if special_tokens == "all" else GROUNDING_TOKENS


def _count_tags(text: str, image_tags: Sequence[str]) -> int:
    return sum(text.count(tag) for tag in image_tags)


def _tag_mismatch(place: str, num_tags: int, num_images: int, image_tags: Sequence[str]) -> str:
    image_tag = image_tags[0]
    return (
        f"{place} has {num_tags} {image_tag} {'tag' if num_tags == 1 else 'tags'} but {num_images} "
        f"{'image' if num_images == 1 else 'images'}. Write {image_tag} once for each image, in order, "
        'or pass special_tokens="none" (--special-tokens none) to have the tag read as plain text'
    )


def _check_image_list(images: object, place: str) -> None:
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise PromptError(
            f"{place} must be a list of images, got {type(images).__name__}. Put the image in a list: [image]"
        )


def _check_keys(item: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
    unknown = sorted(str(key) for key in item if key not in known)
    if unknown:
        raise PromptError(f"{place} has the unknown {', '.join(map(repr, unknown))}. Known keys: {', '.join(known)}")


def _check_special_tokens(value: str) -> None:
    if value not in ("auto", "all", "none"):
        raise PromptError(f"special_tokens must be 'auto', 'all' or 'none', got {value!r}")
