"""The fonts that the renderers draw with: which families, where they are, and how wide a text is in them.

``data/fonts.txt`` lists the families as data: Debian package, licence, kind, split and files. Families of the split
``held_out`` are never used for training, only to measure reading in unseen fonts. Run
``python -m mm.synthetic.fonts --copy DEST`` to collect the files in one flat folder for a machine without them.
"""

import argparse
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from mm.errors import ResourceError

Split = Literal["train", "held_out"]

EXTRAS = "£€¥¢éèêëáàâäåãíîïóôöøúùûüñçßÉÜÖÄÑÇÅØ°–•×©®½·§²"
"""Characters beyond ASCII that documents may hold, where the font has them."""

Colour = tuple[int, int, int]

MAX_PENS = 512
"""Open fonts of one FontSet: bounds the memory of a worker (one takes about 0.2 MB)."""

SYSTEM_FOLDERS = (
    "/usr/share/fonts",
    "/usr/share/texmf/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
)


@dataclass(frozen=True)
class Family:
    """One row of ``data/fonts.txt``."""

    name: str
    package: str  # Debian package
    licence: str
    kind: str  # sans, serif, mono, narrow, round or hand
    split: str
    regular: str  # file names; bold and italic may be empty
    bold: str
    italic: str
    missing: str  # characters of EXTRAS that it cannot draw


def _family(*row: str) -> Family:
    name, package, licence, kind, split, regular, bold, italic, missing = row
    missing = EXTRAS if missing == "*" else missing
    return Family(name, package, licence, kind, split, regular, bold, italic, missing)


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """Every family that the renderers know, in the order of ``data/fonts.txt``."""
    text = resources.files("mm.synthetic").joinpath("data/fonts.txt").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(_family(*row) for row in rows)


@dataclass(frozen=True)
class Typeface:
    """A family whose files were found."""

    name: str
    kind: str
    regular: str  # path
    bold: str | None
    italic: str | None
    extras: frozenset[str]  # characters of EXTRAS that it draws

    @property
    def mono(self) -> bool:
        """Whether all characters have the same width."""
        return self.kind == "mono"


class Pen:
    """One font file at one size: drawing, widths and the box of a line.

    A plain pen puts letters side by side from a store of rendered letters (faster than rendering each line).
    A shaped pen renders whole lines with kerning and ligatures, as text layout engines do.
    """

    def __init__(self, path: str, size: int, shaped: bool) -> None:
        layout = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
        self.font = ImageFont.truetype(path, size, layout_engine=layout)
        self.size = size
        self.shaped = shaped
        self._advances: dict[str, float] = {}
        self._stamps: dict[str, tuple[Image.Image, int, int] | None] = {}

    def advance(self, character: str) -> float:
        """Width of one character in pixels."""
        width = self._advances.get(character)
        if width is None:
            width = self._advances[character] = float(self.font.getlength(character))
        return width

    def width(self, text: str) -> float:
        """Width of a line of text in pixels."""
        return float(self.font.getlength(text)) if self.shaped else sum(map(self.advance, text))

    def edges(self, text: str) -> NDArray[np.float64]:
        """(len(text) + 1,) x positions of the character borders, from 0 (a shaped line's: in proportion)."""
        edges = np.cumsum([0.0, *map(self.advance, text)])
        return edges * (self.width(text) / edges[-1]) if self.shaped and edges[-1] > 0 else edges

    def draw(self, painter: ImageDraw.ImageDraw, x: float, baseline: float, text: str, ink: int | Colour) -> None:
        """Draw a line with its left end at ``x``."""
        if self.shaped:
            painter.text((x, baseline), text, fill=ink, font=self.font, anchor="ls")
            return
        for character in text:
            stamp = self._stamp(character)
            if stamp is not None:
                painter.bitmap((round(x) + stamp[1], round(baseline) + stamp[2]), stamp[0], fill=ink)
            x += self.advance(character)

    def _stamp(self, character: str) -> tuple[Image.Image, int, int] | None:
        """The rendered letter and where its top left corner lies from the pen position; None for a blank."""
        if character not in self._stamps:
            mask, (left, top) = self.font.getmask2(character, mode="L", anchor="ls")
            stamp = Image.frombytes("L", mask.size, bytes(mask)) if mask.size[0] and mask.size[1] else None
            self._stamps[character] = None if stamp is None else (stamp, left, top)
        return self._stamps[character]

    @cached_property
    def ascent(self) -> float:
        """Pixels from the baseline up to the top of ``d`` and ``H``."""
        return -float(self.font.getbbox("dHl", anchor="ls")[1])

    @cached_property
    def descent(self) -> float:
        """Pixels from the baseline down to the foot of ``p``."""
        return float(self.font.getbbox("gpy", anchor="ls")[3])


