"""Receipts: header, date and numbers, items in several layouts, totals in many wordings, payment, footer."""

from collections.abc import Callable
from dataclasses import dataclass

from mm.synthetic.draft import Draft, Job
from mm.synthetic.layout import Element, Ends, Gap, Grid, Line, Rule
from mm.synthetic.money import MoneyStyle, cents, date_text, money_style, time_text
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.words import letter_case

_TOTAL = ("TOTAL", "Total", "TOTAL", "Total", "Total:", "TOTAL:", "Grand Total", "GRAND TOTAL", "Amount Due", "AMOUNT DUE",
          "Balance Due", "BALANCE DUE", "Total Due", "TOTAL DUE", "Total to pay", "To pay", "Total amount", "Sum", "SUM",
          "Total (incl. tax)", "TOTAL INC VAT", "Order Total", "Order total:", "Net total", "Amount", "Total price")  # fmt: skip
_SUBTOTAL = (
    "Subtotal",
    "SUBTOTAL",
    "Sub-total",
    "Sub total",
    "SUB TOTAL",
    "Subtotal:",
    "Net",
    "Items total",
    "Merchandise",
)
_TAX = (
    "Tax",
    "TAX",
    "Sales tax",
    "SALES TAX",
    "Tax {r}%",
    "TAX ({r}%)",
    "Tax:",
    "State tax",
    "Local tax {r}%",
    "GST {r}%",
    "HST",
)
_VAT = (
    "VAT",
    "VAT {r}%",
    "VAT ({r}%)",
    "VAT {r}.0%",
    "incl. VAT {r}%",
    "Incl. VAT",
    "MwSt {r}%",
    "TVA {r}%",
    "IVA {r}%",
    "VAT:",
)
_TIP = ("Tip", "TIP", "Gratuity", "Tip:", "Service", "Tip ({r}%)")
_DISCOUNT = (
    "Discount",
    "DISCOUNT",
    "Savings",
    "Coupon",
    "Member discount",
    "Promo",
    "Discount {r}%",
    "Loyalty discount",
)
_CASH = ("Cash", "CASH", "Cash:", "Cash tendered", "CASH TENDERED", "Tendered", "Paid cash", "Given")
_CHANGE = ("Change", "CHANGE", "Change:", "Change due", "CHANGE DUE", "Your change", "Back")
_CARD = ("Card", "CARD", "VISA", "Visa", "MASTERCARD", "Mastercard", "AMEX", "Debit card", "DEBIT", "Credit card", "Contactless",
         "Paid by card", "EC card", "Maestro", "Gift card", "Mobile pay")  # fmt: skip


@dataclass(frozen=True)
class _Item:
    name: str
    quantity: int
    unit: int  # cents
    code: str

    @property
    def price(self) -> int:
        return self.quantity * self.unit


@dataclass
class _Receipt:
    """The receipt as it grows: elements, questions, and the lines that are left."""

    job: Job
    money: MoneyStyle
    case: Callable[[str], str]
    left: int
    elements: list[Element]
    turns: list[Turn]
    fields: dict[str, str]
    item_symbol: bool  # item prices carry the currency symbol
    leader: str

    def add(self, element: Element, lines: int = 1) -> None:
        self.elements.append(element)
        self.left -= lines

    def line(self, text: str, align: str = "center", role: str = "body", scale: float = 1.0) -> None:
        self.add(Line(text, self.job.style.pen(role, scale), align))

    def ends(self, left: str, right: str, role: str = "body", scale: float = 1.0, *, leader: bool = False) -> None:
        pen = self.job.style.pen(role, scale)
        self.add(Ends(left, right, pen, pen, self.leader if leader else ""))

    def know(self, name: str, value: str) -> None:
        """A field with a question of its own."""
        self.fields[name] = value
        self.turns.append(ask(self.job.dice, name, value))

    def amount(self, value: int) -> str:
        """An item's price as printed."""
        return self.money.full(value) if self.item_symbol else self.money.plain(value)


