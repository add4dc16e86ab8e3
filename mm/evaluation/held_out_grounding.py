"""Boxes: fields of the held-out receipts and forms, objects of the held-out scenes.

A box is the smallest upright one around the ink of the value or around the object, as it lies in the picture: it is
measured on a mask that goes through the same turn as the page. Only fields are asked for whose value is printed once.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from mm.chat import TASK_PROMPTS
from mm.evaluation.held_out_canvas import Document, DoesNotFitError, Print, Question, Sheet, Shot, compose, wording
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_forms import DESIGNS as FORMS
from mm.evaluation.held_out_receipts import DESIGNS as RECEIPTS
from mm.evaluation.held_out_scenes import photographed
from mm.grounding import COORDINATE_MAX, DET_CLOSE, DET_OPEN, REF_CLOSE, REF_OPEN

QUERIES = {
    "total": ("the total", "the total amount", "total", "the sum to pay"),
    "date": ("the date", "the printed date", "date", "the date of issue"),
    "store": ("the name of the store", "the store", "the shop's name", "the store name"),
    "price": ("the price of {}", "price of {}", "the amount for {}"),
    "value": ("the {}", "{}", "the value of {}", "the {} on the form"),
}
"""How fields are asked for, by skill of the question on them."""

ASKED = 2  # boxes a picture

Box = tuple[float, float, float, float]


def box_answer(query: str, boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """Boxes in pixels of a picture of ``size`` as DeepSeek-VL2 writes them, from left to right."""
    scale = [COORDINATE_MAX / size[0], COORDINATE_MAX / size[1]] * 2
    whole = sorted([round(value * by) for value, by in zip(box, scale, strict=True)] for box in boxes)
    return f"{REF_OPEN}{query}{REF_CLOSE}{DET_OPEN}{whole}{DET_CLOSE}"


def ink_box(sheet: Sheet, shot: Shot, text: str) -> tuple[Box, tuple[int, int]] | None:
    """The box around the ink of a text in the picture, and the size of the picture; None unless it is printed once."""
    found = [(one, one.text.index(text)) for one in sheet.prints if text in one.text]
    if len(found) != 1 or sum(one.text.count(text) for one in sheet.prints) != 1:
        return None
    (one, start), page = found[0], sheet.finish()
    mask = shot.take(_mask(one, start, len(text), page.size), 0)
    box = mask.point(lambda value: 255 * (value > 96)).getbbox()
    return None if box is None else ((float(box[0]), float(box[1]), float(box[2]), float(box[3])), mask.size)


def _mask(one: Print, start: int, length: int, size: tuple[int, int]) -> Image.Image:
    """White letters on black: some characters of what is printed."""
    mask = Image.new("L", size, 0)
    x = one.x + one.font.getlength(one.text[:start])
    ImageDraw.Draw(mask).text(
        (round(x), one.baseline), one.text[start : start + length], font=one.font, fill=255, anchor="ls"
    )
    return mask


def _ask_fields(rng: Generator, sheet: Sheet, questions: tuple[Question, ...], shot: Shot) -> tuple[Question, ...]:
    asked: list[Question] = []
    for place in rng.permutation(len(questions)):
        question = questions[int(place)]
        query = wording(rng, QUERIES[question.skill]).format(question.about)
        found = ink_box(sheet, shot, question.answer)
        if found is not None and len(asked) < ASKED:
            answer = box_answer(query, [found[0]], found[1])
            asked.append(Question("fields", TASK_PROMPTS["ground"].format(query=query), answer, "boxes"))
    if len(asked) < ASKED:
        raise DoesNotFitError("too few values are printed just once")
    return tuple(asked)


def _objects(rng: Generator) -> Document:
    """A scene; asks for a group by its full name and for another one, or for all of a shape or colour."""
    while True:
        scene, image, boxes = photographed(rng)
        if [len(found) for found in boxes] == [len(group.centres) for group in scene.groups]:
            break
    queries: dict[str, list[Box]] = {}
    for group, found in zip(scene.groups, boxes, strict=True):
        queries[
            wording(rng, ("the {}", "{}", "all {}" if len(found) > 1 else "the {} in the picture")).format(group.name())
        ] = found
        for key, value, noun in (("shape", group.shape, ""), ("colour", group.colour, "object")):
            alike = [
                box
                for other, theirs in zip(scene.groups, boxes, strict=True)
                if getattr(other, key) == value
                for box in theirs
            ]
            name = f"{value} {noun}".strip()
            plural = "" if len(alike) == 1 else "es" if name.endswith("s") else "s"
            queries[f"the {name}{plural}"] = alike
    chosen = [list(queries)[int(place)] for place in rng.permutation(len(queries))[:ASKED]]
    asked = tuple(
        Question(
            "objects",
            TASK_PROMPTS["ground"].format(query=query),
            box_answer(query, queries[query], image.size),
            "boxes",
        )
        for query in chosen
    )
    return Document(image, "", asked, "scene", 0.0)


def render_grounding(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The picture number ``index`` of the endless held-out series ``seed``: receipt, scene, form, scene in turn."""
    turn = index // 4
    if index % 2:
        return _objects(np.random.default_rng((seed, 7, index)))
    designs = FORMS if index % 4 else RECEIPTS
    design = partial(designs[turn % len(designs)], fonts=fonts)
    document = compose(design, (seed, 7, index), desk_share=0.2, ask=_ask_fields)
    return Document(document.image, "", document.questions, document.style, document.glyph_height)
