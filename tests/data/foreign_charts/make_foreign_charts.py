"""Writes the pictures and index.json of this folder: charts by three libraries that training never drew with.

Run once, by hand, in an environment with matplotlib 3.11.2, altair 6.3.0 with vl-convert-python 1.9.0.post1, pygal
3.1.3 with cairosvg 2.9.1, Pillow 13.0.0 and numpy 2.4.6 (no network, no browser), from the root of the project:

    PYTHONPATH=. python tests/data/foreign_charts/make_foreign_charts.py

Tests and the package never import this file; they read what it wrote. Other versions draw other pixels; questions and
answers stay. Contents are in ``contents.txt``. Every picture is drawn as a user of the library would, with one of its
styles and a font that training does not draw with (Debian packages fonts-lato, fonts-sil-andika, fonts-sil-charis,
fonts-allerta, fonts-linuxlibertine for Linux Biolinum, and those of
``mm.evaluation.held_out_fonts``).
"""

import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import altair as alt
import cairosvg
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pygal
from matplotlib import font_manager
from PIL import Image, ImageFont
from pygal import style as pygal_style

from mm.evaluation.held_out_canvas import tile_scale
from mm.evaluation.held_out_charts_data import Axis, ChartData, choose_axis
from mm.evaluation.held_out_charts_questions import Shown, chart_questions

HERE = Path(__file__).parent
FAMILIES = ("Lato", "Andika", "Cantarell", "Clear Sans", "Karla", "Charis SIL", "Allerta", "Play",
            "Linux Biolinum O", "Caladea", "Comic Neue")  # fmt: skip
FORMS = {"bar": "bar", "barh": "horizontal bar", "grouped": "grouped bar", "line": "line", "lines": "line",
         "pie": "pie", "donut": "donut"}  # fmt: skip
LIBRARIES = ("matplotlib", "altair", "pygal", "matplotlib", "altair", "pygal", "matplotlib", "altair", "pygal",
             "matplotlib")  # fmt: skip
APART = 0.035  # of the axis; what is closer cannot be told apart by eye


@dataclass(frozen=True)
class Content:
    """One row of contents.txt."""

    form: str
    title: str
    label_title: str
    value_title: str
    before: str
    behind: str
    printed: bool
    labels: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    decimals: int

    def spell(self, value: float) -> str:
        """A printed figure."""
        return f"{self.before}{value:.{self.decimals}f}{self.behind}"


