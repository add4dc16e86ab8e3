"""Bar and line charts on a canvas."""

from collections.abc import Sequence
from dataclasses import replace

from mm.synthetic.chart_axes import (
    CategoryLabels,
    Legend,
    LegendKey,
    NoRoomError,
    Typeset,
    ValueAxis,
    fit_categories,
    make_axis,
    place_title,
    reserve_legend,
)
from mm.synthetic.chart_bars import draw_bars
from mm.synthetic.chart_canvas import Canvas, Rect
from mm.synthetic.chart_data import ChartData
from mm.synthetic.chart_lines import MARKERS, draw_lines
from mm.synthetic.chart_plan import Plot, PlotPlan
from mm.synthetic.chart_styles import Look
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, Pen


def series_colours(look: Look, data: ChartData, plan: PlotPlan) -> list[Colour]:
    """A colour a series, or a colour a bar."""
    count = len(data.categories) if plan.many_colours else len(data.series)
    if count > len(look.palette):
        raise NoRoomError("colours")
    return list(look.palette[:count])


def _axis(data: ChartData, plan: PlotPlan, wanted: int, snug: bool) -> ValueAxis:
    values = [value for row in data.values for value in row]
    if plan.stacked:
        values = [sum(column) for column in zip(*data.values, strict=True)]
    headroom = 0.0 if plan.stacked or not plan.printed else 0.16 if plan.horizontal else 0.26 if plan.upright else 0.1
    far = plan.shape == "line" and min(values) > 0.45 * max(values)
    return make_axis(values, wanted=wanted, from_zero=not far, snug=snug, headroom=headroom)


def _tick_texts(axis: ValueAxis, data: ChartData, bare: bool, form: str) -> list[str]:
    """Ticks as written; ``form`` is "", "k" (thousands, where they are whole) or "." (one decimal more)."""
    whole = axis.ticks[-1] >= 1000 and all(tick % 100 == 0 for tick in axis.ticks)
    if form == "k" and whole and not data.suffix:
        prefix = "" if bare else data.prefix
        return [f"{'-' if tick < 0 else ''}{prefix}{abs(tick) / 1000:g}{'k' if tick else ''}" for tick in axis.ticks]
    texts, decimals = [], axis.decimals + (form == "." and axis.ticks[-1] < 1000)
    for tick in axis.ticks:
        body = f"{abs(tick):,.{decimals}f}".replace(",", data.thousands)
        sign = "-" if tick < 0 else ""
        texts.append(sign + body if bare else f"{sign}{data.prefix}{body}{data.suffix}")
    return texts


def draw_axes_chart(canvas: Canvas, look: Look, pens: Typeset, data: ChartData, plan: PlotPlan, dice: Dice) -> Plot:
    """Draw the whole chart; returns where its plot lies.

    Raises:
        NoRoomError: something does not fit.
    """
    em = pens.em
    pad = em * dice.uniform(0.4, 1.1)
    box: Rect = (pad, pad, canvas.width - pad, canvas.height - pad)
    box = place_title(canvas, look, pens, data.title, box, dice.chance(0.04), data.subtitle)
    colours = series_colours(look, data, plan)
    keys = _legend_keys(data, plan, colours, dice)
    legend = corner = None
    if plan.legend in {"right", "left", "top", "bottom"}:
        legend, corner, box = reserve_legend(keys, pens.body, look, plan.legend, box, dice, data.legend_title)
    elif plan.legend == "ends":
        wide = max(pens.body.width(name) for name in data.series) + 0.6 * em
        box = (box[0], box[1], box[2] - wide, box[3])
    box = _axis_titles(canvas, look, pens, data, plan, box, dice)
    plot, ticks, labels = _fit_plot(pens, data, plan, box, dice)
    hidden = plan.printed and dice.chance(0.25)
    _draw_frame(canvas, look, pens, plot, [] if hidden else ticks, labels, data)
    if plan.shape == "bar":
        draw_bars(canvas, look, pens.body, data, plan, plot, colours, dice)
    else:
        draw_lines(canvas, look, pens.body, data, plan, plot, keys, dice)
    if plan.legend == "inside":
        legend, corner = _legend_inside(pens.body, look, data, plan, plot, keys)
    if legend is not None and corner is not None:
        legend.draw(canvas, look, *corner)
    return replace(plot, ticks=() if hidden else tuple(ticks))


