"""What a prompt asks a picture to show, and whether a picture does.

A wish names every object: a picture with one more or one less is wrong. What it leaves open (a colour, the background,
a size, how things stand) may be anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from mm.evaluation.captions import NUMBERS
from mm.evaluation.scene_checker import Piece, Seen

_SMALL, _LARGE = 0.118, 0.18  # radii, as shares of the side, below and above which an object is small or large
_THIRDS = ("left", "center", "right"), ("top", "center", "bottom")
_SLACK = 0.04  # shares of the side by which a middle may lie outside its third


@dataclass(frozen=True)
class Group:
    """Equal objects; "" leaves a colour or size open."""

    count: int
    colour: str
    shape: str
    size: str = ""

    def phrase(self) -> str:
        """ "two large red circles", "a star"."""
        shape = self.shape
        if self.count > 1:
            shape += "es" if shape.endswith("s") else "s"
        words = " ".join(filter(None, (self.size, self.colour, shape)))
        return f"{NUMBERS[self.count]} {words}" if self.count > 1 else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Wish:
    """Groups from left to right ("row"), from top to bottom ("column") or anyhow (""); ``place`` of a single object."""

    groups: tuple[Group, ...]
    layout: str = ""
    place: str = ""
    background: str = ""


@dataclass(frozen=True)
class Verdict:
    """What of a wish came true; ``layout`` and ``place`` are judged where the objects are right."""

    background: bool
    count: bool  # as many objects as asked for
    shapes: bool  # each shape as often as asked for
    colours: bool  # each colour as often as asked for
    binding: bool  # the right colours on the right shapes, as often as asked for, and nothing else
    size: bool
    layout: bool  # and place

    @property
    def right(self) -> bool:
        """Every word of the prompt."""
        return self.background and self.binding and self.size and self.layout


def judge(seen: Seen, wish: Wish) -> Verdict:
    """Compare what is seen with what was wished for."""
    pieces = seen.pieces
    wanted = [group for group in wish.groups for _ in range(group.count)]
    best = _assigned(pieces, wish.groups)
    coloured = [group.colour for group in wanted if group.colour]
    return Verdict(
        background=wish.background in ("", seen.background),
        count=len(pieces) == len(wanted),
        shapes=sorted(piece.shape for piece in pieces) == sorted(group.shape for group in wanted),
        colours=_contains([piece.colour for piece in pieces], coloured) and len(pieces) == len(wanted),
        binding=best is not None,
        size=best is not None and all(_sized(group, some) for group, some in zip(wish.groups, best, strict=True)),
        layout=best is not None and _stands(wish, best),
    )


def _assigned(pieces: Sequence[Piece], groups: Sequence[Group]) -> list[list[Piece]] | None:
    """The pieces of each group, or None where they do not come out even.

    A group takes what it fits; those that say a colour choose before those that leave it open.
    """
    if len(pieces) != sum(group.count for group in groups):
        return None
    for order in permutations(range(len(groups))):
        free = list(pieces)
        found: list[list[Piece]] = [[] for _ in groups]
        for index in order:
            group = groups[index]
            fitting = [p for p in free if p.shape == group.shape and group.colour in ("", p.colour)]
            found[index] = fitting[: group.count]
            free = [p for p in free if p not in found[index]]
        if not free and all(len(some) == group.count for some, group in zip(found, groups, strict=True)):
            return found
    return None


def _contains(all_of: list[str], some: list[str]) -> bool:
    return all(all_of.count(name) >= some.count(name) for name in set(some))


def _sized(group: Group, pieces: Sequence[Piece]) -> bool:
    if group.size == "small":
        return all(piece.radius < _SMALL for piece in pieces)
    return all(piece.radius > _LARGE for piece in pieces) if group.size == "large" else True


def _stands(wish: Wish, groups: Sequence[Sequence[Piece]]) -> bool:
    """Whether the place is right, and each group's middle is rather behind the one before it than beside it."""
    if wish.place:
        piece = groups[0][0]
        across, down = (_near_thirds(value, names) for value, names in zip((piece.x, piece.y), _THIRDS, strict=True))
        return wish.place in {_place(x, y) for x in across for y in down}
    if not wish.layout:
        return True
    middles = [_middle(group) for group in groups]
    for (x0, y0), (x1, y1) in pairwise(middles):
        along, across_by = (x1 - x0, y1 - y0) if wish.layout == "row" else (y1 - y0, x1 - x0)
        if along <= abs(across_by):
            return False
    return True


def _near_thirds(value: float, names: Sequence[str]) -> set[str]:
    """The third in which a value lies, and the next one where it is on the border."""
    return {names[min(2, max(0, int((value + shift) * 3)))] for shift in (-_SLACK, _SLACK)}


def _place(across: str, down: str) -> str:
    return " ".join(name for name in (down, across) if name != "center") or "center"


def _middle(pieces: Sequence[Piece]) -> tuple[float, float]:
    """The mean of the middles."""
    return sum(p.x for p in pieces) / len(pieces), sum(p.y for p in pieces) / len(pieces)
