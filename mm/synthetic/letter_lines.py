"""Lines of a letter or an invoice around a table of data."""

from collections.abc import Callable, Sequence

from mm.synthetic.dice import Dice
from mm.synthetic.layout import Element, Gap, Line
from mm.synthetic.money import date_text
from mm.synthetic.style import Style
from mm.synthetic.words import Lexicon, lexicon

_SHARE = 0.22  # of tables that stand between such lines
_NUMBER_LABELS = ("Invoice No.:", "Invoice", "Order", "Order No.", "Ref.", "Our ref.", "Report", "No.")
_LEAD_INS = ("See below.", "The figures are below.", "Summary:", "Overview:", "Dear all,", "For your records.")
_SUM_LABELS = ("Total:", "Total", "Subtotal:", "Subtotal", "Tax:", "VAT 20%:", "Shipping:", "Balance due:", "Sum")
_CLOSINGS = ("Thank you.", "Prices include tax.", "All figures are estimates.", "Source: own count.", "Kind regards")


def surrounded(elements: Sequence[Element], style: Style, dice: Dice) -> list[Element]:
    """What a page shows of a table, at times between lines that none of its questions asks for."""
    if not dice.chance(_SHARE):
        return list(elements)
    room = max(element.natural_width(style) for element in elements)
    above, below = (_around(dice, texts, style, room) for texts in (_letter_head, _below))
    return [*above, *elements, *below]


def _letter_head(dice: Dice, words: Lexicon) -> list[str]:
    """What stands above a table in a letter or an invoice: nothing that could be taken for the table's title."""
    lines = [
        f"{dice.pick(_NUMBER_LABELS)} {words.code(dice)}",
        f"{dice.pick(['Date:', 'Date', 'Issued', 'As of'])} {date_text(dice)}",
        words.street(dice),
        f"{dice.pick(['To:', 'Customer:', 'From:', 'Prepared by', 'Attn.'])} {words.person(dice)}",
        words.phone(dice),
        dice.pick(_LEAD_INS),
    ]
    return dice.sample(lines, dice.integer(1, 4))


def _below(dice: Dice, words: Lexicon) -> list[str]:
    """What stands below a table: sums, a note, a name."""
    lines = [
        f"{dice.pick(_SUM_LABELS)} {dice.integer(1, 9999)}.{dice.digits(2)}",
        f"{dice.pick(_SUM_LABELS)} {dice.integer(1, 999)}.{dice.digits(2)}",
        f"Page {dice.integer(1, 30)}",
        words.person(dice),
        dice.pick(_CLOSINGS),
    ]
    return dice.sample(lines, dice.integer(0, 3))


def _around(dice: Dice, texts: Callable[[Dice, Lexicon], list[str]], style: Style, room: float) -> list[Element]:
    """Lines of a page around a table, none wider than it."""
    pen, place = style.pen(), dice.weighted({"left": 6, "right": 2, "center": 1})
    lines = [text for text in texts(dice, lexicon(style.fonts.split)) if pen.width(text) <= room]
    if not lines:
        return []
    gap, found = Gap(dice.uniform(0.3, 1.2)), [Line(text, pen, place) for text in lines]
    return [*found, gap] if texts is _letter_head else [gap, *found]
