"""Amounts, dates and times as printed: one style is drawn for a document and used throughout."""

from dataclasses import dataclass
from datetime import date, timedelta

from mm.synthetic.dice import Dice

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                "November", "December")  # fmt: skip


@dataclass(frozen=True)
class MoneyStyle:
    """How a document prints amounts, which are whole cents."""

    symbol: str  # "$", "EUR", "" ...
    before: bool  # the symbol stands before the number
    space: str  # between symbol and number
    point: str  # decimal separator
    thousands: str  # separator of groups of three digits, may be empty
    minus: str  # "-1.00": "front", "1.00-": "back", "(1.00)": "brackets"

    def plain(self, cents: int) -> str:
        """The number without its symbol."""
        units, rest = divmod(abs(cents), 100)
        digits = f"{units:,}".replace(",", self.thousands)
        text = f"{digits}{self.point}{rest:02d}"
        if cents >= 0:
            return text
        return {"front": f"-{text}", "back": f"{text}-", "brackets": f"({text})"}[self.minus]

    def full(self, cents: int) -> str:
        """The number with its symbol."""
        if not self.symbol:
            return self.plain(cents)
        text = self.plain(abs(cents))
        text = f"{self.symbol}{self.space}{text}" if self.before else f"{text}{self.space}{self.symbol}"
        if cents >= 0:
            return text
        return {"front": f"-{text}", "back": f"{text}-", "brackets": f"({text})"}[self.minus]


def money_style(dice: Dice, extras: frozenset[str]) -> MoneyStyle:
    """Draw a style that the font can print (``extras``: its characters beyond ASCII)."""
    symbols: dict[str, float] = {"$": 8, "": 4, "EUR": 1.5, "USD": 1, "GBP": 0.6, "CHF": 0.5, "kr": 0.4, "zl": 0.2,
                                 "Rs.": 0.3, "CA$": 0.2, "A$": 0.2, "R$": 0.2, "RM": 0.2, "Kc": 0.1}  # fmt: skip
    symbols |= {mark: weight for mark, weight in (("€", 4.0), ("£", 4.0), ("¥", 0.3)) if mark in extras}
    symbol = dice.weighted(symbols)
    before = dice.chance(0.95 if symbol in {"$", "£", "¥", "CA$", "A$", "R$", "RM", "Rs."} else 0.4)
    tight = dice.chance(0.9 if symbol in {"$", "£", "¥", "CA$", "A$", "R$"} else 0.35 if symbol == "€" else 0.1)
    comma = dice.chance({"$": 0.01, "£": 0.01, "€": 0.55, "EUR": 0.5, "": 0.2}.get(symbol, 0.3))
    thousands = dice.weighted({".": 3, " ": 1, "": 2} if comma else {",": 6, "": 2, " ": 0.3, "'": 0.2})
    return MoneyStyle(
        symbol=symbol,
        before=before,
        space="" if tight else " ",
        point="," if comma else ".",
        thousands=thousands,
        minus=dice.weighted({"front": 7, "back": 1, "brackets": 1}),
    )


def cents(dice: Dice) -> int:
    """A price: mostly between 0.50 and 30.00, sometimes much more, often with a shop's ending."""
    top = dice.weighted({1000: 4, 3000: 4, 10000: 2, 100000: 1})
    price = dice.integer(30, top)
    ending = dice.weighted({-1: 5, 99: 1.5, 95: 0.8, 50: 1, 0: 1, 49: 0.5})
    return price if ending < 0 else price // 100 * 100 + ending if price >= 100 else max(price, ending)


def date_text(dice: Dice, *, weekday: bool = True) -> str:
    """A date in one of many spellings; ``weekday``: in some of them with the day of the week."""
    day = date(1995, 1, 1) + timedelta(days=dice.integer(0, 14000)) if dice.chance(0.25) else date(
        2018, 1, 1) + timedelta(days=dice.integer(0, 3600))  # fmt: skip
    y, m, d = day.year, day.month, day.day
    short, long, week = _MONTHS[m - 1], _LONG_MONTHS[m - 1], _WEEKDAYS[day.weekday()]
    suffix = "th" if 10 < d < 20 else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    form = dice.weighted(
        {
            f"{y}-{m:02d}-{d:02d}": 5,
            f"{d:02d}/{m:02d}/{y}": 4,
            f"{m:02d}/{d:02d}/{y}": 4,
            f"{d:02d}.{m:02d}.{y}": 3,
            f"{d:02d}.{m:02d}.{y % 100:02d}": 1.5,
            f"{d:02d}/{m:02d}/{y % 100:02d}": 2,
            f"{d:02d}-{m:02d}-{y}": 2,
            f"{m}/{d}/{y}": 1.5,
            f"{d}/{m}/{y % 100:02d}": 0.7,
            f"{d}.{m}.{y}": 0.7,
            f"{y}/{m:02d}/{d:02d}": 1.5,
            f"{y}.{m:02d}.{d:02d}": 0.5,
            f"{short} {d}, {y}": 2,
            f"{short} {d:02d} {y}": 1,
            f"{short} {d} {y}": 1,
            f"{d} {short} {y}": 2,
            f"{d:02d} {short} {y}": 1.2,
            f"{d:02d}-{short}-{y}": 1.2,
            f"{d:02d}{short.upper()}{y}": 0.4,
            f"{d:02d}-{short.upper()}-{y % 100:02d}": 0.7,
            f"{d} {long} {y}": 1,
            f"{long} {d}, {y}": 1,
            f"{long} {d}{suffix}, {y}": 0.3,
            f"{week} {d} {short} {y}": 0.5 * weekday,
            f"{week}, {short} {d}, {y}": 0.5 * weekday,
            f"{week} {m:02d}/{d:02d}/{y}": 0.4 * weekday,
            f"{d}. {long} {y}": 0.4,
            f"{d} {short} '{y % 100:02d}": 0.3,
            f"{d}{suffix} {long} {y}": 0.3,
            f"{short.upper()} {d:02d} {y}": 0.5,
            f"{d:02d} {m:02d} {y}": 0.3,
        }
    )
    return form.upper() if dice.chance(0.06) else form


def weekday_text(dice: Dice) -> str:
    """A day of the week, short or long, with what separates it from a date."""
    index = dice.integer(0, 6)
    day = dice.pick([_WEEKDAYS[index], _LONG_WEEKDAYS[index], _WEEKDAYS[index].upper()])
    return day + dice.pick([" ", ", ", ". ", " "])


def time_text(dice: Dice) -> str:
    """A time of day in one of many spellings."""
    hour, minute, second = dice.integer(0, 23), dice.integer(0, 59), dice.integer(0, 59)
    half, mark = (hour + 11) % 12 + 1, "AM" if hour < 12 else "PM"
    return dice.weighted(
        {
            f"{hour:02d}:{minute:02d}": 5,
            f"{hour:02d}:{minute:02d}:{second:02d}": 2.5,
            f"{half}:{minute:02d} {mark}": 2,
            f"{half:02d}:{minute:02d} {mark}": 1,
            f"{half}:{minute:02d}{mark.lower()}": 0.7,
            f"{half}:{minute:02d}{mark}": 0.5,
            f"{hour:02d}.{minute:02d}": 0.4,
            f"{hour}:{minute:02d}": 0.5,
            f"{hour:02d}h{minute:02d}": 0.2,
        }
    )