def _legend_keys(data: ChartData, plan: PlotPlan, colours: list[Colour], dice: Dice) -> list[LegendKey]:
    if plan.shape == "bar":
        return [LegendKey(name, colour, "box") for name, colour in zip(data.series, colours, strict=False)]
    common = [shape for shape in MARKERS[:4] for _ in range(3)] + list(MARKERS[4:])
    markers = [dice.pick(common)] * len(data.series) if dice.chance(0.6) else dice.shuffled(MARKERS[:8])
    marked, dashed = dice.chance(0.64), dice.chance(0.2)
    return [
        LegendKey(
            name, colour, "line", 12.0 * (0, 0.6, 0.3, 0.15)[index % 4] if dashed else 0.0, shape if marked else ""
        )
        for index, (name, colour, shape) in enumerate(zip(data.series, colours, markers, strict=False))
    ]


def _axis_titles(
    canvas: Canvas, look: Look, pens: Typeset, data: ChartData, plan: PlotPlan, box: Rect, dice: Dice
) -> Rect:
    """Write the axis titles; which one is below depends on the direction of the bars."""
    x0, y0, x1, y1 = box
    below, beside = (
        (data.value_title, data.category_title) if plan.horizontal else (data.category_title, data.value_title)
    )
    pen = pens.axis
    if below:
        if pen.width(below) > x1 - x0:
            raise NoRoomError("axis title")
        canvas.text((x0 + x1) / 2, y1, below, pen, look.ink, "mb")
        y1 -= 1.35 * pen.size
    if beside:
        if dice.chance(0.12) and pen.width(beside) < 0.6 * (x1 - x0):  # flat, above the axis
            canvas.text(x0, y0 + pen.ascent, beside, pen, look.ink, "ls")
            y0 += 1.7 * pen.size
        else:
            if pen.width(beside) > y1 - y0:
                raise NoRoomError("axis title")
            canvas.text(x0, (y0 + y1) / 2, beside, pen, look.ink, "mt", 90.0)
            x0 += 1.45 * pen.size
    return (x0, y0, x1, y1)


def _fit_plot(
    pens: Typeset, data: ChartData, plan: PlotPlan, box: Rect, dice: Dice
) -> tuple[Plot, list[str], CategoryLabels | None]:
    """The plot's box, tick texts and labels below it (None where the categories stand at the left)."""
    em, pen, count = pens.em, pens.body, len(data.categories)
    x0, y0, x1, y1 = box
    snug, bare = dice.chance(0.45), dice.chance(0.5) and data.suffix not in {"k", "K", "M"}
    form = dice.weighted({"": 8.3, "k": 1.0, ".": 0.7})
    edge = plan.shape == "line" and dice.chance(0.35)  # the first point lies on the axis
    for wanted in range(dice.integer(4, 9), 1, -1):
        axis = _axis(data, plan, wanted, snug)
        ticks = _tick_texts(axis, data, bare, form)
        widest = max(map(pen.width, ticks))
        pixels_a_tick = (axis.ticks[1] - axis.ticks[0]) / (axis.high - axis.low)
        labels = None
        if plan.horizontal:
            left = max(map(pen.width, data.categories)) + 0.7 * em
            inner = (x0 + left, y0 + 0.3 * em, x1 - max(0.5 * em, pen.width(ticks[-1]) / 2), y1 - 1.6 * em)
            spacing, needed = pixels_a_tick * (inner[2] - inner[0]), widest + 0.8 * em
        else:
            inner_x0, inner_x1 = x0 + widest + 0.8 * em, x1 - 0.4 * em
            slot = (inner_x1 - inner_x0) / (count - 1 if edge and count > 1 else count)
            labels = fit_categories(data.categories, pen, slot, 0.42 * (y1 - y0), dice)
            if edge or labels.angle == 0:
                inner_x1 -= 0.0 if not edge else pen.width(data.categories[-1]) / 2
            inner = (inner_x0, y0 + 0.5 * em, inner_x1, y1 - labels.height - 0.6 * em)
            spacing, needed = pixels_a_tick * (inner[3] - inner[1]), 1.35 * em
        if spacing >= needed:
            break
    else:
        raise NoRoomError("ticks")
    width, height = inner[2] - inner[0], inner[3] - inner[1]
    if width < 6 * em or height < 5 * em:
        raise NoRoomError("plot")
    if plan.horizontal:
        slot = height / count
        if slot < 1.25 * em:
            raise NoRoomError("bars")
        centres = tuple(inner[1] + slot * (place + 0.5) for place in range(count))
    elif edge and count > 1:
        slot = width / (count - 1)
        centres = tuple(inner[0] + slot * index for index in range(count))
    else:
        slot = width / count
        centres = tuple(inner[0] + slot * (index + 0.5) for index in range(count))
    return Plot(inner, axis, plan.horizontal, centres, slot), ticks, labels


