"""Pictures and prompts for a model that draws."""

import re

import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.drawing_prompts import drawing_prompt
from mm.synthetic.drawing_scenes import MOST, SIDE, UNSEEN_PAIRS, draw_drawing, is_held_out, pair_number
from mm.synthetic.render import render
from mm.synthetic.scene_layout import NUMBERS, Group, Scene
from mm.synthetic.shapes import COLOURS, SHAPES


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    dice = Dice(np.random.default_rng(3))
    return [draw_drawing(dice) for _ in range(400)]


def test_scenes_are_what_training_may_see(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert not is_held_out(scene)
        assert UNSEEN_PAIRS.isdisjoint((group.colour, group.shape) for group in scene.groups)
        assert sum(group.count for group in scene.groups) <= MOST
        for group in scene.groups:
            assert group.count == len(group.boxes) and group.colour != scene.background
            for box in group.boxes:
                assert min(box) >= 0 and max(box) <= SIDE
                assert max(box[2] - box[0], box[3] - box[1]) >= 0.16 * SIDE
    counts = np.bincount([len(scene.groups) for scene in scenes])
    assert (counts[1:] > 0.2 * len(scenes)).all()


def test_no_two_objects_touch(scenes: list[Scene]) -> None:
    for scene in scenes:
        boxes = np.array([box for group in scene.groups for box in group.boxes])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        radii = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) / 2
        gaps = np.linalg.norm(middles[:, None] - middles[None], axis=-1)
        apart = gaps > 0.95 * (radii[:, None] + radii[None])
        assert (apart | np.eye(len(boxes), dtype=bool)).all(), scene.caption()


def test_a_prompt_says_nothing_wrong_and_names_every_group(scenes: list[Scene]) -> None:
    dice = Dice(np.random.default_rng(4))
    texts = []
    for scene in scenes:
        text = drawing_prompt(scene, dice).lower().replace("grey", "gray")
        texts.append(text)
        said = set(re.findall(r"[a-z]+", text))
        assert said & set(COLOURS) <= {scene.background, *(group.colour for group in scene.groups)}
        for group in scene.groups:
            assert group.name(colour=False) in text
            assert group.count == 1 or NUMBERS[group.count] in said or str(group.count) in text
        if f"{scene.background} background" not in text and "background" in text:
            assert f"background is {scene.background}" in text
    assert len(set(texts)) > 0.9 * len(texts)
    assert 0.1 < np.mean([not set(re.findall("[a-z]+", text)) & set(COLOURS) for text in texts]) < 0.4


def test_the_wordings_of_the_example() -> None:
    groups = (Group(2, "red", "circle", ""), Group(1, "blue", "star", ""))
    scene = Scene("yellow", groups, "row", "")
    dice = Dice(np.random.default_rng(0))
    texts = {drawing_prompt(scene, dice).lower().rstrip(".") for _ in range(1500)}
    assert "two red circles left of a blue star on a yellow background" in texts
    assert "a blue star to the right of two red circles on yellow" in texts
    assert any(text in texts for text in ("two circles and a star", "a star and two circles"))
    assert len(texts) > 300


def test_a_place_is_also_said_as_captions_say_it() -> None:
    scene = Scene("white", (Group(1, "red", "star", ""),), "", "at the top left")
    dice = Dice(np.random.default_rng(0))
    texts = [drawing_prompt(scene, dice).lower() for _ in range(600)]
    assert "a red star at the top left of a white background" in texts
    assert 20 < sum(re.search(r" of a white background", text) is not None for text in texts) < 250


def test_samples(fonts: object) -> None:
    rng = np.random.default_rng(0)
    drawn = render("drawing", rng, fonts)  # type: ignore[arg-type]
    assert drawn.image.size == (SIDE, SIDE) and drawn.fields["prompt"] and not drawn.turns
    seen = render("drawing_scene", rng, fonts)  # type: ignore[arg-type]
    assert seen.image.size == (SIDE, SIDE) and seen.turns and len(seen.glyphs)
    shades = set()
    for _ in range(40):
        plain = render("drawing_shades", rng, fonts, 1.0)  # type: ignore[arg-type]
        assert plain.image.size == (SIDE, SIDE) and not plain.turns and len(plain.glyphs)
        shades.add(plain.image.getpixel((0, 0)))
    named = np.array(list(COLOURS.values()))
    distances = [np.abs(named - np.array(shade)).max(axis=1).min() for shade in shades]
    assert np.mean(np.array(distances) > 12) > 0.25, "far from the usual look of any name"
    assert pair_number("gray", "cross") == len(COLOURS) * len(SHAPES) - 1
