"""Stored sets: rendered documents in a folder, with their truths in ``index.json``, so that a test needs no fonts.

``index.json`` is a list of records: file, task, style, text, glyph_height, questions (the fields of ``Question``).
``python -m mm.evaluation.stored FOLDER --task scenes --count 14`` writes documents of a task
into such a folder, in place of those of that task; other tasks of the folder stay.
"""

import argparse
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from mm.errors import InputError
from mm.evaluation.held_out_canvas import Document, Question
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.tasks import TASKS, load_renderer

FIRST_STORED = (
    100_000  # numbers far from those that ``evaluate`` counts through, so that the sets have nothing in common
)


def load_stored(folder: Path) -> dict[str, list[Document]]:
    """The documents of a folder by task.

    Raises:
        InputError: no ``index.json``, or a record that is not complete.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise InputError(f"{folder} holds no index.json. Write a set with: python -m mm.evaluation.stored {folder}")
    documents: dict[str, list[Document]] = {}
    for number, record in enumerate(json.loads(index.read_text(encoding="utf-8"))):
        try:
            with Image.open(folder / record["file"]) as image:
                document = Document(
                    image=image.convert("RGB"),
                    text=record["text"],
                    questions=tuple(
                        Question(**{**question, "accept": tuple(question.get("accept", ()))})
                        for question in record["questions"]
                    ),
                    style=record["style"],
                    glyph_height=record["glyph_height"],
                )
            documents.setdefault(record["task"], []).append(document)
        except (KeyError, TypeError, OSError) as error:
            raise InputError(f"record {number} of {index} cannot be used: {error!r}. Write the set anew") from error
    return documents


def pack_image(image: Image.Image, limit: int) -> tuple[str, bytes]:
    """File ending and bytes of a picture: PNG of 128 colours if that is at most ``limit`` bytes, else the best JPEG.

    Raises:
        ValueError: no JPEG of at least quality 35 is small enough.
    """
    packed = io.BytesIO()
    # The octree keeps thin dark strokes dark; a median cut of a pale page turns them grey.
    few = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(packed, "PNG", optimize=True)
    if packed.tell() <= limit:
        return "png", packed.getvalue()
    for quality in range(90, 30, -5):
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=quality, optimize=True)
        if packed.tell() <= limit:
            return "jpg", packed.getvalue()
    raise ValueError(f"a picture of {image.width}x{image.height} does not fit into {limit} bytes")


def write_stored(
    folder: Path, fonts: HeldOutFonts, *, count: int, tasks: Sequence[str] = tuple(TASKS), limit: int = 80_000
) -> None:
    """Render ``count`` documents of each task into ``folder``; a picture takes at most ``limit`` bytes.

    Raises:
        OptionError: an unknown task.
    """
    renderers = {task: load_renderer(task) for task in tasks}
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    records = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []
    for record in [record for record in records if record["task"] in renderers]:
        (folder / record["file"]).unlink()
        records.remove(record)
    for task, render in renderers.items():
        for number in range(count):
            document = render(FIRST_STORED + number, fonts)
            ending, data = pack_image(document.image, limit)
            file = f"{task}_{number:02d}.{ending}"
            (folder / file).write_bytes(data)
            records.append(
                {
                    "file": file,
                    "task": task,
                    "style": document.style,
                    "text": document.text,
                    "glyph_height": round(document.glyph_height, 1),
                    "questions": [asdict(question) for question in document.questions],
                }
            )
    index.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Write a stored set."""
    parser = argparse.ArgumentParser(description="Write a stored set of held-out documents.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", action="append", help="may be given again; all tasks without it")
    parser.add_argument("--count", type=int, default=14, help="documents of each task")
    parser.add_argument("--fonts", type=Path, action="append", help="where the fonts are")
    arguments = parser.parse_args(argv)
    fonts = HeldOutFonts.find(arguments.fonts)
    write_stored(arguments.folder, fonts, count=arguments.count, tasks=arguments.task or tuple(TASKS))


if __name__ == "__main__":
    main()
