"""Contact sheets of synthetic documents, to look at what a model is trained on.

python -m mm.synthetic.preview --kind receipt --out FILE.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mm.grounding import parse_boxes
from mm.synthetic.fonts import FontSet, Split
from mm.synthetic.render import RENDERERS, render
from mm.synthetic.sample import Sample


def contact_sheet(samples: list[Sample], *, across: int, cell: int, boxes: bool) -> Image.Image:
    """The samples in a grid, each scaled to at most ``cell`` pixels, with its questions and answers below."""
    caption = 118
    down = -(-len(samples) // across)
    sheet = Image.new("RGB", (across * cell, down * (cell + caption)), (225, 225, 235))
    painter = ImageDraw.Draw(sheet)
    for index, sample in enumerate(samples):
        x, y = index % across * cell, index // across * (cell + caption)
        image = sample.image.copy()
        if boxes:
            marker = ImageDraw.Draw(image)
            for _, x0, y0, x1, y1 in sample.glyphs.tolist():
                marker.rectangle((x0, y0, x1, y1), outline=(255, 0, 0))
            for box in (box for turn in sample.turns for box in parse_boxes(turn.answer, [image.size])):
                if box.xyxy is not None:
                    marker.rectangle(box.xyxy, outline=(0, 90, 255), width=2)
        scale = min(1.0, (cell - 6) / image.width, (cell - 6) / image.height)
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        sheet.paste(image, (x + 3, y + 3))
        lines = [f"{sample.image.width}x{sample.image.height}"]
        lines += [f"{turn.question} -> {turn.answer!r}" for turn in sample.turns]
        for number, text in enumerate(lines[:9]):
            painter.text((x + 3, y + cell + 12 * number), text[: cell // 6], fill=(0, 0, 120), font_size=11)
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="A contact sheet of synthetic documents.")
    parser.add_argument("--kind", choices=RENDERERS.names(), default="receipt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--across", type=int, default=4)
    parser.add_argument("--cell", type=int, default=380, help="pixels of one image on the sheet")
    parser.add_argument("--level", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "held_out"), default="train")
    parser.add_argument("--fonts", action="append", help="folder with fonts (default: the system's)")
    parser.add_argument("--boxes", action="store_true", help="draw the boxes of glyphs and of answers")
    options = parser.parse_args()
    split: Split = options.split
    fonts = FontSet.find(split, options.fonts)
    rng = np.random.default_rng(options.seed)
    samples = [render(options.kind, rng, fonts, options.level) for _ in range(options.count)]
    contact_sheet(samples, across=options.across, cell=options.cell, boxes=options.boxes).save(options.out)


if __name__ == "__main__":
    main()
