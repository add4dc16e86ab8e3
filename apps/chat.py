"""A web page to chat about images: ``python -m apps.chat``, ``mm app chat``."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from mm.chat import Message, TextPart, task_message, user_message
from mm.errors import ContextOverflowError, InputError
from mm.grounding import Box, draw_boxes
from mm.images import ImageSource
from mm.pipeline import Pipeline
from mm.reply import Reply, TextStream
from mm.request import ChatOptions

from .common import (
    AGES,
    IMAGE_TYPES,
    Sessions,
    finish_sentence,
    keep_picture,
    open_upload,
    plain,
    sentences,
    speed_text,
    uploaded,
)
from .models import Models
from .picker import Picker
from .server import run_app

ASK, FIND = "Ask", "Find in the image"
ASK_HERE = "Ask about the image ..."
TITLE = 40  # letters of a saved conversation's name
UNKNOWN_CONTEXT = 4096  # until a model is loaded
NEAR_THE_END = 0.75  # part of the context from which on the page says how full it is
Turn = dict[str, Any]


class Chat(gr.ChatInterface):
    """Names saved conversations in words alone: many machines have no glyph for Gradio's paper clip."""

    def _generate_chat_title(self, conversation: list[Any]) -> str:
        texts = (_content(turn.get("content"))[0] for turn in conversation if turn.get("role") == "user")
        title = next(filter(None, texts), "Pictures")
        return title if len(title) <= TITLE else title[: TITLE - 3] + "..."


