"""The front page: every app as a tab of one page, on the same models. ``mm app``, ``python -m apps.front``."""

import sys
from collections.abc import Sequence
from typing import Any

import gradio as gr

from mm.pipeline import Pipeline

from . import chat, ocr_chart, text_to_image
from .common import AGES
from .models import Models
from .server import run_app


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page around one loaded model; the endpoints are those of the apps."""
    return build_page(Models.of(pipe))


def build_page(models: Models) -> gr.Blocks:
    """The page on the models of a server."""
    # Built before the page: blocks made inside another one are rendered there by themselves, and would be there twice.
    talking, reading, drawing = (
        chat.build_page(models),
        ocr_chart.build_page(models),
        text_to_image.build_page(models, asks=True),
    )

    def carry(path: str | None) -> tuple[Any, ...]:
        """A drawn picture to the chat."""
        if path is None:
            return gr.skip(), gr.skip()
        return {"text": "", "files": [path]}, gr.Tabs(selected="chat")

    with gr.Blocks(title="mm", analytics_enabled=False, delete_cache=AGES) as demo:
        with gr.Tabs() as tabs:
            with gr.Tab("Chat", id="chat"):
                talking.demo.render()
            with gr.Tab("OCR and charts", id="read"):
                reading.render()
            with gr.Tab("Text to image", id="draw"):
                drawing.demo.render()
        drawing.ask.click(carry, drawing.chosen, [talking.message, tabs], api_visibility="private")
    return demo


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_app(
        argv,
        build_page,
        ["chat", "read", "draw"],
        name="mm app",
        description="All apps on one page in the browser.",
    )


if __name__ == "__main__":
    sys.exit(main())
