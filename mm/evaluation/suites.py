"""How well a model reads documents it has never seen: tasks, questions, scores.

Each task is an endless series of rendered documents, the same for everybody (seeded by number), in fonts and words that
training never drew. Questions are asked twice: with the picture, and with a grey picture of the same size and
brightness. The second score shows what guessing gives; a benchmark whose control is not near chance measures something
else than reading.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mm.errors import OptionError
from mm.evaluation.asking import Desk, OwnDesk, Reader, answers_in_order, parts_of
from mm.evaluation.held_out_canvas import Document
from mm.evaluation.metrics import Interval, bootstrap_cer, transcription_errors, wilson
from mm.evaluation.readers import ReaderPool
from mm.evaluation.rendering import open_painter
from mm.evaluation.report import Answer, Report, Row, refusals
from mm.evaluation.tasks import BY_NAME, DRAWING, TASKS, Task
from mm.evaluation.tesseract import missing_tesseract, read_with_tesseract, tesseract_version


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: documents done of all documents, and the task at hand."""

    done: int
    total: int
    task: str


def evaluate(
    reader: Reader | ReaderPool | None,
    *,
    tasks: Sequence[str] | None = None,
    limit: int = 500,
    control_limit: int = 100,
    batch_size: int = 8,
    max_tiles: int | None = None,
    documents: Mapping[str, Sequence[Document]] | None = None,
    font_folders: Sequence[Path] | None = None,
    workers: int = 0,
    tesseract: bool = False,
    progress: Callable[[Progress], None] | None = None,
    on_task: Callable[[Report], None] | None = None,
) -> Report:
    """Ask every question of every task and count.

    Args:
        reader: the model, usually a ``Pipeline``; a ``ReaderPool`` has it in several processes, with a ``batch_size``
            and ``max_tiles`` of its own; None runs Tesseract alone.
        tasks: names out of ``TASKS`` and ``BY_NAME`` (or of ``documents``); None takes ``TASKS`` (or all documents).
        limit: questions a row: each skill is asked on the first documents that have it.
        control_limit: how many of them are also asked with the picture greyed out; 0 leaves the control out.
        batch_size: questions that run together.
        max_tiles: most tiles that a picture is cut into; None as published.
        documents: a stored set to use instead of rendered documents, by task name.
        font_folders: where the fonts are, if not where the system keeps its fonts.
        workers: processes that draw documents ahead; 0 draws in this one. The result does not depend on it.
        tesseract: also run Tesseract on the pictures of the reading tasks, where it is installed.
        progress: called after every batch.
        on_task: called with the report so far when a task is done and another one begins.

    Raises:
        OptionError: an unknown task, a number out of its range, or no reading task for Tesseract alone.
        ResourceError: held-out fonts are missing; or Tesseract, where it is to run alone.
    """
    known = (*TASKS, *BY_NAME) if documents is None else tuple(documents)
    if tasks is None:
        tasks = tuple(TASKS if documents is None else documents)
    numbers = {"limit": limit, "control_limit": control_limit, "batch_size": batch_size, "workers": workers}
    _check_options(tasks, known, numbers)
    wanted = {name: math.ceil(limit * _task(name).documents) for name in tasks}
    version = tesseract_version() if tesseract else None
    if reader is None:
        wanted = _reading_only(tasks, limit)
        if tesseract and version is None:
            raise missing_tesseract()
    if documents is not None:
        wanted = {name: min(count, len(documents[name])) for name, count in wanted.items()}

    done = 0
    found: dict[str, list[Answer]] = {name: [] for name in wanted}
    beside: dict[str, list[tuple[int, int]]] = {name: [] for name in wanted}

    with (
        open_painter(workers, font_folders) if documents is None else nullcontext(documents) as source,
        ExitStack() as stack,
    ):
        if isinstance(reader, ReaderPool):
            desk: Desk = reader
        else:
            desk = stack.enter_context(OwnDesk(reader, batch_size, max_tiles))
        settings = {
            "limit": limit,
            "control_limit": control_limit,
            "max_tiles": desk.max_tiles,
            "stored": documents is not None,
        }
        missing = "not asked for" if not tesseract else "not installed"
        beside_note = f"{version}, English, page mode 6" if version is not None else missing
        report_of = partial(_report, found, beside, settings, beside_note)
        parts = parts_of(source, wanted, limit, 0 if reader is None else control_limit)
        task = None
        for part, answers in answers_in_order(desk, parts):
            if on_task is not None and task not in (None, part.task):
                on_task(report_of(list(wanted)[: list(wanted).index(part.task)]))
            task = part.task
            found[part.task] += answers
            if version is not None and _task(part.task).reading:
                shown = [document for index, document in part.documents if document.text and index < limit]
                texts = read_with_tesseract([document.image for document in shown])
                pairs = zip(texts, shown, strict=True)
                beside[part.task] += [transcription_errors(text, document.text) for text, document in pairs]
            done += len(part.documents)
            if progress is not None:
                progress(Progress(done, sum(wanted.values()), part.task))
    return report_of(tasks)


