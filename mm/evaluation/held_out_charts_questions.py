"""Questions on a held-out chart, one of each skill, with the truth taken from the numbers that were drawn.

Half of the questions are asked in the words that users are told to type, the others in other words of everyday use. A
value that is printed must be given as printed; one that has to be measured may be 5% of the axis off (of slices: five
percent of the whole).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from mm.evaluation.held_out_canvas import Question
from mm.evaluation.held_out_charts_data import ChartData, Form, draw_labels
from mm.evaluation.held_out_words import chance, pick

ABSENT = "The image does not show that."
TOLERANCE = 0.05  # of the axis

_KINDS: dict[Form, tuple[str, ...]] = {
    "bar": ("bar chart", "bar", "bar graph", "vertical bar chart", "column chart"),
    "horizontal bar": ("horizontal bar chart", "horizontal bar graph", "bar chart", "bar", "bar graph"),
    "grouped bar": ("grouped bar chart", "bar chart", "bar", "bar graph", "grouped bar graph", "clustered bar chart"),
    "line": ("line chart", "line", "line graph", "line plot"),
    "pie": ("pie chart", "pie", "pie graph"),
    "donut": ("donut chart", "donut", "doughnut chart", "ring chart", "pie chart", "pie"),
}
_MARKS: dict[Form, str] = {
    "bar": "bars",
    "horizontal bar": "bars",
    "grouped bar": "bars",
    "line": "points",
    "pie": "slices",
    "donut": "slices",
}
_WORDINGS: dict[str, tuple[str, ...]] = {  # the first of each is the canonical one
    "kind": ("What kind of chart is this?", "What sort of graph am I looking at?", "Name the type of this chart.",
             "Which kind of diagram is shown?"),
    "title": ("What is the title?", "What does the heading say?", "How is this chart titled?",
              "What is written at the top as its title?"),
    "labels": ("List the labels.", "Which labels are shown? Name them all.", "Please list every category.",
               "What are all the labels, from first to last?"),
    "how many bars": ("How many bars are there?", "How many bars can you count?", "What is the number of bars?"),
    "how many slices": ("How many slices are there?", "Into how many slices is it cut?",
                        "What is the number of slices?"),
    "how many points": ("How many points are there?", "How many points does the line have?",
                        "What is the number of data points?"),
    "how many lines": ("How many lines are there?", "How many lines can you count?", "What is the number of lines?"),
    "value": ("What is the value of {c}?", "What value is shown for {c}?", "How much does {c} have?",
              "Tell me the value for {c}.", "What number does {c} reach?"),
    "value of a series": ("What is the value of {s} in {c}?", "What value does {s} have at {c}?",
                          "How much is {s} at {c}?", "Tell me the value of {s} for {c}."),
    "share": ("What percentage is {c}?", "What share does {c} have, in percent?", "How many percent belong to {c}?",
              "How large is the part of {c}, in percent?"),
    "table": ("Give the data as a Markdown table.", "Write the data of this chart as a Markdown table.",
              "Turn the chart into a Markdown table."),
    "highest": ("Which category has the highest value?", "Which label has the greatest value?",
                "Which one has the most?", "Which one is the largest?"),
    "lowest": ("Which category has the lowest value?", "Which label has the least value?",
               "Which one has the least?", "Which one is the smallest?"),
    "highest of": ("Which category has the highest {s}?", "At which label is {s} highest?", "Where does {s} peak?"),
    "lowest of": ("Which category has the lowest {s}?", "At which label is {s} lowest?",
                  "Where is {s} at its lowest?"),
    "difference": ("What is the difference between {a} and {b}?", "How far apart are the values of {a} and {b}?",
                   "How much do {a} and {b} differ?"),
    "difference in": ("What is the difference between {a} and {b} in {c}?", "How far apart are {a} and {b} at {c}?",
                      "How much do {a} and {b} differ at {c}?"),
    "absent": ("What is the phone number?", "Who drew this chart?", "On which page was this printed?",
               "What is the name of the customer?", "How much tax was paid?", "What does the dog wear?",
               "When does the train leave?", "What is the password?", "Which street is it in?",
               "What is the account number?"),
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What a chart lets one read: a figure a value, or None where values have to be measured."""

    data: ChartData
    figures: tuple[tuple[str, ...], ...] | None
    percents: bool  # values are shares of a pie

    @property
    def unit(self) -> float:
        """Length of the value axis."""
        return self.data.axis.span

    def number(self, s: int, i: int) -> float:
        """The value as it can be read: a printed percent is what is printed."""
        if not self.percents:
            return self.data.values[s][i]
        if self.figures is not None:
            return float(self.figures[s][i].removesuffix("%"))
        return 100 * self.data.values[s][i] / sum(self.data.values[s])


