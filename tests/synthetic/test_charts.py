"""Charts and data tables: equal draws, answers that agree with each other and with the picture, text inside it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mm.errors import OptionError
from mm.evaluation import held_out_charts_questions, held_out_data_tables
from mm.synthetic import charts, data_tables
from mm.synthetic.chart_axes import NoRoomError, ValueAxis, make_axis, typeset
from mm.synthetic.chart_canvas import Canvas
from mm.synthetic.chart_data import ChartData, draw_labels
from mm.synthetic.chart_pies import SHARE_CODES, PiePlan, draw_pie, percents, share_code
from mm.synthetic.chart_plan import PlotPlan
from mm.synthetic.chart_plots import draw_axes_chart
from mm.synthetic.chart_questions import (
    TABLE_PROMPT,
    difference,
    final_answer,
    markdown,
    phrases,
    starred,
    subtraction,
)
from mm.synthetic.chart_styles import colour_name, contrast, draw_look
from mm.synthetic.charts import read_values
from mm.synthetic.data_grid import DataGrid, draw_grid_look
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import FontSet
from mm.synthetic.layout import build_page
from mm.synthetic.phrases import expand, parse_phrase
from mm.synthetic.render import RENDERERS, render
from mm.synthetic.sample import ABSENT_ANSWER, Sample
from mm.synthetic.style import draw_style
from mm.synthetic.words import lexicon

CHARTS = [*charts.KINDS, *data_tables.KINDS]


def samples(kind: str, fonts: FontSet, count: int, level: float = 0.8) -> list[Sample]:
    return [render(kind, np.random.default_rng((11, number)), fonts, level) for number in range(count)]


def number(text: str) -> float:
    return float(re.sub(r"[^0-9.\-]", "", text.replace(" (", "|").split("|")[0]))


def table(answer: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first cell, the header under ""."""
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in answer.splitlines()]
    return {"": lines[0]} | {line[0].replace("\\|", "|"): line[1:] for line in lines[2:]}


@pytest.mark.parametrize("kind", CHARTS)
def test_equal_draws_give_equal_samples(kind: str, fonts: FontSet) -> None:
    for seed in range(4):
        one, other = (render(kind, np.random.default_rng(seed), fonts, 1.0) for _ in range(2))
        assert one.image.tobytes() == other.image.tobytes()
        assert one.turns == other.turns and one.text == other.text and one.fields == other.fields
        np.testing.assert_array_equal(one.glyphs, other.glyphs)


@pytest.mark.parametrize("kind", CHARTS)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_what_a_sample_holds(kind: str, level: float, fonts: FontSet) -> None:
    for sample in samples(kind, fonts, 25, level):
        assert sample.image.mode == "RGB" and sample.kind == kind
        assert sample.turns and all(turn.question and turn.answer for turn in sample.turns)
        assert len({turn.question for turn in sample.turns}) == len(sample.turns)
        width, height = sample.image.size
        boxes = sample.glyphs[:, 1:]
        assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
        letters = sum(not letter.isspace() for letter in sample.text)
        areas = np.isin(sample.glyphs[:, 0], SHARE_CODES)
        assert np.count_nonzero(~areas) == letters and areas.any() == (kind == "pie")
        assert not areas[areas.sum() :].any()  # they come first: text is painted over them


@pytest.mark.parametrize("kind", CHARTS)
def test_answers_agree_with_the_table(kind: str, fonts: FontSet) -> None:
    seen = 0
    for sample in samples(kind, fonts, 120):
        answers = [turn.answer for turn in sample.turns]
        tables = [table(answer) for answer in answers if answer.startswith("| ")]
        if not tables:
            continue
        rows, cells = tables[0], {cell for row in tables[0].values() for cell in row}
        for turn in sample.turns:
            lines = turn.answer.split("\n")
            if turn.question in phrases()["bars"]:
                assert int(turn.answer) == sum(len(row) for name, row in rows.items() if name)
            elif turn.question in (*phrases()["slices"], *phrases()["rows"]):
                assert int(turn.answer) == len(rows) - 1
            elif turn.question in (*phrases()["labels"], *phrases()["slice_labels"]):
                assert turn.answer.split(", ") == [name for name in rows if name]
            elif len(lines) > 1 and lines[-1].startswith(("Highest", "Lowest", "Higher", "Difference")):
                listing = lines[0].replace("*", "")
                assert all(part.split(": ")[-1].split(" / ")[0] in cells for part in listing.split("; ")), turn
                seen += 1
    assert seen > 5