def receipt(job: Job) -> Draft:
    """A till receipt, restaurant bill, ticket or simple invoice."""
    dice, style = job.dice, job.style
    paper = _Receipt(
        job=job,
        money=money_style(dice, style.extras),
        case=letter_case(dice) if dice.chance(0.7) else str.upper,
        left=job.budget.lines,
        elements=[],
        turns=[],
        fields={},
        item_symbol=dice.chance(0.45),
        leader=dice.pick([".", ".", "-", "_", ". "]) if dice.chance(0.15) else "",
    )
    separator = dice.weighted({"-": 4, "=": 2, "*": 1, "_": 0.5, "- ": 0.5, ".": 0.5, "~": 0.3, "line": 3, "dashes": 2,
                               "double": 0.7, "thick": 0.5, "": 3, "#": 0.1, "+": 0.1})  # fmt: skip

    def rule(chance: float = 0.75) -> None:
        if separator and paper.left > 4 and dice.chance(chance):
            paper.add(Rule(separator, style.pen()))
        elif paper.left > 6 and dice.chance(0.4):
            paper.add(Gap(dice.uniform(0.3, 1.0)))

    _header(paper)
    rule(0.5)
    _meta(paper)
    rule()
    total = _items(paper)
    rule()
    _totals(paper, total, rule)
    _footer(paper, rule)
    turns = paper.turns
    narrow = job.budget.columns * 0.5 * style.em
    width = dice.uniform(0.5, 1.0) * narrow if dice.chance(0.6) else None
    return Draft(paper.elements, turns, paper.fields, tuple(paper.fields), width)


def _store_name(job: Job) -> str:
    dice, words = job.dice, job.words
    word = words.word(dice)
    word = word[:1].upper() + word[1:]
    second = words.entry(dice, "store_second")
    return dice.weighted(
        {
            f"{words.entry(dice, 'store_first')} {second}": 5,
            f"{word} {second}": 4,
            f"{words.entry(dice, 'surnames')}'s {second}": 1.5,
            f"{words.entry(dice, 'surnames')} & {words.entry(dice, 'surnames')}": 0.8,
            f"The {word} {second}": 1,
            f"{words.entry(dice, 'store_first')} {word} {second}": 1,
            word: 1.5,
            f"{word} {second} {dice.integer(1, 99)}": 0.4,
            f"{words.entry(dice, 'cities')} {second}": 1,
            f"{second} {word}": 0.7,
            f"{word}-{second}": 0.3,
        }
    )


def _header(paper: _Receipt) -> None:
    job, dice, style, words = paper.job, paper.job.dice, paper.job.style, paper.job.words
    align = dice.weighted({"center": 7, "left": 2, "right": 0.4})
    if paper.left > 12 and dice.chance(0.12):
        paper.line(words.entry(dice, "headers"), align, "body", dice.uniform(0.9, 1.3))
    store = _store_name(job)
    store = dice.weighted({store: 5, store.upper(): 4, store.lower(): 0.3})
    scale = dice.uniform(1.0, 2.0) if dice.chance(0.6) else 1.0
    while scale > 1.0 and len(store) * scale > job.budget.columns:
        scale = max(1.0, scale - 0.2)
    while len(store) > job.budget.columns * 1.1 and " " in store:
        store = store.rsplit(" ", 1)[0].rstrip(" &-")
    paper.line(store, align, "head", scale)
    paper.know("store", store)
    if paper.left > 10:
        if dice.chance(0.12):
            paper.line(dice.pick([words.entry(dice, "footers"), words.title(dice, 3), f"Store #{dice.digits(4)}",
                                  f"Branch {words.entry(dice, 'cities')}"]), align)  # fmt: skip
        if dice.chance(0.55):
            street = words.street(dice)
            paper.line(paper.case(street), align)
            paper.know("address", paper.case(street))
            if dice.chance(0.75):
                paper.line(paper.case(words.town(dice)), align)
        if dice.chance(0.45):
            phone = words.phone(dice)
            paper.line(dice.pick(["Tel: ", "Tel. ", "Phone: ", "Ph: ", "T: ", "", "", "Call "]) + phone, align)
            paper.know("phone", phone)
        if dice.chance(0.15):
            site = words.url(dice)
            paper.line(site, align)
            paper.know("website", site)
        if dice.chance(0.15):
            paper.line(
                dice.pick(["VAT No. ", "Tax ID: ", "VAT: GB", "ABN ", "USt-IdNr. DE", "GSTIN "]) + dice.digits(9), align
            )
    if paper.left > 14 and dice.chance(0.15):
        paper.add(Gap(0.5))
        paper.line(words.entry(dice, "headers"), align, "bold")


