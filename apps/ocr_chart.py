"""A web page that reads pages and charts: ``python -m apps.ocr_chart``, ``mm app ocr``."""

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from PIL import Image, ImageDraw

from mm.chat import task_message, user_message
from mm.errors import ImageError
from mm.images import ImageSource, open_image
from mm.pipeline import Pipeline
from mm.processing.tiling import fit

from .common import (
    AGES,
    IMAGE_TYPES,
    Sessions,
    check_question,
    finish_sentence,
    keep_file,
    keep_picture,
    open_upload,
    plain,
    sentences,
    speed_text,
    uploaded,
)
from .models import Models
from .pdf_pages import MAX_PAGES, render_pdf
from .picker import Picker
from .server import run_app

TABLE_PROMPT = "Give the data as a Markdown table."  # the bundled model is trained on this wording, among others
MAX_TILES = 9  # of the published models
MAX_TABLE_TOKENS = 600
_NUMBER = re.compile(r"[-+]?[$€£]?\s*[-+]?\d[\d,' ]*(?:\.\d+)?\s*%?")


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page of one loaded model.

    Endpoints for programs: ``/read``, ``/tiles``, ``/ask_document`` and ``/load_reading_model``.
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
            pages = await asyncio.to_thread(pages_of, files)
            async for said in place.wait():
                yield (said, *[gr.skip()] * 7)
            if place.cancelled:  # the tab was closed
                return
            texts: list[str] = []
            rows: list[list[str]] = []
            table: pd.DataFrame | None = None
            markdown = ""
            for number, (name, image) in enumerate(pages):
                began, text, first_s = time.perf_counter(), "", 0.0
                status = f"Reading {name}, page {number + 1} of {len(pages)} ..."
                stream = await asyncio.to_thread(
                    pipe.stream, messages=[task_message("ocr", [image])], max_tiles=int(max_tiles)
                )
                with sessions.running(request, stream):
                    async for piece in stream:
                        first_s = first_s or time.perf_counter() - began
                        text += piece
                        yield (status, joined(pages, [*texts, text]), *[gr.skip()] * 6)
                reply = stream.reply
                texts.append(text)
                speed = speed_text(reply, first_s, time.perf_counter() - began)
                found = None
                if with_table:
                    found = await table_of(pipe, image, int(max_tiles), request)
                if found is not None:
                    markdown += f"**{plain(name)}**\n\n{found.to_markdown_text()}\n\n"
                    table = table if table is not None else found.frame
                said = "yes" if found is not None else "no" if with_table else "not asked"
                rows.append([name, str(len(text.split())), said, finish_sentence(reply) or "complete", speed])
                yield (status, joined(pages, texts), *[gr.skip()] * 4, overview(rows), gr.skip())
            whole = joined(pages, texts)
            yield (
                f"{len(pages)} {'page' if len(pages) == 1 else 'pages'} read. {rows[-1][-1]}",
                whole,
                markdown or "No table was found.",
                table if table is not None else pd.DataFrame(),
                redrawn(table),
                keep_file("table.csv", partial(table.to_csv, index=False)) if table is not None else None,
                overview(rows),
                keep_file("text.txt", partial(Path.write_text, data=whole, encoding="utf-8")),
            )

    async def table_of(pipe: Pipeline, image: ImageSource, max_tiles: int, request: gr.Request) -> "Table | None":
        """The data of a page as a table, if the model gives one."""
        message = user_message(TABLE_PROMPT, [image])
        options: dict[str, Any] = {"max_tiles": max_tiles, "max_new_tokens": min(MAX_TABLE_TOKENS, pipe.context // 4)}
        stream = await asyncio.to_thread(pipe.stream, messages=[message], **options)
        with sessions.running(request, stream):
            text = "".join([piece async for piece in stream])
        return Table.parse(text)

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
            pages = await asyncio.to_thread(pages_of, files)
            number = min(max(int(page), 1), len(pages))
            _, image = pages[number - 1]
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
            pages = await asyncio.to_thread(pages_of, files)
            async for said in place.wait():
                yield said
            if place.cancelled:  # the tab was closed
                return
            _, image = pages[min(max(int(page), 1), len(pages)) - 1]
            message = user_message(text, [image], special_tokens="none")
            stream = await asyncio.to_thread(pipe.stream, messages=[message], max_tiles=int(max_tiles))
            said = ""
            with sessions.running(request, stream):
                async for piece in stream:
                    said += piece
                    yield said
            yield " ".join(part for part in (said, finish_sentence(stream.reply)) if part) or "(no text)"

    def add(photo: Any, files: Any) -> list[str]:
        """A photo for the files. Both come as the browser sends them: their paths are checked here."""
        with sentences():
            return [str(uploaded(_path(file))) for file in [*(files or []), *([photo] if photo else [])]]

    with gr.Blocks(title="OCR and charts", analytics_enabled=False, delete_cache=AGES) as demo:
        picker = Picker(models, "read", "Read pages and charts")
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
                        text_file = gr.File(label="Download as .txt", height=90)
                    with gr.Tab("Table and plot"):
                        table = gr.Dataframe(label="Data", interactive=False, wrap=True)
                        plot = gr.BarPlot(
                            pd.DataFrame({"label": [], "value": [], "series": []}),
                            x="label",
                            y="value",
                            color="series",
                            label="The same data, drawn again",
                            x_title=" ",
                            y_title=" ",
                            color_title=" ",
                            height=260,
                        )
                        table_file = gr.File(label="Download as .csv", height=90)
                    with gr.Tab("Markdown"):
                        markdown = gr.Markdown(buttons=["copy"], latex_delimiters=[])
                    with gr.Tab("All files"):
                        summary = gr.Dataframe(headers=_COLUMNS, label="Pages", interactive=False, wrap=True)
                with gr.Group():
                    question = gr.Textbox(label="Ask about the page", placeholder="What is the total?", submit_btn=True)
                    answer = gr.Textbox(label="Answer", interactive=False, lines=1, max_lines=8)
            with gr.Column(min_width=320):
                overlay = gr.Image(label="Page and its tiles", format="png", interactive=False, buttons=["fullscreen"])
                cost = gr.Markdown()
        reading = start.click(
            read,
            [files, max_tiles, with_table, picker.model],
            [status, text, markdown, table, plot, table_file, summary, text_file],
            api_name="read",
            concurrency_limit=None,
        )
        asking = question.submit(
            ask_document,
            [files, page, question, max_tiles, picker.model],
            answer,
            api_name="ask_document",
            concurrency_limit=None,
        )
        failed = {"api_visibility": "private", "show_progress": "hidden"}
        reading.failure(lambda: "Nothing was read.", None, status, **failed)
        stop.click(None, None, None, cancels=[reading, asking], api_visibility="private")
        wanted, shown = [files, page, max_tiles, picker.model], [overlay, cost, page]
        files.change(tiles, wanted, shown, api_name="tiles", show_progress="minimal")
        for part in (page, max_tiles):
            part.release(tiles, wanted, shown, api_visibility="private", show_progress="minimal")
        photo.input(add, [photo, files], files, preprocess=False, api_visibility="private", show_progress="hidden")
        picker.wire([max_tiles], lambda pipe, chosen: [gr.update(visible=is_tiled(pipe))], "load_reading_model")
        demo.unload(sessions.end)
    return demo


def is_tiled(pipe: Pipeline) -> bool:
    """Whether a model cuts pictures into tiles."""
    spec = pipe.processor.spec
    return bool(spec.num_tokens(spec.grid(None)) != spec.num_tokens(spec.grid(None, max_tiles=1)))


def _path(file: object) -> str:
    return str(file.get("path", "")) if isinstance(file, Mapping) else str(file)


_COLUMNS = ["Page", "Words", "Table", "End", "Tokens"]


def overview(rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The result table of all pages."""
    return {"headers": _COLUMNS, "data": [list(row) for row in rows]}


def pages_of(files: Sequence[str] | None) -> list[tuple[str, Image.Image]]:
    """Name and picture of every page of the uploads.

    Raises:
        ImageError: no file, too many pages, or one that cannot be read.
    """
    if not files:
        raise ImageError("no file. Upload a picture or a PDF first.")
    pages: list[tuple[str, Image.Image]] = []
    for path in files:
        file = uploaded(path)
        with file.open("rb") as stream:
            is_pdf = stream.read(5) == b"%PDF-"
        if not is_pdf:
            pages.append((file.name, open_upload(path)))
        else:
            with tempfile.TemporaryDirectory() as folder:
                pictures = [open_image(picture) for picture in render_pdf(file, Path(folder))]
            pages += [(f"{file.name} p. {number}", picture) for number, picture in enumerate(pictures, 1)]
        if len(pages) > MAX_PAGES:
            raise ImageError(f"the files have more than {MAX_PAGES} pages together. Read them in parts.")
    return pages


def joined(pages: Sequence[tuple[str, Image.Image]], texts: Sequence[str]) -> str:
    """All pages as one document; a heading each where there are several."""
    if len(pages) == 1:
        return texts[0]
    return "\n\n".join(f"--- {name} ---\n{text}" for (name, _), text in zip(pages, texts, strict=False))


class Table:
    """A table that a model wrote in Markdown."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    @classmethod
    def parse(cls, text: str) -> "Table | None":
        """The first table of a text; None without one. Rows of a wrong length are filled or cut."""
        lines = [line.strip() for line in text.splitlines()]
        for start, line in enumerate(lines[1:], 1):
            if re.fullmatch(r"\|?(?:\s*:?-{3,}:?\s*\|)+\s*(?::?-{3,}:?)?", line) and "|" in lines[start - 1]:
                break
        else:
            return None
        head = _cells(lines[start - 1])
        rows = []
        for line in lines[start + 1 :]:
            if "|" not in line:
                break
            cells = _cells(line)
            rows.append((cells + [""] * len(head))[: len(head)])
        if not rows or len(head) < 2:
            return None
        names = [name if head.index(name) == i else f"{name} {i + 1}" for i, name in enumerate(head)]
        return cls(pd.DataFrame(rows, columns=names))

    def to_markdown_text(self) -> str:
        """As Markdown, every cell plain text."""
        head = [plain(name) for name in self.frame.columns]
        rows = [[plain(cell) for cell in row] for row in self.frame.itertuples(index=False)]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(line: str) -> list[str]:
    r"""Cells of a row; ``\|`` is a bar inside a cell."""
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def number_of(cell: str) -> float | None:
    """``$1,234.50`` and ``12 %`` as numbers; None for what is none."""
    if not _NUMBER.fullmatch(cell.strip()):
        return None
    return float(re.sub(r"[^\d.+-]", "", cell))


def plot_of(frame: pd.DataFrame | None) -> pd.DataFrame:
    """(label, value, series) of every cell that is a number; columns with fewer numbers than texts are left out."""
    parts: list[dict[str, Any]] = []
    if frame is not None:
        for name in frame.columns[1:]:
            values = [number_of(cell) for cell in frame[name]]
            if 2 * sum(value is not None for value in values) > len(values):
                labels = frame.iloc[:, 0]
                parts += [
                    {"label": label, "value": value, "series": name}
                    for label, value in zip(labels, values, strict=True)
                    if value is not None
                ]
    return pd.DataFrame(parts, columns=["label", "value", "series"])


def redrawn(frame: pd.DataFrame | None) -> gr.BarPlot:
    """The plot of a table, its labels in the table's order."""
    data = plot_of(frame)
    return gr.BarPlot(data, sort=list(dict.fromkeys(data["label"])))


def tile_overlay(pipe: Pipeline, image: Image.Image, max_tiles: int) -> tuple[Image.Image, str]:
    """The page on its canvas with the borders of the tiles, and a sentence about their number and tokens."""
    spec = pipe.processor.spec
    grid = spec.grid(image.size, max_tiles=max_tiles)
    across, down = max(grid[0], 1), max(grid[1], 1)
    canvas = (across * spec.image_size, down * spec.image_size)
    size, corner = fit(image.size, canvas)
    zoom = max(1, round(900 / max(canvas)))
    shown = Image.new("RGB", (canvas[0] * zoom, canvas[1] * zoom), spec.pad_color)
    shown.paste(image.resize((size[0] * zoom, size[1] * zoom)), (corner[0] * zoom, corner[1] * zoom))
    draw = ImageDraw.Draw(shown)
    side, width = spec.image_size * zoom, max(2, shown.width // 300)
    for column in range(1, across):
        draw.line((column * side, 0, column * side, shown.height), fill=(37, 99, 235), width=width)
    for row in range(1, down):
        draw.line((0, row * side, shown.width, row * side), fill=(37, 99, 235), width=width)
    tokens = pipe.processor.num_image_tokens(*image.size, max_tiles=max_tiles)
    tiles = across * down if grid != (0, 0) else 0
    cut = f"{across} x {down} tiles of {spec.image_size} pixels and the whole page" if tiles else "one view"
    return shown, f"{image.width} x {image.height} pixels: {cut}, **{tokens:,} tokens** of {pipe.context:,}."


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
