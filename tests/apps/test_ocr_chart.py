"""The reading page: its endpoints, tables out of Markdown, tiles, PDFs."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pypdfium2
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps import documents, ocr_chart, tables
from apps.pdf_pages import MAX_PAGES, render_pdf
from mm.errors import ImageError
from mm.pipeline import Pipeline
from mm.reply import Reply, Usage

ROOT = Path(__file__).parents[2]
RECEIPT = ROOT / "examples" / "receipt.png"
CHART = ROOT / "examples" / "chart.png"
http = pytest.mark.filterwarnings("ignore")  # of the client's own libraries, in its threads


@pytest.fixture
def client(server: str) -> Client:
    return Client(server, verbose=False)


@http
def test_files_are_read_with_their_tables(client: Client) -> None:
    status, text, markdown, table, plot, csv, summary, saved = client.predict(
        [handle_file(str(CHART)), handle_file(str(RECEIPT))], 9, True, api_name="/read"
    )
    assert status.startswith("2 pages read")
    assert "TOTAL 19.10" in text and "--- receipt.png ---" in text
    assert Path(saved).read_text() == text
    assert "| Label | Value |" in markdown
    assert ["May", "42"] in table["data"]
    assert len(summary["data"]) == 2 and summary["data"][1][1:4] == ["21", "yes", "complete"]
    assert pd.read_csv(csv).shape == (5, 2)
    assert plot["value"]["columns"] == ["label", "value", "series"]
    assert plot["value"]["data"][:2] == [["March", 18.0, "Value"], ["April", 27.0, "Value"]]
    assert plot["sort"][:2] == ["March", "April"]


@http
def test_questions_and_tiles(client: Client) -> None:
    files = [handle_file(str(RECEIPT))]
    assert client.predict(files, 1, "What is the total?", 9, api_name="/ask_document") == "19.10"
    overlay, said, _ = client.predict(files, 1, 9, api_name="/tiles")
    assert Image.open(overlay).size == (384, 768)
    assert "tiles of 192 pixels" in said and "**1,357 tokens**" in said
    overlay, said, _ = client.predict(files, 1, 2, api_name="/tiles")
    assert "1 x 2 tiles" in said and "1,357" not in said


@http
def test_mistakes_are_sentences(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="No file"):
        client.predict(None, 9, True, api_name="/read")
    with pytest.raises(AppError, match="Nothing is asked"):
        client.predict([handle_file(str(RECEIPT))], 1, " ", 9, api_name="/ask_document")
    bad = tmp_path / "a.pdf"
    bad.write_bytes(b"%PDF-1.7 is cut")
    with pytest.raises(AppError, match="cannot be rendered"):
        client.predict([handle_file(str(bad))], 9, True, api_name="/read")


@http
def test_reading_is_stopped(client: Client) -> None:
    reading = client.submit([handle_file(str(RECEIPT))] * 20, 9, False, "endless", api_name="/read")
    while not any(isinstance(text, str) and text for _, text, *_ in reading.outputs()):
        assert not reading.done()
        time.sleep(0.05)
    client.predict(api_name="/stop_reading")
    status, *_ = reading.result(60)
    assert status.startswith("Stopped: ") and "of 20 pages were begun" in status


def test_pages_of_one_name_keep_their_own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pictures of a camera and of the clipboard do."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    paths = []
    for folder in ("a", "b"):
        paths.append(tmp_path / folder / "image.png")
        paths[-1].parent.mkdir()
        Image.new("RGB", (8, 8)).save(paths[-1])
    first, second = asyncio.run(documents.pages_of([str(path) for path in paths]))
    assert (first.name, second.name) == ("image.png", "image.png (2)")
    read = [(page, pd.DataFrame({"x": ["a"], "n": [value]})) for page, value in ((first, "1"), (second, "2"))]
    for page, value in ((first, "1"), (second, "2")):
        frame, plot, file = ocr_chart.shown_table(read, page)
        assert frame["n"].tolist() == [value] and file is not None
        assert plot.label == f"The same data, drawn again: compare it with {page.name}"


def test_a_table_that_was_cut_is_told_of() -> None:
    page = documents.DocumentPage("a.png", "", None)
    usage = Usage(prompt_tokens=9, image_tokens=3, completion_tokens=5)
    reply = Reply(
        text="text", finish_reason="stop", usage=usage, boxes=(), raw_text="text", token_ids=(1,), logprobs=None
    )
    table = pd.DataFrame({"x": ["a"], "n": ["1"]})
    cut, whole = (ocr_chart.PageRead(page, "text", table, end, reply, 0.1, 1) for end in ("length", "stop"))
    assert (cut.row[2], whole.row[2]) == ("in part", "yes")
    assert ocr_chart.ending([cut], 1).startswith("1 page read, 1 table (rows may be missing: a.png). ")
    assert ocr_chart.ending([whole], 1).startswith("1 page read, 1 table. ")


def pdf(path: Path, pages: int, side: float = 200) -> Path:
    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(side, side)
    document.save(str(path))
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pages = render_pdf(pdf(tmp_path / "a.pdf", 11), out)
    assert [page.name for page in pages] == [f"{n}.png" for n in range(1, 12)]
    assert size_of(pages[0]) == (500, 500)


def test_a_pdf_of_too_many_or_giant_pages(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ImageError, match=f"has 51 pages; at most {MAX_PAGES} are read"):
        render_pdf(pdf(tmp_path / "a.pdf", 51), out)
    (page,) = render_pdf(pdf(tmp_path / "b.pdf", 1, side=14_000), out)
    assert size_of(page) == (2000, 2000)


def test_tables_of_markdown() -> None:
    table = tables.parse_table("Here:\n| a | b | b |\n| --- | --- | --- |\n| x \\| y | 1 |\n| z | 2 | 3 | 4 |\nend")
    assert table is not None
    assert list(table.columns) == ["a", "b", "b 3"]
    assert table.values.tolist() == [["x | y", "1", ""], ["z", "2", "3"]]
    assert "&#60;b&#62;" in tables.markdown_table(pd.DataFrame({"<b>": ["1"]}))
    for text in ("", "no table", "| a | b |\n| --- | --- |", "| a |\n| --- |\n| 1 |"):
        assert tables.parse_table(text) is None, text


def test_the_plot_holds_the_numbers() -> None:
    frame = pd.DataFrame({"x": ["a", "b", "c"], "n": ["$1,234.50", "12 %", "?"], "t": ["u", "v", "3"]})
    plot = tables.plot_of(frame)
    assert plot.values.tolist() == [["a", 1234.5, "n"], ["b", 12.0, "n"]]
    assert tables.plot_of(None).empty
    assert [tables.number_of(cell) for cell in ("-3", "€ 5.5", "1-2", "2026-03-14", "")] == [
        -3,
        5.5,
        None,
        None,
        None,
    ]


def test_the_overlay_shows_the_whole_page(pipe: Pipeline) -> None:
    picture = Image.new("RGB", (400, 100), "white")
    shown, said = documents.tile_overlay(pipe, picture, 9)
    across, down = pipe.processor.spec.grid(picture.size, max_tiles=9)
    assert f"{across} x {down} tiles" in said
    assert shown.width * down == shown.height * across
    blue = (np.asarray(shown) == (37, 99, 235)).all(axis=2)
    assert blue.any(axis=0).all() == (down > 1) and blue.any(axis=1).all() == (across > 1)
