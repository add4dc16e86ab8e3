"""The questions on held-out documents, in parts, and a reader that is asked them."""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

from PIL import Image, ImageStat

from mm.chat import TASK_PROMPTS
from mm.contracts import CancelToken
from mm.evaluation.held_out_canvas import Document, Question
from mm.evaluation.rendering import Painter
from mm.evaluation.report import Answer
from mm.evaluation.scoring import SCORERS
from mm.request import Request

QUESTIONS_A_CALL = 40  # about as many pictures as ``chat_batch`` keeps prepared
PARTS_AHEAD = 2  # for each place of a desk; their pictures are kept

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
class Asked:
    """One question on its way to the model, with the picture or (``control``) with the greyed-out one."""

    task: str
    index: int
    question: Question
    image: Image.Image
    control: bool


@dataclass(frozen=True)
class Part:
    """Some documents of a task with their numbers, and what is asked about them."""

    task: str
    documents: list[tuple[int, Document]]
    asked: list[Asked]


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


def _series(source: Painter | Mapping[str, Sequence[Document]], task: str, count: int) -> Iterable[Document]:
    return source.documents(task, range(count)) if isinstance(source, Painter) else source[task][:count]


def parts_of(
    source: Painter | Mapping[str, Sequence[Document]], wanted: Mapping[str, int], limit: int, control_limit: int
) -> Iterator[Part]:
    """All documents in order, in parts of about ``QUESTIONS_A_CALL`` questions."""
    for task, count in wanted.items():
        counts, greyed = Counter[str](), Counter[str]()
        part = Part(task, [], [])
        for index, document in enumerate(_series(source, task, count)):
            part.documents.append((index, document))
            part.asked.extend(_questions(task, index, document, counts, greyed, limit, control_limit))
            if max(len(part.asked), len(part.documents)) >= QUESTIONS_A_CALL:
                yield part
                part = Part(task, [], [])
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
) -> Iterator[Asked]:
    """The questions on a document, while their rows want more; first those with the picture, which is read once."""
    for count, most, control in ((counts, limit, False), (greyed, control_limit, True)):
        wanted = []
        for question in questions_of(document, index):
            if count[question.skill] < most and not (control and question.scorer == "absent"):
                count[question.skill] += 1
                wanted.append(question)
        image = grey_out(document.image) if wanted and control else document.image
        yield from (Asked(task, index, question, image, control) for question in wanted)


class Desk(Protocol):
    """Where parts are answered, several at the same time."""

    @property
    def max_tiles(self) -> int | None:
        """Most tiles that a picture is cut into; None as published."""
        ...

    @property
    def places(self) -> int:
        """Parts that keep it busy."""
        ...

    def submit(self, asked: Sequence[Asked]) -> Future[list[Answer]]:
        """Have questions answered."""
        ...


class OwnDesk:
    """Answers in threads of this process: while a part is prepared, or its last long answer ends, others run.

    Args:
        reader: the model; None gives no answers.
        batch_size: questions that run together.
        max_tiles: most tiles that a picture is cut into; None as published.
    """

    def __init__(self, reader: Reader | None, batch_size: int, max_tiles: int | None) -> None:
        self.places = places_for(batch_size)
        self.max_tiles = max_tiles
        self._reader, self._batch_size = reader, batch_size
        self._cancel = threading.Event()
        self._pool = ThreadPoolExecutor(self.places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cancel.set()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, asked: Sequence[Asked]) -> Future[list[Answer]]:
        """Have questions answered."""
        return self._pool.submit(self._answer, asked)

    def _answer(self, asked: Sequence[Asked]) -> list[Answer]:
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
            requests, batch_size=self._batch_size, max_tiles=self.max_tiles, cancel=self._cancel
        )
        return [_score(one, reply) for one, reply in zip(asked, replies, strict=True)]


def places_for(batch_size: int) -> int:
    """Parts at the same time that keep so many questions running."""
    return batch_size // QUESTIONS_A_CALL + 2


def answers_in_order(desk: Desk, parts: Iterable[Part]) -> Iterator[tuple[Part, list[Answer]]]:
    """The parts with their answers, in order. Some parts are ahead, so that a slow one does not stop the others."""
    running: deque[tuple[Part, Future[list[Answer]]]] = deque()
    for part in parts:
        running.append((part, desk.submit(part.asked)))
        if len(running) > PARTS_AHEAD * desk.places:
            first, answers = running.popleft()
            yield first, answers.result()
    for first, answers in running:
        yield first, answers.result()


def _score(asked: Asked, reply: HasText) -> Answer:
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
