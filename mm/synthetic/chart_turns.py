"""Which questions a chart is asked, and how often each skill is trained.

Every second sample writes out the data or the labels (most learned characters a sample), more ask for a value, and
the order of the turns is random, so that every skill is also asked first; listings a little more often than by chance,
as what comes after them can be copied from them.
"""

from collections.abc import Callable, Mapping, Sequence

from mm.synthetic.chart_questions import (
    Reading,
    ask_about,
    extreme_turns,
    pair_turns,
    table_of,
    value_turns,
)
from mm.synthetic.dice import Dice
from mm.synthetic.questions import spoken
from mm.synthetic.sample import ABSENT_ANSWER, Turn

ABSENT_SHARE = 0.2
"""Samples with a question about something that the chart does not show (missing titles come on top)."""

_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black")

_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")


def _table_turns(reading: Reading, dice: Dice) -> list[Turn]:
    return [ask_about(dice, "table", table_of(reading))]


def _count_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    columns, rows = str(len(data.categories)), str(len(data.series))
    if reading.mark == "slice":
        return [ask_about(dice, "slices", columns)]
    if reading.mark == "bar":
        total = str(len(data.categories) * len(data.series))
        if len(data.series) == 1:
            return [ask_about(dice, "bars", total), ask_about(dice, "categories", columns)]
        turns = [ask_about(dice, "categories", columns), ask_about(dice, "series", rows)]
        stacked = reading.kind.startswith("stacked")
        return turns if stacked else [*turns, *(ask_about(dice, "bars", total) for _ in range(3))]
    turns = [ask_about(dice, "lines", rows), ask_about(dice, "axis_labels", columns)]
    return [*turns, ask_about(dice, "points", columns)] if reading.marked and len(data.series) == 1 else turns


def _word_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    titles = [ask_about(dice, "title", data.title or ABSENT_ANSWER)] * (2 if data.title else 1)
    turns = [*titles, ask_about(dice, "kind", reading.kind)]
    for name, title in (("x_title", reading.x_title), ("y_title", reading.y_title)):
        if title or (title is not None and dice.chance(0.3)):
            turns.append(ask_about(dice, name, title or ABSENT_ANSWER))
        if title and dice.chance(0.4):
            turns.append(ask_about(dice, name[0] + "_about", title))
    if data.title:
        turns.append(ask_about(dice, "about", data.title))
    if reading.subtitle:
        turns.append(ask_about(dice, "subtitle", reading.subtitle))
    if reading.legend_title:
        turns.append(ask_about(dice, "legend_title", reading.legend_title))
    return turns


def _label_turns(reading: Reading, dice: Dice) -> list[Turn]:
    data = reading.data
    labels = "slice_labels" if reading.mark == "slice" else "labels"
    turns = [ask_about(dice, labels, ", ".join(data.categories))]
    if len(data.series) > 1:
        turns.append(ask_about(dice, "legend", ", ".join(data.series)))
    return turns


def _colour_turns(reading: Reading, dice: Dice) -> list[Turn]:
    """From a name to its colour and back, and from a colour to a value."""
    data, turns = reading.data, []
    mark = "line" if reading.mark == "point" else reading.mark
    for name, colour in reading.colours.items():
        spelling = {"colour": dice.pick(["color", "color", "colour"])}
        turns.append(ask_about(dice, "colour", colour, s=spoken(dice, name), **spelling))
        turns.append(ask_about(dice, "named", name, name=colour, mark=mark))
        if len(data.series) == 1 and name in data.categories:
            text = reading.texts[0][data.categories.index(name)]
            turns.append(ask_about(dice, "coloured_value", text, name=colour, mark=mark))
    return turns


def _place_turns(reading: Reading, dice: Dice) -> list[Turn]:
    """Marks by where they stand, labels by a printed number, and the numbers of the axis."""
    data, turns = reading.data, []
    count = len(reading.order)
    side = "top" if reading.kind.startswith("horizontal") else "left"
    if count:
        place = dice.integer(0, min(count, len(_PLACES)) - 1)
        spots = {_PLACES[place]: place, "last": count - 1}
        for word, index in spots.items():
            turns.append(ask_about(dice, "nth", data.categories[reading.order[index]], nth=word, side=side))
    if reading.printed and len(data.series) == 1:
        texts = reading.texts[0]
        unique = [c for c, text in enumerate(texts) if texts.count(text) == 1]
        if unique:
            c = dice.pick(unique)
            turns.append(ask_about(dice, "which_has", data.categories[c], v=texts[c]))
    if reading.ticks:
        axis = "x" if side == "top" else "y"
        turns.append(ask_about(dice, "ticks", ", ".join(reading.ticks), axis=axis))
        turns.append(ask_about(dice, "last_tick", reading.ticks[-1], axis=axis))
    return turns


