import re

import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.words import capital, lexicon, lower, split_of, split_of_entry, upper


def test_splits_are_disjoint_and_about_one_in_ten():
    train, held_out = lexicon("train"), lexicon("held_out")
    assert not {word.lower() for word in train.words} & {word.lower() for word in held_out.words}
    assert 0.08 < len(held_out.words) / (len(train.words) + len(held_out.words)) < 0.12
    for section in ("items", "first_names", "surnames", "cities", "store_first", "store_second"):
        assert train.lists[section] and held_out.lists[section]
        assert not set(train.lists[section]) & set(held_out.lists[section])


def test_an_entry_is_held_out_with_any_of_its_words():
    held_out = next(word for word in lexicon("held_out").words)
    assert split_of(held_out.upper()) == "held_out"
    assert split_of_entry(f"the {held_out} of it") == "held_out"
    for entry in lexicon("train").lists["items"]:
        assert all(split_of(word) == "train" for word in re.findall(r"[A-Za-z']+", entry))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_drawn_words_stay_in_their_split(split):
    dice, words = Dice(np.random.default_rng(1)), lexicon(split)
    assert all(split_of(words.word(dice)) == split for _ in range(300))
    assert all(split_of(words.pseudo(dice)) == split for _ in range(50))


def test_draws_are_single_lines_without_empty_parts():
    dice, words = Dice(np.random.default_rng(2)), lexicon("train")
    makers = (words.person, words.code, words.phone, words.email, words.url, words.street, words.town)
    for make in makers:
        for _ in range(60):
            text = make(dice)
            assert text and text == " ".join(text.split())
            assert text.isascii()
    assert "@" in words.email(dice) and "." in words.host(dice)


def test_accents_only_where_the_font_has_them():
    dice, words = Dice(np.random.default_rng(3)), lexicon("train")
    assert words.accented(dice, "cafe", frozenset()) == "cafe"
    assert words.accented(dice, "brrr", frozenset("é")) == "brrr"
    assert {words.accented(dice, "bed", frozenset("é")) for _ in range(5)} == {"béd"}


def test_case_leaves_letters_beyond_ascii_alone():
    assert (upper("café 1"), upper("tea 1"), lower("TEA"), lower("É"), capital("tea"), capital("été")) == (
        "café 1",
        "TEA 1",
        "tea",
        "É",
        "Tea",
        "été",
    )
