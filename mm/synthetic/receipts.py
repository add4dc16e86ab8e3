"""Receipts: header, date and numbers, items, totals, payment, footer; and simple invoices."""

from mm.synthetic.draft import Draft, Job
from mm.synthetic.field_rows import Barcode
from mm.synthetic.layout import Ends, Gap
from mm.synthetic.money import date_text
from mm.synthetic.purchases import Paper, add_items, add_totals
from mm.synthetic.receipt_heads import add_date, add_store, facts, note, slogan, thanks


def receipt(job: Job) -> Draft:
    """A till receipt, restaurant bill or parking ticket, in some cases a simple invoice."""
    dice, style = job.dice, job.style
    if job.budget.columns >= 34 and job.budget.lines >= 12 and dice.chance(0.15):
        return _invoice(job)
    paper = Paper.start(job)
    place = dice.weighted({"below": 10, "foot": 1.5 if paper.left > 8 else 0.0, "first": 0.8})  # of the date
    _header(paper, place == "first")
    paper.rule(0.5)
    if place == "below":
        _meta(paper)
        paper.rule()
    total = add_totals_after_items(paper)
    if paper.left > 3 and dice.chance(0.6):
        paper.rule(0.2)
        _payment(paper, total)
    if place == "foot":
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


def _header(paper: Paper, date_first: bool) -> None:
    """The store's name with what stands around it; ``date_first``: the row of the date comes before all."""
    dice, words = paper.job.dice, paper.job.words
    align = dice.weighted({"center": 7, "left": 3, "right": 0.4})
    if date_first:
        _meta(paper)
        paper.rule(0.3)
    if paper.left > 9 and dice.chance(0.25):  # the store's name is not the first line
        _before(paper, align)
    add_store(paper, align)
    if paper.left > 10:
        _around(paper, align)
    if paper.left > 14 and dice.chance(0.15):
        paper.add(Gap(0.5))
        paper.line(words.entry(dice, "headers"), align, "bold")


def _before(paper: Paper, align: str) -> None:
    """A greeting, a heading, a number, an address or a phone number above the store's name."""
    dice, words = paper.job.dice, paper.job.words
    match dice.weighted({"heading": 4, "number": 1, "slogan": 1, "address": 1, "phone": 0.7, "footer": 0.7}):
        case "heading":
            paper.line(words.entry(dice, "headers"), align, "body", dice.uniform(0.9, 1.5))
        case "number":
            paper.line(dice.pick(["#", "No. ", "Copy ", "Ticket ", "Order "]) + dice.digits(dice.integer(2, 7)), align)
        case "slogan":
            text = slogan(words, paper)
            paper.line(text if len(text) <= paper.job.budget.columns else dice.digits(6), align)
        case "address":
            _address(paper, align)
        case "phone":
            phone = words.phone(dice)
            paper.line(phone, align)
            paper.know("phone", phone)
        case _:
            paper.line("Thank you!", align)


def _around(paper: Paper, align: str) -> None:
    """Branch or slogan, address, phone number, website, tax number below the store's name."""
    dice, words = paper.job.dice, paper.job.words
    if dice.chance(0.15):
        branch = f"Branch {words.entry(dice, 'cities')}"
        options = [words.entry(dice, "footers"), slogan(words, paper), f"Store #{dice.digits(4)}", branch]
        paper.line(dice.pick([text for text in options if len(text) <= paper.job.budget.columns] or ["*"]), align)
    if dice.chance(0.6) and "address" not in paper.fields:
        _address(paper, align)
    if dice.chance(0.4) and "phone" not in paper.fields:
        phone = words.phone(dice)
        paper.line(
            dice.pick(["Tel: ", "Tel. ", "TEL ", "Phone: ", "Ph: ", "Ph ", "T: ", "", "", "Call "]) + phone, align
        )
        paper.know("phone", phone)
    if dice.chance(0.15):
        site = words.url(dice)
        paper.line(site, align)
        paper.know("website", site)
    if dice.chance(0.15):
        number = dice.pick(["VAT No. ", "Tax ID: ", "VAT: GB", "ABN ", "USt-IdNr. DE", "GSTIN "]) + dice.digits(9)
        paper.line(number, align)


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


