import numpy as np
import pytest

from mm.synthetic.dice import Dice
from mm.synthetic.money import MoneyStyle, date_text, money_style, time_text


@pytest.mark.parametrize(
    ("style", "cents", "plain", "full"),
    [
        (MoneyStyle("$", True, "", ".", ",", "front"), 123450, "1,234.50", "$1,234.50"),
        (MoneyStyle("EUR", False, " ", ",", ".", "back"), -123405, "1.234,05-", "1.234,05 EUR-"),
        (MoneyStyle("£", True, "", ".", "", "brackets"), -99, "(0.99)", "(£0.99)"),
        (MoneyStyle("", True, "", ".", ",", "front"), 5, "0.05", "0.05"),
    ],
)
def test_amounts(style, cents, plain, full):
    assert (style.plain(cents), style.full(cents)) == (plain, full)


def test_symbols_only_where_the_font_has_them():
    dice = Dice(np.random.default_rng(0))
    assert all(money_style(dice, frozenset()).symbol.isascii() for _ in range(200))
    symbols = {money_style(dice, frozenset("€£¥")).symbol for _ in range(300)}
    assert {"$", "€", "£", "", "EUR"} <= symbols


def test_dates_and_times_come_in_many_spellings():
    dice = Dice(np.random.default_rng(0))
    dates = [date_text(dice) for _ in range(400)]
    shapes = {"".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in text) for text in dates}
    assert len(shapes) > 25 and {"9999-99-99", "99/99/9999", "99.99.99", "aaa 99, 9999"} <= shapes
    assert len({len(time_text(dice)) for _ in range(100)}) > 3
