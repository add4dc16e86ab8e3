"""Questions that the picture cannot answer, on every kind of held-out picture.

Half of them are near misses: goods that this receipt does not list, labels that this form does not have, a shape that
is not in the scene. A question is only asked where nothing on the page could be taken for its answer.
"""

import re
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from mm.evaluation.captions import COLOURS, SHAPES
from mm.evaluation.held_out_canvas import Ask, Document, DoesNotFitError, Question, Sheet, Shot, compose, wording
from mm.evaluation.held_out_fields import VALUE_PROMPTS
from mm.evaluation.held_out_fonts import HeldOutFonts
from mm.evaluation.held_out_forms import DESIGNS as FORMS
from mm.evaluation.held_out_goods import PRICE_PROMPTS, food, thing
from mm.evaluation.held_out_paragraphs import render_paragraph
from mm.evaluation.held_out_receipts import DESIGNS as RECEIPTS
from mm.evaluation.held_out_scenes import Scene, photographed
from mm.evaluation.held_out_words import chance, pick
from mm.evaluation.tasks import TASKS, load_renderer

SKILL = "says so"
WANTED = "The image does not show that."  # one way to say it; the scorer "absent" knows others

_PHONE = r"tel|ph\b|phone|call|\d{3}[-/) ]+\d{3}|\+\d"
_ANYWHERE = (  # questions, and what would be (or look like) an answer
    (("What is the website?", "Which web address is given?"), r"www|http|\.com|\.org|\.net"),
    (("What is the e-mail address?", "Which email address is printed?"), r"@|mail"),
    (("What is the phone number?", "Which number can I call?"), _PHONE),
    (("What is the title of the chart?", "What does the x-axis show?"), r"chart|axis"),
    (("What is the blood type?", "Which blood group is given?"), r"blood"),
    (("What is the passport number?", "Which passport number is written there?"), r"passport"),
    (("What is the license plate?", "What is the number of the car?"), r"plate|vehicle|car\b|\b[a-z]{3}-\d{3}"),
)
_RECEIPTS = (
    (("How much was the tip?", "What is the tip?"), r"tip|gratuity|service"),
    (("What is the discount?", "How much was taken off the price?"), r"discount|off\b|rebate"),
    (("Who was the cashier?", "What is the name of the cashier?"), r"cashier|agent|driver|guest|to:|customer"),
    (("What is the table number?", "At which table was it?"), r"table"),
    (("What is the date of birth?", "When was the customer born?"), r"birth|born"),
)
_LABELS = {  # labels a form might have, and what would be (or look like) their value under another label
    "Date of birth": r"birth",
    "Phone": _PHONE,
    "Email": r"mail|@",
    "Occupation": r"occupation|position|employer|profession",
    "Passport no.": r"passport",
    "Blood type": r"blood",
    "Height": r"height|cm\b",
    "IBAN": r"iban|account",
    "Salary": r"salary|fee",
    "Postal code": r"postal|zip|code|address|\d{5}",
    "Physician": r"physician|doctor|dr\.",
    "Vehicle": r"vehicle|car\b",
    "School": r"school|college|academy",
    "Policy number": r"policy",
    "Nationality": r"national",
    "Insurance no.": r"insurance",
}
_PAGES = (
    (("What is the total?", "How much is the total?"), r"total|sum\b"),
    (("What is the invoice number?", "Which invoice number is given?"), r"invoice|no\."),
    (("What is the date of birth?", "When was the writer born?"), r"birth|born"),
    (("Which store is this receipt from?", "What is the name of the store?"), r"store|shop"),
)
_SCENES = (
    ("What is the total?", "How much is the total?"),
    ("What is the date?", "Which date is printed?"),
    ("What is written in the picture?", "What does the sign say?"),
    ("Which animal is this?", "What kind of animal is in the picture?"),
    ("What is the name of the person?", "Who is in the picture?"),
    ("What is the title?", "What is the heading?"),
)


def _absent(rng: Generator, prompts: tuple[str, ...]) -> tuple[Question, ...]:
    return (Question(SKILL, wording(rng, prompts), WANTED, "absent"),)


def _apart(text: str, words: str) -> bool:
    """Whether no word of three letters or more occurs in the text, which is in small letters."""
    return not any(word in text for word in re.findall(r"[a-z]{3,}", words.lower()))


def _any_of(rng: Generator, text: str, pool: tuple[tuple[tuple[str, ...], str], ...]) -> tuple[Question, ...]:
    """One question of a pool that nothing in the text could answer."""
    free = [prompts for prompts, taken in pool if not re.search(taken, text)]
    if not free:
        raise DoesNotFitError("every question of the pool may have an answer")
    return _absent(rng, pick(rng, free))


