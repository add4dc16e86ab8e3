"""Questions on scenes, and boxes in the format of DeepSeek-VL2.

Counts are answered in digits, colours and shapes by their name, relations by "left", "right", "above" or "below", yes
or no questions by "Yes" or "No". Boxes of one query stand in one list, from left to right.
"""

from collections.abc import Sequence

from mm.chat import TASK_PROMPTS
from mm.synthetic.chart_canvas import Rect
from mm.synthetic.dice import Dice
from mm.synthetic.ground import ground_answer
from mm.synthetic.sample import ABSENT_ANSWER, Turn
from mm.synthetic.scene_layout import Group, Scene, plural_of
from mm.synthetic.shapes import COLOURS, SHAPES

CAPTION_PROMPTS = (TASK_PROMPTS["caption"],) * 6 + (
    "What is in the picture?",
    "What is in the image?",
    "Describe the picture.",
    "What do you see?",
    "What does the image show?",
    "Caption this image.",
)

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _colour_word(dice: Dice) -> str:
    return dice.pick(["color", "color", "colour"])


def _unique(scene: Scene, shape: str) -> bool:
    return sum(group.shape == shape for group in scene.groups) == 1


def _short(scene: Scene, group: Group, dice: Dice) -> str:
    """The group's name, without its colour where the shape is enough."""
    return "the " + group.name(colour=not (_unique(scene, group.shape) and dice.chance(0.6)))


def _count_turns(scene: Scene, dice: Dice) -> list[Turn]:
    group = dice.pick(scene.groups)
    of_shape = sum(g.count for g in scene.groups if g.shape == group.shape)
    of_colour = sum(g.count for g in scene.groups if g.colour == group.colour)
    total = sum(g.count for g in scene.groups)
    other = dice.pick([shape for shape in SHAPES if all(g.shape != shape for g in scene.groups)])
    name, plain = group.name(plural=True), plural_of(group.shape)
    ask = dice.pick(["How many {} are there?", "How many {} are there?", "How many {} do you see?", "Count the {}."])
    return [
        Turn(ask.format(plain), str(of_shape)),
        Turn(ask.format(plain), str(of_shape)),
        Turn(ask.format(name), str(group.count)),
        Turn(ask.format(f"{group.colour} objects"), str(of_colour)),
        Turn(ask.format(dice.pick(["objects", "shapes"])), str(total)),
        Turn(ask.format(plural_of(other)), "0"),
        Turn(dice.pick(["How many kinds of shapes are there?", "How many different shapes are there?"]),
             str(len({g.shape for g in scene.groups}))),
    ]  # fmt: skip


def _colour_turns(scene: Scene, dice: Dice) -> list[Turn]:
    colour, turns = _colour_word(dice), []
    for group in scene.groups:
        if _unique(scene, group.shape):
            name, verb = group.name(colour=False), "are" if group.count > 1 else "is"
            ask = dice.pick(
                [
                    "What {c} {v} the {n}?",
                    "What {c} {v} the {n}?",
                    "Which {c} {h} the {n}?",
                    "What is the {c} of the {n}?",
                ]
            )
            have = "do" if group.count > 1 else "does"
            question = ask.format(c=colour, v=verb, n=name, h=have)
            turns.append(Turn(question[:-1] + " have?" if ask.startswith("Which") else question, group.colour))
    ask = dice.pick(["What is the background {}?", "What {} is the background?", "Which {} is the background?"])
    turns.append(Turn(ask.format(colour), scene.background))
    other = dice.pick([shape for shape in SHAPES if all(g.shape != shape for g in scene.groups)])
    turns.append(Turn(f"What {colour} is the {other}?", ABSENT_ANSWER))
    return turns


def _shape_turns(scene: Scene, dice: Dice) -> list[Turn]:
    turns = []
    for group in scene.groups:
        if sum(g.colour == group.colour for g in scene.groups) == 1:
            thing = "objects" if group.count > 1 else "object"
            ask = dice.pick(["What shape {v} the {c} {t}?", "Which shape is {c}?", "What is {c}?"])
            turns.append(Turn(ask.format(v="are" if group.count > 1 else "is", c=group.colour, t=thing), group.shape))
        if group.size:
            turns.append(
                Turn(f"{'Are' if group.count > 1 else 'Is'} {_short(scene, group, dice)} small or large?", group.size)
            )
    free = [
        colour for colour in COLOURS if colour != scene.background and all(g.colour != colour for g in scene.groups)
    ]
    turns.append(Turn(f"What shape is the {dice.pick(free)} object?", ABSENT_ANSWER))
    return turns


