"""A page as a list of drawing operations in pixels: placed first, drawn once its size is known."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mm.synthetic.fonts import Colour as Colour
from mm.synthetic.fonts import Pen


@dataclass(frozen=True)
class TextOp:
    """One piece of text on one baseline."""

    x: float  # left end
    baseline: int
    text: str
    pen: Pen
    ink: Colour
    counts: bool = True  # False: decoration, neither transcribed nor in the glyph boxes


@dataclass(frozen=True)
class ShapeOp:
    """A line, frame, filled box or tick; the coordinates are (x0, y0, x1, y1)."""

    kind: str  # line, rise, dashes, frame, fill, round, round_frame, ellipse, ellipse_frame
    box: tuple[float, float, float, float]
    ink: Colour
    width: int = 1


@dataclass(frozen=True)
class MarkOp:
    """Something drawn as shapes that is transcribed as ``text`` (a check box)."""

    x: float
    baseline: int
    text: str


class Page:
    """Collects operations; ``top`` is where the next element goes."""

    def __init__(self) -> None:
        self.texts: list[TextOp] = []
        self.shapes: list[ShapeOp] = []
        self.marks: list[MarkOp] = []
        self.top = 0.0

    def text(self, x: float, baseline: float, text: str, pen: Pen, ink: Colour, *, counts: bool = True) -> None:
        """Put text with its left end at ``x``."""
        if text:
            self.texts.append(TextOp(x, round(baseline), text, pen, ink, counts))

    def shape(self, kind: str, box: tuple[float, float, float, float], ink: Colour, width: int = 1) -> None:
        """Put a shape; shapes lie below all text."""
        self.shapes.append(ShapeOp(kind, box, ink, width))

    def mark(self, x: float, baseline: float, text: str) -> None:
        """Put a piece of transcription that is drawn by shapes."""
        self.marks.append(MarkOp(x, round(baseline), text))

    @property
    def bounds(self) -> tuple[float, float]:
        """Width and height that the operations take, from (0, 0); shapes of the kind "bleed" take none."""
        boxes = [op.box for op in self.shapes if op.kind != "bleed"]
        right = [op.x + op.pen.width(op.text) for op in self.texts] + [box[2] for box in boxes]
        bottom = [op.baseline + op.pen.descent for op in self.texts] + [box[3] for box in boxes]
        return max(right, default=1.0), max([*bottom, self.top], default=1.0)

    def rows(self) -> list[str]:
        """The transcription: pieces on one baseline, left to right, joined by a space."""
        pieces = [(op.baseline, op.x, op.text) for op in self.texts if op.counts]
        pieces += [(mark.baseline, mark.x, mark.text) for mark in self.marks]
        pieces.sort(key=lambda piece: piece[:2])
        return [" ".join(piece[2].strip() for piece in row) for _, row in groupby(pieces, key=lambda piece: piece[0])]

    def glyphs(self, dx: float, dy: float) -> NDArray[np.float32]:
        """(G, 5) codepoint and box of every character that counts, moved by (dx, dy)."""
        parts = []
        for op in self.texts:
            if not op.counts:
                continue
            codes = np.frombuffer(op.text.encode("utf-32-le"), dtype="<u4")
            edges = op.pen.edges(op.text) + (op.x + dx)
            part = np.empty((len(codes), 5), dtype=np.float32)
            part[:, 0] = codes
            part[:, 1], part[:, 3] = edges[:-1], edges[1:]
            part[:, 2], part[:, 4] = op.baseline + dy - op.pen.ascent, op.baseline + dy + op.pen.descent
            parts.append(part[codes != 32])
        return np.concatenate(parts) if parts else np.zeros((0, 5), dtype=np.float32)

    def draw(self, canvas: Image.Image, dx: float, dy: float) -> None:
        """Draw everything on ``canvas`` (mode L: the red component is used)."""
        painter = ImageDraw.Draw(canvas)
        grey = canvas.mode == "L"
        for shape in self.shapes:
            x0, y0, x1, y1 = (round(value) for value in
                              (shape.box[0] + dx, shape.box[1] + dy, shape.box[2] + dx, shape.box[3] + dy))  # fmt: skip
            _draw_shape(painter, shape, (x0, y0, max(x0, x1), max(y0, y1)), shape.ink[0] if grey else shape.ink)
        for op in self.texts:
            op.pen.draw(painter, op.x + dx, op.baseline + dy, op.text, op.ink[0] if grey else op.ink)


def _draw_shape(
    painter: ImageDraw.ImageDraw, shape: ShapeOp, box: tuple[int, int, int, int], ink: int | Colour
) -> None:
    x0, y0, x1, y1 = box
    radius = max(1, min(x1 - x0, y1 - y0) // 4)
    match shape.kind:
        case "line":
            painter.line(box, fill=ink, width=shape.width)
        case "rise":  # from bottom left to top right
            painter.line((x0, y1, x1, y0), fill=ink, width=shape.width)
        case "dashes":
            step = max(3, 4 * shape.width)
            for x in range(x0, x1, 2 * step):
                painter.line((x, y0, min(x + step, x1), y0), fill=ink, width=shape.width)
        case "frame":
            painter.rectangle(box, outline=ink, width=shape.width)
        case "fill" | "bleed":
            painter.rectangle(box, fill=ink)
        case "round":
            painter.rounded_rectangle(box, radius, fill=ink)
        case "round_frame":
            painter.rounded_rectangle(box, radius, outline=ink, width=shape.width)
        case "ellipse":
            painter.ellipse(box, fill=ink)
        case "ellipse_frame":
            painter.ellipse(box, outline=ink, width=shape.width)
        case _:
            raise AssertionError(f"unknown shape {shape.kind!r}")
