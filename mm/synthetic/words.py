"""Words, names and codes, split into training and held-out by a hash of the word.

A word whose lower-case CRC-32 is divisible by ten is held out: no training document ever shows it (as a content word;
the words of the layout itself, such as "Total", and the few dozen commonest English words are in both). Sources: SCOWL
through Debian (``data/words_licence.txt``) and lists written for this project (``data/lists.txt``).
"""

import gzip
import string
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Split

_SHARED = frozenset({"small_words", "months", "weekdays", "states", "street_kinds", "domains", "units", "footers",
                     "headers", "buttons", "status", "colours", "form_titles", "menu"})  # fmt: skip
"""Sections of ``data/lists.txt`` that belong to the layout and are not split."""

_ONSETS = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "kn",
    "l",
    "m",
    "n",
    "p",
    "ph",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sc",
    "sh",
    "sk",
    "sl",
    "sm",
    "sn",
    "sp",
    "st",
    "str",
    "t",
    "th",
    "tr",
    "tw",
    "v",
    "w",
    "wh",
    "x",
    "y",
    "z",
]  # noqa: E501
_VOWELS = ["a", "e", "i", "o", "u", "ai", "au", "ea", "ee", "ei", "ie", "io", "oa", "oo", "ou", "ue", "y"]
_CODAS = [
    "",
    "",
    "",
    *[
        "b",
        "ck",
        "d",
        "ff",
        "g",
        "k",
        "l",
        "ll",
        "lm",
        "lt",
        "m",
        "mp",
        "n",
        "nd",
        "ng",
        "nk",
        "nt",
        "p",
        "pt",
        "r",
        "rd",
        "rk",
        "rm",
        "rn",
        "rt",
        "s",
        "sh",
        "ss",
        "st",
        "t",
        "th",
        "v",
        "x",
        "z",
    ],
]
_ACCENTS = {"e": "éèêë", "a": "áàâäåã", "i": "íîï", "o": "óôöø", "u": "úùûü", "n": "ñ", "c": "ç"}


def split_of(word: str) -> Split:
    """The split that a word belongs to; letter case does not matter."""
    return "held_out" if zlib.crc32(word.lower().encode()) % 10 == 0 else "train"


def _data(name: str) -> bytes:
    return resources.files("mm.synthetic").joinpath("data", name).read_bytes()


@lru_cache(maxsize=1)
def _lists() -> dict[str, tuple[str, ...]]:
    sections: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in _data("lists.txt").decode().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            sections[name] = (*sections.get(name, ()), *(entry for entry in line.split(";") if entry))
    return sections


@lru_cache(maxsize=2)
def lexicon(split: Split) -> "Lexicon":
    """The words of one split, read once."""
    words = gzip.decompress(_data("words.txt.gz")).decode().split("\n")
    lists = {
        name: entries if name in _SHARED else tuple(entry for entry in entries if split_of(entry) == split)
        for name, entries in _lists().items()
    }
    return Lexicon(split, tuple(word for word in words if split_of(word) == split), lists)