def _meta(paper: _Receipt) -> None:
    """Date and time, then numbers and names."""
    dice, words = paper.job.dice, paper.job.words
    date, time = date_text(dice), time_text(dice)
    timed = dice.chance(0.5)
    word = dice.pick(["Date: ", "Date: ", "DATE: ", "Date ", "DATE ", "", "", "", "Dated ", "Issued: ", "Printed: "])
    form = dice.weighted({"line": 5, "ends": 4, "split": 2, "two": 1.5})
    align = dice.weighted({"left": 4, "center": 3, "right": 0.5})
    if form == "ends" and word:
        paper.ends(word.strip(), f"{date} {time}" if timed else date)
    elif form == "split" and timed:
        paper.ends(word + date, dice.pick(["", "Time: ", "Time "]) + time)
    elif form == "two" and timed and paper.left > 8:
        paper.line(word + date, align)
        paper.line(dice.pick(["Time: ", "TIME: ", "Time ", ""]) + time, align)
    else:
        joint = dice.pick([" ", " ", "  ", " - ", ", ", " at "])
        paper.line(word + date + (joint.replace("  ", " ") + time if timed else ""), align)
    paper.know("date", date)
    if timed:
        paper.know("time", time)
    options: list[tuple[str, str, str]] = [
        ("number", dice.pick(["Receipt #", "Receipt No:", "Receipt", "Ticket", "Bon Nr", "No.", "Trans:", "Transaction", "Check #"]),
         dice.pick([words.code(dice), dice.digits(dice.integer(3, 8))])),
        ("cashier", dice.pick(["Cashier:", "Cashier", "Served by:", "Server:", "SERVER", "Clerk", "Operator"]),
         words.entry(dice, "first_names")),
        ("table", dice.pick(["Table", "Table:", "TABLE", "Table No."]), str(dice.integer(1, 60))),
        ("Register", dice.pick(["Register", "Reg:", "Terminal", "POS", "Till"]), dice.digits(dice.integer(1, 4))),
        ("Order", dice.pick(["Order", "Order #", "Order:", "Order No."]), dice.digits(dice.integer(2, 6))),
        ("Guests", dice.pick(["Guests", "Guests:", "Covers"]), str(dice.integer(1, 12))),
        ("Store", dice.pick(["Store", "Store:", "Store No.", "Branch"]), dice.digits(dice.integer(2, 5))),
        ("Customer", dice.pick(["Customer", "Customer:", "Sold to:", "Bill to:"]), words.person(dice)),
    ]  # fmt: skip
    count = min(max(0, (paper.left - 8) // 3), dice.weighted({0: 3, 1: 3, 2: 3, 3: 1.5, 4: 0.7}))
    both = dice.chance(0.25)
    chosen = dice.sample(options, count)
    for name, label, value in chosen:
        if both or dice.chance(0.3):
            paper.ends(label, value)
        else:
            paper.line(f"{label} {value}", align)
        if name in {"number", "cashier", "table"}:
            paper.know(name, value)
        else:
            plain = label.strip(":# ")
            paper.fields[plain] = value
            paper.turns.append(ask(dice, "field", value, label=spoken(dice, plain)))


def _make_items(paper: _Receipt, count: int, columns: int) -> list[_Item]:
    dice, words = paper.job.dice, paper.job.words
    items: list[_Item] = []
    seen: set[str] = set()
    while len(items) < count:
        word = words.word(dice)
        base = words.entry(dice, "items") if dice.chance(0.6) else word[:1].upper() + word[1:]
        name = dice.weighted(
            {
                base: 6,
                f"{words.entry(dice, 'adjectives')} {base}": 2,
                f"{base} {words.entry(dice, 'units')}": 1.2,
                f"{base} {word}": 1,
                words.title(dice, 2): 0.8,
                words.entry(dice, "products") if words.lists["products"] else base: 0.4,
            }
        )
        name = paper.case(name)[: max(6, columns)].strip()
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        quantity = dice.weighted({1: 7, 2: 3, 3: 1.5, 4: 0.7, dice.integer(5, 24): 0.5})
        items.append(_Item(name, quantity, cents(dice), dice.digits(dice.integer(3, 8))))
    return items


def _items(paper: _Receipt) -> int:
    """The list of items; returns their sum in cents."""
    job, dice, style = paper.job, paper.job.dice, paper.job.style
    layout = dice.weighted({"plain": 5, "times": 3, "number": 2, "below": 1.6, "grid": 2.2, "code": 1.0, "wide": 1.2})
    each = 2 if layout == "below" else 1
    room = max(1, (paper.left - 4) // each)
    count = min(
        room,
        dice.weighted({1: 0.7, 2: 1.5, 3: 2.5, 4: 2.5, 5: 2.5, 6: 2, 7: 1.5, 8: 1, 10: 1, 12: 0.8, 15: 0.6, 18: 0.3}),
    )
    width = (
        job.budget.columns
        - {"plain": 9, "times": 13, "number": 12, "below": 9, "grid": 20, "code": 16, "wide": 22}[layout]
    )
    items = _make_items(paper, count, min(24, width))
    if layout in {"grid", "wide"} and (job.budget.columns < 26 or dice.chance(0.1)):
        layout = "number"
    single = layout in {"plain", "code"} or dice.chance(0.1)
    if single:
        items = [_Item(item.name, 1, item.unit, item.code) for item in items]
    if layout in {"grid", "wide"}:
        _grid(paper, items, layout)
    flag = dice.pick([" A", " B", " T", "*", " F", " N"]) if dice.chance(0.08) else ""
    for item in [] if layout in {"grid", "wide"} else items:
        price, unit = paper.amount(item.price), paper.amount(item.unit)
        times = dice.pick(["x ", "x ", " x ", "X ", "* "])
        if layout == "below" and item.quantity > 1:
            paper.line(item.name, "left")
            detail = dice.pick([f"{item.quantity} x {unit}", f"{item.quantity} @ {unit}", f"{item.quantity} X {unit}"])
            paper.add(
                Ends(detail, price + flag, style.pen(), style.pen(), paper.leader, indent=dice.pick([0.0, 1.0, 2.0]))
            )
        elif layout == "times":
            paper.ends(f"{item.quantity}{times}{item.name}", price + flag, leader=True)
        elif layout == "number":
            paper.ends(f"{item.quantity} {item.name}", price + flag, leader=True)
        elif layout == "code":
            paper.ends(f"{item.code} {item.name}", price + flag, leader=True)
        else:
            paper.ends(item.name, price + flag, leader=True)
    shows_quantity = layout in {"times", "number", "grid", "wide"}
    shows_unit = layout == "wide"
    for item in dice.sample(items, 3):
        price = paper.amount(item.price)
        paper.fields[f"price of {item.name}"] = price
        paper.turns.append(ask(dice, "price", price, item=spoken(dice, item.name)))
        if (shows_quantity or (layout == "below" and item.quantity > 1)) and dice.chance(0.4):
            paper.turns.append(ask(dice, "quantity", str(item.quantity), item=spoken(dice, item.name)))
        if shows_unit and dice.chance(0.3):
            paper.turns.append(ask(dice, "unit_price", paper.amount(item.unit), item=spoken(dice, item.name)))
    if len(items) <= 9 and dice.chance(0.3):
        paper.turns.append(ask(dice, "count", str(len(items))))
        if paper.left > 10 and dice.chance(0.2):
            paper.line(
                dice.pick(["Items: {}", "Item count: {}", "{} items", "No. of items: {}"]).format(len(items)), "left"
            )
    paper.fields["item count"] = str(len(items))
    return sum(item.price for item in items)


def _grid(paper: _Receipt, items: list[_Item], layout: str) -> None:
    """Items in columns below a header row."""
    dice, style = paper.job.dice, paper.job.style
    short, name, price, unit = (
        dice.pick(["Qty", "QTY", "Qty.", "#", "Pcs"]),
        dice.pick(["Item", "ITEM", "Description", "DESCRIPTION", "Product", "Article", "Name"]),
        dice.pick(["Total", "Amount", "AMOUNT", "TOTAL", "Price", "Sum"]),
        dice.pick(["Price", "Unit", "PRICE", "Each", "Unit price", "Rate"]),
    )
    head = dice.chance(0.75)
    first = dice.chance(0.5)
    rows: list[list[str]] = []
    for item in items:
        row = [str(item.quantity), item.name] if first else [item.name, str(item.quantity)]
        row += [paper.amount(item.unit)] if layout == "wide" else []
        rows.append([*row, paper.amount(item.price)])
    titles = ([short, name] if first else [name, short]) + ([unit] if layout == "wide" else []) + [price]
    body, bold = style.pen(), style.pen("bold") if style.bold_keys else style.pen()
    number = dice.pick("rcl")
    aligns = (number + "l" if first else "l" + number) + ("r" if layout == "wide" else "") + "r"
    grid = Grid(
        rows=[titles, *rows] if head else rows,
        aligns=aligns,
        pens=[bold] + [body] * len(rows) if head else [body] * len(rows),
        stretch=1 if first else 0,
        lines=dice.weighted({"": 6, "head": 2, "rows": 0.6, "all": 0.8}),
        bar=style.panel if head and dice.chance(0.12) else None,
    )
    paper.add(grid, len(grid.rows))


def _totals(paper: _Receipt, net: int, rule: Callable[[float], None]) -> None:
    job, dice, style = paper.job, paper.job.dice, paper.job.style
    rate = dice.pick([5, 6, 7, 8, 10, 12, 13, 15, 19, 20, 21, 25])
    total, extra = net, paper.left - 2
    lines: list[tuple[str, str, str]] = []
    if extra > 0 and dice.chance(0.15):
        cut = max(1, net * dice.pick([5, 10, 15, 20, 25]) // 100)
        lines.append(("discount", dice.pick(_DISCOUNT).format(r=rate), paper.money.full(-cut)))
        total -= cut
    if extra > 1 and dice.chance(0.55):
        tax = dice.chance(0.6)
        value = round(total * rate / 100)
        lines.append(
            ("tax" if tax else "vat", dice.pick(_TAX if tax else _VAT).format(r=rate), paper.money.full(value))
        )
        total += value
    if extra > 3 and dice.chance(0.1):
        tip = round(total * rate / 100)
        lines.append(("tip", dice.pick(_TIP).format(r=rate), paper.money.full(tip)))
        total += tip
    if extra > len(lines) and dice.chance(0.75 if lines else 0.25):
        lines.insert(0, ("subtotal", dice.pick(_SUBTOTAL), paper.money.full(net)))
    plain = dice.chance(0.15)  # no symbols in these lines
    indent = dice.chance(0.1) and job.budget.columns > 30
    for name, label, value in lines:
        value = value.replace(paper.money.symbol, "").strip() if plain and paper.money.symbol else value
        label = label.upper() if paper.case is str.upper else label
        if indent:
            paper.add(Ends(label, value, style.pen(), style.pen(), paper.leader, indent=dice.uniform(4, 8)))
        else:
            paper.ends(label, value, leader=True)
        paper.know(name, value)
    if lines:
        rule(0.3)
    label, value = dice.pick(_TOTAL), paper.money.full(total)
    if paper.money.symbol and dice.chance(0.12):
        label, value = f"{label.rstrip(':')} {paper.money.symbol}", paper.money.plain(total)
    scale = dice.uniform(1.1, 1.7) if dice.chance(0.35) else 1.0
    if (len(label) + len(value) + 2) * scale > job.budget.columns:
        scale = 1.0
    role = "bold" if style.bold_keys or dice.chance(0.3) else "body"
    form = dice.weighted({"ends": 8, "line": 1.0, "right": 0.8})
    if form == "ends":
        paper.ends(label, value, role, scale, leader=scale == 1.0)
    else:
        paper.line(f"{label} {value}", {"line": dice.pick(["left", "center"]), "right": "right"}[form], role, scale)
    for _ in range(3):  # the total is asked in most conversations, in different words
        paper.know("total", value)
    if paper.left > 3 and dice.chance(0.6):
        rule(0.2)
        _payment(paper, total)


def _payment(paper: _Receipt, total: int) -> None:
    dice, words = paper.job.dice, paper.job.words
    if dice.chance(0.5):
        step = dice.pick([100, 500, 1000, 2000])
        given = -(-total // step) * step
        paper.ends(dice.pick(_CASH), paper.money.full(given), leader=True)
        paper.know("cash", paper.money.full(given))
        paper.ends(dice.pick(_CHANGE), paper.money.full(given - total), leader=True)
        paper.know("change", paper.money.full(given - total))
        return
    paper.ends(dice.pick(_CARD), paper.money.full(total), leader=True)
    if paper.left > 3 and dice.chance(0.5):
        card = dice.pick(["****", "XXXX", "**** **** ****", "xxxx-xxxx-xxxx-", "************", "...", "#"]) + dice.pick(
            ["", " "]
        )
        number = card + dice.digits(4)
        paper.line(dice.pick(["Card ", "Card: ", "Card No. ", "", "VISA "]) + number, "left")
    if paper.left > 3 and dice.chance(0.3):
        paper.ends(dice.pick(["Auth code", "Approval", "AUTH", "Ref"]), words.code(dice))


def _footer(paper: _Receipt, rule: Callable[[float], None]) -> None:
    dice, words = paper.job.dice, paper.job.words
    count = min(paper.left, dice.weighted({0: 3, 1: 4, 2: 2, 3: 1}))
    if count <= 0:
        return
    rule(0.4)
    paper.add(Gap(dice.uniform(0.0, 0.8)), 0)
    align = dice.weighted({"center": 8, "left": 1})
    for _ in range(count):
        text = words.entry(dice, "footers") if dice.chance(0.75) else dice.pick(
            [words.code(dice), words.url(dice), words.email(dice), words.title(dice, 2), dice.digits(12)])  # fmt: skip
        if len(text) <= paper.job.budget.columns:
            paper.line(text, align)
