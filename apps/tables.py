"""Tables that a model writes in Markdown: reading them, showing them, and drawing their numbers again."""

import re
from typing import Any

import gradio as gr
import pandas as pd

from .common import plain

_NUMBER = re.compile(r"[-+]?[$€£]?\s*[-+]?\d[\d,' ]*(?:\.\d+)?\s*%?")
_RULE = re.compile(r"\|?(?:\s*:?-{3,}:?\s*\|)+\s*(?::?-{3,}:?)?")


def parse_table(text: str) -> pd.DataFrame | None:
    """The first table of a text, every cell a string; None without one. Rows of a wrong length are filled or cut."""
    lines = [line.strip() for line in text.splitlines()]
    for start, line in enumerate(lines[1:], 1):
        if _RULE.fullmatch(line) and "|" in lines[start - 1]:
            break
    else:
        return None
    head = ["" if cell.strip("-") == "" else cell for cell in _cells(lines[start - 1])]
    rows = []
    for line in lines[start + 1 :]:
        if "|" not in line:
            break
        cells = _cells(line)
        rows.append((cells + [""] * len(head))[: len(head)])
    if not rows or len(head) < 2:
        return None
    names = [name if head.index(name) == i else f"{name} {i + 1}" for i, name in enumerate(head)]
    return pd.DataFrame(rows, columns=names)


def markdown_table(frame: pd.DataFrame) -> str:
    """As Markdown, every cell plain text."""
    head = [plain(name) for name in frame.columns]
    rows = [[plain(cell) for cell in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def number_of(cell: str) -> float | None:
    """``$1,234.50`` and ``12 %`` as numbers; None for what is none."""
    if not _NUMBER.fullmatch(cell.strip()):
        return None
    return float(re.sub(r"[^\d.+-]", "", cell))


def plot_of(frame: pd.DataFrame | None) -> pd.DataFrame:
    """(label, value, series) of every cell that is a number; columns with fewer numbers than texts are left out."""
    parts: list[dict[str, Any]] = []
    if frame is not None:
        for name in frame.columns[1:]:
            values = [number_of(cell) for cell in frame[name]]
            if 2 * sum(value is not None for value in values) > len(values):
                parts += [
                    {"label": label, "value": value, "series": name}
                    for label, value in zip(frame.iloc[:, 0], values, strict=True)
                    if value is not None
                ]
    return pd.DataFrame(parts, columns=["label", "value", "series"])


def redrawn(frame: pd.DataFrame | None, label: str = "") -> gr.BarPlot:
    """The plot of a table, its labels in the table's order; hidden where there is no number.

    A plot that is there must be hidden before: Gradio draws a new order of labels with the numbers of the last one.
    """
    data = plot_of(frame)
    return gr.BarPlot(data, sort=list(dict.fromkeys(data["label"])), visible=len(data) > 0, label=label)


def _cells(line: str) -> list[str]:
    r"""Cells of a row; ``\|`` is a bar inside a cell."""
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
