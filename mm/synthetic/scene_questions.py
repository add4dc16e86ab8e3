"""Questions on scenes.

Counts are answered in digits, colours and shapes by their name, relations by "left", "right", "above" or "below", yes
or no questions by "Yes" or "No", groups as in the caption ("two red circles"), what is not there by ``ABSENT_ANSWER``.
How many there are of a shape that is absent is 0, and whether there is one is "No".
"""

from mm.chat import TASK_PROMPTS
from mm.synthetic.dice import Dice
from mm.synthetic.sample import Turn
from mm.synthetic.scene_absent import PICTURES, THINGS, absent_turns
from mm.synthetic.scene_layout import Group, Scene, plural_of
from mm.synthetic.shapes import COLOURS, SHAPES

_CAPTION_PROMPTS = (
    "What is in the {}?",
    "What is in the {}?",
    "What is in this {}?",
    "What's in the {}?",
    "Describe the {}.",
    "Describe this {}.",
    "Describe the {} in one sentence.",
    "What does the {} show?",
    "What can you see in the {}?",
    "What do you see in the {}?",
    "What do you see?",
    "Describe what you see.",
    "Caption this {}.",
    "Write a caption for the {}.",
    "Give a caption.",
    "What is shown?",
    "What is shown in the {}?",
)

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


_COUNT = (
    "How many {} are there?",
    "How many {} are there?",
    "How many {} are there?",
    "How many {} do you see?",
    "How many {} can you see?",
    "How many {} are in the picture?",
    "How many {} are in the image?",
    "How many {} does the picture show?",
    "Count the {}.",
    "What is the number of {}?",
    "Number of {}?",
)

_LEADS = ("Please answer: ", "Tell me: ", "Look at the picture. ", "Question: ", "In this image: ")
_TAILS = (" Answer briefly.", " Answer in a few words.", " Please.", " Be brief.")


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
    ask = dice.pick(_COUNT)
    return [
        Turn(ask.format(plain), str(of_shape)),
        Turn(ask.format(plain), str(of_shape)),
        *[Turn(ask.format(name), str(group.count))] * 3,
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
                    "{C} of the {n}?",
                ]
            )
            have = "do" if group.count > 1 else "does"
            question = ask.format(c=colour, C=colour.capitalize(), v=verb, n=name, h=have)
            turns.append(Turn(question[:-1] + " have?" if ask.startswith("Which") else question, group.colour))
    ask = dice.pick(
        [
            "What is the background {}?",
            "What {} is the background?",
            "What {} is the background?",
            "Which {} is the background?",
            "What is the {} of the background?",
            "Background {}?",
        ]
    )
    return [*turns, Turn(ask.format(colour), scene.background)]


def _shape_turns(scene: Scene, dice: Dice) -> list[Turn]:
    turns = []
    for group in scene.groups:
        if sum(g.colour == group.colour for g in scene.groups) == 1:
            thing = "objects" if group.count > 1 else "object"
            ask = dice.pick(
                ["What shape {v} the {c} {t}?", "Which shape {v} the {c} {t}?", "Which shape is {c}?", "What is {c}?"]
            )
            turns.append(Turn(ask.format(v="are" if group.count > 1 else "is", c=group.colour, t=thing), group.shape))
        if group.size:
            turns.append(
                Turn(f"{'Are' if group.count > 1 else 'Is'} {_short(scene, group, dice)} small or large?", group.size)
            )
    return turns


