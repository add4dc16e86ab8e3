"""The held-out charts and tables of data: what is drawn is what is asked, and the scorers tell right from wrong."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mm.errors import ResourceError
from mm.evaluation import held_out_charts_data as chart_data
from mm.evaluation.held_out_canvas import MIN_GLYPH, DoesNotFitError
from mm.evaluation.held_out_charts import FORMS, draw_chart, render_chart
from mm.evaluation.held_out_charts_canvas import ChartCanvas, Style
from mm.evaluation.held_out_charts_data import Axis, ChartData, choose_axis, draw_data
from mm.evaluation.held_out_charts_pies import draw_pie
from mm.evaluation.held_out_charts_plots import draw_plot, wrap
from mm.evaluation.held_out_charts_questions import ABSENT, Shown, chart_questions
from mm.evaluation.held_out_data_tables import draw_columns, render_data_table
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import is_held_out
from mm.evaluation.scoring import SCORERS, parse_number, table_cells

COLOURS = ((200, 30, 30), (30, 160, 30), (30, 30, 200))
CHARTS, TABLES = 36, 12


@pytest.fixture(scope="module")
def fonts() -> HeldOutFonts:
    try:
        return HeldOutFonts.find()
    except ResourceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def documents(fonts):
    return [render_chart(i, fonts) for i in range(CHARTS)] + [render_data_table(i, fonts) for i in range(TABLES)]


def plain_style(fonts: HeldOutFonts) -> Style:
    face = next(face for face in fonts.faces if face.name == "Karla")
    return Style(
        face=face,
        size=18,
        paper=(255, 255, 255),
        plot=(255, 255, 255),
        ink=(0, 0, 0),
        line=(220, 220, 220),
        palette=COLOURS,
        grid="none",
        frame="none",
        axis_right=False,
        round_bars=False,
        hatched=False,
        outline=None,
        title_left=False,
        legend="right",
    )


def chart(form: str, values: tuple[tuple[float, ...], ...], axis: Axis) -> ChartData:
    return ChartData(
        form=form,
        title="",
        labels=("Ana", "Neil", "Omar")[: len(values[0])],
        series=("Taxi", "Plane")[: len(values)],
        values=values,
        decimals=0,
        prefix="",
        suffix="",
        comma=False,
        label_title="",
        value_title="",
        axis=axis,
    )


def pixels(canvas: ChartCanvas, colour: tuple[int, int, int]) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of exactly this colour."""
    return np.argwhere((np.asarray(canvas.finish()) == colour).all(axis=-1))


@pytest.mark.parametrize("form", ["bar", "horizontal bar", "grouped bar"])
def test_bars_are_as_long_as_their_values(form, fonts):
    values = ((40.0, 80.0, 10.0), (60.0, 20.0, 50.0)) if form == "grouped bar" else ((40.0, 80.0, 10.0),)
    for seed in range(4):
        canvas = ChartCanvas(620, 460, plain_style(fonts))
        data = chart(form, values, Axis(0, 100, 20))
        draw_plot(canvas, np.random.default_rng(seed), data, (16, 16, 600, 440), printed=False)
        along, across = (0, 1) if form == "horizontal bar" else (1, 0)
        for s, row in enumerate(values):
            found = [pixels(canvas, colour) for colour in COLOURS]
            places = found[s]
            if len(values) == 1:  # every bar may have its own colour
                places = np.concatenate(found)
            runs = np.split(places[np.argsort(places[:, along], kind="stable")], _breaks(places[:, along]))
            lengths = [np.ptp(run[:, across]) + 1 for run in runs[:3]]  # behind them the legend's swatch
            assert np.allclose(np.array(lengths) / lengths[1], np.array(row) / row[1], atol=0.02)


def _breaks(places: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(np.sort(places)) > 1) + 1


