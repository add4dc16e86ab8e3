"""Designs of the held-out receipts that are larger than a strip of a till: cafe, hotel, invoice, web order."""

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Cell, Question, Sheet
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_goods import (
    COLOURS,
    INKS,
    PAPERS,
    Entry,
    Money,
    food,
    goods,
    price,
    receipt_questions,
    store_name,
    thing,
)
from mm.evaluation.held_out_words import chance, pick

Drawn = tuple[Sheet, tuple[Question, ...], str]

_EXTRAS = (
    *("Breakfast", "Minibar", "Parking", "Laundry", "City tax"),
    *("Spa", "Telephone", "Late checkout", "Sauna", "Bicycle hire"),
)


def _leaders(sheet: Sheet, start: float, stop: float, baseline: float, size: int) -> None:
    """Small dots between a name and its price; they are not text."""
    x = start
    while x < stop:
        sheet.draw.ellipse((x, baseline - 2, x + 2, baseline), fill=sheet.ink)
        x += size * 0.35


def draw_cafe(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A restaurant's bill in a proportional font: counts in front, dotted leaders or none, tip or service."""
    face, title = fonts.pick(rng, "serif", "sans"), fonts.pick(rng, "serif", "sans")
    size = int(rng.integers(22, 30))
    font = face.regular(size)
    width, leading = int(rng.integers(360, 560)), rng.uniform(1.3, 1.65)
    sheet = Sheet(width, int(size * 1.4), leading=leading, ink=pick(rng, INKS), paper=pick(rng, PAPERS))
    money = Money.draw(rng)
    store = store_name(rng, "Cafe", "Bistro", "Restaurant", "Bakery", "Bar", "Grill", "Tavern", "Kitchen")
    if chance(rng, 0.35):
        sheet.logo(rng, sheet.middle, size * 2.2, pick(rng, COLOURS))
        sheet.space(size * 0.5)
    sheet.text(store, title.bold(size * rng.uniform(1.15, 1.7)), "m")
    street = words.street(rng)
    sheet.text(f"{street}, {words.place(rng)}" if chance(rng, 0.4) else street, font, "m")
    sheet.space(size * 0.5)
    date = words.day(rng, 2015, 2031)
    table = f"Table {int(rng.integers(1, 40))}"
    if chance(rng, 0.5):
        sheet.ends(table, date, font)
    else:
        sheet.ends(date, words.clock(rng), font)
        sheet.text(f"{table}, {pick(rng, ('served by', 'server', 'waiter'))} {words.first_name(rng)}", font)
    sheet.space(size * 0.3)
    sheet.line(dashed=chance(rng, 0.5), thickness=int(rng.integers(1, 3)))
    sheet.space(size * 0.5)

    counts, dotted = chance(rng, 0.5), chance(rng, 0.4)
    entries = goods(rng, int(rng.integers(2, 8)), food, 2, 40, several=0.3 if counts else 0.0)
    for entry in entries:
        name = Cell(entry.name, font, sheet.left + (size * 1.5 if counts else 0))
        amount = Cell(money.full(entry.amount), font, sheet.right, "r")
        boxes = sheet.row(name, amount, *([Cell(str(entry.count), font, sheet.left)] if counts else []))
        if dotted:
            baseline = boxes[0][1] + 0.75 * (boxes[0][3] - boxes[0][1])
            _leaders(sheet, boxes[0][2] + size * 0.5, boxes[1][0] - size * 0.6, baseline, size)
    sheet.space(size * 0.2)
    sheet.line(thickness=int(rng.integers(1, 3)))
    sheet.space(size * 0.5)
    total = sum(entry.amount for entry in entries)
    if chance(rng, 0.6):
        extra = round(total * pick(rng, (0.1, 0.125, 0.15, 0.18)))
        sheet.ends(pick(rng, ("Sub-total", "Subtotal", "Food and drinks")), money.full(total), font)
        sheet.ends(pick(rng, ("Service", "Service charge", "Tip", "Gratuity")), money.full(extra), font)
        total += extra
    answer = money.full(total)
    strong = face.bold(size * rng.uniform(1.0, 1.3))
    sheet.ends(pick(rng, ("Total", "TOTAL", "Total due", "Total:")), answer, strong)
    if chance(rng, 0.6):
        sheet.space(size * 0.7)
        sheet.text(pick(rng, ("Thank you for your visit!", "Enjoy your day", "See you soon!", "Grazie!")), font, "m")
    prices = {entry.name: money.full(entry.amount) for entry in entries if entry.count == 1}
    return sheet, receipt_questions(rng, store, date, answer, prices), "cafe"


def draw_hotel(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A guest's bill on white paper: sign of the house, name and room, charges under a ruled head."""
    face = fonts.pick(rng, "serif", "sans")
    size = int(rng.integers(22, 28))
    font, strong = face.regular(size), face.bold(size)
    leading = rng.uniform(1.3, 1.6)
    sheet = Sheet(int(rng.integers(560, 760)), int(size * 1.8), leading=leading, ink=pick(rng, INKS[:3]))
    money = Money.draw(rng)
    colour = pick(rng, COLOURS)
    name = pick(rng, words.THINGS).capitalize() if chance(rng, 0.5) else words.invented(rng, 3)
    store = pick(rng, ("Hotel {}", "{} Hotel", "{} Inn", "The {} Lodge", "Pension {}", "{} Suites")).format(name)
    if chance(rng, 0.6):
        sheet.logo(rng, sheet.left + size * 1.5, size * 2.4, colour)
        sheet.y -= size * 1.9
        sheet.row(Cell(store, face.bold(size * 1.5), sheet.left + size * 3.6), ink=colour)
        sheet.space(size * 0.5)
    else:
        sheet.text(store, face.bold(size * 1.6), "m", ink=colour)
    sheet.text(f"{words.street(rng)}, {words.postcode(rng)} {words.place(rng)}", font)
    sheet.space(size * 0.6)
    date = words.day(rng, 2015, 2031)
    half = sheet.left + (sheet.right - sheet.left) * 0.52
    room, number = f"Room: {int(rng.integers(101, 999))}", words.code(rng, "Bill: 00000")
    sheet.row(Cell(f"Guest: {words.person(rng)}", font, sheet.left), Cell(room, font, half + size * 2))
    sheet.row(Cell(f"Date: {date}", font, sheet.left), Cell(number, font, half + size * 2))
    sheet.space(size * 0.5)
    sheet.line(thickness=2)
    sheet.space(size * 0.4)
    sheet.ends(pick(rng, ("Description", "Charges", "Service")), "Amount", strong)
    sheet.line()
    sheet.space(size * 0.4)

    nights = int(rng.integers(1, 8))
    stay = Entry(f"Room, {nights} night{'s' * (nights > 1)}", nights, price(rng, 50, 240))
    chosen = rng.permutation(len(_EXTRAS))[: int(rng.integers(1, 5))]
    extras = [Entry(_EXTRAS[place], 1, price(rng, 4, 60)) for place in chosen]
    if chance(rng, 0.6):
        extras += goods(rng, 1, food, 5, 30)
    for entry in (stay, *extras):
        sheet.ends(entry.name, money.full(entry.amount), font)
    sheet.line()
    sheet.space(size * 0.5)
    answer = money.full(stay.amount + sum(entry.amount for entry in extras))
    label = pick(rng, ("Total", "Total charges", "Total due"))
    sheet.row(Cell(label, strong, half), Cell(answer, strong, sheet.right, "r"))
    if chance(rng, 0.5):
        sheet.space(size * 0.6)
        sheet.text(pick(rng, ("We hope to see you again.", "Paid by card.", "Thank you for staying with us.")), font)
    prices = {entry.name: money.full(entry.amount) for entry in extras}
    return sheet, receipt_questions(rng, store, date, answer, prices), "hotel"


def draw_invoice(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """An invoice on a page: sender, number and date at the top, a table with a shaded head, the sum at the right."""
    face = fonts.pick(rng, "sans", "serif")
    size = int(rng.integers(21, 26))
    font, strong = face.regular(size), face.bold(size)
    leading = rng.uniform(1.3, 1.55)
    sheet = Sheet(int(rng.integers(680, 860)), int(size * 1.9), leading=leading, ink=pick(rng, INKS[:3]))
    money = Money.draw(rng)
    store = store_name(rng, "Ltd", "GmbH", "Inc", "Supplies", "Tools", "Trading", "Works")
    date = words.day(rng, 2015, 2031)
    title = Cell("INVOICE", face.bold(size * 1.6), sheet.right, "r")
    sheet.row(Cell(store, face.bold(size * 1.35), sheet.left), title, ink=pick(rng, COLOURS))
    sheet.ends(words.street(rng), words.code(rng, pick(rng, ("No. 00000", "Invoice A-0000", "# 0000-00"))), font)
    sheet.ends(f"{words.postcode(rng)} {words.place(rng)}", f"Date: {date}", font)
    sheet.space(size * 0.6)
    sheet.text(f"{pick(rng, ('Bill to:', 'Customer:', 'To:'))} {words.person(rng)}", font)
    sheet.space(size * 0.6)

    # Name at the left; count, price of one and amount end at these columns.
    edges = [sheet.left + (sheet.right - sheet.left) * share for share in (0.52, 0.76, 1.0)]
    if chance(rng, 0.6):
        pad = size * 0.4
        box = (sheet.left - pad, sheet.y - size * 0.3, sheet.right + pad, sheet.y + size * 1.1)
        sheet.draw.rectangle(box, fill=(222, 226, 232))
    head = ("Qty", pick(rng, ("Price", "Unit", "Each")), pick(rng, ("Amount", "Sum", "Line total")))
    name_head = Cell(pick(rng, ("Item", "Description", "Article")), strong, sheet.left)
    sheet.row(name_head, *(Cell(text, strong, edge, "r") for text, edge in zip(head, edges, strict=True)))
    sheet.space(size * 0.2)
    entries = goods(rng, int(rng.integers(1, 6)), thing, 3, 180, several=0.35)
    ruled = chance(rng, 0.5)
    for entry in entries:
        values = (str(entry.count), money.plain(entry.unit), money.plain(entry.amount))
        cells = (Cell(text, font, edge, "r") for text, edge in zip(values, edges, strict=True))
        sheet.row(Cell(entry.name, font, sheet.left), *cells)
        if ruled:
            sheet.line()
            sheet.space(size * 0.3)
    sheet.space(size * 0.3)
    net = total = sum(entry.amount for entry in entries)
    if chance(rng, 0.5):
        rate = pick(rng, (5, 7, 10, 19, 20))
        total = net + round(net * rate / 100)
        sheet.row(Cell("Net", font, edges[1], "r"), Cell(money.plain(net), font, sheet.right, "r"))
        sheet.row(Cell(f"VAT {rate}%", font, edges[1], "r"), Cell(money.plain(total - net), font, sheet.right, "r"))
    answer = money.full(total)
    label = pick(rng, ("Total", "TOTAL", "Grand total", "Amount due"))
    sheet.row(Cell(label, strong, edges[1], "r"), Cell(answer, strong, sheet.right, "r"))
    if chance(rng, 0.5):
        sheet.space(size * 0.5)
        terms = ("Payable within 30 days.", "Please pay within 14 days.", "Goods remain ours until paid.")
        sheet.text(pick(rng, terms), font)
    prices = {entry.name: money.plain(entry.amount) for entry in entries if entry.count == 1}
    return sheet, receipt_questions(rng, store, date, answer, prices), "invoice"


def draw_web_order(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """An order confirmation as a web shop shows it on a screen: a coloured bar, light rules, delivery."""
    face = fonts.pick(rng, "sans")
    size = int(rng.integers(22, 27))
    font, strong = face.regular(size), face.bold(size)
    paper = pick(rng, ((255, 255, 255), (246, 247, 249)))
    width, leading = int(rng.integers(460, 640)), rng.uniform(1.45, 1.8)
    sheet = Sheet(width, int(size * 1.3), leading=leading, ink=(40, 40, 44), paper=paper)
    money = Money.draw(rng)
    store = store_name(rng, "Online", "Store", "Direct", "Outlet", "Shop")
    sheet.draw.rectangle((0, 0, sheet.width, size * 3.2), fill=pick(rng, COLOURS))
    sheet.y = size * 1.1
    sheet.text(store, face.bold(size * 1.25), ink=(255, 255, 255))
    sheet.y = size * 4.0
    date = words.day(rng, 2015, 2031)
    sheet.text(words.code(rng, pick(rng, ("Order 000-0000", "Order #AA0000", "Order no. 000000"))), strong)
    sheet.text(f"{pick(rng, ('Placed on', 'Ordered', 'Date:'))} {date}", font)
    sheet.space(size * 0.4)
    entries = goods(rng, int(rng.integers(1, 6)), pick(rng, (thing, thing, food)), 2, 120)
    prices = {entry.name: money.full(entry.amount) for entry in entries}
    for name, amount in prices.items():
        sheet.draw.line((sheet.left, sheet.y, sheet.right, sheet.y), fill=(205, 205, 210))
        sheet.space(size * 0.4)
        sheet.ends(name, amount, font)
    sheet.draw.line((sheet.left, sheet.y, sheet.right, sheet.y), fill=(120, 120, 126), width=2)
    sheet.space(size * 0.4)
    total = sum(entry.amount for entry in entries)
    if chance(rng, 0.6):
        delivery = price(rng, 2, 12)
        total += delivery
        sheet.ends(pick(rng, ("Delivery", "Shipping", "Postage")), money.full(delivery), font)
    answer = money.full(total)
    sheet.ends(pick(rng, ("Total", "Order total", "Total paid")), answer, strong)
    return sheet, receipt_questions(rng, store, date, answer, prices), "web order"
