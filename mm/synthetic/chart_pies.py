"""Pie and donut charts on a canvas."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mm.synthetic.chart_axes import LegendKey, NoRoomError, Typeset, place_title, reserve_legend
from mm.synthetic.chart_canvas import Canvas, Rect
from mm.synthetic.chart_data import ChartData
from mm.synthetic.chart_styles import Look, contrast
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, Pen

SHARE_CODES = range(0xC0, 0xD4)
"""Codepoints of areas of slices, see ``share_code``; letters with accents, which English text hardly has."""

_ROWS = 14  # of boxes in a slice's label


@dataclass(frozen=True)
class PiePlan:
    """What is drawn of a pie. ``figures`` is what is printed: "", "percent", "value" or "both"."""

    donut: bool
    labels: str  # "legend", "outside" or "inside"
    figures: str
    figures_at: str  # "slice" (on it), "label" (behind the name)
    legend: str  # side of the legend
    percent_decimals: int
    shuffled: bool = False  # the slices lie in another order than the entries of the legend


def percents(data: ChartData, decimals: int) -> list[str]:
    """Share of each slice as printed."""
    total = sum(data.values[0])
    return [f"{100 * value / total:.{decimals}f}%" for value in data.values[0]]


def figures(data: ChartData, plan: PiePlan) -> list[str]:
    """What is printed for each slice."""
    shares = percents(data, plan.percent_decimals)
    values = [data.number(value) for value in data.values[0]]
    match plan.figures:
        case "percent":
            return shares
        case "value":
            return values
        case "both":
            return [f"{value} ({share})" for value, share in zip(values, shares, strict=True)]
        case _:
            return [""] * len(values)


def draw_pie(canvas: Canvas, look: Look, pens: Typeset, data: ChartData, plan: PiePlan, dice: Dice) -> tuple[int, ...]:
    """Draw the whole chart; returns the order in which its slices are read.

    With a legend that is the order of its entries; without one they are read clockwise from the top.

    Raises:
        NoRoomError: something does not fit.
    """
    em, names, numbers = pens.em, data.categories, figures(data, plan)
    if len(names) > len(look.palette):
        raise NoRoomError("colours")
    pad = em * dice.uniform(0.4, 1.0)
    box: Rect = (pad, pad, canvas.width - pad, canvas.height - pad)
    box = place_title(canvas, look, pens, data.title, box, dice.chance(0.05), data.subtitle)
    joint = dice.pick([" {}", " ({})", ": {}", ", {}"]) if plan.figures != "both" else dice.pick([" {}", ": {}"])
    if plan.labels == "outside" and dice.chance(0.35):
        joint = "\n{}"
    full = [
        name + joint.format(number) if plan.figures and plan.figures_at == "label" else name
        for name, number in zip(names, numbers, strict=True)
    ]
    colours = list(look.palette[: len(names)])
    legend = corner = None
    if plan.labels == "legend":
        kind = dice.pick(["box", "box", "dot"])
        keys = [LegendKey(text, colour, kind) for text, colour in zip(full, colours, strict=True)]
        legend, corner, box = reserve_legend(keys, pens.body, look, plan.legend, box, dice, data.legend_title)
    x0, y0, x1, y1 = box
    out = 0.35 * em
    side = 0.0
    if plan.labels == "outside":
        side, out = max(map(_width(pens.body), full)) + 0.9 * em, (2.8 if "\n" in full[0] else 1.6) * em
    elif plan.figures and plan.figures_at == "out":
        side, out = max(map(pens.body.width, numbers)) + 0.6 * em, 1.5 * em
    radius = min((x1 - x0) / 2 - max(side, out), (y1 - y0) / 2 - out)
    if radius < 3.2 * em:
        raise NoRoomError("pie")
    radius *= dice.uniform(0.88, 1.0)
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    hole = dice.uniform(0.4, 0.68) if plan.donut else 0.0
    order = dice.shuffled(range(len(names))) if plan.shuffled else list(range(len(names)))
    middles = _slices(canvas, look, data, colours, centre, radius, hole, order, dice)
    _label_slices(canvas, data, middles, centre, radius, hole)
    if hole:
        inner = radius * hole
        canvas.ellipse((centre[0] - inner, centre[1] - inner, centre[0] + inner, centre[1] + inner), look.paper)
    around = full if plan.labels == "outside" else numbers if plan.figures and plan.figures_at == "out" else []
    leaders = dice.weighted({"": 6, "straight": 2, "bent": 2}) if plan.labels == "outside" else ""
    _outside(canvas, look, pens.body, around, middles, centre, radius, leaders)
    inside = [""] * len(names)
    if plan.labels == "inside":
        inside = [name for name in names]
    if plan.figures and plan.figures_at == "slice":
        inside = [f"{a}\n{b}" if a else b for a, b in zip(inside, numbers, strict=True)]
    _inside(canvas, pens.body, inside, colours, middles, centre, radius, hole)
    if legend is not None and corner is not None:
        legend.draw(canvas, look, *corner)
        return tuple(range(len(names)))
    starts = [math.degrees(middle - sweep / 2) + 90.0 for middle, sweep in middles]  # clockwise from the top
    return tuple(sorted(range(len(names)), key=lambda index: (starts[index] + 0.01) % 360.0))


def _slices(
    canvas: Canvas,
    look: Look,
    data: ChartData,
    colours: Sequence[Colour],
    centre: tuple[float, float],
    radius: float,
    hole: float,
    order: Sequence[int],
    dice: Dice,
) -> list[tuple[float, float]]:
    """Draw the slices one after another in ``order``.

    Returns the middle angle of each (radians, clockwise from three o'clock) and its width, by its number in the data.
    """
    total = sum(data.values[0])
    start = dice.pick([-90.0, -90.0, dice.pick([0.0, 90.0, 180.0]), dice.uniform(0, 360)])
    turn = 1.0 if dice.chance(0.6) else -1.0
    exploded = dice.integer(0, len(colours) - 1) if dice.chance(0.1) and not hole else -1
    lines = dice.pick([None, (255, 255, 255), look.paper, look.edge])
    width = max(1.0, radius / dice.uniform(50, 110))
    middles, edges, angle = [(0.0, 0.0)] * len(order), [], start
    for index in order:
        value, colour = data.values[0][index], colours[index]
        sweep = 360.0 * value / total * turn
        middle = math.radians(angle + sweep / 2)
        middles[index] = (middle, math.radians(abs(sweep)))
        shift = 0.08 * radius if index == exploded else 0.0
        at = (centre[0] + shift * math.cos(middle), centre[1] + shift * math.sin(middle))
        canvas.slice(at, radius, min(angle, angle + sweep), max(angle, angle + sweep), colour)
        edges.append(math.radians(angle))
        angle += sweep
    if lines is not None and exploded < 0:
        for edge in edges:
            canvas.line(
                [centre, (centre[0] + radius * math.cos(edge), centre[1] + radius * math.sin(edge))], lines, width
            )
    return middles


def share_code(share: float) -> int:
    """Codepoint that labels the area of a slice: a letter for every twentieth of the whole."""
    return SHARE_CODES.start + min(len(SHARE_CODES) - 1, int(20 * share))


def _label_slices(
    canvas: Canvas,
    data: ChartData,
    middles: Sequence[tuple[float, float]],
    centre: tuple[float, float],
    radius: float,
    hole: float,
) -> None:
    """Label the area of each slice with its share, in rows of boxes: the encoder is asked for it at every patch.

    How large a slice is can be told from the whole picture only; answers alone teach it slowly.
    """
    total, step = sum(data.values[0]), 2 * radius / _ROWS
    codes = [share_code(value / total) for value in data.values[0]]
    places = (np.arange(_ROWS) + 0.5) * step - radius
    x, y = np.meshgrid(places, places)  # (rows, columns), from the centre
    away = np.hypot(x, y)
    apart = np.stack([(np.arctan2(y, x) - middle + math.pi) % (2 * math.pi) - math.pi for middle, _ in middles])
    inside = np.abs(apart) / np.array([max(sweep, 1e-9) for _, sweep in middles])[:, None, None]
    owner = np.where((away <= radius) & (away >= hole * radius), inside.argmin(axis=0), -1)
    for row in range(_ROWS):
        top, start = centre[1] - radius + row * step, 0
        for column in range(1, _ROWS + 1):
            if column < _ROWS and owner[row, column] == owner[row, start]:
                continue
            if owner[row, start] >= 0:
                left = centre[0] - radius
                box = (left + start * step, top, left + column * step, top + step)
                canvas.areas.append((codes[owner[row, start]], box))
            start = column


def _width(pen: Pen) -> Callable[[str], float]:
    """Pixels of the widest line of a text."""
    return lambda text: max(map(pen.width, text.split("\n")))


def _outside(
    canvas: Canvas,
    look: Look,
    pen: Pen,
    texts: Sequence[str],
    middles: Sequence[tuple[float, float]],
    centre: tuple[float, float],
    radius: float,
    leaders: str,
) -> None:
    """Texts of one or two lines around the pie; ``leaders`` join them to their slices: "", "straight" or "bent"."""
    em = pen.size
    for text, (middle, _) in zip(texts, middles, strict=False):
        cos, sin = math.cos(middle), math.sin(middle)
        reach = radius + (0.9 if leaders else 0.45) * em
        x, y = centre[0] + reach * cos, centre[1] + reach * sin
        upright = abs(cos) < 0.2 and leaders != "bent"
        if leaders:
            path = [(centre[0] + radius * cos, centre[1] + radius * sin), (x, y)]
            if leaders == "bent":
                x += 0.6 * em if cos > 0 else -0.6 * em
                path.append((x, y))
            canvas.line(path, look.soft, max(1.0, em / 16))
        lines = text.split("\n")
        pitch = 1.15 * em
        if upright:
            top = y if sin > 0 else y - pitch * (len(lines) - 1)
            for index, line in enumerate(lines):
                canvas.text(x, top + pitch * index, line, pen, look.soft, "mt" if sin > 0 else "mb")
            continue
        side = 1.0 if cos > 0 else -1.0
        shift = 0.0 if leaders == "bent" else 0.35 * em * sin * len(lines)
        for index, line in enumerate(lines):
            at = y + shift + pitch * (index - (len(lines) - 1) / 2)
            canvas.text(x + 0.15 * side * em, at, line, pen, look.soft, "lm" if cos > 0 else "rm")


def _inside(
    canvas: Canvas,
    pen: Pen,
    texts: Sequence[str],
    colours: Sequence[Colour],
    middles: Sequence[tuple[float, float]],
    centre: tuple[float, float],
    radius: float,
    hole: float,
) -> None:
    """Texts on the slices, one or two lines each; all must fit theirs."""
    em = pen.size
    for text, colour, (middle, sweep) in zip(texts, colours, middles, strict=True):
        if not text:
            continue
        lines = text.split("\n")
        width, height = max(map(pen.width, lines)), 1.15 * em * len(lines)
        reach = radius * ((1 + hole) / 2 if hole else 0.66)
        arc = 2 * reach * math.sin(min(sweep, math.pi) / 2)
        ring = radius * (1 - hole) if hole else 0.68 * radius
        flat = abs(math.cos(middle))  # 1: the radius runs level
        along, across = width * flat + height * (1 - flat), height * flat + width * (1 - flat)
        if along > ring * (1.0 if hole else 1.05) or across > arc:
            raise NoRoomError("text on a slice")
        ink = max(((255, 255, 255), (0, 0, 0)), key=lambda shade: contrast(shade, colour))
        x, y = centre[0] + reach * math.cos(middle), centre[1] + reach * math.sin(middle)
        for index, line in enumerate(lines):
            canvas.text(x, y + 1.15 * em * (index - (len(lines) - 1) / 2), line, pen, ink, "mm")