def _ask(rng: Generator, wording: str, /, **blanks: str) -> str:
    canonical, *others = _WORDINGS[wording]
    return (canonical if chance(rng, 0.5) else pick(rng, others)).format(**blanks)


def _plain(number: float) -> str:
    return f"{round(number, 2):.12g}"


def _value(rng: Generator, shown: Shown) -> Question:
    data = shown.data
    s, i = int(rng.integers(len(data.series))), int(rng.integers(len(data.labels)))
    if len(data.series) > 1:
        prompt = _ask(rng, "value of a series", s=data.series[s], c=data.labels[i])
    else:
        prompt = _ask(rng, "share" if shown.percents else "value", c=data.labels[i])
    if shown.figures is not None:
        return Question("value printed", prompt, shown.figures[s][i], "number")
    return Question("value not printed", prompt, _plain(shown.number(s, i)), "number", TOLERANCE * shown.unit)


def _extreme(rng: Generator, shown: Shown, skill: str) -> Question:
    data = shown.data
    s = int(rng.integers(len(data.series)))
    numbers = [shown.number(s, i) for i in range(len(data.labels))]
    best = numbers.index(max(numbers) if skill == "highest" else min(numbers))
    prompt = _ask(rng, f"{skill} of", s=data.series[s]) if len(data.series) > 1 else _ask(rng, skill)
    return Question(skill, prompt, data.labels[best], "conclusion")


def _difference(rng: Generator, shown: Shown) -> Question:
    data = shown.data
    if len(data.series) > 1:
        i = int(rng.integers(len(data.labels)))
        (a, b), names = [int(v) for v in rng.permutation(len(data.series))[:2]], data.series
        first, second = shown.number(a, i), shown.number(b, i)
        prompt = _ask(rng, "difference in", a=names[a], b=names[b], c=data.labels[i])
    else:
        (a, b), names = [int(v) for v in rng.permutation(len(data.labels))[:2]], data.labels
        first, second = shown.number(0, a), shown.number(0, b)
        prompt = _ask(rng, "difference", a=names[a], b=names[b])
    # Printed numbers leave no room but that of binary fractions.
    tolerance = 1e-6 * shown.unit if shown.figures is not None else TOLERANCE * shown.unit
    return Question("difference", prompt, _plain(abs(first - second)), "conclusion", tolerance)


def _how_many(rng: Generator, data: ChartData) -> Question:
    bars = data.form == "grouped bar"
    lines = data.form == "line" and len(data.series) > 1
    count = len(data.series) if lines else len(data.labels) * (len(data.series) if bars else 1)
    return Question("how many", _ask(rng, f"how many {'lines' if lines else _MARKS[data.form]}"), str(count), "number")


def table_of(data: ChartData, figures: Sequence[Sequence[str]]) -> str:
    """The printed figures as a Markdown table, a row a label."""
    head = [data.label_title or "Label", *(data.series if len(data.series) > 1 else [data.value_title or "Value"])]
    rows = [[label, *(row[i] for row in figures)] for i, label in enumerate(data.labels)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _absent(rng: Generator, data: ChartData) -> Question:
    skill, scorer = "cannot be answered", "absent"
    if not data.title:
        return Question(skill, _ask(rng, "title"), ABSENT, scorer)
    if chance(rng, 0.5):
        return Question(skill, pick(rng, _WORDINGS["absent"]), ABSENT, scorer)
    seen = " ".join((data.title, *data.labels, *data.series, data.label_title, data.value_title)).lower()
    while True:
        stranger = pick(rng, draw_labels(rng, 4, ordered=False)[0])
        if stranger.lower() not in seen:
            break
    if len(data.series) > 1:
        return Question(skill, _ask(rng, "value of a series", s=pick(rng, data.series), c=stranger), ABSENT, scorer)
    pie = data.form in {"pie", "donut"}
    return Question(skill, _ask(rng, "share" if pie else "value", c=stranger), ABSENT, scorer)


def chart_questions(rng: Generator, shown: Shown) -> tuple[Question, ...]:
    """One question of every skill that the chart can show.

    "Highest" and "lowest" are asked only where printed figures differ; measured ones always lie ``APART``.
    """
    data = shown.data
    kind, *others = _KINDS[data.form]
    questions = [Question("kind", _ask(rng, "kind"), kind, "text", accept=tuple(others))]
    if data.title:
        questions.append(Question("title", _ask(rng, "title"), data.title))
    questions.append(Question("labels", _ask(rng, "labels"), ", ".join(data.labels), "set"))
    questions.append(_how_many(rng, data))
    questions.append(_value(rng, shown))
    if shown.figures is not None:
        questions.append(Question("table cells", _ask(rng, "table"), table_of(data, shown.figures), "table"))
    questions += [_extreme(rng, shown, "highest"), _extreme(rng, shown, "lowest"), _difference(rng, shown)]
    questions.append(_absent(rng, data))
    return tuple(questions)
