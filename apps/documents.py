"""The pages of uploaded pictures and PDFs, as files; and what cutting them into tiles looks like and costs."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder
from PIL import Image, ImageDraw

from mm.errors import ImageError
from mm.images import open_image
from mm.pipeline import Pipeline
from mm.processing.tiling import fit

from .common import open_upload, uploaded
from .pdf_pages import MAX_PAGES, render_pdf

BLUE = (37, 99, 235)
OVERLAY_SIDE = 900  # pixels, about
# PDFs that take long keep other PDFs waiting, and nobody who reads pictures.
_READERS = ThreadPoolExecutor(2, thread_name_prefix="mm-pages")


@dataclass(frozen=True)
class DocumentPage:
    """A page, which is opened when it is its turn: fifty of them do not lie in memory together."""

    name: str
    upload: str
    rendered: Path | None  # of a PDF

    def open(self) -> Image.Image:
        """The picture.

        Raises:
            ImageError: it cannot be read.
        """
        if self.rendered is None:
            return open_upload(self.upload)
        try:
            return open_image(self.rendered)
        except ImageError as error:
            raise ImageError(f"the pages of {self.name} are deleted by now. Upload the file again.") from error


async def pages_of(files: Sequence[str] | None) -> list[DocumentPage]:
    """Every page of the uploads, checked. A name that comes again gets a number.

    Raises:
        ImageError: no file, too many pages, or one that cannot be read.
    """
    if not files:
        raise ImageError("no file. Upload a picture or a PDF first.")
    pages: list[DocumentPage] = []
    seen: Counter[str] = Counter()
    for path in files:
        file = uploaded(path)
        seen[file.name] += 1
        name = file.name if seen[file.name] == 1 else f"{file.name} ({seen[file.name]})"
        with file.open("rb") as stream:
            is_pdf = stream.read(5) == b"%PDF-"
        if is_pdf:
            pictures = await asyncio.get_running_loop().run_in_executor(_READERS, _rendered, file)
            pages += [DocumentPage(f"{name} p. {number}", path, picture) for number, picture in enumerate(pictures, 1)]
        else:
            await asyncio.to_thread(open_upload, path)
            pages.append(DocumentPage(name, path, None))
        if len(pages) > MAX_PAGES:
            raise ImageError(f"the files have more than {MAX_PAGES} pages together. Read them in parts.")
    return pages


def page_number(pages: Sequence[DocumentPage], wanted: float) -> int:
    """A page that is there, from 1."""
    return min(max(int(wanted), 1), len(pages))


def _rendered(file: Path) -> list[Path]:
    """Pictures of a PDF's pages. They stay for the next request about it, until files of their age are deleted."""
    root = Path(get_upload_folder())
    kept = root / f"pages-{hashlib.sha256(str(file).encode()).hexdigest()[:32]}"
    count = kept / "count"
    if count.is_file():
        pages = [kept / f"{number}.png" for number in range(1, int(count.read_text()) + 1)]
        if all(page.is_file() for page in pages):
            return pages
    with tempfile.TemporaryDirectory(dir=root) as parent:
        folder = Path(parent) / "pages"
        folder.mkdir()
        names = [page.name for page in render_pdf(file, folder)]
        (folder / "count").write_text(str(len(names)))
        shutil.rmtree(kept, ignore_errors=True)
        try:
            os.rename(folder, kept)
        except OSError:  # another request was quicker
            if not count.is_file():
                raise
    return [kept / name for name in names]


def joined(pages: Sequence[DocumentPage], texts: Sequence[str]) -> str:
    """The pages that were read so far, the first ones, as one document; a heading each where there are several."""
    if len(pages) == 1:
        return texts[0]
    read = pages[: len(texts)]
    return "\n\n".join(f"--- {page.name} ---\n{text}" for page, text in zip(read, texts, strict=True))


def is_tiled(pipe: Pipeline) -> bool:
    """Whether a model cuts pictures into tiles."""
    spec = pipe.processor.spec
    return bool(spec.num_tokens(spec.grid(None)) != spec.num_tokens(spec.grid(None, max_tiles=1)))


def tile_overlay(pipe: Pipeline, image: Image.Image, max_tiles: int) -> tuple[Image.Image, str]:
    """The page on its canvas with the borders of the tiles, and a sentence about their number and tokens."""
    spec = pipe.processor.spec
    grid = spec.grid(image.size, max_tiles=max_tiles)
    across, down = max(grid[0], 1), max(grid[1], 1)
    canvas = (across * spec.image_size, down * spec.image_size)
    size, corner = fit(image.size, canvas)
    zoom = max(1, round(OVERLAY_SIDE / max(canvas)))
    shown = Image.new("RGB", (canvas[0] * zoom, canvas[1] * zoom), spec.pad_color)
    shown.paste(image.resize((size[0] * zoom, size[1] * zoom)), (corner[0] * zoom, corner[1] * zoom))
    draw = ImageDraw.Draw(shown)
    side, width = spec.image_size * zoom, max(2, shown.width // 300)
    for column in range(1, across):
        draw.line((column * side, 0, column * side, shown.height), fill=BLUE, width=width)
    for row in range(1, down):
        draw.line((0, row * side, shown.width, row * side), fill=BLUE, width=width)
    tokens = pipe.processor.num_image_tokens(*image.size, max_tiles=max_tiles)
    tiles = across * down if grid != (0, 0) else 0
    cut = f"{across} x {down} tiles of {spec.image_size} pixels and the whole page" if tiles else "one view"
    said = f"{image.width} x {image.height} pixels: {cut}, **{tokens:,} tokens** of {pipe.context:,}."
    return shown, f"{said} What is grey is added to fill the tiles." if size != canvas else said
