"""The front page: every app as a tab of one page, on one loaded model. ``mm app``, ``python -m apps.front``."""

import sys
from collections.abc import Sequence

import gradio as gr

from mm.pipeline import Pipeline

from . import chat, ocr_chart
from .common import DELETE_AFTER_S, run_app


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page of one loaded model."""
    ages = (DELETE_AFTER_S, DELETE_AFTER_S)
    # Built before the page: blocks made inside another one are rendered there by themselves, and would be there twice.
    tabs = [("Chat", chat.build_demo(pipe)), ("OCR and charts", ocr_chart.build_demo(pipe))]
    with gr.Blocks(title="mm", analytics_enabled=False, delete_cache=ages) as demo, gr.Tabs():
        for title, page in tabs:
            with gr.Tab(title):
                page.render()
    return demo


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_app(argv, build_demo, name="mm app", description="All apps on one page in the browser.")


if __name__ == "__main__":
    sys.exit(main())
