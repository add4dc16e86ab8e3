"""Reports as files, merged, and the row of refusals."""

import json

import pytest

from mm.errors import InputError, ResourceError
from mm.evaluation.metrics import Interval, wilson
from mm.evaluation.report import REFUSED, Answer, Report, Row, load_report, merge_reports, refusals

SCORE = Interval(0.5, 0.4, 0.6, 10)


def answer(scorer, given, *, control=False, points=1):
    return Answer("forms", 0, "value", "What?", "x", given, control, scorer, "share", points, 1)


def test_a_report_survives_its_file(tmp_path):
    report = Report((Row("lines", "CER", SCORE, None, SCORE),), {"limit": 3}, "tesseract 5", (answer("text", "a"),))
    report.save(tmp_path / "a.json")
    assert load_report(tmp_path / "a.json") == report


def test_files_that_are_no_reports(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"schema": "mm.eval/1"}))
    with pytest.raises(InputError, match=r"its schema is 'mm.eval/1', expected 'mm.eval/2'.*mm eval --json FILE"):
        load_report(tmp_path / "old.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="list.json is no report of mm eval"):
        load_report(tmp_path / "list.json")
    with pytest.raises(InputError, match="missing.json is no report"):
        load_report(tmp_path / "missing.json")
    with pytest.raises(ResourceError, match="cannot write .*: .*directory"):
        Report((), {}, "").save(tmp_path)


def test_columns_and_tasks_merge():
    model = Report((Row("lines", "CER", SCORE, SCORE), Row("forms", "value", SCORE)), {"model": "a"}, "not asked for")
    beside = Report(
        (Row("lines", "CER", None, None, SCORE), Row("receipts", "CER", None, None, SCORE)), {}, "tesseract 5"
    )
    merged = merge_reports([model, beside])
    assert merged.rows == (
        Row("lines", "CER", SCORE, SCORE, SCORE),
        Row("forms", "value", SCORE),
        Row("receipts", "CER", None, None, SCORE),
    )
    assert merged.tesseract == "tesseract 5"
    assert merged.settings == {"model": "a", "tasks": ["lines", "forms", "receipts"]}
    assert "| receipts | CER | 10 | - | - | 50.0% (40.0-60.0) |" in merged.to_markdown()
    with pytest.raises(InputError, match="two reports hold the result of lines/CER. Leave one of them out"):
        merge_reports([model, model])


def test_refusals_are_counted_on_what_can_be_answered():
    answers = (
        answer("absent", "not shown"),
        answer("text", "not shown"),
        answer("text", "12"),
        answer("text", "not shown", control=True),
    )
    assert refusals(answers) == [Row("all", REFUSED, wilson(1, 2))]
    assert refusals(answers[1:]) == []
    assert refusals(answers[:1]) == []
    halves = [Report((), {}, "", answers[:1]), Report((), {}, "", answers[1:])]
    assert merge_reports(halves).rows == (Row("all", REFUSED, wilson(1, 2)),)
