"""Scenes and boxes: captions and answers recomputed from the scene and the picture."""

import re

import numpy as np
import pytest

from mm.errors import OptionError
from mm.grounding import parse_boxes
from mm.synthetic import scenes
from mm.synthetic.chart_canvas import Canvas
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.render import render
from mm.synthetic.sample import ABSENT_ANSWER
from mm.synthetic.scene_layout import NUMBERS, PLACES, Scene, draw_scene, paint
from mm.synthetic.scene_questions import scene_turns
from mm.synthetic.shapes import COLOURS, SHAPES, draw_shape, shape_box

CAPTION = re.compile(
    rf"^(?P<groups>.+?)(?P<end> from left to right on| from top to bottom on| (?:{'|'.join(PLACES.values())}) of| on) "
    r"an? (?P<background>\w+) background\.$"
)
GROUP = re.compile(
    rf"^(an?|{'|'.join(NUMBERS[2:])}) (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?$"
)


def scene_of(seed: int) -> Scene:
    return draw_scene(Dice(np.random.default_rng(seed)), (192, 192), 1.0)


def test_captions_follow_the_grammar_and_name_everything() -> None:
    sizes = set()
    for seed in range(200):
        scene = scene_of(seed)
        match = CAPTION.match(scene.caption())
        assert match is not None, scene.caption()
        assert match["background"] == scene.background
        parts = re.split(r" left of | above |, | and ", match["groups"][0].lower() + match["groups"][1:])
        groups = [GROUP.match(part) for part in parts]
        assert len(groups) == len(scene.groups)
        for found, group in zip(groups, scene.groups, strict=True):
            assert found is not None, scene.caption()
            count = 1 if found[1] in ("a", "an") else NUMBERS.index(found[1])
            assert (count, found[2] or "", found[3], found[4]) == (group.count, group.size, group.colour, group.shape)
        sizes.add((len(groups), scene.layout))
    assert sizes == {(1, ""), (2, "row"), (2, "column"), (3, "row"), (3, "column")}


def test_groups_stand_in_the_order_of_the_caption() -> None:
    for seed in range(150):
        scene = scene_of(seed)
        for one, other in zip(scene.groups, scene.groups[1:], strict=False):
            axis = 0 if scene.layout == "row" else 1
            assert max(box[axis + 2] for box in one.boxes) <= min(box[axis] for box in other.boxes)


def test_objects_are_where_their_boxes_are() -> None:
    for seed in range(60):
        scene = scene_of(seed)
        pixels = np.asarray(paint(scene, (192, 192), Dice(np.random.default_rng(seed)))).astype(int)
        names = list(COLOURS)
        distances = np.stack([np.abs(pixels - np.array(COLOURS[name])).sum(axis=-1) for name in names])
        nearest = distances.argmin(axis=0)  # (H, W)
        for group in scene.groups:
            assert len(group.boxes) == group.count
            for x0, y0, x1, y1 in group.boxes:
                assert 0 <= x0 < x1 <= 192 and 0 <= y0 < y1 <= 192
                assert names[nearest[round((y0 + y1) / 2), round((x0 + x1) / 2)]] == group.colour
        inside = np.zeros((192, 192), bool)
        for group in scene.groups:
            for x0, y0, x1, y1 in group.boxes:
                inside[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2] = True
        assert (nearest[~inside] == names.index(scene.background)).all()


def test_single_objects_are_in_the_named_third() -> None:
    for seed in range(200):
        scene = scene_of(seed)
        if scene.place:
            x0, y0, x1, y1 = scene.groups[0].boxes[0]
            column, row = next(cell for cell, name in PLACES.items() if name == scene.place)
            limit = 0.06 if scene.groups[0].size == "large" else 1e-6  # a large one is moved off the edge
            assert column / 3 - limit <= (x0 + x1) / 2 / 192 <= (column + 1) / 3 + limit
            assert row / 3 - limit <= (y0 + y1) / 2 / 192 <= (row + 1) / 3 + limit


def test_counts_and_colours_are_right() -> None:
    seen = 0
    for seed in range(200):
        scene = scene_of(seed)
        for turn in scene_turns(scene, Dice(np.random.default_rng(seed))):
            count = re.match(
                r"(?:How many|Count the) (?:(\w+) )?(\w+?)(?:e?s)?(?: are there\?| do you see\?|\.)$", turn.question
            )
            colour = re.match(r"Wh.* colou?r.* the (\w+?)(?:e?s)?(?: have)?\?$", turn.question)
            if count is not None and count[2] in SHAPES:
                groups = [g for g in scene.groups if g.shape == count[2] and count[1] in (None, g.colour)]
                assert turn.answer == str(sum(g.count for g in groups)), turn
                seen += 1
            elif colour is not None and colour[1] in SHAPES:
                found = [g.colour for g in scene.groups if g.shape == colour[1]]
                assert turn.answer == (found[0] if found else ABSENT_ANSWER), turn
                seen += 1
            elif turn.question.startswith(("Is there a", "Do you see a")):
                words = turn.question.rstrip("?").removesuffix(" in the picture").split()
                there = any((g.colour, g.shape) == (words[-2], words[-1]) for g in scene.groups)
                assert turn.answer == ("Yes" if there else "No"), turn
                seen += 1
    assert seen > 150


def test_every_question_can_be_asked_first(fonts: FontSet) -> None:
    first = [render("scene", np.random.default_rng(seed), fonts, 1.0).turns[0] for seed in range(100)]
    captions = sum(turn.answer.endswith("background.") for turn in first)
    assert 10 < captions < 60


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_equal_draws_give_equal_samples(kind: str, fonts: FontSet) -> None:
    for seed in range(4):
        one, other = (render(kind, np.random.default_rng(seed), fonts, 1.0) for _ in range(2))
        assert one.image.tobytes() == other.image.tobytes() and one.turns == other.turns


def test_boxes_of_a_scene_cover_its_objects(fonts: FontSet) -> None:
    for seed in range(40):
        sample = render("scene_ground", np.random.default_rng(seed), fonts, 0.0)
        pixels = np.asarray(sample.image).astype(int)
        for turn in sample.turns:
            for box in parse_boxes(turn.answer, [sample.image.size]):
                colour = next((name for name in COLOURS if name in box.label.split()), None)
                if colour is None or box.xyxy is None:
                    continue
                x0, y0, x1, y1 = box.xyxy
                middle = pixels[round((y0 + y1) / 2), round((x0 + x1) / 2)]
                assert np.abs(middle - np.array(COLOURS[colour])).max() <= 14


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box(shape: str) -> None:
    canvas = Canvas(100, 100, (255, 255, 255), 2)
    box = shape_box(shape, (50.0, 48.0), 30.0)
    draw_shape(canvas, shape, box, (0, 0, 0), None)
    dark = np.asarray(canvas.picture()).min(axis=-1) < 240
    rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(found, box, atol=1.6)


def test_unknown_kinds_are_refused(fonts: FontSet) -> None:
    with pytest.raises(OptionError, match=r"Unknown scene kind 'x'. Known kinds: scene, scene_ground\."):
        scenes.render("x", np.random.default_rng(0), fonts)
