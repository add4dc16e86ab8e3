"""Words, names and codes, split into training and held-out by a hash of the word.

A word whose lower-case CRC-32 is divisible by ten is held out: no training document ever shows it (as a content word;
the words of the layout itself, such as "Total", and the few dozen commonest English words are in both). Sources: SCOWL
through Debian (``data/words_licence.txt``) and lists written for this project (``data/lists.txt``).
"""

import gzip
import re
import string
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib import resources

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Split

_SPLIT = frozenset({"first_names", "surnames", "streets", "cities", "countries", "store_first", "store_second", "items",
                    "adjectives", "products", "jobs", "departments"})  # fmt: skip
"""Sections of ``data/lists.txt`` that are divided between the splits; the others belong to the layout."""

_ACCENTS = {"e": "éèêë", "a": "áàâäåã", "i": "íîï", "o": "óôöø", "u": "úùûü", "n": "ñ", "c": "ç"}


def split_of(word: str) -> Split:
    """The split that a word belongs to; letter case does not matter."""
    return "held_out" if zlib.crc32(word.lower().encode()) % 10 == 0 else "train"


def split_of_entry(entry: str) -> Split:
    """The split of an entry of several words: held out as soon as one of its words is."""
    held_out = any(split_of(word) == "held_out" for word in re.findall(r"[A-Za-z']+", entry))
    return "held_out" if held_out else "train"


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
            sections[name] = tuple(line.split(";"))
    return sections


@lru_cache(maxsize=2)
def lexicon(split: Split) -> "Lexicon":
    """The words of one split, read once."""
    words = gzip.decompress(_data("words.txt.gz")).decode().split("\n")
    lists = {
        name: tuple(entry for entry in entries if name not in _SPLIT or split_of_entry(entry) == split)
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
            parts = []
            for _ in range(1 + dice.integer(0, 2)):
                coda = self.entry(dice, "codas") if dice.chance(0.8) else ""
                parts.append(self.entry(dice, "onsets") + self.entry(dice, "vowels") + coda)
            word = "".join(parts)[: dice.integer(4, 12)]
            if split_of(word) == self.split:
                return word

    def word(self, dice: Dice) -> str:
        """A content word: from the dictionary, sometimes invented."""
        return self.pseudo(dice) if dice.chance(0.15) else dice.pick(self.words)

    def title(self, dice: Dice, count: int) -> str:
        """``count`` words, each with a capital."""
        return " ".join(capital(self.word(dice)) for _ in range(count))

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
            last = capital(self.pseudo(dice))
        middle = dice.pick(string.ascii_uppercase) + "."
        return dice.weighted(
            {f"{first} {last}": 7, f"{last}, {first}": 1.2, f"{first} {middle} {last}": 1, f"{first[0]}. {last}": 1}
        )

    def code(self, dice: Dice) -> str:
        """A code such as ``AB-1234``, ``7F3K9``, ``#00412`` or ``INV/2024/118``."""
        sets = {"A": string.ascii_uppercase, "9": string.digits, "X": string.ascii_uppercase + string.digits}
        sets["x"] = sets["X"].lower()
        pattern = self.entry(dice, "codes")
        return "".join(dice.pick(sets[letter]) if letter in sets else letter for letter in pattern)

    def phone(self, dice: Dice) -> str:
        """A telephone number in one of several national spellings."""
        pattern = self.entry(dice, "phones")
        return "".join(dice.digits(1) if letter == "9" else letter for letter in pattern)

    def email(self, dice: Dice) -> str:
        """An e-mail address."""
        first, last = self.entry(dice, "first_names").lower(), self.entry(dice, "surnames").lower().replace("'", "")
        user = dice.pick([f"{first}.{last}", f"{first[0]}{last}", f"{first}{dice.digits(2)}", f"{first}_{last}"])
        if dice.chance(0.4):
            user = dice.pick(["info", "sales", "office", "hello", "support", "contact"])
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
        name = self.entry(dice, "streets") if dice.chance(0.7) else capital(self.word(dice))
        number = str(dice.integer(1, 999 if dice.chance(0.8) else 9999))
        street = f"{name} {self.entry(dice, 'street_kinds')}"
        return dice.weighted(
            {f"{number} {street}": 8, f"{street} {number}": 2, f"{number}{dice.pick('AB')} {street}": 0.5}
        )

    def town(self, dice: Dice) -> str:
        """Town with postal code."""
        city = self.entry(dice, "cities") if dice.chance(0.8) else capital(self.pseudo(dice))
        state, five = self.entry(dice, "states"), dice.digits(5)
        area, end = dice.pick("BEGLMNSW"), dice.pick("ABDEFGHJLN") + dice.pick("ABDEFGHJLN")
        british = f"{area}{dice.integer(1, 29)} {dice.digits(1)}{end}"
        return dice.weighted({f"{city}, {state} {five}": 5, f"{five} {city}": 2.5, f"{city} {british}": 2, city: 1})


def capital(text: str) -> str:
    """The text with a capital first letter; as it is where that letter is beyond ASCII (its capital may be missing)."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def upper(text: str) -> str:
    """The text in capitals; as it is where it holds letters beyond ASCII, whose capitals a font may lack."""
    return text.upper() if text.isascii() else text


def lower(text: str) -> str:
    """The text in small letters; as it is where it holds letters beyond ASCII."""
    return text.lower() if text.isascii() else text


def letter_case(dice: Dice) -> Callable[[str], str]:
    """A way to write a line: as it is, all capitals, or all small."""
    cases: dict[Callable[[str], str], float] = {str: 6, upper: 3, lower: 0.6}
    return dice.weighted(cases)
