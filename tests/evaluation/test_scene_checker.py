"""The checker of drawn pictures, on pictures whose truth is known: training's and the held-out ones."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mm.evaluation.captions import parse_caption
from mm.evaluation.held_out_drawings import drawing, render_drawing
from mm.evaluation.held_out_prompts import (
    CATEGORIES,
    NEVER_TRAINED,
    PAIRS,
    WHOLE_SCENES,
    caption_of,
    category_prompts,
    kept_from_training,
    scene_prompts,
)
from mm.evaluation.scene_checker import COLOURS, look
from mm.evaluation.wishes import Group, Wish, judge
from mm.synthetic.dice import Dice
from mm.synthetic.drawing_scenes import UNSEEN_PAIRS, draw_drawing, is_held_out, render
from mm.synthetic.shapes import COLOURS as TRAINED_COLOURS


def wish_of(caption: str) -> Wish:
    claim = parse_caption(caption)
    assert claim is not None
    groups = tuple(Group(count, colour, shape, size) for count, size, colour, shape in claim.groups)
    return Wish(groups, claim.layout, claim.place, claim.background)


def picture(*shapes: tuple[str, float, float, float], ground: str = "white") -> Image.Image:
    """Discs (colour, x, y, radius) on a background."""
    image = Image.new("RGB", (128, 128), COLOURS[ground][0])
    for colour, x, y, radius in shapes:
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLOURS[colour][0])
    return image


def test_agrees_with_the_training_renderer() -> None:
    rng = np.random.default_rng(5)
    right = []
    for _ in range(300):
        sample = render("drawing", rng, None)  # type: ignore[arg-type]
        right.append(judge(look(sample.image), wish_of(sample.fields["caption"])).right)
    assert np.mean(right) >= 0.99


def test_agrees_with_the_held_out_renderer() -> None:
    right = []
    for index in range(200):
        wish, scene, image = drawing(index, trained=index % 2 == 0)
        assert scene.caption() == caption_of(wish) and kept_from_training(wish)
        right.append(judge(look(image), wish).right)
    assert np.mean(right) >= 0.99


def test_other_prompts_are_wrong() -> None:
    shown = [drawing(index) for index in range(60)]
    verdicts = [judge(look(image), shown[index - 1][0]) for index, (_, _, image) in enumerate(shown)]
    assert not any(verdict.right for verdict in verdicts)


def test_every_word_counts() -> None:
    seen = look(picture(("red", 30, 64, 17), ("red", 30, 20, 17), ("blue", 95, 42, 17)))
    groups = (Group(2, "red", "circle"), Group(1, "blue", "circle"))
    assert judge(seen, Wish(groups, "row", "", "white")).right
    assert judge(seen, Wish(groups)).right and judge(seen, Wish(groups[::-1])).right
    assert judge(seen, Wish((Group(3, "", "circle"),))).right
    assert not judge(seen, Wish(groups[::-1], "row")).right
    assert not judge(seen, Wish(groups, "column")).right
    assert not judge(seen, Wish(groups, "row", "", "black")).right
    fewer = judge(seen, Wish((Group(1, "red", "circle"), groups[1])))
    assert (fewer.count, fewer.binding, fewer.right) == (False, False, False)
    swapped = judge(seen, Wish((Group(1, "red", "circle"), Group(2, "blue", "circle"))))
    assert (swapped.count, swapped.shapes, swapped.colours, swapped.binding) == (True, True, False, False)
    squares = judge(seen, Wish((Group(2, "red", "square"), groups[1])))
    assert (squares.colours, squares.shapes, squares.binding) == (True, False, False)


@pytest.mark.parametrize(("radius", "size"), [(13, "small"), (17, ""), (28, "large")])
def test_sizes(radius: float, size: str) -> None:
    seen = look(picture(("red", 64, 64, radius)))
    assert seen.pieces[0].radius == pytest.approx(radius / 128, abs=0.006)
    verdicts = {name: judge(seen, Wish((Group(1, "red", "circle", name),))).right for name in ("small", "", "large")}
    assert verdicts == {"small": size == "small", "": True, "large": size == "large"}


def test_places() -> None:
    seen = look(picture(("red", 22, 64, 17)))
    places = ("top left", "left", "bottom left", "center", "right", "top")
    right = [place for place in places if judge(seen, Wish((Group(1, "red", "circle"),), "", place)).right]
    assert right == ["left"]


def test_objects_that_touch_are_one_blob_without_a_shape() -> None:
    seen = look(picture(("red", 40, 64, 17), ("red", 70, 64, 17)))
    assert [piece.shape for piece in seen.pieces] == [""]


def test_an_empty_picture_is_wrong() -> None:
    seen = look(picture())
    assert seen.background == "white" and not seen.pieces
    assert not judge(seen, Wish((Group(1, "", "star"),))).right


def test_prompts() -> None:
    prompts = category_prompts(500)
    assert [prompt.row for prompt in prompts[:6]] == list(CATEGORIES)
    assert all(_trained(prompt.wish) for prompt in prompts)
    whole = scene_prompts(20)
    assert {prompt.row for prompt in whole} == {*WHOLE_SCENES, PAIRS}
    for prompt in whole:
        assert (prompt.row == PAIRS) == (not _trained(prompt.wish))
        assert prompt.row == PAIRS or kept_from_training(prompt.wish)
        assert parse_caption(caption_of(prompt.wish)) is not None
    assert category_prompts(12) == prompts[:12]


def _trained(wish: Wish) -> bool:
    return all((group.colour, group.shape) not in NEVER_TRAINED for group in wish.groups)


def test_training_keeps_away_from_what_is_tested() -> None:
    assert frozenset(NEVER_TRAINED) == UNSEEN_PAIRS and set(COLOURS) == set(TRAINED_COLOURS)
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = draw_drawing(Dice(rng))
        assert not is_held_out(scene) and not kept_from_training(wish_of(scene.caption()))


def test_drawings_as_documents() -> None:
    document = render_drawing(3, None)  # type: ignore[arg-type]
    assert document.image.size == (128, 128)
    assert [question.skill for question in document.questions] == ["caption", "how many", "background"]
    assert document.questions[0].answer == drawing(3)[1].caption()
