"""Paragraphs and small pages of 100 to 800 characters: running text, letters, lists, notices; held-out fonts and words.

The smallest letters are at least 12 pixels high after tiling, as the model card promises.
"""

from collections.abc import Callable, Iterator

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import (
    Cell,
    Colour,
    Document,
    DoesNotFitError,
    Font,
    Question,
    Sheet,
    compose,
    tile_scale,
)
from mm.evaluation.held_out_fonts import Face, HeldOutFonts
from mm.evaluation.held_out_lines import sentence
from mm.evaluation.held_out_words import chance, pick

SHORTEST, LONGEST = 100, 800  # characters, line breaks included

_LOOKS: tuple[tuple[Colour, Colour], ...] = (  # ink, paper
    *(((0, 0, 0), (255, 255, 255)),) * 3,
    ((40, 40, 46), (252, 250, 244)),
    ((24, 28, 60), (250, 250, 252)),
    ((60, 44, 30), (244, 236, 220)),
    ((225, 228, 232), (32, 36, 44)),
    ((20, 60, 40), (238, 246, 238)),
)
_GREETINGS = ("Dear {},", "Hello {},", "Hi {},", "Dear Mr {},", "Good morning {},")
_CLOSINGS = ("Yours sincerely,", "Kind regards,", "Best wishes,", "With many thanks,", "See you soon,")
_LINKS = ("However,", "Meanwhile,", "After that,", "As a rule,", "Still,", "In short,", "For example,")

_SHAPES = (
    "{loose}",
    "In {year} the {one} of {town} {verb} again.",
    "About {few}% of every {other} is kept for the {one}.",
    "{link} {person} {verb} what the {one} {then}.",
    "It takes {few} minutes by {one} (via {town}).",
    "The {kind} {other} costs {sum} there.",
    "{name} and {person} ask: who {verb} the {one}?",
    "Please bring {food} and a {other} on {day}.",
    "Nobody {verb} at {time}; the {one} {then} without us.",
    "If it {verb}, write to {email} or ask {name}!",
    "{few} people from {town} saw the {one}.",
    "Her {kind} {one} {verb}, {then} and is gone.",
    "Number {code} is a {kind} {other}.",
    "They met at {street}, not far from the {one}.",
    '"{one} first," said {person}, "{other} later."',
    "What {verb} in {town} {then} in {name} as well.",
)
_POOLS = {
    "one": words.THINGS,
    "other": words.GOODS,
    "verb": words.ACTIONS,
    "then": words.ACTIONS,
    "kind": words.QUALITIES,
    "food": words.FOODS,
    "link": _LINKS,
}
_MAKERS: dict[str, Callable[[Generator], str]] = {
    "town": words.place,
    "person": words.person,
    "name": words.last_name,
    "street": words.street,
    "email": words.email,
    "time": words.clock,
    "day": lambda rng: words.day(rng, 2018, 2030),
    "code": lambda rng: words.code(rng, "A-000"),
}

Drawn = tuple[Sheet, tuple[Question, ...], str]


def prose(rng: Generator) -> Iterator[str]:
    """Sentences of running text with full stops, often with numbers and names in them; shapes take turns."""
    while True:
        for place in rng.permutation(len(_SHAPES)):
            text = _SHAPES[place].format(
                **{name: pick(rng, pool) for name, pool in _POOLS.items()},
                **{name: make(rng) for name, make in _MAKERS.items()},
                loose=sentence(rng),
                year=int(rng.integers(1850, 2031)),
                few=int(rng.integers(2, 99)),
                sum=f"{rng.uniform(1, 400):.2f}",
            )
            text = text[0].upper() + text[1:]
            yield text if text[-1] in '.?!"' else f"{text}."


