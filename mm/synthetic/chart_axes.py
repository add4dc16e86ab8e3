"""The frame of a chart: numbers along an axis, titles, legend and category labels, and what room they leave."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.chart_canvas import Canvas, Rect
from mm.synthetic.chart_styles import Look
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, FontSet, Pen
from mm.synthetic.layout import wrap


class NoRoomError(Exception):
    """The chart does not fit its canvas; the caller draws another one."""


def nice_step(raw: float, mantissas: Sequence[float]) -> float:
    """The smallest of ``mantissas`` times a power of ten that is at least ``raw`` (> 0)."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (*mantissas, 10.0 * mantissas[0]) if m * power >= raw * (1 - 1e-9))


@dataclass(frozen=True)
class ValueAxis:
    """A linear scale from ``low`` to ``high`` with labelled ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int  # of the tick labels

    def at(self, value: float) -> float:
        """Position of a value, 0 at ``low`` and 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)

    @property
    def grain(self) -> float:
        """What values are rounded to when read from the axis: 1, 2 or 5 times a power of ten, at most 1/40 of it."""
        raw = (self.high - self.low) / 40
        power = 10.0 ** math.floor(math.log10(raw) + 1e-9)
        return max(m * power for m in (1.0, 2.0, 5.0) if m * power <= raw * (1 + 1e-9))

    def read(self, value: float) -> float:
        """The value as it can be read from the axis (error at most 1.25 % of the axis)."""
        return round(round(value / self.grain) * self.grain, 9) + 0.0


def make_axis(values: Sequence[float], *, wanted: int, from_zero: bool, snug: bool, headroom: float) -> ValueAxis:
    """A scale that holds ``values``.

    Args:
        values: at least one number.
        wanted: ticks, roughly.
        from_zero: zero belongs to the axis.
        snug: the axis ends a little above the largest value instead of at a tick.
        headroom: share of the axis to leave free above the largest value.
    """
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high)
    span = (high - low) or abs(high) or 1.0
    if high == low:
        high += span
    high += headroom * span
    low -= headroom * span if low < 0 else 0.0
    if not from_zero:
        low -= 0.06 * span
    step = nice_step((high - low) / max(1, wanted), (1.0, 2.0, 2.5, 5.0))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    start, end = first * step, last * step
    if snug:
        start = 0.0 if from_zero and low >= 0 else low - 0.05 * span
        end = high + 0.05 * span
    ticks = tuple(
        round(index * step, 9) for index in range(first, last + 1) if start - 1e-9 <= index * step <= end + 1e-9
    )
    if len(ticks) < 3:
        raise NoRoomError("an axis with fewer than three ticks")
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9 * step), 6)
    return ValueAxis(start, end, ticks, decimals)


@dataclass(frozen=True)
class Typeset:
    """The pens of a chart."""

    em: int
    body: Pen  # tick labels, legend, numbers
    title: Pen
    axis: Pen  # axis titles


def typeset(fonts: FontSet, look: Look, em: int, dice: Dice) -> Typeset:
    """Pens for body text of ``em`` pixels."""
    face = look.face
    strong = face.bold if look.title_bold and face.bold is not None else face.regular
    title = 2 * round(em * dice.uniform(1.0, 1.35) / 2)  # few sizes: opening a font costs more than a title
    axis_path = face.bold if face.bold is not None and dice.chance(0.12) else face.regular
    shaped = dice.chance(0.15)  # kerning, as most programs do
    return Typeset(
        em,
        fonts.pen(face.regular, em, shaped=shaped),
        fonts.pen(strong, title, shaped=shaped),
        fonts.pen(axis_path, em if dice.chance(0.6) else round(1.1 * em), shaped=shaped),
    )


