import re
from collections import Counter

import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.phrases import CANONICAL, kinds, parse_phrase, question

BLANKS = {"item": "Oat Milk", "label": "Date of birth", "n": "4", "column": "Price", "row": "Tea"}


@pytest.mark.parametrize("name", kinds())
def test_every_wording_expands_completely(name):
    dice = Dice(np.random.default_rng(0))
    for _ in range(300):
        text = question(dice, name, **BLANKS)
        assert text == " ".join(text.split()) and text.isascii() and 2 <= len(text) <= 160
        assert not re.search(r"[{}$|<>;]", text), text
        assert text.count("(") == text.count(")") == 0 and text.count('"') % 2 == 0, text


@pytest.mark.parametrize("name", ["total", "date", "store", "price", "field", "read_all"])
def test_wordings_are_many_and_the_canonical_ones_stay_frequent(name):
    dice = Dice(np.random.default_rng(1))
    drawn = Counter(question(dice, name, **BLANKS) for _ in range(1000))
    assert len(drawn) > 300
    canonical = set(kinds()[name].canonical)
    if canonical:
        filled = {re.sub(r"\{(\w+)\}", lambda blank: BLANKS[blank[1]], text) for text in canonical}
        share = sum(count for text, count in drawn.items() if text in filled) / 1000
        assert CANONICAL - 0.06 < share < CANONICAL + 0.2


def test_questions_come_in_small_letters_without_marks_and_with_tails():
    dice = Dice(np.random.default_rng(2))
    drawn = [question(dice, "date") for _ in range(500)]
    assert any(text.islower() for text in drawn)
    assert any(text[-1] not in ".?" for text in drawn)
    assert any("nswer" in text for text in drawn)


def test_what_fills_a_blank_keeps_its_letters():
    dice = Dice(np.random.default_rng(3))
    assert all("oAt {label}" in question(dice, "price", item="oAt {label}") for _ in range(100))


def test_choices_and_rules_are_parsed():
    phrase = parse_phrase("a (b|c (d|e)|) <doc>")
    assert phrase[0] == "a " and [len(option) for option in phrase[1].options] == [1, 2, 0]
    assert phrase[3].name == "doc"
    for text in ("a (b|c", "a b) c"):
        with pytest.raises(ValueError, match="bracket"):
            parse_phrase(text)
