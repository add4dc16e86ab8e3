"""How well a model reads documents it has never seen: tasks, questions, scores.

Each task is an endless series of rendered documents, the same for everybody (seeded by number), in fonts and words that
training never drew. Questions are asked twice: with the picture, and with a grey picture of the same size and
brightness. The second score shows what guessing gives; a benchmark whose control is not near chance measures something
else than reading.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageStat

from mm.chat import TASK_PROMPTS
from mm.errors import OptionError
from mm.evaluation.held_out_canvas import Document, Question
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.metrics import Interval, bootstrap_cer, transcription_errors, wilson
from mm.evaluation.report import Answer, Report, Row
from mm.evaluation.scoring import SCORERS
from mm.evaluation.tasks import TASKS, load_renderer
from mm.evaluation.tesseract import read_with_tesseract, tesseract_version


class HasText(Protocol):
    """A reply."""

    @property
    def text(self) -> str:
        """The answer."""
        ...


class Reader(Protocol):
    """What is evaluated; ``mm.Pipeline`` is one."""

    def chat_batch(
        self, requests: Sequence[tuple[Image.Image, str]], /, *, max_new_tokens: int, batch_size: int
    ) -> Sequence[HasText]:
        """One greedy answer for each (image, question), in order."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: pictures done of all pictures (greyed ones count too), and the task at hand."""

    done: int
    total: int
    task: str


@dataclass(frozen=True)
class _Asked:
    """One question on its way to the model."""

    task: str
    index: int
    question: Question
    image: Image.Image
    control: bool


def grey_out(image: Image.Image) -> Image.Image:
    """A picture of the same size that shows nothing: every pixel has the mean grey of the original."""
    level = round(ImageStat.Stat(image.convert("L")).mean[0])
    return Image.new("RGB", image.size, (level, level, level))


def questions_of(document: Document) -> tuple[Question, ...]:
    """The transcription, asked in the words of the task prompt, then the document's own questions."""
    whole = (Question("ocr", TASK_PROMPTS["ocr"], document.text, "transcription"),) if document.text else ()
    return (*whole, *document.questions)


