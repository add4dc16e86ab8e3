"""A sample's picture with more pixels: the same content over more tiles, in larger letters."""

from dataclasses import replace

from PIL import Image

from mm.synthetic.dice import Dice
from mm.synthetic.sample import Sample

MOST_PIXELS = 520_000
"""Pictures are enlarged up to this at most: about one and a half times what nine tiles hold."""


def enlarged(sample: Sample, dice: Dice) -> Sample:
    """The sample with a picture of up to 2.2 times its width, glyph boxes with it; a large one stays as it is.

    Its text and its boxes in 0..999 stay the same, so turns do too.
    """
    width, height = sample.image.size
    factor = min(2.2, (MOST_PIXELS / (width * height)) ** 0.5)
    if factor < 1.15:
        return sample
    factor = dice.uniform(1.15, factor)
    size = (round(width * factor), round(height * factor))
    glyphs = sample.glyphs.copy()
    glyphs[:, [1, 3]] *= size[0] / width
    glyphs[:, [2, 4]] *= size[1] / height
    return replace(sample, image=sample.image.resize(size, Image.Resampling.BICUBIC), glyphs=glyphs)
