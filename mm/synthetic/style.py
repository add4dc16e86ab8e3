"""How a document looks: typefaces, size, spacing and colours, drawn once for each document."""

from dataclasses import dataclass

from mm.processing.tiling import choose_resolution
from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, FontSet, Pen, Typeface

TILE = 192
"""Pixels a side of one tile of nano-vl2, to which sizes are planned; nothing breaks for a model with other tiles."""

MAX_TILES = 9

GRIDS = tuple((x, y) for x in range(1, MAX_TILES + 1) for y in range(1, MAX_TILES + 1) if x * y <= MAX_TILES)
_CANDIDATES = tuple((x * TILE, y * TILE) for x, y in GRIDS)


def view_scale(width: int, height: int) -> float:
    """Factor by which the best-fitting grid of tiles resizes an image of this size (1 = pixel for pixel)."""
    best = choose_resolution((width, height), _CANDIDATES)
    return min(best[0] / width, best[1] / height)


@dataclass(frozen=True)
class Budget:
    """How much fits: lines of text, characters a line, and the pixels that a full line may take."""

    lines: int
    columns: int
    width: float


class SpacedPen(Pen):
    """A plain pen with ``spacing`` more pixels behind every letter; the rendered letters are the plain pen's."""

    def __init__(self, plain: Pen, spacing: float) -> None:
        self.font, self.size, self.shaped = plain.font, plain.size, False
        self._advances, self._stamps = {}, plain._stamps
        self._plain, self._spacing = plain, spacing

    def advance(self, character: str) -> float:
        return self._plain.advance(character) + self._spacing


@dataclass(frozen=True)
class Style:
    """The look of one document. Inks are greys on white (mode L) unless ``coloured``."""

    fonts: FontSet
    face: Typeface
    head: Typeface
    em: int  # pixels an em of body text
    pitch: float  # baseline to baseline, in em
    bold_head: bool
    bold_keys: bool  # labels and totals in bold
    ink: Colour
    soft: Colour  # secondary text
    accent: Colour  # rules, filled bars
    panel: Colour  # light fills behind text
    paper: Colour
    coloured: bool
    dark: bool
    shaped: bool  # drawn with kerning and ligatures
    spacing: float = 0.0  # extra space between letters, em

    @property
    def extras(self) -> frozenset[str]:
        """Characters beyond ASCII that every typeface of the document can print."""
        return self.face.extras & self.head.extras

    def pen(self, role: str = "body", scale: float = 1.0, spacing: float | None = None) -> Pen:
        """The pen of a role: body, bold, italic, head or value (the headings' face, never bold).

        ``scale`` is relative to body text, ``spacing`` between letters in em of the pen (default: the document's).
        """
        face = self.head if role in {"head", "value"} else self.face
        path = face.regular
        if role == "bold" or (role == "head" and self.bold_head):
            path = face.bold or face.regular
        elif role == "italic":
            path = face.italic or face.regular
        size, extra = max(7, round(self.em * scale)), self.spacing if spacing is None else spacing
        if not extra:
            return self.fonts.pen(path, size, shaped=self.shaped)
        return SpacedPen(self.fonts.pen(path, size), extra * size)

    @property
    def line(self) -> int:
        """Baseline to baseline of body text in pixels."""
        return round(self.em * self.pitch)


_FACE_KINDS = {
    "receipt": {"mono": 6.0, "sans": 3.0, "narrow": 1.0, "serif": 0.7, "round": 0.3},
    "screen": {"sans": 6.0, "mono": 1.5, "narrow": 0.7, "round": 1.0, "serif": 0.3},
    "": {"sans": 5.0, "serif": 3.5, "mono": 2.0, "narrow": 0.8, "round": 0.6, "hand": 0.1},
}


def pick_face(dice: Dice, fonts: FontSet, kind: str) -> Typeface:
    """A typeface whose kind suits the document."""
    weights = _FACE_KINDS.get(kind, _FACE_KINDS[""])
    there = {face.kind for face in fonts.faces}
    usable = {name: weight for name, weight in weights.items() if name in there}
    if not usable:
        return dice.pick(fonts.faces)
    wanted = dice.weighted(usable)
    return dice.pick([face for face in fonts.faces if face.kind == wanted])


def _colours(dice: Dice, dark: bool) -> dict[str, Colour]:
    """Inks and paper of a coloured document, with enough contrast to read."""
    hue = [dice.integer(0, 255) for _ in range(3)]
    strong = max(hue) or 1
    if dark:
        paper = dice.integer(8, 45)
        return {
            "paper": (paper, paper + dice.integer(0, 6), paper + dice.integer(0, 14)),
            "ink": _grey(dice.integer(215, 255)),
            "soft": _grey(dice.integer(150, 190)),
            "accent": _mix(hue, 180 / strong, 60),
            "panel": _grey(paper + dice.integer(12, 28)),
        }
    tint = dice.integer(0, 26)
    return {
        "paper": _cut(255 - dice.integer(0, tint), 255 - dice.integer(0, tint), 255 - dice.integer(0, tint)),
        "ink": _mix(hue, 70 / strong, 0) if dice.chance(0.5) else _grey(dice.integer(0, 60)),
        "soft": _grey(dice.integer(85, 125)),
        "accent": _mix(hue, 150 / strong, 0),
        "panel": _cut(*(238 - dice.integer(0, 22) for _ in range(3))),
    }


def _grey(value: int) -> Colour:
    return (value, value, value)


def _cut(*values: float) -> Colour:
    red, green, blue = (min(255, max(0, round(value))) for value in values)
    return (red, green, blue)


def _mix(hue: list[int], factor: float, floor: int) -> Colour:
    return _cut(*(floor + value * factor for value in hue))


def draw_style(dice: Dice, fonts: FontSet, kind: str, em: int, level: float) -> Style:
    """Draw the look of a document of ``kind`` with ``em`` pixels an em; ``level`` 0 is plain, 1 is everything."""
    face = pick_face(dice, fonts, kind)
    head = face if dice.chance(0.5 if kind == "form" else 0.72) else pick_face(dice, fonts, kind)
    coloured = dice.chance({"screen": 0.6, "receipt": 0.1}.get(kind, 0.2) * (0.3 + 0.7 * level))
    dark = dice.chance({"screen": 0.35, "receipt": 0.02}.get(kind, 0.05) * level)
    soft = _grey(0 if dice.chance(0.6) else dice.integer(40, 115))
    plain: dict[str, Colour] = {
        "paper": _grey(255),
        "ink": _grey(0),
        "soft": soft,
        "accent": _grey(dice.pick([0, 0, 60, 110, 160])),
        "panel": _grey(dice.integer(210, 242)),
    }
    colours = _colours(dice, dark) if coloured else plain
    bold_all = face.bold is not None and dice.chance(0.07)
    if bold_all and face.bold is not None:
        face = Typeface(face.name, face.kind, face.bold, face.bold, face.italic, face.extras)
    return Style(
        fonts=fonts,
        face=face,
        head=head,
        em=em,
        pitch=dice.weighted({dice.uniform(1.08, 1.35): 7, dice.uniform(1.3, 1.9): 2.5, dice.uniform(1.8, 2.6): 0.7}),
        bold_head=dice.chance(0.6),
        bold_keys=dice.chance(0.35),
        coloured=coloured,
        dark=dark,
        shaped=dice.chance(0.35),
        spacing=dice.uniform(0.02, 0.18) if dice.chance(0.07 * level) else 0.0,
        **colours,
    )
