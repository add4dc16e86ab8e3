"""How answers are compared: each scorer on right, wrong and malformed output."""

import numpy as np
import pytest

from mm.evaluation.captions import parse_caption, same_caption
from mm.evaluation.held_out_canvas import Question
from mm.evaluation.scoring import SCORERS, Mark, conclusion, overlap, parse_number, says_absent, table_cells


def mark(scorer, given, answer, **options):
    return SCORERS[scorer].score(given, Question("skill", "prompt", answer, scorer, **options))


RIGHT, WRONG = Mark(1, 1), Mark(0, 1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("The value is 12.5.", 12.5),
        ("1,250", 1250),
        ("1.250,5", 1250.5),
        ("1,250.5", 1250.5),
        ("1 250 000", 1_250_000),
        ("1'250", 1250),
        ("1.250", 1.25),
        ("0,5", 0.5),
        ("-3.5%", -3.5),
        ("−3", -3),
        ("$1,200.50", 1200.5),
        ("12k", 12_000),
        ("3.2 Mio", 3_200_000),
        ("12 kg", 12),
        ("", None),
        ("none", None),
        ("3 and 4", None),
        ("Milk: 30; Tea: 12", None),
        ("-", None),
    ],
)
def test_parse_number(text, number):
    assert parse_number(text) == (None if number is None else pytest.approx(number))


def test_text_takes_any_accepted_answer():
    assert mark("text", "Milk.", "milk") == RIGHT
    assert mark("text", "three", "3", accept=("three",)) == RIGHT
    assert mark("text", "four", "3", accept=("three",)) == WRONG
    assert mark("amount", "$12.40", "12.40") == RIGHT
    assert mark("text", "$12.40", "12.40") == WRONG


@pytest.mark.parametrize(
    ("given", "tolerance", "right"),
    [
        ("100", 0, True),
        ("105", 5, True),
        ("95.0", 5, True),
        ("106", 5, False),
        ("about 103", 5, True),
        ("$100", 0, True),
        ("100 or 101", 5, False),
        ("The image does not show that.", 5, False),
        ("", 5, False),
    ],
)
def test_number_within_a_tolerance(given, tolerance, right):
    assert mark("number", given, "100", tolerance=tolerance) == (RIGHT if right else WRONG)


def test_a_tolerance_is_met_exactly():
    assert mark("number", "0.3", "0.1", tolerance=0.2) == RIGHT


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("Tea, Milk, Cocoa", True),
        ("milk; tea; cocoa", True),
        ("Cocoa\nMilk\nTea", True),
        ("Tea, Milk and Cocoa", True),
        ("Tea, Milk", False),
        ("Tea, Milk, Cocoa, Cocoa", False),
        ("Tea Milk Cocoa", False),
        ("", False),
    ],
)
def test_set_of_labels(given, right):
    assert mark("set", given, "Tea, Milk, Cocoa") == (RIGHT if right else WRONG)


def test_a_label_may_hold_the_word_and():
    assert mark("set", "Salt and pepper, Tea", "Tea, Salt and pepper") == RIGHT


@pytest.mark.parametrize(
    ("given", "answer", "tolerance", "right"),
    [
        ("Tea: 12; Milk: 30\nHighest: Milk (30)", "Milk", 0, True),
        ("Milk", "Milk", 0, True),
        ("Tea: 12; Milk: 30\nHighest: Tea (30)", "Milk", 0, False),
        ("Tea: 12; Milk: 30", "Milk", 0, False),
        ("a\nHighest: Feb, Milk (30)", "Feb, Milk", 0, True),
        ("a\nLowest: Phase (2)", "Phase (2)", 0, True),
        ("a\nLowest: Phase (2) (13)", "Phase (2)", 0, True),
        ("a\nLowest: Phase (3)", "Phase (2)", 0, False),
        ("Milk: 30; Tea: 12\nDifference: 30 - 12 = 18", "18", 0, True),
        ("Milk: 30; Tea: 12\nDifference: 30 - 12 = 18 \n", "18", 0, True),
        ("Difference: $30 - $12 = $18", "18", 0, True),
        ("Difference: 30 - 12 = 19", "18", 2, True),
        ("Difference: 30 - 12 = 21", "18", 2, False),
        ("Difference: 30 - 12 =", "18", 2, False),
        ("", "Milk", 0, False),
    ],
)
def test_conclusion(given, answer, tolerance, right):
    assert mark("conclusion", given, answer, tolerance=tolerance) == (RIGHT if right else WRONG)


