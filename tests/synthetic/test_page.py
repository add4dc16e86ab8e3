from collections import Counter

import numpy as np
import pytest

from mm.synthetic import documents
from mm.synthetic.dice import Dice
from mm.synthetic.documents import KINDS
from mm.synthetic.field_rows import CheckRow, Field, FieldRows, WithPhoto
from mm.synthetic.layout import Columns, Ends, Grid, Justified, Line, Logo, Rule, build_page, wrap
from mm.synthetic.style import draw_style, view_scale

INK = (0, 0, 0)


@pytest.fixture
def style(fonts):
    return draw_style(Dice(np.random.default_rng(0)), fonts, "receipt", 20, 0.0)


def test_a_row_is_one_line_and_decoration_is_not_text(style):
    pen = style.pen()
    page = build_page(
        [
            Line("Corner Shop", pen, "center"),
            Rule("-", pen),
            Rule("=", pen, "ITEMS"),
            Rule("line", pen),
            Ends("Milk", "1.20", pen, pen, "."),
            Grid([["2", "Tea", "4.00"], ["1", "Jam", "3.10"]], "rlr", [pen, pen], 1, lines="all"),
            FieldRows([Field("Name", "Ann"), Field("Age", "7")], 2, "above", pen, pen, ":", INK, 0.0),
            CheckRow([("Paid", True), ("Open", False)], pen, drawn=True),
        ],
        style,
        400,
    )
    assert page.rows() == [
        "Corner Shop",
        "ITEMS",
        "Milk 1.20",
        "2 Tea 4.00",
        "1 Jam 3.10",
        "Name: Age:",
        "Ann 7",
        "[x] Paid [ ] Open",
    ]
    drawn = {op.text for op in page.texts if not op.counts}
    assert len(drawn) == 3 and all(set(text) <= set("-=.") and len(text) >= 4 for text in drawn)
    width, height = page.bounds
    assert width >= 400 - 1 and height >= 8 * style.em


def test_a_run_of_fewer_than_four_is_not_drawn(style):
    pen = style.pen()
    page = build_page([Ends("Milk", "1.20", pen, pen, ".")], style)
    page_narrow = build_page([Rule("-", pen)], style, pen.width("---") + 0.5)
    assert [op.text for op in page_narrow.texts] == []
    assert all(op.counts or len(op.text) >= 4 for op in page.texts)


def test_glyphs_follow_the_text(style):
    pen = style.pen()
    page = build_page([Line("A b", pen)], style)
    glyphs = page.glyphs(10, 5)
    assert glyphs[:, 0].tolist() == [ord("A"), ord("b")]
    assert glyphs[0, 1] == 10 and glyphs[1, 3] == pytest.approx(10 + pen.width("A b"))
    baseline = page.texts[0].baseline + 5
    assert np.allclose(glyphs[:, 2], baseline - pen.ascent) and np.allclose(glyphs[:, 4], baseline + pen.descent)


def test_wrap_keeps_the_words(style):
    text = "one two three four five six seven eight nine ten"
    rows = wrap(text, style.pen(), 120)
    assert " ".join(rows) == text and len(rows) > 2
    assert all(style.pen().width(row) <= 120 for row in rows)
    assert wrap("", style.pen(), 100) == []


def test_long_words_are_divided_only_with_hyphens(style):
    text = "some characteristically incomprehensible sentences " * 3
    rows = wrap(text, style.pen(), 210, hyphens=True)
    assert any(row.endswith("-") for row in rows) and all(style.pen().width(row) <= 210 for row in rows)
    assert " ".join(rows).replace("- ", "") == text.strip()
    assert not any(row.endswith("-") for row in wrap(text, style.pen(), 210))


