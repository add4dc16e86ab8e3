"""Receipts: header, date and numbers, items, totals, payment, footer; and simple invoices."""

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import Barcode
from mm.synthetic.layout import Ends, Gap
from mm.synthetic.money import date_text, time_text
from mm.synthetic.purchases import Paper, add_items, add_totals
from mm.synthetic.words import capital


def receipt(job: Job) -> Draft:
    """A till receipt, restaurant bill or parking ticket, in some cases a simple invoice."""
    dice, style = job.dice, job.style
    if job.budget.columns >= 34 and job.budget.lines >= 12 and dice.chance(0.15):
        return _invoice(job)
    paper = Paper.start(job)
    _header(paper)
    paper.rule(0.5)
    late = paper.left > 8 and dice.chance(0.07)  # the date at the foot
    if not late:
        _meta(paper)
        paper.rule()
    total = add_totals_after_items(paper)
    if paper.left > 3 and dice.chance(0.6):
        paper.rule(0.2)
        _payment(paper, total)
    if late:
        paper.rule()
        _meta(paper)
    _footer(paper)
    width = dice.uniform(0.25, 0.5) * job.budget.columns * style.em if dice.chance(0.6) else None
    return Draft(paper.elements, paper.turns, paper.fields, tuple(paper.fields), width)


def add_totals_after_items(paper: Paper) -> int:
    """Items, a separator, totals; returns the total in cents."""
    net = add_items(paper)
    paper.rule()
    return add_totals(paper, net)


def store_name(job: Job) -> str:
    """The name of a shop that nobody has heard of."""
    dice, words = job.dice, job.words
    word = capital(words.word(dice))
    first, second, owner = (words.entry(dice, name) for name in ("store_first", "store_second", "surnames"))
    return dice.weighted(
        {
            f"{first} {second}": 5,
            f"{word} {second}": 4,
            f"{owner}'s {second}": 1.5,
            f"{owner} & {words.entry(dice, 'surnames')}": 0.8,
            f"The {word} {second}": 1,
            f"{first} {word} {second}": 1,
            word: 1.5,
            f"{word} {second} {dice.integer(1, 99)}": 0.4,
            f"{words.entry(dice, 'cities')} {second}": 1,
            f"{second} {word}": 0.7,
            f"{word}-{second}": 0.3,
        }
    )


def _add_store(paper: Paper, align: str) -> None:
    dice, columns = paper.job.dice, paper.job.budget.columns
    store = store_name(paper.job)
    store = dice.weighted({store: 5, store.upper(): 4, store.lower(): 0.3})
    scale = dice.uniform(1.0, 2.0) if dice.chance(0.6) else 1.0
    while scale > 1.0 and len(store) * scale > columns:
        scale = max(1.0, scale - 0.2)
    while len(store) > columns * 1.1 and " " in store:
        store = store.rsplit(" ", 1)[0].rstrip(" &-")
    paper.line(store, align, "head", scale)
    paper.know("store", store)
    paper.know("store", store)


def _header(paper: Paper) -> None:
    dice, words = paper.job.dice, paper.job.words
    align = dice.weighted({"center": 7, "left": 2, "right": 0.4})
    if paper.left > 12 and dice.chance(0.12):
        paper.line(words.entry(dice, "headers"), align, "body", dice.uniform(0.9, 1.3))
    _add_store(paper, align)
    if paper.left > 10:
        if dice.chance(0.12):
            branch = f"Branch {words.entry(dice, 'cities')}"
            paper.line(
                dice.pick([words.entry(dice, "footers"), words.title(dice, 2), f"Store #{dice.digits(4)}", branch]),
                align,
            )
        if dice.chance(0.55):
            _address(paper, align)
        if dice.chance(0.45):
            phone = words.phone(dice)
            paper.line(dice.pick(["Tel: ", "Tel. ", "Phone: ", "Ph: ", "T: ", "", "", "Call "]) + phone, align)
            paper.know("phone", phone)
        if dice.chance(0.15):
            site = words.url(dice)
            paper.line(site, align)
            paper.know("website", site)
        if dice.chance(0.15):
            number = dice.pick(["VAT No. ", "Tax ID: ", "VAT: GB", "ABN ", "USt-IdNr. DE", "GSTIN "]) + dice.digits(9)
            paper.line(number, align)
    if paper.left > 14 and dice.chance(0.15):
        paper.add(Gap(0.5))
        paper.line(words.entry(dice, "headers"), align, "bold")


