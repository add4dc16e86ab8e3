"""Prompts that ask for a scene, in many wordings, with some of what it shows left open.

Nothing that is said is wrong, and what is said names every object of the scene. The six categories of GenEval
(arXiv 2310.11513) are all there: "a star", "a star and a heart", "three stars", "a red star", "a star left of a heart",
"a red star and a blue heart".
"""

from mm.synthetic.dice import Dice
from mm.synthetic.scene_layout import NUMBERS, Group, Scene

_LEADS = (
    *("a picture of ", "an image of ", "a drawing of ", "a photo of "),
    *("draw ", "please draw ", "show me ", "paint "),
)
_AFTER = {"row": ("right of", "to the right of", "on the right of"), "column": ("below", "under", "beneath")}
_BEFORE = {"row": ("left of", "to the left of", "on the left of"), "column": ("above", "above", "over")}
_CORNERS = {"top left", "top right", "bottom left", "bottom right"}


def drawing_prompt(scene: Scene, dice: Dice) -> str:
    """What a user may write to get the scene."""
    style = dice.weighted({"full": 0.4, "some": 0.6})
    grounded = style == "full" or not dice.chance(0.85 if scene.background == "white" else 0.3)
    placed = style == "full" or dice.chance(0.5)
    distinct = len({group.shape for group in scene.groups}) == len(scene.groups)
    coloured = style == "full" or not distinct or dice.chance(0.55)
    sized = style == "full" or dice.chance(0.7)
    names = [_phrase(group, dice, coloured, sized) for group in scene.groups]
    what = _arranged(scene, names, dice, placed)
    if grounded and placed and scene.place and dice.chance(0.4):  # as captions do: "at the top of a red background"
        text = f"{names[0]} {_place(scene.place, dice)} of {_with_article(scene.background)} background"
    else:
        text = _grounded(what, scene.background, dice) if grounded else what
    if dice.chance(0.22):
        text = dice.pick(_LEADS) + text
    if dice.chance(0.1):
        text = text.replace("gray", "grey")
    if dice.chance(0.3):
        text = text[0].upper() + text[1:]
    return text + "." if dice.chance(0.25) else text


def _phrase(group: Group, dice: Dice, coloured: bool, sized: bool) -> str:
    """ "two large red circles", "a star"."""
    size = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}.get(group.size, ("",))
    words = " ".join(filter(None, (dice.pick(size) if sized else "", group.name(colour=coloured))))
    if group.count > 1:
        return f"{group.count if dice.chance(0.2) else NUMBERS[group.count]} {words}"
    if dice.chance(0.08):
        return f"one {words}"
    return _with_article(words)


def _arranged(scene: Scene, names: list[str], dice: Dice, placed: bool) -> str:
    """The names and, where ``placed``, how they stand."""
    if len(names) == 1:
        return f"{names[0]} {_place(scene.place, dice)}" if placed and scene.place else names[0]
    if not placed:
        names = dice.shuffled(names)
        return f"{', '.join(names[:-1])} and {names[-1]}"
    if len(names) == 2:
        if dice.chance(0.3):
            return f"{names[1]} {dice.pick(_AFTER[scene.layout])} {names[0]}"
        return f"{names[0]} {dice.pick(_BEFORE[scene.layout])} {names[1]}"
    way, back = ("left to right", "right to left") if scene.layout == "row" else ("top to bottom", "bottom to top")
    manner = dice.weighted({"behind": 0.55, "before": 0.2, "back": 0.1, "chain": 0.15})
    if manner == "chain":
        word = _BEFORE[scene.layout]
        return f"{names[0]} {dice.pick(word)} {names[1]}, {dice.pick(word)} {names[2]}"
    if manner == "back":
        names, way = names[::-1], back
    listed = f"{names[0]}, {names[1]} and {names[2]}"
    return f"from {way}: {listed}" if manner == "before" else f"{listed} from {way}"


def _place(place: str, dice: Dice) -> str:
    """Another way to say "at the top left"."""
    name = place.rpartition("the ")[2]
    if name == "center":
        return dice.pick(["in the center", "in the center", "in the middle", "at the center"])
    if name in _CORNERS:
        return dice.pick([place, place, f"in the {name}", f"in the {name} corner"])
    side = f"on the {name}" if name in ("left", "right") else place
    return dice.pick([place, place, side, f"{side} side" if name in ("left", "right") else f"near the {name}"])


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _grounded(what: str, background: str, dice: Dice) -> str:
    ground = _with_article(background)
    return dice.pick([
        f"{what} on {ground} background",
        f"{what} on {ground} background",
        f"{what} on {ground} background",
        f"{what} on {background}",
        f"{what}, {background} background",
        f"{what} with {ground} background",
        f"{what} against {ground} background",
        f"{what}. The background is {background}",
        f"on {ground} background, {what}",
    ])  # fmt: skip