def test_a_justified_row_reads_as_one_and_reaches_both_ends(style):
    pen = style.pen()
    page = build_page(
        [Justified("to be or not", pen), Justified("a b", pen, 1.0)], style, pen.width("to be or not") + 9
    )
    assert page.rows() == ["to be or not", "a b"]
    words = page.texts[:4]
    assert words[0].x == 0 and words[3].x + pen.width("not") == pytest.approx(pen.width("to be or not") + 9)
    assert page.texts[-1].text == "a b" and page.texts[-1].x == style.em  # too loose to be spread


def test_spaced_letters_keep_their_text_and_widen_it(style):
    plain, wide = style.pen(), style.pen(spacing=0.25)
    assert wide.width("CAFE") == pytest.approx(plain.width("CAFE") + 4 * 0.25 * style.em)
    page = build_page([Line("CAFE", wide, underline=True)], style)
    assert page.rows() == ["CAFE"] and [shape.kind for shape in page.shapes] == ["line"]
    assert page.glyphs(0, 0)[-1, 3] == pytest.approx(wide.width("CAFE"))


def test_columns_and_logos_hold_their_texts(style):
    pen = style.pen()
    page = build_page([Columns(["Tue", "12:30", "Till 4"], pen), Logo("round", 2.0, "left", "Corner Shop", pen)], style)
    assert page.rows() == ["Tue 12:30 Till 4", "Corner Shop"]
    assert len(page.shapes) == 2
    side = page.shapes[0].box[2]
    assert page.texts[-1].x > side  # the sign covers no text


@pytest.mark.parametrize("form", ["cells", "flush", "leader", "inline", "underline"])
def test_fields_print_numbers_hints_and_values_on_two_rows(style, form):
    pen = style.pen()
    fields = [
        Field("Name", "Ann Lee", before="1. ", hint=" (in full)", lines=("Ann", "Lee")),
        Field("Fax", "", before="2. "),
    ]
    page = build_page([FieldRows(fields, 1, form, pen, pen, ":", INK, 0.0)], style, 400)
    assert page.rows() == ["1. Name (in full): Ann", "Lee", "2. Fax:"]


def test_text_stands_beside_a_photograph_and_inside_touching_boxes(style):
    pen = style.pen()
    page = build_page([WithPhoto([Line("Ann Lee", pen), Line("Clerk", pen)], 4.0)], style)
    photo = next(shape for shape in page.shapes if shape.kind == "frame").box
    assert page.rows() == ["Ann Lee", "Clerk"] and all(op.x >= photo[2] for op in page.texts)
    fields = [Field("Name", "Ann"), Field("Age", "7"), Field("Town", "Bath")]
    boxes = FieldRows(fields, 2, "boxed", pen, pen, "", INK, 0.5, enclosed=True)
    page = build_page([boxes], style, 400)
    assert page.rows() == ["Name Age", "Ann 7", "Town", "Bath"]
    first, second, third = (shape.box for shape in page.shapes)
    assert first[2] == pytest.approx(second[0]) and first[3] == pytest.approx(third[1])


def test_view_scale_matches_the_grids():
    assert view_scale(192, 192) == 1.0
    assert view_scale(1152, 1152) == 0.5
    assert view_scale(96, 96) == 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_texts_overlap(kind, fonts):
    for seed in range(30):
        dice = Dice(np.random.default_rng(seed))
        _, page, job = documents._compose(kind, dice, fonts, (0.0, 0.5, 1.0)[seed % 3], 1.0)
        boxes = [
            (op.x, op.baseline - op.pen.ascent, op.x + op.pen.width(op.text), op.baseline + op.pen.descent)
            for op in page.texts
        ]
        slack = 1.5 + 0.06 * job.style.em  # tight line spacing lets descenders touch capitals
        for index, (x0, y0, x1, y1) in enumerate(boxes):
            for u0, v0, u1, v1 in boxes[:index]:
                across, down = min(x1, u1) - max(x0, u0), min(y1, v1) - max(y0, v0)
                assert across <= 0 or down <= slack, (seed, page.texts[index].text, Counter(page.rows()))
