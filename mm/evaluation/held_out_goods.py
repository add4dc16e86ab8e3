"""What the held-out receipts sell: shops, goods, amounts, and the questions about them.

Sums are computed in cents, so every number on a paper is consistent with the others.
"""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Question, wording
from mm.evaluation.held_out_words import chance, pick

TOTAL_PROMPTS = (
    *("What is the total?", "What is the total amount?", "How much is the total?", "How much is it in total?"),
    "What is the sum to pay?",
)
DATE_PROMPTS = (
    "What is the date?",
    "What is the date on the receipt?",
    "Which date is printed?",
    "On what date was it issued?",
)
STORE_PROMPTS = (
    *("What is the name of the store?", "Which store is it from?", "What is the store name?"),
    *("Which shop is this receipt from?", "What is the business called?"),
)
PRICE_PROMPTS = (
    "What is the price of {}?",
    "How much is {}?",
    "What does {} cost?",
    "How much was charged for {}?",
)

INKS = ((0, 0, 0), (20, 20, 30), (45, 45, 50), (70, 66, 72), (30, 30, 70))
PAPERS = ((255, 255, 255), (252, 250, 244), (246, 246, 248), (250, 244, 228), (240, 240, 236))
COLOURS = ((24, 84, 160), (150, 30, 40), (20, 110, 70), (90, 40, 130), (200, 100, 10), (30, 30, 30))

_CURRENCIES = (("", ""), ("$", ""), ("", " EUR"), ("€", ""), ("£", ""), ("EUR ", ""))
_CURRENCY_SHARES = (0.46, 0.27, 0.08, 0.05, 0.09, 0.05)
_PACKS = ("250g", "500g", "1kg", "1L", "6pk", "330ml", "XL", "2pc")


@dataclass(frozen=True)
class Money:
    """How a shop writes amounts."""

    prefix: str
    suffix: str
    comma: bool

    @classmethod
    def draw(cls, rng: Generator) -> "Money":
        """A currency (none on 46%) and, except with $ and £, a decimal comma on a fifth."""
        prefix, suffix = _CURRENCIES[int(rng.choice(len(_CURRENCIES), p=_CURRENCY_SHARES))]
        return cls(prefix, suffix, comma=prefix not in ("$", "£") and chance(rng, 0.2))

    def plain(self, cents: int) -> str:
        """Digits only: ``1,240.50`` or ``1.240,50``."""
        text = f"{cents / 100:,.2f}"
        return text.translate(str.maketrans(",.", ".,")) if self.comma else text

    def full(self, cents: int) -> str:
        """With the currency where this shop prints it."""
        return f"{self.prefix}{self.plain(cents)}{self.suffix}"


@dataclass(frozen=True)
class Entry:
    """One line of goods; ``unit`` is the price of a piece in cents."""

    name: str
    count: int
    unit: int

    @property
    def amount(self) -> int:
        """Price of all pieces, in cents."""
        return self.count * self.unit


def price(rng: Generator, low: float, high: float) -> int:
    """Cents between two amounts of whole currency, small ones more often; shops like 99 and 50."""
    cents = int(100 * low * (high / low) ** float(rng.random()))
    ending = int(rng.integers(4))
    return cents if ending < 2 else cents // 100 * 100 + (99, 50)[ending - 2]


def goods(
    rng: Generator, count: int, make: Callable[[Generator], str], low: float, high: float, several: float = 0.0
) -> list[Entry]:
    """``count`` entries with different names; a share ``several`` of them, but never all, of two to six pieces."""
    entries: dict[str, Entry] = {}
    single = int(rng.integers(count))
    while len(entries) < count:
        name = make(rng)
        # "Soup" beside "Lamb soup" would make a question about soup ambiguous.
        if any(name.lower() in known or known in name.lower() for known in entries):
            continue
        pieces = int(rng.integers(2, 7)) if chance(rng, several) and len(entries) != single else 1
        entries[name.lower()] = Entry(name, pieces, price(rng, low, high))
    return list(entries.values())


def food(rng: Generator) -> str:
    """Something to eat or drink."""
    noun = pick(rng, words.FOODS)
    shapes = (
        noun.capitalize(),
        f"{pick(rng, words.QUALITIES)} {noun}".title(),
        f"{noun} {pick(rng, words.FOODS)}".capitalize(),
        f"{noun.capitalize()} {pick(rng, _PACKS)}",
    )
    return pick(rng, shapes)


def thing(rng: Generator) -> str:
    """Something for the house."""
    noun = pick(rng, words.GOODS)
    return noun.capitalize() if chance(rng, 0.35) else f"{pick(rng, words.QUALITIES)} {noun}".title()


def store_name(rng: Generator, *endings: str) -> str:
    """A family, an invented word, two words or two partners, on 60% with one of ``endings``."""
    names = (
        words.last_name(rng),
        words.invented(rng, int(rng.integers(2, 4))),
        f"{pick(rng, words.QUALITIES)} {pick(rng, words.THINGS)}".title(),
        f"{words.last_name(rng)} & {words.last_name(rng)}",
    )
    name = pick(rng, names)
    return f"{name} {pick(rng, endings)}" if chance(rng, 0.6) else name


def receipt_questions(
    rng: Generator, store: str, date: str, total: str, prices: dict[str, str]
) -> tuple[Question, ...]:
    """Total, date, store and the price of one of the goods in ``prices`` (name as printed, amount as printed)."""
    item = pick(rng, tuple(prices))
    return (
        Question("total", wording(rng, TOTAL_PROMPTS), total, "amount"),
        Question("date", wording(rng, DATE_PROMPTS), date),
        Question("store", wording(rng, STORE_PROMPTS), store),
        Question("price", wording(rng, PRICE_PROMPTS).format(item), prices[item], "amount", about=item),
    )
