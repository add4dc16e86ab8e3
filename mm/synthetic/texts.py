"""Plain text: a word, a line, a few lines, and what they are made of."""

from mm.synthetic.dice import Dice
from mm.synthetic.draft import Draft, Job
from mm.synthetic.layout import Element, Gap, Line
from mm.synthetic.money import cents, date_text, money_style, time_text
from mm.synthetic.words import Lexicon, capital, letter_case

_TOKENS = {"word": 60, "number": 7, "code": 6, "amount": 6, "date": 4, "time": 2, "percent": 1.5, "email": 2, "url": 2,
           "phone": 2.5, "symbol": 2, "accent": 3, "measure": 2}  # fmt: skip
_UNITS = ("kg", "g", "ml", "cm", "mm", "km", "lb", "oz", "V", "W", "GB")
_SNIPPETS = {"phrase": 5.0, "title": 2.5, "mixed": 3.0, "label": 1.5, "letters": 0.7, "person": 0.6, "street": 0.6}
_SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def token(dice: Dice, words: Lexicon, extras: frozenset[str]) -> str:
    """One word-like piece: a word, number, code, amount, date, address of the web ..."""
    kind = dice.weighted(_TOKENS)
    match kind:
        case "word":
            return words.word(dice)
        case "number":
            return dice.digits(dice.integer(1, 7))
        case "code":
            return words.code(dice)
        case "amount":
            return money_style(dice, extras).full(cents(dice))
        case "date":
            return date_text(dice)
        case "time":
            return time_text(dice)
        case "percent":
            return f"{dice.integer(0, 100)}{dice.pick(['', '.5', '.25'])}%"
        case "email":
            return words.email(dice)
        case "url":
            return words.url(dice)
        case "phone":
            return words.phone(dice)
        case "symbol":
            return "".join(dice.pick(_SYMBOLS) for _ in range(dice.integer(1, 3)))
        case "accent":
            return words.accented(dice, words.word(dice), extras)
        case _:
            units = (*_UNITS, "°C", "°F", "°") if "°" in extras else _UNITS
            return f"{dice.integer(1, 999)}{dice.pick(['', ' '])}{dice.pick(units)}"


def snippet(job: Job, columns: int) -> str:
    """A line of up to ``columns`` characters: a phrase, a heading, label and value, a mix, random characters."""
    dice, words, extras = job.dice, job.words, job.style.extras
    target = max(4, int(columns * dice.uniform(0.25, 1.0)))
    kind = dice.weighted(_SNIPPETS)
    if kind in {"person", "street"}:
        text = words.person(dice) if kind == "person" else f"{words.street(dice)}, {words.town(dice)}"
    elif kind == "label":
        text = f"{words.title(dice, 1)}: {token(dice, words, extras)}"
    elif kind == "letters":
        alphabet = "".join(chr(code) for code in range(33, 127)) + "    " + "0123456789" * 2
        text = " ".join("".join(dice.pick(alphabet) for _ in range(target)).split())
    else:
        parts: list[str] = []
        while len(" ".join(parts)) < target:
            if kind == "mixed":
                parts.append(token(dice, words, extras))
            elif kind == "title":
                parts.append(words.title(dice, 1))
            else:
                parts.append(words.entry(dice, "small_words") if dice.chance(0.3) else words.word(dice))
        text = " ".join(parts)
        if kind == "phrase" and dice.chance(0.5):
            text = capital(text) + dice.pick([".", ".", "", "!", "?", ":"])
    text = letter_case(dice)(text)
    return cut(text, columns)


def cut(text: str, columns: int) -> str:
    """At most ``columns`` characters, whole words where there are several."""
    while len(text) > columns and " " in text:
        text = text.rsplit(" ", 1)[0]
    return text[: max(columns, 1)].strip() or "7"


def sentence(job: Job, length: int) -> str:
    """A sentence of about ``length`` words without meaning but with real punctuation."""
    dice, words = job.dice, job.words
    parts: list[str] = []
    for index in range(length):
        word = (
            words.entry(dice, "small_words")
            if dice.chance(0.35)
            else words.word(dice)
            if dice.chance(0.85)
            else token(dice, words, job.style.extras)
        )
        if dice.chance(0.04):
            word = dice.pick(['"{}"', "({})", "'{}'", "[{}]"]).format(word)
        elif dice.chance(0.03):
            word = f"{word}-{words.word(dice)}"
        elif dice.chance(0.06):
            word = capital(word)
        if index < length - 1 and dice.chance(0.1):
            word += dice.weighted({",": 8, ";": 1, ":": 1, " -": 0.7})
        parts.append(word)
    text = " ".join(parts)
    return capital(text) + dice.weighted({".": 12, "?": 1.5, "!": 1.5, "...": 0.3})


def word(job: Job) -> Draft:
    """One word, number or code, large."""
    dice = job.dice
    text = token(dice, job.words, job.style.extras)
    text = cut(letter_case(dice)(text), job.budget.columns)
    return Draft([Line(text, job.style.pen(dice.weighted({"body": 3, "bold": 1, "italic": 0.5})))], reads_lines=False)


def line(job: Job) -> Draft:
    """One line of text."""
    role = job.dice.weighted({"body": 4, "bold": 1.2, "italic": 0.6})
    return Draft([_styled(job, snippet(job, job.budget.columns), role, 1.0, "left", 0.2)], reads_lines=False)


def _styled(job: Job, text: str, role: str, scale: float, align: str, share: float) -> Line:
    """A line; with chance ``share`` underlined, on a bar, pale or with spaced letters."""
    dice, style = job.dice, job.style
    pen = style.pen(role, scale)
    if not dice.chance(share * job.level):
        return Line(text, pen, align)
    match dice.weighted({"underline": 3, "bar": 3, "panel": 2, "soft": 1, "spaced": 3}):
        case "underline":
            return Line(text, pen, align, underline=True)
        case "bar" if not style.dark:
            return Line(text, pen, align, style.paper, style.accent if max(style.accent) < 150 else style.ink)
        case "panel":
            return Line(text, pen, align, bar=style.panel)
        case "soft":
            return Line(text, pen, align, style.soft)
        case _:
            wide = dice.uniform(0.05, 0.35)
            return Line(cut(text, int(job.budget.columns / (1 + 2 * wide))), style.pen(role, scale, wide), align)


def lines(job: Job) -> Draft:
    """Independent lines, aligned left, centre or right, in one size or several."""
    dice = job.dice
    count = dice.integer(2, max(2, job.budget.lines))
    align = dice.weighted({"left": 6, "center": 3, "right": 1})
    varied = dice.chance(0.25)
    elements: list[Element] = []
    for _ in range(count):
        scale = dice.uniform(0.85, 1.6) if varied else 1.0
        role = dice.weighted({"body": 8, "bold": 1.5, "italic": 0.5})
        columns = max(4, int(job.budget.columns / scale))
        elements.append(_styled(job, snippet(job, columns), role, scale, align, 0.12))
        if dice.chance(0.06):
            elements.append(Gap(dice.uniform(0.3, 1.0)))
    return Draft(elements)