def _report(
    found: Mapping[str, Sequence[Answer]],
    beside: Mapping[str, Sequence[tuple[int, int]]],
    settings: Mapping[str, Any],
    beside_note: str,
    tasks: Sequence[str],
) -> Report:
    """The report of some tasks that are done."""
    asked = [name for name in tasks if name in found]  # Tesseract alone leaves tasks out
    rows = [row for name in asked for row in _rows(name, found[name], beside[name])]
    every = [answer for name in asked for answer in found[name]]
    return Report((*rows, *refusals(every)), {"tasks": list(tasks), **settings}, beside_note, tuple(every))


def _task(name: str) -> Task:
    """What is known of a task; stored sets may have others."""
    return (TASKS | BY_NAME).get(name, Task(""))


def _reading_only(tasks: Sequence[str], limit: int) -> dict[str, int]:
    """What Tesseract can be asked: {task: documents}."""
    wanted = {name: limit for name in tasks if _task(name).reading}
    if not wanted:
        reading = ", ".join(name for name, task in TASKS.items() if task.reading)
        raise OptionError(
            f"there is no text to transcribe in {', '.join(tasks)}, and Tesseract does nothing else. Reading tasks: "
            f"{reading}"
        )
    return wanted


def _check_options(tasks: Sequence[str], known: Sequence[str], numbers: Mapping[str, int]) -> None:
    for name, value in numbers.items():
        least = int(name in ("limit", "batch_size"))
        if value < least:
            raise OptionError(f"{name} is {value}; expected {least} or more")
    unknown = [name for name in tasks if name not in known]
    if unknown or not tasks:
        raise OptionError(
            f"unknown task {', '.join(map(repr, unknown)) or '(none)'}. Tasks: {', '.join(known)}; alone, for a model "
            f"that draws: {DRAWING}"
        )


def _rows(task: str, answers: Sequence[Answer], tesseract: Sequence[tuple[int, int]]) -> list[Row]:
    """The table rows of one task, in the order in which the skills first appear."""
    skills = dict.fromkeys(answer.skill for answer in answers) or (["ocr"] if tesseract else [])
    rows = []
    for skill in skills:
        seen, greyed = ([a for a in answers if a.skill == skill and a.control is control] for control in (False, True))
        if skill != "ocr":
            rows.append(Row(task, skill, _interval(seen), _interval(greyed)))
            continue
        rows.append(
            Row(task, "CER", _interval(seen), _interval(greyed), bootstrap_cer(tesseract) if tesseract else None)
        )
        if _task(task).exact:
            shares = [wilson(sum(a.correct for a in part), len(part)) if part else None for part in (seen, greyed)]
            beside = wilson(sum(edits == 0 for edits, _ in tesseract), len(tesseract)) if tesseract else None
            rows.append(Row(task, "exact", shares[0], shares[1], beside))
    return rows


def _interval(answers: Sequence[Answer]) -> Interval | None:
    """The score of some answers of one measure, None where there are none."""
    if not answers:
        return None
    if answers[0].measure == "share":
        return wilson(sum(answer.points for answer in answers), len(answers))
    return bootstrap_cer([(answer.points, answer.of) for answer in answers])
