import numpy as np
import pytest
from PIL import Image, ImageDraw

from mm.errors import MMError, ResourceError
from mm.synthetic.fonts import EXTRAS, FontSet, copy_fonts, families


def test_families_are_split_by_name_and_by_file():
    held_out = [family for family in families() if family.split == "held_out"]
    trained = [family for family in families() if family.split == "train"]
    assert len(held_out) >= 8 and len(trained) >= 40 and len(held_out) + len(trained) == len(families())
    assert sum(family.kind == "mono" for family in held_out) >= 2
    assert any(family.kind == "serif" for family in held_out)
    assert len({family.name for family in families()}) == len(families())

    def files(rows):
        return {name for row in rows for name in (row.regular, row.bold, row.italic) if name}

    assert not files(held_out) & files(trained)
    assert all(family.package.startswith("fonts-") and family.licence for family in families())
    assert all(set(family.missing) <= set(EXTRAS) for family in families())


def test_find_takes_only_what_is_there(fonts, font_folder):
    assert {face.name for face in fonts.faces} >= {"DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono"}
    assert all(face.regular.startswith(str(font_folder)) for face in fonts.faces)
    mono = next(face for face in fonts.faces if face.name == "DejaVu Sans Mono")
    assert mono.mono and mono.bold is not None and "€" in mono.extras


def test_no_font_is_an_error_that_names_the_packages(tmp_path):
    with pytest.raises(ResourceError, match=r"No font of the 'train' families.*apt-get install .*fonts-dejavu-core"):
        FontSet.find("train", [tmp_path])
    with pytest.raises(MMError, match=r"No font of the 'held_out' families.*fonts-cantarell.*--copy"):
        FontSet.find("held_out", [tmp_path])


def test_copy_is_flat_and_lists_the_licences(tmp_path, font_folder):
    absent = copy_fonts(tmp_path / "fonts", [font_folder])
    licences = (tmp_path / "fonts" / "LICENCES.txt").read_text(encoding="utf-8")
    assert "DejaVuSans.ttf | DejaVu Sans | fonts-dejavu-core | Bitstream Vera | train" in licences
    assert "Cantarell-Regular.otf" in absent
    assert {face.name for face in FontSet.find("train", [tmp_path / "fonts"]).faces} >= {"DejaVu Sans"}


@pytest.mark.parametrize("shaped", [False, True])
def test_pen_edges_follow_the_ink(fonts, shaped):
    pen = fonts.pen(fonts.faces[0].regular, 24, shaped=shaped)
    text = "Total 12.40"
    edges = pen.edges(text)
    assert len(edges) == len(text) + 1 and edges[0] == 0 and edges[-1] == pytest.approx(pen.width(text))
    canvas = Image.new("L", (300, 60), 255)
    pen.draw(ImageDraw.Draw(canvas), 10, 40, text, 0)
    ink = np.flatnonzero((np.asarray(canvas) < 128).any(axis=0))
    assert abs(ink[0] - 10) <= 2 and abs(ink[-1] - (10 + edges[-1])) <= 3
    rows = np.flatnonzero((np.asarray(canvas) < 128).any(axis=1))
    assert abs(rows[0] - (40 - pen.ascent)) <= 1
    space = slice(int(10 + edges[5]) + 2, int(10 + edges[6]) - 1)
    assert (np.asarray(canvas)[:, space] == 255).all()


def test_pens_are_kept_but_not_without_end(font_folder, monkeypatch):
    fonts = FontSet.find("train", [font_folder])
    path = fonts.faces[0].regular
    assert fonts.pen(path, 14) is fonts.pen(path, 14)
    monkeypatch.setattr("mm.synthetic.fonts.MAX_PENS", 3)
    for size in range(10, 20):
        fonts.pen(path, size)
    assert len(fonts._pens) == 3
