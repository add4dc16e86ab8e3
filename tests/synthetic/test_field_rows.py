"""Fields of forms: columns, and fields that take the whole width."""

from dataclasses import replace

import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.field_rows import Field, FieldRows
from mm.synthetic.fonts import FontSet
from mm.synthetic.page import Page
from mm.synthetic.style import draw_style


@pytest.mark.parametrize("form", ["above", "boxed", "inline", "cells"])
def test_a_wide_field_has_a_row_of_its_own(form: str, fonts: FontSet) -> None:
    style = draw_style(Dice(np.random.default_rng(0)), fonts, "form", 16, 0.0)
    pen = style.pen()
    fields = [Field(name, f"value{name}") for name in "ABCDE"]
    fields[2] = replace(fields[2], wide=True)
    page = Page()
    FieldRows(fields, 2, form, pen, pen, ":", style.ink, 0.2, enclosed=True).place(page, style, 0.0, 400.0)
    places = {op.text: (op.x, op.baseline) for op in page.texts}
    heights = [places[f"value{name}"][1] for name in "ABCDE"]
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]
    starts = [places[f"{name}:"][0] for name in "ABCDE"]
    assert starts[0] == starts[2] == starts[3] < starts[1]
    if form == "boxed":
        rights = [shape.box[2] for shape in page.shapes]
        assert rights[2] == pytest.approx(400.0) and rights[0] < 250.0
