"""The stored charts of other libraries: complete, of unseen fonts, scored, and read by the shipped model."""

from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import mm
from mm.evaluation.scoring import SCORERS, parse_number, table_cells
from mm.evaluation.stored import load_stored
from mm.evaluation.suites import evaluate

FOLDER = Path(__file__).parents[1] / "data" / "foreign_charts"
TASK = "foreign_charts"


@pytest.fixture(scope="module")
def charts():
    return load_stored(FOLDER)[TASK]


@dataclass(frozen=True)
class Said:
    text: str


class Knows:
    """A reader that knows every answer by picture and prompt, and none to a grey picture."""

    def __init__(self, charts):
        self.known = {(c.image.tobytes(), q.prompt): q.answer for c in charts for q in c.questions}

    def chat_batch(self, requests, /, **settings):
        return [Said(self.known.get((asked.images.tobytes(), asked.question), "7")) for asked in requests]


def test_the_set_is_complete_and_small(charts):
    assert len(charts) == 100
    assert Counter(chart.style.split(",")[0] for chart in charts) == {"matplotlib": 40, "altair": 30, "pygal": 30}
    forms = Counter(chart.style.split(", ")[1] for chart in charts)
    assert set(forms) == {"bar", "barh", "grouped", "line", "lines", "pie", "donut"} and min(forms.values()) >= 7
    assert sum(path.stat().st_size for path in FOLDER.glob("*.png")) < 3_000_000
    for chart in charts:
        assert 300 <= chart.image.width <= 900
        assert np.asarray(chart.image.convert("L")).std() > 8
    assert sum(chart.glyph_height >= 11.8 for chart in charts) >= 85
    assert min(chart.glyph_height for chart in charts) >= 10


def test_no_font_of_training_is_shown(charts):
    table = resources.files("mm.synthetic").joinpath("data/fonts.txt").read_text(encoding="utf-8")
    rows = [line.split("|") for line in table.splitlines() if line and not line.startswith("#")]
    trained = {row[0] for row in rows if row[4] == "train"}
    shown = {chart.style.split(", ")[-1] for chart in charts}
    assert len(shown) > 8 and len(trained) > 20
    assert not shown & trained
    assert not any(name.removesuffix(" O") in trained for name in shown)


def test_every_skill_is_asked_and_follows_from_the_numbers(charts):
    skills = Counter(question.skill for chart in charts for question in chart.questions)
    for skill in ("kind", "title", "labels", "how many", "highest", "lowest", "difference", "cannot be answered"):
        assert skills[skill] == 100
    assert skills["value printed"] == skills["table cells"]
    assert skills["value printed"] + skills["value not printed"] == 100
    assert min(skills["value printed"], skills["value not printed"]) > 40
    for chart in charts:
        asked = {question.skill: question for question in chart.questions}
        for question in chart.questions:
            mark = SCORERS[question.scorer].score(question.answer, question)
            assert mark.points == mark.of
            assert SCORERS[question.scorer].score("Quux", question).points == 0
        labels = asked["labels"].answer.split(", ")
        assert asked["highest"].answer in labels and asked["lowest"].answer in labels
        if "table cells" in asked:
            head, *rows = table_cells(asked["table cells"].answer)
            assert [row[0] for row in rows] == labels
            assert any(asked["value printed"].answer in row for row in rows)
            if len(head) == 2:
                numbers = {row[0]: parse_number(row[1]) for row in rows}
                assert asked["highest"].answer == max(numbers, key=numbers.get)
                assert asked["lowest"].answer == min(numbers, key=numbers.get)


def test_the_set_runs_as_a_task_of_its_own(charts):
    report = evaluate(Knows(charts), documents={TASK: charts[:12]}, control_limit=4, batch_size=16)
    scores = {row.measure: row for row in report.rows if row.task == TASK}
    for skill in (
        "kind",
        "title",
        "labels",
        "how many",
        "table cells",
        "value printed",
        "value not printed",
        "highest",
    ):
        assert scores[skill].result.score == 1.0
    assert scores["title"].result.count == 12
    assert scores["title"].control.score == 0.0


def test_nano_vl2_reads_a_chart_of_another_library(charts):
    chart = min(charts, key=lambda chart: chart.image.width * chart.image.height)  # the quickest to read
    asked = tuple(q for q in chart.questions if q.skill in {"kind", "title", "labels"})
    pipe = mm.Pipeline.from_pretrained("nano-vl2", device="cpu")
    report = evaluate(pipe, documents={TASK: [replace(chart, questions=asked)]}, control_limit=0)
    assert len(report.answers) == 3
    assert sum(answer.correct for answer in report.answers) >= 2
