"""The result of an evaluation as data, and as a Markdown table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mm.evaluation.metrics import Interval


@dataclass(frozen=True)
class Answer:
    """One question as it was asked and answered.

    ``errors`` is (edits, characters of the reference) of a transcription and None for a short answer; ``correct`` is an
    exact match of either.
    """

    task: str
    index: int
    skill: str
    prompt: str
    expected: str
    given: str
    control: bool
    correct: bool
    errors: tuple[int, int] | None


@dataclass(frozen=True)
class Row:
    """One line of the result table.

    Attributes:
        task, measure: what was done and what is counted. "CER" is an error rate (0 is best, above 1 is possible);
            every other measure is a share of right answers.
        result: the model's score.
        control: the same questions with the picture greyed out; None when that was not asked for.
        tesseract: the score of Tesseract on the same pictures; None where it did not run.
    """

    task: str
    measure: str
    result: Interval
    control: Interval | None = None
    tesseract: Interval | None = None


@dataclass(frozen=True)
class Report:
    """All rows, how they were made, and every single answer.

    Attributes:
        settings: what ``evaluate`` was called with, JSON types only.
        tesseract: version of the program, or why it has no column.
    """

    rows: tuple[Row, ...]
    settings: dict[str, Any]
    tesseract: str
    answers: tuple[Answer, ...] = field(default=(), repr=False)

    def row(self, task: str, measure: str) -> Row:
        """The row of a task and measure.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.task, row.measure) == (task, measure):
                return row
        raise KeyError(f"no row {task}/{measure}; there are {', '.join(f'{r.task}/{r.measure}' for r in self.rows)}")

    def to_dict(self, *, answers: bool = False) -> dict[str, Any]:
        """JSON types only. ``answers`` adds every single answer (large)."""
        out: dict[str, Any] = {
            "settings": dict(self.settings),
            "tesseract": self.tesseract,
            "rows": [asdict(row) for row in self.rows],
        }
        if answers:
            out["answers"] = [asdict(answer) for answer in self.answers]
        return out

    def to_markdown(self) -> str:
        """The table with 95% intervals, and a line on Tesseract below it."""
        beside = any(row.tesseract is not None for row in self.rows)
        head = [
            "task",
            "measure",
            "n",
            "score (95% interval)",
            "picture greyed out",
            *(["Tesseract"] if beside else []),
        ]
        lines = [_cells(head), _cells(["---"] * len(head))]
        for row in self.rows:
            cells = [row.task, row.measure, str(row.result.count), _score(row.result)]
            cells.append("-" if row.control is None else f"{_score(row.control)}, n {row.control.count}")
            if beside:
                cells.append("-" if row.tesseract is None else _score(row.tesseract))
            lines.append(_cells(cells))
        return "\n".join([*lines, "", f"CER: character error rate, lower is better. Tesseract: {self.tesseract}."])


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _score(interval: Interval) -> str:
    return f"{100 * interval.score:.1f}% ({100 * interval.low:.1f}-{100 * interval.high:.1f})"
