import re

import numpy as np
import pytest

from mm.synthetic.absent import absent_turns, facts, unprinted
from mm.synthetic.dice import Dice
from mm.synthetic.draft import Job
from mm.synthetic.sample import ABSENT_ANSWER
from mm.synthetic.style import Budget, draw_style
from mm.synthetic.words import lexicon

RECEIPT = ["HILL DELI", "Tel: 555-123-4567", "2024-05-06 14:33", "Served by Ann"]
RECEIPT += ["Oat Milk 2.40", "Tax 0.20", "TOTAL 2.60"]


@pytest.fixture
def job(fonts):
    dice = Dice(np.random.default_rng(0))
    return Job(dice, lexicon("train"), draw_style(dice, fonts, "receipt", 20, 0.0), Budget(10, 30, 300.0), 1.0)


def test_a_word_that_is_printed_is_not_asked_for():
    assert unprinted("Green Tea", "oat milk")
    assert not unprinted("Milk Shake", "oat milk 2.40")
    assert not unprinted("Teas", "black tea")
    assert not unprinted("of 12", "anything")  # no word to look for


def test_questions_avoid_every_clue(job):
    asked = [turn for _ in range(300) for turn in absent_turns(job, "receipt", RECEIPT, ("total", "date"), 1)]
    assert len(asked) > 250 and {turn.answer for turn in asked} == {ABSENT_ANSWER}
    texts = [turn.question.lower() for turn in asked]
    for word in ("milk", "phone number", "cashier", "what is the tax", "the total", "what is the date"):
        assert not any(word in text for text in texts), word
    assert any("tip" in text for text in texts) and any("bar" in text or "slice" in text for text in texts)


@pytest.mark.parametrize("kind", ["receipt", "form", "table", "screen", "paragraph"])
def test_as_many_as_asked_for(job, kind):
    drawn = [len(absent_turns(job, kind, ["Quiet morning"], (), 2)) for _ in range(40)]
    assert max(drawn) == 2 and sum(drawn) > 70


def test_facts_are_asked_for_beside_others_of_their_type(job):
    """A passport number where a member's number is printed: the nearest miss."""
    rows = ["Member ID: AB-1234", "Date of visit: 2024-05-06"]
    texts = [turn.question.lower() for _ in range(600) for turn in absent_turns(job, "form", rows, (), 1)]
    assert any("passport" in text for text in texts) and any("born" in text or "birth" in text for text in texts)
    assert not any("member" in text for text in texts)


def test_the_name_of_a_fact_is_among_its_own_clues():
    for names, clue in facts():
        for name in names:
            assert name and (re.search(clue, name.lower()) or names[0] in {"Team", "Flight number"}), (name, clue)