def read_contents() -> list[Content]:
    """The rows of contents.txt."""
    contents = []
    for line in (HERE / "contents.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        form, title, label_title, value_title, figure, printed, data = line.split("|")
        names, colon, rest = data.partition(": ")
        series = tuple(names.split("/")) if colon else ("",)
        cells = [cell.split("=") for cell in (rest if colon else data).split("; ")]
        numbers = [[number for number in cell[1].split("/")] for cell in cells]
        decimals = max(len(number.partition(".")[2]) for row in numbers for number in row)
        before, _, behind = figure.partition("_")
        contents.append(
            Content(
                form, title, label_title, value_title, before, behind, printed == "printed",
                tuple(cell[0] for cell in cells), series,
                tuple(tuple(float(row[s]) for row in numbers) for s in range(len(series))), decimals,
            )
        )  # fmt: skip
    return contents


def letter_height(family: str) -> float:
    """Height of a "d" in ems."""
    path = font_manager.findfont(family, fallback_to_default=False)
    return -ImageFont.truetype(path, 1000).getbbox("d", anchor="ls")[1] / 1000


def text_size(number: int, family: str, width: int, height: int) -> float:
    """Pixels an em: for most pictures so that letters are 12 to 14 pixels high in tiles, for one in eight less."""
    wanted = 10.2 if number % 8 == 3 else 12.1 + 0.35 * (number % 6)
    return wanted / letter_height(family) / tile_scale(width, height)


def _on_white(picture: Image.Image) -> Image.Image:
    """Themes without a ground are shown on white, as a viewer does."""
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


# --- matplotlib ------------------------------------------------------------------------------------------------------

MPL_STYLES = ("default", "ggplot", "seaborn-v0_8-whitegrid", "fivethirtyeight", "bmh", "tableau-colorblind10",
              "default", "seaborn-v0_8-darkgrid", "Solarize_Light2", "petroff10", "dark_background",
              "seaborn-v0_8-pastel", "grayscale", "default", "seaborn-v0_8-ticks", "classic")  # fmt: skip
MPL_SIZES = ((640, 480), (500, 350), (800, 500), (400, 300), (700, 450), (600, 600), (900, 600), (480, 420))


def draw_matplotlib(content: Content, number: int, family: str) -> tuple[Image.Image, Axis, float]:
    width, height = MPL_SIZES[number % len(MPL_SIZES)]
    if content.form in {"pie", "donut"} and width > 1.3 * height:
        width = round(1.3 * height)
    em = text_size(number, family, width, height)
    style = MPL_STYLES[number % len(MPL_STYLES)]
    if style in {"grayscale", "classic"} and (len(content.series) > 1 or content.form in {"pie", "donut"}):
        style = "default"  # greys that cannot be told apart, black figures on deep blue
    with plt.style.context(style):
        points = em * 72 / 100
        plt.rcParams.update({"font.family": family, "font.size": points, "figure.dpi": 100, "savefig.dpi": 100})
        for part in ("axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"):
            plt.rcParams[part] = points
        plt.rcParams["axes.titlesize"] = points * (1.15 if number % 3 else 1.3)
        figure, axes = plt.subplots(figsize=(width / 100, height / 100), layout="constrained")
        plot = _mpl_pie if content.form in {"pie", "donut"} else _mpl_plot
        axis = plot(axes, content, number)
        axes.set_title(content.title, loc="left" if number % 5 == 1 else "center",
                       fontweight="bold" if number % 4 == 2 else "normal")  # fmt: skip
        packed = io.BytesIO()
        figure.savefig(packed, format="png")
        plt.close(figure)
    return Image.open(packed).convert("RGB"), axis, em * letter_height(family)


def _mpl_pie(axes, content: Content, number: int) -> Axis:
    values = content.values[0]
    keyed = number % 3 == 0
    options = {}
    if content.printed:
        total = sum(values)
        if content.behind == "%":
            options["autopct"] = "%1.0f%%"
        else:
            options["autopct"] = lambda share: content.spell(share * total / 100)
    if content.form == "donut":
        options["wedgeprops"] = {"width": 0.42, "edgecolor": "white"}
        options["pctdistance"] = 0.79
    elif number % 4 == 1:
        options["explode"] = [0.06] + [0] * (len(values) - 1)
    wedges, *_ = axes.pie(values, labels=None if keyed else content.labels, startangle=(90, 0, 140)[number % 3],
                          counterclock=number % 2 == 0, **options)  # fmt: skip
    if keyed:
        axes.figure.legend(wedges, content.labels, loc="outside center right", frameon=number % 2 == 0)
    return Axis(0, 100, 20)


def _mpl_plot(axes, content: Content, number: int) -> Axis:
    places = np.arange(len(content.labels))
    across = content.form == "barh"
    if content.form in {"line", "lines"}:
        marks = "osD^v"
        for s, row in enumerate(content.values):
            dashes = "--" if s and number % 2 else "-"
            marker = marks[(number + s) % 5] if number % 4 else "o"
            axes.plot(places, row, marker=marker, linestyle=dashes, label=content.series[s])
        axes.set_xticks(places, content.labels)
        if content.printed:
            for x, value in zip(places, content.values[0], strict=True):
                axes.annotate(content.spell(value), (x, value), xytext=(0, 7), textcoords="offset points", ha="center")
            axes.margins(y=0.18, x=0.1)
        if number % 3 == 0:
            axes.grid(True, alpha=0.4)
    elif across:
        bars = axes.barh(content.labels, content.values[0], color=f"C{number % 4}")
        if number % 2:
            axes.invert_yaxis()
        if content.printed:
            axes.bar_label(bars, [content.spell(value) for value in content.values[0]], padding=4)
            axes.margins(x=0.18)
    else:
        wide = 0.8 / len(content.series)
        for s, row in enumerate(content.values):
            shift = (s - (len(content.series) - 1) / 2) * wide
            many = len(content.series) == 1 and number % 5 == 0
            colours = [f"C{i}" for i in range(len(row))] if many else None
            edge = {"edgecolor": "black"} if number % 6 == 5 else {}
            bars = axes.bar(places + shift, row, wide, label=content.series[s], color=colours, **edge)
            if content.printed:
                inside = len(content.series) == 1 and number % 7 == 0 and min(row) > 0.2 * max(row)
                axes.bar_label(bars, [content.spell(value) for value in row], padding=3,
                               label_type="center" if inside else "edge")  # fmt: skip
        axes.margins(y=0.12)
        axes.set_xticks(places, content.labels)
    low, high = axes.get_xlim() if across else axes.get_ylim()
    (axes.set_ylabel if across else axes.set_xlabel)(content.label_title)
    (axes.set_xlabel if across else axes.set_ylabel)(content.value_title)
    if not across and sum(map(len, content.labels)) > 34:
        plt.setp(axes.get_xticklabels(), rotation=(30, 45)[number % 2], ha="right")
    if number % 3 == 1:
        axes.spines[["top", "right"]].set_visible(False)
    if len(content.series) > 1 and content.printed:  # inside it could hide a figure
        axes.figure.legend(loc="outside lower center", ncols=len(content.series))
    elif len(content.series) > 1:
        axes.legend(loc="best")
    return Axis(low, high, (high - low) / 5)


# --- altair ----------------------------------------------------------------------------------------------------------

ALT_THEMES = ("default", "ggplot2", "latimes", "quartz", "vox", "fivethirtyeight", "googlecharts", "dark", "excel",
              "urbaninstitute", "powerbi", "carbonwhite", "default", "carbong90")  # fmt: skip
ALT_SIZES = ((420, 280), (300, 300), (520, 320), (360, 240), (600, 400), (330, 220))


def draw_altair(content: Content, number: int, family: str) -> tuple[Image.Image, Axis, float]:
    width, height = ALT_SIZES[number % len(ALT_SIZES)]
    em = 13.0
    for _ in range(4):  # the picture's size follows from the text's
        image, axis = _altair_picture(content, number, family, width, height, em)
        em = text_size(number, family, *image.size)
    return image, axis, em * letter_height(family)


def _altair_picture(
    content: Content, number: int, family: str, width: int, height: int, em: float
) -> tuple[Image.Image, Axis]:
    theme = ALT_THEMES[number % len(ALT_THEMES)]
    if theme == "ggplot2" and (len(content.series) > 1 or content.form in {"pie", "donut"}):
        theme = "default"  # blacks that cannot be told apart in a legend
    alt.theme.enable(theme)
    dark = theme in {"dark", "carbong90", "carbong100"}
    rows = [
        {"label": label, "series": content.series[s], "value": content.values[s][i],
         "figure": content.spell(content.values[s][i]), "rank": i if number % 2 == 0 else -content.values[s][i]}
        for i, label in enumerate(content.labels)
        for s in range(len(content.series))
    ]  # fmt: skip
    title = alt.TitleParams(content.title, font=family, fontSize=round(em * (1.15 if number % 2 else 1.3)))
    data = alt.Data(values=rows)
    words = {"labelFont": family, "titleFont": family, "labelFontSize": em, "titleFontSize": em, "labelLimit": 400}
    flat = [value for row in content.values for value in row]
    ink = "white" if dark else "black"
    figures = {"font": family, "fontSize": em}
    legend = alt.Legend(**words, title=None, orient=("right", "bottom", "top")[number % 3], symbolSize=em * 9)
    if content.form in {"pie", "donut"}:
        height = max(height, 300)
        axis = Axis(0, 100, 20)
        base = alt.Chart(data, title=title).encode(
            theta=alt.Theta("value:Q", stack=True),
            order=alt.Order("rank:Q"),
            color=alt.Color("label:N", sort=None, legend=legend),
        )
        radius = height / 2 - 10
        chart = base.mark_arc(outerRadius=radius, innerRadius=radius * 0.5 if content.form == "donut" else 0)
        if content.printed:
            chart += base.mark_text(radius=radius * (0.76 if content.form == "donut" else 0.66), **figures).encode(
                text="figure:N", color=alt.value("white" if number % 2 else "black")
            )
        chart = chart.properties(width=height, height=height)
    else:
        axis = choose_axis(0.0, max(flat) * (1.08 if content.printed else 1.0))
        scale = alt.Scale(domain=[axis.low, axis.high])
        names = alt.Axis(**words, title=content.label_title or None)
        if content.form != "barh":
            names.labelAngle = 0 if sum(len(label) + 2 for label in content.labels) * em * 0.55 < width else -40
        label = ("label:N", names)
        value = ("value:Q", alt.Axis(**words, title=content.value_title or None, tickCount=6))
        x, y = (value, label) if content.form == "barh" else (label, value)
        x_kind = alt.X(x[0], axis=x[1], scale=scale) if content.form == "barh" else alt.X(x[0], axis=x[1], sort=None)
        y_kind = alt.Y(y[0], axis=y[1], sort=None) if content.form == "barh" else alt.Y(y[0], axis=y[1], scale=scale)
        base = alt.Chart(data, title=title).encode(x=x_kind, y=y_kind)
        chart = _altair_marks(base, content, number, legend, figures, ink)
        chart = chart.properties(width=width, height=height)
    chart = chart.configure_view(**({"stroke": None} if number % 2 else {}))
    packed = io.BytesIO()
    chart.save(packed, format="png", scale_factor=1.0, engine="vl-convert")
    return _on_white(Image.open(packed)), axis


def _altair_marks(base, content: Content, number: int, legend, figures: dict, ink: str):
    if content.form in {"line", "lines"}:
        several = len(content.series) > 1
        colour = {"color": alt.Color("series:N", sort=None, legend=legend)} if several else {}
        chart = base.mark_line(point=True, strokeWidth=3).encode(**colour)
        if content.printed:
            chart += base.mark_text(dy=-14, color=ink, **figures).encode(text="figure:N")
        return chart
    if content.form == "grouped":
        base = base.encode(xOffset=alt.XOffset("series:N", sort=None))
        chart = base.mark_bar().encode(color=alt.Color("series:N", sort=None, legend=legend))
        if content.printed:
            chart += base.mark_text(dy=-10, color=ink, **figures).encode(text="figure:N")
        return chart
    colour = {"color": alt.Color("label:N", sort=None, legend=None)} if number % 5 == 0 else {}
    chart = base.mark_bar(cornerRadius=4 if number % 4 == 1 else 0).encode(**colour)
    if content.printed:
        place = {"align": "left", "dx": 5} if content.form == "barh" else {"dy": -10}
        chart += base.mark_text(color=ink, **place, **figures).encode(text="figure:N")
    return chart


# --- pygal -----------------------------------------------------------------------------------------------------------

PYGAL_STYLES = ("DefaultStyle", "CleanStyle", "LightStyle", "DarkStyle", "LightColorizedStyle", "SolidColorStyle",
                "BlueStyle", "RedBlueStyle", "DarkSolarizedStyle", "LightGreenStyle", "TurquoiseStyle",
                "LightSolarizedStyle", "DarkColorizedStyle")  # fmt: skip
ONE_COLOUR = ("LightColorizedStyle", "BlueStyle", "LightGreenStyle", "TurquoiseStyle", "DarkColorizedStyle",
              "RedBlueStyle")  # fmt: skip
DARK = ("DarkStyle", "DarkSolarizedStyle", "DarkColorizedStyle", "TurquoiseStyle")
PYGAL_SIZES = ((600, 450), (800, 600), (500, 400), (720, 480), (400, 320), (560, 560))


def draw_pygal(content: Content, number: int, family: str) -> tuple[Image.Image, Axis, float]:
    width, height = PYGAL_SIZES[number % len(PYGAL_SIZES)]
    em = text_size(number, family, width, height)
    name = PYGAL_STYLES[number % len(PYGAL_STYLES)]
    pie = content.form in {"pie", "donut"}
    if (pie or len(content.series) > 1) and name in ONE_COLOUR:
        name = "DefaultStyle"  # its shades cannot be told apart in a legend
    if content.printed and (content.form == "line" and name in DARK or name == "DarkColorizedStyle"):
        name = "LightSolarizedStyle"  # figures would be black on black
    kind = getattr(pygal_style, name)
    look = kind(
        font_family=family,
        label_font_size=round(em),
        major_label_font_size=round(em),
        value_font_size=round(em),
        value_label_font_size=round(em),
        legend_font_size=round(em),
        title_font_size=round(em * 1.25),
        **({"value_colors": ("white",) * 12} if pie and content.printed and name == "DarkStyle" else {}),
    )
    flat = [value for row in content.values for value in row]
    axis = Axis(0, 100, 20) if pie else choose_axis(0.0, max(flat) * (1.1 if content.printed else 1.0))
    options = {
        "title": content.title,
        "width": width,
        "height": height,
        "style": look,
        "print_values": content.printed,
        "value_formatter": content.spell if content.printed else lambda value: f"{value:g}",
        "legend_at_bottom": number % 3 == 1,
        "legend_box_size": round(em * 0.8),
        "truncate_legend": -1,
        "truncate_label": -1,
        "js": (),
    }
    if pie:
        chart = pygal.Pie(inner_radius=0.55 if content.form == "donut" else 0, **options)
        for label, value in zip(content.labels, content.values[0], strict=True):
            chart.add(label, value)
    else:
        makers = {"barh": pygal.HorizontalBar, "line": pygal.Line, "lines": pygal.Line}
        if content.form in {"line", "lines"}:
            options |= {"dots_size": max(3, round(em / 5)), "stroke_style": {"width": 3}}
            if content.printed:
                options["margin_right"] = round(4 * em)  # figures stand right of their points
        options |= {"range": (axis.low, axis.high), "show_legend": len(content.series) > 1}
        options["x_title" if content.form != "barh" else "y_title"] = content.label_title or None
        options["y_title" if content.form != "barh" else "x_title"] = content.value_title or None
        if content.form != "barh" and sum(map(len, content.labels)) > 26:
            options["x_label_rotation"] = 30
        chart = makers.get(content.form, pygal.Bar)(**options)
        chart.x_labels = content.labels
        ticks = axis.ticks()
        chart.y_labels = [round(tick, 6) for tick in ticks]
        for series, row in zip(content.series, content.values, strict=True):
            chart.add(series, list(row))
    packed = cairosvg.svg2png(chart.render(), output_width=width, output_height=height)
    return _on_white(Image.open(io.BytesIO(packed))), axis, round(em) * letter_height(family)


# --- the set ---------------------------------------------------------------------------------------------------------

DRAW = {"matplotlib": draw_matplotlib, "altair": draw_altair, "pygal": draw_pygal}


def shown_of(content: Content, axis: Axis) -> Shown:
    """What can be read from the chart."""
    pie = content.form in {"pie", "donut"}
    data = ChartData(
        form=FORMS[content.form],
        title=content.title,
        labels=content.labels,
        series=content.series,
        values=content.values,
        decimals=content.decimals,
        prefix=content.before,
        suffix=content.behind,
        comma=False,
        label_title=content.label_title,
        value_title=content.value_title,
        axis=axis,
    )
    percents = pie and (not content.printed or content.behind == "%")
    if percents and abs(sum(content.values[0]) - 100) > 1e-9:
        raise ValueError(f"the slices of {content.title!r} make {sum(content.values[0])} percent")
    figures = tuple(tuple(map(content.spell, row)) for row in content.values) if content.printed else None
    scale = sum(content.values[0]) / 100 if pie else 1.0
    for row in content.values:
        order = sorted(row)
        if min(order[-1] - order[-2], order[1] - order[0]) < (0 if content.printed else APART * axis.span * scale):
            raise ValueError(f"{content.title!r} has values too close to compare")
    return Shown(data, figures, percents=percents)


def main() -> None:
    """Write all pictures and index.json."""
    records, counts = [], {form: 0 for form in FORMS}
    for old in HERE.glob("*.png"):
        old.unlink()
    for number, content in enumerate(read_contents()):
        library = LIBRARIES[counts[content.form] % len(LIBRARIES)]
        counts[content.form] += 1
        family = FAMILIES[number % len(FAMILIES)]
        image, axis, letters = DRAW[library](content, number, family)
        name = f"{number:03d}_{library}_{content.form}.png"
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(HERE / name, optimize=True)
        questions = chart_questions(np.random.default_rng((35, number)), shown_of(content, axis))
        records.append(
            {
                "file": name,
                "task": "foreign_charts",
                "style": f"{library}, {content.form}, {'printed' if content.printed else 'measured'}, {family}",
                "text": "",
                "glyph_height": round(letters * tile_scale(*image.size), 1),
                "questions": [asdict(question) for question in questions],
            }
        )
    (HERE / "index.json").write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(records)} pictures, {sum(p.stat().st_size for p in HERE.glob('*.png')) / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
