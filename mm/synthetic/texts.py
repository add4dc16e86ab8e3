"""Plain text: a word, a line, a few lines, paragraphs and lists."""

from dataclasses import dataclass, field

from mm.synthetic.dice import Dice
from mm.synthetic.draft import Draft, Job
from mm.synthetic.fonts import Pen
from mm.synthetic.layout import Element, Ends, Gap, Justified, Line, wrap
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
            return Line(_cut(text, int(job.budget.columns / (1 + 2 * wide))), style.pen(role, scale, wide), align)


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


@dataclass
class _Sheet:
    """A page of text as it grows; ``left`` lines fit."""

    job: Job
    left: int
    pen: Pen
    align: str
    justified: bool
    hyphens: bool
    indent: float  # em, of the first line of a paragraph
    elements: list[Element] = field(default_factory=list)

    def flow(self, text: str, hanging: str = "") -> None:
        """Append running text, ``hanging`` (a bullet) before its first row."""
        width = self.job.budget.width
        indent = self.indent if not hanging else 0.0
        inner = width - indent * self.job.style.em
        rows = wrap(hanging + text, self.pen, inner, hyphens=self.hyphens)
        rows = [row for row in rows if self.pen.width(row) <= width][: max(0, self.left)]
        for index, row in enumerate(rows):
            first = indent if index == 0 else 0.0
            if self.justified and index < len(rows) - 1 and " " in row:
                self.elements.append(Justified(row, self.pen, first))
            else:
                self.elements.append(Line(row, self.pen, self.align, indent=first if self.align == "left" else 0.0))
        self.left -= max(1, len(rows))

    def single(self, text: str, align: str = "left", role: str = "body") -> None:
        """Append a line of its own, where it fits."""
        pen = self.job.style.pen(role)
        if self.left > 0 and pen.width(text) <= self.job.budget.width:
            self.elements.append(Line(text, pen, align))
            self.left -= 1

    def gap(self, ems: float) -> None:
        """Append space."""
        if self.left > 1:
            self.elements.append(Gap(ems))
            self.left -= 1 if ems >= 0.5 else 0


def paragraph(job: Job) -> Draft:
    """Running text, a list, a letter or a small page with a head line, headings and a page number."""
    dice, style = job.dice, job.style
    sheet = _Sheet(
        job=job,
        left=job.budget.lines,
        pen=style.pen(),
        align=dice.weighted({"left": 14, "center": 1, "right": 0.2}),
        justified=dice.chance(0.25),
        hyphens=dice.chance(0.12),
        indent=dice.uniform(1.0, 2.5) if dice.chance(0.15) else 0.0,
    )
    kind = dice.weighted({"text": 6, "list": 2.5, "letter": 1.2, "page": 2.5, "terms": 0.8})
    if kind in {"letter", "page"} and job.budget.lines < 7:
        kind = "text"
    {"text": _text, "list": _list, "letter": _letter, "page": _page, "terms": _terms}[kind](sheet)
    elements = sheet.elements
    if not any(isinstance(element, Line) for element in elements):
        elements.append(Line(_cut(job.words.word(dice), job.budget.columns), style.pen()))
    return Draft(elements, width=job.budget.width)


def _heading(sheet: _Sheet, scale: float, number: str = "") -> None:
    dice, style = sheet.job.dice, sheet.job.style
    pen = style.pen("head", scale)
    heading = number + letter_case(dice)(sheet.job.words.title(dice, dice.integer(1, 4)))
    rows = wrap(heading, pen, sheet.job.budget.width)[:2]
    rows = [row for row in rows if pen.width(row) <= sheet.job.budget.width]
    underline = dice.chance(0.1)
    sheet.elements += [Line(row, pen, sheet.align, underline=underline) for row in rows]
    sheet.elements.append(Gap(dice.uniform(0.1, 0.8)))
    sheet.left -= len(rows) + 1


def _passage(sheet: _Sheet, length: int) -> str:
    """Sentences of at least ``length`` words in all."""
    dice = sheet.job.dice
    text = sentence(sheet.job, dice.integer(3, 8))
    while len(text.split()) < length:
        text += " " + sentence(sheet.job, dice.integer(4, 16))
    return text


def _text(sheet: _Sheet) -> None:
    """Paragraphs with or without a heading."""
    dice = sheet.job.dice
    if sheet.left >= 3 and dice.chance(0.4):
        _heading(sheet, dice.uniform(1.0, 1.7))
    number = 0
    while sheet.left > 0:
        sheet.flow(_passage(sheet, dice.integer(12, 60)))
        sheet.gap(dice.pick([0.0, 0.5, 1.0]))
        number += 1
        if dice.chance(0.3) and number > 1:
            break


