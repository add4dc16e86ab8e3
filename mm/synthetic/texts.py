"""Plain text: a word, a line, a few lines, paragraphs and lists."""

from mm.synthetic.dice import Dice
from mm.synthetic.draft import Draft, Job
from mm.synthetic.layout import Element, Gap, Line, wrap
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
    return _cut(text, columns)


def _cut(text: str, columns: int) -> str:
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
    text = _cut(letter_case(dice)(text), job.budget.columns)
    return Draft([Line(text, job.style.pen(dice.weighted({"body": 3, "bold": 1, "italic": 0.5})))], reads_lines=False)


def line(job: Job) -> Draft:
    """One line of text."""
    role = job.dice.weighted({"body": 4, "bold": 1.2, "italic": 0.6})
    return Draft([Line(snippet(job, job.budget.columns), job.style.pen(role))], reads_lines=False)


def lines(job: Job) -> Draft:
    """Independent lines, aligned left, centre or right, in one size or several."""
    dice, style = job.dice, job.style
    count = dice.integer(2, max(2, job.budget.lines))
    align = dice.weighted({"left": 6, "center": 3, "right": 1})
    varied = dice.chance(0.25)
    elements: list[Element] = []
    for _ in range(count):
        scale = dice.uniform(0.85, 1.6) if varied else 1.0
        role = dice.weighted({"body": 8, "bold": 1.5, "italic": 0.5})
        columns = max(4, int(job.budget.columns / scale))
        elements.append(Line(snippet(job, columns), style.pen(role, scale), align))
        if dice.chance(0.06):
            elements.append(Gap(dice.uniform(0.3, 1.0)))
    return Draft(elements)


def paragraph(job: Job) -> Draft:
    """Running text with or without a heading, or a list with bullets or numbers."""
    dice, style = job.dice, job.style
    width, left = job.budget.width, job.budget.lines
    elements: list[Element] = []
    align = dice.weighted({"left": 12, "center": 1})
    if left >= 3 and dice.chance(0.4):
        pen = style.pen("head", dice.uniform(1.0, 1.7))
        heading = letter_case(dice)(job.words.title(dice, dice.integer(1, 4)))
        rows = wrap(heading, pen, width)[:2]
        elements += [Line(row, pen, align) for row in rows] + [Gap(dice.uniform(0.1, 0.8))]
        left -= len(rows) + 1
    listed = dice.chance(0.25)
    bullet = dice.pick(["- ", "* ", "{n}. ", "{n}) ", *(["• "] * 2 if "•" in style.extras else [])])
    pen, number = style.pen(), 1
    while left > 0:
        length = dice.integer(3, 9) if listed else dice.integer(12, 60)
        text = sentence(job, dice.integer(3, 8))
        while not listed and len(text.split()) < length:
            text += " " + sentence(job, dice.integer(4, 16))
        if listed:
            text = bullet.format(n=number) + text
        rows = [row for row in wrap(text, pen, width) if pen.width(row) <= width][:left]
        elements += [Line(row, pen, align) for row in rows]
        left -= max(1, len(rows))
        number += 1
        if left > 1:
            space = dice.pick([0.0, 0.3]) if listed else dice.pick([0.0, 0.5, 1.0])
            elements.append(Gap(space))
            left -= 1 if space >= 0.5 else 0
        if dice.chance(0.3 if listed else 0.45) and number > 2:
            break
    if not any(isinstance(element, Line) for element in elements):
        elements.append(Line(_cut(job.words.word(dice), job.budget.columns), pen))
    return Draft(elements, width=width)
