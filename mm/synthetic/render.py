"""Every kind of training sample by name: documents, charts, tables, scenes and boxes."""

import numpy as np

from mm.registry import Registry
from mm.synthetic.fonts import FontSet
from mm.synthetic.sample import Sample

RENDERERS = Registry(
    "kind of sample",
    {
        "word": "mm.synthetic.documents:render",
        "line": "mm.synthetic.documents:render",
        "lines": "mm.synthetic.documents:render",
        "paragraph": "mm.synthetic.documents:render",
        "receipt": "mm.synthetic.documents:render",
        "form": "mm.synthetic.documents:render",
        "table": "mm.synthetic.documents:render",
        "screen": "mm.synthetic.documents:render",
        "bar": "mm.synthetic.charts:render",
        "line_chart": "mm.synthetic.charts:render",
        "pie": "mm.synthetic.charts:render",
        "data_table": "mm.synthetic.data_tables:render",
        "scene": "mm.synthetic.scenes:render",
        "scene_ground": "mm.synthetic.scenes:render",
        "drawing": "mm.synthetic.drawing_scenes:render",
        "drawing_shades": "mm.synthetic.drawing_scenes:render",
        "drawing_scene": "mm.synthetic.drawing_scenes:render",
        "drawing_pair": "mm.synthetic.drawing_scenes:render",
        "receipt_ground": "mm.synthetic.ground:render",
        "form_ground": "mm.synthetic.ground:render",
        "screen_ground": "mm.synthetic.ground:render",
        "line_ground": "mm.synthetic.ground:render",
        "table_ground": "mm.synthetic.ground:render",
        "data_table_ground": "mm.synthetic.ground:render",
        "chart_ground": "mm.synthetic.ground:render",
    },
)
"""Each renderer takes (kind, rng, fonts, level) and imports on first use."""

WITHOUT_FONTS = frozenset({"scene", "scene_ground", "drawing", "drawing_shades", "drawing_scene", "drawing_pair"})
"""Kinds on which nothing is written."""


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Render one sample.

    Args:
        kind: one of ``RENDERERS.names()``.
        rng: source of every choice: the same state gives the same sample.
        fonts: typefaces to write with; the words come from the same split.
        level: 0 (short, plain, clean) to 1 (everything).

    Raises:
        OptionError: an unknown kind; the message lists the known ones.
    """
    sample: Sample = RENDERERS.load(kind)(kind, rng, fonts, level)
    return sample
