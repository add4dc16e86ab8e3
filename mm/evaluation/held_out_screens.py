"""Screenshots: dialogs, settings, terminals, lists of files, messages; held-out fonts and words.

Every row of letters is text, also on buttons and in title bars; icons, switches and bubbles are not. Half of them are
plain files, the others look like a photograph of a screen.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import (
    Cell,
    Colour,
    Document,
    DoesNotFitError,
    Question,
    Sheet,
    compose,
    wording,
)
from mm.evaluation.held_out_fields import VALUE_PROMPTS
from mm.evaluation.held_out_fonts import Face, HeldOutFonts
from mm.evaluation.held_out_lines import sentence
from mm.evaluation.held_out_paragraphs import flow
from mm.evaluation.held_out_words import chance, pick

_THEMES: tuple[tuple[Colour, Colour, Colour], ...] = (  # ink, ground, panel
    ((30, 30, 34), (255, 255, 255), (236, 238, 242)),
    ((20, 24, 32), (244, 246, 250), (255, 255, 255)),
    ((232, 234, 238), (28, 30, 36), (50, 54, 66)),
    ((226, 230, 240), (18, 24, 44), (38, 48, 80)),
    ((40, 34, 30), (250, 244, 236), (238, 224, 206)),
)
_ACCENTS: tuple[Colour, ...] = ((24, 110, 220), (0, 120, 95), (190, 50, 60), (110, 60, 190), (40, 46, 60))
_ENDINGS = ("txt", "pdf", "png", "csv", "zip", "docx", "mp3", "log")
_SETTINGS: dict[str, Callable[[Generator], str]] = {
    "Device name": lambda rng: f"{words.last_name(rng)}-{words.code(rng, 'A00')}",
    "Version": lambda rng: f"{rng.integers(1, 30)}.{rng.integers(0, 20)}.{rng.integers(0, 100)}",
    "Storage": lambda rng: f"{_bytes(rng)} free",
    "Account": words.email,
    "Region": words.place,
    "Network": lambda rng: f"{words.invented(rng, 2)}-{words.code(rng, '00A')}",
    "Address": lambda rng: ".".join(str(part) for part in rng.integers(1, 255, size=4)),
    "Last backup": lambda rng: f"{words.day(rng, 2018, 2031, short=True)} {words.clock(rng)}",
    "Sleep after": lambda rng: f"{rng.integers(1, 60)} minutes",
    "Resolution": lambda rng: f"{rng.integers(8, 60) * 64} x {rng.integers(8, 40) * 64}",
    "Serial number": lambda rng: words.code(rng, pick(rng, ("AA00 0A00", "000-0000-A", "A0A0A0"))),
    "Printer": lambda rng: f"{words.invented(rng, 2)} {rng.integers(100, 9000)}",
}
_COMMANDS = ("$ cat {}", "$ ls {}", "> open {}", "$ rm -v {}", "# tail {}", "$ head -n 5 {}")
_ASKING = ("Delete {}?", "Do you want to save {}?", "{} cannot be opened.", "Replace {}?", "{} is already there.")
_BUTTONS = (("Cancel", "OK"), ("No", "Yes"), ("Later", "Save"), ("Close",), ("Skip", "Retry", "Cancel"))

Drawn = tuple[Sheet, tuple[Question, ...], str]


def _file(rng: Generator) -> str:
    joint = pick(rng, ("_", "-", ""))
    return f"{pick(rng, words.QUALITIES)}{joint}{pick(rng, words.THINGS)}{rng.integers(1, 99)}.{pick(rng, _ENDINGS)}"


def _bytes(rng: Generator) -> str:
    return f"{rng.uniform(1, 900):.1f} {pick(rng, ('KB', 'MB', 'GB'))}"


def _screen(rng: Generator, size: float, low: int, high: int) -> tuple[Sheet, Colour]:
    ink, ground, panel = pick(rng, _THEMES)
    leading = float(rng.uniform(1.35, 1.7))
    return Sheet(int(rng.integers(low, high)), round(size), leading=leading, ink=ink, paper=ground), panel


def _title_bar(rng: Generator, sheet: Sheet, face: Face, size: float, text: str) -> None:
    """A coloured bar with a title, often with three dots at its end."""
    height = size * 2.1
    sheet.draw.rectangle((0, 0, sheet.width, height), fill=pick(rng, _ACCENTS))
    sheet.y = size * 0.6
    if chance(rng, 0.5):
        for place in range(3):
            x = sheet.right - size * (0.4 + 0.7 * place)
            sheet.draw.ellipse((x, size * 0.85, x + size * 0.4, size * 1.25), fill=(255, 255, 255))
    font = face.bold(size) if chance(rng, 0.6) else face.regular(size)
    if sheet.left + font.getlength(text) > sheet.right - 3 * size:
        raise DoesNotFitError("the title meets the dots")
    sheet.row(Cell(text, font, sheet.left), ink=(255, 255, 255))
    sheet.y = height + size * 0.7


def _dialog(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A question with one to three buttons."""
    face = fonts.pick(rng, "sans")
    size = int(rng.integers(20, 28))
    font = face.regular(size)
    sheet, panel = _screen(rng, size, 380, 640)
    _title_bar(rng, sheet, face, size, pick(rng, ("Warning", "Question", "Message", f"About {words.invented(rng, 2)}")))
    flow(sheet, pick(rng, _ASKING).format(_file(rng)), face.bold(size) if chance(rng, 0.4) else font)
    sheet.space(size * 0.4)
    flow(sheet, sentence(rng), font)
    sheet.space(size * 0.8)
    cells, x = [], float(sheet.right)
    for name in reversed(pick(rng, _BUTTONS)):
        width = font.getlength(name) + 2 * size
        box = (x - width, sheet.y - size * 0.45, x, sheet.y + size * 1.25)
        sheet.draw.rounded_rectangle(box, radius=size * 0.3, fill=panel, outline=sheet.ink)
        cells.append(Cell(name, font, x - width / 2, "m"))
        x -= width + size * 0.6
    sheet.row(*cells)
    sheet.space(size * 0.4)
    return sheet, (), "dialog"


