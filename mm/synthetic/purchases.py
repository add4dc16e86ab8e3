"""What receipts and invoices share: the paper as it grows, items in several layouts, totals in many wordings."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mm.synthetic.draft import Job
from mm.synthetic.layout import Element, Ends, Gap, Grid, Line, Rule
from mm.synthetic.money import MoneyStyle, cents, money_style
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.words import capital, letter_case, upper

_SEPARATORS = {"-": 4.0, "=": 2.0, "*": 1.0, "_": 0.5, "- ": 0.5, ".": 0.5, "~": 0.3, "line": 3.0, "dashes": 2.0,
               "double": 0.7, "thick": 0.5, "": 3.0, "#": 0.1, "+": 0.1}  # fmt: skip
_RESERVE = {"plain": 9, "times": 13, "number": 12, "below": 9, "grid": 20, "code": 16, "wide": 22, "tail": 17}
"""Characters of a row that are not the item's name, by layout."""


@dataclass(frozen=True)
class Item:
    """A line of a receipt; amounts in cents."""

    name: str
    quantity: int
    unit: int
    code: str

    @property
    def price(self) -> int:
        """Quantity times unit price."""
        return self.quantity * self.unit


@dataclass
class Paper:
    """The document as it grows: elements, questions, and how many lines are left."""

    job: Job
    money: MoneyStyle
    case: Callable[[str], str]  # of item names and addresses
    left: int
    item_symbol: bool  # item prices carry the currency symbol
    leader: str
    separator: str
    elements: list[Element] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, job: Job) -> "Paper":
        """An empty paper with its habits drawn."""
        dice = job.dice
        return cls(
            job=job,
            money=money_style(dice, job.style.extras),
            case=letter_case(dice) if dice.chance(0.7) else upper,
            left=job.budget.lines,
            item_symbol=dice.chance(0.45),
            leader=dice.pick([".", ".", "-", "_", ". "]) if dice.chance(0.15) else "",
            separator=dice.weighted(_SEPARATORS),
        )

    def add(self, element: Element, lines: int = 1) -> None:
        """Append an element that takes ``lines`` lines."""
        self.elements.append(element)
        self.left -= lines

    def line(self, text: str, align: str = "center", role: str = "body", scale: float = 1.0) -> None:
        """Append a line of text."""
        self.add(Line(text, self.job.style.pen(role, scale), align))

    def ends(self, left: str, right: str, role: str = "body", scale: float = 1.0, *, leader: bool = False) -> None:
        """Append a row with a text at either end."""
        pen = self.job.style.pen(role, scale)
        self.add(Ends(left, right, pen, pen, self.leader if leader else ""))

    def rule(self, chance: float = 0.75) -> None:
        """Append a separator or some space, or nothing."""
        dice = self.job.dice
        if self.separator and self.left > 4 and dice.chance(chance):
            word = ""
            if len(self.separator) == 1 and self.left > 12 and dice.chance(0.05):
                word = dice.pick(["ITEMS", "Items", "PAYMENT", "SALE", "ORDER", self.job.words.word(dice)])
            self.add(Rule(self.separator, self.job.style.pen(), word))
        elif self.left > 6 and dice.chance(0.4):
            self.add(Gap(dice.uniform(0.3, 1.0)))

    def know(self, name: str, value: str) -> None:
        """Note a field and a question about it (a kind of ``mm.synthetic.phrases``)."""
        self.fields[name] = value
        self.turns.append(ask(self.job.dice, name, value))

    def know_label(self, label: str, value: str) -> None:
        """Note a field that is asked for by its label."""
        self.fields[label] = value
        self.turns.append(ask(self.job.dice, "field", value, label=spoken(self.job.dice, label)))

    def amount(self, value: int) -> str:
        """An item's price as printed."""
        return self.money.full(value) if self.item_symbol else self.money.plain(value)

    def word(self, section: str, rate: int = 0) -> str:
        """A wording from ``data/lists.txt``."""
        return self.job.words.entry(self.job.dice, section).format(r=rate)


