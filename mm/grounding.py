"""Boxes in an answer: read them from the text, and draw them on the image.

DeepSeek-VL2 writes ``<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>``: integers 0..999 over the width and
height of the image, 999 being the far edge (the scale of the official ``inference.py``). The text is a model's output:
it is scanned, never evaluated, and whatever cannot be read becomes a box that is not valid and says why.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

REF_OPEN, REF_CLOSE, DET_OPEN, DET_CLOSE = "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>"
BOX_TOKENS = (REF_OPEN, REF_CLOSE, DET_OPEN, DET_CLOSE)
COORDINATE_MAX = 999  # official inference.py: x / 999 * width

_TAGS = re.compile(r"<\|/?(?:ref|det)\|>")
_BRACKETS = re.compile(r"[\[\]]|[^\[\]]+")
_IMAGE_NAME = re.compile(r"(?<![A-Za-z0-9])image[ _]?#?([0-9]{1,4})(?![A-Za-z0-9])", re.IGNORECASE)

_COLOURS = (
    (214, 39, 40),
    (31, 119, 180),
    (44, 160, 44),
    (255, 127, 14),
    (148, 103, 189),
    (23, 190, 207),
    (227, 119, 194),
    (140, 86, 75),
    (188, 189, 34),
    (0, 0, 128),
)


@dataclass(frozen=True)
class Box:
    """One box that an answer names.

    Attributes:
        label: the text between ``<|ref|>`` and ``<|/ref|>``, stripped; empty when there is none.
        xyxy: left, top, right, bottom in pixels of image ``image_index``, 0..width and 0..height; None unless valid.
        normalized: the same as written, integers 0..999; None unless valid.
        image_index: which image of the conversation, from 0; -1 when there is no image.
        valid: whether these are four integers in range with their corners in order, in a closed list.
        reason: why the box is not valid; empty when it is.
        text: the coordinates as the model wrote them.
    """

    label: str
    xyxy: tuple[float, float, float, float] | None
    normalized: tuple[int, int, int, int] | None
    image_index: int
    valid: bool
    reason: str
    text: str


def parse_boxes(text: str, image_sizes: Sequence[tuple[int, int]]) -> list[Box]:
    """Every box of an answer, in order; text without ``<|det|>`` gives none. Never raises on what the text contains.

    Which image a box lies on: the official code draws on the last image, and so does this, unless the text names
    another one as ``image_2``, ``image 2`` or ``Image #2`` (counted from 1). A name holds from where it stands, also
    inside the label, until the next name. With one image, names are ignored.

    Args:
        text: a decoded answer, special tokens kept.
        image_sizes: (width, height) in pixels of every image of the conversation, in order.
    """
    boxes: list[Box] = []
    label, image_index = "", len(image_sizes) - 1
    tags = list(_TAGS.finditer(text))
    spans = [(tag, text[tag.end() : following.start()]) for tag, following in pairwise(tags)]
    if tags:
        image_index = _named_image(text[: tags[0].start()], image_index, len(image_sizes))
        spans.append((tags[-1], text[tags[-1].end() :]))
    for position, (tag, content) in enumerate(spans):
        if tag.group() == DET_OPEN:
            closed = position + 1 < len(spans) and spans[position + 1][0].group() == DET_CLOSE
            size = image_sizes[image_index] if image_sizes else None
            boxes += _boxes_of_list(content, closed, label, image_index, size)
            continue
        image_index = _named_image(content, image_index, len(image_sizes))
        if tag.group() == REF_OPEN:
            label = content.strip()
        elif tag.group() == DET_CLOSE and content.strip():
            label = ""  # a list that directly follows another one shares its label
    return boxes


def _named_image(text: str, current: int, num_images: int) -> int:
    """The image that ``text`` names last, else ``current``."""
    if num_images > 1:
        for match in _IMAGE_NAME.finditer(text):
            if 1 <= int(match.group(1)) <= num_images:
                current = int(match.group(1)) - 1
    return current


def _boxes_of_list(content: str, closed: bool, label: str, image_index: int, size: tuple[int, int] | None) -> list[Box]:
    """Read what stands between ``<|det|>`` and the next tag."""
    groups, problem = _split_groups(content)
    boxes = []
    for group in groups:
        normalized, reason = _read_group(group)
        if not closed:
            reason = f"the list is not closed by {DET_CLOSE}"
        elif size is None:
            reason = "the conversation has no image"
        if reason or normalized is None or size is None:
            boxes.append(Box(label, None, None, image_index, False, reason, f"[{group}]"))
            continue
        width, height = size
        x1, y1, x2, y2 = (value / COORDINATE_MAX for value in normalized)
        pixels = (x1 * width, y1 * height, x2 * width, y2 * height)
        boxes.append(Box(label, pixels, normalized, image_index, True, "", f"[{group}]"))
    if problem:
        boxes.append(Box(label, None, None, image_index, False, problem, content.strip()))
    return boxes


def _split_groups(content: str) -> tuple[list[str], str]:
    """``[[a], [b]]`` -> (["a", "b"], ""). What does not have that form ends the reading with a problem."""
    groups: list[str] = []
    group, depth = "", 0
    separated = True  # whether the next group may start: first in the list, or after a comma
    for match in _BRACKETS.finditer(content.strip()):
        piece = match.group()
        if piece == "[":
            depth += 1
            if depth > 2:
                return groups, "lists are nested deeper than [[x1, y1, x2, y2], ...]"
            if depth == 2:
                if not separated:
                    return groups, "no comma between two boxes"
                separated, group = False, ""
        elif piece == "]":
            depth -= 1
            if depth == 1:
                groups.append(group)
            if depth < 0:
                return groups, "a bracket closes that was never opened"
            if depth == 0:
                rest = content.strip()[match.end() :]
                if rest:
                    return groups, "text follows the closing bracket"
                return groups, "" if groups else "the list holds no [x1, y1, x2, y2]"
        elif depth == 2:
            group = piece
        elif depth == 1 and groups and piece.strip() == ",":
            separated = True
        elif depth == 0 or piece.strip():
            return groups, "not of the form [[x1, y1, x2, y2], ...]"
    return groups, "a bracket is not closed" if depth else "the list is empty"


def _read_group(group: str) -> tuple[tuple[int, int, int, int] | None, str]:
    """``x1, y1, x2, y2`` -> (numbers, ""), or (None, what is wrong)."""
    parts = [part.strip(" \t\r\n") for part in group.split(",")]
    if len(parts) != 4:
        return None, f"{len([p for p in parts if p])} numbers where 4 are needed"
    for part in parts:
        if part.isascii() and part.isdigit() and int(part[-9:]) <= COORDINATE_MAX and not part[:-9].strip("0"):
            continue
        shown = part if len(part) <= 20 else part[:20] + "..."
        return None, f"{shown!r} is not an integer in 0..{COORDINATE_MAX}"
    x1, y1, x2, y2 = (int(part[-9:]) for part in parts)
    if x1 > x2 or y1 > y2:
        return None, f"the corners ({x1}, {y1}) and ({x2}, {y2}) are not in order"
    return (x1, y1, x2, y2), ""


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box], *, image_index: int | None = None, font_size: int | None = None
) -> Image.Image:
    """A copy of ``image`` in mode RGB with every valid box and its label drawn on it, one colour a label.

    Args:
        image: left as it is.
        boxes: those that are not valid are skipped.
        image_index: draw only the boxes of this image; None draws all of them.
        font_size: of the labels in pixels of the image; None takes a 32nd of its shorter side, at least 11.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    canvas = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 160))
    font = ImageFont.load_default(size=font_size or max(11, round(min(drawn.size) / 32)))
    colours: dict[str, tuple[int, int, int]] = {}
    chosen = [box for box in boxes if box.valid and image_index in (None, box.image_index)]
    for box in chosen:
        colour = colours.setdefault(box.label, _COLOURS[len(colours) % len(_COLOURS)])
        if box.xyxy is not None:
            canvas.rectangle(_inside(box.xyxy, drawn.size), outline=colour, width=line)
    for box in chosen:  # after every outline, so that no line crosses a label
        if box.xyxy is not None:
            _draw_label(canvas, box.label, _inside(box.xyxy, drawn.size), colours[box.label], font, drawn.size)
    return drawn