def _settings(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Names at the left, values at the right, on panels or between light rules."""
    face = fonts.pick(rng, "sans")
    size = int(rng.integers(20, 27))
    font = face.regular(size)
    sheet, panel = _screen(rng, size, 440, 680)
    _title_bar(rng, sheet, face, size, pick(rng, ("Settings", "About this device", "System", "Network", "Preferences")))
    names = [list(_SETTINGS)[place] for place in rng.permutation(len(_SETTINGS))[: int(rng.integers(4, 9))]]
    pairs = [(name, _SETTINGS[name](rng)) for name in names]
    boxed = chance(rng, 0.5)
    for name, value in pairs:
        if boxed:
            box = (sheet.left - size * 0.4, sheet.y - size * 0.35, sheet.right + size * 0.4, sheet.y + size * 1.15)
            sheet.draw.rounded_rectangle(box, radius=size * 0.2, fill=panel)
        sheet.row(Cell(name, font, sheet.left), Cell(value, font, sheet.right, "r"), leading=1.8)
        if not boxed:
            sheet.draw.line((sheet.left, sheet.y - size * 0.4, sheet.right, sheet.y - size * 0.4), fill=panel, width=2)
    asked = [pairs[int(place)] for place in rng.permutation(len(pairs))[:2]]
    questions = (
        Question("value", wording(rng, VALUE_PROMPTS).format(name), value, about=name) for name, value in asked
    )
    return sheet, tuple(questions), "settings"


def _terminal(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Commands and what they print, in letters of one width on a dark ground."""
    face = fonts.pick(rng, "mono")
    size = int(rng.integers(20, 26))
    font = face.regular(size)
    ink, ground = pick(
        rng, (((220, 225, 220), (20, 22, 26)), ((120, 230, 130), (8, 16, 10)), ((40, 50, 60), (250, 250, 244)))
    )
    sheet = Sheet(
        int(rng.integers(460, 760)), round(size * 0.8), leading=float(rng.uniform(1.2, 1.45)), ink=ink, paper=ground
    )
    for _ in range(int(rng.integers(2, 5))):
        sheet.row(
            Cell(pick(rng, _COMMANDS).format(_file(rng)), face.bold(size) if chance(rng, 0.3) else font, sheet.left)
        )
        for _ in range(int(rng.integers(1, 4))):
            shown = pick(
                rng,
                (
                    f"{pick(rng, words.THINGS)}={words.code(rng, 'A000')}",
                    f"{rng.integers(1, 4096)} {_file(rng)}",
                    f"error {rng.integers(100, 600)}: {pick(rng, words.THINGS)} {pick(rng, words.ACTIONS)}",
                    f"[{words.clock(rng)}] {pick(rng, words.GOODS)} {rng.integers(0, 101)}%",
                ),
            )
            sheet.row(Cell(shown, font, sheet.left))
    return sheet, (), "terminal"


def _files(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """A window with files: sign, name, size and perhaps the day."""
    face = fonts.pick(rng, "sans", "mono")
    size = int(rng.integers(19, 25))
    font = face.regular(size)
    sheet, panel = _screen(rng, size, 560, 860)
    _title_bar(
        rng, sheet, face, size, f"{pick(rng, words.THINGS).capitalize()} {pick(rng, ('files', 'folder', '2030'))}"
    )
    dated = chance(rng, 0.5)
    middle = sheet.left + (sheet.right - sheet.left) * (0.66 if dated else 1.0)
    head = [Cell("Name", face.bold(size), sheet.left + size * 1.3), Cell("Size", face.bold(size), middle, "r")]
    sheet.row(*head, *([Cell("Changed", face.bold(size), sheet.right, "r")] if dated else []))
    sheet.line()
    sheet.space(size * 0.4)
    for _ in range(int(rng.integers(3, 9))):
        sheet.draw.rectangle(
            (sheet.left, sheet.y, sheet.left + size * 0.7, sheet.y + size * 0.9), fill=panel, outline=sheet.ink
        )
        cells = [Cell(_file(rng), font, sheet.left + size * 1.3), Cell(_bytes(rng), font, middle, "r")]
        sheet.row(*cells, *([Cell(words.day(rng, 2015, 2031, short=True), font, sheet.right, "r")] if dated else []))
    return sheet, (), "files"


def _messages(rng: Generator, fonts: HeldOutFonts) -> Drawn:
    """Messages of two people, each in a bubble, with the time behind it or below."""
    face = fonts.pick(rng, "sans")
    size = int(rng.integers(21, 27))
    font, small = face.regular(size), face.regular(size * 0.85)
    sheet, panel = _screen(rng, size, 440, 620)
    _title_bar(rng, sheet, face, size, words.person(rng))
    for number in range(int(rng.integers(2, 6))):
        text = sentence(rng)
        mine = (number + int(rng.integers(2))) % 2 == 0
        start = len(sheet.rows)
        # First on a sheet of its own, to know how high the bubble is.
        trial = Sheet(sheet.width - 4 * size, sheet.margin, leading=sheet.leading)
        flow(trial, text, font)
        high = trial.y - trial.margin + size * 0.3
        left = sheet.left + (3 * size if mine else 0)
        bubble = (left, sheet.y - size * 0.4, left + sheet.width - 5 * size, sheet.y + high)
        sheet.draw.rounded_rectangle(bubble, radius=size * 0.5, fill=panel)
        for row in trial.rows:
            sheet.row(Cell(row, font, left + size * 0.5))
        assert len(sheet.rows) - start == len(trial.rows)
        sheet.space(size * 0.3)
        if chance(rng, 0.6):
            sheet.row(Cell(words.clock(rng), small, *((sheet.right, "r") if mine else (sheet.left, "l"))))
        sheet.space(size * 0.6)
    return sheet, (), "messages"


_DESIGNS = (_dialog, _settings, _terminal, _files, _messages, _settings)


def render_screen(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The screenshot number ``index`` of the endless held-out series ``seed``; designs take turns."""
    design = _DESIGNS[index % len(_DESIGNS)]
    plain = bool(np.random.default_rng((seed, 9, index)).random() < 0.5)
    return compose(lambda rng: design(rng, fonts), (seed, 9, index), desk_share=0.0, plain=plain)
