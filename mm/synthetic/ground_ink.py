"""Where printed text stands: boxes around its ink.

Box convention of every text that a model is asked to find: the smallest upright box around the visible ink of the whole
text, as Pillow's ``textbbox`` gives it. "12.50" reaches from the baseline to the top of its digits, "sun" only to the
top of its small letters, "(g)" from bracket to bracket. The glyph boxes of a ``Sample`` are taller: each one is a line
box, from the top of "d" to the foot of "p", and as wide as the pen moves. ``ink_box`` makes ink of them with each
letter's usual height, the median over the training fonts (nine of ten fonts are within 0.1 of the ascender's height).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]

_BASELINE = 0.77  # of a line box, from its top: the median over the training fonts
_BEARING = 0.05  # blank on either side of a letter, in heights of a line box
_SMALL = 0.70  # top of "x" above the baseline, in heights of "d"


def _spans() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(256,) top of each character above the baseline in heights of "d", and (256,) its foot below in depths of "p"."""
    top, foot = np.full(256, 0.97), np.full(256, 0.05)
    for letters, high, low in (
        ("acemnorsuvwxz:", _SMALL, 0.05),
        ("gpqy", _SMALL, 1.0),
        ("bdfhikl", 1.0, 0.05),
        ("t", 0.89, 0.06),
        ("j", 1.0, 1.0),
        (";", _SMALL, 0.64),
        ("()[]{}|", 1.0, 0.67),
        ("/\\@$", 1.0, 0.35),
        ("Q", 0.98, 0.5),
        (",", 0.16, 0.64),
        (".", 0.17, 0.06),
        ("_", 0.0, 0.62),
        ("-", 0.43, -1.0),
        ("~=", 0.58, -0.7),
        ("+<>", 0.77, 0.0),
        ("\"'*^`", 1.0, -2.0),
    ):
        for letter in letters:
            top[ord(letter)], foot[ord(letter)] = high, low
    return top, foot


_TOP, _FOOT = _spans()


def ink_box(glyphs: NDArray[np.float32]) -> Box:
    """The box around the ink of a text.

    Args:
        glyphs: (G, 5) codepoint and line box of each of its characters, as in ``Sample.glyphs``, at least one.
    """
    codes = np.minimum(glyphs[:, 0].astype(np.int64), 255)
    heights = glyphs[:, 4] - glyphs[:, 2]
    baseline = glyphs[:, 2] + _BASELINE * heights
    top = baseline - _TOP[codes] * _BASELINE * heights
    foot = baseline + _FOOT[codes] * (1.0 - _BASELINE) * heights
    first, last = int(glyphs[:, 1].argmin()), int(glyphs[:, 3].argmax())
    x0 = float(glyphs[first, 1] + _BEARING * heights[first])
    x1 = float(glyphs[last, 3] - _BEARING * heights[last])
    y0, y1 = float(top.min()), float(foot.max())
    if x1 - x0 < 2.0:
        x0, x1 = float(glyphs[:, 1].min()), float(glyphs[:, 3].max())
    return (x0, y0, x1, max(y1, y0 + 1.0))


def find_runs(glyphs: NDArray[np.float32], text: str) -> list[NDArray[np.float32]]:
    """Every (L, 5) run of glyphs that spells ``text`` (spaces left out), in the order of the glyphs."""
    letters = [ord(letter) for letter in text if not letter.isspace()]
    codes, count = glyphs[:, 0].astype(np.int64), len(letters)
    if count == 0 or count > len(codes):
        return []
    starts = np.flatnonzero(codes[: len(codes) - count + 1] == letters[0])
    for step in range(1, count):
        starts = starts[codes[starts + step] == letters[step]]
    return [glyphs[start : start + count] for start in starts.tolist()]


def find_glyphs(glyphs: NDArray[np.float32], text: str) -> NDArray[np.float32] | None:
    """(L, 5) glyphs of the only place where ``text`` (spaces left out) is printed on one level line, or None."""
    runs = find_runs(glyphs, text)
    return runs[0] if len(runs) == 1 and _is_level(runs[0]) else None


def find_in_row(glyphs: NDArray[np.float32], rows: Sequence[str], text: str, row: int) -> Box | None:
    """The ink box of ``text`` in one of the printed rows, where it stands in others too.

    Args:
        glyphs: (G, 5) of the whole page, row after row.
        rows: the transcription.
        text: what to find; it must stand once in that row.
        row: which one.

    Returns:
        None where the glyphs do not follow the rows.
    """
    wanted = "".join(text.split())
    counts = ["".join(line.split()).count(wanted) for line in rows]
    runs = find_runs(glyphs, text)
    if counts[row] != 1 or len(runs) != sum(counts):
        return None
    run = runs[sum(counts[:row])]
    before, after = runs[: sum(counts[:row])], runs[sum(counts[:row]) + 1 :]
    in_order = all(other[0, 2] < run[0, 2] for other in before) and all(other[0, 2] > run[0, 2] for other in after)
    return ink_box(run) if in_order and _is_level(run) else None


def _is_level(glyphs: NDArray[np.float32]) -> bool:
    """Whether these characters stand beside each other: on one line, turned by a few degrees at most."""
    middles = (glyphs[:, 2] + glyphs[:, 4]) / 2
    height = float(np.median(glyphs[:, 4] - glyphs[:, 2]))
    width = float(glyphs[:, 3].max() - glyphs[:, 1].min())
    rises = float(middles.max() - middles.min())
    follows = bool((np.diff(glyphs[:, 1]) > -0.5 * height).all())
    return follows and rises <= 0.25 * height + 0.09 * width and height < 2.5 * max(1.0, width)


def find_text(glyphs: NDArray[np.float32], text: str) -> Box | None:
    """The ink box of the only place where ``text`` (spaces left out) is printed on one level line, or None."""
    found = find_glyphs(glyphs, text)
    return None if found is None else ink_box(found)
