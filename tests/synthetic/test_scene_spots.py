"""Arrangements of equal objects: apart, inside the room, and of many manners."""

import math

import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.scene_spots import draw_spots

ROOM = (20.0, 30.0, 220.0, 190.0)


@pytest.mark.parametrize("count", range(1, 7))
def test_objects_stay_apart_and_inside(count: int) -> None:
    dice, found = Dice(np.random.default_rng(count)), 0
    for _ in range(150):
        spots = draw_spots(dice, count, ROOM, 36.0)
        if spots is None:
            continue
        found += 1
        assert len(spots) == count
        for index, (x, y) in enumerate(spots):
            assert ROOM[0] - 1e-6 <= x <= ROOM[2] + 1e-6 and ROOM[1] - 1e-6 <= y <= ROOM[3] + 1e-6
            assert all(math.dist((x, y), other) >= 36.0 - 1e-3 for other in spots[:index])
    assert found > 140


def test_many_objects_stand_in_lines_lattices_and_freely() -> None:
    dice, seen = Dice(np.random.default_rng(0)), {"rows": 0, "line": 0, "free": 0}
    for _ in range(300):
        spots = draw_spots(dice, 6, ROOM, 24.0)
        assert spots is not None
        points = np.array(spots) - np.mean(spots, axis=0)
        if np.linalg.svd(points, compute_uv=False)[1] < 1e-6:
            seen["line"] += 1
        elif min(len(np.unique(points[:, axis].round(3))) for axis in (0, 1)) <= 3:
            seen["rows"] += 1
        else:
            seen["free"] += 1
    assert min(seen.values()) > 25, seen


def test_what_does_not_fit_is_refused() -> None:
    dice = Dice(np.random.default_rng(0))
    assert draw_spots(dice, 6, (0.0, 0.0, 20.0, 20.0), 30.0) is None
