"""Where the objects of a scene are, in boxes, and what is in a box.

A name stands for all objects that it fits: "the red circle", "red circles" and "every red circle" ask for the same
boxes. They stand in one list, column by column from left to right. A box is the smallest upright one around the drawn
shape.
"""

from collections.abc import Sequence

from mm.synthetic.chart_canvas import Rect
from mm.synthetic.dice import Dice
from mm.synthetic.ground import ground_turn, place_question
from mm.synthetic.sample import Turn
from mm.synthetic.scene_absent import absent_shape
from mm.synthetic.scene_layout import Group, Scene, plural_of
from mm.synthetic.scene_questions import caption_turn, question_turns

_EVERYTHING = ("every object", "every object", "all objects", "the objects", "objects", "all shapes", "every shape")

_ENDS = {"leftmost": (0, 0), "rightmost": (2, 1), "topmost": (1, 0), "lowest": (3, 1)}
"""Which side of a box decides, and whether the largest value wins."""

_WHAT_AT = ("What is at {}?", "What is at {}?", "What is in {}?", "What object is in {}?", "Describe {}.")
_COLOUR_AT = ("What color is the object in {}?", "What color is at {}?", "What colour is the object at {}?")
_SHAPE_AT = ("What shape is in {}?", "Which shape is at {}?", "What shape is the object at {}?")

_NOT_IN_SCENES = (
    "red car", "dog", "cat", "person", "tree", "house", "total", "date", "title", "store name", "legend", "signature",
    "phone number", "face", "price", "heading", "table", "text", "word", "logo", "moon", "bird", "black dog",
)  # fmt: skip


def _names(dice: Dice, name: str, plural: str, several: bool) -> str:
    """One way to name all objects of a name."""
    if several:
        return dice.weighted(
            {f"the {plural}": 3, plural: 2, f"all {plural}": 1, f"every {name}": 1, f"the {name}": 0.5}
        )
    return dice.weighted({f"the {name}": 4.0, name: 2.0, f"the only {name}": 0.1, f"every {name}": 0.2})


def _queries(scene: Scene, dice: Dice) -> list[tuple[str, list[Rect]]]:
    """Names of objects with all their boxes."""
    found: list[tuple[str, list[Rect]]] = []

    def add(name: str, plural: str, groups: Sequence[Group]) -> None:
        boxes = [box for group in groups for box in group.boxes]
        found.append((_names(dice, name, plural, len(boxes) > 1), boxes))

    for group in scene.groups:
        name, plural = group.name(plural=False), group.name(plural=True)
        for _ in range(2):
            add(name, plural, [group])
        if group.size and dice.chance(0.5):
            add(f"{group.size} {name}", f"{group.size} {plural}", [group])
        add(group.shape, plural_of(group.shape), [g for g in scene.groups if g.shape == group.shape])
        same = [g for g in scene.groups if g.colour == group.colour]
        add(f"{group.colour} object", f"{group.colour} objects", same)
    every = [box for group in scene.groups for box in group.boxes]
    found.append((dice.pick(_EVERYTHING), every))
    found += _extremes(dice, "object", every)
    for group in scene.groups:
        if group.count > 1:
            found += _extremes(dice, group.name(plural=False), group.boxes)
    if len(scene.groups) == 2:
        one, other = scene.groups
        words = ("left of", "right of") if scene.layout == "row" else ("above", "below")
        for a, b, word in ((one, other, words[0]), (other, one, words[1])):
            found.append((f"the {a.name()} {word} the {b.name()}", list(a.boxes)))
    return found


def _extremes(dice: Dice, name: str, boxes: Sequence[Rect]) -> list[tuple[str, list[Rect]]]:
    """ "the leftmost object" and the like, where it is clear which one that is."""
    if len(boxes) < 2:
        return []
    end = dice.pick(list(_ENDS))
    side, last = _ENDS[end]
    order = sorted(boxes, key=lambda box: box[side], reverse=bool(last))
    clear = 0.3 * (order[0][3] - order[0][1])
    return [(f"the {end} {name}", [order[0]])] if abs(order[0][side] - order[1][side]) > clear else []


def _reading_turn(scene: Scene, size: tuple[int, int], dice: Dice) -> Turn:
    """What is in the box of an object."""
    group = dice.pick(scene.groups)
    templates, answer = dice.weighted({
        (_WHAT_AT, Group(1, group.colour, group.shape, group.size).phrase()): 3.0,
        (_COLOUR_AT, group.colour): 1.0,
        (_SHAPE_AT, group.shape): 1.0,
    })  # fmt: skip
    return Turn(place_question(dice, templates, dice.pick(group.boxes), size), answer)


def ground_turns(scene: Scene, size: tuple[int, int], dice: Dice, *, more: int = 0) -> list[Turn]:
    """About four turns in random order: boxes of queries, what is in a box, a query without an object, a question.

    ``more`` is how many queries are added.
    """
    queries = dice.sample(_queries(scene, dice), dice.integer(2, 4) + more)
    turns = [ground_turn(dice, query, boxes, size) for query, boxes in queries]
    turns += [_reading_turn(scene, size, dice) for _ in range(dice.weighted({0: 3, 1: 5, 2: 2}))]
    if dice.chance(0.16):
        name = absent_shape(scene, dice) if dice.chance(0.65) else dice.pick(_NOT_IN_SCENES)
        turns.append(ground_turn(dice, name if dice.chance(0.25) else f"the {name}", [], size))
    if dice.chance(0.15):
        turns.append(caption_turn(scene, dice))
    elif dice.chance(0.2):
        turns += question_turns(scene, dice, 1)
    unique = {turn.question: turn for turn in turns}
    return dice.shuffled(list(unique.values()))
