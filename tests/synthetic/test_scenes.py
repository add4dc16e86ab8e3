"""Scenes and boxes: captions and answers recomputed from the scene and the picture."""

import re

import numpy as np
import pytest

from mm.chat import TASK_PROMPTS
from mm.errors import OptionError
from mm.synthetic import scenes
from mm.synthetic.chart_canvas import Canvas
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.ground import ground_answer, scaled_box
from mm.synthetic.render import render
from mm.synthetic.sample import ABSENT_ANSWER
from mm.synthetic.scene_absent import absent_shape
from mm.synthetic.scene_boxes import ground_turns
from mm.synthetic.scene_layout import NUMBERS, PLACES, Group, Scene, draw_scene, tilted
from mm.synthetic.scene_paint import paint
from mm.synthetic.scene_questions import question_turns, scene_turns
from mm.synthetic.shapes import COLOURS, FORMS, SHAPES, VARIANTS, corners_in, draw_shape, shape_box

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
        for turn in question_turns(scene, Dice(np.random.default_rng(seed)), 3):
            count = re.match(
                r"(?:How many|Count the|.*umber of) (?:(\w+) )?(\w+?)(?:e?s)?"
                r"(?: are .*| do you .*| can you .*| does .*|\.|\?)$",
                turn.question,
            )
            colour = re.match(r"(?!.*the shape).*[Cc]olou?r.* the (\w+?)(?:e?s)?(?: have)?\?$", turn.question)
            if count is not None and count[2] in SHAPES:
                groups = [g for g in scene.groups if g.shape == count[2] and count[1] in (None, g.colour)]
                assert turn.answer == str(sum(g.count for g in groups)), turn
                seen += 1
            elif colour is not None and colour[1] in SHAPES:
                found = [g.colour for g in scene.groups if g.shape == colour[1]]
                assert turn.answer == (found[0] if found else ABSENT_ANSWER), turn
                seen += 1
            elif turn.question.startswith(("Is there a", "Do you see a", "Can you see a")):
                if re.search(r" an? \w+(\?| in the picture\?)$", turn.question):
                    assert turn.answer == "No"  # a dog
                    continue
                words = turn.question.rstrip("?").removesuffix(" in the picture").split()
                there = any((g.colour, g.shape) == (words[-2], words[-1]) for g in scene.groups)
                assert turn.answer == ("Yes" if there else "No"), turn
                seen += 1
    assert seen > 110


def test_relations_are_as_the_boxes_lie() -> None:
    """Every answer about left, right, above and below, recomputed from the middles of the groups."""
    seen = set()
    for seed in range(300):
        scene = scene_of(seed)
        middles = {}
        for group in scene.groups:
            boxes = np.array(group.boxes)
            x, y = (boxes[:, :2].min(axis=0) + boxes[:, 2:].max(axis=0)) / 2
            middles[group] = {"left": -x, "right": x, "above": -y, "below": y}

        def named(text: str, scene: Scene = scene) -> Group | None:
            words = [re.sub(r"(?<=ss)es$|(?<!s)s$", "", word) for word in text.split()]
            fits = [g for g in scene.groups if g.shape in words and (g.colour in words or not set(words) & {*COLOURS})]
            return fits[0] if len(fits) == 1 else None

        for turn in question_turns(scene, Dice(np.random.default_rng(seed)), 6):
            where = re.match(r"Where (?:is|are) (.*) relative to (.*)\?$", turn.question)
            claim = re.match(r"(?:Is|Are) (.*?) (left|right|above|below)(?: of)? (the \w+(?: \w+)?)\?$", turn.question)
            what = re.match(r"What is (left|right|above|below)(?: of)? (.*)\?$", turn.question)
            ends = {"on the left": "left", "on the right": "right", "at the top": "above", "at the bottom": "below"}
            end = re.match(rf"What is ({'|'.join(ends)})\?$", turn.question)
            if turn.answer == ABSENT_ANSWER:
                assert where is None or named(where[1]) is None
                assert what is None or named(what[2]) is None
            elif where is not None:
                one, other = named(where[1]), named(where[2])
                assert one is not None and other is not None
                assert middles[one][turn.answer] > middles[other][turn.answer], turn
                seen.add("where")
            elif claim is not None and " or " not in turn.question:
                one, other = named(claim[1]), named(claim[3])
                assert one is not None and other is not None, turn
                right = middles[one][claim[2]] > middles[other][claim[2]]
                assert turn.answer == ("Yes" if right else "No"), turn
                seen.add("claim")
            elif what is not None and len(scene.groups) == 2:
                base = named(what[2])
                other = next(group for group in scene.groups if group is not base)
                assert base is not None and turn.answer == other.phrase()
                assert middles[other][what[1]] > middles[base][what[1]]
                seen.add("what")
            elif end is not None:
                best = max(scene.groups, key=lambda group: middles[group][ends[end[1]]])
                assert turn.answer == best.phrase(), turn
                seen.add("end")
    assert seen == {"where", "claim", "what", "end"}


