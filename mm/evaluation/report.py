"""The result of an evaluation as data, and as a Markdown table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mm.errors import InputError, ResourceError
from mm.evaluation.metrics import Interval, wilson
from mm.evaluation.scoring import says_absent

SCHEMA = "mm.eval/2"
REFUSED = "refused in error"
"""Measure: share of the questions with an answer to which the model says that the picture does not show it."""


@dataclass(frozen=True)
class Answer:
    """One question as it was asked and answered.

    ``scorer`` and ``measure`` say what the marks are (see ``mm.evaluation.scoring``): ``points`` of ``of``, or, of a
    transcription, edits and characters of the reference.
    """

    task: str
    index: int
    skill: str
    prompt: str
    expected: str
    given: str
    control: bool
    scorer: str
    measure: str
    points: int
    of: int

    @property
    def correct(self) -> bool:
        """Nothing is wrong with it."""
        return self.points == (0 if self.measure == "errors" else self.of)


@dataclass(frozen=True)
class Row:
    """One line of the result table.

    Attributes:
        task, measure: what was done and what is counted. "CER" is an error rate (0 is best, above 1 is possible);
            every other measure is a share of right answers or of right cells.
        result: the model's score; None where only Tesseract ran.
        control: the same questions with the picture greyed out; None when that was not asked for, or where saying that
            the picture does not show it is the right answer anyway.
        tesseract: the score of Tesseract on the same pictures; None where it did not run.
    """

    task: str
    measure: str
    result: Interval | None
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
            "schema": SCHEMA,
            "settings": dict(self.settings),
            "tesseract": self.tesseract,
            "rows": [asdict(row) for row in self.rows],
        }
        if answers:
            out["answers"] = [asdict(answer) for answer in self.answers]
        return out

    def save(self, path: Path) -> None:
        """Write rows and every answer as JSON.

        Raises:
            ResourceError: the file cannot be written.
        """
        try:
            text = json.dumps(self.to_dict(answers=True), ensure_ascii=False, indent=1)
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ResourceError(f"cannot write {path}: {error.strerror}. Name a file that can be written") from error

    def to_markdown(self) -> str:
        """The table with 95% intervals, and a line on Tesseract below it."""
        beside = any(row.tesseract is not None for row in self.rows)
        head = [
            "task",
            "measure",
            "n",
            "score (95% interval)",
            self.settings.get("control", "picture greyed out"),
            *(["Tesseract"] if beside else []),
        ]
        lines = [_cells(head), _cells(["---"] * len(head))]
        for row in self.rows:
            shown = row.result or row.tesseract
            cells = [row.task, row.measure, str(shown.count) if shown else "-", _score(row.result)]
            cells.append("-" if row.control is None else f"{_score(row.control)}, n {row.control.count}")
            lines.append(_cells([*cells, *([_score(row.tesseract)] if beside else [])]))
        return "\n".join([*lines, "", f"{_NOTE} Tesseract: {self.tesseract}."])


def load_report(path: Path) -> Report:
    """A report that was written as JSON, with its answers where they were written.

    Raises:
        InputError: the file cannot be read, or is no report of this version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {data.get('schema')!r}, expected {SCHEMA!r}")
        rows = [
            Row(*(row[key] for key in ("task", "measure")), *map(_interval, map(row.get, _COLUMNS)))
            for row in data["rows"]
        ]
        answers = tuple(Answer(**answer) for answer in data.get("answers", ()))
        return Report(tuple(rows), data["settings"], data["tesseract"], answers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no report of mm eval ({error}). Write one with: mm eval --json FILE") from error


def refusals(answers: Sequence[Answer]) -> list[Row]:
    """One row: how often a model says that the picture does not show what it does show.

    A model that always says so is right about every question that cannot be answered. Empty without such questions, or
    without others.
    """
    asked = [answer for answer in answers if not answer.control and answer.measure == "share"]
    shown = [answer for answer in asked if answer.scorer != "absent"]
    if not shown or len(shown) == len(asked):
        return []
    return [Row("all", REFUSED, wilson(sum(says_absent(answer.given) for answer in shown), len(shown)))]


def merge_reports(reports: Sequence[Report]) -> Report:
    """One table of several: tasks that ran apart, or Tesseract that ran on another machine.

    Rows stand in the order in which they first appear; the row ``REFUSED`` is counted anew. The settings are those of
    the first report, with all tasks.

    Raises:
        InputError: two reports hold the same column of the same row.
    """
    rows: dict[tuple[str, str], Row] = {}
    for report in reports:
        for row in report.rows:
            if row.measure == REFUSED:
                continue
            key = (row.task, row.measure)
            if key not in rows:
                rows[key] = row
                continue
            for column in _COLUMNS:
                value = getattr(row, column)
                if value is None:
                    continue
                if getattr(rows[key], column) is not None:
                    raise InputError(
                        f"two reports hold the {column} of {row.task}/{row.measure}. Leave one of them out"
                    )
                rows[key] = replace(rows[key], **{column: value})
    ran = [report.tesseract for report in reports if any(row.tesseract is not None for row in report.rows)]
    settings = {**reports[0].settings, "tasks": list(dict.fromkeys(task for task, _ in rows))}
    answers = tuple(answer for report in reports for answer in report.answers)
    return Report((*rows.values(), *refusals(answers)), settings, (ran or [reports[0].tesseract])[0], answers)


_NOTE = f"CER: character error rate, and {REFUSED}: lower is better."
_COLUMNS = ("result", "control", "tesseract")


def _interval(data: dict[str, Any] | None) -> Interval | None:
    return None if data is None else Interval(**data)


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _score(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.score:.1f}% ({100 * interval.low:.1f}-{100 * interval.high:.1f})"
