"""How charts look: colours, axes, grids and legends in the manner of common charting programs, varied at random.

A look is a row of ``_LOOKS`` (what such a program draws when nothing is set) plus random changes. The colours were
written down from the programs' documented default palettes.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet, Typeface
from mm.synthetic.page import Colour
from mm.synthetic.style import pick_face


def _hex(colours: str) -> tuple[Colour, ...]:
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours.split())


PALETTES: dict[str, tuple[Colour, ...]] = {
    "tab10": _hex("1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf"),
    "classic": _hex("0000ff 008000 ff0000 00bfbf bf00bf bfbf00 404040"),
    "deep": _hex("4c72b0 dd8452 55a868 c44e52 8172b3 937860 da8bc3 8c8c8c ccb974 64b5cd"),
    "muted": _hex("4878d0 ee854a 6acc64 d65f5f 956cb4 8c613c dc7ec0 797979 d5bb67 82c6e2"),
    "ggplot": _hex("e24a33 348abd 988ed5 777777 fbc15e 8eba42 ffb5b8"),
    "hue": _hex("f8766d 00ba38 619cff b79f00 00bfc4 f564e3"),
    "office": _hex("4472c4 ed7d31 a5a5a5 ffc000 5b9bd5 70ad47 264478 9e480e"),
    "office_old": _hex("9999ff 993366 ffffcc ccffff 660066 ff8080 0066cc ccccff"),
    "office_2007": _hex("4f81bd c0504d 9bbb59 8064a2 4bacc6 f79646"),
    "plotly": _hex("636efa ef553b 00cc96 ab63fa ffa15a 19d3f3 ff6692 b6e880 ff97ff fecb52"),
    "tableau": _hex("4c78a8 f58518 e45756 72b7b2 54a24b eeca3b b279a2 ff9da6 9d755d bab0ac"),
    "web": _hex("3366cc dc3912 ff9900 109618 990099 0099c6 dd4477 66aa00 b82e2e 316395"),
    "high": _hex("7cb5ec 434348 90ed7d f7a35c 8085e9 f15c80 e4d354 2b908f f45b5b 91e8e1"),
    "chartjs": _hex("36a2eb ff6384 ff9f40 ffcd56 4bc0c0 9966ff c9cbcf"),
    "echarts": _hex("5470c6 91cc75 fac858 ee6666 73c0de 3ba272 fc8452 9a60b4 ea7ccc"),
    "sheets": _hex("4285f4 ea4335 fbbc04 34a853 ff6d01 46bdc6"),
    "news": _hex("008fd5 fc4f30 e5ae38 6d904f 8b8b8b 810f7c"),
    "weekly": _hex("01a2d9 014d64 76c0c1 7c260b ee8f71 adadad"),
    "dark2": _hex("1b9e77 d95f02 7570b3 e7298a 66a61e e6ab02 a6761d 666666"),
    "set1": _hex("e41a1c 377eb8 4daf4a 984ea3 ff7f00 ffff33 a65628 f781bf"),
    "set2": _hex("66c2a5 fc8d62 8da0cb e78ac3 a6d854 ffd92f e5c494 b3b3b3"),
    "pastel": _hex("fbb4ae b3cde3 ccebc5 decbe4 fed9a6 ffffcc e5d8bd"),
    "bright": _hex("ff0000 0000ff 00b000 ffcc00 9900cc 00bbdd ff8800 8b4513 ff66b2 444444"),
    "night": _hex("8dd3c7 feffb3 bfbbd9 fa8174 81b1d2 fdb462 b3de69 bc82bd"),
    "safe": _hex("0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442 000000"),
    "greys": _hex("222222 999999 555555 c8c8c8 777777 e4e4e4"),
    "blues": _hex("08306b 6baed6 2171b5 c6dbef 4292c6 9ecae1"),
}


@dataclass(frozen=True)
class Look:
    """The look of a chart. ``spines`` holds the drawn sides of the plot: letters of l, b, t, r."""

    paper: Colour
    plot: Colour
    ink: Colour  # titles
    soft: Colour  # tick labels
    grid: Colour | None
    grid_axis: str  # "value" or "both"
    grid_dash: bool
    spines: str
    spine: Colour
    ticks: str  # "out", "in" or ""
    palette: tuple[Colour, ...]
    edge: Colour | None  # outline of bars, slices and markers
    legend_frame: str  # "", "line" or "fill"
    title_align: str  # letter: l, m
    title_bold: bool
    line_width: float  # em
    face: Typeface


_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def _grey(value: int) -> Colour:
    return (value, value, value)


# name: weight, face, paper, plot, ink, soft, grid, grid axis, spines, spine, ticks, palettes, edge, frame, align, bold, width
_Row = tuple[
    float,
    str,
    Colour,
    Colour,
    Colour,
    Colour,
    Colour | None,
    str,
    str,
    Colour,
    str,
    str,
    Colour | None,
    str,
    str,
    bool,
    float,
]
_LOOKS: dict[str, _Row] = {
    "matplotlib": (4, "DejaVu Sans", _WHITE, _WHITE, _BLACK, _BLACK, None, "value", "lbtr", _BLACK, "out", "tab10 tab10 tab10 safe set1 dark2",
                   None, "line", "m", False, 0.15),
    "matplotlib grid": (2, "DejaVu Sans", _WHITE, _WHITE, _BLACK, _BLACK, _grey(176), "both", "lbtr", _BLACK, "out", "tab10 set2 classic", None,
                        "line", "m", False, 0.15),
    "matplotlib classic": (0.7, "DejaVu Sans", _grey(191), _WHITE, _BLACK, _BLACK, _grey(150), "both", "lbtr", _BLACK, "in", "classic", _BLACK,
                           "line", "m", False, 0.1),
    "seaborn white": (1.5, "", _WHITE, _WHITE, _grey(38), _grey(38), _grey(204), "both", "lbtr", _grey(204), "", "deep muted set2", _WHITE, "line",
                      "m", False, 0.15),
    "seaborn dark": (1.5, "", _WHITE, (234, 234, 242), _grey(38), _grey(38), _WHITE, "both", "", _WHITE, "", "deep muted", _WHITE, "fill", "m",
                     False, 0.15),
    "seaborn ticks": (1, "", _WHITE, _WHITE, _grey(20), _grey(20), None, "value", "lb", _grey(20), "out", "deep muted dark2", None, "", "m", False,
                      0.15),
    "ggplot": (1.2, "", _WHITE, _grey(229), _grey(40), _grey(85), _WHITE, "both", "", _WHITE, "out", "ggplot", _grey(238), "fill", "m", False, 0.15),
    "ggplot2": (1.5, "", _WHITE, _grey(235), _BLACK, _grey(77), _WHITE, "both", "", _WHITE, "out", "hue hue set1", None, "", "l", False, 0.1),
    "office": (3, "Carlito", _WHITE, _WHITE, _grey(89), _grey(89), _grey(217), "value", "b", _grey(217), "", "office office office_2007", None, "",
               "m", False, 0.18),
    "office 2007": (1, "Carlito", _WHITE, _WHITE, _BLACK, _BLACK, _grey(134), "value", "lb", _grey(134), "out", "office_2007", None, "", "m", True,
                    0.18),
    "office 2003": (0.6, "", _WHITE, _grey(192), _BLACK, _BLACK, _BLACK, "value", "lbtr", _grey(128), "out", "office_old", _BLACK, "line", "m", True,
                    0.09),
    "plotly": (1.5, "Open Sans", _WHITE, (229, 236, 246), (42, 63, 95), (42, 63, 95), _WHITE, "both", "", _WHITE, "", "plotly", (229, 236, 246), "",
               "l", False, 0.16),
    "plotly white": (1, "Open Sans", _WHITE, _WHITE, (42, 63, 95), (42, 63, 95), (235, 240, 248), "both", "", _WHITE, "", "plotly", None, "", "l",
                     False, 0.16),
    "vega": (2, "", _WHITE, _WHITE, _BLACK, _BLACK, _grey(221), "both", "lbtr", _grey(221), "out", "tableau", None, "", "m", True, 0.16),
    "vega value": (1, "", _WHITE, _WHITE, _BLACK, _BLACK, _grey(221), "value", "lb", _grey(136), "out", "tableau", None, "", "m", True, 0.16),
    "bokeh": (1, "", _WHITE, _WHITE, _grey(68), _grey(68), _grey(229), "both", "lbtr", _grey(229), "out", "dark2 tab10 set2", _WHITE, "line", "l",
              True, 0.12),
    "web": (1.3, "Roboto", _WHITE, _WHITE, _BLACK, _grey(68), _grey(204), "value", "b", _grey(51), "", "web web sheets", None, "", "l", True, 0.16),
    "sheets": (1, "Roboto", _WHITE, _WHITE, _grey(117), _grey(68), _grey(204), "value", "b", _grey(51), "", "sheets", None, "", "l", False, 0.16),
    "high": (1, "", _WHITE, _WHITE, _grey(51), _grey(102), _grey(230), "value", "b", (204, 214, 235), "", "high", None, "", "m", False, 0.16),
    "chartjs": (1, "", _WHITE, _WHITE, _grey(102), _grey(102), _grey(229), "both", "lb", _grey(200), "out", "chartjs", None, "", "m", True, 0.2),
    "echarts": (1, "", _WHITE, _WHITE, (70, 70, 70), (110, 112, 121), (224, 230, 241), "value", "b", (110, 112, 121), "out", "echarts", None, "",
                "l", True, 0.14),
    "news": (1, "", _grey(240), _grey(240), _grey(30), _grey(110), _grey(203), "both", "", _grey(203), "", "news", None, "", "l", True, 0.28),
    "weekly": (0.6, "", (213, 228, 235), (213, 228, 235), _BLACK, _BLACK, _WHITE, "value", "b", _BLACK, "out", "weekly", None, "", "l", True, 0.2),
    "dark": (1, "DejaVu Sans", _BLACK, _BLACK, _WHITE, _WHITE, None, "value", "lbtr", _WHITE, "out", "night bright", None, "line", "m", False, 0.15),
    "night": (1.2, "", _grey(17), _grey(17), (242, 245, 250), (200, 210, 225), (40, 52, 66), "both", "", _grey(80), "", "plotly night muted", None, "",
              "l", False, 0.16),
    "slate": (0.7, "", (35, 39, 48), (35, 39, 48), _grey(235), _grey(180), (62, 68, 80), "value", "b", (100, 106, 120), "", "echarts chartjs set2",
              None, "", "l", True, 0.18),
    "plain": (1.5, "", _WHITE, _WHITE, _grey(30), _grey(70), None, "value", "b", _grey(120), "", "bright tableau set1 deep", None, "", "l", True, 0.18),
    "print": (0.8, "", _WHITE, _WHITE, _BLACK, _BLACK, None, "value", "lb", _BLACK, "out", "greys", _BLACK, "line", "m", False, 0.12),
}  # fmt: skip


def contrast(one: Colour, other: Colour) -> float:
    """Distance of two colours, 0..about 440, green weighted more."""
    return math.sqrt(sum(w * (a - b) ** 2 for w, a, b in zip((0.8, 1.5, 0.7), one, other, strict=True)))


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
    name = dice.weighted({name: row[0] for name, row in _LOOKS.items()})
    (
        _,
        family,
        paper,
        plot,
        ink,
        soft,
        grid,
        grid_axis,
        spines,
        spine,
        ticks,
        palettes,
        edge,
        frame,
        align,
        bold,
        width,
    ) = _LOOKS[name]
    named = [face for face in fonts.faces if face.name == family]
    face = named[0] if named and dice.chance(0.6) else pick_face(dice, fonts, "screen" if dice.chance(0.75) else "")
    palette = PALETTES[dice.pick(palettes.split())]
    dark = sum(paper) < 380
    if dice.chance(0.3):
        palette = PALETTES[dice.pick(sorted(PALETTES))] if dice.chance(0.6) else _random_palette(dice)
    if dice.chance(0.3):
        palette = tuple(dice.shuffled(palette))
    look = Look(paper, plot, ink, soft, grid, grid_axis, False, spines, spine, ticks, palette, edge, frame, align, bold,
                width * dice.uniform(0.75, 1.5), face)  # fmt: skip
    if dice.chance(0.45 * level):
        changes: dict[str, object] = {}
        if dice.chance(0.35):
            changes["grid"] = (
                None if grid is not None and dice.chance(0.4) else _between(plot, soft, dice.uniform(0.1, 0.45))
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
            changes["title_align"], changes["title_bold"] = dice.pick("lm"), dice.chance(0.5)
        if dice.chance(0.3):
            changes["legend_frame"] = dice.pick(["", "line", "fill"])
        if dice.chance(0.25):
            changes["edge"] = dice.pick([None, _WHITE, _BLACK, _grey(90)])
        if dice.chance(0.2) and not dark:
            tint = (255 - dice.integer(0, 20), 255 - dice.integer(0, 20), 255 - dice.integer(0, 20))
            changes["paper"] = tint
            changes["plot"] = tint if dice.chance(0.6) else _WHITE
        look = replace(look, **changes)  # type: ignore[arg-type]
    look = replace(look, grid_dash=dice.chance(0.2))
    return replace(look, palette=visible(look.palette, (look.paper, look.plot), look.edge is not None))


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return (red, green, blue)


def visible(palette: Sequence[Colour], papers: Sequence[Colour], outlined: bool) -> tuple[Colour, ...]:
    """The colours of a palette that stand out from the paper and from each other; never fewer than eight."""
    least = 45 if outlined else 75
    kept: list[Colour] = []
    for colour in (*palette, *PALETTES["tab10"], *PALETTES["bright"]):
        if min(contrast(colour, paper) for paper in papers) >= least and all(contrast(colour, k) >= 55 for k in kept):
            kept.append(colour)
    return tuple(kept)


def colour_name(colour: Colour) -> str | None:
    """The everyday name of a colour, or None where people would not agree."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    if value < 0.2:
        return "black"
    if saturation < 0.08:
        return "gray" if 0.3 < value < 0.8 else "white" if value > 0.97 else None
    if saturation < 0.4 or value < 0.5:
        return None
    degrees = hue * 360
    for low, high, name in ((0, 8, "red"), (22, 36, "orange"), (48, 60, "yellow"), (90, 150, "green"), (200, 245, "blue"),
                            (262, 290, "purple"), (312, 338, "pink"), (352, 360, "red")):  # fmt: skip
        if low <= degrees <= high:
            if name == "orange" and value < 0.8:
                return "brown" if value < 0.65 else None
            return name
    return None
