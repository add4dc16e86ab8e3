"""Questions on a chart and their answers.

Answers that need more than one number go through the numbers first ("table first"): a line that lists them, then a line
whose last part is the answer:

    Tea: 12; Milk: 30; Cocoa: 7          highest, lowest, total of what is asked about
    Highest: Milk (30)

    Milk: 30; Tea: 12                    difference: the numbers in the order of the question
    Difference: 30 - 12 = 18

    Jan: 12 / 3; Feb: 5 / 30             several series: their values in the order of the legend
    Highest: Feb, Milk (30)

``final_answer`` takes the conclusion. Values that are printed are spelled as printed; values that are not are plain numbers
rounded to 1, 2 or 5 times a power of ten, at most 1/40 of the axis; slices without figures are whole percents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.chart_data import ChartData
from mm.synthetic.dice import Dice
from mm.synthetic.questions import spoken
from mm.synthetic.sample import ABSENT_ANSWER, Turn

TABLE_PROMPT = "Give the data as a Markdown table."
"""What a user should type to get the numbers of a chart or table; most training samples have exactly this."""

TABLE_PROMPTS = (TABLE_PROMPT,) * 6 + (
    "Give the data as a table.",
    "Convert the chart to a table.",
    "Convert this to a Markdown table.",
    "Extract the data as a Markdown table.",
    "Write the data as a table.",
    "What is the data?",
    "Show the underlying data.",
    "List all the values in a table.",
    "Turn this into a Markdown table.",
    "Transcribe the data into a table.",
    "table",
)

_ASK: dict[str, Sequence[str]] = {
    "value": ("What is the value of {c}?",) * 5
    + ("What is the value for {c}?", "What is {c}?", "What is the value at {c}?", "How much is {c}?", "Value of {c}?", "How high is {c}?",
       "What value does {c} have?", "Read the value of {c}.", "What number does {c} have?", "{c}?", "What does {c} show?",
       "What's the value of {c}?", "Give me the value for {c}.", "How many for {c}?", "Which value belongs to {c}?"),
    "value2": ("What is the value of {s} in {c}?",) * 3
    + ("What is the value of {s} for {c}?", "What is the value of {c} for {s}?", "What is {s} in {c}?", "What is {s} at {c}?",
       "How much is {s} for {c}?", "Value of {s} at {c}?", "What value does {s} have in {c}?", "In {c}, what is the value of {s}?",
       "For {c}, what is {s}?", "Read {s} at {c}."),
    "share": ("What percentage is {c}?", "What is the share of {c}?", "What percent is {c}?", "How many percent is {c}?",
              "What percentage does {c} have?", "What is the percentage of {c}?", "Which share does {c} have?"),
    "highest": ("Which category has the highest value?", "Which {mark} is the highest?", "Which is the highest?", "What is the highest value?",
                "Which has the largest value?", "Which {mark} is the largest?", "Which is the biggest?", "What is the maximum?",
                "Which category is the largest?", "Where is the maximum?", "Which has the most?", "What is the largest {mark}?",
                "Which one is highest?", "What is the peak?", "Which label has the highest value?", "Highest?"),
    "lowest": ("Which category has the lowest value?", "Which {mark} is the lowest?", "Which is the lowest?", "What is the lowest value?",
               "Which has the smallest value?", "Which {mark} is the smallest?", "Which is the smallest?", "What is the minimum?",
               "Which category is the smallest?", "Where is the minimum?", "Which has the least?", "What is the smallest {mark}?",
               "Which one is lowest?", "Which label has the lowest value?", "Lowest?"),
    "highest_of": ("Where is {s} highest?", "Which category has the highest {s}?", "What is the highest value of {s}?",
                   "For which category is {s} the highest?", "What is the maximum of {s}?", "When is {s} at its maximum?"),
    "lowest_of": ("Where is {s} lowest?", "Which category has the lowest {s}?", "What is the lowest value of {s}?",
                  "For which category is {s} the lowest?", "What is the minimum of {s}?", "When is {s} at its minimum?"),
    "highest_at": ("Which is the highest in {c}?", "Which series is highest in {c}?", "What is the highest in {c}?",
                   "Which has the largest value for {c}?", "In {c}, which one is the highest?"),
    "lowest_at": ("Which is the lowest in {c}?", "Which series is lowest in {c}?", "What is the lowest in {c}?",
                  "Which has the smallest value for {c}?", "In {c}, which one is the lowest?"),
    "difference": ("What is the difference between {a} and {b}?",) * 4
    + ("How much more is {a} than {b}?", "By how much do {a} and {b} differ?", "What is the gap between {a} and {b}?",
       "How big is the difference between {a} and {b}?", "Difference between {a} and {b}?", "How far apart are {a} and {b}?",
       "What is the difference of {a} and {b}?"),
    "difference_at": ("What is the difference between {a} and {b} in {c}?", "How much do {a} and {b} differ in {c}?",
                      "In {c}, what is the difference between {a} and {b}?", "What is the gap between {a} and {b} at {c}?"),
    "difference_of": ("What is the difference of {s} between {a} and {b}?", "How much did {s} change from {a} to {b}?",
                      "By how much does {s} differ between {a} and {b}?"),
    "higher": ("Which is higher, {a} or {b}?", "Is {a} or {b} higher?", "Which is larger, {a} or {b}?", "What is greater, {a} or {b}?",
               "Which one is bigger: {a} or {b}?"),
    "bars": ("How many bars are there?", "How many bars are in the chart?", "How many bars does it have?", "Count the bars.",
             "How many bars are shown?"),
    "categories": ("How many categories are there?", "How many categories are shown?", "How many labels are on the axis?",
                   "How many groups are there?"),
    "lines": ("How many lines are there?", "How many lines are shown?", "Count the lines.", "How many series are there?"),
    "series": ("How many series are there?", "How many colors are in the legend?", "How many entries does the legend have?",
               "How many data series are shown?"),
    "slices": ("How many slices are there?", "How many slices does the pie have?", "Count the slices.", "How many parts are there?",
               "How many segments are shown?", "How many categories are there?", "How many sectors are there?"),
    "points": ("How many points are there?", "How many data points are shown?", "How many values are plotted?", "Count the points."),
    "title": ("What is the title?",) * 3
    + ("What is the title of the chart?", "What's the title?", "What is this chart about?", "What does the chart show?", "Read the title.",
       "What is the heading?", "title?"),
    "labels": ("List the labels.", "What are the labels?", "List the categories.", "What are the categories?", "Which categories are shown?",
               "List all the labels.", "What labels are on the axis?", "Name the categories.", "Which labels does the chart have?"),
    "legend": ("What are the entries of the legend?", "List the legend.", "What does the legend say?", "Which series are shown?",
               "What are the names in the legend?", "List the series.", "Read the legend."),
    "x_title": ("What is the label of the x-axis?", "What is the x-axis label?", "What does the x-axis show?", "What is on the x-axis?",
                "What is the title of the x axis?", "What is the x axis called?"),
    "y_title": ("What is the label of the y-axis?", "What is the y-axis label?", "What does the y-axis show?", "What is on the y-axis?",
                "What is the title of the y axis?", "What is the y axis called?"),
    "kind": ("What kind of chart is this?", "What type of chart is this?", "Which chart type is it?", "What sort of chart is this?",
             "Is this a bar, line or pie chart?", "What kind of graph is this?", "What type of graph is it?", "What is this?"),
    "colour": ("What {colour} is {s}?", "Which {colour} is used for {s}?", "What is the {colour} of {s}?", "In which {colour} is {s} drawn?"),
    "named": ("Which {mark} is {name}?", "What is shown in {name}?", "What does the {name} {mark} stand for?", "Which entry is {name}?"),
    "absent": ("What is the phone number?", "Who made this chart?", "What is the source of the data?", "What is the total price?",
               "Who is the author?", "What is the address?", "What is the name of the person in the picture?", "What color is the car?",
               "What is the e-mail address?", "What is the invoice number?", "When was this printed?", "How old is the author?",
               "What is the receipt total?", "What is the date of birth?", "Which software drew this?", "What is the website?"),
}  # fmt: skip


def final_answer(text: str) -> str:
    """The conclusion of an answer: of its last line what stands behind the first colon and the last equals sign.

    Of "Highest: Milk (30)" this is "Milk (30)", of "Difference: 30 - 12 = 18" it is "18"; other answers are returned whole.
    """
    last = text.strip().rsplit("\n", 1)[-1]
    for word in ("Highest", "Lowest", "Higher", "Difference"):
        if last.startswith(word + ": "):
            return last[len(word) + 2 :].rsplit(" = ", 1)[-1]
    return last


@dataclass(frozen=True)
class Reading:
    """What can be read from a drawn chart. ``texts[s][c]`` and ``numbers[s][c]`` are the value as answered and as a number."""

    data: ChartData
    kind: str  # "bar chart", "horizontal bar chart", ...
    mark: str  # bar, slice or point
    texts: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[float, ...], ...]
    margin: float  # smallest difference that can be seen
    decimals: int  # of differences
    affixes: tuple[str, str]  # before and behind a printed number
    shares: tuple[str, ...]  # percents of slices, where they can be read
    x_title: str | None  # None: there is no such axis
    y_title: str | None
    colours: dict[str, str]  # series or label -> name of its colour
    marked: bool  # points of lines can be counted

    def listing(self, names: Sequence[str], texts: Sequence[str]) -> str:
        """The compact table of an answer."""
        return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))

    def spell(self, number: float) -> str:
        """A computed number in the spelling of the chart."""
        body = f"{abs(number):,.{self.decimals}f}".replace(",", self.data.thousands)
        if not any(self.affixes) and "." in body:
            body = body.rstrip("0").rstrip(".")
        return f"{'-' if number < 0 else ''}{self.affixes[0]}{body}{self.affixes[1]}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a vertical bar inside a cell is escaped."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def table_of(reading: Reading) -> str:
    """The data as Markdown: the header is the category axis title (or Label) and the series (or Value)."""
    data = reading.data
    head = [data.category_title or "Label", *(data.series if len(data.series) > 1 else [data.value_title or "Value"])]
    return markdown(head, [[name, *(row[c] for row in reading.texts)] for c, name in enumerate(data.categories)])


def _ask(dice: Dice, name: str, answer: str, /, **blanks: str) -> Turn:
    return Turn(dice.pick(_ASK[name]).format(**blanks), answer)


def _extreme(
    reading: Reading, word: str, names: Sequence[str], numbers: Sequence[float], texts: Sequence[str], listing: str
) -> str | None:
    """The answer to highest or lowest, or None where two are too close to tell."""
    order = sorted(range(len(numbers)), key=lambda index: numbers[index], reverse=word == "Highest")
    if len(order) < 2 or abs(numbers[order[0]] - numbers[order[1]]) < reading.margin:
        return None
    return f"{listing}\n{word}: {names[order[0]]} ({texts[order[0]]})"


def _difference(reading: Reading, names: Sequence[str], numbers: Sequence[float], texts: Sequence[str]) -> str:
    high, low = (0, 1) if numbers[0] >= numbers[1] else (1, 0)
    result = reading.spell(round(numbers[high] - numbers[low], reading.decimals))
    return f"{reading.listing(names, texts)}\nDifference: {texts[high]} - {texts[low]} = {result}"


def _value_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data, turns = reading.data, []
    for _ in range(3):
        s, c = dice.integer(0, len(data.series) - 1), dice.integer(0, len(data.categories) - 1)
        category = spoken(dice, data.categories[c])
        if len(data.series) > 1:
            turns.append(_ask(dice, "value2", reading.texts[s][c], s=spoken(dice, data.series[s]), c=category))
        elif reading.shares and dice.chance(0.4):
            turns.append(_ask(dice, "share", reading.shares[c], c=category))
        else:
            turns.append(_ask(dice, "value", reading.texts[0][c], c=category))
    return turns


def _extreme_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data, found = reading.data, []
    for word in ("Highest", "Lowest"):
        name = word.lower()
        if len(data.series) == 1:
            answer = _extreme(reading, word, data.categories, reading.numbers[0], reading.texts[0],
                              reading.listing(data.categories, reading.texts[0]))  # fmt: skip
            found.append((name, answer, {"mark": reading.mark}))
            continue
        s, c = dice.integer(0, len(data.series) - 1), dice.integer(0, len(data.categories) - 1)
        listing = reading.listing(data.categories, reading.texts[s])
        answer = _extreme(reading, word, data.categories, reading.numbers[s], reading.texts[s], listing)
        found.append((f"{name}_of", answer, {"s": spoken(dice, data.series[s])}))
        numbers, texts = [row[c] for row in reading.numbers], [row[c] for row in reading.texts]
        answer = _extreme(reading, word, data.series, numbers, texts, reading.listing(data.series, texts))
        found.append((f"{name}_at", answer, {"c": spoken(dice, data.categories[c])}))
        if len(data.series) * len(data.categories) <= 15:
            cells = [(f"{category}, {series}", reading.numbers[i][j], reading.texts[i][j])
                     for j, category in enumerate(data.categories) for i, series in enumerate(data.series)]  # fmt: skip
            listing = reading.listing(
                data.categories, [" / ".join(column) for column in zip(*reading.texts, strict=True)]
            )
            answer = _extreme(reading, word, *zip(*cells, strict=True), listing)  # type: ignore[arg-type]
            found.append((name, answer, {"mark": reading.mark}))
    return [_ask(dice, name, answer, **blanks) for name, answer, blanks in found if answer is not None]


def _pair_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data, turns = reading.data, []
    if len(data.series) > 1:
        first, second = dice.sample(range(len(data.series)), 2)
        c = dice.integer(0, len(data.categories) - 1)
        names, cells = (data.series[first], data.series[second]), ((first, c), (second, c))
        blanks = {"a": names[0], "b": names[1], "c": spoken(dice, data.categories[c])}
        kind = "difference_at"
        if dice.chance(0.4):
            left, right = dice.sample(range(len(data.categories)), 2)
            names, cells = (data.categories[left], data.categories[right]), ((first, left), (first, right))
            blanks, kind = {"a": names[0], "b": names[1], "s": spoken(dice, data.series[first])}, "difference_of"
    else:
        left, right = dice.sample(range(len(data.categories)), 2)
        names, cells, kind = (data.categories[left], data.categories[right]), ((0, left), (0, right)), "difference"
        blanks = {"a": names[0], "b": names[1]}
    numbers = [reading.numbers[s][c] for s, c in cells]
    texts = [reading.texts[s][c] for s, c in cells]
    turns.append(_ask(dice, kind, _difference(reading, names, numbers, texts), **blanks))
    if len(data.series) == 1:
        answer = _extreme(reading, "Highest", names, numbers, texts, reading.listing(names, texts))
        if answer is not None:
            turns.append(_ask(dice, "higher", answer.replace("\nHighest: ", "\nHigher: "), **blanks))
    return turns


def _count_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    columns, rows = str(len(data.categories)), str(len(data.series))
    if reading.mark == "slice":
        return [_ask(dice, "slices", columns)]
    if reading.mark == "bar":
        total = str(len(data.categories) * len(data.series))
        if len(data.series) == 1:
            return [_ask(dice, "bars", total), _ask(dice, "categories", columns)]
        turns = [_ask(dice, "categories", columns), _ask(dice, "series", rows)]
        return turns if reading.kind.startswith("stacked") else [*turns, _ask(dice, "bars", total)]
    turns = [_ask(dice, "lines", rows)]
    return [*turns, _ask(dice, "points", columns)] if reading.marked and len(data.series) == 1 else turns


def _word_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    turns = [_ask(dice, "title", data.title or ABSENT_ANSWER), _ask(dice, "kind", reading.kind)]
    for name, title in (("x_title", reading.x_title), ("y_title", reading.y_title)):
        if title is not None:
            turns.append(_ask(dice, name, title or ABSENT_ANSWER))
    return turns


def _name_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    turns = [_ask(dice, "labels", ", ".join(data.categories))]
    if len(data.series) > 1:
        turns.append(_ask(dice, "legend", ", ".join(data.series)))
    for name, colour in reading.colours.items():
        spelling = {"colour": dice.pick(["color", "color", "colour"])}
        turns.append(_ask(dice, "colour", colour, s=spoken(dice, name), **spelling))
        mark = "line" if reading.mark == "point" else reading.mark
        turns.append(_ask(dice, "named", name, name=colour, mark=mark))
    return turns


def _absent_turns(reading: Reading, dice: Dice, strangers: Sequence[str]) -> list[Turn]:
    present = {name.lower() for name in (*reading.data.categories, *reading.data.series)}
    turns = [_ask(dice, "absent", ABSENT_ANSWER)]
    for name in strangers:
        if name.lower() not in present and not any(name.lower() in other or other in name.lower() for other in present):
            question = "value2" if len(reading.data.series) > 1 else "value"
            blanks = {"s": spoken(dice, dice.pick(reading.data.series)), "c": name}
            turns += [_ask(dice, question, ABSENT_ANSWER, **blanks)] * 2
    return turns


def chart_turns(reading: Reading, dice: Dice, strangers: Sequence[str], *, budget: int) -> tuple[Turn, ...]:
    """Questions in random order, of different families, of at most ``budget`` characters in all (at least one).

    Args:
        reading: what the chart shows.
        dice: the draws.
        strangers: labels of the same kind that the chart may not show.
        budget: characters of questions and answers.
    """
    families = {
        "value": 5.0, "table": 2.2, "extreme": 3.0, "pair": 2.2, "count": 1.1, "words": 1.6, "names": 1.3, "absent": 1.2,
    }  # fmt: skip
    wanted = dice.integer(3, 6)
    turns: list[Turn] = []
    while len(turns) < wanted and families:
        family = dice.weighted(families)
        options = {
            "value": _value_turns, "extreme": _extreme_turns, "pair": _pair_turns, "count": _count_turns, "words": _word_turns,
            "names": _name_turns,
        }  # fmt: skip
        if family == "table":
            found = [Turn(dice.pick(TABLE_PROMPTS), table_of(reading))]
        elif family == "absent":
            found = _absent_turns(reading, dice, strangers)
        else:
            found = options[family](reading, dice)
        families[family] *= 0.4
        if family in {"table", "absent"} or not found:
            del families[family]
        if not found:
            continue
        turn = dice.pick(found)
        size = len(turn.question) + len(turn.answer)
        if turn.question not in {other.question for other in turns} and (size <= budget or not turns):
            turns.append(turn)
            budget -= size
        elif budget < 40:
            break
    return tuple(dice.shuffled(turns))