def _yes_no_turns(scene: Scene, dice: Dice) -> list[Turn]:
    group = dice.pick(scene.groups)
    shape = dice.pick([s for s in SHAPES if all((g.colour, g.shape) != (group.colour, s) for g in scene.groups)])
    colour = dice.pick([c for c in COLOURS if all((g.colour, g.shape) != (c, group.shape) for g in scene.groups)])
    ask = dice.pick(["Is there a {}?", "Do you see a {}?", "Is there a {} in the picture?", "Can you see a {}?"])
    number, wrong = sum(g.count for g in scene.groups), dice.pick([c for c in COLOURS if c != scene.background])

    def article(text: str) -> str:
        return text.replace(" a o", " an o")

    return [
        *[Turn(article(ask.format(group.name(plural=False))), "Yes")] * 2,
        Turn(article(ask.format(f"{group.colour} {shape}")), "No"),
        Turn(article(ask.format(f"{colour} {group.shape}")), "No"),
        Turn(ask.format(dice.pick(THINGS)), "No"),
        Turn(f"Is the background {scene.background}?", "Yes"),
        Turn(f"Is the background {wrong}?", "No"),
        Turn("Is there more than one object?", "Yes" if number > 1 else "No"),
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
        turns.append(Turn(f"Which shape is {spelled.get(word, word)} {name_b}?", a.shape))
        turns.append(Turn(f"What color is the shape {spelled.get(word, word)} {name_b}?", a.colour))
    else:
        turns.append(Turn("What is in the middle?", scene.groups[1].phrase()))
    start, end = ("on the left", "on the right") if scene.layout == "row" else ("at the top", "at the bottom")
    return [
        *turns,
        Turn(f"What is {start}?", scene.groups[0].phrase()),
        Turn(f"What is {end}?", scene.groups[-1].phrase()),
    ]


def _absent_turns(scene: Scene, dice: Dice) -> list[Turn]:
    return absent_turns(scene, dice, _short(scene, dice.pick(scene.groups), dice))


def caption_turn(scene: Scene, dice: Dice) -> Turn:
    """The caption, half of the time asked for in the words of ``Pipeline.caption``."""
    prompt = TASK_PROMPTS["caption"] if dice.chance(0.55) else dice.pick(_CAPTION_PROMPTS).format(dice.pick(PICTURES))
    return Turn(prompt, scene.caption())


def _reworded(dice: Dice, turn: Turn) -> Turn:
    """Now and then in small letters, without its mark, or with something said before or after it."""
    text = turn.question
    way = dice.weighted({"": 0.78, "small": 0.07, "bare": 0.06, "lead": 0.05, "tail": 0.04})
    if text == TASK_PROMPTS["caption"] or text == TASK_PROMPTS["ocr"]:
        return turn
    if way == "small":
        text = text.lower()
    elif way == "bare":
        text = text.rstrip("?.")
    elif way == "lead":
        text = dice.pick(_LEADS) + text
    elif way == "tail" and not turn.answer.endswith("background."):
        text = text + dice.pick(_TAILS)
    return Turn(text, turn.answer)


def question_turns(scene: Scene, dice: Dice, count: int) -> list[Turn]:
    """Up to ``count`` different questions."""
    families = {
        _count_turns: 4.5,
        _colour_turns: 2.6,
        _shape_turns: 1.8,
        _yes_no_turns: 1.2,
        _relation_turns: 3.0,
        _absent_turns: 1.2,
    }
    turns: dict[str, Turn] = {}
    for _ in range(2 * count):  # some families have nothing to ask, or the same again
        found = dice.weighted(families)(scene, dice)
        if found and len(turns) < count:
            turn = dice.pick(found)
            turns.setdefault(turn.question, turn)
    return list(turns.values())


def scene_turns(scene: Scene, dice: Dice, *, more: int = 0) -> list[Turn]:
    """Three to five questions and ``more``, and on most scenes the caption: first, somewhere else, or alone."""
    turns = question_turns(scene, dice, dice.integer(3, 5) + more)
    place = dice.weighted({"first": 0.36, "anywhere": 0.28, "alone": 0.06, "none": 0.3})
    if place == "alone" or not turns:
        return [caption_turn(scene, dice)]
    if place != "none":
        turns.insert(0 if place == "first" else dice.integer(0, len(turns)), caption_turn(scene, dice))
    return [_reworded(dice, turn) for turn in turns]
