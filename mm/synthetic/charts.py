"""Charts with questions: bars, lines and pies in the looks of common charting programs, drawn with Pillow only."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from mm.errors import OptionError
from mm.processing.tiling import choose_resolution
from mm.synthetic.chart_axes import NoRoomError, Typeset, ValueAxis, typeset
from mm.synthetic.chart_canvas import Canvas
from mm.synthetic.chart_data import DIMENSIONS, ChartData, draw_data, draw_labels
from mm.synthetic.chart_pies import PiePlan, draw_pie, percents
from mm.synthetic.chart_plan import PlotPlan
from mm.synthetic.chart_plots import draw_axes_chart, series_colours
from mm.synthetic.chart_questions import Reading
from mm.synthetic.chart_styles import Look, colour_name, draw_look
from mm.synthetic.chart_turns import chart_turns
from mm.synthetic.degrade import finish
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, FontSet
from mm.synthetic.sample import Sample
from mm.synthetic.style import GRIDS, MAX_TILES, TILE, Style, view_scale
from mm.synthetic.words import Lexicon, lexicon

KINDS = ("bar", "line_chart", "pie")

_GRIDS = {(2, 2): 4.4, (3, 2): 2.2, (3, 3): 1.9, (1, 1): 0.7, (2, 1): 1.1, (1, 2): 0.15, (2, 3): 0.4, (4, 2): 0.2}
"""Tiles across and down, and how often. Every larger picture takes the largest grids: 640 x 480 pixels take 3 x 3."""

_CANDIDATES = tuple((across * TILE, down * TILE) for across, down in GRIDS)

_EMS = {12.4: 2.0, 14.5: 3.0, 16.5: 2.2, 18.5: 1.2, 21.0: 0.6}
"""Least pixels an em after tiling, and how often; 12.5 is what 640 x 480 pixels with letters of 10 points come to."""

_LEAST_ASCENT = 9.4  # pixels of a capital after tiling

_BUDGET = {2: 440, 4: 480, 6: 600, MAX_TILES: 700}
"""Most characters of questions and answers by the number of tiles: text is cheap beside many tiles."""


def render(kind: str, rng: np.random.Generator, fonts: FontSet, level: float = 1.0) -> Sample:
    """Draw a chart and ask about it.

    Args:
        kind: one of ``KINDS``.
        rng: every draw comes from it: the same state gives the same sample.
        fonts: what to write with; its split also chooses the words.
        level: 0 (few marks, large text, clean) to 1 (everything).

    Raises:
        OptionError: another kind.
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown kind of chart {kind!r}. Known kinds: {', '.join(KINDS)}.")
    dice, words = Dice(rng), lexicon(fonts.split)
    for attempt in range(200):
        if attempt % 8 == 0:  # the first time, and for a small picture that nothing fits
            size = draw_size(dice, level)
            look = draw_look(dice, fonts, level)
            while (pens := typeset(fonts, look, size[2], dice)).body.ascent * view_scale(*size[:2]) < _LEAST_ASCENT:
                size = (*size[:2], size[2] + 1)  # a typeface with small letters
        try:
            return _draw(kind, dice, words, fonts, level, size, look, pens, ease=min(1.0, attempt / 8))
        except NoRoomError:
            continue
    raise AssertionError(f"no {kind} fits its canvas")


def draw_size(dice: Dice, level: float) -> tuple[int, int, int]:
    """Width, height and pixels an em of a picture whose text is readable after tiling."""
    across, down = dice.weighted(_GRIDS | {(3, 3): _GRIDS[3, 3] + 4.0 * level})
    width, height = across * TILE, down * TILE
    if dice.chance(0.5):
        height = round(height * dice.uniform(0.74, 1.0))
    else:
        width = round(width * dice.uniform(0.74, 1.0))
    if across * down == MAX_TILES:  # only here a larger picture is not just given more tiles
        zoom = dice.weighted({1.0: 3, dice.uniform(1.0, 1.8): 6, dice.uniform(0.85, 1.0): 1})
    else:
        zoom = dice.weighted({1.0: 7, dice.uniform(0.75, 1.0): 3})
    width, height = round(width * zoom), round(height * zoom)
    readable = dice.weighted(_EMS) + dice.uniform(0.0, 2.5) + 2.0 * (1.0 - level)
    return width, height, max(9, round(readable / view_scale(width, height)))


