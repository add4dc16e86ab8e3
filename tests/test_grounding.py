"""Boxes in answers: what users reported, random damage, drawing."""

import random
import re
import time

import numpy as np
import pytest
from PIL import Image

from mm.grounding import COORDINATE_MAX, Box, draw_boxes, parse_boxes

SIZES = [(640, 480)]


def answer(coordinates: str, label: str = "cat") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>{coordinates}<|/det|>"


def test_a_box_is_scaled_by_999_to_the_far_edge() -> None:
    (box,) = parse_boxes(answer("[[0, 333, 999, 666]]") + "<｜end▁of▁sentence｜>", SIZES)
    assert box == Box("cat", (0.0, 160.0, 640.0, 320.0), (0, 333, 999, 666), 0, True, "", "[0, 333, 999, 666]")


def test_several_boxes_share_a_label_and_keep_their_order() -> None:
    text = answer("[[1, 2, 3, 4], [5,6,7,8]]") + " and " + answer("[[9, 10, 11, 12]]", "a dog ")
    boxes = parse_boxes(text, SIZES)
    assert [(b.label, b.normalized) for b in boxes] == [
        ("cat", (1, 2, 3, 4)),
        ("cat", (5, 6, 7, 8)),
        ("a dog", (9, 10, 11, 12)),
    ]
    assert all(b.valid for b in boxes)


def test_two_lists_in_a_row_share_a_label_but_text_between_them_ends_it() -> None:
    one = "<|det|>[[1, 2, 3, 4]]<|/det|>"
    assert [b.label for b in parse_boxes(f"<|ref|>cat<|/ref|>{one} {one}", SIZES)] == ["cat", "cat"]
    assert [b.label for b in parse_boxes(f"<|ref|>cat<|/ref|>{one}, also {one}", SIZES)] == ["cat", ""]


@pytest.mark.parametrize("text", ["", "no boxes", "<|ref|>the tower<|/ref|> in both.", "<|/det|>[[1,2,3,4]]", "]]"])
def test_text_without_a_list_gives_no_box(text: str) -> None:
    assert parse_boxes(text, SIZES) == []


# Strings that users of the published models reported (DeepSeek-VL2 issues 33, 64, 94, 96, 100, 121, 123), with what is
# wrong with each box in them ("" for a valid one).
REPORTED = [
    (answer("[[470,]]"), ["1 numbers where 4 are needed"]),
    (answer("[[2, 311, 99999, 98]]"), ["'99999' is not an integer in 0..999"]),
    (answer("[[0, 460, 891, 9999]]"), ["'9999' is not an integer in 0..999"]),
    (answer("[[0, 5329, 5310, 9, 99999]]"), ["5 numbers where 4 are needed"]),
    (answer("[[0, 50, 55, 9999], [0, 5, 533, 17]]"), ["'9999' is not an integer in 0..999", ""]),
    (
        "<|ref|>head<|/ref|><|det|>[[0, 50, 55, 999], [0, 5, 533, 17, " + "9" * 6000,
        ["not closed", "is not clo"],
    ),
    (answer("[[" + "9" * 6000 + ", 1, 2, 3]]"), [r"'9{20}\.\.\.' is not an integer in 0..999"]),
    (answer("[[533, 132, 457]]"), ["3 numbers where 4 are needed"]),
    (answer("[533, 132, 457]"), ["not of the form"]),
    (answer("[245,[234,543,542,244]]"), ["not of the form"]),
    (answer("[580, 270, 999, [904]"), ["not of the form"]),
    (answer("[[580, 270, 999, [904]]"), ["nested deeper"]),
    (
        "<|ref|>mazdaughters<|/ref|><|det|>[[220, <|ref|>compact car<|/ref|><|det|>[[220, 416, 417, 720]]<|/det|>",
        ["a bracket is not closed", ""],
    ),
    (answer("[[0.1, 0.25, 0.5, 0.9]]"), ["'0.1' is not an integer"]),
    ("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4]]", ["not closed by <|/det|>"]),
    ("<|ref|>cat<|/ref|><|det|>[[1, 2, 3", ["a bracket is not closed"]),
    ("<|ref|>cat<|/ref|><|det|>", ["the list is empty"]),
    (answer(""), ["the list is empty"]),
    (answer("[]"), ["holds no"]),
    (answer("[[]]"), ["0 numbers where 4 are needed"]),
    (answer("[[[1, 2, 3, 4]]]"), ["nested deeper"]),
    (answer("[[1, 2, 3, 4]]]"), ["", "text follows"]),
    (answer("[[1, 2, 3, 4] [5, 6, 7, 8]]"), ["", "no comma"]),
    (answer("1, 2, 3, 4"), ["not of the form"]),
    (answer("[[1, 2, 3, 4]] cat"), ["", "text follows"]),
    (answer("[[-1, 2, 3, 4]]"), ["'-1' is not an integer"]),
    (answer("[[1, 2, 3, 1e2]]"), ["'1e2' is not an integer"]),
    (answer("[[٣, 2, 3, 4]]"), ["is not an integer"]),
    (answer("[[300, 2, 3, 4]]"), [r"corners \(300, 2\) and \(3, 4\) are not in order"]),
    (answer("[[__import__('os').system('true'), 2, 3, 4]]"), ["is not an integer"]),
    (answer("(lambda: 1)()"), ["not of the form"]),
]