@dataclass(frozen=True)
class FontSet:
    """The typefaces of one split that this machine has, with the pens opened so far."""

    split: Split
    faces: tuple[Typeface, ...]
    _pens: dict[tuple[str, int, bool], Pen] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def find(cls, split: Split = "train", folders: Sequence[str | os.PathLike[str]] | None = None) -> "FontSet":
        """Look the families of ``split`` up by file name.

        Args:
            split: "train" or "held_out".
            folders: where to look, subfolders included; None means the system's font folders.

        Raises:
            ResourceError: none of the families is there.
        """
        searched = [Path(folder).expanduser() for folder in (SYSTEM_FOLDERS if folders is None else folders)]
        paths = _font_files(searched)
        faces = tuple(
            Typeface(
                name=family.name,
                kind=family.kind,
                regular=paths[family.regular],
                bold=paths.get(family.bold),
                italic=paths.get(family.italic),
                extras=frozenset(EXTRAS) - frozenset(family.missing),
            )
            for family in families()
            if family.split == split and family.regular in paths
        )
        if not faces:
            packages = sorted({family.package for family in families() if family.split == split})
            raise ResourceError(
                f"No font of the {split!r} families was found in {', '.join(map(str, searched))}. "
                f"Install them with: apt-get install {' '.join(packages)}; or copy a folder of them "
                "from a machine that has them (python -m mm.synthetic.fonts --copy DEST) and name that folder."
            )
        return cls(split, faces)

    def pen(self, path: str, size: int, *, shaped: bool = False) -> Pen:
        """The font file at ``path`` in ``size`` pixels an em; the last few hundred pens are kept.

        Where Pillow was built without Raqm there is no shaping, and all pens are plain.
        """
        key = (path, size, shaped and _can_shape())
        pen = self._pens.get(key)
        if pen is None:
            if len(self._pens) >= MAX_PENS:
                del self._pens[next(iter(self._pens))]
            pen = self._pens[key] = Pen(*key)
        return pen


@lru_cache(maxsize=1)
def _can_shape() -> bool:
    return bool(features.check("raqm"))


def _font_files(folders: Iterable[Path]) -> dict[str, str]:
    """File name -> path of every TrueType and OpenType file below ``folders``; the first one found wins."""
    found: dict[str, str] = {}
    for folder in folders:
        for parent, _, names in sorted(os.walk(folder)):
            for name in sorted(names):
                if name.lower().endswith((".ttf", ".otf")):
                    found.setdefault(name, os.path.join(parent, name))
    return found


def copy_fonts(target: Path, folders: Sequence[str | os.PathLike[str]] | None = None) -> list[str]:
    """Copy every known font file to ``target`` (flat) and write LICENCES.txt; returns the files that were not found."""
    paths = _font_files([Path(folder).expanduser() for folder in (SYSTEM_FOLDERS if folders is None else folders)])
    target.mkdir(parents=True, exist_ok=True)
    lines, absent = ["file | family | Debian package | licence | split"], []
    for family in families():
        for name in filter(None, (family.regular, family.bold, family.italic)):
            if name not in paths:
                absent.append(name)
                continue
            shutil.copyfile(paths[name], target / name)
            lines.append(f"{name} | {family.name} | {family.package} | {family.licence} | {family.split}")
    (target / "LICENCES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return absent


def main() -> None:
    """Command line: copy the fonts, or name the packages that hold them."""
    parser = argparse.ArgumentParser(description="The fonts of the synthetic documents.")
    parser.add_argument("--copy", type=Path, metavar="DEST", help="copy the font files and a licence list to DEST")
    parser.add_argument("--packages", action="store_true", help="print the Debian packages that hold the fonts")
    options = parser.parse_args()
    if options.packages:
        print(" ".join(sorted({family.package for family in families()})))
    if options.copy is not None:
        absent = copy_fonts(options.copy)
        size = sum(path.stat().st_size for path in options.copy.iterdir())
        print(f"{options.copy}: {size / 1e6:.1f} MB; not found: {', '.join(absent) or 'none'}")


if __name__ == "__main__":
    main()
