"""The head of a receipt: the store's name among greetings, numbers and addresses, and the row that holds the date."""

from dataclasses import dataclass

from mm.synthetic.draft import Job
from mm.synthetic.field_rows import Framed
from mm.synthetic.layout import Columns, Ends, Gap, Grid, Line, Logo
from mm.synthetic.money import date_text, time_text, weekday_text
from mm.synthetic.purchases import Paper
from mm.synthetic.words import Lexicon, capital

_HEADINGS = ("INVOICE", "Invoice", "INVOICE", "RECEIPT", "Receipt", "BILL", "Bill", "TICKET", "Order", "ORDER",
             "STATEMENT", "Check", "CHECK", "Copy", "COPY", "Tax invoice", "Quote", "WELCOME", "SALE")  # fmt: skip
_LEADS = ("Welcome to", "WELCOME TO", "Thank you for shopping at", "Sold by:", "Seller:", "Store:", "Merchant:",
          "Shop:", "Issued by", "Issued by:", "Your order at", "Receipt from", "Invoice from", "From:", "Your visit to",
          "Company:", "Bill of", "Vendor:", "Business:")  # fmt: skip
_THANKS = ("Thank you for visiting {}", "Thank you for shopping at {}", "{} thanks you", "See you soon at {}",
           "{} - open daily", "Your {} team", "(c) {}", "{} says thank you!", "Come back to {}")  # fmt: skip
_DATE_LABELS = ("Date", "Date", "Date", "DATE", "DATE", "date", "Ordered", "Issued", "Printed", "Opened", "Day", "On",
                "Dated", "Order date", "Purchase date", "Invoice date", "Bill date", "Date of sale", "Sold", "Sold on",
                "Ordered on", "Placed on", "Purchased", "Paid", "Paid on", "Closed", "Date/Time", "Transaction date",
                "Issue date", "Date of issue", "Trans. date", "Created", "Billed", "ISSUED", "Dt", "Booked", "Shipped",
                "Receipt date", "Served on", "Visit", "Valid on")  # fmt: skip
