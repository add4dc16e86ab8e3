"""Questions on a chart and their answers.

Answers that need more than one number go through the numbers first ("table first"): a line that lists them, then a line
whose last part is the answer:

    Tea: 12*; Milk: 30*; Cocoa: 7        highest, lowest of what is asked about: a star marks a value that beats all
    Highest: Milk (30)                   values before it, so the last star is the answer

    Tea: 12*; Milk: 30*                  difference: the numbers in the order of the question, stars as above; the
    30 - 12: 0-2=8'3-1=1                 higher and the lower one, digit by digit from the last (a tick: one is borrowed
    Difference: 18                       from the next digit), and the result

    Jan: 12* / 3; Feb: 5 / 30*           several series: their values in the order of the legend
    Highest: Feb, Milk (30)

``final_answer`` takes the conclusion. Values that are printed are spelled as printed; values that are not are plain
numbers rounded to 1, 2 or 5 times a power of ten, at most 1/40 of the axis; slices without figures are whole percents.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from mm.synthetic.chart_data import ChartData
from mm.synthetic.dice import Dice
from mm.synthetic.phrases import Phrase, expand, parse_phrase
from mm.synthetic.questions import spoken
from mm.synthetic.sample import Turn

TABLE_PROMPT = "Give the data as a Markdown table."
"""What a user should type to get the numbers of a chart or table; most training samples have exactly this."""

_MORE = 0.5  # share of the questions that are put together by the grammar, where a kind has one


@lru_cache(maxsize=1)
def phrases() -> Mapping[str, tuple[str, ...]]:
    """Phrasings by kind of question, from ``data/chart_phrases.txt``; likelier ones are repeated.

    A kind with a "+" behind it holds further ones in the grammar of ``mm.synthetic.phrases``.
    """
    text = resources.files("mm.synthetic").joinpath("data/chart_phrases.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        times, cross, phrase = line.partition(" x ")
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), [])
        elif cross and times.isdigit():
            section += [phrase] * int(times)
        elif not line.startswith("#"):
            section.append(line)
    return {name: tuple(lines) for name, lines in found.items()}


def final_answer(text: str) -> str:
    """The conclusion of an answer.

    Of "Highest: Milk (30)" this is "Milk (30)", of "Difference: 18" and "Difference: 30 - 12 = 18" it is "18"; other
    answers keep their last line.
    """
    last = text.strip().rsplit("\n", 1)[-1]
    for word in ("Highest", "Lowest", "Higher", "Difference"):
        if last.startswith(word + ": "):
            return last[len(word) + 2 :].rsplit(" = ", 1)[-1]
    return last


@dataclass(frozen=True)
class Reading:
    """What can be read from a drawn chart: ``texts[s][c]`` as answered, ``numbers[s][c]`` as a number."""

    data: ChartData
    kind: str  # "bar chart", "horizontal bar chart", ...
    mark: str  # bar, slice or point
    texts: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[float, ...], ...]
    margin: float  # smallest difference that can be seen
    affixes: tuple[str, str]  # before and behind a printed number
    shares: tuple[str, ...]  # percents of slices, where they can be read
    x_title: str | None  # None: there is no such axis
    y_title: str | None
    colours: dict[str, str]  # series or label -> name of its colour
    marked: bool  # points of lines can be counted
    printed: bool  # every value is spelled in the picture
    order: tuple[int, ...] = ()  # categories from the left, or from the top of horizontal bars; empty: pies
    ticks: tuple[str, ...] = ()  # numbers along the value axis, smallest first; empty where it has none
    subtitle: str = ""
    legend_title: str = ""

    def listing(self, names: Sequence[str], texts: Sequence[str]) -> str:
        """The compact table of an answer."""
        return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))

    def spell(self, number: float, decimals: int) -> str:
        """A computed number in the spelling of the chart."""
        body = f"{abs(number):,.{decimals}f}".replace(",", self.data.thousands)
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


@lru_cache(maxsize=1)
def _grammar() -> Mapping[str, tuple[Phrase, ...]]:
    """The further phrasings of each kind, parsed."""
    return {name[:-1]: tuple(map(parse_phrase, lines)) for name, lines in phrases().items() if name.endswith("+")}


def ask_about(dice: Dice, name: str, answer: str, /, **blanks: str) -> Turn:
    """A question of the kind ``name`` in one of its phrasings."""
    more = _grammar().get(name, ())
    template = expand(dice, dice.pick(more), "page") if more and dice.chance(_MORE) else dice.pick(phrases()[name])
    return Turn(template.format(**blanks), answer)


def starred(word: str, numbers: Sequence[float], texts: Sequence[str]) -> list[str]:
    """Texts with a star behind each number that beats all before it; ``word`` is "Highest" or "Lowest".

    A model finds the best of many numbers by chance only, but whether a number beats the last starred one it can tell.
    """
    marked, best = [], None
    for number, text in zip(numbers, texts, strict=True):
        beats = best is None or (number > best if word == "Highest" else number < best)
        best = number if beats else best
        marked.append(text + "*" * beats)
    return marked


def _extreme(
    reading: Reading,
    word: str,
    names: Sequence[str],
    numbers: Sequence[float],
    texts: Sequence[str],
    heads: Sequence[str] = (),
) -> str | None:
    """The answer to highest or lowest, or None where two are too close to tell.

    With ``heads`` the listing has one entry for each of them, which holds its equal share of the texts.
    """
    order = sorted(range(len(numbers)), key=lambda index: numbers[index], reverse=word == "Highest")
    if len(order) < 2 or abs(numbers[order[0]] - numbers[order[1]]) < reading.margin:
        return None
    marked, entries = starred(word, numbers, texts), heads or names
    size = len(texts) // len(entries)
    grouped = [" / ".join(marked[index * size : (index + 1) * size]) for index in range(len(entries))]
    return f"{reading.listing(entries, grouped)}\n{word}: {names[order[0]]} ({texts[order[0]]})"


def _digits(text: str) -> tuple[str, str, str]:
    """Digits of a printed number before the point, the point, and digits behind it."""
    return re.sub(r"[^0-9.]", "", text).strip(".").partition(".")


def subtraction(high: str, low: str) -> str:
    """The difference of two printed numbers worked out digit by digit from the last, as a line of an answer.

    Each step is "a-b=c": the digits of ``high`` and ``low`` and that of the result; behind it stands a space, or a tick
    where one had to be borrowed from the next digit. Every step can be told from the two digits and the tick before it.

    Args:
        high: a number >= that of ``low`` >= 0, as printed.
        low: as printed, with the same kinds of separators.
    """
    parts = [_digits(text) for text in (high, low)]
    decimals = max(len(fraction) for _, _, fraction in parts)
    whole = max(len(integer) for integer, _, _ in parts)
    digits = [integer.rjust(whole, "0") + fraction.ljust(decimals, "0") for integer, _, fraction in parts]
    steps, borrowed = "", 0
    for one, other in zip(reversed(digits[0]), reversed(digits[1]), strict=True):
        left = int(one) - int(other) - borrowed
        borrowed = int(left < 0)
        steps += f"{one}-{other}={left % 10}" + ("'" if borrowed else " ")
    return f"{high} - {low}: {steps.rstrip()}"


def difference(
    names: Sequence[str], numbers: Sequence[float], texts: Sequence[str], spell: Callable[[float, int], str]
) -> str:
    """The answer to a difference of two numbers.

    ``spell`` writes a result in the spelling of the picture with as many decimals as the longer number has.

    Where one of them is below zero the line of digits is left out.
    """
    marked = starred("Highest", numbers, texts)
    lines = ["; ".join(f"{name}: {text}" for name, text in zip(names, marked, strict=True))]
    high, low = (0, 1) if numbers[0] >= numbers[1] else (1, 0)
    if numbers[low] >= 0:
        lines.append(subtraction(texts[high], texts[low]))
    decimals = max(len(_digits(text)[2]) for text in texts)
    return "\n".join([*lines, f"Difference: {spell(numbers[high] - numbers[low], decimals)}"])


def value_turns(reading: Reading, dice: Dice) -> list[Turn]:
    """The values of three marks, drawn at random."""
    data, turns = reading.data, []
    for _ in range(3):
        s, c = dice.integer(0, len(data.series) - 1), dice.integer(0, len(data.categories) - 1)
        category = spoken(dice, data.categories[c])
        if len(data.series) > 1:
            turns.append(ask_about(dice, "value2", reading.texts[s][c], s=spoken(dice, data.series[s]), c=category))
        elif reading.shares and dice.chance(0.4):
            turns.append(ask_about(dice, "share", reading.shares[c], c=category))
        else:
            turns.append(ask_about(dice, "value", reading.texts[0][c], c=category))
    return turns


def extreme_turns(reading: Reading, dice: Dice) -> list[Turn]:
    """Highest and lowest of all, of a series and at a category, where they can be told."""
    data, found = reading.data, []
    for word in ("Highest", "Lowest"):
        name = word.lower()
        if len(data.series) == 1:
            answer = _extreme(reading, word, data.categories, reading.numbers[0], reading.texts[0])
            found.append((name, answer, {"mark": reading.mark}))
            continue
        s, c = dice.integer(0, len(data.series) - 1), dice.integer(0, len(data.categories) - 1)
        answer = _extreme(reading, word, data.categories, reading.numbers[s], reading.texts[s])
        found.append((f"{name}_of", answer, {"s": spoken(dice, data.series[s])}))
        numbers, texts = [row[c] for row in reading.numbers], [row[c] for row in reading.texts]
        answer = _extreme(reading, word, data.series, numbers, texts)
        found.append((f"{name}_at", answer, {"c": spoken(dice, data.categories[c])}))
        if len(data.series) * len(data.categories) <= 15:
            names = [f"{category}, {series}" for category in data.categories for series in data.series]
            numbers = [number for column in zip(*reading.numbers, strict=True) for number in column]
            texts = [text for column in zip(*reading.texts, strict=True) for text in column]
            answer = _extreme(reading, word, names, numbers, texts, data.categories)
            found.append((name, answer, {"mark": reading.mark}))
    return [ask_about(dice, name, answer, **blanks) for name, answer, blanks in found if answer is not None]


def pair_turns(reading: Reading, dice: Dice) -> list[Turn]:
    """The difference of two marks, and which of them is higher."""
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
    answer = difference(names, numbers, texts, reading.spell)
    turns.append(ask_about(dice, kind, answer, **blanks))
    if len(data.series) == 1:
        higher = _extreme(reading, "Highest", names, numbers, texts)
        if higher is not None:
            turns.append(ask_about(dice, "higher", higher.replace("\nHighest: ", "\nHigher: "), **blanks))
    return turns
