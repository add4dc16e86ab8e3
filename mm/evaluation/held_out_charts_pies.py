"""Held-out pies and rings, with names in a legend, beside the slices or inside them, and with or without figures."""

import math
from collections.abc import Sequence

from numpy.random import Generator

from mm.evaluation.held_out_canvas import Colour, DoesNotFitError, ascender
from mm.evaluation.held_out_charts_canvas import Box, ChartCanvas, contrast
from mm.evaluation.held_out_charts_data import ChartData
from mm.evaluation.held_out_charts_plots import draw_keys
from mm.evaluation.held_out_words import chance, pick

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def draw_pie(canvas: ChartCanvas, rng: Generator, data: ChartData, free: Box, figures: Sequence[str]) -> None:
    """Draw slices into a free area.

    Args:
        canvas: receives everything.
        rng: draws what the style leaves open.
        data: what to show.
        free: box for the chart without its title.
        figures: what is printed at each slice; empty for a pie without figures.

    Raises:
        DoesNotFitError: the area is too small.
    """
    style, font = canvas.style, canvas.style.font()
    em, rise = style.size, ascender(style.font())
    colours = style.palette[: len(data.labels)]
    if len(colours) < len(data.labels):
        raise DoesNotFitError("too few colours")
    named = pick(rng, ("legend", "legend", "beside"))
    figured = pick(rng, ("slice", "name")) if figures else ""
    names = list(data.labels)
    if figured == "name":
        joint = pick(rng, (" {}", ": {}", " ({})", " - {}")) if named == "legend" else pick(rng, (" {}", ", {}"))
        names = [name + joint.format(figure) for name, figure in zip(names, figures, strict=True)]
    if named == "legend":
        free = draw_keys(canvas, names, colours, free, swatch=pick(rng, ("square", "disc")))
    left, top, right, bottom = free
    centre = ((left + right) / 2, (top + bottom) / 2)
    widest = max(float(font.getlength(name)) for name in names)
    beside = named == "beside"
    radius = min(
        (right - left) / 2 - (widest + 1.3 * em if beside else 0.4 * em),
        (bottom - top) / 2 - (1.6 * em if beside else 0.4 * em),
    )
    if radius < 4.2 * em:
        raise DoesNotFitError("the pie is too small")
    total = sum(data.values[0])
    angle = float(pick(rng, (-90, -90, 0, int(rng.integers(360)))))
    way = -1 if chance(rng, 0.3) else 1
    edge = pick(rng, (style.paper, style.paper, style.ink))
    middles = []
    for value, colour in zip(data.values[0], colours, strict=True):
        sweep = 360 * value / total
        first, last = sorted((angle, angle + way * sweep))
        canvas.slice(centre, radius, first, last, colour, edge)
        middles.append(math.radians((first + last) / 2))
        angle += way * sweep
    hole = 0.0
    if data.form == "donut":
        hole = float(rng.uniform(0.4, 0.55)) * radius
        canvas.disc(centre, hole, style.paper)
    for i, middle in enumerate(middles):
        ray = (math.cos(middle), math.sin(middle))
        if figured == "slice":
            _figure(canvas, figures[i], colours[i], centre, ray, radius, hole, data.values[0][i] / total)
        if beside:
            out = radius + 0.45 * em
            x, y = centre[0] + ray[0] * out, centre[1] + ray[1] * (out + 0.35 * rise)
            at = "m" if abs(ray[0]) < 0.12 else "l" if ray[0] > 0 else "r"
            if at == "m":
                y += math.copysign(0.4 * em, ray[1])
            canvas.text(x, y, names[i], font, at)


def _figure(
    canvas: ChartCanvas,
    text: str,
    colour: Colour,
    centre: tuple[float, float],
    ray: tuple[float, float],
    radius: float,
    hole: float,
    share: float,
) -> None:
    """A figure inside its slice."""
    font = canvas.style.font()
    rise = ascender(font)
    middle = (radius + hole) / 2 if hole else 0.68 * radius
    chord = 2 * middle * math.sin(min(math.pi * share, math.pi / 2))
    if chord < 0.5 * float(font.getlength(text)) + 0.8 * rise or radius - hole < float(font.getlength(text)) + rise:
        raise DoesNotFitError(f"{text!r} is larger than its slice")
    ink = _WHITE if contrast(colour, _WHITE) > contrast(colour, _BLACK) else _BLACK
    canvas.text(centre[0] + ray[0] * middle, centre[1] + ray[1] * middle, text, font, "m", ink=ink)