def _draw(
    kind: str,
    dice: Dice,
    words: Lexicon,
    fonts: FontSet,
    level: float,
    size: tuple[int, int, int],
    look: Look,
    pens: Typeset,
    ease: float,
) -> Sample:
    width, height, em = size
    smooth = 2 if kind != "bar" and dice.chance(0.85) and width * height < 600_000 else 1
    canvas = Canvas(width, height, look.paper, smooth)
    draw = _draw_pie if kind == "pie" else _draw_plot
    reading = draw(kind, canvas, look, pens, dice, words, level, ease)
    if not canvas.inside() or canvas.crowded():
        raise NoRoomError("text")
    kinds = [reading.data.kind, dice.pick(list(DIMENSIONS))]
    shown = canvas.transcription().lower()
    strangers = [
        name for same in kinds for name in draw_labels(dice, words, same, 7, 14)[-4:] if name.lower() not in shown
    ]
    across, down = choose_resolution((width, height), _CANDIDATES)
    tiles = across * down // TILE**2
    turns = chart_turns(reading, dice, strangers, budget=next(most for upto, most in _BUDGET.items() if tiles <= upto))
    image, glyphs = finish(canvas.picture(), canvas.glyphs(), _as_style(look, fonts, em), dice, 0.6 * level)
    factor = min(width / image.width, height / image.height)
    if factor < 1.0:  # a turned picture is larger; back to its tiles
        fitted = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
        glyphs[:, [1, 3]] *= fitted[0] / image.width
        glyphs[:, [2, 4]] *= fitted[1] / image.height
        image = image.resize(fitted, Image.Resampling.BILINEAR, reducing_gap=2.0)
    data = reading.data
    fields = {"title": data.title, "kind": reading.kind}
    if len(data.series) == 1:
        fields |= dict(zip(data.categories, reading.texts[0], strict=True))
    return Sample(image, turns, glyphs, canvas.transcription(), {k: v for k, v in fields.items() if v}, kind)


def _as_style(look: Look, fonts: FontSet, em: int) -> Style:
    """What the simulation of cameras and printers needs to know."""
    return Style(
        fonts=fonts,
        face=look.face,
        head=look.face,
        em=em,
        pitch=1.2,
        bold_head=False,
        bold_keys=False,
        ink=look.ink,
        soft=look.soft,
        accent=look.spine,
        panel=look.plot,
        paper=look.paper,
        coloured=True,
        dark=sum(look.paper) < 380,
        shaped=False,
    )


def _names(colours: Sequence[Colour], names: Sequence[str]) -> dict[str, str]:
    """Colour names of the entries, where they are clear and used once."""
    spelled = [colour_name(colour) for colour in colours]
    return {
        name: colour
        for name, colour in zip(names, spelled, strict=False)
        if colour is not None and spelled.count(colour) == 1
    }


def _count(dice: Dice, low: int, high: int, level: float, ease: float) -> int:
    """A number of things, fewer at low levels and after failures."""
    top = max(low, round(low + (high - low) * (0.35 + 0.65 * level) * (1.0 - 0.7 * ease)))
    return dice.integer(low, top) if dice.chance(0.4) else max(dice.integer(low, top), dice.integer(low, top))


def _draw_plot(
    kind: str, canvas: Canvas, look: Look, pens: Typeset, dice: Dice, words: Lexicon, level: float, ease: float
) -> Reading:
    ems = canvas.width / pens.em
    bar = kind == "bar"
    horizontal = bar and dice.chance(0.36)
    several = dice.chance(0.34 + 0.26 * level if bar else 0.36 + 0.34 * level)
    num_series = dice.weighted({2: 5, 3: 4, 4: 0.8 if bar else 0.6}) if several else 1
    stacked = bar and several and dice.chance(0.25)
    room = int((canvas.height / pens.em - 4) / 1.5 if horizontal else (ems - 5) / 1.7)
    if several and not stacked and bar:
        room = room // num_series + 1
    most = max(3, min(room, 16 if num_series == 1 else 7))
    share = {True: 0.8 if stacked else 0.55 if several else 0.5, False: 0.55 if num_series == 1 else 0.3}
    printed = dice.chance(share[bar]) and num_series < 3 + 2 * bar
    data = draw_data(
        dice,
        words,
        shape="bar" if bar else "line",
        num_categories=_count(dice, 2 if bar else 3, most, level, ease),
        num_series=num_series,
        longest=max(4, min(18, int(ems * 0.28), int(canvas.height / pens.em * (0.6 if horizontal else 0.4)))),
        title_room=int(ems * 1.9),
    )
    if not bar and printed:
        widest = max(pens.body.width(data.number(value)) for row in data.values for value in row)
        printed = widest < 0.85 * (canvas.width - 5 * pens.em) / len(data.categories)
    if not printed and data.suffix != "%":  # answers are plain numbers then
        data = replace(data, suffix="")
    legend = dice.weighted(
        {"right": 4, "top": 2.5, "bottom": 2.5, "inside": 3, "left": 0.2, "ends": 0.0 if bar else 1.0}
    )
    if num_series == 1:
        legend = dice.pick(["top", "bottom", "inside", "right"]) if dice.chance(0.1) else ""
    many = bar and num_series == 1 and legend == "" and dice.chance(0.22)
    upright = bar and printed and not horizontal and not stacked and dice.chance(0.6 if several else 0.15)
    plan = PlotPlan("bar" if bar else "line", horizontal, stacked, printed, legend, many, upright)
    plot = draw_axes_chart(canvas, look, pens, data, plan, dice)
    names = data.categories if many else data.series
    colours = _names(series_colours(look, data, plan), names) if num_series > 1 or many else {}
    form = "bar chart" if bar else "line chart"
    if several and bar:
        form = ("stacked " if stacked else "grouped ") + form
    texts, numbers, margin = read_values(data, plot.axis, printed)
    titles = (data.value_title, data.category_title) if horizontal else (data.category_title, data.value_title)
    return Reading(
        data=data,
        kind="horizontal " + form if horizontal and not several else form,
        mark="bar" if bar else "point",
        texts=texts,
        numbers=numbers,
        margin=margin,
        affixes=(data.prefix, data.suffix) if printed else ("", ""),
        shares=(),
        x_title=titles[0],
        y_title=titles[1],
        colours=colours,
        marked=printed,
        printed=printed,
        order=tuple(range(len(data.categories))),
        ticks=plot.ticks,
        subtitle=data.subtitle,
        legend_title=data.legend_title if legend not in {"", "ends"} else "",
    )