def _yes_no_turns(scene: Scene, dice: Dice) -> list[Turn]:
    group = dice.pick(scene.groups)
    shape = dice.pick([s for s in SHAPES if all((g.colour, g.shape) != (group.colour, s) for g in scene.groups)])
    ask = dice.pick(["Is there a {}?", "Do you see a {}?", "Is there a {} in the picture?"])

    def article(text: str) -> str:
        return text.replace(" a o", " an o")

    return [
        Turn(article(ask.format(group.name(plural=False))), "Yes"),
        Turn(article(ask.format(f"{group.colour} {shape}")), "No"),
    ]


def _relation_turns(scene: Scene, dice: Dice) -> list[Turn]:
    turns = []
    if scene.place:
        ask = dice.pick(["Where is {}?", "Where in the picture is {}?", "What is the position of {}?"])
        turns.append(Turn(ask.format(_short(scene, scene.groups[0], dice)), scene.place))
    if len(scene.groups) < 2:
        return turns
    first, second = dice.sample(range(len(scene.groups)), 2)
    a, b = scene.groups[first], scene.groups[second]
    before = first < second
    words = {"row": ("left", "right"), "column": ("above", "below")}[scene.layout]
    word = words[0] if before else words[1]
    spelled = {"left": "left of", "right": "right of"}
    name_a, name_b = _short(scene, a, dice), _short(scene, b, dice)
    verb = "are" if a.count > 1 else "is"
    turns.append(Turn(f"Where {verb} {name_a} relative to {name_b}?", word))
    turns.append(Turn(f"{verb.capitalize()} {name_a} {' or '.join(spelled.get(w, w) for w in words)} {name_b}?", word))
    claim = word if dice.chance(0.5) else _OPPOSITE[word]
    turns.append(
        Turn(f"{verb.capitalize()} {name_a} {spelled.get(claim, claim)} {name_b}?", "Yes" if claim == word else "No")
    )
    if len(scene.groups) == 2:
        turns.append(Turn(f"What is {spelled.get(word, word)} {name_b}?", a.phrase()))
    else:
        middle = scene.groups[1]
        turns.append(Turn("What is in the middle?", middle.phrase()))
    return turns


def _absent_turns(scene: Scene, dice: Dice) -> list[Turn]:
    del scene
    return [
        Turn(question, ABSENT_ANSWER)
        for question in dice.sample(
            ["What is the total?", "What is the date?", "Who is in the picture?", "What is the name of the store?",
             "What animal is this?", "What is written in the image?", "What is the title?", "How old is the person?",
             "What is the phone number?", "Where was this picture taken?", "What time is it?", "Who drew this?"],
            1,
        )
    ]  # fmt: skip


def scene_turns(scene: Scene, dice: Dice) -> list[Turn]:
    """The caption on most scenes, and two to four questions."""
    turns = [Turn(dice.pick(CAPTION_PROMPTS), scene.caption())] if dice.chance(0.75) else []
    families = {
        _count_turns: 3.0,
        _colour_turns: 3.0,
        _shape_turns: 1.6,
        _yes_no_turns: 1.2,
        _relation_turns: 3.0,
        _absent_turns: 0.3,
    }
    for _ in range(dice.integer(2, 4)):
        found = dice.weighted(families)(scene, dice)
        if found:
            turn = dice.pick(found)
            if all(turn.question != other.question for other in turns):
                turns.append(turn)
    return turns or [Turn(TASK_PROMPTS["caption"], scene.caption())]


def ground_turns(scene: Scene, size: tuple[int, int], dice: Dice) -> list[Turn]:
    """Boxes of one to three queries, sometimes a query without an object, sometimes a question."""
    queries: dict[str, Sequence[Rect]] = {}
    for group in scene.groups:
        the = "the " if dice.chance(0.5) else ""
        queries[the + group.name()] = group.boxes
        boxes = [box for g in scene.groups if g.shape == group.shape for box in g.boxes]
        queries[the + (plural_of(group.shape) if len(boxes) > 1 else group.shape)] = boxes
        boxes = [box for g in scene.groups if g.colour == group.colour for box in g.boxes]
        queries[f"{the}{group.colour} object{'s' if len(boxes) > 1 else ''}"] = boxes
    turns = [
        Turn(TASK_PROMPTS["ground"].format(query=query), ground_answer(query, queries[query], size))
        for query in dice.sample(list(queries), dice.integer(1, 3))
    ]
    if dice.chance(0.15):
        shape = dice.pick([shape for shape in SHAPES if all(g.shape != shape for g in scene.groups)])
        turns.append(Turn(TASK_PROMPTS["ground"].format(query=f"the {shape}"), ABSENT_ANSWER))
    if dice.chance(0.3):
        turns += scene_turns(scene, dice)[:1]
    return turns
