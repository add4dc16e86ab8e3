"""Running text, lists, letters and small pages."""

from dataclasses import dataclass, field

from mm.synthetic.draft import Draft, Job
from mm.synthetic.fonts import Pen
from mm.synthetic.layout import Element, Ends, Gap, Justified, Line, wrap
from mm.synthetic.money import date_text
from mm.synthetic.texts import cut, sentence
from mm.synthetic.words import letter_case


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
        elements.append(Line(cut(job.words.word(dice), job.budget.columns), style.pen()))
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
