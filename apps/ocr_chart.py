"""A web page that reads pages and charts: ``python -m apps.ocr_chart``, ``mm app ocr``."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mm.chat import task_message, user_message
from mm.generation.stopping import FinishReason
from mm.images import ImageSource
from mm.pipeline import Pipeline
from mm.reply import Reply

from .common import (
    AGES,
    IMAGE_TYPES,
    Sessions,
    check_question,
    finish_sentence,
    keep_file,
    keep_picture,
    path_of,
    plain,
    plain_lines,
    sentences,
    speed_text,
    uploaded,
)
from .documents import DocumentPage, is_tiled, joined, page_number, pages_of, tile_overlay
from .line import Place
from .models import Models
from .picker import Picker
from .server import run_app
from .tables import markdown_table, parse_table, redrawn

TABLE_PROMPT = "Give the data as a Markdown table."  # the bundled model is trained on this wording, among others
MAX_TILES = 9  # of the published models
MAX_TABLE_TOKENS = 600
_COLUMNS = {"Page": "34%", "Words": "14%", "Table": "14%", "End": "18%", "Time": "20%"}
Tables = list[tuple[DocumentPage, pd.DataFrame]]  # of the pages that have one


@dataclass(frozen=True)
class PageRead:
    """What came of a page.

    Attributes:
        page: which.
        text: of the page.
        table: of the page; None without one.
        table_end: how the answer that is the table ended; None where none was asked for.
        reply: the answer that is the text.
        first_s: until its first piece.
        total_s: until its last piece, without the table.
    """

    page: DocumentPage
    text: str
    table: pd.DataFrame | None
    table_end: FinishReason | None
    reply: Reply
    first_s: float
    total_s: float

    @property
    def speed(self) -> str:
        """Counts and speeds."""
        return speed_text(self.reply, self.first_s, self.total_s)

    @property
    def row(self) -> list[str]:
        """Of the result table."""
        found = "not asked" if self.table_end is None else "no" if self.table is None else "in part"
        if self.table is not None and self.table_end == "stop":
            found = "yes"
        end = {"stop": "complete", "length": "too long", "loop": "repeats", "cancelled": "stopped"}
        words = str(len(self.text.split()))
        return [self.page.name, words, found, end[self.reply.finish_reason], f"{self.total_s:.1f} s"]

    @property
    def markdown(self) -> str:
        """The page as Markdown: its name, its text as it is, its table."""
        parts = [f"#### {plain(self.page.name)}", plain_lines(self.text)]
        if self.table is not None:
            parts.append(markdown_table(self.table))
        return "\n\n".join(part for part in parts if part)


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page of one loaded model.

    Endpoints for programs: ``/read``, ``/tiles``, ``/ask_document``, ``/stop_reading`` and ``/load_reading_model``.
    """
    return build_page(Models.of(pipe))