@pytest.mark.parametrize(("text", "reasons"), REPORTED)
def test_reported_strings_become_boxes_that_say_what_is_wrong(text: str, reasons: list[str]) -> None:
    boxes = parse_boxes(text, SIZES)
    assert len(boxes) == len(reasons), boxes
    for box, reason in zip(boxes, reasons, strict=True):
        assert box.valid == (reason == "")
        if reason:
            assert re.search(reason, box.reason), box.reason
            assert box.xyxy is None and box.normalized is None


def test_no_image_means_no_valid_box() -> None:
    (box,) = parse_boxes(answer("[[1, 2, 3, 4]]"), [])
    assert (box.valid, box.image_index, box.reason) == (False, -1, "the conversation has no image")


TWO = [(100, 50), (999, 999), (10, 20)]
ONE_BOX = "<|ref|>cat<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>"


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        (ONE_BOX, [2]),  # the last image, as the official code
        ("In image_1: " + ONE_BOX, [0]),
        ("Image 2 shows " + ONE_BOX + ", " + ONE_BOX + "; image #1 shows " + ONE_BOX, [1, 1, 0]),
        ("<|ref|>the cat of image_2<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>", [1]),
        ("image_7 or image_0: " + ONE_BOX, [2]),  # no such images
        ("my image2text tool, imagery 1: " + ONE_BOX, [2]),
    ],
)
def test_the_image_is_the_last_one_unless_the_text_names_another(text: str, indices: list[int]) -> None:
    boxes = parse_boxes(text, TWO)
    assert [b.image_index for b in boxes] == indices
    for box in boxes:
        assert box.xyxy == (0.0, 0.0, *map(float, TWO[box.image_index]))