def test_conclusion_of_one_line():
    assert conclusion("Total: 12") == "12"
    assert conclusion("  \n ") == ""


@pytest.mark.parametrize(
    "text",
    [
        "The image does not show that.",
        "This cannot be answered from the picture.",
        "It isn't printed on the receipt",
        "I can't see a date.",
        "No such item.",
        "There is no phone number.",
        "There's no tip on it",
        "not visible",
        "Not given",
        "The picture has no date",
        "Unknown",
        "The receipt doesn’t say.",
        "The form does not contain that field.",
        "It is impossible to tell",
    ],
)
def test_says_absent(text):
    assert says_absent(text)
    assert mark("absent", text, "The image does not show that.") == RIGHT


@pytest.mark.parametrize(
    "text",
    [
        "12.40",
        "No. 5",
        "No",
        "",
        "Nottingham Road",
        "Knot 12",
        "There are three",
        "The image shows that.",
        "Yes, it is printed",
        "Notice: closed",
        "canned soup",
        "x" * 150 + " it is not shown " + "x" * 150,
    ],
)
def test_does_not_say_absent(text):
    assert not says_absent(text)


CAPTION = "Two red circles left of a small blue star on a yellow background."


@pytest.mark.parametrize(
    ("given", "right"),
    [
        (CAPTION, True),
        ("2 red circles left of 1 small blue star on a yellow background", True),
        ("A small blue star to the right of two red circles on a yellow background.", True),
        ("Two red circles and a small blue star from left to right on a yellow background.", True),
        ("Two red circles left of a blue star on a yellow background.", False),
        ("Three red circles left of a small blue star on a yellow background.", False),
        ("Two red circles above a small blue star on a yellow background.", False),
        ("A small blue star left of two red circles on a yellow background.", False),
        ("Two red circles left of a small blue star on a white background.", False),
        ("Two red circles left of a small blue star.", False),
        ("Two red circle left of a small blue star on a yellow background.", False),
        ("Two red circles and a small blue star on a yellow background.", False),
        ("Two red circles left of a small blue star left of a pink heart on a yellow background.", False),
        ("The image does not show that.", False),
        ("", False),
    ],
)
def test_captions_are_compared_by_their_claims(given, right):
    assert mark("caption", given, CAPTION) == (RIGHT if right else WRONG)


def test_places_of_captions():
    wanted = "A red cross at the top left of a gray background."
    assert same_caption("A red cross in the top-left of a grey background", wanted)
    assert not same_caption("A red cross at the top of a gray background.", wanted)
    assert not same_caption("A red cross at the left of a gray background.", wanted)
    centre = parse_caption("A large pink heart in the middle of a black background.")
    assert centre is not None and centre.place == "center"
    assert parse_caption("Six crosses on a black background.") is None
    with pytest.raises(ValueError, match="'Nothing to see.' is not a caption of the grammar"):
        same_caption("A red cross", "Nothing to see.")


def boxes(*found):
    return f"<|ref|>x<|/ref|><|det|>{[list(box) for box in found]}<|/det|>"


def test_boxes_are_right_from_an_overlap_of_one_half():
    wanted = boxes((100, 100, 300, 200))
    assert mark("boxes", wanted, wanted) == RIGHT
    assert mark("boxes", boxes((100, 100, 300, 150)), wanted) == RIGHT
    assert mark("boxes", boxes((100, 100, 300, 149)), wanted) == WRONG
    assert mark("boxes", boxes((100, 100, 300, 200), (400, 400, 500, 500)), wanted) == WRONG
    assert mark("boxes", boxes((100, 100, 100, 100)), wanted) == WRONG


def test_each_box_needs_its_own():
    wanted = boxes((0, 0, 100, 100), (200, 0, 300, 100))
    assert mark("boxes", boxes((200, 0, 300, 100), (0, 0, 100, 100)), wanted) == RIGHT
    assert mark("boxes", boxes((0, 0, 100, 100), (0, 0, 100, 100)), wanted) == WRONG
    assert mark("boxes", boxes((0, 0, 100, 100)), wanted) == WRONG