def _meta(paper: Paper) -> None:
    """Date and time, then numbers and names."""
    dice = paper.job.dice
    align = dice.weighted({"left": 4, "center": 3, "right": 0.5})
    known = add_date(paper, align, facts(paper.job))
    count = min(max(0, (paper.left - 8) // 3), dice.weighted({0: 3, 1: 3, 2: 2.5, 3: 1.2, 4: 0.5}))
    both, joint = dice.chance(0.25), dice.pick([" ", " ", ": ", " #"])
    for fact in known[:count]:
        if both or dice.chance(0.3):
            paper.ends(fact.label, fact.value)
        else:
            paper.line(fact.text(joint), align)
        note(paper, fact)


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
        text = words.entry(dice, "footers") if dice.chance(0.7) else thanks(paper) if dice.chance(0.4) else other
        if text is not None and len(text) <= paper.job.budget.columns and text not in said:
            said.add(text)
            paper.line(text, align)
    if paper.left > 4 and dice.chance(0.1):
        paper.add(Barcode.draw(dice), 4)
        if dice.chance(0.6):
            paper.line(dice.digits(dice.integer(8, 13)))


def _invoice(job: Job) -> Draft:
    """Seller, number, dates, customer, a ruled list of items, totals."""
    dice = job.dice
    paper = Paper.start(job)
    heading = dice.pick(
        ["INVOICE", "Invoice", "INVOICE", "Tax Invoice", "Bill", "Quotation", "Sales Order", "Statement"]
    )
    beside = dice.chance(0.4) and job.budget.columns >= 40
    if not beside and dice.chance(0.5):
        paper.line(heading, dice.pick(["left", "center", "right"]), "head", dice.uniform(1.1, 1.8))
        heading = ""
    add_store(paper, dice.pick(["left", "left", "center"]), heading if beside else "")
    _invoice_block(paper, "" if beside else heading)
    paper.rule(0.6)
    net = add_items(paper, dice.weighted({"wide": 5, "grid": 3, "plain": 1}))
    paper.rule()
    add_totals(paper, net)
    _footer(paper)
    width = job.budget.width * dice.uniform(0.7, 1.0) if dice.chance(0.6) else None
    return Draft(paper.elements, paper.turns, paper.fields, (*paper.fields, "date"), width)


def _invoice_block(paper: Paper, heading: str) -> None:
    """Address at the left and number, dates and customer at the right, or all below each other."""
    job, dice, words, style = paper.job, paper.job.dice, paper.job.words, paper.job.style
    due = paper.left > 12 and dice.chance(0.4)
    labels = ["Date", "Date:", "Invoice date", "Issued", "Issued:", "Date of issue:", "DATE", "Dated", "Issue date:"]
    numbers = ["Invoice No.", "Invoice #", "Invoice number", "No.", "Nr.", "Invoice"]
    entries = [(dice.pick(numbers), words.code(dice), "invoice number"),
               (dice.pick(labels), date_text(dice, weekday=False), "invoice date" if due else "date"),
               (dice.pick(["Bill to", "Bill to:", "Customer", "Client:", "To:"]), words.person(dice),
                "customer")]  # fmt: skip
    if due:
        entries.append((dice.pick(["Due date", "Due", "Payment due"]), date_text(dice, weekday=False), "due date"))
    street, town = paper.case(words.street(dice)), paper.case(words.town(dice))
    room = job.budget.columns - max(len(street), len(town)) - 3
    if dice.chance(0.5) and all(len(label) + len(value) + 1 <= room for label, value, _ in entries):
        left = [street, town, *([words.phone(dice)] if dice.chance(0.5) else [])]
        entries = dice.shuffled(entries)
        for index, (label, value, _) in enumerate(entries):
            paper.ends(left[index] if index < len(left) else "", f"{label} {value}")
        paper.know("street", street)
        paper.fields["address"] = street
    else:
        if dice.chance(0.6):
            _address(paper, "left")
        if heading:
            paper.line(heading, dice.pick(["left", "right"]), "bold", dice.uniform(1.0, 1.4))
        paper.rule(0.5)
        spread = dice.chance(0.4)
        for label, value, _ in entries:
            if spread:
                paper.add(Ends(label, value, style.pen(), style.pen()))
            else:
                paper.line(f"{label} {value}", "left")
    for _, value, kind in entries:
        for _ in range(3 if kind == "date" else 1):
            if kind == "date":
                paper.know("date", value)
            else:
                paper.know_label(kind, value)
