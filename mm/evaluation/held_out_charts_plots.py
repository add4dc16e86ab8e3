"""Held-out charts with axes: bars upright, bars to the right, grouped bars, lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from numpy.random import Generator

from mm.evaluation.held_out_canvas import Colour, DoesNotFitError, Font, ascender
from mm.evaluation.held_out_charts_canvas import Box, ChartCanvas, Point, contrast
from mm.evaluation.held_out_charts_data import ChartData
from mm.evaluation.held_out_words import chance, pick

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class _Area:
    """The plot area of a chart and how values map into it."""

    box: Box
    data: ChartData
    sideways: bool

    @property
    def length(self) -> float:
        """Pixels along the labels."""
        return self.box[3] - self.box[1] if self.sideways else self.box[2] - self.box[0]

    def along(self, share: float) -> float:
        """Pixel of a place along the labels, 0 to 1."""
        return (self.box[1] if self.sideways else self.box[0]) + share * self.length

    def value(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.data.axis.low) / self.data.axis.span
        left, top, right, bottom = self.box
        return left + share * (right - left) if self.sideways else bottom - share * (bottom - top)

    def bar(self, start: float, end: float, value: float) -> Box:
        """The box of a bar from share ``start`` to share ``end`` along the labels."""
        a, b, root, tip = self.along(start), self.along(end), self.value(self.data.axis.low), self.value(value)
        return (root, a, tip, b) if self.sideways else (a, tip, b, root)


def wrap(text: str, font: Font, width: float) -> list[str]:
    """A text on one row, or on two where one is too narrow.

    Raises:
        DoesNotFitError: it needs more.
    """
    words = text.split()
    for cut in range(len(words), 0, -1):
        rows = [row for row in (" ".join(words[:cut]), " ".join(words[cut:])) if row]
        if all(font.getlength(row) <= width for row in rows):
            return rows
    raise DoesNotFitError(f"{text!r} needs more than two rows")


def draw_title(canvas: ChartCanvas, rng: Generator, title: str) -> float:
    """Write the title; returns the height that it takes."""
    style = canvas.style
    font = style.font(float(rng.uniform(1.1, 1.4)), bold=chance(rng, 0.6))
    rows = wrap(title, font, canvas.width - 2.4 * style.size)
    y = style.size * 1.2
    for row in rows:
        x, at = (style.size * 1.1, "l") if style.title_left else (canvas.width / 2, "m")
        canvas.text(x, y, row, font, at)
        y += font.size * 1.25
    return y - font.size * 0.25


def draw_keys(
    canvas: ChartCanvas, names: Sequence[str], colours: Sequence[Colour], area: Box, *, swatch: str = "square"
) -> Box:
    """A legend at a side of a free area; returns what is left of the area.

    Raises:
        DoesNotFitError: the names are too long for it.
    """
    style, font = canvas.style, canvas.style.font()
    em = style.size
    lengths = [float(font.getlength(name)) + 1.1 * em for name in names]
    left, top, right, bottom = area

    def mark(x: float, y: float, colour: Colour) -> None:
        if swatch == "line":
            canvas.line([(x - 0.1 * em, y), (x + 0.75 * em, y)], colour, 0.17 * em)
        elif swatch == "disc":
            canvas.disc((x + 0.35 * em, y), 0.36 * em, colour)
        else:
            canvas.rectangle((x, y - 0.35 * em, x + 0.7 * em, y + 0.35 * em), colour)

    if style.legend == "right":
        x = right - max(lengths)
        y = (top + bottom) / 2 - (len(names) - 1) * 0.8 * em
        if x < left + 0.45 * (right - left) or y < top:
            raise DoesNotFitError("the legend is too large")
        for name, colour in zip(names, colours, strict=True):
            mark(x, y, colour)
            canvas.text(x + 1.1 * em, y, name, font)
            y += 1.6 * em
        return (left, top, x - em, bottom)
    rows: list[list[int]] = [[]]
    for i in range(len(names)):
        if rows[-1] and sum(lengths[j] + 1.2 * em for j in rows[-1]) + lengths[i] > right - left:
            rows.append([])
        rows[-1].append(i)
    if len(rows) > 3:
        raise DoesNotFitError("the legend is too large")
    y = top + 0.6 * em if style.legend == "top" else bottom - (len(rows) - 0.5) * 1.6 * em + 0.2 * em
    for row in rows:
        x = (left + right) / 2 - (sum(lengths[i] for i in row) + 1.2 * em * (len(row) - 1)) / 2
        for i in row:
            mark(x, y, colours[i])
            canvas.text(x + 1.1 * em, y, names[i], font)
            x += lengths[i] + 1.2 * em
        y += 1.6 * em
    taken = len(rows) * 1.6 * em + 0.4 * em
    return (left, top + taken, right, bottom) if style.legend == "top" else (left, top, right, bottom - taken)


def _value_grid(canvas: ChartCanvas, area: _Area) -> None:
    """Bands, lines or dots at the ticks."""
    style, (left, top, right, bottom) = canvas.style, area.box
    ticks = area.data.axis.ticks()

    def ends(value: float) -> tuple[Point, Point]:
        at = area.value(value)
        return ((at, top), (at, bottom)) if area.sideways else ((left, at), (right, at))

    if style.grid == "bands":
        for low, high in list(pairwise(ticks))[::2]:
            (a, b), (c, d) = ends(low)[0], ends(high)[1]
            shade = tuple(round(0.6 * p + 0.4 * q) for p, q in zip(style.plot, style.line, strict=True))
            canvas.rectangle((min(a, c), min(b, d), max(a, c), max(b, d)), (shade[0], shade[1], shade[2]))
    for value in ticks:
        start, end = ends(value)
        if style.grid == "lines":
            canvas.line([start, end], style.line)
        elif style.grid == "dots":
            canvas.dots(start, end, style.line if contrast(style.line, style.plot) > 60 else style.ink)


def _frame(canvas: ChartCanvas, area: _Area) -> None:
    style, (left, top, right, bottom) = canvas.style, area.box
    if style.frame == "box":
        canvas.rectangle(area.box, None, outline=style.ink)
        return
    side = right if style.axis_right and not area.sideways else left
    if style.frame in {"corner", "base"}:
        base = [(left, top), (left, bottom)] if area.sideways else [(left, bottom), (right, bottom)]
        canvas.line(base, style.ink, 1.4)
    if style.frame == "corner":
        other = [(left, bottom), (right, bottom)] if area.sideways else [(side, top), (side, bottom)]
        canvas.line(other, style.ink, 1.4)


def _upright_area(canvas: ChartCanvas, rng: Generator, data: ChartData, free: Box, *, axis: bool) -> _Area:
    """Axis titles and labels of a chart with upright values; returns the plot area."""
    style, font = canvas.style, canvas.style.font()
    em, rise = style.size, ascender(style.font())
    left, top, right, bottom = free
    ticks = [data.spell_tick(value) for value in data.axis.ticks()] if axis else []
    turned = bool(data.value_title) and chance(rng, 0.75)
    beside = 1.5 * em if turned else 0.0
    if data.value_title and not turned:
        canvas.text(right if style.axis_right else left, top + 0.3 * em, data.value_title, font,
                    "r" if style.axis_right else "l")  # fmt: skip
        top += 1.5 * em
    width = max((float(font.getlength(text)) for text in ticks), default=0.0) + (0.6 * em if axis else 0.0)
    if style.axis_right:
        right -= width + beside
    else:
        left += width + beside
    slot = (right - left) / len(data.labels)
    longest = max(float(font.getlength(label)) for label in data.labels)
    turn = 0 if longest <= slot - 0.45 * em else pick(rng, (90, 40, 40))
    if turn and slot < 1.3 * rise:
        raise DoesNotFitError("too many labels")
    deep = {0: 1.5 * em, 90: longest + 0.9 * em, 40: 0.65 * longest + 1.3 * em}[turn]
    if data.label_title:
        canvas.text((left + right) / 2, bottom - 0.5 * em, data.label_title, font, "m")
        bottom -= 1.5 * em
    bottom -= deep
    top += 0.4 * em
    if bottom - top < 6 * em or right - left < 8 * em:
        raise DoesNotFitError("no room for the plot")
    area = _Area((left, top, right, bottom), data, sideways=False)
    for i, label in enumerate(data.labels):
        x = area.along((i + 0.5) / len(data.labels))
        y = bottom + {0: 0.9 * em, 90: longest / 2 + 0.6 * em, 40: 0.4 * em}[turn]
        if turn == 90:
            y = bottom + 0.6 * em + float(font.getlength(label)) / 2
        canvas.text(x, y, label, font, "m", turn=turn)
    for value, text in zip(data.axis.ticks(), ticks, strict=bool(ticks)):
        if text:
            x, at = (right + 0.5 * em, "l") if style.axis_right else (left - 0.5 * em, "r")
            canvas.text(x, area.value(value), text, font, at)
    if turned:
        x = right + width + 1.0 * em if style.axis_right else left - width - 0.8 * em
        canvas.text(x, (top + bottom) / 2, data.value_title, font, "m", turn=90)
    return area


def _sideways_area(canvas: ChartCanvas, rng: Generator, data: ChartData, free: Box, *, axis: bool) -> _Area:
    """Axis titles and labels of a chart whose values run to the right; returns the plot area."""
    style, font = canvas.style, canvas.style.font()
    em = style.size
    left, top, right, bottom = free
    if data.label_title:
        canvas.text(left, top + 0.4 * em, data.label_title, font)
        top += 1.4 * em
    if data.value_title:
        canvas.text((left + right) / 2, bottom - 0.5 * em, data.value_title, font, "m")
        bottom -= 1.5 * em
    ticks = [data.spell_tick(value) for value in data.axis.ticks()] if axis else []
    if axis:
        bottom -= 1.5 * em
        right -= font.getlength(ticks[-1]) / 2
    left += max(float(font.getlength(label)) for label in data.labels) + 0.6 * em
    if right - left < 7 * em or (bottom - top) / len(data.labels) < 1.35 * em:
        raise DoesNotFitError("no room for the plot")
    area = _Area((left, top, right, bottom), data, sideways=True)
    for i, label in enumerate(data.labels):
        canvas.text(left - 0.5 * em, area.along((i + 0.5) / len(data.labels)), label, font, "r")
    for value, text in zip(data.axis.ticks(), ticks, strict=bool(ticks)):
        if text:
            canvas.text(area.value(value), bottom + 0.9 * em, text, font, "m")
    return area


def _bars(canvas: ChartCanvas, rng: Generator, area: _Area, *, printed: bool, many: bool) -> None:
    """The bars of every series, with their figures beyond or inside the tips."""
    data, style, font = area.data, canvas.style, canvas.style.font()
    em, rise = style.size, ascender(style.font())
    slots, rows = len(data.labels), len(data.series)
    thick = float(rng.uniform(0.5, 0.85)) / rows
    inside = rows == 1 and chance(rng, 0.35)
    turn = 90 if printed and not area.sideways and rows > 1 and chance(rng, 0.5) else 0
    for i in range(slots):
        for s in range(rows):
            colour = style.palette[i if many else s]
            start = (i + 0.5 + (s - rows / 2) * thick) / slots
            value = data.values[s][i]
            box = area.bar(start, start + 0.94 * thick / slots, value)
            canvas.rectangle(box, colour, outline=style.outline, radius=0.2 * em if style.round_bars else 0.0)
            if style.hatched and rows == 1 and not inside:
                canvas.hatching(box, style.plot, 0.4 * em)
            if printed:
                _bar_figure(canvas, data.spell(value), font, box, area, colour, inside=inside, turn=turn, rise=rise)


def _bar_figure(
    canvas: ChartCanvas,
    text: str,
    font: Font,
    box: Box,
    area: _Area,
    colour: Colour,
    *,
    inside: bool,
    turn: int,
    rise: int,
) -> None:
    """The figure of one bar, beyond its tip, or inside it where it fits."""
    length = float(font.getlength(text))
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    fits = (
        box[2] - box[0] > length + 1.2 * rise
        if area.sideways
        else box[3] - box[1] > 2.0 * rise and box[2] - box[0] > length + 0.4 * rise
    )
    if inside and fits:
        ink = _WHITE if contrast(colour, _WHITE) > contrast(colour, _BLACK) else _BLACK
        if area.sideways:
            canvas.text(box[2] - 0.6 * rise, centre_y, text, font, "r", ink=ink)
        else:
            canvas.text(centre_x, box[1] + 1.0 * rise, text, font, "m", ink=ink)
    elif area.sideways:
        canvas.text(box[2] + 0.6 * rise, centre_y, text, font, "l")
    elif turn:
        canvas.text(centre_x, box[1] - 0.5 * rise - length / 2, text, font, "m", turn=90)
    else:
        canvas.text(centre_x, box[1] - 0.95 * rise, text, font, "m")


def _crosses(box: Box, points: Sequence[Point]) -> bool:
    """Whether a line through points runs through a box (looked at in 40 places of each piece)."""
    for (x0, y0), (x1, y1) in pairwise(points):
        for i in range(41):
            x, y = x0 + (x1 - x0) * i / 40, y0 + (y1 - y0) * i / 40
            if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
                return True
    return False


def _lines(canvas: ChartCanvas, rng: Generator, area: _Area, *, printed: bool) -> None:
    """The lines, their points and the figures above or below them."""
    data, style, font = area.data, canvas.style, canvas.style.font()
    em, rise = style.size, ascender(style.font())
    marked = len(data.series) == 1 or chance(rng, 0.7)
    thickness = float(rng.uniform(0.1, 0.2)) * em
    filled = len(data.series) == 1 and not printed and chance(rng, 0.15)
    for s, row in enumerate(data.values):
        colour = style.palette[s]
        points = [(area.along((i + 0.5) / len(row)), area.value(value)) for i, value in enumerate(row)]
        if filled:
            pale = tuple(round(0.75 * p + 0.25 * q) for p, q in zip(style.plot, colour, strict=True))
            foot = area.box[3]
            canvas.polygon([(points[0][0], foot), *points, (points[-1][0], foot)], (pale[0], pale[1], pale[2]))
        canvas.line(points, colour, thickness)
        if marked:
            for point in points:
                canvas.disc(point, max(3.0, 0.27 * em), colour, style.plot if chance(rng, 0.5) else None)
        if not printed:
            continue
        for (x, y), value in zip(points, row, strict=True):
            text = data.spell(value)
            places = [y - 1.3 * rise, y + 1.3 * rise, y - 1.8 * rise, y + 1.8 * rise]
            boxes = [canvas.text_box(x, place, text, font, "m") for place in places]
            good = [
                place
                for place, box in zip(places, boxes, strict=True)
                if not _crosses(box, points) and canvas.free(box) and box[3] < area.box[3] - 2
            ]
            if not good:
                raise DoesNotFitError(f"{text!r} has no free place at its point")
            canvas.text(x, good[0], text, font, "m")


def draw_plot(canvas: ChartCanvas, rng: Generator, data: ChartData, free: Box, *, printed: bool) -> None:
    """Draw bars or lines with axes, labels and legend into a free area.

    Args:
        canvas: receives everything.
        rng: draws what the style leaves open.
        data: what to show.
        free: box for the chart without its title.
        printed: with a figure at every bar or point; the value axis may then be missing.

    Raises:
        DoesNotFitError: the area is too small.
    """
    style = canvas.style
    sideways = data.form == "horizontal bar"
    many = data.form in {"bar", "horizontal bar"} and len(style.palette) >= len(data.labels) and chance(rng, 0.25)
    if len(data.series) > 1:
        swatch = "line" if data.form == "line" else pick(rng, ("square", "disc"))
        free = draw_keys(canvas, data.series, style.palette[: len(data.series)], free, swatch=swatch)
    axis = not (printed and chance(rng, 0.35))
    if printed:  # figures stand beyond the tips
        left, top, right, bottom = free
        free = (left, top + 0.9 * style.size, right - (3.2 * style.size if sideways else 0), bottom)
    make: Callable[..., _Area] = _sideways_area if sideways else _upright_area
    area = make(canvas, rng, data, free, axis=axis)
    if style.plot != style.paper:
        canvas.rectangle(area.box, style.plot)
    if axis:
        _value_grid(canvas, area)
    if data.form == "line":
        _frame(canvas, area)
        _lines(canvas, rng, area, printed=printed)
    else:
        _bars(canvas, rng, area, printed=printed, many=many)
        _frame(canvas, area)
