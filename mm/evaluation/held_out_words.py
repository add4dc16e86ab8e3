"""Words, names, dates and amounts for the held-out documents: none of the content words was ever drawn in training.

The split is a rule, not a list, so that training and evaluation need not know each other: a word is held out when
``is_held_out`` says so, by a hash of its spelling. Words of the printed furniture ("Total", "Date of birth", "Thank
you") are common to every document of that kind and are not split; what is read for a score (goods, people, places,
shops, streets) is. Names are also invented from syllables, so that a share of the words is in no dictionary at all.
"""

import zlib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TypeVar

from numpy.random import Generator

HELD_OUT_SHARE = 10  # one word in ten

T = TypeVar("T")


def is_held_out(word: str) -> bool:
    """Whether a word belongs to evaluation (True) or to training (False). Case does not matter."""
    return zlib.crc32(word.lower().encode("utf-8")) % HELD_OUT_SHARE == 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FOODS = _words("""
    alfalfa barley berries bok casserole chicken chickpea chocolate cupcake cutlet eggs giblets hash herring
    jackfruit kebab kefir kumquat lamb leek macaroni macaroon mangosteen molasses monkfish muffin mutton okonomiyaki
    oregano passata peppers ramen ricotta rum satay soup spinach thyme toffees treacle trout turnip watercress wheat
    whisky zucchini
""")
GOODS = _words("""
    armchair beaker blender calculator calendar cardigan chain charger dartboard dice drill figurine flipflops gel
    icepack inhaler jar jumper keyring lawnmower magazine mural oven pliers plug postcard projector purse ruler
    satchel saucepan saw scale skirt spoon straws table telescope toolbox toy trousers vitamins wrench
""")
QUALITIES = _words("""
    amber azure cosmic elastic engraved fruity glazed glossy lilac malted metallic outdoor pastel pink pitted
    printed ribbed rich rugged swift tangy wavy wide wooden zippy
""")
FIRST_NAMES = _words("""
    Ana Catherine Colin Elias Ella Gareth George Gerald Herbert Ingrid Jane Karen Karim Lara Leila Lucia Megan Mila
    Nathan Neil Nina Norman Omar Pablo Pedro Raymond Roger Thomas Ursula Victor Walter Wilhelm William
""")
LAST_NAMES = _words("""
    Bailey Caldwell Chandler Chapman Cole Coleman Dietrich Douglas Doyle Foster Garcia Hamilton Harper Harvey
    Johansson Klein Knight Krause Kumar Lowe Mitchell Peterson Russell Schneider Simmons Underwood Zhang
""")
PLACES = _words("""
    Aberdeen Auckland Bangor Bern Cairo Canberra Canterbury Columbus Copenhagen Derby Hanover Monza Nagoya Nice
    Osaka Ottawa Palermo Perugia Pisa Porto Providence Rostock Rotterdam Sunderland Sydney Tilburg Toledo Windsor
    Wolfsburg Worcester Zaragoza
""")
THINGS = _words("""
    ash author bank basin bird breeze building center chapter clerk college counter creek dealer desert diamond echo
    effort evening exhibit feather figure flight grocer harbour item kitchen member morning music order palace
    parcel parlor piano plaza prairie problem question robin staff star storage street survey swan timber water
    weather willow
""")
ACTIONS = _words("""
    argues arranges belongs brings cleans corrects covers drops hopes joins learns lives makes misses moves obtains
    paints parks pays picks posts prints registers removes repeats replies sends steps stops stores supplies
    surprises tests weighs
""")

_STREET_KINDS = _words("Street St Road Rd Avenue Ave Lane Drive Square Way")
_ONSETS = _words("b br c cl d dr f fl g gr h j k l m n p pr qu r s sl st t tr v w z sh th")
_VOWELS = _words("a a e e i i o o u ai ea ia io ou")
_CODAS = (*_words("n r l s x m nd rt ck lt th"), "")


def invented(rng: Generator, syllables: int) -> str:
    """A pronounceable word of no language, capitalised, held out like the others."""
    while True:
        parts = [_ONSETS[rng.integers(len(_ONSETS))] + _VOWELS[rng.integers(len(_VOWELS))] for _ in range(syllables)]
        word = "".join(parts) + _CODAS[rng.integers(len(_CODAS))]
        if len(word) <= 11 and is_held_out(word):
            return word.capitalize()


def pick(rng: Generator, pool: Sequence[T]) -> T:
    """One entry, each as likely as the others."""
    return pool[int(rng.integers(len(pool)))]


