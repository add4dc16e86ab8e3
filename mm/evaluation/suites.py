"""How well a model reads documents it has never seen: tasks, questions, scores.

Each task is an endless series of rendered documents, the same for everybody (seeded by number), in fonts and words that
training never drew. Questions are asked twice: with the picture, and with a grey picture of the same size and
brightness. The second score shows what guessing gives; a benchmark whose control is not near chance measures something
else than reading.
"""

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from PIL import Image, ImageStat

from mm.chat import TASK_PROMPTS
from mm.contracts import CancelToken
from mm.errors import OptionError
from mm.evaluation.held_out_canvas import Document, Question
from mm.evaluation.metrics import Interval, bootstrap_cer, transcription_errors, wilson
from mm.evaluation.rendering import Painter, open_painter
from mm.evaluation.report import Answer, Report, Row, refusals
from mm.evaluation.scoring import SCORERS
from mm.evaluation.tasks import TASKS, Task
from mm.evaluation.tesseract import read_with_tesseract, tesseract_version
from mm.request import Request

QUESTIONS_A_CALL = 40  # about as many pictures as ``chat_batch`` keeps prepared


OTHER_READ_PROMPTS = (
    *("Read the text.", "What does it say?", "Please transcribe this image.", "What is written in the image?"),
    *("Give me all of the text.", "Copy the text of this picture."),
)


class HasText(Protocol):
    """A reply."""

    @property
    def text(self) -> str:
        """The answer."""
        ...

    @property
    def raw_text(self) -> str:
        """The answer with the markup of boxes."""
        ...


class Reader(Protocol):
    """What is evaluated; ``mm.Pipeline`` is one. Several threads call it at the same time."""

    def chat_batch(
        self, requests: Sequence[Request], /, *, batch_size: int, max_tiles: int | None, cancel: CancelToken
    ) -> Sequence[HasText]:
        """One greedy answer for each request, in order. They have an image, a question and ``max_new_tokens``."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: documents done of all documents, and the task at hand."""

    done: int
    total: int
    task: str


@dataclass(frozen=True)
class _Part:
    """Some documents of a task with their numbers, and what is asked about them."""

    task: str
    documents: list[tuple[int, Document]]
    asked: list["_Asked"]


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


