"""What the commands print, and where: answers to standard output, everything else to standard error.

Colours and spinners appear on a terminal only (and not when NO_COLOR is set); piped output is plain text.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mm.cli.spelling import as_typed
from mm.errors import ResourceError

FULL = "cannot write to standard output: {}. Free some space, or send it to another place."


def write(text: str, *, end: str = "\n") -> None:
    """Text to standard output as it is, at once.

    Raises:
        ResourceError: it cannot be written there, such as a file on a full disk.
    """
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # `mm ... | head`: whoever reads has enough, and the command ends quietly
    except OSError as error:
        give_up_stdout()
        raise ResourceError(FULL.format(error.strerror)) from error


def open_missing_streams() -> None:
    """Standard streams that the caller has closed lead nowhere; Python has None for them."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (for the life of the process)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def give_up_stdout() -> None:
    """Drop what cannot be written: Python writes it again when it ends, and would report the same error there."""
    with suppress(OSError, ValueError):  # ValueError: no file behind it
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def write_json(values: Any) -> None:
    """One JSON document to standard output."""
    write(json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False))


def note(text: str) -> None:
    """A line to standard error."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_aside(text: str) -> None:
    """Text beside the answer, to standard error as it is, at once; dimmed on a terminal."""
    console = Console(stderr=True)
    sys.stdout.flush()
    sys.stderr.write(f"\x1b[2m{text}\x1b[0m" if console.is_terminal and not console.no_color else text)
    sys.stderr.flush()


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """A spinner on standard error while something takes its time; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A function (what, done, total) that moves a bar on standard error; it does nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table to standard output; tab-separated lines where that is no terminal.

    Args:
        columns: headings.
        rows: cells, plain text.
        right: numbers of the columns that hold numbers.
    """
    console = Console()
    if not console.is_terminal:
        for row in (columns, *rows):
            write("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a cell are not markup
    console.print(table)


def write_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line, aligned."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        write(f"{name:<{width}}  {value}".rstrip())


def bytes_text(count: int) -> str:
    """1234567 -> "1.23 MB" (powers of 1000, as disks and published sizes are counted)."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


@contextmanager
def readable_warnings() -> Iterator[None]:
    """Show each Python warning once, as one line without file and line number."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = as_typed(str(message).strip())
        if text not in shown:
            shown.add(text)
            note(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