def _absent_turns(reading: Reading, dice: Dice, strangers: Sequence[str]) -> list[Turn]:
    if dice.chance(0.5):  # about something else altogether
        return [ask_about(dice, "absent", ABSENT_ANSWER)]
    data, turns = reading.data, []
    present = {name.lower() for name in (*data.categories, *data.series)}
    for name in strangers:
        low = name.lower()
        if any(low in other or other in low for other in present):
            continue
        if len(data.series) > 1:
            inside = spoken(dice, dice.pick(data.series)), spoken(dice, dice.pick(data.categories))
            turns.append(ask_about(dice, "value2", ABSENT_ANSWER, s=inside[0], c=name))
            turns.append(ask_about(dice, "value2", ABSENT_ANSWER, s=name, c=inside[1]))
            turns.append(ask_about(dice, dice.pick(["highest_of", "lowest_of"]), ABSENT_ANSWER, s=name))
        else:
            turns += [ask_about(dice, "value", ABSENT_ANSWER, c=name) for _ in range(2)]
            pair = dice.shuffled([name, dice.pick(data.categories)])
            turns.append(ask_about(dice, "difference", ABSENT_ANSWER, a=pair[0], b=pair[1]))
    entries = len(data.series) if len(data.series) > 1 else len(data.categories)
    if reading.colours and len(reading.colours) == entries:  # every colour has a name: another one is not there
        mark = "line" if reading.mark == "point" else reading.mark
        others = [name for name in _COLOURS if name not in reading.colours.values()]
        turns += [ask_about(dice, "named", ABSENT_ANSWER, name=dice.pick(others), mark=mark) for _ in range(2)]
    return turns


_FAMILIES: Mapping[str, Callable[[Reading, Dice], list[Turn]]] = {
    "value": value_turns,
    "table": _table_turns,
    "extreme": extreme_turns,
    "pair": pair_turns,
    "count": _count_turns,
    "words": _word_turns,
    "labels": _label_turns,
    "colours": _colour_turns,
    "places": _place_turns,
}


def _plan(dice: Dice) -> list[str]:
    """Families in order of who gets the room first: one that lists everything, values, then what chance brings."""
    wanted = dice.integer(4, 8)
    plan = []
    if dice.chance(0.55):
        plan.append(dice.weighted({"table": 0.55, "labels": 0.45}))
    plan += ["value"] * dice.weighted({0: 1, 1: 2, 2: 3, 3: 1.5})
    if dice.chance(ABSENT_SHARE):
        plan.append("absent")
    others = {
        "extreme": 6.5,
        "pair": 3.6,
        "value": 2.4,
        "words": 2.2,
        "count": 2.6,
        "colours": 1.4,
        "places": 0.6,
        "labels": 1.2,
    }
    while len(plan) < wanted + 2 and others:  # some families have nothing to ask
        family = dice.weighted(others)
        plan.append(family)
        others[family] *= 0.6
    return plan


def chart_turns(reading: Reading, dice: Dice, strangers: Sequence[str], *, budget: int) -> tuple[Turn, ...]:
    """Questions in random order, of different families, of at most ``budget`` characters in all (at least one).

    Args:
        reading: what the chart shows.
        dice: the draws.
        strangers: labels of the same kind that the chart may not show.
        budget: characters of questions and answers.
    """
    plan = _plan(dice)
    turns: list[Turn] = []
    for family in plan:
        found = _absent_turns(reading, dice, strangers) if family == "absent" else _FAMILIES[family](reading, dice)
        if not found or len(turns) >= len(plan) - 2:
            continue
        turn = dice.pick(found)
        size = len(turn.question) + len(turn.answer)
        long = len(turn.answer) > 24
        fresh = long or family == "value"  # else a short answer may come twice
        if any(turn.question == other.question or (fresh and turn.answer == other.answer) for other in turns):
            continue
        if size <= budget or not turns:
            turns.append(turn)
            budget -= size
    first = [turns.pop(0)] if plan[0] in {"table", "labels"} and dice.chance(0.2) else []
    return (*first, *dice.shuffled(turns))