def _address(paper: Paper, align: str) -> None:
    dice, words = paper.job.dice, paper.job.words
    street, town = paper.case(words.street(dice)), paper.case(words.town(dice))
    if len(street) + len(town) + 2 <= paper.job.budget.columns and dice.chance(0.25):
        paper.line(f"{street}, {town}", align)
        paper.know("address", f"{street}, {town}")
        return
    paper.line(street, align)
    if dice.chance(0.75):
        paper.line(town, align)
        paper.know("street", street)
        paper.fields["address"] = street
    else:
        paper.know("address", street)


def _add_date(paper: Paper, align: str) -> None:
    """Date, with or without a time, on one row or two."""
    dice = paper.job.dice
    date, time = date_text(dice), time_text(dice)
    timed = dice.chance(0.5)
    word = paper.word("date_words")
    form = dice.weighted({"line": 5, "ends": 4, "split": 2, "two": 1.5})
    if form == "ends" and word:
        paper.ends(word.strip(), f"{date} {time}" if timed else date)
    elif form == "split" and timed:
        paper.ends(word + date, dice.pick(["", "Time: ", "Time "]) + time)
    elif form == "two" and timed and paper.left > 8:
        paper.line(word + date, align)
        paper.line(dice.pick(["Time: ", "TIME: ", "Time ", ""]) + time, align)
    else:
        paper.line(word + date + (dice.pick([" ", " ", " - ", ", ", " at "]) + time if timed else ""), align)
    paper.know("date", date)
    paper.know("date", date)
    if timed:
        paper.know("time", time)