def _inside(xyxy: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels within an image of ``size``."""
    x1, y1, x2, y2 = (round(value) for value in xyxy)
    right, bottom = size[0] - 1, size[1] - 1
    return min(max(x1, 0), right), min(max(y1, 0), bottom), min(max(x2, 0), right), min(max(y2, 0), bottom)


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    label: str,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Text on a filled field above the box, or inside it where the image ends; nothing where no text fits."""
    text = _fit_text(canvas, "".join(c if c.isprintable() else " " for c in label), font, size[0] - 4)
    if not text:
        return
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = int(right - left) + 4, int(bottom - top) + 4
    if height > size[1]:
        return
    x = min(box[0], size[0] - width)
    y = box[1] - height if box[1] >= height else min(box[1], size[1] - height)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]  # ITU-R BT.601
    canvas.text((x + 2 - left, y + 2 - top), text, font=font, fill=(0, 0, 0) if luminance > 140 else (255, 255, 255))


def _fit_text(
    canvas: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """``text``, cut with three dots where it is wider than ``width`` pixels; empty where not even that fits."""
    text = " ".join(text.split())[:200]
    shown = text
    while shown and canvas.textlength(shown, font=font) > width:
        text = text[:-1].rstrip()
        shown = f"{text}..." if text else ""
    return shown
