"""What a held-out chart shows: words, labels and numbers, and the axis that they are measured on.

Numbers of one chart are drawn anew until its two largest and its two smallest values of every series lie at least 5%
of the axis apart, so that "highest" and "lowest" have one answer that can be seen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import DoesNotFitError
from mm.evaluation.held_out_fonts import Face, HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

Form = Literal["bar", "horizontal bar", "grouped bar", "line", "pie", "donut"]

APART = 0.05  # of the axis between the two largest, and the two smallest values

MEASURES = (  # what is counted; every word is held out
    *("Parcels", "Comments", "Tests", "Guests", "Trips", "Workouts", "Prints", "Courses", "Deliveries", "Doctors"),
    *("Farmers", "Meetings", "Nurses", "Partners", "Pieces", "Policies", "Posts", "Skiers", "Tours", "Deposits"),
)
FIELDS = (  # of activity, for legends and slices
    *("Biomass", "Children", "Comics", "Desktop", "Offline", "Outdoor", "Insurance", "Music", "Silk", "Target"),
    *("Taxi", "Water", "Diesel", "Plane", "Bonus", "Tax", "Flats", "Business", "Camping", "Civics", "Cult"),
)
_UNITS = ("in tonnes", "per 1000", "(thousands)", "(kWh)", "in hours", "per week", "(index)", "in pounds", "(count)")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


_OLD_STYLE = frozenset({"Vollkorn"})  # its 1 is an "I": nobody sets columns of numbers in it


def pick_lining(rng: Generator, fonts: HeldOutFonts, *kinds: str) -> Face:
    """A face of the given kinds whose digits are all as high as capitals."""
    return pick(
        rng, [face for face in fonts.faces if face.name not in _OLD_STYLE and (not kinds or face.kind in kinds)]
    )


@dataclass(frozen=True)
class Axis:
    """A value axis: its ends and the distance of its ticks."""

    low: float
    high: float
    step: float

    @property
    def span(self) -> float:
        """From end to end."""
        return self.high - self.low

    def ticks(self) -> list[float]:
        """Values with a tick, from low to high."""
        return [self.low + i * self.step for i in range(round(self.span / self.step) + 1)]


@dataclass(frozen=True)
class ChartData:
    """The content of one chart. ``values[s][i]`` belongs to series ``s`` and label ``i``."""

    form: Form
    title: str
    labels: tuple[str, ...]
    series: tuple[str, ...]  # one name a series; of a single series it is shown nowhere
    values: tuple[tuple[float, ...], ...]
    decimals: int
    prefix: str
    suffix: str
    comma: bool  # thousands are set apart by commas
    label_title: str  # of the axis of labels; empty: not shown
    value_title: str
    axis: Axis  # of slices: 0 to 100 percent

    def spell(self, value: float) -> str:
        """A value as printed."""
        return f"{self.prefix}{value:{',' if self.comma else ''}.{self.decimals}f}{self.suffix}"

    def spell_tick(self, value: float) -> str:
        """A number of the axis as printed: as many decimals as the steps need."""
        decimals = max(0, -math.floor(math.log10(self.axis.step) + 1e-9))
        if round(self.axis.step, decimals) != round(self.axis.step, decimals + 1):
            decimals += 1  # steps of 2.5
        return f"{self.prefix}{value:{',' if self.comma else ''}.{decimals}f}{self.suffix}"

    def shares(self, decimals: int) -> tuple[str, ...]:
        """The first series as percents of its sum, as printed."""
        total = sum(self.values[0])
        return tuple(f"{100 * value / total:.{decimals}f}%" for value in self.values[0])


def choose_axis(low: float, high: float) -> Axis:
    """An axis of three to eight steps of 1, 2, 2.5 or 5 times a power of ten that holds ``low`` and ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
    return Axis(step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9), step)


def _distinct(draw: Callable[[], str], count: int) -> list[str]:
    """``count`` labels of which none is a part of another."""
    found: list[str] = []
    for _ in range(60 * count):
        label = draw()
        if not any(label.lower() in other.lower() or other.lower() in label.lower() for other in found):
            found.append(label)
            if len(found) == count:
                return found
    raise DoesNotFitError(f"no {count} different labels")


def draw_labels(rng: Generator, count: int, *, ordered: bool) -> tuple[list[str], str]:
    """``count`` labels of one kind and the name of that kind; ``ordered`` asks for a kind with an order."""
    kinds: tuple[str, ...] = ("months", "years", "quarters", "weekdays", "weeks") if ordered else ("months", "years")
    if not ordered and chance(rng, 0.85):
        kinds = ("foods", "goods", "places", "people", "fields", "invented", "things")
    kind = pick(rng, kinds)
    start = int(rng.integers(12))
    year = int(rng.integers(1961, 2035))
    match kind:
        case "months":
            return [_MONTHS[(start + i) % 12] for i in range(min(count, 12))], "Month"
        case "years":
            gap = pick(rng, (1, 1, 1, 2, 4))
            return [str(year + gap * i) for i in range(count)], "Year"
        case "quarters" if count <= 8:
            return _quarters(start % 4, year, count), "Quarter"
        case "weekdays" if count <= 7:
            return list(_WEEKDAYS[:count]), "Day"
        case "weeks" | "quarters" | "weekdays":
            return [f"W{1 + start + i:02d}" for i in range(count)], "Week"
        case "people":
            return _distinct(lambda: words.first_name(rng), count), "Name"
        case "places":
            return _distinct(lambda: words.place(rng), count), pick(rng, ("City", "Town", "Site"))
        case "invented":
            return _distinct(lambda: words.invented(rng, 2), count), pick(rng, ("Brand", "Group", "Team"))
        case _:
            pool = {"foods": words.FOODS, "goods": words.GOODS, "fields": FIELDS, "things": words.THINGS}[kind]
            title = {"foods": "Food", "goods": "Product", "fields": "Sector", "things": "Topic"}[kind]
            lower = chance(rng, 0.25)
            return _distinct(lambda: pick(rng, pool).lower() if lower else pick(rng, pool).capitalize(), count), title