def place_title(
    canvas: Canvas, look: Look, pens: Typeset, title: str, box: Rect, at_bottom: bool, subtitle: str = ""
) -> Rect:
    """Write the title above (or below) what remains of ``box``, a subtitle below it; returns the rest."""
    x0, y0, x1, y1 = box
    if not title:
        return box
    pen = pens.title
    lines = wrap(title, pen, x1 - x0)
    if len(lines) > 2 or any(pen.width(line) > x1 - x0 for line in lines) or pens.body.width(subtitle) > x1 - x0:
        raise NoRoomError("title")
    pitch = pen.size * 1.22
    below = 1.25 * pens.em if subtitle else 0.0
    top = y1 - pitch * len(lines) - below if at_bottom else y0
    x = {"l": x0, "m": (x0 + x1) / 2, "r": x1}[look.title_align]
    for index, line in enumerate(lines):
        canvas.text(x, top + pitch * index + 0.95 * pen.size, line, pen, look.ink, look.title_align + "s")
    if subtitle:
        foot = top + pitch * len(lines) + 0.95 * pens.em
        canvas.text(x, foot, subtitle, pens.body, look.soft, look.title_align + "s")
    used = pitch * len(lines) + below + 0.45 * pens.em
    return (x0, y0, x1, y1 - used) if at_bottom else (x0, y0 + used, x1, y1)


@dataclass(frozen=True)
class LegendKey:
    """One entry: its name, colour, and how the sample of it is drawn ("box", "dot" or "line")."""

    name: str
    colour: Colour
    kind: str
    dash: float = 0.0
    marker: str = ""  # shape of its points, see ``Canvas.marker``; empty: none


class Legend:
    """Entries below each other, or in rows of at most ``width`` pixels.

    ``heading`` stands above them; with ``flipped`` the samples stand behind the names.
    """

    def __init__(
        self,
        keys: Sequence[LegendKey],
        pen: Pen,
        *,
        stacked: bool,
        width: float,
        framed: bool,
        heading: str = "",
        flipped: bool = False,
    ) -> None:
        self.pen, self.em, self.heading, self.flipped = pen, pen.size, heading, flipped
        self.pad = 0.5 * self.em if framed else 0.0
        self.rows: list[list[LegendKey]] = [[]]
        used = 0.0
        for key in keys:
            size = self.entry_width(key)
            if self.rows[-1] and (stacked or used + size > width - 2 * self.pad):
                self.rows.append([])
                used = 0.0
            self.rows[-1].append(key)
            used += size + self.em
        self.pitch = 1.35 * self.em
        self.width = max(sum(self.entry_width(k) + self.em for k in row) - self.em for row in self.rows) + 2 * self.pad
        self.width = max(self.width, pen.width(heading) + 2 * self.pad)
        self.height = self.pitch * (len(self.rows) + (heading != "")) + 2 * self.pad
        if self.width > width:
            raise NoRoomError("legend")

    def key_width(self, key: LegendKey) -> float:
        """Pixels of the sample and the gap behind it."""
        return (1.0 if key.kind in {"box", "dot"} else 1.9) * self.em + 0.45 * self.em

    def entry_width(self, key: LegendKey) -> float:
        """Pixels of one entry."""
        return self.key_width(key) + self.pen.width(key.name)

    def draw(self, canvas: Canvas, look: Look, x: float, y: float) -> None:
        """Draw with the upper left corner at (x, y)."""
        if self.pad:
            fill = look.paper if look.legend_frame == "line" else look.plot
            edge = look.grid or look.soft
            canvas.rect((x, y, x + self.width, y + self.height), fill, edge, 1.0, radius=0.15 * self.em)
        if self.heading:
            canvas.text(x + self.pad, y + self.pad + self.pitch / 2, self.heading, self.pen, look.ink, "lm")
            y += self.pitch
        for number, row in enumerate(self.rows):
            left, middle = x + self.pad, y + self.pad + self.pitch * (number + 0.5)
            for key in row:
                sample = self.key_width(key) - 0.45 * self.em
                if self.flipped:
                    start = (
                        x + self.width - self.pad - sample if len(row) == 1 else left + self.entry_width(key) - sample
                    )
                    canvas.text(start - 0.45 * self.em, middle, key.name, self.pen, look.soft, "rm")
                else:
                    start = left
                    canvas.text(left + self.key_width(key), middle, key.name, self.pen, look.soft, "lm")
                self._sample(canvas, look, key, start, start + sample, middle)
                left += self.entry_width(key) + self.em

    def _sample(self, canvas: Canvas, look: Look, key: LegendKey, x0: float, x1: float, y: float) -> None:
        size = 0.36 * self.em
        centre = (x0 + x1) / 2
        if key.kind == "box":
            canvas.rect((centre - 0.4 * self.em, y - size, centre + 0.4 * self.em, y + size), key.colour, look.edge)
        elif key.kind == "dot":
            canvas.ellipse((centre - size, y - size, centre + size, y + size), key.colour)
        else:
            canvas.line([(x0, y), (x1, y)], key.colour, max(1.5, 0.14 * self.em), key.dash)
            if key.marker:
                canvas.marker(key.marker, (centre, y), 0.8 * size, key.colour, look.edge, look.plot)