_NUMBERS = ("Receipt #", "Receipt No:", "Receipt", "Ticket", "Bon Nr", "No.", "Trans:", "Transaction", "Check #",
            "Bill", "Bill:", "Bill no.", "Chk", "Doc.", "Slip", "RECEIPT NO.", "Rcpt", "TXN", "Nr.")  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A label with a value on a receipt."""

    name: str  # kind of question, or label that it is asked for by
    label: str
    value: str
    asked: bool  # whether ``name`` is a kind of question

    def text(self, joint: str) -> str:
        """Label and value as printed."""
        return f"{self.label}{joint if self.label[-1].isalnum() else ' '}{self.value}"


def facts(job: Job) -> list[Fact]:
    """Numbers and names that stand near the date, in random order."""
    dice, words = job.dice, job.words
    tables, tills = ["Table", "Table", "Table:", "TABLE", "Tbl"], ["Register", "Reg:", "Terminal", "POS", "Till", "REG"]
    number = words.code(dice) if dice.chance(0.4) else dice.digits(dice.integer(3, 8))
    cashier = dice.pick(["Cashier:", "Cashier", "Served by:", "Served by", "Server:", "SERVER", "Server", "Operator"])
    found = [
        Fact("number", dice.pick(_NUMBERS), number, True),
        Fact("cashier", cashier, words.entry(dice, "first_names"), True),
        Fact("table", dice.pick(tables), str(dice.integer(1, 60)), True),
        Fact("register", dice.pick(tills), dice.digits(dice.integer(1, 4)), False),
        Fact("order number", dice.pick(["Order", "Order #", "Order:", "Order No.", "ORDER"]),
             dice.digits(dice.integer(2, 6)), False),
        Fact("number of guests", dice.pick(["Guests", "Guests:", "Covers", "Guest", "Pax"]), str(dice.integer(1, 12)),
             False),
        Fact("store number", dice.pick(["Store #", "Store No.", "Branch No.", "Shop"]), dice.digits(dice.integer(2, 5)),
             False),
        Fact("customer", dice.pick(["Customer", "Customer:", "Sold to:", "Bill to:", "Guest:", "Client"]),
             words.person(dice), False),
        Fact("room", dice.pick(["Room", "Room:", "ROOM", "Room no."]), str(dice.integer(1, 999)), False),
        Fact("plate", dice.pick(["Plate", "Car", "Vehicle:", "Licence plate"]), words.code(dice), False),
    ]  # fmt: skip
    return dice.shuffled(found)


def note(paper: Paper, fact: Fact) -> None:
    """Ask for a fact."""
    if fact.asked:
        paper.know(fact.name, fact.value)
    else:
        paper.know_label(fact.name, fact.value)


def store_name(job: Job) -> str:
    """The name of a shop that nobody has heard of."""
    dice, words = job.dice, job.words
    word, invented = capital(words.word(dice)), capital(words.pseudo(dice))
    first, second, owner = (words.entry(dice, name) for name in ("store_first", "store_second", "surnames"))
    other, city = words.entry(dice, "surnames"), words.entry(dice, "cities")
    legal = dice.pick(["Ltd", "Ltd.", "GmbH", "Inc", "Inc.", "LLC", "AG", "Co.", "SA", "& Co", "Group", "plc"])
    house = dice.pick(["Hotel", "Inn", "Lodge", "Suites", "Pension", "Guesthouse", "Hostel", "Resort"])
    ride = dice.pick(["Taxi", "Cabs", "Parking", "Ferries", "Car Wash", "Garage", "Transport", "Rentals"])
    return dice.weighted(
        {
            f"{first} {second}": 5,
            f"{word} {second}": 4,
            f"{invented} {second}": 2,
            f"{owner}'s {second}": 1.3,
            f"{owner} {second}": 1.5,
            f"{owner} & {other}": 1.5,
            f"{owner} & {other} {second}": 1,
            f"{owner} and {dice.pick(['Sons', 'Daughters', other, 'Partners'])}": 0.5,
            f"The {word} {second}": 0.8,
            f"{first} {word} {second}": 0.8,
            f"{word} {capital(words.word(dice))}": 1.5,
            f"{word} {capital(words.word(dice))} {second}": 1,
            f"{invented} {legal}": 0.8,
            f"{owner} {word} {legal}": 0.6,
            dice.pick([f"{house} {word}", f"{word} {house}", f"The {invented} {house}", f"{city} {house}"]): 1.2,
            f"{dice.pick([word, invented, city])} {ride}": 1.2,
            word: 1.2,
            invented: 1.5,
            owner: 0.8,
            f"{word} {second} {dice.integer(1, 99)}": 0.4,
            f"{city} {second}": 1,
            f"{second} {word}": 0.7,
            f"{word}-{second}": 0.3,
            f"{invented}{dice.pick(['.com', '24', '+', '!', ' Online', ' Direct', ' Express'])}": 0.5,
        }
    )


def fitting_store(paper: Paper) -> str:
    """A store's name in some letter case, cut to the width of the paper."""
    dice, columns = paper.job.dice, paper.job.budget.columns
    store = store_name(paper.job)
    store = dice.weighted({store: 5, store.upper(): 4, store.lower(): 0.3})
    while len(store) > columns * 1.1 and " " in store:
        store = store.rsplit(" ", 1)[0].rstrip(" &-")
    return store.removesuffix(" and").removesuffix(" AND")


