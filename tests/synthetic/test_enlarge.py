"""Pictures with more pixels keep what is on them."""

import numpy as np
from PIL import Image

from mm.synthetic.dice import Dice
from mm.synthetic.enlarge import MOST_PIXELS, enlarged
from mm.synthetic.sample import Sample, Turn


def sample(width: int, height: int) -> Sample:
    image = Image.new("RGB", (width, height), "white")
    image.paste((0, 0, 0), (40, 20, 60, 50))
    glyphs = np.array([[65, 40, 20, 60, 50]], np.float32)
    return Sample(image, (Turn("Where?", "there"),), glyphs, "A", {"name": "A"}, "form")


def test_glyphs_stay_where_they_are_drawn() -> None:
    factors = set()
    for seed in range(30):
        small = sample(200, 150)
        large = enlarged(small, Dice(np.random.default_rng(seed)))
        factor = large.image.width / 200
        assert 1.1 < factor < 2.3 and abs(large.image.height / 150 - factor) < 0.02
        dark = np.asarray(large.image.convert("L")) < 128
        rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
        ink = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(large.glyphs[0, 1:], ink, atol=1.5)
        assert (large.turns, large.text, large.fields) == (small.turns, small.text, small.fields)
        factors.add(round(factor, 1))
    assert len(factors) > 5
    assert small.glyphs[0, 1] == 40  # the first sample is left alone


def test_large_pictures_stay_as_they_are() -> None:
    one = sample(900, 700)
    assert enlarged(one, Dice(np.random.default_rng(0))) is one
    for seed in range(10):
        image = enlarged(sample(600, 500), Dice(np.random.default_rng(seed))).image
        assert image.width * image.height < 1.01 * MOST_PIXELS