def paragraph(story: Iterator[str], length: int) -> str:
    """Sentences of at least ``length`` characters together."""
    parts: list[str] = []
    while sum(map(len, parts)) + len(parts) <= length:
        parts.append(next(story))
    return " ".join(parts)


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    """Rows of whole words that are at most ``width`` pixels wide."""
    rows: list[str] = []
    for word in text.split(" "):
        longer = f"{rows[-1]} {word}" if rows else word
        if rows and font.getlength(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def flow(sheet: Sheet, text: str, font: Font, *, indent: float = 0.0, at: str = "l") -> None:
    """Running text, broken into rows; ``indent`` moves all rows but the first, whose text brings its own mark."""
    for number, row in enumerate(_wrapped(text, font, sheet.right - sheet.left - indent)):
        if number and indent:
            sheet.row(Cell(row, font, sheet.left + indent))
        else:
            sheet.text(row, font, at)


def _page(rng: Generator, face: Face, length: int) -> tuple[Sheet, float]:
    """A blank page for about ``length`` characters and the size of its letters.

    The nearer the page comes to the shape of its best grid of tiles, the larger its letters are there.
    """
    size = float(rng.uniform(19, 30))
    advance = float(face.regular(size).getlength("the quick brown weather of 1999")) / 31
    leading = float(rng.uniform(1.15, 1.55))
    aspect = float(rng.uniform(0.6, 1.9))  # width to height of the block of text
    width = (length * 1.25 * advance * size * leading * aspect) ** 0.5
    margin = int(size * rng.uniform(0.7, 1.8))
    ink, paper = pick(rng, _LOOKS)
    sheet = Sheet(min(960, max(304, int(width) + 2 * margin)), margin, leading=leading, ink=ink, paper=paper)
    return sheet, size


def _plain(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """One to three paragraphs, with or without a heading, left or centred."""
    face = fonts.pick(rng)
    length = _length(rng)
    sheet, size = _page(rng, face, length)
    font = face.regular(size)
    if chance(rng, 0.5):
        title = f"{pick(rng, words.QUALITIES)} {pick(rng, words.THINGS)}".capitalize()
        heading = f"{title} {pick(rng, ('in', 'at', 'of'))} {words.place(rng)}"
        heading = heading.upper() if chance(rng, 0.3) else heading
        large = face.bold(size * rng.uniform(1.0, 1.6))
        for row in _wrapped(heading, large, sheet.right - sheet.left):
            sheet.text(row, large)
        sheet.space(size * rng.uniform(0.1, 0.8))
    story = prose(rng)
    count = 1 if length < 200 else int(rng.integers(1, 4))
    at = "m" if chance(rng, 0.12) else "l"
    for number in range(count):
        flow(sheet, paragraph(story, length // count - 60), font, at=at)
        if number < count - 1:
            sheet.space(size * rng.uniform(0.3, 1.0))
    return sheet, (), "paragraph" if count == 1 else "paragraphs"


def _letter(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Sender, date, greeting, a paragraph or two, closing and name."""
    face = fonts.pick(rng)
    length = max(260, _length(rng))
    sheet, size = _page(rng, face, length)
    font = face.regular(size)
    sender, story = words.person(rng), prose(rng)
    at = pick(rng, ("l", "r"))
    for text in (sender, words.street(rng), f"{words.postcode(rng)} {words.place(rng)}"):
        sheet.text(text, font, at)
    sheet.space(size * 0.5)
    sheet.text(f"{words.place(rng)}, {words.day(rng, 1990, 2031)}", font, at)
    sheet.space(size * 0.6)
    sheet.text(pick(rng, _GREETINGS).format(words.last_name(rng)), font)
    sheet.space(size * rng.uniform(0.1, 0.6))
    for _ in range(1 if length < 450 else 2):
        flow(sheet, paragraph(story, (length - 190) // (1 if length < 450 else 2) - 60), font)
        sheet.space(size * rng.uniform(0.2, 0.6))
    sheet.text(pick(rng, _CLOSINGS), font)
    sheet.text(sender.split(" ")[0] if chance(rng, 0.5) else sender, face.bold(size) if chance(rng, 0.3) else font)
    return sheet, (), "letter"


def _list(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A heading and numbered or dotted points, each of one or two sentences."""
    face = fonts.pick(rng)
    length = _length(rng)
    sheet, size = _page(rng, face, length)
    font = face.regular(size)
    heading = pick(
        rng, ("Rules of the {}", "How to mend a {}", "Before you leave the {}", "Notes on the {}", "{}: steps")
    )
    sheet.text(
        heading.format(pick(rng, words.THINGS + words.GOODS)).capitalize(), face.bold(size * rng.uniform(1.0, 1.4))
    )
    sheet.space(size * rng.uniform(0.1, 0.7))
    mark = pick(rng, ("{}.", "{})", "-", "*", "{}:"))
    used, number, story = 0, 0, prose(rng)
    while used < length - 90 or number < 2:
        number += 1
        text = f"{mark.format(number)} {next(story)}"
        used += len(text)
        flow(sheet, text, font, indent=float(font.getlength(f"{mark.format(number)} ")))
        if chance(rng, 0.3):
            sheet.space(size * 0.3)
    return sheet, (), "list"


def _notice(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A notice on a wall or a page of a programme: lines of several sizes, a frame, then a short text."""
    face, other = fonts.pick(rng), fonts.pick(rng)
    length = min(420, _length(rng))
    sheet, size = _page(rng, other, length)
    font = other.regular(size)
    title = pick(rng, ("Notice", "Programme", "Invitation", "Opening hours", "Important", "Lost and found", "For sale"))
    sheet.text(title.upper() if chance(rng, 0.5) else title, face.bold(size * rng.uniform(1.3, 2.0)), "m")
    sheet.line(thickness=2)
    sheet.space(size * 0.5)
    sheet.text(f"{words.day(rng, 2015, 2031)}, {words.clock(rng)}", face.bold(size), "m")
    sheet.space(size * 0.4)
    flow(sheet, paragraph(prose(rng), max(60, length - 180)), font, at=pick(rng, ("l", "l", "m")))
    sheet.space(size * 0.5)
    if chance(rng, 0.6):
        sheet.text(f"{pick(rng, ('Call', 'Phone:', 'Tel.'))} {words.phone(rng)}", font, "m")
    if chance(rng, 0.5):
        sheet.text(words.email(rng), font, "m")
    sheet.text(f"{words.street(rng)}, {words.place(rng)}", font, "m")
    return sheet, (), "notice"


def _length(rng: Generator) -> int:
    """Characters that a page should hold, short ones as often as long ones."""
    return int(rng.uniform(SHORTEST + 30, LONGEST - 40))


_DESIGNS = (_plain, _letter, _plain, _list, _plain, _notice)


def _sized(design: Callable[[Generator, HeldOutFonts], Drawn], rng: Generator, fonts: HeldOutFonts) -> Drawn:
    sheet, questions, style = design(rng, fonts)
    if not SHORTEST <= len("\n".join(sheet.rows)) <= LONGEST:
        raise DoesNotFitError("the page is too short or too long")
    if sheet.smallest * tile_scale(sheet.width, round(sheet.y + sheet.margin)) > 30:
        raise DoesNotFitError("the letters of the page are as large as those of a sign")
    return sheet, questions, style


def render_paragraph(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The page number ``index`` of the endless held-out series ``seed``; designs take turns."""
    design = _DESIGNS[index % len(_DESIGNS)]
    return compose(lambda rng: _sized(design, rng, fonts), (seed, 5, index), desk_share=0.12)
