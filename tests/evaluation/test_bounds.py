"""Bounds: error rates from above, shares from below, and mistakes in the file."""

import json
from pathlib import Path

import pytest

from mm.errors import InputError
from mm.evaluation.bounds import load_bounds, missed
from mm.evaluation.metrics import wilson
from mm.evaluation.report import REFUSED, Report, Row
from mm.evaluation.tasks import TASKS

SHIPPED = Path(__file__).parents[1] / "data" / "nano_vl2_bounds.json"

REPORT = Report(
    (Row("lines", "CER", wilson(2, 100)), Row("lines", "exact", wilson(90, 100)), Row("all", REFUSED, wilson(5, 100))),
    {},
    "not asked for",
)


def test_each_side() -> None:
    assert missed(REPORT, {"lines": {"CER": 0.02, "exact": 0.9}, "all": {REFUSED: 0.05}}) == []
    assert missed(REPORT, {"lines": {"CER": 0.01, "exact": 0.95}, "all": {REFUSED: 0.04}, "forms": {"CER": 0.0}}) == [
        "lines, CER: 2.0%, expected at most 1%",
        "lines, exact: 90.0%, expected at least 95%",
        f"all, {REFUSED}: 5.0%, expected at most 4%",
    ]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a bound cannot be checked: no row lines/title"):
        missed(REPORT, {"lines": {"title": 0.5}})
    with pytest.raises(InputError, match="holds no bounds"):
        load_bounds(tmp_path / "missing.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="Expected JSON: task -> measure -> number"):
        load_bounds(tmp_path / "list.json")


def test_the_shipped_file_names_tasks_that_there_are() -> None:
    assert load_bounds(SHIPPED) == json.loads(SHIPPED.read_text())
    assert set(load_bounds(SHIPPED)) <= {*TASKS, "all"}
