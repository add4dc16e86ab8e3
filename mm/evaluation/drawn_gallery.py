"""Twenty pictures that a model draws, each beside the nearest picture that training may draw, for its card.

The first prompts of each kind of ``mm eval --task draw``: nobody chooses. The nearest of 20,000 training pictures is
the one of least squared difference at 32 x 32 pixels; beside it stands how near training pictures are to each other.

This is the one module of evaluation that sees what training draws: to show how far a model is from it, never to judge.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mm.evaluation.drawing import describe
from mm.evaluation.held_out_prompts import Prompt, category_prompts, scene_prompts
from mm.evaluation.scene_checker import look
from mm.evaluation.wishes import judge
from mm.pipeline import Pipeline
from mm.synthetic.drawing_scenes import SIDE, render
from mm.synthetic.fonts import FontSet

SEED = 11
TRAINING_PICTURES = 20_000
_SMALL, _GAP, _COLUMNS = 32, 6, 5


def shown_prompts() -> list[Prompt]:
    """The twenty."""
    whole = [prompt for prompt in scene_prompts(2) if "position" not in prompt.row]
    return [*category_prompts(12), *whole][:20]


def write_drawn_gallery(
    pipe: Pipeline, folder: Path, *, prompts: Sequence[Prompt], training_pictures: int = TRAINING_PICTURES
) -> int:
    """Writes ``samples.png`` and ``README.md``; returns how many pictures were drawn.

    Args:
        pipe: of a model that draws.
        folder: made if it is not there.
        prompts: one picture each.
        training_pictures: how many are searched for the nearest, 2 or more.

    Raises:
        TaskError: the model does not draw.
    """
    images = pipe.generate_images([prompt.text for prompt in prompts], seed=SEED).images
    assert isinstance(images, list)
    book = np.stack([_small(_trained(index)) for index in range(training_pictures)])
    order, away = _nearest(np.stack([_small(image) for image in images]), book)
    _, usual = _nearest(book[:200], book, skip=1)
    cell, lines = 2 * SIDE + _GAP, -(-len(prompts) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (cell + 3 * _GAP), lines * (SIDE + 3 * _GAP)), "white")
    rows = []
    for index, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        x, y = index % _COLUMNS * (cell + 3 * _GAP), index // _COLUMNS * (SIDE + 3 * _GAP)
        sheet.paste(image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE)), (x, y))
        sheet.paste(_trained(int(order[index])), (x + SIDE + _GAP, y))
        seen = look(image)
        verdict = "right" if judge(seen, prompt.wish).right else "**wrong**"
        cells = (str(index + 1), prompt.row, prompt.text, describe(seen), verdict, f"{away[index]:.0f}")
        rows.append(f"| {' | '.join(cells)} |")
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "samples.png", optimize=True)
    text = [
        f"# {pipe.name}: pictures that it drew, and what training may draw that is nearest",
        "",
        f"`python -m mm.evaluation.gallery {pipe.name} {folder}`: the first prompts of each kind of `mm eval",
        f"--task draw`, seed {SEED}. Left of each pair what was drawn, right the nearest of {training_pictures:,}",
        f"pictures that training may draw (least squared difference at {_SMALL} x {_SMALL} pixels).",
        "",
        "![Pairs of pictures](samples.png)",
        "",
        "The distance is the root of the mean squared difference, of 255. Training pictures are",
        f"{np.median(usual):.0f} from their own nearest one (median; a quarter of them less than",
        f"{np.percentile(usual, 25):.0f}); what was drawn, {np.median(away):.0f}.",
        "",
        "| | kind | prompt | seen by the checker | | distance |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]
    (folder / "README.md").write_text("\n".join(text), encoding="utf-8")
    return len(images)


def _small(image: Image.Image) -> NDArray[np.float32]:
    """(3072,) pixels of a picture made small."""
    return np.asarray(image.resize((_SMALL, _SMALL), Image.Resampling.BOX), dtype=np.float32).ravel()


def _trained(index: int) -> Image.Image:
    """A picture that training may draw."""
    return render("drawing", np.random.default_rng((SEED, index)), FontSet("train", ())).image


def _nearest(
    pixels: NDArray[np.float32], book: NDArray[np.float32], *, skip: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Number and RMS difference (0 to 255) of the nearest in the book; the nearest but one with ``skip`` 1."""
    squared = (pixels**2).sum(1)[:, None] + (book**2).sum(1) - 2 * pixels @ book.T  # (pictures, book)
    order = np.argsort(squared, axis=1)[:, skip]
    found = np.take_along_axis(squared, order[:, None], axis=1)[:, 0]
    return order, np.sqrt(np.maximum(found, 0) / pixels.shape[1])
