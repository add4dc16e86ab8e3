"""Boxes of printed text: around the ink, of the text that was asked for, and none for what is not there."""

import re

import numpy as np
import pytest

from mm.errors import OptionError
from mm.grounding import parse_boxes
from mm.synthetic import ground
from mm.synthetic.chart_canvas import Canvas
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.ground_ink import Box, find_glyphs, find_in_row, find_text, ink_box
from mm.synthetic.render import RENDERERS, render
from mm.synthetic.sample import ABSENT_ANSWER, Sample

SIZE = (300, 100)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def ink_of(image: np.ndarray, box: Box, reach: float) -> Box:
    """The box around the dark pixels of a grey picture in and just around ``box``."""
    x0, y0, x1, y1 = (round(value) for value in (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach))
    dark = image[max(0, y0) : y1, max(0, x0) : x1] < 160
    rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
    left, top = max(0, x0), max(0, y0)
    return (left + columns.min(), top + rows.min(), left + columns.max() + 1.0, top + rows.max() + 1.0)


def test_every_kind_is_registered() -> None:
    assert set(ground.KINDS) <= set(RENDERERS.names())


def test_text_is_found_where_it_stands(fonts: FontSet) -> None:
    pen = fonts.pen(fonts.faces[0].regular, 20)
    canvas = Canvas(*SIZE, (255, 255, 255), 1)
    canvas.text(10, 40, "Total 12.50", pen, (0, 0, 0))
    canvas.text(10, 80, "Total 99", pen, (0, 0, 0))
    glyphs = canvas.glyphs()
    box = find_text(glyphs, "12.50")
    assert box is not None
    assert box[0] == pytest.approx(10 + pen.width("Total "), abs=2)
    assert box[2] == pytest.approx(10 + pen.width("Total 12.50"), abs=2)
    assert 40 - pen.ascent <= box[1] < box[3] <= 42
    assert find_text(glyphs, "Total") is None  # twice
    assert find_text(glyphs, "absent") is None
    assert find_text(glyphs, "50 Total") is None  # on two lines
    assert find_text(glyphs, "") is None
    assert find_text(glyphs, "x" * 40) is None


def test_an_amount_in_two_rows_is_found_in_the_row_of_its_label(fonts: FontSet) -> None:
    pen = fonts.pen(fonts.faces[0].regular, 16)
    canvas = Canvas(300, 130, (255, 255, 255), 1)
    rows = ["Tea 4.50", "Subtotal 4.50", "Total 4.50", "Cash 5.00"]
    for index, row in enumerate(rows):
        canvas.text(10, 30 * (index + 1), row, pen, (0, 0, 0))
    image, glyphs = canvas.picture(), canvas.glyphs()
    fields = {"total": "4.50", "price of Tea": "4.50", "cash": "5.00", "change": "0.50"}
    boxes = ground.field_boxes(Sample(image, (), glyphs, "\n".join(rows), fields, "receipt"))
    assert {name: round((box[3] + 5) / 30) for name, box in boxes.items()} == {"total": 3, "price of Tea": 1, "cash": 4}
    assert find_in_row(glyphs, rows, "5.00", 0) is None  # not in that row
    assert find_in_row(glyphs, ["Total", "Total"], "4.50", 0) is None  # the glyphs are of another page


@pytest.mark.parametrize("text", ["12.50", "sun", "page", "Total", "HELLO", "$4.99", "(3)", "May 4, 2024", "oxen nor"])
def test_boxes_are_around_the_ink(text: str, fonts: FontSet) -> None:
    overlaps = []
    for face in fonts.faces[:12]:
        pen = fonts.pen(face.regular, 26)
        canvas = Canvas(*SIZE, (255, 255, 255), 1)
        canvas.text(20, 60, text, pen, (0, 0, 0))
        ink = ink_of(np.asarray(canvas.picture().convert("L")), (0, 0, *SIZE), 0)
        overlaps.append(overlap(ink_box(canvas.glyphs()), ink))
    assert min(overlaps) > 0.66 and np.mean(overlaps) > 0.8, overlaps


@pytest.mark.parametrize("angle", [45, 90])
def test_turned_text_has_no_box(angle: int, fonts: FontSet) -> None:
    canvas = Canvas(200, 200, (255, 255, 255), 1)
    canvas.text(100, 100, "Label", fonts.pen(fonts.faces[0].regular, 16), (0, 0, 0), angle=angle)
    assert find_glyphs(canvas.glyphs(), "Label") is None


