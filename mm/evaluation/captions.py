"""Captions of scenes compared by what they claim: counts, sizes, colours, shapes, relation, place and background.

The grammar is the one on the model card of nano-vl2. Groups of equal objects are named from left to right or from top
to bottom:

    A small red circle at the top left of a white background.
    Three large red circles on a white background.
    Two red circles left of a blue star on a yellow background.
    A red circle, two blue stars and a green heart from left to right on a gray background.

Other orders and spellings with the same meaning ("2 circles", "grey", "to the right of", "below") are the same claim.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = (
    *("red", "orange", "yellow", "green", "blue", "cyan"),
    *("purple", "pink", "brown", "black", "white", "gray"),
)
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "hexagon", "cross")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLACES = (
    *("top left", "top right", "bottom left", "bottom right"),
    *("top", "bottom", "left", "right", "center"),
)

_COUNTS = {"a": 1, "an": 1, "the": 1, **{word: number for number, word in enumerate(NUMBERS)}}
_GROUP = re.compile(
    rf"\b(?:(?P<count>{'|'.join(_COUNTS)}|\d)\s+)?(?:(?P<size>small|large)\s+)?"
    rf"(?P<colour>{'|'.join(COLOURS)})\s+(?P<shape>{'|'.join(SHAPES)})(?P<many>e?s)?\b"
)
_BACKGROUND = re.compile(rf"\b({'|'.join(COLOURS)})\s+background|\bbackground\s+is\s+({'|'.join(COLOURS)})\b")
_RELATIONS = {
    "left of": ("row", 1),
    "right of": ("row", -1),
    "above": ("column", 1),
    "below": ("column", -1),
    "under": ("column", -1),
}
_ORDERS = {
    "left to right": ("row", 1),
    "right to left": ("row", -1),
    "top to bottom": ("column", 1),
    "bottom to top": ("column", -1),
}


@dataclass(frozen=True)
class Claim:
    """What a caption says. Groups are (count, size, colour, shape), left to right or top to bottom."""

    groups: tuple[tuple[int, str, str, str], ...]
    layout: str  # "row", "column" or "" for one group
    place: str  # of a single object, one of PLACES or ""
    background: str


def parse_caption(text: str) -> Claim | None:
    """The claims of a caption, or None where it has no group, no background or no clear order of its groups."""
    text = " ".join(
        text.lower().replace("grey", "gray").replace("centre", "center").replace("middle", "center").split()
    )
    background = _BACKGROUND.search(text)
    found = list(_GROUP.finditer(text))
    if background is None or not found:
        return None
    groups = []
    for match in found:
        count = match["count"]
        number = int(count) if count and count.isdigit() else _COUNTS.get(count or "a", 1)
        if (number > 1) != (match["many"] is not None):
            return None
        groups.append((number, match["size"] or "", match["colour"], match["shape"]))
    layout, direction, place = "", 1, ""
    if len(found) == 1:
        rest = text[found[0].end() :]
        place = next((name for name in PLACES if re.search(rf"\b{name}\b", rest.replace("-", " "))), "")
    else:
        order = next((value for words, value in _ORDERS.items() if words in text), None)
        if order is None and len(found) == 2:
            between = text[found[0].end() : found[1].start()]
            order = next((value for words, value in _RELATIONS.items() if words in between), None)
        if order is None:
            return None
        layout, direction = order
    return Claim(tuple(groups[::direction]), layout, place, background[1] or background[2])


def same_caption(given: str, wanted: str) -> bool:
    """Whether both captions make the same claims.

    Raises:
        ValueError: ``wanted`` is not of the grammar: a defect of its renderer.
    """
    truth = parse_caption(wanted)
    if truth is None:
        raise ValueError(f"{wanted!r} is not a caption of the grammar at the top of mm.evaluation.captions")
    return parse_caption(given) == truth


def write_caption(names: Sequence[str], *, layout: str, place: str, background: str) -> str:
    """The caption of one to three groups by the grammar.

    Args:
        names: phrases such as "two small red circles", in order.
        layout: "row" (left to right) or "column" (top to bottom), of several groups.
        place: of a single object, such as "top left" or "center"; empty where it is not said.
        background: its colour.
    """
    ground = f"{'an' if background[0] in 'aeiou' else 'a'} {background} background."
    if len(names) == 3:
        way = "left to right" if layout == "row" else "top to bottom"
        text = f"{names[0]}, {names[1]} and {names[2]} from {way} on {ground}"
    elif len(names) == 2:
        text = f"{names[0]} {'left of' if layout == 'row' else 'above'} {names[1]} on {ground}"
    elif place:
        text = f"{names[0]} {'in' if place == 'center' else 'at'} the {place} of {ground}"
    else:
        text = f"{names[0]} on {ground}"
    return text[0].upper() + text[1:]