def test_every_question_can_be_asked_first(fonts: FontSet) -> None:
    first = [render("scene", np.random.default_rng(seed), fonts, 1.0).turns[0] for seed in range(100)]
    captions = sum(turn.answer.endswith("background.") for turn in first)
    assert 30 < captions < 62


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_equal_draws_give_equal_samples(kind: str, fonts: FontSet) -> None:
    for seed in range(4):
        one, other = (render(kind, np.random.default_rng(seed), fonts, 1.0) for _ in range(2))
        assert one.image.tobytes() == other.image.tobytes() and one.turns == other.turns


def drawn_box(image: np.ndarray, group: Group, index: int) -> tuple[float, float, float, float]:
    """The box around the pixels near one object that differ from the background."""
    x0, y0, x1, y1 = (round(v) for v in group.boxes[index])
    left, top = max(0, x0 - 2), max(0, y0 - 2)
    patch = image[top : y1 + 2, left : x1 + 2].astype(int)
    differs = np.abs(patch - image[0, 0].astype(int)).max(axis=-1) > 24
    rows, columns = differs.any(axis=1).nonzero()[0], differs.any(axis=0).nonzero()[0]
    return (left + columns.min(), top + rows.min(), left + columns.max() + 1.0, top + rows.max() + 1.0)


@pytest.mark.parametrize(("level", "degrees"), [(0.0, 0), (1.0, 0), (1.0, 3)])
def test_boxes_are_around_what_is_drawn(level: float, degrees: int) -> None:
    off = []
    for seed in range(40):
        dice, size = Dice(np.random.default_rng(seed)), (240, 180)
        scene = draw_scene(dice, size, level)
        if degrees:
            scene = tilted(scene, size, degrees, 0.93)
        image = np.asarray(paint(scene, size, dice))
        for group in scene.groups:
            assert list(group.boxes) == sorted(group.boxes)
            for index in range(group.count):
                np.testing.assert_allclose(drawn_box(image, group, index), group.boxes[index], atol=2.6)
                off.append(np.abs(np.subtract(drawn_box(image, group, index), group.boxes[index])).mean())
    assert np.mean(off) < 0.8


def named_boxes(scene: Scene, label: str) -> list[tuple[float, float, float, float]]:
    """The boxes that a query stands for, found from its words only."""
    label = re.sub(r" (left of|right of|above|below) the .*", "", label)
    words = [re.sub(r"(?<=ss)es$|(?<!s)s$", "", word) for word in label.split()]
    boxes = [
        box
        for group in scene.groups
        for box in group.boxes
        if not {group.colour, group.shape, group.size}.isdisjoint(words) or not set(words) & {*COLOURS, *SHAPES}
        if not (set(words) & set(COLOURS)) - {group.colour} and not (set(words) & set(SHAPES)) - {group.shape}
        if not (set(words) & {"small", "large"}) - {group.size}
    ]
    ends = {"leftmost": (0, min), "rightmost": (2, max), "topmost": (1, min), "lowest": (3, max)}
    for word, (side, best) in ends.items():
        if word in words:
            boxes = [best(boxes, key=lambda box: box[side])]
    return sorted(boxes)


def test_queries_stand_for_the_objects_that_they_name() -> None:
    kinds = set()
    for seed in range(300):
        dice, size = Dice(np.random.default_rng(seed)), (200, 150)
        scene = draw_scene(dice, size, 1.0)
        for turn in ground_turns(scene, size, dice):
            query = re.search(r"<\|ref\|>(.*)<\|/ref\|>|^(?:Locate|Draw a box around) (.*)\.$", turn.question)
            if query is None:
                continue
            label = query[1] or query[2]
            if turn.answer == ABSENT_ANSWER:
                there = {(g.colour, g.shape) for g in scene.groups}
                words = set(label.split())
                assert not any({c, s} <= words or (s in words and not words & set(COLOURS)) for c, s in there), turn
                assert not ("object" in words and words & {g.colour for g in scene.groups}), turn
                kinds.add("absent")
                continue
            assert turn.answer == ground_answer(label, named_boxes(scene, label), size), (turn, scene)
            kinds |= {"end"} if "most" in label else {"all"} if "object" in label else {"name"}
    assert kinds == {"absent", "end", "all", "name"}