@pytest.mark.parametrize("kind", ground.KINDS)
def test_answers_are_the_boxes_of_what_was_asked_for(kind: str, fonts: FontSet) -> None:
    found, read = [], 0
    for seed in range(25):
        sample = render(kind, np.random.default_rng(seed), fonts, 0.0)
        grey = np.asarray(sample.image.convert("L")).astype(int)
        clear = np.median(grey) > 230
        for turn in sample.turns:
            assert not re.search(r"\{(query|\d*)\}", turn.question) and "None" not in turn.question
            asked = parse_boxes(turn.question, [sample.image.size])
            if any(box.valid for box in asked):  # "what is written there?": the box holds just that text
                read += 1
                place = asked[0].xyxy
                texts = [find_text(sample.glyphs, turn.answer), *ground.field_boxes(sample).values()]
                assert place is not None and max(overlap(place, text) for text in texts if text is not None) > 0.7, turn
            for box in parse_boxes(turn.answer, [sample.image.size]):
                assert box.valid and box.xyxy is not None, turn
                assert box.label in turn.question
                height = box.xyxy[3] - box.xyxy[1]
                if clear and height > 6:
                    found.append(overlap(box.xyxy, ink_of(grey, box.xyxy, 1)))
    assert len(found) >= 20 and np.mean(np.array(found) > 0.5) > 0.9, np.sort(found)[:20]
    assert read >= 3


def test_absent_things_are_absent(fonts: FontSet) -> None:
    absent = total = 0
    for seed in range(160):
        sample = render(ground.KINDS[seed % len(ground.KINDS)], np.random.default_rng(seed), fonts, 0.5)
        total += 1
        known = f"{' '.join(sample.fields)} {sample.text}".lower()
        for turn in sample.turns:
            if turn.answer == ABSENT_ANSWER and "<|ref|>" in turn.question:
                absent += 1
                words = re.sub(r"<\|/?ref\|>", " ", turn.question).lower()
                name = re.sub(r"^(find|where is|locate)|\b(the|word|price of|value of)\b|[\".?]", " ", words).split()
                known_names = [word for word in name if word not in ("of", "number") and word in known]
                assert not known_names, (turn, sample.text)
    assert 0.07 * total < absent < 0.24 * total


def test_a_quoted_label_is_not_the_field(fonts: FontSet) -> None:
    """Without quotes a field's name asks for its value."""
    seen = 0
    for seed in range(120):
        sample = render("form_ground", np.random.default_rng(seed), fonts, 0.3)
        for turn in sample.turns:
            for box in parse_boxes(turn.answer, [sample.image.size]):
                if box.label in sample.fields and box.xyxy is not None:
                    value = ground.field_boxes(sample)[box.label]
                    assert overlap(box.xyxy, value) > 0.7, (turn, sample.fields)
                    seen += 1
    assert seen > 30


def test_equal_draws_give_equal_samples(fonts: FontSet) -> None:
    for kind in ground.KINDS:
        one, other = (render(kind, np.random.default_rng(3), fonts, 1.0) for _ in range(2))
        assert one.image.tobytes() == other.image.tobytes() and one.turns == other.turns


def test_boxes_are_written_as_published() -> None:
    answer = ground.ground_answer("the star", [(100.0, 50.0, 200.0, 100.0), (0.0, 0.0, 50.0, 50.0)], (200, 100))
    assert answer == "<|ref|>the star<|/ref|><|det|>[[0, 0, 250, 500], [500, 500, 999, 999]]<|/det|>"
    turn = ground.ground_turn(Dice(np.random.default_rng(0)), "the star", [], (200, 100))
    assert turn.answer == ABSENT_ANSWER and "the star" in turn.question


def test_unknown_kinds_are_refused(fonts: FontSet) -> None:
    with pytest.raises(OptionError, match=r"Unknown kind 'x' of a document with boxes. Known kinds: receipt_ground"):
        ground.render("x", np.random.default_rng(0), fonts)


def test_boxes_that_stand_one_below_the_other_are_read_from_top_to_bottom() -> None:
    left = [(10.0, 60.0, 30.0, 80.0), (11.0, 20.0, 31.0, 40.0), (9.0, 100.0, 29.0, 120.0)]
    right = [(50.0, 70.0, 70.0, 90.0), (58.0, 30.0, 78.0, 50.0)]
    assert ground.in_columns([*right, *left]) == [left[1], left[0], left[2], right[1], right[0]]
    apart = [(80.0, 0.0, 90.0, 10.0), (0.0, 50.0, 10.0, 60.0), (40.0, 90.0, 50.0, 99.0)]
    assert ground.in_columns(apart) == sorted(apart)
    assert ground.in_columns([]) == []