def build_page(models: Models) -> gr.Blocks:
    """The page on the models of a server."""
    sessions = Sessions()

    async def read(
        files: list[str] | None, max_tiles: float, with_table: bool, model: str | None, request: gr.Request
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Read every page of the files.

        Args:
            files: uploaded pictures and PDFs.
            max_tiles: most tiles a page is cut into.
            with_table: also ask for the data as a table.
            model: its name in the list.
        """
        with sentences(), models.using(model, "read") as pipe, sessions.place(models.line, request) as place:
            pages = await place.unless_cancelled(pages_of(files)) or []
            async for said in place.wait():
                yield (said, *[gr.skip()] * 8)
            yield ("Reading ...", *[gr.skip()] * 3, gr.BarPlot(visible=False), *[gr.skip()] * 4)
            done: list[PageRead] = []
            for number, page in enumerate(pages, 1):
                if place.cancelled:  # a closed tab, or a visitor who has enough
                    break
                image = await asyncio.to_thread(page.open)
                began, text, first_s = time.perf_counter(), "", 0.0
                status = f"Reading {plain(page.name)}, page {number} of {len(pages)} ..."
                stream = await asyncio.to_thread(
                    pipe.stream, messages=[task_message("ocr", [image])], max_tiles=int(max_tiles)
                )
                with sessions.running(request, stream, place):
                    async for piece in stream:
                        first_s = first_s or time.perf_counter() - began
                        text += piece
                        yield (status, joined(pages, [*(entry.text for entry in done), text]), *[gr.skip()] * 7)
                total_s, table, table_end = time.perf_counter() - began, None, None
                if with_table and not place.cancelled:
                    table, table_end = await table_of(pipe, image, int(max_tiles), request, place)
                done.append(PageRead(page, text, table, table_end, stream.reply, first_s, total_s))
                whole = joined(pages, [entry.text for entry in done])
                yield (status, whole, *[gr.skip()] * 4, overview(done), *[gr.skip()] * 2)
            if not done:
                yield ("Stopped: nothing was read.", *[gr.skip()] * 8)
                return
            tables: Tables = [(entry.page, entry.table) for entry in done if entry.table is not None]
            yield (
                ending(done, len(pages)),
                whole,
                "\n\n".join(entry.markdown for entry in done),
                *shown_table(tables, tables[0][0] if tables else None),
                overview(done),
                keep_file("text.txt", partial(Path.write_text, data=whole, encoding="utf-8")),
                tables,
            )

    async def table_of(
        pipe: Pipeline, image: ImageSource, max_tiles: int, request: gr.Request, place: Place
    ) -> tuple[pd.DataFrame | None, FinishReason]:
        """The data of a page as a table, if the model gives one, and how its answer ended."""
        message = user_message(TABLE_PROMPT, [image])
        options: dict[str, Any] = {"max_tiles": max_tiles, "max_new_tokens": min(MAX_TABLE_TOKENS, pipe.context // 4)}
        stream = await asyncio.to_thread(pipe.stream, messages=[message], **options)
        with sessions.running(request, stream, place):
            text = "".join([piece async for piece in stream])
        return parse_table(text), stream.reply.finish_reason

    async def tiles(
        files: list[str] | None, page: float, max_tiles: float, model: str | None
    ) -> tuple[str | None, str, dict[str, Any]]:
        """How a page is cut into tiles, and what that costs.

        Args:
            files: uploaded pictures and PDFs.
            page: which page of all of them, from 1.
            max_tiles: most tiles.
            model: its name in the list.
        """
        if not files:
            return None, "", gr.update(maximum=2, value=1, visible=False)
        with sentences(), models.using(model, "read") as pipe:
            pages = await pages_of(files)
            number = page_number(pages, page)
            image = await asyncio.to_thread(pages[number - 1].open)
            overlay, said = await asyncio.to_thread(tile_overlay, pipe, image, int(max_tiles))
            picker = gr.update(maximum=max(len(pages), 2), value=number, visible=len(pages) > 1)
            return await asyncio.to_thread(keep_picture, overlay, "tiles.png"), said, picker

    async def ask_document(
        files: list[str] | None, page: float, question: str, max_tiles: float, model: str | None, request: gr.Request
    ) -> AsyncIterator[str]:
        """Answer a question about a page.

        Args:
            files: uploaded pictures and PDFs.
            page: which page of all of them, from 1.
            question: what to answer.
            max_tiles: most tiles.
            model: its name in the list.
        """
        with sentences(), models.using(model, "read") as pipe, sessions.place(models.line, request) as place:
            text = check_question(question)
            pages = await place.unless_cancelled(pages_of(files)) or []
            async for said in place.wait():
                yield said
            if place.cancelled:
                yield "Stopped."
                return
            image = await asyncio.to_thread(pages[page_number(pages, page) - 1].open)
            message = user_message(text, [image], special_tokens="none")
            stream = await asyncio.to_thread(pipe.stream, messages=[message], max_tiles=int(max_tiles))
            said = ""
            with sessions.running(request, stream, place):
                async for piece in stream:
                    said += piece
                    yield said
            yield " ".join(part for part in (said, finish_sentence(stream.reply)) if part) or "(no text)"

    async def choose_table(
        files: list[str] | None, page: float, tables: Tables
    ) -> AsyncIterator[tuple[Any, Any, str | None]]:
        """The table of a page that was chosen."""
        with sentences():
            pages = await pages_of(files)
            yield gr.skip(), gr.BarPlot(visible=False), None
            await asyncio.sleep(0.1)  # else the page takes both at once
            yield shown_table(tables, pages[page_number(pages, page) - 1])

    def stop_reading(request: gr.Request) -> None:
        """End what this session reads or asks; what is read by then stays."""
        sessions.end(request)

    def add(photo: Any, files: Any) -> list[str]:
        """A photo for the files. Both come as the browser sends them: their paths are checked here."""
        with sentences():
            return [str(uploaded(path_of(file))) for file in [*(files or []), *([photo] if photo else [])]]

    with gr.Blocks(title="OCR and charts", analytics_enabled=False, delete_cache=AGES) as demo:
        picker = Picker(models, "read", "Read pages and charts")
        tables = gr.State([])
        with gr.Row(equal_height=False, elem_classes="app-work"):
            with gr.Column(min_width=320):
                files = gr.File(
                    label="Pictures and PDFs",
                    file_count="multiple",
                    file_types=[*IMAGE_TYPES, ".pdf"],
                    type="filepath",
                    height=130,
                )
                with gr.Accordion("Camera and clipboard", open=False):
                    photo = gr.Image(
                        sources=["webcam", "clipboard"],
                        type="filepath",
                        label="Take or paste a picture",
                        buttons=[],
                        format="png",
                        height=220,
                    )
                page = gr.Slider(1, 2, value=1, step=1, label="Page", visible=False)
                max_tiles = gr.Slider(
                    1,
                    MAX_TILES,
                    value=MAX_TILES,
                    step=1,
                    label="Most tiles",
                    visible=picker.pipe is None or is_tiled(picker.pipe),
                )
                with_table = gr.Checkbox(True, label="Look for a table or a chart")
                with gr.Row():
                    start = gr.Button("Read", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=120)
            with gr.Column(min_width=320):
                status = gr.Markdown("Upload a page or a chart, then read it.")
                with gr.Tabs():
                    with gr.Tab("Text"):
                        text = gr.Textbox(label="Text", lines=14, max_lines=28, buttons=["copy"])
                        text_file = gr.DownloadButton("Download .txt", size="md", interactive=False)
                    with gr.Tab("Table and plot"):
                        table = gr.Dataframe(label="Data", interactive=False, wrap=True)
                        plot = gr.BarPlot(
                            x="label",
                            y="value",
                            color="series",
                            label="The same data, drawn again",
                            show_label=True,
                            x_title=" ",
                            y_title=" ",
                            color_title=" ",
                            height=320,
                            visible=False,
                        )
                        table_file = gr.DownloadButton("Download .csv", size="md", interactive=False)
                    with gr.Tab("Markdown"):
                        markdown = gr.Markdown(buttons=["copy"], latex_delimiters=[])
                    with gr.Tab("All files"):
                        summary = gr.Dataframe(
                            headers=list(_COLUMNS),
                            column_widths=list(_COLUMNS.values()),
                            label="Pages",
                            interactive=False,
                            wrap=True,
                        )
                with gr.Group():
                    question = gr.Textbox(label="Ask about the page", placeholder="What is the total?", submit_btn=True)
                    answer = gr.Textbox(label="Answer", interactive=False, lines=1, max_lines=8)
            with gr.Column(min_width=320):
                overlay = gr.Image(label="Page and its tiles", format="png", interactive=False, buttons=["fullscreen"])
                cost = gr.Markdown()
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        reading = start.click(
            read,
            [files, max_tiles, with_table, picker.model],
            [status, text, markdown, table, plot, table_file, summary, text_file, tables],
            api_name="read",
            concurrency_limit=None,
        )
        offered = [text_file, table_file]
        for part in offered:
            part.change(lambda path: gr.update(interactive=path is not None), part, part, **quiet)
        asking = question.submit(
            ask_document,
            [files, page, question, max_tiles, picker.model],
            answer,
            api_name="ask_document",
            concurrency_limit=None,
        )
        reading.failure(lambda: "Nothing was read.", None, status, **quiet)
        asking.failure(lambda: "", None, answer, **quiet)
        stop.click(stop_reading, api_name="stop_reading", queue=False, show_progress="hidden")
        wanted, shown = [files, page, max_tiles, picker.model], [overlay, cost, page]
        files.change(tiles, wanted, shown, api_name="tiles", show_progress="minimal")
        for part in (page, max_tiles):
            part.release(tiles, wanted, shown, api_visibility="private", show_progress="minimal")
        page.release(choose_table, [files, page, tables], [table, plot, table_file], **quiet)
        photo.input(add, [photo, files], files, preprocess=False, api_visibility="private", show_progress="hidden")
        picker.wire([max_tiles], lambda pipe, chosen: [gr.update(visible=is_tiled(pipe))], "load_reading_model")
        demo.unload(sessions.end)
    return demo


def overview(done: Sequence[PageRead]) -> dict[str, Any]:
    """The result table of all pages."""
    return {"headers": list(_COLUMNS), "data": [entry.row for entry in done]}


def shown_table(tables: Tables, page: DocumentPage | None) -> tuple[pd.DataFrame, gr.BarPlot, str | None]:
    """The table of a page, its plot, and its file; all empty where it has none."""
    frame = next((frame for own, frame in tables if own == page), None)
    if frame is None or page is None:
        return pd.DataFrame(), redrawn(None), None
    return (
        frame,
        redrawn(frame, f"The same data, drawn again: compare it with {page.name}"),
        keep_file("table.csv", partial(frame.to_csv, index=False)),
    )


def ending(done: Sequence[PageRead], num_pages: int) -> str:
    """What came of the reading, as a sentence."""
    said = f"{num_pages} {'page' if num_pages == 1 else 'pages'} read"
    if len(done) < num_pages or done[-1].reply.finish_reason == "cancelled":
        said = f"Stopped: {len(done)} of {num_pages} {'page was' if num_pages == 1 else 'pages were'} begun"
    found = sum(entry.table is not None for entry in done)
    if any(entry.table_end is not None for entry in done):
        said += {0: ", no table", 1: ", 1 table"}.get(found, f", {found} tables")
        cut = [entry.page.name for entry in done if entry.row[2] == "in part"]
        said += f" (rows may be missing: {plain(', '.join(cut))})" if cut else ""
    if len(done) == 1:
        return f"{said}. {done[0].speed}. {finish_sentence(done[0].reply)}".strip()
    usages = [entry.reply.usage for entry in done]
    tokens_in, made = sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages)
    return f"{said}. {tokens_in:,} tokens in, {made:,} out in {sum(entry.total_s for entry in done):.1f} s."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_app(
        argv,
        build_page,
        ["read"],
        name="mm app ocr",
        description="Read pages and charts in the browser.",
    )


if __name__ == "__main__":
    sys.exit(main())