def test_questions_about_boxes_name_their_object() -> None:
    seen = 0
    for seed in range(200):
        dice, size = Dice(np.random.default_rng(seed)), (192, 192)
        scene = draw_scene(dice, size, 1.0)
        for turn in ground_turns(scene, size, dice):
            numbers = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", turn.question)
            if numbers is None:
                continue
            box = [int(number) for number in numbers.groups()]
            group = next(g for g in scene.groups if box in [scaled_box(b, size) for b in g.boxes])
            single = Group(1, group.colour, group.shape, group.size).phrase()
            assert turn.answer in (single, group.colour, group.shape), turn
            seen += 1
    assert seen > 80


def test_what_is_not_there_is_said_to_be_absent(fonts: FontSet) -> None:
    said = {}
    for kind in scenes.KINDS:
        samples = [render(kind, np.random.default_rng(seed), fonts, 0.8) for seed in range(200)]
        said[kind] = sum(any(turn.answer == ABSENT_ANSWER for turn in sample.turns) for sample in samples)
        assert all("{" not in turn.question + turn.answer for sample in samples for turn in sample.turns)
    assert 25 < said["scene"] < 90 and 18 < said["scene_ground"] < 50


def test_questions_come_in_many_spellings_but_the_task_prompt_does_not() -> None:
    asked = []
    for seed in range(150):
        asked += scene_turns(scene_of(seed), Dice(np.random.default_rng(seed)))
    captions = [turn.question for turn in asked if turn.answer.endswith("background.")]
    assert 0.35 < captions.count(TASK_PROMPTS["caption"]) / len(captions) < 0.75
    assert len(set(captions)) > 15
    spelled = [turn.question for turn in asked]
    assert any(text.islower() for text in spelled) and any(text[-1] not in "?." for text in spelled)
    assert any(text.endswith("Answer briefly.") for text in spelled)


def test_absent_shapes_are_absent() -> None:
    for seed in range(200):
        dice = Dice(np.random.default_rng(seed))
        scene = draw_scene(dice, (192, 192), 1.0)
        colour, _, shape = absent_shape(scene, dice).rpartition(" ")
        matches = [g for g in scene.groups if colour in ("", g.colour) and shape in ("object", g.shape)]
        assert not matches and colour != scene.background


def test_pictures_have_many_sizes(fonts: FontSet) -> None:
    sizes = [render("scene", np.random.default_rng(seed), fonts, 1.0).image.size for seed in range(120)]
    assert sum(size == (192, 192) for size in sizes) > 20
    assert sum(max(size) > 420 for size in sizes) >= 3 and sum(width != height for width, height in sizes) > 20
    assert {render("scene", np.random.default_rng(seed), fonts, 0.0).image.size for seed in range(20)} >= {(192, 192)}


@pytest.mark.parametrize("shape", SHAPES)
def test_turned_shapes_keep_their_box(shape: str) -> None:
    box = shape_box(shape, (50.0, 48.0), 30.0, 7)
    xs, ys = zip(*corners_in(shape, box, 7), strict=True)
    np.testing.assert_allclose((min(xs), min(ys), max(xs), max(ys)), box, atol=1e-9)


def test_shades_are_nearest_to_the_colour_that_they_are_called() -> None:
    """In hue and lightness every shade is nearer to its own name than to another one."""
    for name, shades in VARIANTS.items():
        for shade in shades:
            distances = {other: np.linalg.norm(np.subtract(shade, colour)) for other, colour in COLOURS.items()}
            nearest = sorted(distances, key=distances.__getitem__)[:2]
            assert name in nearest, (name, shade, nearest)


@pytest.mark.parametrize("form", range(FORMS))
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box(shape: str, form: int) -> None:
    canvas = Canvas(100, 100, (255, 255, 255), 2)
    box = shape_box(shape, (50.0, 48.0), 30.0, 0, form)
    assert 45 < max(box[2] - box[0], box[3] - box[1]) < 67
    draw_shape(canvas, shape, box, (0, 0, 0), None, 0, form)
    dark = np.asarray(canvas.picture()).min(axis=-1) < 240
    rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(found, box, atol=1.6)


def test_unknown_kinds_are_refused(fonts: FontSet) -> None:
    with pytest.raises(OptionError, match=r"Unknown scene kind 'x'. Known kinds: scene, scene_ground\."):
        scenes.render("x", np.random.default_rng(0), fonts)
