"""Tiling geometry against Pillow's ImageOps and at the edges where the published code fails."""

import random

import pytest
from PIL import Image, ImageOps

from mm.processing import tiling

TILE = 192
CANDIDATES = tuple((a * TILE, b * TILE) for a, b in [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2)])


def test_tokens() -> None:
    assert tiling.tokens_per_side(384, 14, 2) == 14  # 27 complete patches, padded to 28
    assert tiling.tokens_per_side(192, 16, 2) == 6
    assert tiling.num_tokens((1, 1), 14) == 210 + 1 + 210
    assert tiling.num_tokens((3, 2), 6) == 6 * 7 + 1 + 12 * 19


def test_fit_places_the_image_where_pillow_does() -> None:
    chance = random.Random(0)
    for _ in range(400):
        size = (chance.randint(1, 400), chance.randint(1, 400))
        canvas = chance.choice(CANDIDATES)
        scaled = (canvas[0] / size[0] * size[1], canvas[1] / size[1] * size[0])
        if min(scaled) <= 0.5:
            continue  # ImageOps fails there
        padded = ImageOps.pad(Image.new("L", size, 255), canvas)
        (width, height), (left, top) = tiling.fit(size, canvas)
        assert padded.getbbox() == (left, top, left + width, top + height), (size, canvas)


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (2, 3000), (30000, 1), (1, 10**7)])
def test_thin_images_keep_one_pixel(size: tuple[int, int]) -> None:
    for canvas in CANDIDATES:
        (width, height), (left, top) = tiling.fit(size, canvas)
        assert 1 <= width <= canvas[0]
        assert 1 <= height <= canvas[1]
        assert left >= 0 <= top
    best = tiling.choose_resolution(size, CANDIDATES)
    assert best == ((TILE, 3 * TILE) if size[1] > size[0] else (3 * TILE, TILE))


def test_first_candidate_wins_ties() -> None:
    assert tiling.choose_resolution((1, 1), CANDIDATES) == (TILE, TILE)
    assert tiling.choose_resolution((100, 100), ((200, 400), (400, 200))) == (200, 400)
    assert tiling.choose_resolution((100, 100), ((400, 200), (200, 400))) == (400, 200)
    assert tiling.choose_resolution((100, 100), ((400, 200), (200, 200))) == (200, 200)  # less waste
