"""Single lines and snippets of two or three lines, as cut from a page, a sign or a screen; held-out fonts and words."""

from functools import partial

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Cell, Document, DoesNotFitError, Question, Sheet, compose
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_words import chance, pick

_PALETTES = (  # ink, paper
    ((0, 0, 0), (255, 255, 255)),
    ((0, 0, 0), (255, 255, 255)),
    ((35, 35, 40), (250, 248, 240)),
    ((20, 30, 110), (255, 255, 255)),
    ((120, 20, 30), (248, 244, 236)),
    ((255, 255, 255), (30, 40, 60)),
    ((245, 245, 230), (20, 90, 60)),
    ((20, 20, 20), (250, 214, 60)),
    ((235, 235, 240), (110, 20, 40)),
    ((60, 60, 66), (226, 230, 236)),
)

_NUMBERS = ("No. 00-000", "#00-000", "Nr. 000")


def sentence(rng: Generator) -> str:
    """A plain sentence; the sense is of no matter, but its words are held out."""
    subject = f"{pick(rng, words.QUALITIES)} {pick(rng, words.THINGS)}" if chance(rng, 0.5) else pick(rng, words.THINGS)
    verb, thing = pick(rng, words.ACTIONS), pick(rng, words.THINGS + words.GOODS)
    shapes = (
        f"The {subject} {verb} the {thing}.",
        f"Our {subject} {verb} a {thing} for {words.first_name(rng)}",
        f"{words.person(rng)} {verb} and {pick(rng, words.ACTIONS)} near {words.place(rng)}.",
        f"When the {subject} {verb}, {words.first_name(rng)} {pick(rng, words.ACTIONS)} with {pick(rng, words.FOODS)}",
        f"Every {thing} {verb} {int(rng.integers(2, 90))} times, says {words.last_name(rng)}",
        f'"{thing.capitalize()} or {pick(rng, words.FOODS)}?" asked {words.first_name(rng)}',
    )
    return shapes[int(rng.integers(len(shapes)))]


def _notice(rng: Generator) -> str:
    """What signs, headings and records say: names, places, numbers, dates, codes."""
    day = words.day(rng, 1950, 2031)
    shapes = (
        f"{words.street(rng)}, {words.postcode(rng)} {words.place(rng)}",
        f"{pick(rng, words.THINGS).capitalize()} {pick(rng, words.GOODS)} {words.code(rng, pick(rng, _NUMBERS))}",
        words.email(rng),
        f"www.{words.invented(rng, 2).lower()}.{pick(rng, ('com', 'org', 'net'))}/{pick(rng, words.THINGS)}",
        f"{pick(rng, ('Tel.', 'Phone:', 'Call'))} {words.phone(rng)}",
        f"{words.place(rng)}, {day}",
        f"{pick(rng, words.QUALITIES)} {pick(rng, words.GOODS)} {int(rng.integers(2, 70))}% off",
        f"{pick(rng, words.FOODS)} & {pick(rng, words.FOODS)}  ${rng.uniform(1, 90):.2f}".replace("  ", " "),
        f"Flight {words.code(rng, 'AA 000')} to {words.place(rng)}: gate {words.code(rng, 'A00')}",
        f"{words.last_name(rng)}, {words.first_name(rng)} ({int(rng.integers(1900, 2030))})",
        f"Chapter {int(rng.integers(2, 40))}: {pick(rng, words.QUALITIES).capitalize()} {pick(rng, words.THINGS)}",
        f"{words.code(rng, '000-A')} {pick(rng, words.THINGS)} {words.code(rng, '00.0')} kg",
        f"{words.invented(rng, 3)} {pick(rng, ('Street', 'Station', 'Avenue', 'Square'))}",
    )
    text = shapes[int(rng.integers(len(shapes)))]
    return text.upper() if chance(rng, 0.25) and "@" not in text and "www" not in text else text


def _snippet(rng: Generator, fonts: HeldOutFonts) -> tuple[Sheet, tuple[Question, ...], str]:
    face = fonts.pick(rng)
    size = int(rng.integers(20, 54))
    font = face.bold(size) if chance(rng, 0.25) else face.regular(size)
    count = 1 if chance(rng, 0.7) else int(rng.integers(2, 4))
    texts = [sentence(rng) if chance(rng, 0.5) else _notice(rng) for _ in range(count)]
    ink, paper = pick(rng, _PALETTES)
    margin = int(size * rng.uniform(0.4, 1.0))
    width = max(int(max(font.getlength(text) for text in texts) + margin * 2 + size * rng.uniform(0, 1)), 304)
    if width > 960:
        raise DoesNotFitError(f"{texts} is too wide")
    sheet = Sheet(width, margin, ink=ink, paper=paper)
    middle = chance(rng, 0.3)
    leading = float(rng.uniform(1.2, 1.7))
    for i, text in enumerate(texts):
        cell = Cell(text, font, sheet.middle, "m") if middle else Cell(text, font, sheet.left)
        sheet.row(cell, leading=leading if i < count - 1 else 1.0)
    return sheet, (), "line" if count == 1 else "lines"


def render_line(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The snippet number ``index`` of the endless held-out series ``seed``: one line (70%), or two or three."""
    return compose(partial(_snippet, fonts=fonts), (seed, 3, index), desk_share=0.0)


def render_known_line(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The same with other words, in fonts that training draws with."""
    return compose(partial(_snippet, fonts=fonts.known()), (seed, 4, index), desk_share=0.0)