def _list(sheet: _Sheet) -> None:
    """A list with bullets, numbers or letters."""
    dice, extras = sheet.job.dice, sheet.job.style.extras
    if sheet.left >= 3 and dice.chance(0.5):
        _heading(sheet, dice.uniform(1.0, 1.6))
    if sheet.left >= 3 and dice.chance(0.3):
        sheet.flow(sentence(sheet.job, dice.integer(3, 9)).rstrip(".?!") + ":")
    bullet = dice.pick(
        ["- ", "* ", "{n}. ", "{n}. ", "{n}) ", "({n}) ", "{a}) ", "> ", *(["• "] * 2 if "•" in extras else [])]
    )
    space, sheet.justified = dice.pick([0.0, 0.0, 0.3, 0.6]), False
    number = 1
    while sheet.left > 0 and number <= 20:
        text = sentence(sheet.job, dice.integer(2, 9))
        sheet.flow(text if dice.chance(0.5) else text.rstrip(".?!"), bullet.format(n=number, a=chr(96 + number)))
        sheet.gap(space)
        number += 1
        if dice.chance(0.12) and number > 3:
            break


def _terms(sheet: _Sheet) -> None:
    """Terms with explanations behind a colon or a dash."""
    dice, words = sheet.job.dice, sheet.job.words
    if sheet.left >= 4 and dice.chance(0.5):
        _heading(sheet, dice.uniform(1.0, 1.6))
    joint = dice.pick([": ", " - ", ": ", " = "])
    while sheet.left > 0:
        sheet.flow(words.title(dice, dice.integer(1, 2)) + joint + sentence(sheet.job, dice.integer(3, 12)))
        sheet.gap(dice.pick([0.0, 0.3, 0.5]))


def _letter(sheet: _Sheet) -> None:
    """Sender, date, greeting, body and close."""
    dice, words = sheet.job.dice, sheet.job.words
    side = dice.pick(["left", "right"])
    if dice.chance(0.6):
        sheet.single(words.person(dice), side)
        sheet.single(words.street(dice), side)
    sheet.single((f"{words.entry(dice, 'cities')}, " if dice.chance(0.4) else "") + date_text(dice), side)
    sheet.gap(0.6)
    if dice.chance(0.4):
        sheet.single(dice.pick(["Re: ", "Subject: ", ""]) + words.title(dice, dice.integer(2, 3)), role="bold")
    name = words.person(dice)
    sheet.single(dice.pick(["Dear {},", "Dear {}:", "Hello {},", "Hi {}!", "To {},"]).format(name))
    sheet.gap(dice.pick([0.0, 0.5]))
    while sheet.left > 3:
        sheet.flow(_passage(sheet, dice.integer(10, 40)))
        sheet.gap(dice.pick([0.0, 0.5]))
        if dice.chance(0.35):
            break
    sheet.single(dice.pick(["Yours sincerely,", "Kind regards,", "Best wishes,", "Yours,", "Regards", "With love,"]))
    sheet.single(words.person(dice))


def _page(sheet: _Sheet) -> None:
    """A small page of a book or report: head line, numbered headings, paragraphs, page number."""
    dice, words, style = sheet.job.dice, sheet.job.words, sheet.job.style
    number, numbered = dice.integer(1, 480), dice.chance(0.4)
    foot = dice.chance(0.6)
    if dice.chance(0.4):
        left, right = words.title(dice, dice.integer(1, 2)), str(number) if not foot else date_text(dice)
        if style.pen().width(left + right) + 2 * style.em <= sheet.job.budget.width:
            sheet.elements += [Ends(left, right, style.pen(), style.pen()), Gap(0.4)]
            sheet.left -= 2
    part = dice.integer(1, 9)
    while sheet.left > (4 if foot else 2):
        if dice.chance(0.7):
            _heading(sheet, dice.uniform(1.0, 1.4), f"{part}{dice.pick(['.', '', ')'])} " if numbered else "")
        for _ in range(dice.integer(1, 2)):
            if sheet.left > (2 if foot else 0):
                sheet.flow(_passage(sheet, dice.integer(10, 45)))
                sheet.gap(dice.pick([0.0, 0.5]))
        part += 1
    if foot:
        form = dice.pick(["{}", "- {} -", "Page {}", "page {} of 500", "{} | " + words.title(dice, 1)])
        sheet.single(form.format(number), dice.pick(["center", "right", "left"]))
