"""A web page to chat about images: ``python -m apps.chat``, ``mm app chat``."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mm.chat import Message
from mm.errors import ContextOverflowError, InputError
from mm.pipeline import Pipeline
from mm.reply import TextStream
from mm.request import ChatOptions

from .answers import as_data, not_answered, shown
from .common import AGES, IMAGE_TYPES, Sessions, path_of, sentences, speed_text, uploaded
from .conversation import ASK, FIND, Chat, Turn, conversation
from .models import Models
from .picker import Picker
from .server import run_app

ASK_HERE = "Ask about the image ..."
UNKNOWN_CONTEXT = 4096  # until a model is loaded


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
        system: str | None,
        max_new_tokens: float,
        temperature: float,
        top_p: float,
        seed: float | None,
        model: str | None,
        request: gr.Request,
    ) -> AsyncIterator[tuple[list[Turn], dict[str, Any] | None]]:
        """Answer a message about the conversation's images.

        Args:
            message: text and uploaded image files.
            history: earlier messages.
            task: "Ask", or "Find in the image" to get boxes.
            system: text before the conversation; may be empty.
            max_new_tokens: longest answer in tokens.
            temperature: 0 takes the most likely token.
            top_p: sample from the most likely tokens that make up this probability.
            seed: makes sampling repeatable; -1 or an empty field takes another one each time.
            model: its name in the list.
        """
        with sentences(), models.using(model, "chat") as pipe, sessions.place(models.line, request) as place:
            options = ChatOptions(
                system=(system or "").strip() or None,
                max_new_tokens=int(max_new_tokens),
                temperature=temperature or None,
                top_p=top_p if temperature and top_p < 1 else None,
                seed=None if seed is None or seed < 0 else int(seed),
            )
            turns = await asyncio.to_thread(conversation, history, message, task)
            if pipe.needs_image and not any(turn.images for turn in turns):
                raise InputError(f"{model} was trained with pictures only. Add an image to the question.")
            if place.ahead:
                turns.clear()  # who waits holds no pictures in memory
                async for text in place.wait():
                    yield [{"role": "assistant", "content": text}], None
                turns = await asyncio.to_thread(conversation, history, message, task)
            if place.cancelled:
                yield [not_answered()], None
                return
            began = time.perf_counter()
            stream, dropped = await asyncio.to_thread(fitting_stream, pipe, turns, options)
            text, first_s = "", 0.0
            with sessions.running(request, stream, place):
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
            files = [str(uploaded(path_of(file))) for file in message.get("files") or []]
            return {
                "text": message.get("text") or "",
                "files": [*files, *([str(uploaded(path_of(photo)))] if photo else [])],
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
                sessions.end,
                chatbot=gr.Chatbot(
                    label="Conversation",
                    show_label=False,  # it would cover the words below it
                    height="60vh",
                    min_height=320,
                    buttons=["copy", "copy_all"],
                    allow_tags=False,
                    latex_delimiters=[],
                    group_consecutive_messages=False,  # a question that shares a bubble with a picture cannot be edited
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
                inputs=[*inputs, picker.model],
                data=data,
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
            left = turns[2 * dropped + 2 :]
            if dropped == pairs or (pipe.needs_image and not any(turn.images for turn in left)):
                raise
    raise AssertionError("the loop returns or raises")


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
