"""How a document's questions are drawn; their wordings are in ``mm.synthetic.phrases``."""

from collections.abc import Sequence

from mm.chat import TASK_PROMPTS
from mm.synthetic.dice import Dice
from mm.synthetic.phrases import question
from mm.synthetic.sample import Turn


def ask(dice: Dice, name: str, answer: str, **blanks: str) -> Turn:
    """A question of the kind ``name`` (``mm.synthetic.phrases.kinds``) in one of its wordings."""
    return Turn(question(dice, name, **blanks), answer)


def read_all(dice: Dice, text: str) -> Turn:
    """The whole transcription; the task's own prompt is asked in every second case."""
    return Turn(TASK_PROMPTS["ocr"] if dice.chance(0.5) else question(dice, "read_all"), text)


def spoken(dice: Dice, name: str) -> str:
    """A label or item name as a user types it in a question: as printed, or in small letters."""
    return dice.weighted({name: 6.5, name.lower(): 3, name.title(): 0.3, name.upper(): 0.2})


def line_turns(dice: Dice, rows: Sequence[str], count: int) -> list[Turn]:
    """Up to ``count`` questions about single lines and words."""
    options = [ask(dice, "first_line", rows[0]), ask(dice, "last_line", rows[-1])]
    if len(rows) <= 12:
        options.append(ask(dice, "lines", str(len(rows))))
    number = dice.integer(1, min(len(rows), 10))
    options += [ask(dice, "line", rows[number - 1], n=str(number))] * 2
    options.append(ask(dice, "first_word", rows[0].split()[0]))
    options.append(ask(dice, "last_word", rows[-1].split()[-1]))
    return dice.sample(options, count)