class Lexicon:
    """Draws words, phrases, names, codes, addresses and numbers of one split."""

    def __init__(self, split: Split, words: tuple[str, ...], lists: dict[str, tuple[str, ...]]) -> None:
        self.split = split
        self.words = words
        self.lists = lists

    def entry(self, dice: Dice, section: str) -> str:
        """One entry of a closed list."""
        return dice.pick(self.lists[section])

    def pseudo(self, dice: Dice) -> str:
        """A pronounceable word that is in no dictionary."""
        while True:
            parts = [dice.pick(_ONSETS) + dice.pick(_VOWELS) + dice.pick(_CODAS) for _ in range(1 + dice.integer(0, 2))]
            word = "".join(parts)[: dice.integer(4, 12)]
            if split_of(word) == self.split:
                return word

    def word(self, dice: Dice) -> str:
        """A content word: from the dictionary, sometimes invented."""
        return self.pseudo(dice) if dice.chance(0.15) else dice.pick(self.words)

    def title(self, dice: Dice, count: int) -> str:
        """``count`` words, each with a capital."""
        return " ".join(_capital(self.word(dice)) for _ in range(count))

    def accented(self, dice: Dice, word: str, extras: frozenset[str]) -> str:
        """The word with one letter accented, when the font has such a letter."""
        spots = [index for index, letter in enumerate(word) if letter in _ACCENTS]
        if not spots:
            return word
        index = dice.pick(spots)
        options = [letter for letter in _ACCENTS[word[index]] if letter in extras]
        return word[:index] + dice.pick(options) + word[index + 1 :] if options else word

    def person(self, dice: Dice) -> str:
        """A person's name in one of several spellings."""
        first, last = self.entry(dice, "first_names"), self.entry(dice, "surnames")
        if dice.chance(0.2):
            last = _capital(self.pseudo(dice))
        middle = dice.pick(string.ascii_uppercase) + "."
        return dice.weighted(
            {f"{first} {last}": 7, f"{last}, {first}": 1.2, f"{first} {middle} {last}": 1, f"{first[0]}. {last}": 1}
        )

    def code(self, dice: Dice) -> str:
        """A code such as ``AB-1234``, ``7F3K9``, ``#00412`` or ``INV/2024/118``."""
        pattern = dice.pick(
            ["AA-9999", "AAA-999", "A99999", "99999", "999999", "9999-9999", "AA99AA", "#99999", "#999", "A-99", "AAA/9999/99",
             "99-999-99", "XXXXX", "XXXXXXXX", "XXXX-XXXX", "AA 99 99", "A9", "99A", "9999999999", "AA-9999-A", "xxxxxx", "XX:XX:XX",
             "99.99.99", "(99)", "v9.9.9", "A_999", "AA9/99", "N 9999 A", "99999-999"]
        )  # fmt: skip
        sets: dict[str, str] = {"A": string.ascii_uppercase, "9": string.digits,
                                "X": string.ascii_uppercase + string.digits, "x": string.ascii_lowercase + string.digits}  # fmt: skip
        return "".join(dice.pick(sets[letter]) if letter in sets else letter for letter in pattern)

    def phone(self, dice: Dice) -> str:
        """A telephone number in one of several national spellings."""
        pattern = dice.pick(
            ["(999) 999-9999", "999-999-9999", "999.999.9999", "+1 999 999 9999", "+44 20 9999 9999", "099 999 9999", "01999 999999",
             "+49 99 9999999", "+33 9 99 99 99 99", "999-9999", "+999999999999", "099-9999999", "1-800-999-9999", "99 99 99 99"]
        )  # fmt: skip
        return "".join(dice.digits(1) if letter == "9" else letter for letter in pattern)

    def email(self, dice: Dice) -> str:
        """An e-mail address."""
        first, last = self.entry(dice, "first_names").lower(), self.entry(dice, "surnames").lower().replace("'", "")
        user = dice.pick([f"{first}.{last}", f"{first[0]}{last}", f"{first}{dice.digits(2)}", f"{first}_{last}",
                          "info", "sales", "office", "hello", "support"])  # fmt: skip
        return f"{user}@{self.host(dice)}"

    def host(self, dice: Dice) -> str:
        """A domain name."""
        name = self.word(dice).lower() + (dice.pick(["", "-"]) + self.word(dice).lower() if dice.chance(0.3) else "")
        return f"{name}.{self.entry(dice, 'domains')}"

    def url(self, dice: Dice) -> str:
        """A web address."""
        path = "/" + self.word(dice).lower() if dice.chance(0.4) else ""
        return dice.pick(["www.", "https://", "https://www.", "http://", ""]) + self.host(dice) + path

    def street(self, dice: Dice) -> str:
        """House number and street, in either order."""
        name = self.entry(dice, "streets") if dice.chance(0.7) else _capital(self.word(dice))
        number = str(dice.integer(1, 999 if dice.chance(0.8) else 9999))
        street = f"{name} {self.entry(dice, 'street_kinds')}"
        return dice.weighted(
            {f"{number} {street}": 8, f"{street} {number}": 2, f"{number}{dice.pick('AB')} {street}": 0.5}
        )

    def town(self, dice: Dice) -> str:
        """Town with postal code."""
        city = self.entry(dice, "cities") if dice.chance(0.8) else _capital(self.pseudo(dice))
        state, five = self.entry(dice, "states"), dice.digits(5)
        british = f"{dice.pick('BEGLMNSW')}{dice.integer(1, 29)} {dice.digits(1)}{dice.pick('ABDEFGHJLN')}{dice.pick('ABDEFGHJLN')}"
        return dice.weighted({f"{city}, {state} {five}": 5, f"{five} {city}": 2.5, f"{city} {british}": 2, city: 1})


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def letter_case(dice: Dice) -> Callable[[str], str]:
    """A way to write a line: as it is, all capitals, or all small."""
    return dice.weighted({str: 6, str.upper: 3, str.lower: 0.6})