def _make_items(paper: Paper, count: int, columns: int) -> list[Item]:
    """Different items whose names have at most ``columns`` characters (a longer name is cut, as tills do)."""
    dice, words = paper.job.dice, paper.job.words
    items: list[Item] = []
    seen: set[str] = set()
    while len(items) < count:
        for _ in range(4):
            word = words.word(dice)
            base = words.entry(dice, "items") if dice.chance(0.6) else capital(word)
            options = {
                base: 6,
                f"{words.entry(dice, 'adjectives')} {base}": 2,
                f"{base} {words.entry(dice, 'units')}": 1.2,
                f"{base} {word}": 1,
                words.title(dice, 2): 0.8,
                words.entry(dice, "products"): 0.4,
            }
            name = dice.weighted(options)
            if len(name) <= columns:
                break
        name = paper.case(name)[: max(5, columns)].strip()
        if name.lower() not in seen:
            seen.add(name.lower())
            quantity = dice.weighted({1: 7, 2: 3, 3: 1.5, 4: 0.7, dice.integer(5, 24): 0.5})
            items.append(Item(name, quantity, cents(dice), dice.digits(dice.integer(3, 8))))
    return items


def add_items(paper: Paper, layout: str | None = None) -> int:
    """Append the list of items with questions; returns their sum in cents."""
    job, dice = paper.job, paper.job.dice
    if layout is None:
        layout = dice.weighted(
            {"plain": 5, "times": 3, "number": 2, "below": 1.6, "grid": 2.2, "code": 1.0, "wide": 1.2, "tail": 0.7}
        )
    if layout in {"grid", "wide", "tail"} and job.budget.columns < 26:
        layout = "number"
    room = max(1, (paper.left - 4) // (2 if layout == "below" else 1))
    count = dice.weighted(
        {1: 0.7, 2: 1.5, 3: 2.5, 4: 2.5, 5: 2.5, 6: 2, 7: 1.5, 8: 1, 10: 1, 12: 0.8, 15: 0.6, 18: 0.3}
    )
    if room > 8 and dice.chance(0.2 * job.level):
        count = dice.integer(8, min(room, 26))
    items = _make_items(paper, min(room, count), min(26, job.budget.columns - _RESERVE[layout]))
    if layout in {"plain", "code"} or dice.chance(0.1):
        items = [Item(item.name, 1, item.unit, item.code) for item in items]
    if layout in {"grid", "wide"}:
        _grid(paper, items, layout)
    else:
        _rows(paper, items, layout)
    counted = layout in {"times", "number", "grid", "wide", "tail"}
    for item in dice.sample(items, 4):
        price = paper.amount(item.price)
        paper.fields[f"price of {item.name}"] = price
        paper.turns.append(ask(dice, "price", price, item=spoken(dice, item.name)))
        if (counted or (layout == "below" and item.quantity > 1)) and dice.chance(0.4):
            paper.turns.append(ask(dice, "quantity", str(item.quantity), item=spoken(dice, item.name)))
        if layout in {"wide", "tail"} and dice.chance(0.3):
            paper.turns.append(ask(dice, "unit_price", paper.amount(item.unit), item=spoken(dice, item.name)))
    if len(items) <= 9 and dice.chance(0.3):
        paper.turns.append(ask(dice, "count", str(len(items))))
        if paper.left > 10 and dice.chance(0.2):
            text = dice.pick(["Items: {}", "Item count: {}", "{} items", "No. of items: {}", "Number of items {}"])
            paper.line(text.format(len(items)), "left")
    return sum(item.price for item in items)


def _rows(paper: Paper, items: list[Item], layout: str) -> None:
    """One row an item (or two), the price at the right end."""
    dice, pen = paper.job.dice, paper.job.style.pen()
    flag = dice.pick([" A", " B", " T", "*", " F", " N"]) if dice.chance(0.08) else ""
    times, indent = dice.pick(["x ", "x ", " x ", "X ", "* "]), dice.pick([0.0, 1.0, 2.0])
    joint = dice.pick([" x ", " @ ", " X ", "x", " * "])
    spaced = dice.pick([0.0, 0.0, 0.0, 0.3])
    for item in items:
        price, unit = paper.amount(item.price) + flag, paper.amount(item.unit)
        if layout == "below" and item.quantity > 1:
            paper.line(item.name, "left")
            paper.add(Ends(f"{item.quantity}{joint}{unit}", price, pen, pen, paper.leader, indent=indent))
        elif layout == "tail":
            paper.ends(f"{item.name} {item.quantity}{joint}{unit}", price, leader=True)
        else:
            before = {"times": f"{item.quantity}{times}", "number": f"{item.quantity} ", "code": f"{item.code} "}
            paper.ends(before.get(layout, "") + item.name, price, leader=True)
        if spaced:
            paper.add(Gap(spaced), 0)


def _grid(paper: Paper, items: list[Item], layout: str) -> None:
    """Items in columns below a header row."""
    dice, style = paper.job.dice, paper.job.style
    number = dice.pick(["Qty", "QTY", "Qty.", "#", "Pcs", "Quantity"])
    name = dice.pick(["Item", "ITEM", "Description", "DESCRIPTION", "Product", "Article", "Name"])
    price = dice.pick(["Total", "Amount", "AMOUNT", "TOTAL", "Price", "Sum"])
    unit = dice.pick(["Price", "Unit", "PRICE", "Each", "Unit price", "Rate"])
    headed, first = dice.chance(0.75), dice.chance(0.5)
    rows: list[list[str]] = []
    for item in items:
        row = [str(item.quantity), item.name] if first else [item.name, str(item.quantity)]
        row += [paper.amount(item.unit)] if layout == "wide" else []
        rows.append([*row, paper.amount(item.price)])
    titles = ([number, name] if first else [name, number]) + ([unit] if layout == "wide" else []) + [price]
    body, bold = style.pen(), style.pen("bold") if style.bold_keys else style.pen()
    side = dice.pick("rcl")
    aligns = (side + "l" if first else "l" + side) + ("r" if layout == "wide" else "") + "r"
    grid = Grid(
        rows=[titles, *rows] if headed else rows,
        aligns=aligns,
        pens=[bold] + [body] * len(rows) if headed else [body] * len(rows),
        stretch=1 if first else 0,
        lines=dice.weighted({"": 6, "head": 2, "rows": 0.6, "all": 0.8}),
        bar=style.panel if headed and dice.chance(0.12) else None,
    )
    paper.add(grid, len(grid.rows))


def add_totals(paper: Paper, net: int) -> int:
    """Append subtotal, discount, tax, tip (each or not) and the total with questions; returns the total in cents."""
    job, dice, style = paper.job, paper.job.dice, paper.job.style
    rate = dice.pick([5, 6, 7, 8, 10, 12, 13, 15, 19, 20, 21, 25])
    total, room = net, paper.left - 2
    lines: list[tuple[str, str, str]] = []
    if room > 0 and dice.chance(0.15):
        cut = max(1, net * dice.pick([5, 10, 15, 20, 25]) // 100)
        lines.append(("discount", paper.word("discount_words", rate), paper.money.full(-cut)))
        total -= cut
    if room > 1 and dice.chance(0.55):
        name = dice.pick(["tax", "tax", "vat"])
        value = round(total * rate / 100)
        lines.append((name, paper.word(f"{name}_words", rate), paper.money.full(value)))
        total += value
    if room > 3 and dice.chance(0.1):
        tip = round(total * rate / 100)
        lines.append(("tip", paper.word("tip_words", rate), paper.money.full(tip)))
        total += tip
    if room > 3 and dice.chance(0.1):
        extra = dice.integer(100, 1500)
        lines.append(("delivery", dice.pick(["Delivery", "Shipping", "Postage", "DELIVERY"]), paper.money.full(extra)))
        total += extra
    if room > len(lines) and dice.chance(0.75 if lines else 0.25):
        lines.insert(0, ("subtotal", paper.word("subtotal_words"), paper.money.full(net)))
    symbol = paper.money.symbol
    plain = bool(symbol) and dice.chance(0.15)
    indent = dice.uniform(4, 8) if job.budget.columns > 30 and dice.chance(0.1) else 0.0
    for name, label, text in lines:
        printed = text.replace(symbol, "").strip() if plain else text
        label = label.upper() if paper.case is upper else label
        paper.add(Ends(label, printed, style.pen(), style.pen(), paper.leader, indent=indent))
        if name == "delivery":
            paper.know_label(label, printed)
        else:
            paper.know(name, printed)
    if lines:
        paper.rule(0.3)
    _add_total(paper, total)
    return total


def _add_total(paper: Paper, total: int) -> None:
    job, dice = paper.job, paper.job.dice
    label, value = paper.word("total_words"), paper.money.full(total)
    if paper.money.symbol and dice.chance(0.12):
        label, value = f"{label.rstrip(':')} {paper.money.symbol}", paper.money.plain(total)
    scale = dice.uniform(1.1, 1.7) if dice.chance(0.35) else 1.0
    if (len(label) + len(value) + 2) * scale > job.budget.columns:
        scale = 1.0
    role = "bold" if job.style.bold_keys or dice.chance(0.3) else "body"
    form = dice.weighted({"ends": 8, "line": 1.0, "right": 0.8})
    if form == "ends":
        paper.ends(label, value, role, scale, leader=scale == 1.0)
    else:
        paper.line(f"{label} {value}", dice.pick(["left", "center"]) if form == "line" else "right", role, scale)
    for _ in range(3):  # the total is asked in most conversations, in different words
        paper.know("total", value)