@pytest.mark.parametrize("kind", CHARTS)
def test_conclusions_follow_from_their_listing(kind: str, fonts: FontSet) -> None:
    seen = {"Highest": 0, "Lowest": 0, "Difference": 0}
    for sample in samples(kind, fonts, 150):
        for turn in sample.turns:
            listing, *_, last = turn.answer.split("\n") if "\n" in turn.answer else ("", "")
            word = last.partition(": ")[0]
            if word not in ("Highest", "Lowest", "Higher", "Difference"):
                continue
            parts = [part.rpartition(": ") for part in listing.split("; ")]
            shown = [cell for _, _, text in parts for cell in text.split(" / ")]
            numbers = [number(cell.removesuffix("*")) for cell in shown]
            beats = [n for n in numbers if word != "Lowest"] or [-n for n in numbers]
            best = [index for index, n in enumerate(beats) if all(n > other for other in beats[:index])]
            assert [index for index, cell in enumerate(shown) if cell.endswith("*")] == best, turn
            if word == "Difference":
                assert number(final_answer(turn.answer)) == pytest.approx(max(numbers) - min(numbers), abs=1e-6), turn
            else:
                value = number(final_answer(turn.answer).rpartition(" (")[2])
                assert value == (min(numbers) if word == "Lowest" else max(numbers)), turn
                assert numbers.count(value) == 1, turn
                label = final_answer(turn.answer).rpartition(" (")[0]
                names = [name for name, _, text in parts for _ in text.split(" / ")]
                assert label.startswith(names[numbers.index(value)]), turn
            seen["Highest" if word == "Higher" else word] += 1
    assert seen["Highest"] > 5 and seen["Lowest"] > 5 and seen["Difference"] > 5


def plain_data(count: int = 4, series: int = 1) -> ChartData:
    values = tuple(tuple(float(7 + 13 * ((c * 3 + s * 5) % 7)) for c in range(count)) for s in range(series))
    return ChartData(
        "", tuple("ABCDEFGH"[:count]), tuple(f"S{s}" for s in range(series)), values, 0, "", "", "", "", ""
    )


def draw_plot(plan: PlotPlan, data: ChartData, fonts: FontSet, seed: int):  # type: ignore[no-untyped-def]
    dice = Dice(np.random.default_rng(seed))
    for _ in range(50):
        look = draw_look(dice, fonts, 0.0)
        canvas = Canvas(560, 480, look.paper, 1)
        try:
            plot = draw_axes_chart(canvas, look, typeset(fonts, look, 15, dice), data, plan, dice)
        except NoRoomError:
            continue
        return canvas, look, plot
    raise AssertionError("no plot fits")


def test_upright_numbers_stand_at_the_tips_of_their_bars(fonts: FontSet) -> None:
    for seed in range(6):
        data = plain_data(3, 2)
        plan = PlotPlan("bar", False, stacked=False, printed=True, legend="", many_colours=False, upright=True)
        canvas, _, plot = draw_plot(plan, data, fonts, seed)
        turned = [label for label in canvas.labels if label.angle == 90 and label.text.isdigit()]
        assert [label.text for label in turned] == [data.number(value) for row in data.values for value in row]
        for label, (s, c) in zip(turned, ((s, c) for s in range(2) for c in range(3)), strict=True):
            tip = plot.value(data.values[s][c])
            assert tip - 8 < label.box[3] < tip or tip < label.box[1] < tip + 8  # beyond the tip, or just inside it
            assert abs((label.box[0] + label.box[2]) / 2 - plot.centres[c]) < plot.slot / 2


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bars_end_where_their_values_are(horizontal: bool, seed: int, fonts: FontSet) -> None:
    data = plain_data()
    plan = PlotPlan("bar", horizontal, stacked=False, printed=False, legend="", many_colours=True)
    canvas, look, plot = draw_plot(plan, data, fonts, seed)
    pixels = np.asarray(canvas.picture()).astype(int)
    texts, *_ = read_values(data, plot.axis, printed=False)
    for c, value in enumerate(data.values[0]):
        mask = (pixels == np.array(look.palette[c])).all(axis=-1)
        across, along = (0, 1) if horizontal else (1, 0)
        lines = mask.any(axis=along).nonzero()[0]
        assert abs(lines.mean() - plot.centres[c]) < 3
        run = mask.any(axis=across).nonzero()[0]
        end = run.max() + 1 if horizontal else run.min()
        x0, y0, x1, y1 = plot.box
        share = (end - x0) / (x1 - x0) if horizontal else (y1 - end) / (y1 - y0)
        seen = plot.axis.low + share * (plot.axis.high - plot.axis.low)
        span = plot.axis.high - plot.axis.low
        assert abs(seen - value) < 0.015 * span
        assert abs(seen - float(texts[0][c])) < 0.03 * span