def _stranger(rng: Generator, text: str, make: Callable[[Generator], str]) -> tuple[Question, ...]:
    """The price of something that the text does not mention."""
    for _ in range(20):
        item = make(rng)
        if _apart(text, item):
            return _absent(rng, tuple(prompt.format(item) for prompt in PRICE_PROMPTS))
    raise DoesNotFitError("everything that comes to mind is on the page")


def _on_receipt(rng: Generator, sheet: Sheet, questions: tuple[Question, ...], shot: Shot) -> tuple[Question, ...]:
    del questions, shot
    text = "\n".join(sheet.rows).lower()
    if chance(rng, 0.5):
        return _stranger(rng, text, pick(rng, (food, thing)))
    return _any_of(rng, text, _RECEIPTS + _ANYWHERE)


def _on_form(rng: Generator, sheet: Sheet, questions: tuple[Question, ...], shot: Shot) -> tuple[Question, ...]:
    del questions, shot
    text = "\n".join(sheet.rows).lower()
    if chance(rng, 0.25):
        return _any_of(rng, text, _PAGES[:2] + _ANYWHERE)
    free = [label for label, taken in _LABELS.items() if not re.search(taken, text)]
    if not free:
        raise DoesNotFitError("every label may be on the form")
    label = pick(rng, free)
    return _absent(rng, tuple(prompt.format(label) for prompt in VALUE_PROMPTS))


def _on_page(rng: Generator, text: str) -> tuple[Question, ...]:
    if chance(rng, 0.4):
        return _stranger(rng, text, pick(rng, (food, thing)))
    return _any_of(rng, text, _PAGES + _ANYWHERE)


def _on_scene(rng: Generator, scene: Scene) -> tuple[Question, ...]:
    shown = {group.shape for group in scene.groups}
    colours = {group.colour for group in scene.groups} | {scene.background}
    shape = pick(rng, [name for name in SHAPES if name not in shown])
    colour = pick(rng, [name for name in COLOURS if name not in colours])
    near = (
        (f"What color is the {shape}?", f"Which color does the {shape} have?", f"What is the color of the {shape}?"),
        (f"What shape is the {colour} object?", f"Which shape is {colour}?"),
        (f"Where is the {colour} {shape}?", f"Where in the picture is the {colour} {shape}?"),
    )
    return _absent(rng, pick(rng, near if chance(rng, 0.6) else _SCENES))


Draw = Callable[[Generator, HeldOutFonts], tuple[Sheet, tuple[Question, ...], str]]


def _document(kind: str, turn: int, fonts: HeldOutFonts, seed: int, designs: tuple[Draw, ...], ask: Ask) -> Document:
    design = designs[turn % len(designs)]
    document = compose(lambda rng: design(rng, fonts), (seed, 8, len(kind), turn), desk_share=0.2, ask=ask)
    return Document(document.image, "", document.questions, kind, document.glyph_height)


def render_unanswerable(index: int, fonts: HeldOutFonts, *, seed: int = 0) -> Document:
    """The picture number ``index`` of the endless held-out series ``seed``; kinds take turns."""
    kinds = (
        "receipts",
        "forms",
        "paragraphs",
        "scenes",
        *(name for name in ("charts", "data_tables") if name in TASKS),
    )
    kind, turn = kinds[index % len(kinds)], index // len(kinds)
    rng = np.random.default_rng((seed, 8, index))
    if kind == "receipts":
        return _document(kind, turn, fonts, seed, RECEIPTS, _on_receipt)
    if kind == "forms":
        return _document(kind, turn, fonts, seed, FORMS, _on_form)
    if kind == "scenes":
        scene, image, _ = photographed(rng)
        return Document(image, "", _on_scene(rng, scene), kind, 0.0)
    if kind == "paragraphs":
        document = render_paragraph(turn, fonts, seed=seed + 1000)
        return Document(document.image, "", _on_page(rng, document.text.lower()), kind, document.glyph_height)
    return _on_data(kind, turn, fonts, seed)


def _on_data(kind: str, turn: int, fonts: HeldOutFonts, seed: int) -> Document:
    """A chart or table with the question of its own renderer that it cannot answer."""
    for attempt in range(20):
        document = load_renderer(kind)(20 * turn + attempt, fonts, seed=seed + 1000)
        own = [question for question in document.questions if question.scorer == "absent"]
        if own:
            asked = (Question(SKILL, own[0].prompt, own[0].answer, "absent"),)
            return Document(document.image, "", asked, kind, document.glyph_height)
    raise RuntimeError(f"twenty documents of the task {kind} have no question that cannot be answered")
