"""What a chart shows: labels, numbers and words, drawn before anything is placed on paper."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mm.synthetic.dice import Dice
from mm.synthetic.words import Lexicon

METRICS = tuple(
    [
        "Sales",
        "Revenue",
        "Profit",
        "Visitors",
        "Users",
        "Orders",
        "Downloads",
        "Population",
        "Temperature",
        "Rainfall",
        "Score",
        "Votes",
        "Members",
        "Students",
        "Output",
        "Exports",
        "Imports",
        "Spending",
        "Income",
        "Costs",
        "Hours",
        "Distance",
        "Weight",
        "Height",
        "Speed",
        "Calls",
        "Tickets",
        "Clicks",
        "Views",
        "Points",
        "Units sold",
        "Market share",
        "Budget",
        "Staff",
        "Customers",
        "Energy use",
        "Emissions",
        "Production",
        "Attendance",
        "Responses",
        "Accuracy",
        "Latency",
        "Price",
        "Growth",
        "Deaths",
        "Births",
        "Goals",
        "Wins",
        "Yield",
        "Capacity",
        "Traffic",
        "Installs",
        "Subscribers",
        "Returns",
        "Errors",
        "Rating",
        "Accidents",
        "Passengers",
    ]
)
DIMENSIONS = {
    "month": ("Month", "Months", "Period"),
    "year": ("Year", "Years", "Fiscal year"),
    "quarter": ("Quarter", "Period"),
    "weekday": ("Day", "Weekday", "Day of week"),
    "countries": ("Country", "Nation", "Region"),
    "cities": ("City", "Town", "Location"),
    "items": ("Product", "Item", "Article"),
    "products": ("Product", "Service"),
    "departments": ("Department", "Team", "Division"),
    "first_names": ("Name", "Person", "Player"),
    "jobs": ("Job", "Occupation"),
    "letter": ("Group", "Category", "Type", "Class"),
    "numbered": ("Group", "Category", "Sample"),
    "words": ("Category", "Type", "Group", "Kind", "Name"),
    "codes": ("Code", "Model", "ID"),
    "ages": ("Age", "Age group"),
    "numbers": ("x", "Step", "Round", "Week", "Epoch", "Trial", "Day"),
    "series": ("No.", "Batch", "Lot", "Version", "Run", "Station", "Stage"),
    "spans": ("Period", "Season", "Range", "Span"),
    "times": ("Time", "Date", "Hour"),
}
_ORDERED = {
    "month": 4.0,
    "year": 5.0,
    "quarter": 2.0,
    "weekday": 1.5,
    "numbers": 2.0,
    "words": 1.5,
    "letter": 0.5,
    "cities": 0.5,
    "series": 3.5,
    "spans": 1.2,
    "times": 1.2,
}
_NAMED = {
    "words": 6.0,
    "items": 3.0,
    "countries": 2.0,
    "cities": 1.5,
    "first_names": 1.5,
    "departments": 1.5,
    "products": 1.0,
    "jobs": 1.0,
    "letter": 1.5,
    "numbered": 1.0,
    "codes": 1.2,
    "month": 1.5,
    "year": 1.5,
    "quarter": 1.0,
    "weekday": 0.8,
    "ages": 0.6,
    "series": 2.5,
    "spans": 0.6,
    "times": 0.6,
}
_UNITS = (
    "%",
    "kg",
    "km",
    "units",
    "USD",
    "EUR",
    "hours",
    "mm",
    "t",
    "million",
    "thousand",
    "points",
    "days",
    "min",
    "MWh",
    "litres",
    "$",
    "people",
    "per day",
    "ms",
)


@dataclass(frozen=True)
class ChartData:
    """The content of one chart. ``values[s][c]`` belongs to series ``s`` and category ``c``."""

    title: str  # empty: not shown
    categories: tuple[str, ...]
    series: tuple[str, ...]  # one name a series
    values: tuple[tuple[float, ...], ...]
    decimals: int
    prefix: str  # before every printed number ("$")
    suffix: str  # after it ("%")
    thousands: str  # separator of groups of three digits
    category_title: str  # axis titles; empty: not shown
    value_title: str
    kind: str = "words"  # of the categories, a key of DIMENSIONS
    subtitle: str = ""  # below the title
    legend_title: str = ""  # used where there is a legend

    def number(self, value: float) -> str:
        """A value as printed, sign in front."""
        text = f"{abs(value):,.{self.decimals}f}".replace(",", self.thousands)
        sign = "-" if value < 0 and any(letter in "123456789" for letter in text) else ""
        return f"{sign}{self.prefix}{text}{self.suffix}"


def _short(names: Sequence[str], dice: Dice) -> list[str]:
    return [name[:3] for name in names] if dice.chance(0.6) else list(names)


def _unique(draw: Callable[[], str], count: int, longest: int, fallback: Callable[[], str]) -> list[str]:
    """``count`` different labels of at most ``longest`` characters."""
    found: list[str] = []
    tries = 0
    while len(found) < count:
        label = draw() if tries < 12 * count else fallback()
        tries += 1
        if 0 < len(label) <= longest and label.lower() not in {other.lower() for other in found}:
            found.append(label)
    return found


def _from_list(dice: Dice, lexicon: Lexicon, section: str, count: int, longest: int) -> list[str]:
    return _unique(lambda: lexicon.entry(dice, section), count, longest, lambda: lexicon.pseudo(dice).capitalize())


def _words(dice: Dice, lexicon: Lexicon, count: int, longest: int) -> list[str]:
    style = dice.weighted({"capital": 6, "upper": 1, "lower": 1.5, "two": 1.2})

    def draw() -> str:
        text = lexicon.title(dice, 2) if style == "two" else lexicon.word(dice)
        return {"capital": text.capitalize(), "upper": text.upper(), "lower": text.lower()}.get(style, text)

    return _unique(draw, count, max(longest, 4), lambda: lexicon.pseudo(dice)[:longest].capitalize())


def draw_labels(dice: Dice, lexicon: Lexicon, kind: str, count: int, longest: int) -> list[str]:
    """``count`` different labels of a kind (a key of ``DIMENSIONS``), in their natural order where they have one.

    There are at most 12 months; more than 7 weekdays become words.
    """
    match kind:
        case "month":
            first = dice.integer(0, 12 - min(12, count)) if dice.chance(0.6) else 0
            names = _short(lexicon.lists["months"], dice)
            return [names[(first + index) % 12] for index in range(count)]
        case "year":
            step = dice.weighted({1: 8, 2: 1, 5: 1, 10: 0.7})
            last = dice.integer(1950, 2030)
            return [str(last - step * (count - 1 - index)) for index in range(count)]
        case "quarter":
            return _parts_of_years(dice, count)
        case "weekday" if count <= 7:
            first = dice.integer(0, 7 - count)
            return _short(lexicon.lists["weekdays"], dice)[first : first + count]
        case "letter":
            word = dice.pick(["", "", "Group ", "Type ", "Class ", "Team ", "Plan "])
            return [word + chr(65 + index) for index in range(count)]
        case "numbered":
            word = dice.pick(["Group ", "Test ", "Item ", "Site ", "Step ", "Week ", "Day ", "No. ", "#", "Zone "])
            return [f"{word}{index + 1}" for index in range(count)]
        case "codes":
            return _unique(lambda: lexicon.code(dice), count, max(longest, 4), lambda: lexicon.pseudo(dice).upper())
        case "ages":
            step, start = dice.pick([5, 10, 15]), dice.integer(0, 20)
            return [f"{start + step * index}-{start + step * (index + 1) - 1}" for index in range(count)]
        case "numbers":
            step, start = dice.pick([1, 1, 1, 2, 5, 10]), dice.pick([0, 1, 1])
            return [str((start + index) * step) for index in range(count)]
        case "series":
            return _series(dice, count)
        case "spans":
            first, step = dice.integer(1960, 2024), dice.pick([1, 1, 2, 5, 10])
            joint = dice.pick(["-", "/", "-", " to "])
            short = joint == "/" or dice.chance(0.5)
            ends = [(first + step * index, first + step * (index + 1)) for index in range(count)]
            return [f"{low}{joint}{f'{high % 100:02d}' if short else high}" for low, high in ends]
        case "times":
            return _times(dice, lexicon, count)
        case "words" | "weekday":
            return _words(dice, lexicon, count, longest)
        case _:
            return _from_list(dice, lexicon, kind, count, max(longest, 6))


def _parts_of_years(dice: Dice, count: int) -> list[str]:
    """Quarters, halves or thirds of following years; the year may stay away from up to four quarters."""
    parts, letter = dice.weighted({(4, "Q"): 6, (2, "H"): 1, (3, "T"): 0.6})
    year, start = dice.integer(1960, 2036), dice.integer(0, parts - 1) if count > parts else 0
    joint = dice.pick([" ", " ", ".", "-", " '", "'", " of "])
    form = dice.pick(
        ["{l}{p}" + joint + "{s}", "{l}{p}" + joint + "{y}", "{y}" + dice.pick([" ", "-", "/", "."]) + "{l}{p}"]
    )
    form = dice.weighted({form: 5, "{p}{l}{s}": 0.5, "{l}{p}": 2.0 if count <= parts else 0.0, "{s}/{l}{p}": 0.7})
    if count > 8 and "{y}" in form:
        form = "{l}{p} '{s}"
    steps = [divmod(start + index, parts) for index in range(count)]
    return [form.format(l=letter, p=part + 1, y=year + more, s=f"{(year + more) % 100:02d}") for more, part in steps]


_STEM_TEXT = """
    A B C D F G K L M N P R S T U V X Z a d g k n p r t v x AB CX DN KM No LK MS PT SR TV
    Lot Run Set Day Bin Row Gate Line Room Step Unit Zone Batch Level Track
