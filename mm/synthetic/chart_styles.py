"""How charts look: colours, axes, grids and legends in the manner of common charting programs, varied at random.

A look is a row of ``data/chart_looks.txt`` (what such a program draws when nothing is set) plus random changes.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, FontSet, Typeface
from mm.synthetic.style import pick_face


@dataclass(frozen=True)
class Look:
    """The look of a chart. ``spines`` holds the drawn sides of the plot: letters of l, b, t, r."""

    paper: Colour
    plot: Colour
    ink: Colour  # titles
    soft: Colour  # tick labels
    grid: Colour | None
    grid_axis: str  # "value" or "both"
    grid_dash: float  # em of a dash; 0: solid lines
    spines: str
    spine: Colour
    ticks: str  # "out", "in" or ""
    palette: tuple[Colour, ...]
    edge: Colour | None  # outline of bars, slices and markers
    legend_frame: str  # "", "line" or "fill"
    title_align: str  # letter: l, m, r
    title_bold: bool
    line_width: float  # em
    face: Typeface


_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def _grey(value: int) -> Colour:
    return (value, value, value)


def _colour(text: str) -> Colour | None:
    return None if text == "-" else (int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16))


def _ink(text: str) -> Colour:
    colour = _colour(text)
    assert colour is not None
    return colour


@lru_cache(maxsize=1)
def _data() -> tuple[dict[str, tuple[Colour, ...]], dict[str, tuple[float, dict[str, str]]]]:
    """Palettes by name; weight and columns of each look."""
    columns = (
        *("family", "paper", "plot", "ink", "soft", "grid", "grid_axis", "spines", "spine", "ticks", "palettes"),
        *("edge", "legend_frame", "title_align", "title_bold", "line_width"),
    )
    palettes, looks = {}, {}
    text = resources.files("mm.synthetic").joinpath("data/chart_looks.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        kind, *cells = line.split("|")
        if kind == "palette":
            palettes[cells[0]] = tuple(map(_ink, cells[1].split()))
        elif kind == "look":
            looks[cells[0]] = (float(cells[1]), dict(zip(columns, cells[2:], strict=True)))
    return palettes, looks


def palettes() -> Mapping[str, tuple[Colour, ...]]:
    """Palettes by name."""
    return _data()[0]


@lru_cache(maxsize=1 << 15)
def contrast(one: Colour, other: Colour) -> float:
    """Distance of two colours, 0..about 440, green weighted more."""
    red, green, blue = one[0] - other[0], one[1] - other[1], one[2] - other[2]
    return math.sqrt(0.8 * red * red + 1.5 * green * green + 0.7 * blue * blue)


def _random_palette(dice: Dice) -> tuple[Colour, ...]:
    start, saturation, value = dice.uniform(0, 1), dice.uniform(0.4, 1.0), dice.uniform(0.5, 0.97)
    colours = []
    for index in range(10):
        light = value * (1.0 if index % 2 == 0 else dice.uniform(0.6, 1.0))
        red, green, blue = colorsys.hsv_to_rgb((start + 0.618 * index) % 1.0, saturation, light)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


def draw_look(dice: Dice, fonts: FontSet, level: float) -> Look:
    """A look: a known one, on some charts with random changes."""
    looks = _data()[1]
    row = looks[dice.weighted({name: weight for name, (weight, _) in looks.items()})][1]
    text = {name: "" if cell == "-" else cell for name, cell in row.items()}
    named = [face for face in fonts.faces if face.name == text["family"]]
    palette = palettes()[dice.pick(text["palettes"].split())]
    if dice.chance(0.3):
        palette = palettes()[dice.pick(sorted(palettes()))] if dice.chance(0.6) else _random_palette(dice)
    if dice.chance(0.3):
        palette = tuple(dice.shuffled(palette))
    look = Look(
        paper=_ink(row["paper"]),
        plot=_ink(row["plot"]),
        ink=_ink(row["ink"]),
        soft=_ink(row["soft"]),
        grid=_colour(row["grid"]),
        grid_axis=row["grid_axis"],
        grid_dash=0.0,
        spines=text["spines"],
        spine=_ink(row["spine"]),
        ticks=text["ticks"],
        palette=palette,
        edge=_colour(row["edge"]),
        legend_frame=text["legend_frame"],
        title_align=row["title_align"],
        title_bold=row["title_bold"] == "1",
        line_width=float(row["line_width"]) * dice.uniform(0.75, 1.5),
        face=named[0] if named and dice.chance(0.6) else pick_face(dice, fonts, "screen" if dice.chance(0.75) else ""),
    )
    dark, plot, soft = sum(look.paper) < 380, look.plot, look.soft
    if dice.chance(0.45 * level):
        changes: dict[str, object] = {}
        if dice.chance(0.35):
            changes["grid"] = (
                None if look.grid is not None and dice.chance(0.4) else _between(plot, soft, dice.uniform(0.1, 0.45))
            )
        if dice.chance(0.3):
            changes["grid_axis"] = dice.pick(["value", "both"])
        if dice.chance(0.3):
            changes["spines"] = dice.pick(["lbtr", "lb", "b", "l", ""])
        if dice.chance(0.3):
            changes["spine"] = _between(plot, soft, dice.uniform(0.4, 1.0))
        if dice.chance(0.3):
            changes["ticks"] = dice.pick(["out", "in", ""])
        if dice.chance(0.3):
            changes["title_align"], changes["title_bold"] = dice.pick("lmmr"), dice.chance(0.5)
        if dice.chance(0.3):
            changes["legend_frame"] = dice.pick(["", "line", "fill"])
        if dice.chance(0.25):
            changes["edge"] = dice.pick([None, _WHITE, _BLACK, _grey(90)])
        if dice.chance(0.2) and not dark:
            tint = (255 - dice.integer(0, 20), 255 - dice.integer(0, 20), 255 - dice.integer(0, 20))
            changes["paper"] = tint
            changes["plot"] = tint if dice.chance(0.6) else _WHITE
        look = replace(look, **changes)  # type: ignore[arg-type]
    dotted = 0.3 if row["family"] == "-" and "graph" in row["palettes"] else 0.16
    look = replace(look, grid_dash=dice.pick([0.1, 0.2, 0.35, 0.35, 0.6]) if dice.chance(dotted) else 0.0)
    return replace(look, palette=visible(look.palette, (look.paper, look.plot), look.edge is not None))


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return (red, green, blue)


def visible(palette: Sequence[Colour], papers: Sequence[Colour], outlined: bool) -> tuple[Colour, ...]:
    """The colours of a palette that stand out from the paper and from each other; never fewer than eight."""
    least = 45 if outlined else 75
    kept: list[Colour] = []
    for colour in (*palette, *palettes()["tab10"], *palettes()["bright"]):
        if min(contrast(colour, paper) for paper in papers) >= least and all(contrast(colour, k) >= 55 for k in kept):
            kept.append(colour)
            if len(kept) == 12:
                break
    return tuple(kept)


def colour_name(colour: Colour) -> str | None:
    """The everyday name of a colour, or None where people would not agree."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    if value < 0.2:
        return "black"
    if saturation < 0.08:
        return "gray" if 0.3 < value < 0.8 else "white" if value > 0.97 else None
    if saturation < 0.5 or value < 0.5:
        return None
    degrees = hue * 360
    for low, high, name in (
        (0, 8, "red"),
        (22, 36, "orange"),
        (48, 60, "yellow"),
        (90, 150, "green"),
        (200, 245, "blue"),
        (262, 290, "purple"),
        (312, 338, "pink"),
        (352, 360, "red"),
    ):
        if low <= degrees <= high:
            if name == "red" and saturation < 0.68:
                return None  # on the way to pink
            if name == "orange" and value < 0.8:
                return "brown" if value < 0.65 else None
            return name
    return None
