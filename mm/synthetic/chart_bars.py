"""The bars of a chart, with their numbers."""

from mm.synthetic.chart_axes import NoRoomError
from mm.synthetic.chart_canvas import Canvas, Rect
from mm.synthetic.chart_data import ChartData
from mm.synthetic.chart_plan import Plot, PlotPlan
from mm.synthetic.chart_styles import Look, contrast
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, Pen


def draw_bars(
    canvas: Canvas, look: Look, pen: Pen, data: ChartData, plan: PlotPlan, plot: Plot, colours: list[Colour], dice: Dice
) -> None:
    """Draw all bars.

    Raises:
        NoRoomError: a bar is too thin, or a number does not fit on it.
    """
    em, lanes = pen.size, 1 if plan.stacked else len(data.series)
    fill = dice.weighted({dice.uniform(0.5, 0.92): 8, dice.uniform(0.3, 0.5): 1.2, 1.0: 0.3})
    finish = dice.weighted({"": 8.8, "gradient": 0.7, "hatch": 0.5})
    thickness = plot.slot * fill / lanes
    if thickness < 3 or (plan.printed and plan.horizontal and thickness < 0.95 * em):
        raise NoRoomError("bars")
    radius = 0.2 * thickness if not plan.stacked and dice.chance(0.07) else 0.0
    inside = plan.stacked or (plan.printed and dice.chance(0.17))
    centred = plan.stacked or dice.chance(0.35)
    base = [0.0] * len(data.categories)
    for s, row in enumerate(data.values):
        for c, value in enumerate(row):
            lane = 0 if plan.stacked else s
            start = plot.centres[c] - plot.slot * fill / 2 + lane * thickness
            low, high = plot.value(max(base[c], plot.axis.low)), plot.value(base[c] + value)
            base[c] += value if plan.stacked else 0.0
            colour = colours[c if plan.many_colours else s]
            gap = 0.06 * thickness if lanes > 1 and fill < 0.8 else 0.0
            box = (
                (low, start, high, start + thickness - gap)
                if plan.horizontal
                else (start, high, start + thickness - gap, low)
            )
            canvas.rect(box, colour, look.edge, max(1.0, em / 16), radius)
            if finish and not radius and not inside:
                _finish_bar(canvas, box, colour, finish, plan.horizontal, (s + 1) * 0.3 * em)
            if plan.printed:
                _bar_label(
                    canvas,
                    look,
                    pen,
                    data.number(value),
                    box,
                    plan.horizontal,
                    value < 0,
                    colour if inside else None,
                    centred,
                    plan.upright,
                )


def _finish_bar(canvas: Canvas, box: Rect, colour: Colour, finish: str, horizontal: bool, gap: float) -> None:
    """Shading across a bar, or strokes over it, in another shade of its colour."""
    x0, x1 = sorted((box[0], box[2]))
    y0, y1 = sorted((box[1], box[3]))
    goal = 0 if sum(colour) > 380 else 255

    def shade(share: float) -> Colour:
        red, green, blue = (round(value + (goal - value) * share) for value in colour)
        return (red, green, blue)

    if finish == "gradient":
        for step in range(6):
            a, b = step / 6, (step + 1) / 6
            part = (x0, y0 + (y1 - y0) * a, x1, y0 + (y1 - y0) * b)
            if not horizontal:
                part = (x0 + (x1 - x0) * a, y0, x0 + (x1 - x0) * b, y1)
            canvas.rect(part, shade(0.06 * abs(step - 2)))
        return
    place, gap = x0 - (y1 - y0) + 2 * gap, 2 * max(2.5, gap)
    while place < x1:  # strokes at 45 degrees, cut at the sides
        start, end = max(place, x0), min(place + (y1 - y0), x1)
        if start < end:
            canvas.line([(start, y1 - (start - place)), (end, y1 - (end - place))], shade(0.55), 1.0)
        place += gap


def _bar_label(
    canvas: Canvas,
    look: Look,
    pen: Pen,
    text: str,
    box: Rect,
    horizontal: bool,
    negative: bool,
    fill: Colour | None,
    centred: bool,
    upright: bool,
) -> None:
    """The number at the end of a bar, or on it where ``fill`` is its colour."""
    x0, x1 = min(box[0], box[2]), max(box[0], box[2])
    y0, y1 = min(box[1], box[3]), max(box[1], box[3])
    em, width = pen.size, pen.width(text)
    ink = look.soft if fill is None else max(((255, 255, 255), (0, 0, 0)), key=lambda shade: contrast(shade, fill))
    if upright:
        if x1 - x0 < 0.95 * em or (fill is not None and y1 - y0 < width + 0.6 * em):
            raise NoRoomError("upright number")
        tip, beyond = (y1, 1) if negative else (y0, -1)
        away = beyond * (0.35 if fill is None else -0.35) * em
        reads_from_tip = (beyond < 0) == (fill is None)  # the text grows upwards
        canvas.text((x0 + x1) / 2, tip + away, text, pen, ink, "lm" if reads_from_tip else "rm", 90.0)
    elif fill is not None:
        along, across = (x1 - x0, y1 - y0) if horizontal else (y1 - y0, x1 - x0)
        if (along < width + 0.3 * em or across < 0.95 * em) if horizontal else (along < 1.15 * em or across < width):
            raise NoRoomError("number on a bar")
        if centred:
            canvas.text((x0 + x1) / 2, (y0 + y1) / 2, text, pen, ink, "mm")
        elif horizontal:
            canvas.text(
                x0 + 0.3 * em if negative else x1 - 0.3 * em, (y0 + y1) / 2, text, pen, ink, "lm" if negative else "rm"
            )
        else:
            canvas.text(
                (x0 + x1) / 2, y1 - 0.3 * em if negative else y0 + 0.3 * em, text, pen, ink, "mb" if negative else "mt"
            )
    elif horizontal:
        canvas.text(
            x0 - 0.3 * em if negative else x1 + 0.3 * em, (y0 + y1) / 2, text, pen, ink, "rm" if negative else "lm"
        )
    else:
        canvas.text(
            (x0 + x1) / 2, y1 + 0.25 * em if negative else y0 - 0.25 * em, text, pen, ink, "mt" if negative else "ms"
        )