def evaluate(
    reader: Reader,
    *,
    tasks: Sequence[str] = tuple(TASKS),
    limit: int = 500,
    control_limit: int = 100,
    batch_size: int = 8,
    documents: Mapping[str, Sequence[Document]] | None = None,
    font_folders: Sequence[Path] | None = None,
    tesseract: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Ask every question of every task and count.

    Args:
        reader: the model, usually a ``Pipeline``.
        tasks: names out of ``TASKS`` (or of ``documents``).
        limit: documents a task.
        control_limit: how many of them are also asked with the picture greyed out; 0 leaves the control out.
        batch_size: questions that run together.
        documents: a stored set to use instead of rendered documents, by task name.
        font_folders: where the held-out fonts are, if not where the system keeps its fonts.
        tesseract: also run Tesseract on the pictures, where it is installed.
        progress: called after every batch.

    Raises:
        OptionError: an unknown task, or a number out of its range.
        ResourceError: held-out fonts are missing.
    """
    known = tuple(TASKS if documents is None else documents)
    _check_options(tasks, known, limit=limit, control_limit=control_limit, batch_size=batch_size)
    get = _renderer(HeldOutFonts.find(font_folders)) if documents is None else _stored(documents)
    counts = {name: limit if documents is None else min(limit, len(documents[name])) for name in tasks}
    total = sum(count + min(count, control_limit) for count in counts.values())
    version = tesseract_version() if tesseract else None

    done = 0
    answers: list[Answer] = []
    rows: list[Row] = []
    for name in tasks:
        found: list[Answer] = []
        beside: list[tuple[int, int]] = []
        for start in range(0, counts[name], batch_size):
            numbers = range(start, min(start + batch_size, counts[name]))
            chunk = [get(name, number) for number in numbers]
            for control in (False, True):
                wanted = [i for i in numbers if not control or i < control_limit]
                found += _ask(reader, name, wanted, chunk[: len(wanted)], control=control, batch_size=batch_size)
                done += len(wanted)
                if wanted and progress is not None:
                    progress(Progress(done, total, name))
            if version is not None:
                texts = read_with_tesseract([document.image for document in chunk])
                beside += [transcription_errors(text, doc.text) for text, doc in zip(texts, chunk, strict=True)]
        rows += _rows(name, found, beside)
        answers += found
    settings = {
        "tasks": list(tasks),
        "limit": limit,
        "control_limit": control_limit,
        "stored": documents is not None,
    }
    missing = "not asked for" if not tesseract else "not installed"
    beside_note = f"{version}, English, page mode 6" if version is not None else missing
    return Report(tuple(rows), settings, beside_note, tuple(answers))


def _check_options(
    tasks: Sequence[str], known: Sequence[str], *, limit: int, control_limit: int, batch_size: int
) -> None:
    for name, value, least in (("limit", limit, 1), ("control_limit", control_limit, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise OptionError(f"{name} is {value}; expected {least} or more")
    unknown = [name for name in tasks if name not in known]
    if unknown or not tasks:
        raise OptionError(f"unknown task {', '.join(map(repr, unknown)) or '(none)'}. Tasks: {', '.join(known)}")


def _renderer(fonts: HeldOutFonts) -> Callable[[str, int], Document]:
    return lambda task, number: load_renderer(task)(number, fonts)


def _stored(documents: Mapping[str, Sequence[Document]]) -> Callable[[str, int], Document]:
    return lambda task, number: documents[task][number]


def _ask(
    reader: Reader, task: str, numbers: Sequence[int], documents: Sequence[Document], *, control: bool, batch_size: int
) -> list[Answer]:
    """All questions on some documents; transcriptions apart from short answers, so that a batch ends together."""
    asked = [
        _Asked(task, number, question, grey_out(document.image) if control else document.image, control)
        for number, document in zip(numbers, documents, strict=True)
        for question in questions_of(document)
    ]
    answers = []
    for tokens in sorted({SCORERS[one.question.scorer].tokens for one in asked}, reverse=True):
        group = [one for one in asked if SCORERS[one.question.scorer].tokens == tokens]
        if group:
            requests = [(one.image, one.question.prompt) for one in group]
            replies = reader.chat_batch(requests, max_new_tokens=tokens, batch_size=batch_size)
            answers += [_score(one, reply.text) for one, reply in zip(group, replies, strict=True)]
    return answers


def _score(asked: _Asked, given: str) -> Answer:
    question = asked.question
    scorer = SCORERS[question.scorer]
    mark = scorer.score(given, question)
    errors = (mark.points, mark.of) if scorer.measure == "errors" else None
    correct = mark.points == 0 if scorer.measure == "errors" else mark.points == mark.of
    return Answer(
        task=asked.task,
        index=asked.index,
        skill=question.skill,
        prompt=question.prompt,
        expected=question.answer,
        given=given,
        control=asked.control,
        correct=correct,
        errors=errors,
    )


def _rows(task: str, answers: Sequence[Answer], tesseract: Sequence[tuple[int, int]]) -> list[Row]:
    """The table rows of one task, in the order in which the skills first appear."""
    rows = []
    for skill in dict.fromkeys(answer.skill for answer in answers):
        seen, greyed = ([a for a in answers if a.skill == skill and a.control is control] for control in (False, True))
        if skill == "ocr":
            beside = bootstrap_cer(tesseract) if tesseract else None
            rows.append(Row(task, "CER", _cer(seen), _cer(greyed) if greyed else None, beside))
        if skill != "ocr" or (task in TASKS and TASKS[task].exact):
            shares = [wilson(sum(a.correct for a in part), len(part)) if part else None for part in (seen, greyed)]
            beside = None
            if skill == "ocr" and tesseract:
                beside = wilson(sum(edits == 0 for edits, _ in tesseract), len(tesseract))
            assert shares[0] is not None
            rows.append(Row(task, "exact" if skill == "ocr" else skill, shares[0], shares[1], beside))
    return rows


def _cer(answers: Sequence[Answer]) -> Interval:
    return bootstrap_cer([answer.errors for answer in answers if answer.errors is not None])
