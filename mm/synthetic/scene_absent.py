"""Questions that a scene cannot answer; the answer is always ``ABSENT_ANSWER``."""

from mm.chat import TASK_PROMPTS
from mm.synthetic.dice import Dice
from mm.synthetic.phrases import question as document_question
from mm.synthetic.sample import ABSENT_ANSWER, Turn
from mm.synthetic.scene_layout import Scene, plural_of
from mm.synthetic.shapes import COLOURS, SHAPES

PICTURES = ("picture", "image", "scene", "drawing")
"""What a user calls a scene."""

THINGS = ("dog", "cat", "car", "tree", "house", "person", "bird", "horse", "chair", "cup", "boat", "flower", "ball")
"""What no scene shows."""

_ELSEWHERE = (
    "total", "total amount", "date", "time", "store name", "name of the store", "phone number", "address", "price",
    "subtotal", "tax", "title", "title of the chart", "highest value", "smallest value", "name of the person",
    "invoice number", "temperature", "license plate", "brand", "first word", "text", "heading", "website", "cashier",
    "change", "tip", "discount", "speed limit", "page number", "headline", "customer", "email address", "due date",
)  # fmt: skip
"""What other pictures show."""

_KINDS_ELSEWHERE = ("total", "total", "date", "date", "time", "store", "subtotal", "tax", "tip", "discount", "cash",
                    "change", "phone", "address", "website", "cashier", "card")  # fmt: skip
"""Kinds of questions on documents, in all their wordings, that no scene answers."""

_ASKED = (
    "What is the {}?",
    "What is the {}?",
    "What is the {}?",
    "What's the {}?",
    "Read the {}.",
    "Which {} is shown?",
    "Which {} is given?",
    "What {} is printed?",
    "How much is the {}?",
    "What does the {} say?",
    "{}?",
)

_ABSENT = (
    "Who is in the {p}?",
    "What animal is this?",
    "Which animal do you see?",
    "What is the {t} called?",
    "What is the person's name?",
    "What is written in the {p}?",
    "What does the text say?",
    "What does the sign say?",
    "How old is the person?",
    "What is the person wearing?",
    "Where was this {p} taken?",
    "When was this {p} taken?",
    "What time is it?",
    "Who drew this?",
    "Which bar is the highest?",
    "Which store is this?",
    "How much was paid?",
    "What city is this?",
    "What is the weather like?",
    "What is the {t} doing?",
    "What color is the {t}?",
    "Where is the {t}?",
    "What is next to the {t}?",
    "How big is the {t}?",
    "What kind of {t} is it?",
    "What is the name of the {t}?",
)


def absent_shape(scene: Scene, dice: Dice) -> str:
    """The name of an object that is not there: another shape, or a colour and a shape that do not go together."""
    colours, shapes = {g.colour for g in scene.groups}, {g.shape for g in scene.groups}
    there = {(g.colour, g.shape) for g in scene.groups}
    kind = dice.weighted({"shape": 1.0, "colour": 0.7, "both": 0.8, "near": 1.5})
    if kind == "shape":
        return dice.pick([shape for shape in SHAPES if shape not in shapes])
    if kind == "colour":
        return f"{dice.pick([c for c in COLOURS if c not in colours and c != scene.background])} object"
    others = [colour for colour in COLOURS if colour != scene.background]
    pairs = [(colour, shape) for colour in others for shape in SHAPES if (colour, shape) not in there]
    if kind == "near":
        pairs = [(colour, shape) for colour, shape in pairs if colour in colours or shape in shapes]
    return " ".join(dice.pick(pairs))


def absent_turns(scene: Scene, dice: Dice, there: str) -> list[Turn]:
    """Questions like the ones that have an answer, but about what is not there; and what other pictures are asked.

    ``there`` names something in the scene.
    """
    name, colour = absent_shape(scene, dice), dice.pick(["color", "color", "colour"])
    near = [f"Where is the {name}?", f"Where in the picture is the {name}?", f"What is the position of the {name}?",
            f"Is the {name} small or large?", f"What is left of the {name}?", f"What is above the {name}?",
            f"Where is the {name} relative to {there}?", f"What is next to the {name}?"]  # fmt: skip
    if name in SHAPES:
        near = near[:2] + [f"What {colour} is the {name}?", f"What {colour} is the {name}?",
                           f"Which {colour} does the {name} have?", f"What is the {colour} of the {name}?",
                           f"What {colour} are the {plural_of(name)}?", f"{colour} of the {name}?"]  # fmt: skip
    elif name.endswith("object"):
        word = name.split()[0]
        near = [f"What shape is the {name}?", f"Which shape is the {name}?", f"Which shape is {word}?",
                f"What is {word}?", f"Where is the {name}?", f"What shape are the {name}s?"]  # fmt: skip
    asked = dice.pick(_ASKED).format(dice.pick(_ELSEWHERE))
    other = dice.pick(_ABSENT).format(p=dice.pick(PICTURES), t=dice.pick(THINGS))
    if dice.chance(0.5):
        asked = document_question(dice, dice.pick(_KINDS_ELSEWHERE))
    questions = [dice.pick(near), asked, TASK_PROMPTS["ocr"] if dice.chance(0.08) else other]
    return [Turn(text[0].upper() + text[1:], ABSENT_ANSWER) for text in questions]
