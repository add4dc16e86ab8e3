"""Messages: three forms, special tokens, tags that do not match, order; the caller's objects stay as they are."""

import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mm.chat import (
    CHAT_TEMPLATES,
    CONTROL_TOKENS,
    GROUNDING_TOKENS,
    TASK_PROMPTS,
    ImagePart,
    Message,
    TextPart,
    check_order,
    parse_messages,
    split_text,
    task_message,
    user_message,
)
from mm.errors import ImageError, PromptError

URI = "data:image/png;base64,AAAA"


def joined(message: Message) -> str:
    """The text of a message with <image> where an image stands."""
    return "".join("<image>" if isinstance(part, ImagePart) else part.text for part in message.parts)


def specials(message: Message) -> set[frozenset[str]]:
    return {part.special for part in message.parts if isinstance(part, TextPart)}


def test_official_form() -> None:
    conversation = [
        {"role": "system", "content": "Be terse."},
        {"role": "<|User|>", "content": "A <image> and\n<image>?", "images": ["a.png", "b.png"]},
        {"role": "<|Assistant|>", "content": "Two."},
        {"role": "<|User|>", "content": "Sure?"},
        {"role": "<|Assistant|>", "content": ""},
    ]
    before = copy.deepcopy(conversation)
    messages = parse_messages(conversation)
    assert conversation == before
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert joined(messages[1]) == "A <image> and\n<image>?"
    assert messages[1].images == ("a.png", "b.png")
    assert specials(messages[1]) == {GROUNDING_TOKENS}
    assert messages == parse_messages(conversation[:-1])  # the empty answer may be left out
    assert parse_messages(messages) == messages  # parsed messages pass through


@pytest.mark.parametrize("role", ["user", "User", "<|User|>"])
def test_role_spellings(role: str) -> None:
    assert parse_messages([{"role": role, "content": "Hi"}])[0].role == "user"


def test_the_three_forms_agree() -> None:
    image = Image.new("RGB", (2, 2))
    official = {"role": "user", "content": "<image>\n<image>\nWhat differs?", "images": [URI, URI]}
    text = {"type": "text", "text": "What differs?"}
    parts = {"role": "user", "content": [{"type": "image", "url": URI}, {"type": "image", "image": URI}, text]}
    openai_image = {"type": "image_url", "image_url": {"url": URI, "detail": "high"}}
    openai = {"role": "user", "content": [openai_image, {"type": "image_url", "image_url": URI}, text]}
    texts = {joined(parse_messages([message])[0]) for message in (official, parts, openai)}
    assert texts == {"<image>\n<image>\nWhat differs?"}
    assert joined(user_message("What differs?", [image, image])) == "<image>\n<image>\nWhat differs?"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["Look:", None], "Look:\n<image>"),
        (["Look: ", None, " and ", None, "!"], "Look: <image> and <image>\n!"),
        ([None, "\nWhat?"], "<image>\nWhat?"),
        (["a", "b"], "ab"),
        ([None, ""], "<image>"),
    ],
)
def test_line_breaks_around_images_in_parts(content: list[str | None], expected: str) -> None:
    parts = [{"type": "image", "path": "a.png"} if text is None else {"type": "text", "text": text} for text in content]
    assert joined(parse_messages([{"role": "user", "content": parts}])[0]) == expected


def test_special_tokens_switch() -> None:
    text = "<|ref|>x<|/ref|><｜end▁of▁sentence｜><|User|>"
    string, parts = {"role": "user", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}
    for mode, of_string, of_parts in (
        ("auto", GROUNDING_TOKENS, frozenset[str]()),
        ("all", GROUNDING_TOKENS | CONTROL_TOKENS, GROUNDING_TOKENS | CONTROL_TOKENS),
        ("none", frozenset[str](), frozenset[str]()),
    ):
        assert specials(parse_messages([string], special_tokens=mode)[0]) == {of_string}  # type: ignore[arg-type]
        assert specials(parse_messages([parts], special_tokens=mode)[0]) == {of_parts}  # type: ignore[arg-type]
        assert specials(user_message(text, special_tokens=mode)) == {of_string}  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="special_tokens must be 'auto', 'all' or 'none', got 'some'"):
        parse_messages([string], special_tokens="some")  # type: ignore[arg-type]