def add_store(paper: Paper, align: str, heading: str = "") -> None:
    """Print the store's name in one of many ways and ask for it; ``heading``: a word to print beside it if it fits."""
    dice, style, columns = paper.job.dice, paper.job.style, paper.job.budget.columns
    store = fitting_store(paper)
    scale = dice.uniform(1.0, 2.0) if dice.chance(0.6) else 1.0
    while scale > 1.0 and len(store) * scale > columns:
        scale = max(1.0, scale - 0.2)
    form = dice.weighted({"plain": 6, "beside": 1.6, "bar": 1.0, "logo": 0.8, "spaced": 0.6, "lead": 0.7, "frame": 0.3})
    pen = style.pen("head", scale)
    beside = heading or (dice.pick(_HEADINGS) if dice.chance(0.6) else f"{dice.pick(_NUMBERS)} {dice.digits(4)}")
    lead = dice.pick(_LEADS)
    if heading or (form == "beside" and len(beside) + len(store) * scale + 2 <= columns):
        other = style.pen(dice.pick(["head", "body", "bold"]), scale if heading or dice.chance(0.4) else 1.0)
        first = dice.chance(0.75)
        ends = Ends(store, beside, pen, other) if first else Ends(beside, store, other, pen)
        paper.add(ends, 2 if scale > 1.3 else 1)
    elif form == "bar":
        bar = style.accent if style.coloured and not style.dark else style.ink
        paper.add(Line(store, pen, align, style.paper, bar))
        paper.add(Gap(dice.uniform(0.2, 0.8)), 0)
    elif form == "logo" and paper.left > 12:
        kind, size = dice.pick(["fill", "round", "frame", "ellipse", "ellipse_frame"]), dice.uniform(1.5, 3.0)
        if dice.chance(0.5) and len(store) * scale + 2 * size + 1 <= columns:
            paper.add(Logo(kind, size, align, store, pen), round(size))
        else:
            paper.add(Logo(kind, size, align), round(size))
            paper.add(Line(store, pen, align))
    elif form == "spaced" and len(store) * 1.6 <= columns:
        paper.add(Line(store.upper(), style.pen("head", 1.0, dice.uniform(0.15, 0.5)), align))
        store = store.upper()
    elif form == "lead" and len(lead) + len(store) + 1 <= columns:
        paper.line(f"{lead} {store}", align)
    elif form == "lead" and paper.left > 12:
        paper.line(lead, align)
        paper.line(store, align, "head", scale)
    elif form == "frame" and len(store) * scale + 2 <= columns:
        paper.add(Framed([Line(store, pen, align)], dice.pick(["frame", "round_frame"]), dice.uniform(0.2, 0.5)), 2)
    else:
        paper.line(store, align, "head", scale)
    for _ in range(3):
        paper.know("store", store)


def slogan(words: Lexicon, paper: Paper) -> str:
    """A line that stands below many a shop's name."""
    dice = paper.job.dice
    word = words.word(dice)
    year = dice.integer(1880, 2020)
    return dice.pick(
        [f"since {year}", f"Quality {word} since {year}", f"Your {word} in town", f"{capital(word)} and more",
         f"Open daily {dice.integer(6, 10)}-{dice.integer(18, 23)}", f"Fresh {word} every day", words.title(dice, 2),
         f"{capital(word)} for everybody", f"Family {word} for {dice.integer(10, 99)} years", f"We love {word}"]
    )  # fmt: skip


def thanks(paper: Paper) -> str | None:
    """A closing line with the store's name, where it fits."""
    store = paper.fields.get("store")
    text = paper.job.dice.pick(_THANKS).format(store)
    return text if store and len(text) <= paper.job.budget.columns else None


def _labelled(paper: Paper, date: str) -> str:
    """The date with a word before it, a day of the week, or nothing."""
    dice = paper.job.dice
    text = weekday_text(dice) + date if dice.chance(0.08) else date
    if dice.chance(0.35):
        return text
    return dice.pick(_DATE_LABELS) + dice.pick([": ", ": ", ": ", " ", " ", ":", " : ", ". ", " - "]) + text


