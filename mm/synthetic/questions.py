"""Phrasings of the questions, and how a document's questions are drawn."""

from collections.abc import Mapping, Sequence

from mm.chat import TASK_PROMPTS
from mm.synthetic.dice import Dice
from mm.synthetic.sample import ABSENT_ANSWER, Turn

READ_ALL = (TASK_PROMPTS["ocr"],) * 6 + (
    "Read the text.",
    "What does it say?",
    "What does the image say?",
    "Transcribe the text.",
    "Transcribe the image.",
    "What is written here?",
    "What text is in the image?",
    "Write down all the text you see.",
    "Read it.",
    "OCR this image.",
    "Extract the text.",
    "Read this document.",
    "What does this document say?",
    "Copy the text exactly as printed.",
)

ASK: Mapping[str, Sequence[str]] = {
    "total": (
        "What is the total?",
        "What is the total?",
        "What is the total amount?",
        "How much was paid?",
        "How much is the total?",
        "What is the grand total?",
        "What's the total?",
        "total?",
        "Total",
        "How much did it cost in total?",
        "What is the amount due?",
        "How much is the bill?",
        "What is the total price?",
        "How much was spent?",
        "Read the total.",
    ),
    "date": (
        "What is the date?",
        "What is the date?",
        "What date is on the receipt?",
        "What is the date on it?",
        "When was this?",
        "When was this issued?",
        "On which date was this?",
        "What's the date?",
        "date?",
        "Which day is printed?",
        "What date is printed?",
        "When was the purchase made?",
        "Read the date.",
    ),
    "time": (
        "What is the time?",
        "What time is printed?",
        "At what time was it?",
        "What time was the purchase?",
        "time?",
    ),
    "store": (
        "Which store is this?",
        "Which store is this?",
        "What is the name of the store?",
        "What is the store?",
        "What store is this from?",
        "What is the store name?",
        "Which shop is this?",
        "Who is the seller?",
        "Where was this bought?",
        "What's the name of the shop?",
        "Which business issued this?",
        "What is the merchant's name?",
        "store?",
        "Store name",
        "Where is this receipt from?",
    ),
    "subtotal": ("What is the subtotal?", "How much is the subtotal?", "subtotal?", "What is the amount before tax?"),
    "tax": ("What is the tax?", "How much is the tax?", "How much tax was paid?", "tax?", "What is the tax amount?"),
    "vat": ("What is the VAT?", "How much is the VAT?", "How much VAT was paid?", "VAT?", "What is the tax?"),
    "tip": ("What is the tip?", "How much was the tip?", "How much tip was given?", "tip?"),
    "discount": ("What is the discount?", "How much is the discount?", "How much was taken off?", "discount?"),
    "cash": (
        "How much cash was given?",
        "How much cash was paid?",
        "What is the cash amount?",
        "How much was tendered?",
    ),
    "change": ("What is the change?", "How much change was given?", "How much change is due?", "change?"),
    "phone": (
        "What is the phone number?",
        "What is the telephone number?",
        "What's the phone number?",
        "phone number?",
    ),
    "address": ("What is the address?", "What is the address?", "Where is the store?", "Where is the shop?"),
    "street": ("What is the street address?", "On which street is it?", "What is the street?"),
    "number": ("What is the receipt number?", "What is the number of the receipt?", "What is the transaction number?"),
    "cashier": ("Who is the cashier?", "Who served?", "What is the name of the cashier?", "Who was the server?"),
    "table": ("What is the table number?", "Which table is it?", "What table is this?"),
    "card": ("What is the card number?", "Which card number was used?"),
    "website": ("What is the website?", "What is the web address?"),
    "price": (
        "How much is the {item}?",
        "How much is the {item}?",
        "What is the price of {item}?",
        "What is the price of the {item}?",
        "What does the {item} cost?",
        "How much was the {item}?",
        "How much did the {item} cost?",
        "Price of {item}?",
        "How much for {item}?",
    ),
    "unit_price": ("What is the unit price of {item}?", "How much is one {item}?", "What is the price of one {item}?"),
    "quantity": (
        "How many {item} were bought?",
        "What is the quantity of {item}?",
        "How many {item} are there?",
        "What quantity of {item}?",
        "How many of {item}?",
    ),
    "count": ("How many items are there?", "How many items are listed?", "How many different items were bought?"),
    "field": (
        "What is the {label}?",
        "What is the {label}?",
        "What is the {label}?",
        "What does the field {label} say?",
        "What is written next to {label}?",
        "What is the value of {label}?",
        "Read the {label}.",
        "What's the {label}?",
        "{label}?",
        'What does "{label}" say?',
        "Which {label} is given?",
        "Give me the {label}.",
        "What {label} is shown?",
        "Find the {label}.",
    ),
    "title": ("What is the title?", "What is the heading?", "What is the title of the document?", "What is at the top?",
              "What's the title?", "What kind of document is this?"),
    "checked": ("Is {label} checked?", "Is {label} ticked?", "Is the box {label} checked?"),
    "cell": ("What is the {column} of {row}?", "What is the {column} for {row}?", "Which {column} does {row} have?",
             "What is {row}'s {column}?", "{column} of {row}?", "What is in the column {column} for {row}?"),
    "rows": ("How many rows are there?", "How many rows does the table have?"),
    "columns": ("What are the column names?", "What are the columns?", "Read the header row."),
    "first_line": ("What is the first line?", "What does the first line say?", "Read the first line.", "First line?"),
    "last_line": ("What is the last line?", "What does the last line say?", "Read the last line."),
    "line": ("Read line {n}.", "What does line {n} say?", "What is line {n}?", "What is in line {n}?"),
    "lines": ("How many lines are there?", "How many lines of text are there?"),
    "first_word": ("What is the first word?", "What is the first word in the image?"),
    "last_word": ("What is the last word?",),
}  # fmt: skip

ABSENT = (
    "phone",
    "website",
    "tip",
    "discount",
    "change",
    "cash",
    "table",
    "cashier",
    "date",
    "store",
    "total",
    "address",
)


def ask(dice: Dice, name: str, answer: str, **blanks: str) -> Turn:
    """A question of the kind ``name`` in one of its phrasings."""
    return Turn(dice.pick(ASK[name]).format(**blanks), answer)


def read_all(dice: Dice, text: str) -> Turn:
    """The whole transcription."""
    return Turn(dice.pick(READ_ALL), text)


def spoken(dice: Dice, name: str) -> str:
    """A label or item name as a user types it in a question: as printed, or in small letters."""
    return name if dice.chance(0.65) else name.lower()


def line_turns(dice: Dice, rows: Sequence[str], count: int) -> list[Turn]:
    """Up to ``count`` questions about single lines and words."""
    options = [ask(dice, "first_line", rows[0]), ask(dice, "last_line", rows[-1])]
    if len(rows) <= 12:
        options.append(ask(dice, "lines", str(len(rows))))
    number = dice.integer(1, min(len(rows), 10))
    options += [ask(dice, "line", rows[number - 1], n=str(number))] * 2
    options.append(ask(dice, "first_word", rows[0].split()[0]))
    options.append(ask(dice, "last_word", rows[-1].split()[-1]))
    return dice.sample(options, count)


def absent(dice: Dice, present: Sequence[str]) -> Turn:
    """A question whose answer is not in the image; ``present`` are the kinds of fields that are."""
    name = dice.pick([name for name in ABSENT if name not in present] or ["website"])
    return ask(dice, name, ABSENT_ANSWER)
