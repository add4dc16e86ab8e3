"""Filled-in forms as a stranger would meet them: seven designs, drawn in held-out fonts and words.

A field is a label with a value. Where labels stand above their values, the row of labels comes before the row of values
in the transcription, as printed.
"""

from collections.abc import Callable
from functools import partial

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Cell, Document, DoesNotFitError, Font, Question, Sheet, compose
from mm.evaluation.held_out_fields import MAKERS, draw_fields, field_questions
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

_INKS = ((0, 0, 0), (25, 25, 30), (40, 44, 60), (50, 40, 40))
_PAPERS = ((255, 255, 255), (253, 252, 247), (244, 247, 252), (250, 245, 232))
_PEN_INKS = ((0, 0, 0), (20, 30, 120), (40, 40, 48), (10, 60, 110))
_COLOURS = ((24, 84, 160), (140, 30, 40), (20, 100, 70), (80, 40, 120), (60, 60, 66))
_ORGANISATIONS = ("Library", "Museum", "Swimming Club", "University", "Hospital", "Transit")
_SECTION_TITLES = (
    ("A. Applicant", "B. Details"),
    ("Section 1", "Section 2"),
    ("PERSONAL", "OTHER"),
    ("Part I", "Part II"),
)
_RECIPIENT_PROMPTS = ("Who is the recipient?", "Who is it shipped to?", "What is the name of the recipient?")

Drawn = tuple[Sheet, tuple[Question, ...], str]


def _paper(rng: Generator, size: int, low: int, high: int) -> Sheet:
    return Sheet(int(rng.integers(low, high)), round(size * 1.6), ink=pick(rng, _INKS), paper=pick(rng, _PAPERS))


def _fits(text: str, font: Font, width: float) -> bool:
    return float(font.getlength(text)) <= width


def _check_fits(text: str, font: Font, width: float) -> None:
    if not _fits(text, font, width):
        raise DoesNotFitError(f"{text!r} leaves its box")