def test_typed_image_tags() -> None:
    typed = {"role": "user", "content": [{"type": "text", "text": "What is <image>?"}]}
    assert parse_messages([typed])[0].images == ()  # plain text in content parts
    plain = parse_messages([{"role": "user", "content": "<image>?", "images": ["a.png"]}], special_tokens="none")[0]
    assert (joined(plain), plain.images) == ("<image>\n<image>?", ("a.png",))
    assert TextPart("<image>?") in plain.parts
    answer = parse_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "an <image> tag"}])[1]
    assert answer.images == ()


def test_user_message() -> None:
    assert joined(user_message("What?")) == "What?"
    assert joined(user_message("What?", ["a", "b"])) == "<image>\n<image>\nWhat?"
    placed = user_message("First <image>, then <image>.", ["a", "b"])
    assert joined(placed) == "First <image>, then <image>."
    assert placed.images == ("a", "b")
    plain = user_message("the <image> tag", ["a"], special_tokens="none")
    assert plain.parts == (ImagePart("a"), TextPart("\n"), TextPart("the <image> tag"))


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("", ["a"], "the question is empty"),
        (" \n", [], "the question is empty"),
        ("<image> and <image>", ["a"], "has 2 <image> tags but 1 image. Write <image> once for each image"),
        ("<image>?", [], 'has 1 <image> tag but 0 images.*"none" .--special-tokens none. to have the tag'),
        (5, [], "the question must be a string, got int"),
        ("What?", "a.png", r"images must be a list of images, got str. Put the image in a list: \[image\]"),
        ("What?", np.zeros((2, 2, 3), np.uint8), "images must be a list of images, got ndarray"),
    ],
)
def test_bad_questions(text: Any, images: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        user_message(text, images)


def test_task_messages() -> None:
    assert set(TASK_PROMPTS) == {"ocr", "caption", "ground"}
    assert joined(task_message("ocr", ["a"])) == "<image>\nRead all the text in the image."
    ground = task_message("ground", ["a"], " the <|/ref|> cup ")
    assert joined(ground) == "<image>\n<|ref|>the <|/ref|> cup<|/ref|>."
    assert TextPart("the <|/ref|> cup") in ground.parts  # a query is plain text
    with pytest.raises(PromptError, match="unknown task 'draw'. Known tasks: ocr, caption, ground"):
        task_message("draw", [])
    with pytest.raises(PromptError, match="the task 'ground' needs a query"):
        task_message("ground", ["a"], " ")
    with pytest.raises(PromptError, match="the task 'ocr' takes no query, got 'x'"):
        task_message("ocr", ["a"], "x")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hi", "messages must be a list of messages, got str. Example:"),
        ({"role": "user", "content": "Hi"}, "messages must be a list of messages, got dict"),
        (["Hi"], "message 0 must be a dict, got str"),
        ([], "the conversation has no question. Add a user message"),
        ([{"role": "system", "content": "x"}], "the conversation has no question"),
        ([{"role": "user"}], "message 0 has no 'content'. A message has role, content and, optionally, images"),
        ([{"role": "user", "content": "x", "image": "a"}], "message 0 has the unknown key 'image'"),
        ([{"role": "bot", "content": "x"}], "message 0 has the unknown role 'bot'. Known roles: system, user"),
        ([{"role": ["user"], "content": "x"}], r"has the unknown role \['user'\]"),
        ([{"role": "user", "content": 5}], r"message 0 \(user\): content must be a string or a list of parts, got int"),
        ([{"role": "user", "content": None}], "content must be a string or a list of parts, got NoneType"),
        ([{"role": "user", "content": " "}], r"message 0 \(user\) is empty. Write its text"),
        ([{"role": "user", "content": []}], r"message 0 \(user\) is empty"),
        ([{"role": "user", "content": "x", "images": "a.png"}], "images must be a list of images, got str"),
        (
            [{"role": "user", "content": "x", "images": ["a.png"]}],
            r"message 0 \(user\) has 0 <image> tags but 1 image\.",
        ),
        ([{"role": "user", "content": "<image> <image>", "images": ["a"]}], "has 2 <image> tags but 1 image"),
        ([{"role": "user", "content": "<image>"}], "has 1 <image> tag but 0 images"),
        ([{"role": "user", "content": [], "images": ["a"]}], "has both content parts and images"),
        ([{"role": "assistant", "content": "x"}], "message 0 .assistant. stands where a message of role 'user'"),
        ([{"role": "user", "content": "x"}] * 2, "message 1 .user. stands where a message of role 'assistant'"),
        (
            [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}],
            "message 1 .system. must be the first",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "y"}],
            r"message 1 \(assistant\) is empty",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "images": ["a"]}],
            r"message 1 \(assistant\) holds an image; only user messages can",
        ),
    ],
)
def test_bad_conversations(messages: Any, message: str) -> None:
    before = copy.deepcopy(messages)
    with pytest.raises(PromptError, match=message):
        parse_messages(messages)
    assert messages == before


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("Hi", r"message 0 \(user\), part 0 must be a dict such as"),
        ({"type": "video", "path": "a"}, "has the unknown type 'video'. Known types: text, image, image_url"),
        ({"text": "x"}, "has the unknown type None"),
        ({"type": "text"}, '"text" must be a string, got NoneType'),
        ({"type": "text", "text": "x", "image": "a"}, "has the unknown 'image'. Known keys: type, text"),
        ({"type": "image"}, "an image part needs exactly one of image, path and url, got none"),
        ({"type": "image", "path": "a", "url": "b"}, "exactly one of image, path and url, got path and url"),
        ({"type": "image", "file": "a"}, "has the unknown 'file'. Known keys: type, image, path, url"),
        ({"type": "image_url"}, 'image_url must be {"url": "data:image/png;base64,..."} or that string'),
        ({"type": "image_url", "image_url": {"uri": "x"}}, "has the unknown 'uri'. Known keys: url, detail"),
    ],
)
def test_bad_parts(part: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_messages([{"role": "user", "content": [part]}])


@pytest.mark.parametrize("url", ["https://example.org/a.png", "/etc/hostname", "a.png"])
def test_image_url_takes_data_uris_only(url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(ImageError, match="is not a data URI, and images are never downloaded here. Save the image"):
        parse_messages([{"role": "user", "content": content}])


def test_answers_without_content() -> None:
    question = {"role": "user", "content": "Hi"}
    assert len(parse_messages([question, {"role": "assistant", "content": None}])) == 1
    assert check_order([user_message("Hi"), Message("assistant", ())]) == (user_message("Hi"),)


def test_split_text() -> None:
    parts = split_text("a<image>b", ["x"], special=frozenset({"b"}), image_tag="<image>")
    assert parts == (TextPart("a", frozenset({"b"})), ImagePart("x"), TextPart("b", frozenset({"b"})))
    with pytest.raises(PromptError, match="the prompt has 1 <image> tag but 2 images"):
        split_text("a<image>b", ["x", "y"], special=frozenset(), image_tag="<image>")


def test_display() -> None:
    template = CHAT_TEMPLATES["deepseek"]
    assert template.display([("user", "Hi"), ("assistant", "")]) == "<|User|>: Hi\n\n<|Assistant|>:"
    turns = template.display([("user", "Hi"), ("assistant", "Yo"), ("user", "Eh"), ("assistant", "")])
    assert turns == "<|User|>: Hi\n\n<|Assistant|>: Yo<｜end▁of▁sentence｜><|User|>: Eh\n\n<|Assistant|>:"


def test_the_image_tags_of_both_official_forms() -> None:
    assert user_message("<image_placeholder>\nWhat?", ["a.png"]) == user_message("<image>\nWhat?", ["a.png"])
    (message,) = parse_messages(
        [{"role": "<|User|>", "content": "<image_placeholder> or <image>?", "images": ["a.png", "b.png"]}]
    )
    assert message.images == ("a.png", "b.png")
    (plain,) = parse_messages([{"role": "user", "content": "<image_placeholder>"}], special_tokens="none")
    assert plain.parts == (TextPart("<image_placeholder>"),)
    (other,) = parse_messages(
        [{"role": "user", "content": "<image> <image_placeholder>", "images": ["a.png"]}], image_tags=("<image>",)
    )
    assert len(other.images) == 1