def chance(rng: Generator, share: float) -> bool:
    """True in ``share`` of the calls."""
    return float(rng.random()) < share


def first_name(rng: Generator) -> str:
    """A given name; one in five is invented."""
    return invented(rng, 2) if chance(rng, 0.2) else pick(rng, FIRST_NAMES)


def last_name(rng: Generator) -> str:
    """A family name; one in four is invented."""
    return invented(rng, 2) if chance(rng, 0.25) else pick(rng, LAST_NAMES)


def person(rng: Generator) -> str:
    """Given and family name, now and then with an initial between them."""
    middle = f" {chr(65 + int(rng.integers(26)))}." if chance(rng, 0.15) else ""
    return f"{first_name(rng)}{middle} {last_name(rng)}"


def place(rng: Generator) -> str:
    """A town; one in four is invented."""
    return invented(rng, int(rng.integers(2, 4))) if chance(rng, 0.25) else pick(rng, PLACES)


def street(rng: Generator) -> str:
    """House number and street in English or German order."""
    number = int(rng.integers(1, 400))
    name = pick(rng, THINGS).capitalize() if chance(rng, 0.5) else last_name(rng)
    if chance(rng, 0.15):
        return f"{name}weg {number}"
    return f"{number} {name} {pick(rng, _STREET_KINDS)}"


def postcode(rng: Generator) -> str:
    """Five digits, or letters and digits as in Britain or Canada."""
    letters = "ABCDEFGHJKLMNPRSTUVWXY"
    if chance(rng, 0.7):
        return f"{int(rng.integers(1000, 99999)):05d}"
    a, b, c, d = (letters[int(rng.integers(len(letters)))] for _ in range(4))
    return f"{a}{b}{int(rng.integers(1, 30))} {int(rng.integers(1, 10))}{c}{d}"


def phone(rng: Generator) -> str:
    """A telephone number in one of five spellings."""
    a, b, c, d = (int(rng.integers(low, high)) for low, high in ((200, 990), (200, 990), (0, 10000), (1, 99)))
    forms = (f"({a}) {b}-{c:04d}", f"{a}-{b}-{c:04d}", f"+{d} {a} {b}{c:04d}", f"0{a} {b} {c:04d}", f"0{a}/{b}{c:04d}")
    return forms[int(rng.integers(len(forms)))]


def email(rng: Generator) -> str:
    """An address at an invented host."""
    ending = pick(rng, ("com", "org", "net", "co.uk", "de", "info"))
    dot = pick(rng, (".", "_", ""))
    return f"{first_name(rng)}{dot}{last_name(rng)}@{invented(rng, 2)}.{ending}".lower()


def code(rng: Generator, pattern: str) -> str:
    """A code by pattern: ``A`` a capital letter, ``0`` a digit, everything else stands for itself."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # no I and no O, as issuers of codes do
    out = []
    for char in pattern:
        if char == "A":
            char = letters[int(rng.integers(len(letters)))]
        elif char == "0":
            char = str(int(rng.integers(10)))
        out.append(char)
    return "".join(out)


_MONTHS = _words("January February March April May June July August September October November December")


def day(rng: Generator, first_year: int, last_year: int, *, short: bool = False) -> str:
    """A date in one of the common spellings; ``short`` leaves out the spelled months."""
    start = date(first_year, 1, 1)
    when = start + timedelta(days=int(rng.integers((date(last_year, 12, 31) - start).days + 1)))
    y, m, d, month = when.year, f"{when.month:02d}", f"{when.day:02d}", _MONTHS[when.month - 1]
    digits = (f"{d}/{m}/{y}", f"{m}/{d}/{y}", f"{y}-{m}-{d}", f"{d}.{m}.{y}", f"{d}-{m}-{y}", f"{d}/{m}/{y % 100:02d}")
    spelled = (f"{d} {month[:3]} {y}", f"{month[:3]} {d}, {y}", f"{d} {month} {y}", f"{month} {d}, {y}")
    text = pick(rng, digits if short else digits + spelled)
    return text.upper() if chance(rng, 0.1) else text


def clock(rng: Generator) -> str:
    """A time of day."""
    hour, minute, second = (int(rng.integers(low, high)) for low, high in ((6, 24), (0, 60), (0, 60)))
    if chance(rng, 0.3):
        return f"{(hour - 1) % 12 + 1}:{minute:02d} {'AM' if hour < 12 else 'PM'}"
    return f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if chance(rng, 0.25) else "")
