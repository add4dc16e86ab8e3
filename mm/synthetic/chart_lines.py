"""The lines of a chart, with markers and numbers."""

from collections.abc import Sequence
from itertools import pairwise

from mm.synthetic.chart_axes import LegendKey
from mm.synthetic.chart_canvas import Canvas, Point
from mm.synthetic.chart_data import ChartData
from mm.synthetic.chart_plan import Plot, PlotPlan
from mm.synthetic.chart_styles import Look
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Pen

MARKERS = ("circle", "square", "diamond", "triangle", "down", "plus", "cross", "star", "ring", "box")


def _smoothed(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A Catmull-Rom curve through the points, its rises never beyond them (tangents are flat at turns)."""
    found = [points[0]]
    slopes = [0.0] * len(points)
    for index in range(1, len(points) - 1):
        before, behind = points[index][1] - points[index - 1][1], points[index + 1][1] - points[index][1]
        if before * behind > 0:
            slopes[index] = 2 * before * behind / (before + behind)
    for (one, other), (rise, fall) in zip(pairwise(points), pairwise(slopes), strict=True):
        for step in range(1, steps + 1):
            t = step / steps
            cubic, square = t * t * t, t * t
            y = (2 * cubic - 3 * square + 1) * one[1] + (cubic - 2 * square + t) * rise
            y += (3 * square - 2 * cubic) * other[1] + (cubic - square) * fall
            found.append((one[0] + (other[0] - one[0]) * t, y))
    return found


def _stairs(points: Sequence[Point]) -> list[Point]:
    """Level pieces around each point, joined by upright ones half-way."""
    found = [points[0]]
    for one, other in pairwise(points):
        middle = (one[0] + other[0]) / 2
        found += [(middle, one[1]), (middle, other[1])]
    return [*found, points[-1]]


def draw_lines(
    canvas: Canvas, look: Look, pen: Pen, data: ChartData, plan: PlotPlan, plot: Plot, keys: list[LegendKey], dice: Dice
) -> None:
    """Draw all series."""
    em = pen.size
    width = max(1.5, look.line_width * em)
    form = dice.weighted({"straight": 8.5, "smooth": 1.2, "stairs": 0.2})
    fallback = dice.pick(MARKERS[:4]) if plan.printed or len(data.categories) < 3 else ""
    for row, key in zip(data.values, keys, strict=True):
        points = [(x, plot.value(value)) for x, value in zip(plot.centres, row, strict=True)]
        path = _smoothed(points) if form == "smooth" else _stairs(points) if form == "stairs" else points
        if len(data.series) == 1 and dice.chance(0.12):
            red, green, blue = (round(a + (b - a) * 0.65) for a, b in zip(key.colour, look.plot, strict=True))
            floor = plot.box[3]
            canvas.polygon([(points[0][0], floor), *path, (points[-1][0], floor)], (red, green, blue))
        canvas.line(path, key.colour, width, key.dash * em / 12)
        for point in points if key.marker or fallback else ():
            canvas.marker(key.marker or fallback, point, max(2.5, 0.27 * em), key.colour, look.edge, look.plot)
        if plan.printed:
            for index, ((x, y), value) in enumerate(zip(points, row, strict=True)):
                valley = all(y > beside[1] for beside in points[max(0, index - 1) : index + 2] if beside[0] != x)
                shift, anchor = (0.6 * em, "mt") if valley else (-0.55 * em, "ms")
                canvas.text(x, y + shift, data.number(value), pen, look.soft, anchor)
        if plan.legend == "ends":
            canvas.text(points[-1][0] + 0.5 * em, points[-1][1], key.name, pen, key.colour, "lm")
