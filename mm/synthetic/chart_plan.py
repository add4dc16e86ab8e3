"""What is drawn of a bar or line chart, and where its scales run."""

from dataclasses import dataclass

from mm.synthetic.chart_axes import ValueAxis
from mm.synthetic.chart_canvas import Rect


@dataclass(frozen=True)
class PlotPlan:
    """What is drawn of a bar or line chart."""

    shape: str  # "bar" or "line"
    horizontal: bool
    stacked: bool
    printed: bool  # every value stands at its mark
    legend: str  # "", right, left, top, bottom, inside or ends
    many_colours: bool  # a colour for each bar of a single series
    upright: bool = False  # numbers at vertical bars are turned by 90 degrees, read from below


@dataclass(frozen=True)
class Plot:
    """A placed plot: where the scales run, in pixels."""

    box: Rect
    axis: ValueAxis
    horizontal: bool
    centres: tuple[float, ...]  # of the categories, left to right or top to bottom
    slot: float
    ticks: tuple[str, ...] = ()  # numbers written along the value axis

    def value(self, value: float) -> float:
        """Pixel of a value along the value axis."""
        x0, y0, x1, y1 = self.box
        share = self.axis.at(value)
        return x0 + share * (x1 - x0) if self.horizontal else y1 - share * (y1 - y0)