@dataclass(frozen=True)
class Page:
    """The page, and what the front page connects with the others.

    Attributes:
        demo: the blocks.
        message: where a visitor writes.
    """

    demo: gr.Blocks
    message: gr.MultimodalTextbox


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page of one loaded model. Endpoints for programs: ``/chat`` and ``/load_chat_model``.

    Args:
        pipe: shared by all visitors; what they upload and say is kept a session each.
    """
    return build_page(Models.of(pipe)).demo


def build_page(models: Models) -> Page:
    """The page on the models of a server."""
    sessions = Sessions()

    async def answer(
        message: Mapping[str, Any],
        history: list[Turn],
        task: str,
        system: str,
        max_new_tokens: float,
        temperature: float,
        top_p: float,
        seed: float,
        model: str | None,
        request: gr.Request,
    ) -> AsyncIterator[tuple[list[Turn], dict[str, Any] | None]]:
        """Answer a message about the conversation's images.

        Args:
            message: text and uploaded image files.
            history: earlier messages.
            task: "Ask", or "Find in the image" to get boxes.
            system: text before the conversation.
            max_new_tokens: longest answer in tokens.
            temperature: 0 takes the most likely token.
            top_p: sample from the most likely tokens that make up this probability.
            seed: makes sampling repeatable; -1 takes another one each time.
            model: its name in the list.
        """
        with sentences(), models.using(model, "chat") as pipe, sessions.place(models.line, request) as place:
            options = ChatOptions(
                system=system.strip() or None,
                max_new_tokens=int(max_new_tokens),
                temperature=temperature or None,
                top_p=top_p if temperature and top_p < 1 else None,
                seed=None if seed < 0 else int(seed),
            )
            turns = await asyncio.to_thread(conversation, history, message, task)
            if pipe.needs_image and not any(turn.images for turn in turns):
                raise InputError(f"{model} was trained with pictures only. Add an image to the question.")
            async for text in place.wait():
                yield [{"role": "assistant", "content": text}], None
            if place.cancelled:  # the tab was closed
                return
            began = time.perf_counter()
            stream, dropped = await asyncio.to_thread(fitting_stream, pipe, turns, options)
            text, first_s = "", 0.0
            with sessions.running(request, stream):
                async for piece in stream:
                    first_s = first_s or time.perf_counter() - began
                    text += piece
                    yield [{"role": "assistant", "content": text}], None
            reply = stream.reply
            images = [image for turn in turns[2 * dropped :] for image in turn.images]
            speed = speed_text(reply, first_s, time.perf_counter() - began)
            yield await asyncio.to_thread(shown, pipe, reply, images, dropped, speed), as_data(reply)

    def take(photo: Any, message: Any) -> dict[str, Any]:
        """A photo for the message. Both come as the browser sends them: their files are checked here."""
        with sentences():
            files = [str(uploaded(_path(file))) for file in message.get("files") or []]
            return {
                "text": message.get("text") or "",
                "files": [*files, *([str(uploaded(_path(photo)))] if photo else [])],
            }

    with gr.Blocks(title="Chat with an image", analytics_enabled=False, delete_cache=AGES) as demo:
        picker = Picker(models, "chat", "Chat with an image")
        with gr.Row(equal_height=False):
            main_column = gr.Column(scale=3, min_width=320)
            with gr.Column(scale=1, min_width=260):
                with gr.Accordion("Settings", open=True):
                    inputs = _settings(UNKNOWN_CONTEXT if picker.pipe is None else picker.pipe.context)
                with gr.Accordion("Camera", open=False):
                    photo = gr.Image(
                        sources=["webcam"],
                        type="filepath",
                        label="Take a picture",
                        buttons=[],
                        format="png",
                        height=220,
                    )
                with gr.Accordion("Last answer as data", open=False):
                    data = gr.JSON(label="Answer", show_label=False, max_height=400)
        with main_column:
            chat = Chat(
                answer,
                multimodal=True,
                editable=True,
                save_history=True,
                chatbot=gr.Chatbot(
                    label="Conversation",
                    height="60vh",
                    min_height=320,
                    buttons=["copy", "copy_all"],
                    allow_tags=False,
                    latex_delimiters=[],
                    placeholder="### Show an image and ask about it\nPaste, drop or upload one or several images.",
                    layout="bubble",
                ),
                textbox=gr.MultimodalTextbox(
                    file_types=IMAGE_TYPES,
                    file_count="multiple",
                    sources=["upload"],
                    placeholder=ASK_HERE,
                    label="Message",
                    stop_btn=True,
                    max_plain_text_length=20_000,
                ),
                additional_inputs=[*inputs, picker.model],
                additional_outputs=[data],
                stop_btn=True,
                fill_height=False,
                api_name="chat",
                concurrency_limit=None,
                analytics_enabled=False,
            )
        assert isinstance(chat.textbox, gr.MultimodalTextbox)
        photo.input(
            take,
            [photo, chat.textbox],
            chat.textbox,
            preprocess=False,
            api_visibility="private",
            show_progress="hidden",
        )
        # Gradio takes the placeholder away with the first message.
        data.change(
            lambda: gr.update(placeholder=ASK_HERE),
            None,
            chat.textbox,
            api_visibility="private",
            show_progress="hidden",
        )
        longest = inputs[2]
        picker.wire([longest], lambda pipe, chosen: [gr.update(maximum=pipe.context)], "load_chat_model")
        demo.unload(sessions.end)
    return Page(demo, chat.textbox)


def _settings(context: int) -> list[gr.components.Component]:
    """The side panel, in the order of the arguments of ``answer``."""
    return [
        gr.Radio([ASK, FIND], value=ASK, label="Task", info="Find marks what you name with a box."),
        gr.Textbox("", label="System prompt", lines=2, max_lines=6),
        gr.Slider(1, context, value=min(512, context), step=1, label="Longest answer", info="tokens"),
        gr.Slider(0, 2, value=0, step=0.05, label="Temperature", info="0 takes the most likely token"),
        gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p"),
        gr.Number(-1, label="Seed", precision=0, minimum=-1, info="-1: another one each time"),
    ]


def conversation(history: Sequence[Turn], message: Mapping[str, Any], task: str = ASK) -> list[Message]:
    """What the page shows, as messages of the model. Notes under answers and questions without an answer are left out.

    Raises:
        InputError: nothing is asked, or a file is no picture that was uploaded here.
    """
    turns: list[Message] = []
    for turn in history:
        if (turn.get("metadata") or {}).get("title"):
            continue
        texts, files = _content(turn.get("content"))
        role = turn.get("role")
        if role == "user":
            if turns and turns[-1].role == "user":
                if _only_images(turns[-1]):  # a message of several parts
                    turns.append(_question(texts, [*turns.pop().images, *map(open_upload, files)]))
                    continue
                turns.pop()
            turns.append(_question(texts, [open_upload(path) for path in files]))
        elif role == "assistant" and texts and turns and turns[-1].role == "user":
            turns.append(Message("assistant", (TextPart(texts),)))
    if turns and turns[-1].role == "user":
        turns.pop()
    images = [open_upload(_path(file)) for file in message.get("files") or []]
    text = str(message.get("text") or "").strip()
    if task not in (ASK, FIND):
        raise InputError(f"unknown task {task!r}; known: {ASK}, {FIND}.")
    if not text:
        raise InputError(
            "name what to find." if task == FIND else "nothing is asked. Write a question next to the image."
        )
    if task == FIND:
        if not images and not any(turn.images for turn in turns):
            raise InputError("there is no image to search. Add one to the conversation.")
        turns.append(task_message("ground", images, text))
    else:
        turns.append(user_message(text, images, special_tokens="none"))
    return turns


def _question(text: str, images: Sequence[ImageSource]) -> Message:
    return user_message(text or " .", list(images), special_tokens="none")


def _only_images(message: Message) -> bool:
    return bool(message.images) and all(
        not isinstance(part, TextPart) or part.text.strip() in ("", ".") for part in message.parts
    )


def _content(content: object) -> tuple[str, list[str]]:
    """Texts, joined, and paths of files of what Gradio calls the content of a message."""
    texts: list[str] = []
    files: list[str] = []
    for item in content if isinstance(content, list | tuple) else [content]:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping) and item.get("type") == "text":
            texts.append(str(item.get("text", "")))
        elif isinstance(item, Mapping) and item.get("type") != "component":
            files.append(_path(item.get("file", item)))
    return "\n".join(texts).strip(), files


def _path(file: object) -> str:
    return str(file.get("path", "")) if isinstance(file, Mapping) else str(file)


def fitting_stream(pipe: Pipeline, turns: Sequence[Message], options: ChatOptions) -> tuple[TextStream, int]:
    """The answer on its way, and how many of the oldest question-answer pairs had to be left out to fit the context.

    Raises:
        ContextOverflowError: the last question alone does not fit.
    """
    pairs = len(turns) // 2
    for dropped in range(pairs + 1):
        try:
            return pipe.stream(messages=list(turns[2 * dropped :]), **options), dropped
        except ContextOverflowError:
            if dropped == pairs:
                raise
    raise AssertionError("the loop returns or raises")


def shown(pipe: Pipeline, reply: Reply, images: Sequence[Any], dropped: int, speed: str) -> list[Turn]:
    """An answer with its boxes and, folded up below it, counts, speeds and notices."""
    boxes = [box for box in reply.boxes if box.valid]
    text = reply.text.strip() if not boxes else _spoken(reply, boxes)
    turns: list[Turn] = [{"role": "assistant", "content": text or "(no text)"}]
    for index in sorted({box.image_index for box in boxes}):
        picture = keep_picture(draw_boxes(images[index], boxes, image_index=index))
        turns.append({"role": "assistant", "content": {"path": picture, "alt_text": f"image {index + 1} with boxes"}})
    notes = [finish_sentence(reply), context_notice(reply.usage.total_tokens, pipe.context, dropped)]
    if reply.boxes:
        notes.append(box_table(reply.boxes))
    title = " · ".join([speed, *(["boxes"] if reply.boxes else []), *(["notice"] if any(notes[:2]) else [])])
    body = "\n\n".join(note for note in notes if note) or (
        f"{reply.usage.image_tokens} of the tokens in are images. The conversation uses {reply.usage.total_tokens:,} "
        f"of {pipe.context:,} tokens."
    )
    turns.append({"role": "assistant", "content": body, "metadata": {"title": title, "status": "done"}})
    return turns


def as_data(reply: Reply) -> dict[str, Any]:
    """An answer for programs, with the names of docs/json.md."""
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "boxes": [asdict(box) for box in reply.boxes],
    }


def _spoken(reply: Reply, boxes: Sequence[Box]) -> str:
    """The words of an answer that is made of boxes."""
    labels = ", ".join(dict.fromkeys(box.label for box in boxes if box.label))
    return f"Found {labels or 'it'}: {len(boxes)} {'box' if len(boxes) == 1 else 'boxes'}."


def box_table(boxes: Sequence[Box]) -> str:
    """Boxes as a Markdown table; what the model wrote is shown as text."""
    lines = ["| label | image | left, top, right, bottom (pixels) |", "| --- | --- | --- |"]
    for box in boxes:
        place = ", ".join(f"{value:.0f}" for value in box.xyxy) if box.xyxy else f"not valid: {box.reason}"
        lines.append(f"| {plain(box.label)} | {box.image_index + 1} | {plain(place)} |")
    return "\n".join(lines)


def context_notice(used: int, context: int, dropped: int) -> str:
    """What was left out of the prompt, and what will be next; empty while there is room."""
    said = []
    if dropped:
        what = "question and its answer were" if dropped == 1 else f"{dropped} questions and answers were"
        said.append(f"The conversation is longer than the context: the oldest {what} left out.")
    if used >= NEAR_THE_END * context:
        said.append(
            f"The conversation uses {used:,} of {context:,} tokens. When it is full, the oldest question goes first, "
            "with its images and its answer; a new conversation starts empty."
        )
    return " ".join(said)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_app(
        argv,
        lambda models: build_page(models).demo,
        ["chat"],
        name="mm app chat",
        description="Chat about images in the browser.",
    )


if __name__ == "__main__":
    sys.exit(main())
