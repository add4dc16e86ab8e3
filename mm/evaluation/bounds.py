"""Bounds on the rows of a report, so that a change that makes a model worse is noticed.

A file of bounds is JSON: task -> measure -> bound, in units of 0..1. Error rates must not be above their bound, shares
not below it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from mm.errors import InputError
from mm.evaluation.report import REFUSED, Report

Bounds = Mapping[str, Mapping[str, float]]


def load_bounds(path: Path) -> Bounds:
    """Reads a file of bounds.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(task): {str(measure): float(bound) for measure, bound in rows.items()} for task, rows in data.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no bounds ({error}). Expected JSON: task -> measure -> number 0..1") from error


def missed(report: Report, bounds: Bounds) -> list[str]:
    """One sentence for every row of the report that misses its bound.

    Bounds of tasks that the report does not have say nothing.

    Raises:
        InputError: a bound for a measure that its task does not have.
    """
    found = []
    tasks = {row.task for row in report.rows}
    for task, rows in bounds.items():
        for measure, bound in rows.items() if task in tasks else ():
            try:
                result = report.row(task, measure).result
            except KeyError as error:
                raise InputError(f"a bound cannot be checked: {error.args[0]}. Mend the file of bounds") from error
            if result is None:
                continue
            error_rate = measure in ("CER", REFUSED)
            if (result.score > bound) if error_rate else (result.score < bound):
                limit = "at most" if error_rate else "at least"
                found.append(f"{task}, {measure}: {100 * result.score:.1f}%, expected {limit} {100 * bound:.0f}%")
    return found