def read_values(
    data: ChartData, axis: ValueAxis, printed: bool
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[float, ...], ...], float]:
    """Values as answered, as numbers, and the smallest difference that shows."""
    if printed:
        return (
            tuple(tuple(map(data.number, row)) for row in data.values),
            data.values,
            10.0**-data.decimals / 2,
        )
    numbers = tuple(tuple(map(axis.read, row)) for row in data.values)
    decimals = next(d for d in range(10) if abs(round(axis.grain, d) - axis.grain) < 1e-9 * axis.grain)
    texts = tuple(tuple(_plain(number, decimals, data.thousands) for number in row) for row in numbers)
    return texts, numbers, 1.4 * axis.grain


def _plain(number: float, decimals: int, thousands: str) -> str:
    text = f"{number:,.{decimals}f}".replace(",", thousands)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _draw_pie(
    kind: str, canvas: Canvas, look: Look, pens: Typeset, dice: Dice, words: Lexicon, level: float, ease: float
) -> Reading:
    del kind
    num = _count(dice, 2, 8, level, ease)
    data = draw_data(
        dice,
        words,
        shape="pie",
        num_categories=num,
        num_series=1,
        longest=max(4, min(18, int(canvas.width / pens.em * 0.24))),
        title_room=int(canvas.width / pens.em * 1.9),
    )
    plan = PiePlan(
        donut=dice.chance(0.28),
        labels=dice.weighted({"legend": 7.2, "outside": 2.6, "inside": 0.8 - 0.4 * ease}),
        figures=dice.weighted({"percent": 2.4, "value": 1.6, "both": 0.3, "": 5.7}),
        figures_at=dice.weighted({"slice": 4, "label": 3.5, "out": 1.5}),
        legend=dice.weighted(
            {"right": 6, "left": 1, "bottom": 1.2, "top": 0.6}
            if canvas.width > 1.15 * canvas.height
            else {"right": 2, "left": 0.3, "bottom": 3, "top": 1.5}
        ),
        percent_decimals=dice.pick([0, 1, 1]),
        shuffled=dice.chance(0.4),
    )
    if plan.labels == "inside" and plan.figures_at == "label" or plan.labels != "legend" and plan.figures_at == "out":
        raise NoRoomError("figures")
    if plan.shuffled and plan.labels != "legend":
        plan = replace(plan, shuffled=False)
    colours = _names(look.palette[:num], data.categories)
    order = draw_pie(canvas, look, pens, data, plan, dice)
    data = replace(
        data,
        categories=tuple(data.categories[index] for index in order),
        values=(tuple(data.values[0][index] for index in order),),
    )
    decimals = plan.percent_decimals if plan.figures else 0
    shares = percents(data, decimals)
    by_value = plan.figures in {"value", "both"}
    texts = tuple(map(data.number, data.values[0])) if by_value else tuple(shares)
    numbers = data.values[0] if by_value else tuple(float(share[:-1]) for share in shares)
    margin = 1.9 if not plan.figures else 10.0 ** -(data.decimals if by_value else decimals) / 2
    return Reading(
        data=data,
        kind="donut chart" if plan.donut else "pie chart",
        mark="slice",
        texts=(texts,),
        numbers=(numbers,),
        margin=margin,
        affixes=(data.prefix, data.suffix) if by_value else ("", "%"),
        shares=tuple(shares) if plan.figures != "value" else (),
        x_title=None,
        y_title=None,
        colours=colours,
        marked=False,
        printed=plan.figures != "",
        subtitle=data.subtitle,
        legend_title=data.legend_title if plan.labels == "legend" else "",
    )
