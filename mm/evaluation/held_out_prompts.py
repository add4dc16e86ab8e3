"""Held-out prompts: 500 in the six categories of GenEval (arXiv 2310.11513), and rows that say where it gets hard.

The categories leave much open ("a star and a heart"), as GenEval's do; half of them also name a background. The rows
of whole scenes say everything, and their captions are of the one in sixteen that training keeps away from (by the
checksum of the canonical caption). Prompts about pairs of a colour and a shape that training never shows together stand
in a row of their own and nowhere else.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mm.evaluation.captions import COLOURS, PLACES, SHAPES, write_caption
from mm.evaluation.held_out_words import chance, pick
from mm.evaluation.wishes import Group, Wish

NEVER_TRAINED = (("purple", "star"), ("green", "diamond"), ("orange", "hexagon"), ("pink", "cross"))
"""Colours and shapes that nano-janus never saw together."""

CATEGORIES = ("single object", "two objects", "counting", "colours", "position", "colour attribution")
WHOLE_SCENES = ("one object and position", "one group", "two groups and relation", "three groups")
PAIRS = "pairs never trained"

_RELATIONS = {"row": (("left of", False), ("right of", True)), "column": (("above", False), ("below", True))}


@dataclass(frozen=True)
class Prompt:
    """A text and what it asks for. ``row`` is the line of the result table that it counts in."""

    row: str
    text: str
    wish: Wish


def category_prompts(count: int = 500, *, seed: int = 0) -> list[Prompt]:
    """``count`` prompts, in turn of each category."""
    return [_drawn(CATEGORIES[index % len(CATEGORIES)], index, seed) for index in range(count)]


def scene_prompts(count: int = 100, *, seed: int = 0) -> list[Prompt]:
    """``count`` prompts of each row of whole scenes, and as many of pairs that were never trained."""
    return [_drawn(row, index, seed) for row in (*WHOLE_SCENES, PAIRS) for index in range(count)]


def caption_of(wish: Wish) -> str:
    """The canonical caption of a wish that leaves nothing open."""
    names = [group.phrase() for group in wish.groups]
    return write_caption(names, layout=wish.layout, place=wish.place, background=wish.background)


def kept_from_training(wish: Wish) -> bool:
    """Whether training never draws this scene."""
    return zlib.crc32(caption_of(wish).encode()) % 16 == 5


def _drawn(row: str, index: int, seed: int) -> Prompt:
    number = (*CATEGORIES, *WHOLE_SCENES, PAIRS).index(row)
    rng = np.random.default_rng((seed, 11, number, index))
    while True:
        wish, text = _MAKERS[row](rng)
        if row in WHOLE_SCENES and not kept_from_training(wish):
            continue
        trained = all((group.colour, group.shape) not in NEVER_TRAINED for group in wish.groups)
        if trained != (row == PAIRS):
            return Prompt(row, text, wish)


def _maybe_ground(rng: Generator, wish: Wish, text: str) -> tuple[Wish, str]:
    """Half of the prompts name a background."""
    if chance(rng, 0.5):
        return wish, text
    taken = {group.colour for group in wish.groups}
    background = pick(rng, tuple(colour for colour in COLOURS if colour not in taken))
    return Wish(wish.groups, wish.layout, wish.place, background), f"{text} {_on(background)}"


def _on(background: str) -> str:
    return f"on {'an' if background[0] in 'aeiou' else 'a'} {background} background"


def _two(rng: Generator, coloured: bool) -> tuple[Group, Group]:
    shapes, colours = rng.permutation(SHAPES)[:2], rng.permutation(COLOURS)[:2]
    one, other = (
        Group(1, str(colour) if coloured else "", str(shape)) for colour, shape in zip(colours, shapes, strict=True)
    )
    return one, other


def _single_object(rng: Generator) -> tuple[Wish, str]:
    group = Group(1, "", pick(rng, SHAPES))
    return _maybe_ground(rng, Wish((group,)), pick(rng, ("", "a picture of ", "a photo of ")) + group.phrase())


def _two_objects(rng: Generator) -> tuple[Wish, str]:
    one, other = _two(rng, False)
    return _maybe_ground(rng, Wish((one, other)), f"{one.phrase()} and {other.phrase()}")


def _counting(rng: Generator) -> tuple[Wish, str]:
    group = Group(int(rng.integers(2, 7)), "", pick(rng, SHAPES))
    return _maybe_ground(rng, Wish((group,)), group.phrase())


def _colours(rng: Generator) -> tuple[Wish, str]:
    group = Group(1, pick(rng, COLOURS), pick(rng, SHAPES))
    return _maybe_ground(rng, Wish((group,)), pick(rng, ("", "a picture of ", "a photo of ")) + group.phrase())


def _position(rng: Generator) -> tuple[Wish, str]:
    one, other = _two(rng, False)
    layout = pick(rng, ("row", "column"))
    relation, backwards = pick(rng, _RELATIONS[layout])
    groups = (other, one) if backwards else (one, other)
    return _maybe_ground(rng, Wish(groups, layout), f"{one.phrase()} {relation} {other.phrase()}")


def _attribution(rng: Generator) -> tuple[Wish, str]:
    one, other = _two(rng, True)
    return _maybe_ground(rng, Wish((one, other)), f"{one.phrase()} and {other.phrase()}")


def _whole(count: int) -> Callable[[Generator], tuple[Wish, str]]:
    """Whole scenes of so many groups of one to four objects, at most six together."""

    def make(rng: Generator) -> tuple[Wish, str]:
        while True:
            colours, shapes = rng.choice(COLOURS, count + 1), rng.choice(SHAPES, count)
            numbers = [int(rng.choice([1, 2, 3, 4], p=[0.42, 0.28, 0.18, 0.12])) for _ in range(count)]
            if count == 1:
                numbers = [int(rng.integers(2, 7))]
            pairs = set(zip(colours[1:], shapes, strict=True))
            if sum(numbers) > 6 or len(pairs) < count or colours[0] in colours[1:]:
                continue
            groups = tuple(
                Group(number, str(colour), str(shape))
                for number, colour, shape in zip(numbers, colours[1:], shapes, strict=True)
            )
            layout = pick(rng, ("row", "column")) if count > 1 else ""
            return _worded(rng, Wish(groups, layout, "", str(colours[0])))

    return make


def _placed(rng: Generator) -> tuple[Wish, str]:
    colour, background = (str(name) for name in rng.permutation(COLOURS)[:2])
    size = str(rng.choice(["", "small", "large"], p=[0.7, 0.15, 0.15]))
    return _worded(rng, Wish((Group(1, colour, pick(rng, SHAPES), size),), "", pick(rng, PLACES), background))


def _untrained(rng: Generator) -> tuple[Wish, str]:
    """One of the pairs alone, or beside a trained one."""
    colour, shape = pick(rng, NEVER_TRAINED)
    if chance(rng, 0.5):
        group = Group(int(rng.integers(1, 4)), colour, shape)
        background = pick(rng, tuple(name for name in COLOURS if name != colour))
        return _worded(rng, Wish((group,), "", "", background))
    others = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in NEVER_TRAINED and s != shape and c != colour]
    beside_colour, beside = pick(rng, others)
    groups = [Group(1, colour, shape), Group(int(rng.integers(1, 3)), beside_colour, beside)]
    if chance(rng, 0.5):
        groups.reverse()
    background = pick(rng, tuple(name for name in COLOURS if name not in (colour, beside_colour)))
    return _worded(rng, Wish(tuple(groups), pick(rng, ("row", "column")), "", background))


def _worded(rng: Generator, wish: Wish) -> tuple[Wish, str]:
    """A prompt for a whole scene; half of them are the caption in small letters without its mark."""
    caption = caption_of(wish)
    plain = caption[0].lower() + caption[1:-1]
    if chance(rng, 0.5):
        return wish, plain
    names = [group.phrase() for group in wish.groups]
    if len(names) == 2:
        relation, backwards = pick(rng, _RELATIONS[wish.layout])
        return wish, f"{names[backwards]} {relation} {names[not backwards]} {_on(wish.background)}"
    if len(names) == 3:
        return wish, f"from {_way(wish.layout)}: {names[0]}, {names[1]} and {names[2]} {_on(wish.background)}"
    return wish, pick(rng, ("a picture of ", "draw ", "")) + plain


def _way(layout: str) -> str:
    return "left to right" if layout == "row" else "top to bottom"


_MAKERS: dict[str, Callable[[Generator], tuple[Wish, str]]] = {
    "single object": _single_object,
    "two objects": _two_objects,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "colour attribution": _attribution,
    "one object and position": _placed,
    "one group": _whole(1),
    "two groups and relation": _whole(2),
    "three groups": _whole(3),
    PAIRS: _untrained,
}
