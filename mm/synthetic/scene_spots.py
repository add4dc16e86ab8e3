"""How the objects of a group stand: scattered, in lines of any direction, in lattices, on rings, in heaps.

A group must stay one group however it stands: a lattice of two rows is six objects, not twice three.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from mm.synthetic.chart_canvas import Point, Rect
from mm.synthetic.dice import Dice

_TRIES = 60

_FEW: Mapping[str, float] = {"free": 4.0, "line": 4.0}
_MANY: Mapping[str, float] = {"free": 3.0, "line": 2.0, "lattice": 4.0, "ring": 1.0, "heap": 1.3}


def draw_spots(dice: Dice, count: int, room: Rect, step: float) -> list[Point] | None:
    """Middles of ``count`` objects.

    Args:
        dice: the draws.
        count: at least 1.
        room: where middles may lie, in pixels.
        step: smallest distance of two middles, in pixels.

    Returns:
        None where no try fits into ``room``.
    """
    manner = dice.weighted(_MANY if count > 2 else _FEW)
    for attempt in range(_TRIES):
        if manner == "free" or attempt > _TRIES // 2:
            spots = [(dice.uniform(room[0], room[2]), dice.uniform(room[1], room[3])) for _ in range(count)]
        else:
            placed = _put(dice, _MANNERS[manner](dice, count, step), room)
            if placed is None:
                continue
            spots = placed
        if _apart(spots, step):
            return spots
    return None


def _apart(spots: Sequence[Point], step: float) -> bool:
    near = (step - 1e-6) ** 2
    return all((x - u) ** 2 + (y - v) ** 2 >= near for index, (x, y) in enumerate(spots) for u, v in spots[:index])


def _put(dice: Dice, offsets: Sequence[Point], room: Rect) -> list[Point] | None:
    """The arrangement somewhere in the room; None where it is too large."""
    xs, ys = zip(*offsets, strict=True)
    spare_x, spare_y = room[2] - room[0] - (max(xs) - min(xs)), room[3] - room[1] - (max(ys) - min(ys))
    if spare_x < 0 or spare_y < 0:
        return None
    left, top = room[0] + dice.uniform(0, spare_x) - min(xs), room[1] + dice.uniform(0, spare_y) - min(ys)
    return [(x + left, y + top) for x, y in offsets]


def _turned(offsets: Sequence[Point], degrees: float) -> list[Point]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in offsets]


def _line(dice: Dice, count: int, step: float) -> list[Point]:
    """Even steps: level, upright or in any direction."""
    pitch = step * dice.uniform(1.0, 1.7)
    return _turned(
        [(pitch * index, 0.0) for index in range(count)], dice.pick([0.0, 0.0, 90.0, 90.0, dice.uniform(0, 180)])
    )


def _lattice(dice: Dice, count: int, step: float) -> list[Point]:
    """Two or three lines below or beside each other; the last may be shorter, and every second one shifted."""
    lines = 3 if count > 4 and dice.chance(0.3) else 2
    length = -(-count // lines)
    along, across = step * dice.uniform(1.0, 1.6), step * dice.uniform(1.0, 1.6)
    rest = count - length * (lines - 1)
    shorter = dice.integer(0, lines - 1) if dice.chance(0.3) else lines - 1
    start = (length - rest) * dice.pick([0.0, 0.0, 0.5, 1.0])
    shift = 0.5 * (dice.chance(0.15))
    spots = [
        (along * (index + shift * (line % 2) + (start if line == shorter else 0.0)), across * line)
        for line in range(lines)
        for index in range(rest if line == shorter else length)
    ]
    if dice.chance(0.4):
        spots = [(y, x) for x, y in spots]
    return _turned(spots, dice.uniform(-12, 12)) if dice.chance(0.2) else spots


def _ring(dice: Dice, count: int, step: float) -> list[Point]:
    """Evenly on a circle or on a part of one."""
    sweep = 360.0 if dice.chance(0.6) else dice.uniform(120.0, 300.0)
    turn = math.radians(sweep / (count if sweep == 360.0 else count - 1))
    radius = step * dice.uniform(1.0, 1.4) / (2 * math.sin(min(turn, math.pi) / 2))
    start = dice.uniform(0, 2 * math.pi)
    return [(radius * math.cos(start + turn * k), radius * math.sin(start + turn * k)) for k in range(count)]


def _heap(dice: Dice, count: int, step: float) -> list[Point]:
    """Each one near another one, wherever there is room."""
    spots: list[Point] = [(0.0, 0.0)]
    while len(spots) < count:
        x, y = dice.pick(spots)
        angle, reach = dice.uniform(0, 2 * math.pi), step * dice.uniform(1.0, 1.3)
        spot = (x + reach * math.cos(angle), y + reach * math.sin(angle))
        if _apart([*spots, spot], step):
            spots.append(spot)
    return spots


_MANNERS: Mapping[str, Callable[[Dice, int, float], list[Point]]] = {
    "line": _line,
    "lattice": _lattice,
    "ring": _ring,
    "heap": _heap,
}
