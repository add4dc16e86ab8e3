"""What a renderer returns: an image, questions with answers, and where every character stands.

Transcription rule, the same for every renderer: one text line per printed row, from top to bottom; the pieces of a row
from left to right, joined by a single space; rows joined by a line feed. A run of four or more fill characters
(``- = * _ . ~ # +``, also with spaces between), drawn as a separator or as a leader between a name and its price, is
decoration and is not transcribed; shorter runs are text. Ruled lines, frames, logos and empty fields are not text. A
drawn check box is transcribed ``[x]`` or ``[ ]``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ABSENT_ANSWER = "The image does not show that."
"""The answer to a question whose answer is not in the image."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer, the answer spelled exactly as printed."""

    question: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """A rendered document with its ground truth."""

    image: Image.Image  # mode RGB
    turns: tuple[Turn, ...]  # in random order
    # (G, 5): codepoint, x0, y0, x1, y1 in pixels, inside the image; no spaces. Areas of slices of a pie come before the
    # characters (``mm.synthetic.chart_pies.share_code``).
    glyphs: NDArray[np.float32]
    text: str  # the whole transcription
    fields: dict[str, str]  # name of a field -> its value as printed ("total", "date", "store", form labels ...)
    kind: str  # the kind that was asked for