"""
_STEMS = tuple(_STEM_TEXT.split())


def _series(dice: Dice, count: int) -> list[str]:
    """Names that differ in their number only, in equal steps: "K07" ..., "Lot 3" ..., "v1.4" ..., "3rd" ..."""
    if dice.chance(0.1):
        first = dice.integer(1, 14)
        ends = {1: "st", 2: "nd", 3: "rd"}
        return [f"{n}{'th' if 10 < n % 100 < 14 else ends.get(n % 10, 'th')}" for n in range(first, first + count)]
    stem = dice.pick(_STEMS)
    joint = dice.weighted(
        {"": 5.0 if len(stem) == 1 else 1.5, "-": 1, " ": 2.0, ".": 0.7, "_": 0.3, "/": 0.3, "1.": 0.4}
    )
    width = dice.weighted({1: 2, 2: 4, 3: 1.2})
    step = dice.weighted({1: 8, 2: 1, 5: 0.5, 10: 0.5})
    first = dice.pick([1, dice.integer(0, 9), dice.integer(5, 15), dice.integer(0, 60), dice.integer(80, 110)])
    numbers = [first + step * index for index in range(count)]
    names = [f"{stem}{joint}{number:0{width}d}" for number in numbers]
    return names[::-1] if dice.chance(0.04) else names


def _times(dice: Dice, lexicon: Lexicon, count: int) -> list[str]:
    """Hours of a day, days of a month, or months with their year."""
    form = dice.pick(["hours", "days", "months"])
    if form == "hours":
        step, first = dice.pick([1, 1, 2]) if count <= 12 else 1, dice.integer(0, 10)
        hours = [(first + step * index) % 24 for index in range(count)]
        spelling = dice.pick(["{:02d}:00", "{}:00", "{:02d}:30", "{}.00", "{} o'clock", "{:02d}h"])
        return [spelling.format(hour) for hour in hours]
    names = [name[:3] for name in lexicon.lists["months"]]
    if form == "days":
        month, step = dice.integer(0, 11), dice.pick([1, 1, 1, 2])
        first = dice.integer(1, max(1, 28 - step * (count - 1)))
        spelling = dice.pick(
            ["{n} {d}", "{d} {n}", "{d:02d} {n}", "{d:02d}.{m:02d}.", "{m}/{d}", "{d:02d}/{m:02d}", "{d}."]
        )
        return [spelling.format(n=names[month], m=month + 1, d=first + step * index) for index in range(count)]
    year, first = dice.integer(1990, 2035), dice.integer(0, 11)
    spelling = dice.pick(["{n} {s}", "{n} '{s}", "{n} {y}", "{m:02d}/{s}", "{n}-{s}", "{y}-{m:02d}", "{m}/{y}"])
    places = [divmod(first + index, 12) for index in range(count)]
    return [spelling.format(n=names[m], m=m + 1, y=year + y, s=f"{(year + y) % 100:02d}") for y, m in places]


def _rounded(value: float, decimals: int) -> float:
    return round(value, decimals) + 0.0  # no minus zero


def draw_values(dice: Dice, count: int, top: float, decimals: int, signed: bool) -> list[float]:
    """Numbers up to ``top``: independent, trending, close together, or few large ones."""
    rng = dice.rng
    match dice.weighted({"even": 5, "trend": 2, "walk": 2, "close": 1, "skewed": 1.5}):
        case "trend":
            a, b = dice.uniform(0.08, 1.0), dice.uniform(0.08, 1.0)
            raw = [a + (b - a) * index / max(1, count - 1) + float(rng.normal(0, 0.07)) for index in range(count)]
        case "walk":
            raw = [dice.uniform(0.3, 0.8)]
            while len(raw) < count:
                raw.append(raw[-1] + float(rng.normal(0, 0.16)))
        case "close":
            low = dice.uniform(0.55, 0.8)
            raw = [dice.uniform(low, 1.0) for _ in range(count)]
        case "skewed":
            raw = [dice.uniform(0.04, 1.0) ** 2.2 + 0.02 for _ in range(count)]
        case _:
            raw = [dice.uniform(0.04, 1.0) for _ in range(count)]
    raw = [value if value < 1.0 else 1.0 - dice.uniform(0.0, 0.12) for value in raw]
    raw = [value if value > 0.04 else dice.uniform(0.03, 0.12) for value in raw]
    if signed:
        raw = [-0.7 * value if dice.chance(0.35) else value for value in raw]
    return [_rounded(value * top, decimals) for value in raw]


def draw_scale(dice: Dice) -> tuple[float, int]:
    """Size of the largest value and the number of decimals."""
    decade = dice.weighted(
        {
            1.0: 0.5,
            10.0: 3,
            50.0: 3,
            100.0: 5,
            500.0: 2.5,
            1000.0: 2.5,
            5000.0: 1.8,
            20000.0: 1.2,
            60000.0: 1.0,
            200000.0: 1.2,
            5000000.0: 0.3,
        }
    )
    decimals = {1.0: 2, 10.0: dice.pick([0, 1, 1, 2]), 50.0: dice.pick([0, 0, 1]), 100.0: dice.pick([0, 0, 0, 1])}.get(
        decade, 0
    )
    return decade * dice.uniform(0.4, 1.0), decimals


def draw_title(dice: Dice, lexicon: Lexicon, metric: str, dimension: str) -> str:
    """A chart title: of the usual patterns, or of random words."""
    if dice.chance(0.45):
        text = lexicon.title(dice, dice.integer(1, 5))
    else:
        place = lexicon.entry(dice, dice.pick(["cities", "countries", "departments", "items"]))
        year = dice.integer(1990, 2027)
        low, high = metric, dimension.lower()
        text = dice.pick(
            [
                f"{low} by {high}",
                f"{low} per {high}",
                f"{low}",
                f"{low} in {place}",
                f"{low}, {year}",
                f"{place}: {low}",
                f"{low} by {high}, {year}",
                f"{low} ({year})",
                f"{place} {low.lower()}",
                f"{low} {year}-{year + 4}",
                f"{low} of {place} by {high}",
                f"Total {low.lower()}",
                f"Average {low.lower()} by {high}",
                f"{place}: {low.lower()} {year}",
                f"Share of {low.lower()}, {place}",
                f"{low} since {year}",
                f"Why {low.lower()} rose in {place}",
                f"{low} vs. plan",
            ]
        )
    return {0: text, 1: text.upper(), 2: text.title(), 3: text.capitalize()}[dice.weighted({0: 7, 1: 0.7, 2: 1, 3: 1})]


def _subtitle(dice: Dice, lexicon: Lexicon, unit: str) -> str:
    year = dice.integer(1990, 2027)
    words = lexicon.title(dice, dice.integer(1, 4))
    return dice.pick(
        [f"in {unit}", f"Values in {unit}", f"{year}-{year + 3}", words, words.lower(), words.capitalize()]
    )


def draw_data(
    dice: Dice, lexicon: Lexicon, *, shape: str, num_categories: int, num_series: int, longest: int, title_room: int
) -> ChartData:
    """The content of a chart.

    Args:
        shape: "bar", "line" or "pie".
        num_categories: labels along the axis, or slices.
        num_series: lines, or bars in a group.
        longest: most characters of a label.
        title_room: most characters of a title.
    """
    kind = dice.weighted(_ORDERED if shape == "line" else _NAMED)
    if num_categories > {"weekday": 7, "quarter": 12, "month": 12}.get(kind, num_categories):
        kind = "year"
    categories = draw_labels(dice, lexicon, kind, num_categories, longest)
    metric = dice.pick(METRICS) if dice.chance(0.7) else lexicon.title(dice, 1)
    dimension, series_kind = dice.pick(DIMENSIONS[kind]), kind
    if num_series == 1:
        series = [metric]
    else:
        options = [
            name
            for name in (
                "words",
                "items",
                "countries",
                "cities",
                "first_names",
                "year",
                "letter",
                "departments",
                "codes",
                "series",
                "quarter",
                "month",
            )
            if name != kind
        ]
        taken = {label.lower() for label in categories}
        series_kind = dice.pick(options)
        series = draw_labels(dice, lexicon, series_kind, num_series, max(4, min(longest - 1, 14)))
        series = [name + " B" if name.lower() in taken else name for name in series]
    top, decimals = draw_scale(dice)
    signed = shape != "pie" and num_series == 1 and dice.chance(0.07)
    values = [draw_values(dice, num_categories, top, decimals, signed) for _ in range(num_series)]
    if shape == "pie":
        values = [_pie_values(dice, num_categories, top, decimals)]
    elif shape == "line" and dice.chance(0.3) and not signed:  # far from zero: an axis that does not start there
        base = math.floor(top * dice.uniform(1, 6))
        values = [[_rounded(value + base, decimals) for value in row] for row in values]
    percent = top <= 100 and shape != "pie" and dice.chance(0.12)  # slices have percents of their own
    currency = dice.weighted({"$": 1, "€": 1, "£": 0.7}) if not percent and dice.chance(0.14) else ""
    suffix = (
        "%"
        if percent
        else dice.pick(["k", "K", "M", "kg", " kg", " km", "s", " ms", " t", " m", " €"])
        if dice.chance(0.06)
        else ""
    )
    unit = dice.pick(_UNITS)
    titles = dice.chance(0.6)
    title = draw_title(dice, lexicon, metric, dimension) if dice.chance(0.87) else ""
    while len(title) > title_room:
        title = draw_title(dice, lexicon, metric, dimension)
    value_title = dice.pick(
        [metric, metric, f"{metric} ({unit})", f"{metric} [{unit}]", unit.capitalize(), "Value", "Number", "Amount"]
    )
    return ChartData(
        title=title,
        categories=tuple(categories),
        series=tuple(series),
        values=tuple(tuple(row) for row in values),
        decimals=decimals,
        prefix=currency,
        suffix=suffix,
        thousands=dice.weighted({",": 5, "": 4, " ": 0.5}) if top >= 1000 else "",
        category_title=dimension if titles and dice.chance(0.8) and shape != "pie" else "",
        value_title=value_title if titles and dice.chance(0.9) and shape != "pie" else "",
        kind=kind,
        subtitle=_subtitle(dice, lexicon, unit) if title and dice.chance(0.09) else "",
        legend_title=dice.pick(DIMENSIONS[series_kind]) if dice.chance(0.16) else "",
    )


def _pie_values(dice: Dice, count: int, top: float, decimals: int) -> list[float]:
    """Slices of at least 3 % of the whole."""
    power = dice.pick([0.7, 1.0, 1.0, 2.0, 3.0])
    raw = [dice.uniform(0.12, 1.0) ** power + 0.04 for _ in range(count)]
    total = sum(raw)
    raw = [max(value, 0.045 * total) for value in raw]
    values = [max(_rounded(value * top, decimals), 10.0**-decimals) for value in raw]
    return sorted(values, reverse=True) if dice.chance(0.12) else values