def _ruled(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Labels at the left, values on a line to write on, often in the ink of a pen and in another font."""
    face, pen = fonts.pick(rng, "sans", "serif"), fonts.pick(rng)
    size = int(rng.integers(21, 28))
    sheet = _paper(rng, size, 460, 720)
    ink = pick(rng, _PEN_INKS)
    heading, fields = draw_fields(rng, int(rng.integers(4, 10)))
    sheet.row(Cell(heading.upper() if chance(rng, 0.4) else heading, face.bold(size * 1.4), sheet.middle, "m"))
    sheet.space(size * 0.7)
    ending = pick(rng, (":", "", " :"))
    font, value_font = face.regular(size), pen.regular(size)
    edge = max(font.getlength(label + ending) for label, _ in fields) + size
    near = chance(rng, 0.4)
    for label, value in fields:
        start = sheet.left + (font.getlength(label + ending) + size * 0.6 if near else edge)
        cells = Cell(label + ending, font, sheet.left), Cell(value, value_font, start + size * 0.3, ink=ink)
        sheet.row(*cells, leading=1.25)
        sheet.line(left=start)
        sheet.space(size * float(rng.uniform(0.45, 0.75)))
    return sheet, field_questions(rng, fields), "ruled"


def _boxed(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Boxes in one or two columns, a small label at the top of each and the value below it."""
    face, pen = fonts.pick(rng, "sans"), fonts.pick(rng)
    size = int(rng.integers(22, 28))
    small, font = face.regular(size * 0.86), pen.regular(size)
    sheet = _paper(rng, size, 520, 860)
    heading, fields = draw_fields(rng, int(rng.integers(4, 11)))
    sheet.row(Cell(heading, face.bold(size * 1.35), sheet.left))
    sheet.space(size * 0.3)
    columns = 2
    width = (sheet.right - sheet.left) / columns
    pad = size * 0.45
    rest = list(fields)
    while rest:
        wide = (
            len(rest) == 1 or not all(_fits(value, font, width - 2 * pad) for _, value in rest[:2]) or chance(rng, 0.15)
        )
        group = [rest.pop(0)] if wide else [rest.pop(0), rest.pop(0)]
        top = sheet.y
        span = width * columns / len(group)
        for _, value in group:
            _check_fits(value, font, span - 2 * pad)
        sheet.space(size * 0.3)
        sheet.row(
            *(Cell(label, small, sheet.left + i * span + pad) for i, (label, _) in enumerate(group)), leading=1.35
        )
        sheet.row(*(Cell(value, font, sheet.left + i * span + pad) for i, (_, value) in enumerate(group)), leading=1.1)
        sheet.space(size * 0.25)
        for i in range(len(group)):
            sheet.draw.rectangle(
                (sheet.left + i * span, top, sheet.left + (i + 1) * span, sheet.y), outline=sheet.ink, width=1
            )
    return sheet, field_questions(rng, fields), "boxed"


def _grid(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A table of two columns with borders: label, value; numbered, or with a shaded label column."""
    face = fonts.pick(rng, "sans", "serif")
    pen = face if chance(rng, 0.5) else fonts.pick(rng)
    size = int(rng.integers(21, 27))
    font = face.regular(size)
    sheet = _paper(rng, size, 480, 760)
    heading, fields = draw_fields(rng, int(rng.integers(4, 10)))
    sheet.row(Cell(heading, face.bold(size * 1.3), *((sheet.middle, "m") if chance(rng, 0.5) else (sheet.left, "l"))))
    sheet.space(size * 0.5)
    numbered = chance(rng, 0.4)
    shown = [f"{i}. {label}" if numbered else label for i, (label, _) in enumerate(fields, 1)]
    pad = size * 0.5
    edge = sheet.left + max(font.getlength(label) for label in shown) + 2 * pad
    shade = pick(rng, ((228, 232, 240), (236, 236, 236), (230, 240, 230), None))
    for label, (_, value) in zip(shown, fields, strict=True):
        top, bottom = sheet.y, sheet.y + size * 1.7
        if shade is not None:
            sheet.draw.rectangle((sheet.left, top, edge, bottom), fill=shade)
        sheet.draw.rectangle((sheet.left, top, edge, bottom), outline=sheet.ink)
        sheet.draw.rectangle((edge, top, sheet.right, bottom), outline=sheet.ink)
        sheet.y = top + size * 0.5
        _check_fits(value, pen.regular(size), sheet.right - edge - 1.5 * pad)
        sheet.row(Cell(label, font, sheet.left + pad), Cell(value, pen.regular(size), edge + pad))
        sheet.y = bottom
    return sheet, field_questions(rng, fields), "grid"


def _pairs(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Two columns of "label: value"."""
    face = fonts.pick(rng, "sans", "serif")
    size = int(rng.integers(20, 25))
    font, strong = face.regular(size), face.bold(size)
    sheet = _paper(rng, size, 700, 980)
    heading, fields = draw_fields(rng, int(rng.integers(4, 9)))
    sheet.row(Cell(heading, face.bold(size * 1.4), sheet.left))
    sheet.line(thickness=2)
    sheet.space(size * 0.7)
    half = sheet.left + (sheet.right - sheet.left) / 2 + size * 0.3
    label_font = strong if chance(rng, 0.6) else font
    for i in range(0, len(fields), 2):
        cells = []
        for x, (label, value) in zip((sheet.left, half), fields[i : i + 2], strict=False):
            cells.append(Cell(f"{label}:", label_font, x))
            cells.append(Cell(value, font, x + label_font.getlength(f"{label}: ") + size * 0.3))
        sheet.row(*cells, leading=float(rng.uniform(1.6, 2.0)))
    return sheet, field_questions(rng, fields), "two columns"


def _sections(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Dark bars with white section titles, label and value below."""
    face = fonts.pick(rng, "sans")
    size = int(rng.integers(21, 26))
    font, strong = face.regular(size), face.bold(size)
    sheet = _paper(rng, size, 480, 720)
    colour = pick(rng, _COLOURS)
    heading, fields = draw_fields(rng, int(rng.integers(4, 9)))
    sheet.row(Cell(heading, face.bold(size * 1.3), sheet.middle, "m"), ink=colour)
    sheet.space(size * 0.4)
    cut = max(2, len(fields) // 2)
    edge = sheet.left + max(font.getlength(label) for label, _ in fields) + size * 1.5
    titles = pick(rng, _SECTION_TITLES)
    for title, part in zip(titles, (fields[:cut], fields[cut:]), strict=True):
        sheet.draw.rectangle(
            (sheet.left - size * 0.5, sheet.y, sheet.right + size * 0.5, sheet.y + size * 1.5), fill=colour
        )
        sheet.y += size * 0.42
        sheet.row(Cell(title, strong, sheet.left), ink=(255, 255, 255), leading=1.6)
        for label, value in part:
            sheet.row(
                Cell(label, font, sheet.left), Cell(value, strong if chance(rng, 0.2) else font, edge), leading=1.55
            )
        sheet.space(size * 0.3)
    return sheet, field_questions(rng, fields), "sections"


def _label(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A parcel's label: sender, addressee in large letters, bars, and a foot of numbers."""
    face = fonts.pick(rng, "sans", "mono")
    size = int(rng.integers(21, 26))
    font, strong, large = face.regular(size), face.bold(size), face.bold(size * 1.35)
    sheet = Sheet(int(rng.integers(430, 600)), round(size * 1.3))
    upper: Callable[[str], str] = str.upper if chance(rng, 0.4) else str
    first, second = pick(rng, (("FROM", "SHIP TO"), ("From:", "To:"), ("Sender", "Recipient")))
    sheet.row(Cell(first, strong, sheet.left))
    sheet.row(Cell(upper(words.person(rng)), font, sheet.left))
    sheet.row(Cell(upper(f"{words.street(rng)}, {words.place(rng)}"), font, sheet.left))
    sheet.space(size * 0.3)
    sheet.line(thickness=3)
    sheet.space(size * 0.5)
    sheet.row(Cell(second, strong, sheet.left))
    name = upper(words.person(rng))
    for text in (name, upper(words.street(rng)), upper(f"{words.postcode(rng)} {words.place(rng)}")):
        sheet.row(Cell(text, large, sheet.left + size))
    sheet.space(size * 0.3)
    sheet.line(thickness=3)
    sheet.space(size * 0.6)
    tracking = words.code(rng, pick(rng, ("AA 0000 0000", "000000000000", "1A0000AA00")))
    reference = words.code(rng, pick(rng, ("A-00000", "000-0000", "AA0000")))
    fields = [
        (pick(rng, ("Tracking no.", "Tracking number", "Parcel no.")), tracking),
        ("Weight", f"{rng.uniform(0.2, 28):.{int(rng.integers(1, 3))}f} kg"),
        (pick(rng, ("Order", "Reference", "Invoice")), reference),
        (pick(rng, ("Ship date", "Date")), words.day(rng, 2015, 2031)),
        (pick(rng, ("Route", "Depot", "Zone")), words.code(rng, pick(rng, ("A0-00", "AAA 0", "00A")))),
    ]
    fields = [fields[0], *(fields[int(i)] for i in sorted(rng.permutation([1, 2, 3, 4])[: int(rng.integers(2, 5))]))]
    for label, value in fields:
        sheet.row(
            Cell(f"{label}:", font, sheet.left),
            Cell(value, strong, sheet.left + font.getlength(f"{label}: ") + size * 0.4),
        )
    sheet.space(size * 0.5)
    sheet.barcode(rng, sheet.left, sheet.right - sheet.left, size * 3)
    recipient = Question("value", pick(rng, _RECIPIENT_PROMPTS), name, about="recipient")
    questions = field_questions(rng, fields)
    return sheet, (questions[0], recipient if chance(rng, 0.3) else questions[1]), "parcel label"


def _card(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A card with a coloured top, a place for a photograph and a few fields beside it."""
    face = fonts.pick(rng, "sans", "serif")
    size = int(rng.integers(20, 26))
    font, small = face.bold(size), face.regular(size * 0.9)
    colour = pick(rng, _COLOURS)
    sheet = Sheet(int(rng.integers(500, 660)), round(size * 1.2), ink=pick(rng, _INKS), paper=pick(rng, _PAPERS))
    organisation = f"{words.place(rng)} {pick(rng, _ORGANISATIONS)}"
    sheet.draw.rectangle((0, 0, sheet.width, size * 2.6), fill=colour)
    sheet.y = size * 0.9
    sheet.row(Cell(organisation, face.bold(size * 1.15), sheet.left), ink=(255, 255, 255))
    sheet.y = size * 3.4
    top = sheet.y
    sheet.draw.rectangle(
        (sheet.left, top, sheet.left + size * 5, top + size * 6.2), fill=(205, 208, 214), outline=sheet.ink
    )
    sheet.draw.ellipse(
        (sheet.left + size * 1.6, top + size * 1.2, sheet.left + size * 3.4, top + size * 3.2), fill=(150, 152, 160)
    )
    sheet.draw.pieslice(
        (sheet.left + size * 0.8, top + size * 3.5, sheet.left + size * 4.2, top + size * 9),
        180,
        360,
        fill=(150, 152, 160),
    )
    x = sheet.left + size * 6
    labels = ["Name", "Member ID", "Date of birth", "Department", "City", "Room"]
    fields = [
        (label, MAKERS[label](rng)) for label in [labels[0], *rng.permutation(labels[1:])[: int(rng.integers(2, 4))]]
    ]
    above = chance(rng, 0.5) and len(fields) < 4
    for label, value in fields:
        if above:
            sheet.row(Cell(label, small, x), leading=1.2)
            sheet.row(Cell(value, font, x), leading=1.45)
        else:
            sheet.row(
                Cell(f"{label}:", small, x),
                Cell(value, font, x + small.getlength(f"{label}: ") + size * 0.4),
                leading=1.7,
            )
    sheet.y = max(sheet.y, top + size * 6.4)
    return sheet, field_questions(rng, fields), "card"


DESIGNS = (_ruled, _boxed, _grid, _pairs, _sections, _label, _card, _ruled, _boxed, _grid)


def render_form(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The form number ``index`` of the endless held-out series ``seed``; designs take turns."""
    design = DESIGNS[index % len(DESIGNS)]
    return compose(partial(design, fonts=fonts), (seed, 2, index), desk_share=0.15)
