"""The font families that only evaluation draws with, some that training draws with too, and where their files are.

Training never draws with ``FAMILIES``; ``tests/evaluation`` checks that the lists have nothing in common. The rows on
known fonts are drawn with ``KNOWN_FAMILIES`` instead, which training draws with too. All are free fonts that Debian
packages; on other systems any folder that holds files of these names will do.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from numpy.random import Generator
from PIL import ImageFont

from mm.errors import ResourceError


@dataclass(frozen=True)
class Family:
    """A font family: its name, its kind ("sans", "serif" or "mono"), its files and the Debian package that has them."""

    name: str
    kind: str
    regular: str
    bold: str
    package: str


FAMILIES = (
    Family("Cantarell", "sans", "Cantarell-Regular.otf", "Cantarell-Bold.otf", "fonts-cantarell"),
    Family("Play", "sans", "Play-Regular.ttf", "Play-Bold.ttf", "fonts-play"),
    Family("Karla", "sans", "Karla-Regular.otf", "Karla-Bold.otf", "fonts-karla"),
    Family("Dosis", "sans", "Dosis-Medium.otf", "Dosis-Bold.otf", "fonts-dosis"),
    Family("Clear Sans", "sans", "ClearSans-Regular.ttf", "ClearSans-Bold.ttf", "fonts-clear-sans"),
    Family("Comic Neue", "sans", "ComicNeue-Regular.otf", "ComicNeue-Bold.otf", "fonts-comic-neue"),
    Family("Caladea", "serif", "Caladea-Regular.ttf", "Caladea-Bold.ttf", "fonts-crosextra-caladea"),
    Family("Vollkorn", "serif", "Vollkorn-Regular.ttf", "Vollkorn-Bold.ttf", "fonts-vollkorn"),
    Family("Fira Code", "mono", "FiraCode-Regular.ttf", "FiraCode-Bold.ttf", "fonts-firacode"),
    Family("Courier Prime", "mono", "Courier Prime.otf", "Courier Prime Bold.otf", "fonts-courier-prime"),
    Family("Anonymous Pro", "mono", "Anonymous Pro.ttf", "Anonymous Pro B.ttf", "fonts-anonymous-pro"),
)

KNOWN_FAMILIES = (
    Family("DejaVu Sans", "sans", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "fonts-dejavu-core"),
    Family("DejaVu Sans Mono", "mono", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "fonts-dejavu-core"),
    Family("Liberation Sans", "sans", "LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "fonts-liberation"),
    Family("Liberation Serif", "serif", "LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", "fonts-liberation"),
    Family("Liberation Mono", "mono", "LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf", "fonts-liberation"),
    Family("FreeMono", "mono", "FreeMono.ttf", "FreeMonoBold.ttf", "fonts-freefont-ttf"),
    Family("Roboto", "sans", "Roboto-Regular.ttf", "Roboto-Bold.ttf", "fonts-roboto-unhinted"),
    Family("Roboto Slab", "serif", "RobotoSlab-Regular.otf", "RobotoSlab-Bold.otf", "fonts-roboto-slab"),
    Family("Open Sans", "sans", "OpenSans-Regular.ttf", "OpenSans-Bold.ttf", "fonts-open-sans"),
    Family("JetBrains Mono", "mono", "JetBrainsMono-Regular.ttf", "JetBrainsMono-Bold.ttf", "fonts-jetbrains-mono"),
    Family("Quicksand", "sans", "Quicksand-Regular.ttf", "Quicksand-Bold.ttf", "fonts-quicksand"),
    Family("Inter", "sans", "Inter-Regular.otf", "Inter-Bold.otf", "fonts-inter"),
    Family("Cabin", "sans", "Cabin-Regular.otf", "Cabin-Bold.otf", "fonts-cabin"),
    Family("Go", "sans", "Go-Regular.ttf", "Go-Bold.ttf", "fonts-go"),
    Family("Gentium Basic", "serif", "GenBasR.ttf", "GenBasB.ttf", "fonts-sil-gentium-basic"),
    Family("C059", "serif", "C059-Roman.otf", "C059-Bold.otf", "fonts-urw-base35"),
    Family("Nimbus Roman", "serif", "NimbusRoman-Regular.otf", "NimbusRoman-Bold.otf", "fonts-urw-base35"),
    Family("Nimbus Sans", "sans", "NimbusSans-Regular.otf", "NimbusSans-Bold.otf", "fonts-urw-base35"),
    Family("URW Gothic", "sans", "URWGothic-Book.otf", "URWGothic-Demi.otf", "fonts-urw-base35"),
    Family("Manrope", "sans", "Manrope-Regular.ttf", "Manrope-Bold.ttf", "fonts-manrope"),
)


def default_folders() -> tuple[Path, ...]:
    """Where fonts are installed on this system, existing folders only."""
    home = Path.home()
    if sys.platform == "win32":
        folders = [
            Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
            home / "AppData/Local/Microsoft/Windows/Fonts",
        ]
    elif sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    else:
        folders = [
            Path("/usr/share/fonts"),
            Path("/usr/local/share/fonts"),
            home / ".local/share/fonts",
            home / ".fonts",
        ]
    return tuple(folder for folder in folders if folder.is_dir())


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout gives the same advance widths with and without the optional shaping library.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Face:
    """A family with its files found. ``regular(size)`` and ``bold(size)`` give a font of that many pixels per em."""

    name: str
    kind: str
    regular_path: Path
    bold_path: Path

    def regular(self, size: float) -> ImageFont.FreeTypeFont:
        """The upright weight for running text."""
        return _font(self.regular_path, round(size))

    def bold(self, size: float) -> ImageFont.FreeTypeFont:
        """The bold weight."""
        return _font(self.bold_path, round(size))


@dataclass(frozen=True)
class HeldOutFonts:
    """Families of this machine: the held-out ones, or the known ones. ``folders`` is where they were looked for."""

    faces: tuple[Face, ...]
    folders: tuple[Path, ...] = ()

    @classmethod
    def find(cls, folders: Sequence[Path] | None = None, families: Sequence[Family] = FAMILIES) -> "HeldOutFonts":
        """Look for all families in ``folders`` (and below), or where the system keeps its fonts.

        Raises:
            ResourceError: a family is missing: scores over fewer fonts would not be comparable.
        """
        places = default_folders() if folders is None else tuple(Path(folder) for folder in folders)
        wanted = {name for family in families for name in (family.regular, family.bold)}
        found: dict[str, Path] = {}
        for place in places:
            for path in sorted(place.rglob("*")):
                if path.name in wanted:
                    found.setdefault(path.name, path)
        faces, missing = [], []
        for family in families:
            if family.regular in found and family.bold in found:
                faces.append(Face(family.name, family.kind, found[family.regular], found[family.bold]))
            else:
                missing.append(family)
        if missing:
            where = ", ".join(str(place) for place in places) or "any font folder"
            raise ResourceError(
                f"the held-out documents are drawn in {len(families)} font families, and {len(missing)} of them are "
                f"not in {where}: {', '.join(family.name for family in missing)}. "
                f"On Debian or Ubuntu: apt install {' '.join(sorted({f.package for f in missing}))}"
            )
        return cls(tuple(faces), places)

    def known(self) -> "HeldOutFonts":
        """Families that training draws with, from the same folders.

        Raises:
            ResourceError: a family is missing.
        """
        return _known(self.folders)

    def pick(self, rng: Generator, *kinds: str) -> Face:
        """One face of the given kinds (all kinds when none is given)."""
        faces = [face for face in self.faces if not kinds or face.kind in kinds]
        return faces[int(rng.integers(len(faces)))]


@cache
def _known(folders: tuple[Path, ...]) -> HeldOutFonts:
    return HeldOutFonts.find(folders, KNOWN_FAMILIES)