def test_points_lie_at_their_values(fonts):
    canvas = ChartCanvas(620, 460, plain_style(fonts))
    data = chart("line", ((20.0, 80.0, 50.0),), Axis(0, 100, 20))
    draw_plot(canvas, np.random.default_rng(1), data, (16, 16, 600, 440), printed=False)
    places = pixels(canvas, COLOURS[0])
    columns = np.unique(places[:, 1])
    heights = [places[places[:, 1] == x, 0].mean() for x in (columns[6], round(columns.mean()), columns[-7])]
    assert (heights[0] - heights[2]) / (heights[0] - heights[1]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("form", ["pie", "donut"])
def test_slices_are_as_large_as_their_values(form, fonts):
    values = (30.0, 60.0, 10.0)
    for seed in range(4):
        canvas = ChartCanvas(620, 460, plain_style(fonts))
        data = chart(form, (values,), Axis(0, 100, 20))
        draw_pie(canvas, np.random.default_rng(seed), data, (16, 60, 600, 440), ())
        areas = np.array([len(pixels(canvas, colour)) for colour in COLOURS], dtype=float)
        assert np.allclose(areas / areas.sum(), np.array(values) / 100, atol=0.02)


def test_every_printed_figure_and_label_is_on_the_canvas(fonts):
    done = 0
    for seed in range(60):
        form = FORMS[seed % len(FORMS)]
        try:
            canvas, shown = draw_chart(np.random.default_rng(seed), fonts, form, printed=True)
        except DoesNotFitError:
            continue
        done += 1
        written = " ".join(canvas.rows)
        assert shown.figures is not None
        for text in (*shown.data.labels, *(figure for row in shown.figures for figure in row)):
            assert text in written
        assert " ".join(shown.data.title.split()) in written
        if len(shown.data.series) > 1:
            assert all(name in canvas.rows for name in shown.data.series)
    assert done > 15


def test_every_skill_is_asked_and_half_in_the_words_to_type(documents):
    skills = Counter(question.skill for document in documents[:CHARTS] for question in document.questions)
    always = {"kind", "labels", "how many", "highest", "lowest", "difference", "cannot be answered"}
    assert all(skills[skill] == CHARTS for skill in always)
    assert skills["value printed"] == skills["value not printed"] == skills["table cells"] == CHARTS // 2
    assert CHARTS * 0.8 < skills["title"] <= CHARTS
    prompts = [q.prompt for document in documents for q in document.questions if q.skill == "table cells"]
    assert 0.3 < prompts.count("Give the data as a Markdown table.") / len(prompts) < 0.7
    assert {document.style.split(",")[0] for document in documents[:CHARTS]} == set(FORMS)


def test_scorers_accept_the_truth_and_refuse_the_rest(documents):
    for document in documents:
        for question in document.questions:
            scorer = SCORERS[question.scorer]
            mark = scorer.score(question.answer, question)
            assert mark.points == mark.of, question
            for wrong in ("Quux", "-987654", ""):
                assert scorer.score(wrong, question).points == 0, question
            if question.tolerance > 0 and question.scorer in {"number", "conclusion"}:
                near, far = (float(question.answer) + f * question.tolerance for f in (0.9, 1.3))
                assert scorer.score(f"{near:.9f}", question).points == 1
                assert scorer.score(f"{far:.9f}", question).points == 0


def test_answers_follow_from_the_printed_table(documents):
    checked = Counter()
    for document in documents:
        asked = {question.skill: question for question in document.questions}
        if "table cells" not in asked:
            continue
        head, *rows = table_cells(asked["table cells"].answer)
        assert len(rows) == int(asked["how many"].answer) or len(head) > 2
        names = [row[0] for row in rows]
        if "labels" in asked:
            assert asked["labels"].answer == ", ".join(names)
        for skill, choose in (("highest", max), ("lowest", min)):
            columns = [i for i in range(1, len(head)) if len(head) == 2 or head[i] in asked[skill].prompt]
            numbers = [parse_number(row[columns[-1]]) for row in rows]
            if len(columns) == 1:
                assert names[numbers.index(choose(numbers))] == asked[skill].answer
                checked[skill] += 1
        for skill in ("value printed", "cell"):
            if skill in asked:
                assert any(asked[skill].answer in row for row in rows if row[0] in asked[skill].prompt)
                checked[skill] += 1
    assert min(checked.values()) > 6 and len(checked) == 4


def test_answers_through_the_numbers_are_accepted():
    data = chart("bar", ((12.0, 30.0, 7.0),), Axis(0, 40, 10))
    figures = (("12", "30", "7"),)
    asked = {q.skill: q for q in chart_questions(np.random.default_rng(0), Shown(data, figures, percents=False))}
    listing = "Ana: 12; Neil: 30; Omar: 7\n"
    conclusion = SCORERS["conclusion"].score
    assert conclusion(listing + "Highest: Neil (30)", asked["highest"]).points == 1
    assert conclusion(listing + "Highest: Ana (12)", asked["highest"]).points == 0
    assert conclusion(listing + "Lowest: Omar (7)", asked["lowest"]).points == 1
    a, b = (v for v in (12, 30, 7) if {12: "Ana", 30: "Neil", 7: "Omar"}[v] in asked["difference"].prompt)
    assert conclusion(f"Difference: {max(a, b)} - {min(a, b)} = {abs(a - b)}", asked["difference"]).points == 1
    assert conclusion(f"Difference: {max(a, b)} - {min(a, b)} = {abs(a - b) + 1}", asked["difference"]).points == 0
    table = "| Label | Value |\n|---|---|\n| Ana | 12 |\n| Neil | 31 |\n| Omar | 7 |"
    assert SCORERS["table"].score(table, asked["table cells"]).points == 2
    for given in ("bar chart", "Bar chart.", "vertical bar chart"):
        assert SCORERS["text"].score(given, asked["kind"]).points == 1
    assert SCORERS["text"].score("line chart", asked["kind"]).points == 0
    assert SCORERS["absent"].score(ABSENT, asked["cannot be answered"]).points == 1


def test_measured_values_may_be_five_percent_of_the_axis_off():
    data = chart("bar", ((12.0, 30.0, 7.0),), Axis(0, 40, 10))
    asked = {q.skill: q for q in chart_questions(np.random.default_rng(2), Shown(data, None, percents=False))}
    value = asked["value not printed"]
    assert value.tolerance == pytest.approx(2.0)
    assert value.answer in {"12", "30", "7"}
    assert "table cells" not in asked and "value printed" not in asked
    pie = replace(data, form="pie", axis=Axis(0, 100, 20))
    asked = {q.skill: q for q in chart_questions(np.random.default_rng(2), Shown(pie, None, percents=True))}
    assert asked["value not printed"].answer in {"24.49", "61.22", "14.29"}
    assert asked["value not printed"].tolerance == pytest.approx(5.0)


@pytest.mark.parametrize("form", FORMS[:3])
def test_highest_and_lowest_can_be_told_apart(form):
    drawn = 0
    for seed in range(30):
        try:
            data = draw_data(np.random.default_rng(seed), form, printed=seed % 2 == 0)
        except DoesNotFitError:
            continue
        drawn += 1
        scale = sum(data.values[0]) / 100 if form == "pie" else 1
        for row in data.values:
            order = sorted(row)
            least = chart_data.APART * data.axis.span * scale * 0.999
            assert order[-1] - order[-2] >= least and order[1] - order[0] >= least
        if form != "pie":
            assert data.axis.low <= min(map(min, data.values)) and max(map(max, data.values)) <= data.axis.high
    assert drawn > 10


@pytest.mark.parametrize(
    ("low", "high", "axis"),
    [
        (0, 48, Axis(0, 50, 10)),
        (0, 900, Axis(0, 1000, 200)),
        (0, 11, Axis(0, 12.5, 2.5)),
        (150, 190, Axis(150, 190, 10)),
    ],
)
def test_axes_have_round_ends(low, high, axis):
    assert choose_axis(low, high) == axis
    assert axis.ticks()[0] == axis.low and axis.ticks()[-1] == pytest.approx(axis.high)


def test_ticks_are_spelled_with_the_decimals_of_the_step():
    data = chart("bar", ((1.0, 2.0, 3.0),), Axis(0, 12.5, 2.5))
    assert [data.spell_tick(value) for value in data.axis.ticks()][:3] == ["0.0", "2.5", "5.0"]
    money = replace(data, axis=Axis(0, 4000, 1000), prefix="$", comma=True)
    assert money.spell_tick(3000) == "$3,000"
    assert replace(data, axis=Axis(0, 0.5, 0.1)).spell_tick(0.30000000000000004) == "0.3"


def test_words_are_held_out():
    for word in (*chart_data.MEASURES, *chart_data.FIELDS):
        assert is_held_out(word), word


def test_letters_stay_readable_and_the_same(documents, fonts):
    assert min(document.glyph_height for document in documents) >= MIN_GLYPH
    for render, place in ((render_chart, 5), (render_data_table, CHARTS + 3)):
        again = render(place % CHARTS, fonts)
        assert again.questions == documents[place].questions
        assert np.array_equal(np.asarray(again.image), np.asarray(documents[place].image))


def test_what_has_no_room_is_refused(fonts):
    canvas = ChartCanvas(300, 200, plain_style(fonts))
    font = canvas.style.font()
    canvas.text(20, 20, "here", font)
    with pytest.raises(DoesNotFitError, match="'there' comes too near to another text"):
        canvas.text(30, 22, "there", font)
    with pytest.raises(DoesNotFitError, match="leaves the picture"):
        canvas.text(290, 100, "beyond", font)
    with pytest.raises(DoesNotFitError, match="more than two rows"):
        wrap("one two three four five six", font, 60)
    assert wrap("one two three", font, 80) == ["one two", "three"]
    assert canvas.rows == ["here"]


def test_columns_hold_what_their_numbers_say():
    for seed in range(40):
        try:
            columns = draw_columns(np.random.default_rng(seed))
        except DoesNotFitError:
            continue
        assert len({len(column.cells) for column in columns}) == 1
        assert len({column.name for column in columns}) == len(columns)
        for column in columns[1:]:
            if column.numbers is not None:
                assert [parse_number(cell) for cell in column.cells] == list(column.numbers)
                assert len(set(column.numbers)) == len(column.numbers)