def _quarters(first: int, year: int, count: int) -> list[str]:
    if count <= 4:
        return [f"Q{i + 1}" for i in range(count)]
    return [f"Q{(first + i) % 4 + 1}/{(year + (first + i) // 4) % 100:02d}" for i in range(count)]


def draw_title(rng: Generator, measure: str, label_title: str) -> str:
    """A title of two to six words."""
    thing, quality = pick(rng, words.THINGS), pick(rng, words.QUALITIES)
    texts = (
        f"{measure} by {label_title.lower()}",
        f"{measure} in {words.place(rng)}",
        f"{words.place(rng)} {thing} report",
        f"{quality.capitalize()} {thing} {measure.lower()}",
        f"{measure}: {quality} {thing}",
        f"How {thing} {measure.lower()} changed",
        f"{thing.capitalize()} {measure.lower()} {int(rng.integers(1971, 2035))}",
        f"{words.last_name(rng)} & {words.last_name(rng)}: {measure.lower()}",
        f"{measure} of the {words.place(rng)} {thing}",
    )
    title = pick(rng, texts)
    return title.upper() if chance(rng, 0.1) else title


def _magnitude(rng: Generator) -> tuple[float, int]:
    """The largest value to expect, and decimals."""
    return pick(
        rng,
        ((8.0, 1), (20.0, 0), (40.0, 1), (60.0, 0), (90.0, 0), (150.0, 0), (400.0, 0), (900.0, 0), (3000.0, 0),
         (45000.0, 0)),
    )  # fmt: skip


def _row(rng: Generator, count: int, top: float, decimals: int, base: float, *, trend: bool) -> tuple[float, ...]:
    """Values of one series between ``base`` and ``base + top``."""
    if trend:
        slope, level = float(rng.uniform(-0.7, 0.7)), float(rng.uniform(0.3, 0.7))
        shares = [level + slope * (i / max(count - 1, 1) - 0.5) + float(rng.normal(0, 0.13)) for i in range(count)]
    else:
        shares = [float(rng.uniform(0.07, 1.0)) for _ in range(count)]
    return tuple(round(base + top * min(max(share, 0.05), 1.0), decimals) for share in shares)


def _apart(row: Sequence[float], least: float) -> bool:
    order = sorted(row)
    return order[-1] - order[-2] >= least and order[1] - order[0] >= least


def draw_data(rng: Generator, form: Form, *, printed: bool) -> ChartData:
    """The content of a chart of a form, whose values are printed or have to be measured."""
    pie = form in {"pie", "donut"}
    num_series = {"grouped bar": int(rng.integers(2, 4)), "line": pick(rng, (1, 1, 2, 3))}.get(form, 1)
    if form == "line" and printed:
        num_series = 1
    most = {"pie": 7, "donut": 6, "grouped bar": 5, "line": 9, "horizontal bar": 9}.get(form, 8)
    if printed and form == "line":
        most = 7
    count = int(rng.integers(4 if form == "line" else 3, most + 1))
    labels, label_title = draw_labels(rng, count, ordered=form == "line" or (form != "pie" and chance(rng, 0.2)))
    count = len(labels)
    measure = pick(rng, MEASURES)
    series = [measure]
    if num_series > 1:
        series, _ = draw_labels(rng, num_series, ordered=False)
        if {name.lower() for name in series} & {label.lower() for label in labels}:
            raise DoesNotFitError("a series is called like a label")
    top, decimals = _magnitude(rng)
    room = 1.0 if not printed else 1.25 if form == "grouped bar" else 1.08  # above the tips, for figures
    base = top * int(rng.integers(1, 5)) if form == "line" and chance(rng, 0.25) else 0.0
    for _ in range(400):
        values = tuple(_row(rng, count, top, decimals, base, trend=form == "line") for _ in range(num_series))
        flat = [value for row in values for value in row]
        axis = Axis(0.0, 100.0, 20.0) if pie else choose_axis(base, base + (max(flat) - base) * room)
        scale = sum(flat) / 100 if pie else 1.0
        if all(_apart(row, APART * axis.span * scale) for row in values):
            break
    else:
        raise DoesNotFitError("the values lie too close")
    if pie and min(flat) < 0.05 * sum(flat):
        raise DoesNotFitError("a slice is too thin")
    money, percent = (chance(rng, 0.12), top < 100 and not pie and chance(rng, 0.2))
    titled = chance(rng, 0.45) and not pie
    return ChartData(
        form=form,
        title=draw_title(rng, measure, label_title),
        labels=tuple(labels),
        series=tuple(series),
        values=values,
        decimals=decimals,
        prefix=pick(rng, ("$", "€", "£")) if money and not percent else "",
        suffix="%" if percent else "",
        comma=top >= 1000 and chance(rng, 0.6),
        label_title=label_title if titled and chance(rng, 0.6) else "",
        value_title=(f"{measure} {pick(rng, _UNITS)}" if chance(rng, 0.4) else measure) if titled else "",
        axis=axis,
    )
