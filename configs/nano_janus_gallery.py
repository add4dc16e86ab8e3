"""Twenty pictures of nano-janus, each beside the nearest picture that training may draw, for its card.

python configs/nano_janus_gallery.py docs/nano-janus

The first prompts of each kind of ``mm eval --task draw``: nobody chooses. The nearest of 20,000 training pictures is
the one of least squared difference at 32 x 32 pixels; beside it stands how near training pictures are to each other.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mm import Pipeline
from mm.evaluation.drawing import describe
from mm.evaluation.held_out_prompts import category_prompts, scene_prompts
from mm.evaluation.scene_checker import look
from mm.evaluation.wishes import judge
from mm.synthetic.drawing_scenes import SIDE, render

DRAWN, SEEN, SMALL, GAP = 20, 20_000, 32, 6
SEED = 11


def small(image: Image.Image) -> NDArray[np.float32]:
    """(3072,) pixels of a picture made small."""
    return np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX), dtype=np.float32).ravel()


def trained(index: int) -> Image.Image:
    """A picture that training may draw."""
    return render("drawing", np.random.default_rng((SEED, index)), None).image  # type: ignore[arg-type]


def nearest(pixels: NDArray[np.float32], book: NDArray[np.float32], *, skip: int = 0) -> tuple[NDArray, NDArray]:
    """Number and RMS difference (0 to 255) of the nearest in the book; the nearest but one with ``skip`` 1."""
    squared = (pixels**2).sum(1)[:, None] + (book**2).sum(1) - 2 * pixels @ book.T  # (pictures, book)
    order = np.argsort(squared, axis=1)[:, skip]
    found = np.take_along_axis(squared, order[:, None], axis=1)[:, 0]
    return order, np.sqrt(np.maximum(found, 0) / pixels.shape[1])


def main(folder: Path) -> None:
    """Writes samples.png and README.md."""
    prompts = [*category_prompts(12), *(prompt for prompt in scene_prompts(2) if "position" not in prompt.row)]
    pipe = Pipeline.from_pretrained("nano-janus", device="cpu", dtype="float32")
    images = pipe.generate_images([prompt.text for prompt in prompts[:DRAWN]], seed=SEED).images
    assert isinstance(images, list) and len(images) == DRAWN
    book = np.stack([small(trained(index)) for index in range(SEEN)])
    order, away = nearest(np.stack([small(image) for image in images]), book)
    _, usual = nearest(book[:200], book, skip=1)
    columns, cell = 5, 2 * SIDE + GAP
    sheet = Image.new("RGB", (columns * (cell + 3 * GAP), DRAWN // columns * (SIDE + 3 * GAP)), "white")
    rows = []
    for index, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        x, y = index % columns * (cell + 3 * GAP), index // columns * (SIDE + 3 * GAP)
        sheet.paste(image, (x, y))
        sheet.paste(trained(int(order[index])), (x + SIDE + GAP, y))
        seen = look(image)
        verdict = "right" if judge(seen, prompt.wish).right else "**wrong**"
        cells = (str(index + 1), prompt.row, prompt.text, describe(seen), verdict, f"{away[index]:.0f}")
        rows.append(f"| {' | '.join(cells)} |")
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "samples.png", optimize=True)
    text = [
        "# nano-janus: twenty pictures, and what training may draw that is nearest",
        "",
        "`python configs/nano_janus_gallery.py docs/nano-janus`: the first prompts of each kind of `mm eval",
        f"--task draw`, seed {SEED}. Left of each pair what was drawn, right the nearest of {SEEN:,} training",
        f"pictures (least squared difference at {SMALL} x {SMALL} pixels).",
        "",
        "![Twenty pairs](samples.png)",
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