def _draw_frame(
    canvas: Canvas,
    look: Look,
    pens: Typeset,
    plot: Plot,
    ticks: Sequence[str],
    labels: CategoryLabels | None,
    data: ChartData,
) -> None:
    """Background, grid, axes, ticks and their labels. Without ``ticks`` the value axis is not drawn."""
    x0, y0, x1, y1 = plot.box
    em, pen, thin = pens.em, pens.body, max(1.0, pens.em / 16)
    if look.plot != look.paper:
        canvas.rect(plot.box, look.plot)
    dash = look.grid_dash * em
    length = {"out": 0.3 * em, "in": -0.3 * em, "": 0.0}[look.ticks]
    places = [plot.value(tick) for tick in plot.axis.ticks]
    for place, text in zip(places, ticks, strict=False):
        if plot.horizontal:
            if look.grid is not None:
                canvas.line([(place, y0), (place, y1)], look.grid, thin, dash)
            if length:
                canvas.line([(place, y1), (place, y1 + length)], look.spine, thin)
            canvas.text(place, y1 + 0.5 * em, text, pen, look.soft, "mt")
        else:
            if look.grid is not None:
                canvas.line([(x0, place), (x1, place)], look.grid, thin, dash)
            if length:
                canvas.line([(x0 - length, place), (x0, place)], look.spine, thin)
            canvas.text(x0 - 0.5 * em, place, text, pen, look.soft, "rm")
    for place in plot.centres:
        if look.grid is not None and look.grid_axis == "both" and ticks:
            line = [(x0, place), (x1, place)] if plot.horizontal else [(place, y0), (place, y1)]
            canvas.line(line, look.grid, thin, dash)
        if length:
            line = [(x0 - length, place), (x0, place)] if plot.horizontal else [(place, y1), (place, y1 + length)]
            canvas.line(line, look.spine, thin)
    sides = {"l": [(x0, y0), (x0, y1)], "b": [(x0, y1), (x1, y1)], "t": [(x0, y0), (x1, y0)], "r": [(x1, y0), (x1, y1)]}
    for side in look.spines:
        if ticks or side == ("l" if plot.horizontal else "b"):
            canvas.line(sides[side], look.spine, thin)
    if plot.axis.low < 0 < plot.axis.high:
        zero = plot.value(0.0)
        canvas.line([(zero, y0), (zero, y1)] if plot.horizontal else [(x0, zero), (x1, zero)], look.soft, thin)
    if labels is not None:
        labels.draw(canvas, pen, look.soft, plot.centres, y1 + 0.4 * em)
    else:
        for name, place in zip(data.categories, plot.centres, strict=True):
            canvas.text(x0 - 0.5 * em, place, name, pen, look.soft, "rm")


def _legend_inside(
    pen: Pen, look: Look, data: ChartData, plan: PlotPlan, plot: Plot, keys: list[LegendKey]
) -> tuple[Legend, tuple[float, float]]:
    """A legend in a corner of the plot that no mark or number touches."""
    em = pen.size
    x0, y0, x1, y1 = plot.box
    legend = Legend(
        keys,
        pen,
        stacked=True,
        width=0.6 * (x1 - x0),
        framed=look.legend_frame != "",
        heading=data.legend_title,
        flipped=look.ticks == "in",
    )
    if plan.horizontal:
        ends = [max(plot.value(value) for value in column) + 0.6 * em for column in zip(*data.values, strict=True)]
        if plan.stacked:
            ends = [plot.value(sum(column)) + 0.6 * em for column in zip(*data.values, strict=True)]
        if plan.printed and not plan.stacked:
            ends = [end + max(pen.width(data.number(v)) for row in data.values for v in row) for end in ends]
        for y in (y1 - legend.height - 0.5 * em, y0 + 0.5 * em):
            reach = [
                end
                for end, centre in zip(ends, plot.centres, strict=True)
                if y - plot.slot / 2 < centre < y + legend.height + plot.slot / 2
            ]
            if max(reach, default=x0) < x1 - legend.width - 0.5 * em:
                return legend, (x1 - legend.width - 0.5 * em, y)
        raise NoRoomError("legend inside")
    tops = [
        min(plot.value(value) for value in column) - (1.8 * em if plan.printed else 0.6 * em)
        for column in zip(*data.values, strict=True)
    ]
    if plan.stacked:
        tops = [plot.value(sum(column)) - 0.4 * em for column in zip(*data.values, strict=True)]
    for x in (x1 - legend.width - 0.5 * em, x0 + 0.5 * em, (x0 + x1 - legend.width) / 2):
        reach = [
            top
            for top, centre in zip(tops, plot.centres, strict=True)
            if x - plot.slot - 0.3 * em < centre < x + legend.width + plot.slot + 0.3 * em
        ]
        if y0 + 0.5 * em + legend.height < min(reach, default=y1):
            return legend, (x, y0 + 0.5 * em)
    raise NoRoomError("legend inside")
