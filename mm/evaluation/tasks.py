"""The tasks of ``mm eval``: what is drawn, as ``module:function`` strings that are imported when a task runs.

A renderer is called as ``render(index, fonts)`` and returns the document number ``index`` of an endless series, equal
for everybody (with equal versions of Pillow, FreeType and NumPy). See ``mm.evaluation.scoring`` for what questions may
ask.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol

from mm.errors import OptionError
from mm.evaluation.held_out_canvas import Document
from mm.evaluation.held_out_fonts import HeldOutFonts


class Renderer(Protocol):
    """Draws the document number ``index`` of an endless series."""

    def __call__(self, index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
        """Equal numbers give equal documents."""
        ...


@dataclass(frozen=True)
class Task:
    """A kind of held-out document.

    Attributes:
        render: ``module:function`` of its renderer.
        documents: documents drawn for each item that a row wants: 2.0 where a skill is asked on every second one.
        exact: the transcription also counts as a row "exact": the whole text without a wrong character.
        reading: Tesseract runs beside it.
    """

    render: str
    documents: float = 1.0
    exact: bool = False
    reading: bool = True


TASKS: dict[str, Task] = {
    "lines_known_fonts": Task("mm.evaluation.held_out_lines:render_known_line", exact=True),
    "lines": Task("mm.evaluation.held_out_lines:render_line", exact=True),
    "receipts": Task("mm.evaluation.held_out_receipts:render_receipt"),
    "forms": Task("mm.evaluation.held_out_forms:render_form"),
    "paragraphs": Task("mm.evaluation.held_out_paragraphs:render_paragraph"),
    "screens": Task("mm.evaluation.held_out_screens:render_screen", documents=1.5),
    "charts": Task("mm.evaluation.held_out_charts:render_chart", documents=2.0, reading=False),
    "data_tables": Task("mm.evaluation.held_out_data_tables:render_data_table", documents=1.2),
    "scenes": Task("mm.evaluation.held_out_scenes:render_scene", reading=False),
    "grounding": Task("mm.evaluation.held_out_grounding:render_grounding", reading=False),
    "unanswerable": Task("mm.evaluation.held_out_unanswerable:render_unanswerable", reading=False),
}

BY_NAME: dict[str, Task] = {"drawings": Task("mm.evaluation.held_out_drawings:render_drawing", reading=False)}
"""Tasks that are only run where they are asked for: pictures as small as nano-janus draws them."""


DRAWING = "draw"
"""Not of these tables: nothing is asked, a model draws; it runs alone (``mm.evaluation.drawing``)."""


@cache
def load_renderer(name: str) -> Renderer:
    """The renderer of a task.

    Raises:
        OptionError: an unknown task.
    """
    known = TASKS | BY_NAME
    if name not in known:
        raise OptionError(f"unknown task {name!r}. Tasks: {', '.join(known)}")
    module, _, function = known[name].render.partition(":")
    renderer: Renderer = getattr(import_module(module), function)
    return renderer