def reserve_legend(
    keys: Sequence[LegendKey], pen: Pen, look: Look, place: str, box: Rect, dice: Dice, heading: str = ""
) -> tuple[Legend, tuple[float, float], Rect]:
    """A legend at a side of ``box`` (right, left, top, bottom): it, its corner, and what remains of the box."""
    x0, y0, x1, y1 = box
    stacked, gap = place in {"right", "left"}, 0.8 * pen.size
    room = (x1 - x0) * 0.5 if stacked else x1 - x0
    legend = Legend(
        keys,
        pen,
        stacked=stacked,
        width=room,
        framed=look.legend_frame != "",
        heading=heading,
        flipped=stacked and dice.chance(0.06),
    )
    if legend.height > (y1 - y0) * (1.0 if stacked else 0.35):
        raise NoRoomError("legend")
    if stacked:
        free = y1 - y0 - legend.height
        y = y0 + free * dice.pick([0.0, 0.1, 0.5, 0.5])
        if place == "right":
            return legend, (x1 - legend.width, y), (x0, y0, x1 - legend.width - gap, y1)
        return legend, (x0, y), (x0 + legend.width + gap, y0, x1, y1)
    x = x0 + (x1 - x0 - legend.width) * dice.pick([0.0, 0.5, 0.5, 1.0])
    if place == "top":
        return legend, (x, y0), (x0, y0 + legend.height + 0.6 * gap, x1, y1)
    return legend, (x, y1 - legend.height), (x0, y0, x1, y1 - legend.height - 0.6 * gap)


@dataclass(frozen=True)
class CategoryLabels:
    """How the labels below the plot are written: flat, wrapped in two lines, or turned by ``angle``."""

    texts: tuple[tuple[str, ...], ...]  # lines of each label
    angle: float
    height: float  # pixels below the axis

    def draw(self, canvas: Canvas, pen: Pen, ink: Colour, xs: Sequence[float], y: float) -> None:
        """Write them below ``y``, one at each x."""
        for lines, x in zip(self.texts, xs, strict=True):
            if self.angle:
                canvas.text(x, y + 0.1 * pen.size, lines[0], pen, ink, "rm" if self.angle == 90 else "rt", self.angle)
            for index, line in enumerate(lines if not self.angle else ()):
                canvas.text(x, y + 0.1 * pen.size + 1.15 * pen.size * index, line, pen, ink, "mt")


def fit_categories(names: Sequence[str], pen: Pen, slot: float, room: float, dice: Dice) -> CategoryLabels:
    """Choose how labels fit a slot of ``slot`` pixels each and ``room`` pixels of height."""
    em = pen.size
    widest = max(pen.width(name) for name in names)
    flat = widest <= slot - 0.45 * em
    if flat and not dice.chance(0.13):
        return CategoryLabels(tuple((name,) for name in names), 0.0, 1.1 * em)
    if not flat and dice.chance(0.5) and any(" " in name for name in names):
        split = tuple(tuple(wrap(name, pen, slot - 0.45 * em)) for name in names)
        if all(len(lines) <= 2 and max(map(pen.width, lines)) <= slot - 0.45 * em for lines in split):
            return CategoryLabels(split, 0.0, (0.1 + 1.15 * max(map(len, split))) * em)
    angle = (
        dice.pick([45.0, 45.0, 90.0, 30.0])
        if slot > 1.9 * em
        else 45.0
        if slot > 1.5 * em and dice.chance(0.6)
        else 90.0
    )
    height = widest * math.sin(math.radians(angle)) + (0.3 + 0.8 * math.cos(math.radians(angle))) * em
    if height > room or slot < 1.15 * em:
        raise NoRoomError("category labels")
    return CategoryLabels(tuple((name,) for name in names), angle, height)