@pytest.mark.parametrize(
    "given",
    [
        "",
        "The image does not show that.",
        "<|det|>[[1, 2, 3]]<|/det|>",
        "<|ref|>x<|/ref|><|det|>[[0, 0, 100, 100]",
        "<|ref|>x<|/ref|><|det|>[[0, 0, 100, 100], [1, 2]]<|/det|>",
        "[[0, 0, 100, 100]]",
    ],
)
def test_malformed_boxes_are_wrong(given):
    assert mark("boxes", given, boxes((0, 0, 100, 100))) == WRONG


def test_overlap_of_boxes():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0


TABLE = "| Label | A | B |\n| --- | --- | --- |\n| Tea | 1 | 2 |\n| Milk | 3 | 4.5 |"


@pytest.mark.parametrize(
    ("given", "points", "of"),
    [
        (TABLE, 4, 4),
        ("Label | A | B\n:--|--:|:-:\nMilk | 3 | 4.5\nTea | 1 | 2", 4, 4),
        ("| Label | A | B |\n| --- | --- | --- |\n| Tea | 1 | 2 |", 2, 4),
        ("| Label | A | B |\n| --- | --- | --- |\n| Tee | 1 | 2 |\n| Milk | 3 | 4 |", 3, 4),
        ("| Label | A | B |\n| --- | --- | --- |\n| Tee | 1 | 2 |", 0, 4),
        ("| Label | A | B |\n|---|---|---|\n| Tea | 1 | 2 |\n| Milk | 3 | 4.5 |\n| Ink | 5 | 6 |", 4, 6),
        ("| Label | A |\n| --- | --- |\n| Tea | 1 |\n| Milk | 3 |", 2, 4),
        ("| Tea | 1 | 2 |", 0, 4),
        ("The image does not show that.", 0, 4),
        ("|", 0, 4),
        ("| |\n| |\n| |", 0, 4),
    ],
)
def test_share_of_right_cells(given, points, of):
    assert mark("table", given, TABLE) == Mark(points, of)


def test_cells_within_a_tolerance():
    near = TABLE.replace("4.5", "5").replace("| 1 |", "| 9 |")
    assert mark("table", near, TABLE, tolerance=0.5) == Mark(3, 4)


def test_table_cells_unescape_bars():
    assert table_cells("text\n| a\\|b | c |\n|---|---|") == [["a|b", "c"]]


def test_transcription_counts_edits():
    assert mark("transcription", "Total 12", "Total 13") == Mark(1, 8)
    assert SCORERS["transcription"].measure == "errors"


def test_what_training_teaches_to_write_is_understood():
    """Scorers and training state the forms of answers apart from each other; here they are compared."""
    from mm.synthetic.dice import Dice
    from mm.synthetic.sample import ABSENT_ANSWER
    from mm.synthetic.scene_layout import draw_scene

    assert says_absent(ABSENT_ANSWER)
    dice = Dice(np.random.default_rng(3))
    for _ in range(100):
        scene = draw_scene(dice, (192, 192), 1.0)
        claim = parse_caption(scene.caption())
        assert claim is not None
        wanted = tuple((group.count, group.size, group.colour, group.shape) for group in scene.groups)
        place = scene.place.removeprefix("at the ").removeprefix("in the ")
        assert (claim.groups, claim.layout, claim.place) == (wanted, scene.layout, place)
        assert claim.background == scene.background


def test_conclusions_of_training_are_understood():
    from mm.synthetic.chart_questions import final_answer

    for text, label in (
        ("Tea: 12; Milk: 30\nHighest: Milk (30)", "Milk"),
        ("Milk: 30; Tea: 12\nDifference: 30 - 12 = 18", "18"),
        ("Jan: 12 / 3; Feb: 5 / 30\nHighest: Feb, Milk (30)", "Feb, Milk"),
        ("Milk: 30; Tea: 12\nHigher: Milk (30)", "Milk"),
    ):
        assert mark("conclusion", text, label) == RIGHT
        assert mark("conclusion", final_answer(text), label) == RIGHT