def add_date(paper: Paper, align: str, known: list[Fact]) -> list[Fact]:
    """Print the date, alone or on a row with a time or with facts of ``known``; returns the facts that are left."""
    job, dice = paper.job, paper.job.dice
    date, time = date_text(dice, weekday=False), time_text(dice)
    joint = dice.pick([" ", " ", " ", ": ", ":", " #", " : "])
    dated, timed = _labelled(paper, date), dice.pick(["", "", "", "Time: ", "Time ", "at "]) + time
    fact, more = known[0], [fact for fact in known[1:4] if len(fact.text(joint)) <= job.budget.columns // 2 - 2]
    other = fact.text(joint)
    form = dice.weighted({"line": 3.5, "ends": 2.5, "split": 2, "two": 1.2, "beside": 5, "row": 2, "pairs": 1.8,
                          "columns": 1.2, "head": 0.7})  # fmt: skip
    space, used, with_time = job.budget.columns, [], False
    sep = dice.pick(["  ", " ", " | ", " - ", ", ", " / ", "; ", "   ", " * "])
    match form:
        case "ends" if len(date) + 14 <= space:
            with_time = dice.chance(0.35) and len(date) + len(time) + 15 <= space
            label = dice.pick(_DATE_LABELS) + dice.pick(["", "", ":", ":", " :"])
            paper.ends(label, f"{date} {time}" if with_time else date)
        case "split" if len(dated) + len(timed) + 2 <= space:
            with_time = True
            paper.ends(*((dated, timed) if dice.chance(0.7) else (timed, dated)))
        case "two" if paper.left > 8:
            with_time = True
            for text in dice.shuffled([dated, timed]):
                paper.line(text, align)
        case "beside" if len(dated) + len(other) + 2 <= space:
            used = [fact]
            paper.ends(*((other, dated) if dice.chance(0.6) else (dated, other)))
        case "row" if len(dated) + len(other) + len(sep) <= space:
            with_time = dice.chance(0.4)
            used = [] if with_time else [fact]
            paper.line(sep.join(dice.shuffled([dated, timed if with_time else other])), align)
        case "pairs" if paper.left > 9 and more and max(len(dated), len(other)) <= space // 2 - 1:
            used = [fact, *more]
            _add_pairs(paper, [dated, *(fact.text(joint) for fact in used)])
        case "columns" if (max(map(len, (dated, timed, other))) + 2) * 3 <= space:
            with_time, used = True, [fact]
            paper.add(Columns(dice.shuffled([dated, timed, other]), job.style.pen()))
        case "head" if paper.left > 9 and len(date) + len(time) + len(fact.value) + 8 <= space:
            with_time, used = True, [fact]
            cells = [(dice.pick(["Date", "DATE", "Day"]), date), ("Time", time), (fact.label.strip(":# "), fact.value)]
            cells = dice.shuffled(cells)
            pen = job.style.pen()
            rows = [[label for label, _ in cells], [value for _, value in cells]]
            paper.add(Grid(rows, "lll", [pen, pen], 0, lines=dice.pick(["", "", "all", "head"])), 2)
        case _:
            with_time = dice.chance(0.4) and len(dated) + len(time) + 3 <= space
            join = dice.pick([" ", " ", "  ", " - ", ", ", " at ", " | "])
            paper.line(
                (f"{dated}{join}{time}" if dice.chance(0.8) else f"{time} {dated}") if with_time else dated, align
            )
    for _ in range(3):
        paper.know("date", date)
    if with_time:
        paper.know("time", time)
    for fact in used:
        note(paper, fact)
    return [fact for fact in known if fact not in used]


def _add_pairs(paper: Paper, texts: list[str]) -> None:
    """Two columns of labels with their values, in random order."""
    dice, pen = paper.job.dice, paper.job.style.pen()
    texts = dice.shuffled(texts)
    texts += [""] * (len(texts) % 2)
    rows = [texts[index : index + 2] for index in range(0, len(texts), 2)]
    paper.add(Grid(rows, dice.pick(["ll", "ll", "lr"]), [pen] * len(rows), 0), len(rows))
