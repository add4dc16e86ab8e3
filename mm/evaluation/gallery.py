"""Pictures for a model card: of what a model was asked and answered, or of what it draws.

    python -m mm.evaluation.gallery result.json docs/nano-vl2
    python -m mm.evaluation.gallery nano-janus docs/nano-janus

The first takes, of every task in a file of ``mm eval --json``, the first answer that is right and the first that is
wrong, draws their pictures again and writes them beside a ``README.md`` that shows each with question, answer and
truth. Nobody chooses: the order of the file does. The second is ``mm.evaluation.drawn_gallery``: minutes on a CPU.
"""

import argparse
import html
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mm.errors import InputError, MMError
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.stored import pack_image
from mm.evaluation.tasks import TASKS, load_renderer
from mm.grounding import DET_OPEN, draw_boxes, parse_boxes

LARGEST_FILE = 60_000  # bytes of a picture
_SHOWN = 400  # characters of an answer


def choose(answers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first right and the first wrong answer of each task, on different pictures; greyed pictures are left out."""
    for task in TASKS:
        seen: set[int] = set()
        for right in (True, False):
            for answer in answers:
                if answer["task"] != task or answer["control"] or answer["index"] in seen:
                    continue
                if is_right(answer) is right:
                    seen.add(answer["index"])
                    yield answer
                    break


def is_right(answer: dict[str, Any]) -> bool:
    """Whether an answer is right in every point."""
    points, of = int(answer["points"]), int(answer["of"])
    return points == 0 if answer["measure"] == "errors" else points == of


def read_answers(result: Path) -> tuple[list[dict[str, Any]], str]:
    """Answers of a file of ``mm eval --json``, and the model's name.

    Raises:
        InputError: it is no such file, or holds no answers to questions.
    """
    try:
        record = json.loads(result.read_text(encoding="utf-8"))
        answers, model = record["answers"], record["settings"].get("model", "The model")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{result} is no file of mm eval --json ({error}). Name one, or a model that draws") from error
    if not any(answer["task"] in TASKS for answer in answers):
        raise InputError(f"{result} holds no answers to questions. Write it with: mm eval MODEL --json {result}")
    return answers, model


def write_gallery(answers: Sequence[dict[str, Any]], model: str, folder: Path, fonts: HeldOutFonts) -> int:
    """Writes pictures and ``README.md``; returns how many there are.

    Args:
        answers: of a file of ``mm eval --json``; see ``read_answers``.
        model: its name, for the title.
        folder: made if it is not there.
        fonts: that the pictures are written with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, answer in enumerate(choose(answers), start=1):
        image = load_renderer(answer["task"])(answer["index"], fonts).image
        if DET_OPEN in answer["given"]:
            image = draw_boxes(image, parse_boxes(answer["given"], [image.size]))
        ending, data = pack_image(image, LARGEST_FILE)
        name = f"{number:02d}-{answer['task']}.{ending}"
        (folder / name).write_bytes(data)
        verdict = "right" if is_right(answer) else "**wrong**"
        said, truth = _cell(answer["given"]), "" if is_right(answer) else _cell(answer["expected"])
        shown = f'<img src="{name}" width="320" alt="{answer["task"]}">'
        rows.append(f"| {shown} | {_cell(answer['prompt'])} | {said} | {verdict} | {truth} |")
    head = ["| picture | asked | answered | | truth |", "| --- | --- | --- | --- | --- |"]
    title = f"# {model}: answers, right and wrong"
    note = "The first right and the first wrong answer of each task of `mm eval`, in the order of the questions."
    (folder / "README.md").write_text("\n".join([title, "", note, "", *head, *rows, ""]), encoding="utf-8")
    return len(rows)


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    return html.escape(short).replace("|", "&#124;").replace("\n", "<br>")


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments and writes the folder; a mistake is one line on standard error and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a file of mm eval --json, or a model that draws: its name or folder")
    parser.add_argument("folder", type=Path, help="receives the pictures and README.md")
    parser.add_argument("--fonts", type=Path, help="a folder with the held-out fonts, for a file")
    options = parser.parse_args(argv)
    try:
        count = _write(options.source, options.folder, options.fonts)
    except MMError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(
            f"error: {error.strerror} ({error.filename}). Check the path, its permissions and the space on the disk."
        )
    print(f"{count} pictures in {options.folder}")


def _write(source: str, folder: Path, fonts: Path | None) -> int:
    if Path(source).is_file() or source.endswith(".json"):
        answers, name = read_answers(Path(source))
        return write_gallery(answers, name, folder, HeldOutFonts.find([fonts] if fonts else None))
    from mm.evaluation.drawn_gallery import shown_prompts, write_drawn_gallery
    from mm.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(source, device="cpu", dtype="float32")
    return write_drawn_gallery(pipe, folder, prompts=shown_prompts())


if __name__ == "__main__":
    main()