def _meta(paper: Paper) -> None:
    """Date and time, then numbers and names."""
    dice, words = paper.job.dice, paper.job.words
    align = dice.weighted({"left": 4, "center": 3, "right": 0.5})
    _add_date(paper, align)
    numbers = ["Receipt #", "Receipt No:", "Receipt", "Ticket", "Bon Nr", "No.", "Trans:", "Transaction", "Check #"]
    options: list[tuple[str, str, str]] = [
        ("number", dice.pick(numbers), words.code(dice) if dice.chance(0.5) else dice.digits(dice.integer(3, 8))),
        ("cashier", dice.pick(["Cashier:", "Cashier", "Served by:", "Server:", "SERVER", "Clerk", "Operator"]),
         words.entry(dice, "first_names")),
        ("table", dice.pick(["Table", "Table:", "TABLE", "Table No."]), str(dice.integer(1, 60))),
        ("register", dice.pick(["Register", "Reg:", "Terminal", "POS", "Till"]), dice.digits(dice.integer(1, 4))),
        ("order number", dice.pick(["Order", "Order #", "Order:", "Order No."]), dice.digits(dice.integer(2, 6))),
        ("number of guests", dice.pick(["Guests", "Guests:", "Covers"]), str(dice.integer(1, 12))),
        ("store number", dice.pick(["Store #", "Store No.", "Branch No.", "Shop"]), dice.digits(dice.integer(2, 5))),
        ("customer", dice.pick(["Customer", "Customer:", "Sold to:", "Bill to:"]), words.person(dice)),
    ]  # fmt: skip
    count = min(max(0, (paper.left - 8) // 3), dice.weighted({0: 3, 1: 3, 2: 3, 3: 1.5, 4: 0.7}))
    both = dice.chance(0.25)
    for name, label, value in dice.sample(options, count):
        if both or dice.chance(0.3):
            paper.ends(label, value)
        else:
            paper.line(f"{label}{'' if label[-1] == '#' and dice.chance(0.5) else ' '}{value}", align)
        if name in {"number", "cashier", "table"}:
            paper.know(name, value)
        else:
            paper.know_label(name, value)


def _payment(paper: Paper, total: int) -> None:
    """Cash and change, or a card."""
    dice, words = paper.job.dice, paper.job.words
    if dice.chance(0.5):
        step = dice.pick([100, 500, 1000, 2000])
        given = -(-total // step) * step
        for name, value in (("cash", given), ("change", given - total)):
            paper.ends(paper.word(f"{name}_words"), paper.money.full(value), leader=True)
            paper.know(name, paper.money.full(value))
        return
    paper.ends(paper.word("card_words"), paper.money.full(total), leader=True)
    if paper.left > 3 and dice.chance(0.5):
        mask = dice.pick(["****", "XXXX", "**** **** ****", "xxxx-xxxx-xxxx-", "************", "...", "#"])
        number = mask + dice.pick(["", " "]) + dice.digits(4)
        paper.line(dice.pick(["Card ", "Card: ", "Card No. ", "", "VISA "]) + number, "left")
        paper.know("card", number)
    if paper.left > 3 and dice.chance(0.3):
        paper.ends(dice.pick(["Auth code", "Approval", "AUTH", "Ref"]), words.code(dice))


def _footer(paper: Paper) -> None:
    dice, words = paper.job.dice, paper.job.words
    count = min(paper.left, dice.weighted({0: 3, 1: 4, 2: 2, 3: 1}))
    if count <= 0:
        return
    paper.rule(0.4)
    paper.add(Gap(dice.uniform(0.0, 0.8)), 0)
    align = dice.weighted({"center": 8, "left": 1})
    said: set[str] = set()
    for _ in range(count):
        other = dice.pick([words.code(dice), words.url(dice), words.email(dice), words.title(dice, 2), dice.digits(12)])
        text = words.entry(dice, "footers") if dice.chance(0.75) else other
        if len(text) <= paper.job.budget.columns and text not in said:
            said.add(text)
            paper.line(text, align)
    if paper.left > 4 and dice.chance(0.1):
        paper.add(Barcode.draw(dice), 4)
        if dice.chance(0.6):
            paper.line(dice.digits(dice.integer(8, 13)))


def _invoice(job: Job) -> Draft:
    """Seller, number, dates, customer, a ruled list of items, totals."""
    dice, words, style = job.dice, job.words, job.style
    paper = Paper.start(job)
    heading = dice.pick(["INVOICE", "Invoice", "Tax Invoice", "Bill", "Quotation", "Sales Order", "Statement"])
    if dice.chance(0.5):
        paper.line(heading, dice.pick(["left", "center", "right"]), "head", dice.uniform(1.1, 1.8))
        heading = ""
    _add_store(paper, dice.pick(["left", "left", "center"]))
    if dice.chance(0.6):
        _address(paper, "left")
    if heading:
        paper.line(heading, dice.pick(["left", "right"]), "bold", dice.uniform(1.0, 1.4))
    paper.rule(0.5)
    number, issued, name = words.code(dice), date_text(dice), words.person(dice)
    entries = [(dice.pick(["Invoice No.", "Invoice #", "Invoice number", "No."]), number, "invoice number"),
               (dice.pick(["Date", "Date:", "Invoice date", "Issued"]), issued, "date"),
               (dice.pick(["Bill to", "Bill to:", "Customer", "Client:"]), name, "customer")]  # fmt: skip
    if paper.left > 12 and dice.chance(0.5):
        entries.append((dice.pick(["Due date", "Due", "Payment due"]), date_text(dice), "due date"))
    spread = dice.chance(0.4)
    for label, value, kind in entries:
        if spread:
            paper.add(Ends(label, value, style.pen(), style.pen()))
        else:
            paper.line(f"{label} {value}", "left")
        if kind == "date" and len(entries) == 3:
            paper.know("date", value)
            paper.know("date", value)
        elif kind == "date":
            paper.know_label("invoice date", value)
        else:
            paper.know_label(kind, value)
    paper.rule(0.6)
    net = add_items(paper, dice.weighted({"wide": 5, "grid": 3, "plain": 1}))
    paper.rule()
    add_totals(paper, net)
    _footer(paper)
    width = job.budget.width * dice.uniform(0.7, 1.0) if dice.chance(0.6) else None
    return Draft(paper.elements, paper.turns, paper.fields, (*paper.fields, "date"), width)
