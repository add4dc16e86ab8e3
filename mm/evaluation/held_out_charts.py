"""Held-out charts: upright, lying and grouped bars, lines, pies and rings, in looks, fonts and words of their own.

Every second chart has its values printed; from the others they must be measured. Three charts in five look like
pictures of a page or a screen (``photograph``: up to 3 degrees of turn, uneven light, blur, noise, JPEG), the others
like files.
"""

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from PIL import Image

from mm.evaluation.held_out_canvas import (
    MAX_SIDE,
    MIN_GLYPH,
    MIN_SIDE,
    Document,
    DoesNotFitError,
    ascender,
    photograph,
    tile_scale,
)
from mm.evaluation.held_out_charts_canvas import ChartCanvas, draw_style
from mm.evaluation.held_out_charts_data import Form, draw_data
from mm.evaluation.held_out_charts_pies import draw_pie
from mm.evaluation.held_out_charts_plots import draw_plot, draw_title
from mm.evaluation.held_out_charts_questions import Shown, chart_questions
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

FORMS: tuple[Form, ...] = ("bar", "line", "pie", "horizontal bar", "line", "pie", "grouped bar", "line", "donut")
"""In turn; an odd number of them, so that each form comes printed and not printed."""

_ATTEMPTS = 300


def draw_chart(rng: Generator, fonts: HeldOutFonts, form: Form, *, printed: bool) -> tuple[ChartCanvas, Shown]:
    """One attempt at a chart.

    Raises:
        DoesNotFitError: something has no room.
    """
    width = int(rng.integers(380, 940))
    height = round(width * float(rng.uniform(0.6, 1.0 if form != "line" else 0.85)))
    style = draw_style(rng, fonts, 1)
    letter = ascender(style.face.regular(100)) / 100
    size = round(float(rng.uniform(1.02, 1.4)) * MIN_GLYPH / letter / tile_scale(width, height))
    style = replace(style, size=size)
    data = draw_data(rng, form, printed=printed)
    canvas = ChartCanvas(width, height, style)
    top = draw_title(canvas, rng, data.title) if data.title else 0.3 * size
    free = (0.9 * size, top + 0.4 * size, width - 0.9 * size, height - 0.7 * size)
    if form not in {"pie", "donut"}:
        draw_plot(canvas, rng, data, free, printed=printed)
        figures = tuple(tuple(map(data.spell, row)) for row in data.values) if printed else None
        return canvas, Shown(data, figures, percents=False)
    percents = not printed or chance(rng, 0.7)
    row = (
        () if not printed else data.shares(pick(rng, (0, 0, 1))) if percents else tuple(map(data.spell, data.values[0]))
    )
    draw_pie(canvas, rng, data, free, row)
    return canvas, Shown(data, (row,) if printed else None, percents=percents)


def render_chart(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The chart number ``index`` of the endless held-out series ``seed``; forms take turns.

    Raises:
        RuntimeError: no attempt fits: a defect of the renderer.
    """
    form, printed = FORMS[index % len(FORMS)], index % 2 == 0
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng((seed, 6, index, attempt))
        try:
            canvas, shown = draw_chart(rng, fonts, form, printed=printed)
        except DoesNotFitError:
            continue
        image: Image.Image = canvas.finish()
        if chance(rng, 0.6):
            image = photograph(rng, image, desk=chance(rng, 0.15))
        height = canvas.smallest * tile_scale(*image.size)
        if height >= MIN_GLYPH and MIN_SIDE <= image.width <= MAX_SIDE:
            style = f"{form}, {'printed' if printed else 'measured'}"
            return Document(image, "", chart_questions(rng, shown), style, height)
    raise RuntimeError(f"no {form} chart of seed {seed} and number {index} fits")
