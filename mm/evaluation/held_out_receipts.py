"""Receipts as a stranger would meet them: strips of a till here, bills and invoices in ``held_out_bills``.

Each holds a store, a date, goods with prices and a total that is their sum (plus tax, tip or delivery where printed).
"""

from functools import partial

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_bills import Drawn, draw_cafe, draw_hotel, draw_invoice, draw_web_order
from mm.evaluation.held_out_canvas import Cell, Document, Sheet, compose
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_goods import INKS, PAPERS, Money, food, goods, price, receipt_questions, store_name, thing
from mm.evaluation.held_out_words import chance, pick

_NUMBERS = ("Trans 000000", "Receipt #00000", "REG 00 OP 000", "No. A0000")
_FARES = (
    *("Fare", "Toll", "Luggage", "Night rate", "Waiting"),
    *("Booking fee", "Airport fee", "Cleaning", "Child seat"),
)


def _thermal(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A narrow strip from a till: one fixed-width font, dashes of characters, a large total."""
    face = fonts.pick(rng, "mono")
    size = int(rng.integers(20, 27))
    font = face.regular(size)
    columns = int(rng.integers(21, 31))
    width = round(columns * font.getlength("0")) + 2 * size
    sheet = Sheet(width, size, leading=rng.uniform(1.15, 1.4), ink=pick(rng, INKS), paper=pick(rng, PAPERS))
    money = Money.draw(rng)
    rule = (pick(rng, ("-", "=", "*", "- ")) * columns)[:columns].strip()

    store = store_name(rng, "Mart", "Market", "Foods", "Shop", "Deli", "Express", "Kiosk")
    store = store.upper() if chance(rng, 0.6) else store
    sheet.text(store, face.bold(size * rng.uniform(1.0, 1.3)), "m")
    sheet.text(words.street(rng), font, "m")
    if chance(rng, 0.7):
        sheet.text(f"{words.place(rng)} {words.postcode(rng)}", font, "m")
    if chance(rng, 0.4):
        sheet.text(f"{pick(rng, ('TEL', 'Tel:', 'Ph'))} {words.phone(rng)}", font, "m")
    sheet.decoration(rule, font)
    date = words.day(rng, 2015, 2031, short=chance(rng, 0.7))
    if chance(rng, 0.5):
        sheet.ends(date, words.clock(rng), font)
    else:
        sheet.text(f"{pick(rng, ('Date:', 'DATE', 'Date'))} {date}", font)
    if chance(rng, 0.4):
        sheet.text(words.code(rng, pick(rng, _NUMBERS)), font)
    sheet.decoration(rule, font)

    upper = chance(rng, 0.5)
    entries = goods(rng, int(rng.integers(2, 9)), pick(rng, (food, food, thing)), 0.8, 30)
    prices = {entry.name.upper() if upper else entry.name: money.plain(entry.amount) for entry in entries}
    for name, amount in prices.items():
        sheet.ends(name, amount, font)
    sheet.decoration(rule, font)
    total = sum(entry.amount for entry in entries)
    if chance(rng, 0.4):
        tax = round(total * pick(rng, (0.05, 0.07, 0.08, 0.2)))
        sheet.ends("Subtotal", money.plain(total), font)
        sheet.ends(pick(rng, ("Tax", "VAT", "Sales tax")), money.plain(tax), font)
        total += tax
    answer = money.full(total)
    large = face.bold(size * rng.uniform(1.0, 1.45))
    sheet.ends(pick(rng, ("TOTAL", "Total", "TOTAL:", "AMOUNT DUE")), answer, large)
    if chance(rng, 0.5):
        paid = -(-total // 500) * 500
        sheet.ends("CASH", money.plain(paid), font)
        sheet.ends("CHANGE", money.plain(paid - total), font)
    sheet.space(size * 0.4)
    if chance(rng, 0.4):
        sheet.barcode(rng, sheet.left + size, sheet.width - 4 * size, size * 2)
        sheet.space(size * 0.5)
    if chance(rng, 0.7):
        sheet.text(pick(rng, ("THANK YOU!", "Thank you", "Have a nice day", "Come again soon")), font, "m")
    return sheet, receipt_questions(rng, store, date, answer, prices), "thermal"


def _supermarket(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A supermarket's receipt: pieces on a line of their own, tax letters, count of items, card, the date last."""
    face = fonts.pick(rng, "mono") if chance(rng, 0.5) else fonts.pick(rng, "sans")
    size = int(rng.integers(20, 26))
    font = face.regular(size)
    width = int(rng.integers(17, 22)) * size
    sheet = Sheet(width, size, leading=rng.uniform(1.15, 1.4), ink=pick(rng, INKS), paper=pick(rng, PAPERS))
    money = Money.draw(rng)

    store = store_name(rng, "Supermarket", "Stores", "Grocery", "Fresh", "Discount", "Foods").upper()
    sheet.text(store, face.bold(size * 1.25), "m")
    sheet.text(words.street(rng), font, "m")
    sheet.text(f"{words.postcode(rng)} {words.place(rng)}", font, "m")
    sheet.space(size * 0.4)
    if chance(rng, 0.5):
        sheet.text(money.suffix.strip() or money.prefix.strip() or "Price", font, "r")
    letter = chance(rng, 0.4)
    edge = sheet.right - (2 * size if letter else 0)

    upper = chance(rng, 0.7)
    entries = goods(rng, int(rng.integers(3, 9)), pick(rng, (food, food, thing)), 0.5, 15, several=0.25)
    prices = {}
    for entry in entries:
        name = entry.name.upper() if upper else entry.name
        if entry.count == 1:
            prices[name] = money.plain(entry.amount)
        tax = [Cell(pick(rng, ("A", "B")), font, sheet.right, "r")] if letter else []
        sheet.row(Cell(name, font, sheet.left), Cell(money.plain(entry.amount), font, edge, "r"), *tax)
        if entry.count > 1:
            sheet.row(Cell(f"{entry.count} x {money.plain(entry.unit)}", font, sheet.left + 2 * size))
    sheet.line(dashed=chance(rng, 0.6))
    sheet.space(size * 0.4)
    total = sum(entry.amount for entry in entries)
    answer = money.full(total) if chance(rng, 0.5) else money.plain(total)
    large = face.bold(size * rng.uniform(1.1, 1.5))
    sheet.ends(pick(rng, ("TOTAL", "BALANCE DUE", "TO PAY", "Total")), answer, large, edge=edge)
    if chance(rng, 0.6):
        sheet.ends(pick(rng, ("CARD", "VISA", "DEBIT", "MASTERCARD")), money.plain(total), font, edge=edge)
        if chance(rng, 0.5):
            sheet.text(words.code(rng, "XXXX XXXX 0000"), font)
    if chance(rng, 0.5):
        sheet.text(f"ITEMS: {sum(entry.count for entry in entries)}", font)
    date = words.day(rng, 2015, 2031, short=True)
    sheet.ends(date, words.clock(rng), font)
    if chance(rng, 0.6):
        sheet.space(size * 0.5)
        sheet.barcode(rng, sheet.left + 2 * size, sheet.width - 6 * size, size * 2)
    return sheet, receipt_questions(rng, store, date, answer, prices), "supermarket"


def _taxi(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A short slip of a taxi, a car park or a ferry: pairs of name and value."""
    face = fonts.pick(rng)
    size = int(rng.integers(22, 31))
    font = face.regular(size)
    width = int(rng.integers(330, 470))
    leading = rng.uniform(1.25, 1.6)
    sheet = Sheet(width, int(size * 1.1), leading=leading, ink=pick(rng, INKS), paper=pick(rng, PAPERS))
    money = Money.draw(rng)
    name = words.invented(rng, 2) if chance(rng, 0.5) else words.place(rng)
    store = f"{name} {pick(rng, ('Taxi', 'Cabs', 'Parking', 'Ferries', 'Car Wash', 'Radio Cars'))}"
    sheet.text(store, face.bold(size * rng.uniform(1.0, 1.3)), "m")
    if chance(rng, 0.5):
        sheet.text(words.phone(rng), font, "m")
    sheet.space(size * 0.4)
    date = words.day(rng, 2015, 2031)
    sheet.ends("Date", date, font)
    if chance(rng, 0.7):
        sheet.ends(pick(rng, ("Time", "Start", "Entry")), words.clock(rng), font)
    if chance(rng, 0.6):
        sheet.ends(pick(rng, ("Driver", "Cashier", "Agent")), words.last_name(rng), font)
    if chance(rng, 0.6):
        plate = words.code(rng, pick(rng, ("AAA-000", "00-AA-00", "AA 000 AA")))
        sheet.ends(pick(rng, ("Car", "Plate", "Vehicle")), plate, font)
    sheet.line(dashed=chance(rng, 0.5))
    sheet.space(size * 0.4)
    total = 0
    prices = {}
    for place in rng.permutation(len(_FARES))[: int(rng.integers(2, 5))]:
        cents = price(rng, 1, 60)
        total += cents
        prices[_FARES[place]] = money.plain(cents)
        sheet.ends(_FARES[place], money.plain(cents), font)
    sheet.line(thickness=2)
    sheet.space(size * 0.4)
    answer = money.full(total)
    sheet.ends(pick(rng, ("Total", "TOTAL", "Amount due")), answer, face.bold(size * 1.15))
    if chance(rng, 0.4):
        sheet.space(size * 0.4)
        sheet.text(pick(rng, ("Drive safely", "Please keep this slip", "Thank you")), font, "m")
    return sheet, receipt_questions(rng, store, date, answer, prices), "taxi"


DESIGNS = (
    *(_thermal, draw_cafe, _supermarket, draw_hotel, _thermal),
    *(draw_invoice, _supermarket, draw_web_order, draw_cafe, _taxi),
)


def render_receipt(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The receipt number ``index`` of the endless held-out series ``seed``; designs take turns."""
    design = DESIGNS[index % len(DESIGNS)]
    return compose(partial(design, fonts=fonts), (seed, 1, index), desk_share=0.3)