def test_random_damage_never_raises_and_what_is_valid_is_in_range() -> None:
    rng = random.Random(7)
    pieces = [
        "<|ref|>",
        "<|/ref|>",
        "<|det|>",
        "<|/det|>",
        "[",
        "]",
        "[[",
        "]]",
        ",",
        ", ",
        " ",
        "\n",
        "cat",
        "image_2",
    ]
    pieces += [
        "0",
        "7",
        "42",
        "999",
        "1000",
        "99999",
        "-3",
        "0.5",
        "٣",
        "\x00",
        "𝟗",
        "[[1, 2, 3, 4]]",
        "'",
        "�",
        "None",
    ]
    whole = answer("[[10, 20, 300, 400], [1, 2, 3, 4]]") * 2
    valid = 0
    for _ in range(4000):
        if rng.random() < 0.5:
            text = "".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
        else:
            letters = list(whole)
            for _ in range(rng.randrange(6)):
                place = rng.randrange(len(letters))
                letters[place : place + rng.randrange(3)] = rng.choice(pieces)
            text = "".join(letters)
        for box in parse_boxes(text, TWO[: rng.randrange(4)]):
            valid += box.valid
            assert box.valid == (box.xyxy is not None) == (box.normalized is not None) == (box.reason == "")
            if box.normalized is not None and box.xyxy is not None:
                x1, y1, x2, y2 = box.normalized
                assert 0 <= x1 <= x2 <= COORDINATE_MAX and 0 <= y1 <= y2 <= COORDINATE_MAX
                width, height = TWO[box.image_index]
                assert 0 <= box.xyxy[0] <= box.xyxy[2] <= width and 0 <= box.xyxy[1] <= box.xyxy[3] <= height
    assert valid > 1000  # the damage leaves enough whole boxes for the checks above to mean something


@pytest.mark.parametrize("piece", ["[", "[[", "]", "<|det|>", "<|ref|>", "[[1,", "image_", "9", " "])
def test_long_answers_are_read_in_linear_time(piece: str) -> None:
    start = time.process_time()  # of this process only: other work on the machine does not count
    parse_boxes("<|det|>" + piece * 100_000, TWO)
    assert time.process_time() - start < 2.0


def boxes_for(size: tuple[int, int], label: str = "cat") -> list[Box]:
    return parse_boxes(answer("[[100, 100, 800, 800]]", label) + answer("[[470,]]"), [size])


def test_drawing_leaves_the_input_alone_and_marks_the_box() -> None:
    image = Image.new("RGB", (400, 300), "white")
    drawn = draw_boxes(image, boxes_for(image.size))
    assert np.asarray(image).min() == 255
    assert drawn.size == image.size and drawn.mode == "RGB"
    pixels = np.asarray(drawn)
    assert tuple(pixels[150, 40]) == (214, 39, 40)  # left edge at 100 / 999 * 400
    assert tuple(pixels[150, 200]) == (255, 255, 255)  # nothing inside
    label = pixels[10:30, 40:120]
    assert (label == 255).all(axis=-1).sum() > 20  # white letters ...
    assert (label == (214, 39, 40)).all(axis=-1).sum() > 100  # ... on the colour of the box


def test_each_label_has_its_colour_and_only_the_asked_image_is_drawn() -> None:
    text = "image 1 " + answer("[[0, 500, 400, 999]]") + answer("[[500, 500, 900, 999]]", "dog") + "image 2 "
    boxes = parse_boxes(text + answer("[[0, 0, 999, 999]]"), [(300, 300), (300, 300)])
    drawn = np.asarray(draw_boxes(Image.new("RGB", (300, 300)), boxes, image_index=0))
    assert tuple(drawn[200, 0]) == (214, 39, 40) and tuple(drawn[250, 150]) == (31, 119, 180)
    assert tuple(drawn[20, 0]) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("size", [(1, 1), (2, 30), (30, 2), (8, 8), (37, 911), (3, 2000)])
def test_every_mode_and_tiny_images_can_be_drawn_on(mode: str, size: tuple[int, int]) -> None:
    drawn = draw_boxes(Image.new(mode, size), boxes_for(size, "a label longer than the image is wide"))
    assert drawn.size == size and drawn.mode == "RGB"


@pytest.mark.parametrize("label", ["", "猫", "\n\t\x00\u202e", "a" * 5000, "\ud800", "🐈" * 30])
def test_any_label_can_be_drawn(label: str) -> None:
    image = Image.new("RGB", (64, 64))
    drawn = draw_boxes(image, boxes_for(image.size, label))
    assert np.asarray(drawn).any()
