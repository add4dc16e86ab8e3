"""A sheet to draw charts and scenes on: smooth shapes, then text at any angle, with the box of every character."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mm.synthetic.fonts import Colour, Pen

Point = tuple[float, float]
Rect = tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """A placed text: start of its baseline, angle in degrees (counter-clockwise), and the upright box around it."""

    text: str
    x: float
    y: float
    angle: float
    pen: Pen
    ink: Colour
    box: Rect


class Canvas:
    """Shapes are drawn at once, ``smooth`` times larger than the picture; texts are drawn on top by ``picture``."""

    def __init__(self, width: int, height: int, paper: Colour, smooth: int) -> None:
        self.width, self.height, self.smooth = width, height, smooth
        self.image = Image.new("RGB", (width * smooth, height * smooth), paper)
        self.painter = ImageDraw.Draw(self.image)
        self.labels: list[Label] = []
        self.areas: list[tuple[int, Rect]] = []  # codepoint and box of parts of shapes that are labelled like text

    def _grown(self, values: Sequence[float]) -> list[int]:
        return [round(value * self.smooth) for value in values]

    def _stroke(self, width: float) -> int:
        return max(1, round(width * self.smooth))

    def rect(
        self, box: Rect, fill: Colour | None, edge: Colour | None = None, width: float = 1.0, radius: float = 0.0
    ) -> None:
        """A filled box with an optional outline; the corners may be in any order."""
        x0, y0, x1, y1 = self._grown(box)
        corners = (min(x0, x1), min(y0, y1), max(x0, x1) - 1, max(y0, y1) - 1)
        corners = (corners[0], corners[1], max(corners[0], corners[2]), max(corners[1], corners[3]))
        if radius > 0:
            self.painter.rounded_rectangle(
                corners, radius * self.smooth, fill, edge, self._stroke(width) if edge else 0
            )
        else:
            self.painter.rectangle(corners, fill, edge, self._stroke(width) if edge else 0)

    def line(self, points: Sequence[Point], ink: Colour, width: float, dash: float = 0.0) -> None:
        """A run of straight pieces; ``dash`` > 0 is the length of its dashes."""
        stroke = self._stroke(width)
        for start, end in pairwise(points):
            if dash > 0:
                length = math.dist(start, end)
                steps = max(1, int(length / dash))
                for index in range(0, steps, 2):
                    a, b = index / steps, min(1.0, (index + 1) / steps)
                    piece = [
                        start[0] + (end[0] - start[0]) * a,
                        start[1] + (end[1] - start[1]) * a,
                        start[0] + (end[0] - start[0]) * b,
                        start[1] + (end[1] - start[1]) * b,
                    ]
                    self.painter.line(self._grown(piece), ink, stroke)
            else:
                self.painter.line(self._grown([*start, *end]), ink, stroke)
        if stroke > 2 and dash == 0 and len(points) > 2:  # fill the notches at the joints
            for x, y in points[1:-1]:
                half = width / 2 - 0.25
                self.painter.ellipse(self._grown([x - half, y - half, x + half, y + half]), ink)

    def polygon(
        self, points: Sequence[Point], fill: Colour | None, edge: Colour | None = None, width: float = 1.0
    ) -> None:
        """A closed polygon."""
        corners = [(x * self.smooth, y * self.smooth) for x, y in points]
        if fill is not None:
            self.painter.polygon(corners, fill)
        if edge is not None:
            self.painter.line([*corners, corners[0], corners[1]], edge, self._stroke(width), joint="curve")

    def ellipse(self, box: Rect, fill: Colour | None, edge: Colour | None = None, width: float = 1.0) -> None:
        """An ellipse inside ``box``."""
        self.painter.ellipse(self._grown(box), fill, edge, self._stroke(width) if edge else 0)

    def marker(self, kind: str, centre: Point, size: float, colour: Colour, edge: Colour | None, inner: Colour) -> None:
        """A point of a line, about ``size`` pixels around its centre; open ones are filled with ``inner``."""
        x, y = centre
        stroke = max(1.0, size / 2.5)
        match kind:
            case "circle" | "ring":
                box = (x - size, y - size, x + size, y + size)
                self.ellipse(box, inner if kind == "ring" else colour, colour if kind == "ring" else edge, stroke)
            case "square" | "box":
                box = (x - 0.9 * size, y - 0.9 * size, x + 0.9 * size, y + 0.9 * size)
                self.rect(box, inner if kind == "box" else colour, colour if kind == "box" else edge, stroke)
            case "diamond":
                reach = 1.2 * size
                self.polygon([(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)], colour, edge)
            case "triangle" | "down":
                up = 1.0 if kind == "triangle" else -1.0
                foot = y + 0.85 * size * up
                self.polygon([(x, y - 1.15 * size * up), (x + 1.1 * size, foot), (x - 1.1 * size, foot)], colour, edge)
            case _:
                reach = 1.1 * size
                if kind in {"plus", "star"}:
                    self.line([(x - reach, y), (x + reach, y)], colour, stroke)
                    self.line([(x, y - reach), (x, y + reach)], colour, stroke)
                if kind in {"cross", "star"}:
                    side = 0.75 * reach
                    self.line([(x - side, y - side), (x + side, y + side)], colour, stroke)
                    self.line([(x - side, y + side), (x + side, y - side)], colour, stroke)

    def slice(self, centre: Point, radius: float, start: float, end: float, fill: Colour) -> None:
        """A slice of a disc; angles in degrees clockwise from three o'clock."""
        x, y = centre
        box = (x - radius, y - radius, x + radius, y + radius)
        self.painter.pieslice(self._grown(box), start, end, fill)

    def text(
        self, x: float, y: float, text: str, pen: Pen, ink: Colour, anchor: str = "ls", angle: float = 0.0
    ) -> Rect:
        """Put a text; returns the upright box around it.

        ``anchor`` names the point of the unrotated text that lies at (x, y) and about which it is turned: l, m or r,
        then t (top of the capitals), m, s (baseline) or b (foot of ``p``).
        """
        width = pen.width(text)
        u = {"l": 0.0, "m": -width / 2, "r": -width}[anchor[0]]
        v = {"t": pen.ascent, "m": pen.ascent / 2, "s": 0.0, "b": -pen.descent}[anchor[1]]
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        start = (x + u * cos + v * sin, y - u * sin + v * cos)
        corners = [
            (start[0] + a * cos + b * sin, start[1] - a * sin + b * cos)
            for a in (0.0, width)
            for b in (-pen.ascent, pen.descent)
        ]
        xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
        box = (min(xs), min(ys), max(xs), max(ys))
        if text:
            self.labels.append(Label(text, *start, angle, pen, ink, box))
        return box

    def inside(self, margin: float = 0.0) -> bool:
        """Whether every text lies within the picture."""
        return all(
            label.box[0] >= margin
            and label.box[1] >= margin
            and label.box[2] <= self.width - margin
            and label.box[3] <= self.height - margin
            for label in self.labels
        )

    def crowded(self) -> bool:
        """Whether two upright texts overlap."""
        boxes = np.array([label.box for label in self.labels if label.angle in (0.0, 90.0)]).reshape(-1, 4)
        overlap = (
            (boxes[:, None, 0] < boxes[None, :, 2] - 0.5)
            & (boxes[None, :, 0] < boxes[:, None, 2] - 0.5)
            & (boxes[:, None, 1] < boxes[None, :, 3] - 0.5)
            & (boxes[None, :, 1] < boxes[:, None, 3] - 0.5)
        )
        return int(overlap.sum()) > len(boxes)

    def picture(self) -> Image.Image:
        """The finished picture, mode RGB."""
        image = self.image.reduce(self.smooth) if self.smooth > 1 else self.image
        painter = ImageDraw.Draw(image)
        for label in self.labels:
            if label.angle == 0:
                label.pen.draw(painter, label.x, round(label.y), label.text, label.ink)
            else:
                _draw_turned(image, label)
        return image

    def glyphs(self) -> NDArray[np.float32]:
        """(G, 5) codepoint and box of every labelled area, then of every character but spaces."""
        rows: list[tuple[float, float, float, float, float]] = [(code, *box) for code, box in self.areas]
        for label in self.labels:
            pen, edges = label.pen, label.pen.edges(label.text)
            cos, sin = math.cos(math.radians(label.angle)), math.sin(math.radians(label.angle))
            middle = (pen.descent - pen.ascent) / 2
            tall = (pen.ascent + pen.descent) / 2
            for letter, left, right in zip(label.text, edges[:-1], edges[1:], strict=True):
                if letter == " ":
                    continue
                along, half = (left + right) / 2, (right - left) / 2
                x = label.x + along * cos + middle * sin
                y = label.y - along * sin + middle * cos
                dx, dy = (half, tall) if label.angle == 0 else (tall, half) if label.angle == 90 else (half, half * 1.4)
                rows.append((ord(letter), x - dx, y - dy, x + dx, y + dy))
        return np.array(rows, dtype=np.float32).reshape(-1, 5)

    def transcription(self) -> str:
        """All texts: rows from top to bottom by their middle, left to right."""
        order = sorted(self.labels, key=lambda label: (round((label.box[1] + label.box[3]) / 2), label.box[0]))
        rows: list[list[Label]] = []
        for label in order:
            middle = (label.box[1] + label.box[3]) / 2
            last = rows[-1][0].box if rows else None
            if last is not None and abs((last[1] + last[3]) / 2 - middle) < label.pen.size / 3 and label.angle == 0:
                rows[-1].append(label)
            else:
                rows.append([label])
        return "\n".join(" ".join(label.text for label in sorted(row, key=lambda label: label.box[0])) for row in rows)


def _draw_turned(image: Image.Image, label: Label) -> None:
    pen = label.pen
    width, above, below = math.ceil(pen.width(label.text)) + 2, math.ceil(pen.ascent) + 3, math.ceil(pen.descent) + 3
    mask = Image.new("L", (width, above + below), 0)
    ImageDraw.Draw(mask).text((1, above), label.text, 255, pen.font, anchor="ls")
    u, v = width / 2 - 1, (below - above) / 2  # middle of the mask, from the start of the baseline
    cos, sin = math.cos(math.radians(label.angle)), math.sin(math.radians(label.angle))
    middle = (label.x + u * cos + v * sin, label.y - u * sin + v * cos)
    if label.angle == 90:
        turned = mask.transpose(Image.Transpose.ROTATE_90)
    else:
        turned = mask.rotate(label.angle, Image.Resampling.BICUBIC, expand=True)
    corner = (round(middle[0] - turned.width / 2), round(middle[1] - turned.height / 2))
    image.paste(label.ink, (corner[0], corner[1], corner[0] + turned.width, corner[1] + turned.height), turned)