def questions_of(document: Document, index: int = 0) -> tuple[Question, ...]:
    """The transcription, where there is one, then the document's own questions.

    Every second document is asked for its transcription in the words of the task prompt, the others in other words.
    """
    other = OTHER_READ_PROMPTS[index // 2 % len(OTHER_READ_PROMPTS)]
    prompt = other if index % 2 else TASK_PROMPTS["ocr"]
    whole = (Question("ocr", prompt, document.text, "transcription"),) if document.text else ()
    return (*whole, *document.questions)


def evaluate(
    reader: Reader | None,
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
) -> Report:
    """Ask every question of every task and count.

    Args:
        reader: the model, usually a ``Pipeline``; None runs Tesseract alone.
        tasks: names out of ``TASKS`` (or of ``documents``); None takes all of them.
        limit: questions a row: each skill is asked on the first documents that have it.
        control_limit: how many of them are also asked with the picture greyed out; 0 leaves the control out.
        batch_size: questions that run together.
        max_tiles: most tiles that a picture is cut into; None as published.
        documents: a stored set to use instead of rendered documents, by task name.
        font_folders: where the fonts are, if not where the system keeps its fonts.
        workers: processes that draw documents ahead; 0 draws in this one. The result does not depend on it.
        tesseract: also run Tesseract on the pictures of the reading tasks, where it is installed.
        progress: called after every batch.

    Raises:
        OptionError: an unknown task, or a number out of its range.
        ResourceError: held-out fonts are missing.
    """
    known = tuple(TASKS if documents is None else documents)
    tasks = known if tasks is None else tasks
    numbers = {"limit": limit, "control_limit": control_limit, "batch_size": batch_size, "workers": workers}
    _check_options(tasks, known, numbers)
    wanted = {name: math.ceil(limit * _task(name).documents) for name in tasks}
    if reader is None:
        wanted = {name: limit for name in tasks if _task(name).reading}
    if documents is not None:
        wanted = {name: min(count, len(documents[name])) for name, count in wanted.items()}
    version = tesseract_version() if tesseract else None

    done = 0
    found: dict[str, list[Answer]] = {name: [] for name in wanted}
    beside: dict[str, list[tuple[int, int]]] = {name: [] for name in wanted}
    with (
        open_painter(workers, font_folders) if documents is None else nullcontext(documents) as source,
        _Interview(reader, batch_size, max_tiles) as interview,
    ):
        parts = _parts(source, wanted, limit, 0 if reader is None else control_limit)
        for part, answers in interview.answers(parts):
            found[part.task] += answers
            if version is not None and _task(part.task).reading:
                shown = [document for index, document in part.documents if document.text and index < limit]
                texts = read_with_tesseract([document.image for document in shown])
                pairs = zip(texts, shown, strict=True)
                beside[part.task] += [transcription_errors(text, document.text) for text, document in pairs]
            done += len(part.documents)
            if progress is not None:
                progress(Progress(done, sum(wanted.values()), part.task))
    rows = [row for name in wanted for row in _rows(name, found[name], beside[name])]
    every = [answer for name in wanted for answer in found[name]]
    rows += refusals(every)
    settings = {
        "tasks": list(tasks),
        "limit": limit,
        "control_limit": control_limit,
        "max_tiles": max_tiles,
        "stored": documents is not None,
    }
    missing = "not asked for" if not tesseract else "not installed"
    beside_note = f"{version}, English, page mode 6" if version is not None else missing
    return Report(tuple(rows), settings, beside_note, tuple(every))


def _task(name: str) -> Task:
    """What is known of a task; stored sets may have others."""
    return TASKS.get(name, Task(""))


def _check_options(tasks: Sequence[str], known: Sequence[str], numbers: Mapping[str, int]) -> None:
    for name, value in numbers.items():
        least = int(name in ("limit", "batch_size"))
        if value < least:
            raise OptionError(f"{name} is {value}; expected {least} or more")
    unknown = [name for name in tasks if name not in known]
    if unknown or not tasks:
        raise OptionError(f"unknown task {', '.join(map(repr, unknown)) or '(none)'}. Tasks: {', '.join(known)}")


def _series(source: Painter | Mapping[str, Sequence[Document]], task: str, count: int) -> Iterable[Document]:
    return source.documents(task, range(count)) if isinstance(source, Painter) else source[task][:count]


def _parts(
    source: Painter | Mapping[str, Sequence[Document]], wanted: Mapping[str, int], limit: int, control_limit: int
) -> Iterator[_Part]:
    """All documents in order, in parts of about ``QUESTIONS_A_CALL`` questions."""
    for task, count in wanted.items():
        counts, greyed = Counter[str](), Counter[str]()
        part = _Part(task, [], [])
        for index, document in enumerate(_series(source, task, count)):
            part.documents.append((index, document))
            part.asked.extend(_questions(task, index, document, counts, greyed, limit, control_limit))
            if max(len(part.asked), len(part.documents)) >= QUESTIONS_A_CALL:
                yield part
                part = _Part(task, [], [])
        if part.documents:
            yield part


def _questions(
    task: str,
    index: int,
    document: Document,
    counts: Counter[str],
    greyed: Counter[str],
    limit: int,
    control_limit: int,
) -> Iterator[_Asked]:
    """The questions on a document, while their rows want more; first those with the picture, which is read once."""
    for count, most, control in ((counts, limit, False), (greyed, control_limit, True)):
        wanted = []
        for question in questions_of(document, index):
            if count[question.skill] < most and not (control and question.scorer == "absent"):
                count[question.skill] += 1
                wanted.append(question)
        image = grey_out(document.image) if wanted and control else document.image
        yield from (_Asked(task, index, question, image, control) for question in wanted)


class _Interview:
    """Asks a reader, a few parts at the same time: while one is prepared, or its last long answer ends, others run."""

    def __init__(self, reader: Reader | None, batch_size: int, max_tiles: int | None) -> None:
        self._reader, self._batch_size, self._max_tiles = reader, batch_size, max_tiles
        self._together = batch_size // QUESTIONS_A_CALL + 2
        self._cancel = threading.Event()
        self._pool = ThreadPoolExecutor(self._together)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cancel.set()
        self._pool.shutdown(cancel_futures=True)

    def answers(self, parts: Iterable[_Part]) -> Iterator[tuple[_Part, list[Answer]]]:
        """The parts with their answers, in order."""
        running: deque[tuple[_Part, Future[list[Answer]]]] = deque()
        for part in parts:
            running.append((part, self._pool.submit(self._ask, part.asked)))
            if len(running) > self._together:
                first, answers = running.popleft()
                yield first, answers.result()
        for first, answers in running:
            yield first, answers.result()

    def _ask(self, asked: Sequence[_Asked]) -> list[Answer]:
        if self._reader is None or not asked:
            return []
        requests = [
            Request(
                images=one.image,
                question=one.question.prompt,
                options={"max_new_tokens": SCORERS[one.question.scorer].tokens},
            )
            for one in asked
        ]
        replies = self._reader.chat_batch(
            requests, batch_size=self._batch_size, max_tiles=self._max_tiles, cancel=self._cancel
        )
        return [_score(one, reply) for one, reply in zip(asked, replies, strict=True)]


def _score(asked: _Asked, reply: HasText) -> Answer:
    question, scorer = asked.question, SCORERS[asked.question.scorer]
    given = reply.raw_text if question.scorer == "boxes" else reply.text
    mark = scorer.score(given, question)
    return Answer(
        task=asked.task,
        index=asked.index,
        skill=question.skill,
        prompt=question.prompt,
        expected=question.answer,
        given=given,
        control=asked.control,
        scorer=question.scorer,
        measure=scorer.measure,
        points=mark.points,
        of=mark.of,
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