def test_slices_have_their_share_of_the_pixels(fonts: FontSet) -> None:
    data = plain_data(5)
    for seed in range(6):
        dice = Dice(np.random.default_rng(seed))
        look = draw_look(dice, fonts, 0.0)
        canvas = Canvas(500, 420, look.paper, 1)
        plan = PiePlan(seed % 2 == 1, "outside", "", "slice", "right", 0)
        draw_pie(canvas, look, typeset(fonts, look, 15, dice), data, plan, dice)
        pixels = np.asarray(canvas.image).astype(int)
        counts = np.array([(pixels == np.array(colour)).all(axis=-1).sum() for colour in look.palette[:5]])
        expected = np.array([float(share[:-1]) for share in percents(data, 1)])
        np.testing.assert_allclose(100 * counts / counts.sum(), expected, atol=1.5)


def test_axis_holds_its_values_and_rounds_finely() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        values = list(rng.uniform(0, 10.0 ** rng.integers(-1, 6), size=5))
        from_zero, snug = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        try:
            axis = make_axis(values, wanted=int(rng.integers(3, 8)), from_zero=from_zero, snug=snug, headroom=0.0)
        except NoRoomError:
            continue
        assert axis.low <= min(values) and axis.high >= max(values)
        span = axis.high - axis.low
        assert all(axis.low - 1e-6 * span <= tick <= axis.high + 1e-6 * span for tick in axis.ticks)
        assert span / 101 < axis.grain <= span / 39.9
        assert all(abs(axis.read(value) - value) <= 0.0126 * span for value in values)


def test_numbers_that_are_not_printed_are_plain() -> None:
    data = ChartData("", ("A", "B"), ("S",), ((1234.0, 40.0),), 0, "$", "%", ",", "", "")
    texts, numbers, *_ = read_values(data, ValueAxis(0.0, 2000.0, (0.0, 1000.0, 2000.0), 0), printed=False)
    assert texts == (("1,250", "50"),) and numbers == ((1250.0, 50.0),)
    texts, *_ = read_values(data, ValueAxis(0.0, 2000.0, (0.0, 1000.0, 2000.0), 0), printed=True)
    assert texts == (("$1,234%", "$40%"),)


def test_minus_sign_stands_in_front() -> None:
    data = ChartData("", ("A",), ("S",), ((-3.5,),), 1, "$", "", "", "", "")
    assert data.number(-3.5) == "-$3.5" and data.number(-0.01) == "$0.0"


def test_final_answer() -> None:
    assert final_answer("Tea: 12*; Milk: 30*\nHighest: Milk (30)") == "Milk (30)"
    assert starred("Highest", [12, 30, 7, 30], ["12", "30", "7", "30"]) == ["12*", "30*", "7", "30"]
    assert starred("Lowest", [12, 30, 7], ["12", "30", "7"]) == ["12*", "30", "7*"]
    assert final_answer("Tea: 12; Milk: 30\nDifference: 30 - 12 = 18") == "18"
    assert final_answer("Tea: 12*; Milk: 30*\n30 - 12: 0-2=8'3-1=1\nDifference: 18") == "18"
    assert final_answer("42") == "42"


