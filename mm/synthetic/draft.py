"""What every renderer is given (``Job``) and returns (``Draft``)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mm.synthetic.dice import Dice
from mm.synthetic.layout import Element
from mm.synthetic.sample import Turn
from mm.synthetic.style import Budget, Style
from mm.synthetic.words import Lexicon


@dataclass(frozen=True)
class Job:
    """One document to make up."""

    dice: Dice
    words: Lexicon
    style: Style
    budget: Budget
    level: float  # 0 short and plain .. 1 everything


@dataclass(frozen=True)
class Draft:
    """Elements in order, and the questions that they answer."""

    elements: Sequence[Element]
    turns: Sequence[Turn] = ()
    fields: dict[str, str] = field(default_factory=dict)
    present: Sequence[str] | None = None  # kinds of questions that it may answer; None: ask for nothing absent
    width: float | None = None  # pixels; None: as wide as the widest element
    reads_lines: bool = True  # whether to ask for single lines