def test_markdown_escapes_bars() -> None:
    assert markdown(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_table_prompt_is_the_commonest_phrasing() -> None:
    asked = phrases()["table"]
    assert asked.count(TABLE_PROMPT) == max(map(asked.count, asked)) >= 5


def test_some_questions_have_no_answer(fonts: FontSet) -> None:
    turns = [turn for kind in CHARTS for sample in samples(kind, fonts, 60) for turn in sample.turns]
    assert 0.03 < sum(turn.answer == ABSENT_ANSWER for turn in turns) / len(turns) < 0.2


def test_palettes_can_be_told_apart(fonts: FontSet) -> None:
    for seed in range(100):
        look = draw_look(Dice(np.random.default_rng(seed)), fonts, 1.0)
        assert len(look.palette) >= 8
        for index, colour in enumerate(look.palette):
            assert min(contrast(colour, look.paper), contrast(colour, look.plot)) >= 45
            assert all(contrast(colour, other) >= 55 for other in look.palette[:index])


def test_colour_names() -> None:
    named = {
        (255, 0, 0): "red",
        (0, 128, 0): "green",
        (31, 119, 180): "blue",
        (255, 127, 14): "orange",
        (127, 127, 127): "gray",
    }
    assert {colour: colour_name(colour) for colour in named} == named
    assert colour_name((23, 190, 207)) is None  # between green and blue


def test_every_renderer_can_be_imported() -> None:
    assert all(callable(RENDERERS.load(name)) for name in RENDERERS.names())


def test_unknown_kinds_are_refused(fonts: FontSet) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(OptionError, match=r"unknown kind of sample 'bars'; known: bar, .* Did you mean 'bar'\?"):
        render("bars", rng, fonts)
    with pytest.raises(OptionError, match=r"Unknown kind of chart 'bars'. Known kinds: bar, line_chart, pie\."):
        charts.render("bars", rng, fonts)
    with pytest.raises(OptionError, match=r"Unknown kind of table 'x'. Known kinds: data_table\."):
        data_tables.render("x", rng, fonts)


def test_no_question_has_a_blank_left(fonts: FontSet) -> None:
    for kind in CHARTS:
        for sample in samples(kind, fonts, 50, 1.0):
            assert not any("{" in turn.question or "}" in turn.question for turn in sample.turns)


@pytest.mark.parametrize("kind", charts.KINDS)
def test_every_skill_is_asked_first_often(kind: str, fonts: FontSet) -> None:
    drawn = samples(kind, fonts, 200)
    first = [sample.turns[0] for sample in drawn]
    values = {phrase for name in ("value", "value2", "share") for phrase in phrases()[name]}
    patterns = [re.compile(re.sub(r"\\{\w\\}", ".+", re.escape(phrase))) for phrase in values]
    dense = [
        any(turn.answer.startswith("| ") or turn.answer.count(", ") >= 1 for turn in sample.turns) for sample in drawn
    ]
    assert sum(dense) > 100
    assert sum(any(pattern.fullmatch(turn.question) for pattern in patterns) for turn in first) > 35
    assert sum(turn.answer.startswith("| ") for turn in first) > 8
    assert sum("\n" in turn.answer and not turn.answer.startswith("| ") for turn in first) > 20


@pytest.mark.parametrize("kind", charts.KINDS)
def test_what_is_asked_in_vain_is_not_there(kind: str, fonts: FontSet) -> None:
    seen = 0
    for sample in samples(kind, fonts, 200):
        for turn in sample.turns:
            if turn.answer != ABSENT_ANSWER:
                continue
            names = {phrase.format(c="(.+)") for phrase in phrases()["value"] if phrase not in ("{c}?", "Look up {c}.")}
            for pattern in names:
                match = re.fullmatch(re.escape(pattern).replace(r"\(\.\+\)", "(.+)"), turn.question)
                if match is not None and turn.question not in phrases()["absent"]:
                    seen += 1
                    assert match[1].lower() not in sample.text.lower(), (turn, sample.text)
    assert seen > 3


def test_slices_without_a_legend_are_listed_clockwise_from_the_top(fonts: FontSet) -> None:
    data = plain_data(5)
    for seed in range(12):
        dice = Dice(np.random.default_rng(seed))
        look = draw_look(dice, fonts, 0.0)
        canvas = Canvas(500, 420, look.paper, 1)
        order = draw_pie(
            canvas, look, typeset(fonts, look, 15, dice), data, PiePlan(False, "outside", "", "slice", "", 0), dice
        )
        named = {label.text: label.box for label in canvas.labels}
        middle_x, middle_y = 250, (min(box[1] for box in named.values()) + max(box[3] for box in named.values())) / 2
        angles = []
        for index in order:
            x0, y0, x1, y1 = named[data.categories[index]]
            angles.append(np.degrees(np.arctan2((x0 + x1) / 2 - middle_x, middle_y - (y0 + y1) / 2)) % 360)
        falls = sum(later < earlier for earlier, later in zip(angles, angles[1:], strict=False))
        assert falls == 0 or (falls == 1 and angles[-1] < angles[0]), angles


def test_slices_lie_where_their_colours_are_though_the_legend_has_another_order(fonts: FontSet) -> None:
    data = plain_data(5)
    for seed in range(6):
        dice = Dice(np.random.default_rng(seed))
        look = draw_look(dice, fonts, 0.0)
        canvas = Canvas(500, 420, look.paper, 1)
        plan = PiePlan(False, "legend", "", "slice", "right", 0, shuffled=True)
        assert draw_pie(canvas, look, typeset(fonts, look, 15, dice), data, plan, dice) == tuple(range(5))
        pixels = np.asarray(canvas.image).astype(int)
        counts = np.array([(pixels == np.array(colour)).all(axis=-1).sum() for colour in look.palette[:5]])
        expected = np.array([float(share[:-1]) for share in percents(data, 1)])
        np.testing.assert_allclose(100 * counts / counts.sum(), expected, atol=3)


def test_every_cell_of_a_table_is_printed_and_asked_as_printed(fonts: FontSet) -> None:
    blank = 0
    for sample in samples("data_table", fonts, 120, 1.0):
        rows = {name: table(turn.answer) for turn in sample.turns for name in ["t"] if turn.answer.startswith("| ")}
        for name, cell in sample.fields.items():
            assert cell in sample.text, (name, cell)
            blank += cell == ""
        for name, cells in rows.get("t", {}).items():
            for head, cell in zip(rows["t"][""][1:], cells if name else [], strict=False):
                assert sample.fields[f"{head} of {name}"] in (cell, ""), (name, head)
    assert blank > 2


def test_differences_of_cells_are_spelled_like_the_cells() -> None:
    plain = data_tables.DataTable("", ("A", "B"), (("x", "$1,250.50"), ("y", "$0.75")), (False, True))
    spelled = set()
    for seed in range(200):
        turn = data_tables._pair_turn(plain, Dice(np.random.default_rng(seed)))
        if turn is not None and "Difference" in turn.answer:
            spelled.add(turn.answer.splitlines()[-1])
    assert spelled == {"Difference: $1,249.75"}


def test_looks_of_tables_keep_their_cells(fonts: FontSet) -> None:
    rows = (("Tea", "12", ""), ("Milk", "3,400", "x"))
    for seed in range(60):
        dice = Dice(np.random.default_rng(seed))
        style = draw_style(dice, fonts, "screen", 16, 1.0)
        grid = DataGrid(("Name", "Value", "Note"), rows, "lrc", draw_grid_look(dice, style), "A long title of a table")
        page = build_page([grid], style)
        assert page.rows() == ["A long title of a table", "Name Value Note", "Tea 12", "Milk 3,400 x"]
        boxes = sorted((op.baseline, op.x, op.x + op.pen.width(op.text)) for op in page.texts)
        for one, other in zip(boxes, boxes[1:], strict=False):
            assert one[0] != other[0] or one[2] < other[1]
        assert page.bounds[0] <= grid.natural_width(style) + 1


@pytest.mark.parametrize("value", [0.0, 12.0])
def test_an_axis_of_equal_values_has_a_length(value: float) -> None:
    axis = make_axis([value, value], wanted=5, from_zero=value == 0.0, snug=False, headroom=0.0)
    assert axis.low <= value <= axis.high and axis.high > axis.low


def test_units_in_letters_are_part_of_printed_numbers_only(fonts: FontSet) -> None:
    for kind in ("bar", "line_chart"):
        for sample in samples(kind, fonts, 150):
            for turn in sample.turns:
                if re.fullmatch(r"-?[\d.,]+ ?(k|K|M|kg|km|s|ms)", turn.answer):
                    assert turn.answer in sample.text, turn


@pytest.mark.parametrize(
    ("high", "low", "steps"),
    [
        ("30", "12", "0-2=8'3-1=1"),
        ("€204,581", "€195,101", "1-1=0 8-0=8 5-1=4 4-5=9'0-9=0'2-1=0"),
        ("6", "0.4", "0-4=6'6-0=5"),
        ("12.50 km", "3.75 km", "0-5=5'5-7=7'2-3=8'1-0=0"),
        ("7", "7", "7-7=0"),
    ],
)
def test_a_subtraction_is_worked_out_digit_by_digit(high: str, low: str, steps: str) -> None:
    assert subtraction(high, low) == f"{high} - {low}: {steps}"


def test_the_digits_of_a_difference_are_those_of_its_result(fonts: FontSet) -> None:
    seen = 0
    for kind in ("bar", "data_table"):
        for sample in samples(kind, fonts, 50):
            for lines in (turn.answer.split("\n") for turn in sample.turns):
                if len(lines) == 3 and lines[2].startswith("Difference: "):
                    digits = "".join(re.findall(r"=(\d)", lines[1]))[::-1]
                    assert digits.lstrip("0") == re.sub(r"\D", "", final_answer("\n".join(lines))).lstrip("0"), lines
                    seen += 1
    assert seen > 12


def test_a_difference_with_a_number_below_zero_has_no_digits() -> None:
    answer = difference(("Tea", "Milk"), (12.0, -5.0), ("12", "-5"), lambda result, _: f"{result:g}")
    assert answer == "Tea: 12*; Milk: -5\nDifference: 17"


@pytest.mark.parametrize("kind", ["quarter", "series", "spans", "times", "month", "year"])
def test_labels_that_differ_in_their_number_are_different(kind: str) -> None:
    dice = Dice(np.random.default_rng(5))
    for _ in range(300):
        count = dice.integer(2, 12)
        labels = draw_labels(dice, lexicon("train"), kind, count, 14)
        assert len({label.lower() for label in labels}) == count
        assert not any(mark in label for label in labels for mark in (", ", ";", ": ")), labels


def test_no_wording_is_one_of_the_evaluation() -> None:
    """Only the first wording of each skill, which users are told to type, is trained."""
    held: set[str] = set()
    for wordings in (held_out_charts_questions._WORDINGS, held_out_data_tables._WORDINGS):
        for skill, (first, *others) in wordings.items():
            held |= {re.sub(r"{\w+}", "*", text).lower() for text in ([first] if skill == "absent" else []) + others}
    dice = Dice(np.random.default_rng(3))
    for name, texts in phrases().items():
        for phrase in texts:
            parsed = parse_phrase(phrase) if name.endswith("+") else (phrase,)
            for text in {expand(dice, parsed, "page") for _ in range(120 if name.endswith("+") else 1)}:
                for mark in ("bar", "slice", "point"):
                    plain = re.sub(r"{\w+}", "*", text.replace("{mark}", mark)).lower()
                    assert plain not in held, (name, text)


def test_areas_of_slices_are_as_large_as_their_shares(fonts: FontSet) -> None:
    plan = PiePlan(
        donut=False, labels="legend", figures="", figures_at="slice", legend="right", percent_decimals=0, shuffled=True
    )
    data = replace(plain_data(3), values=((50.0, 30.0, 20.0),))
    for seed in range(5):
        dice = Dice(np.random.default_rng(seed))
        look = draw_look(dice, fonts, 0.0)
        canvas = Canvas(560, 480, look.paper, 1)
        draw_pie(canvas, look, typeset(fonts, look, 15, dice), data, plan, dice)
        sizes = {code: 0.0 for code in map(share_code, (0.5, 0.3, 0.2))}
        for code, (x0, y0, x1, y1) in canvas.areas:
            sizes[code] += (x1 - x0) * (y1 - y0)
        shares = [size / sum(sizes.values()) for size in sizes.values()]
        assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03), seed
        colours: dict[int, set[object]] = {code: set() for code in sizes}
        for code, (x0, y0, x1, y1) in canvas.areas:
            colours[code].add(canvas.image.getpixel((int((x0 + x1) / 2), int((y0 + y1) / 2))))
        assert all(look.palette[index] in colours[code] for index, code in enumerate(sizes)), seed
