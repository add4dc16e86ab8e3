"""Character labels stand where the processor puts the pixels."""

import numpy as np
from PIL import Image, ImageDraw

from mm.hub import bundled_models
from mm.processing.vl2 import VL2Processor
from mm.training.charmap import character_class, character_map
from mm.training.ring import IGNORED_CHARACTER


def test_characters_have_the_classes_of_their_windows_1252_bytes() -> None:
    assert [character_class(ord(c)) for c in "A~é€"] == [0x41, 0x7E, 0xE9, 0x80]
    assert character_class(ord(" ")) == character_class(0xA0) == 0
    assert character_class(ord("中")) == IGNORED_CHARACTER


def test_a_glyph_is_labelled_at_the_patches_that_show_it_in_every_view() -> None:
    processor = VL2Processor.from_folder(bundled_models()["nano-vl2"])
    size, box = (700, 260), (420.0, 96.0, 436.0, 124.0)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle(box, fill="black")
    views, tiles = processor.views(image, tiling=True)
    glyphs = np.array([[ord("K"), *box]], np.float32)
    labels = character_map(glyphs, size, tiles, view_size=192, patch_size=8)
    assert labels.shape == (views.shape[0], 24, 24, 2)
    assert tiles[0] * tiles[1] > 1
    # Halves of patches whose centre pixel is black are the glyph; what is far from black is not.
    halves = views[:, 4::8, 2::4, 0].reshape(labels.shape)
    black = views[:, :, :, 0].reshape(-1, 24, 8, 24, 2, 4).min(axis=(2, 5)) < 100
    assert (labels[halves < 100] == ord("K")).all()
    assert not labels[~black].any()
    assert set(np.unique(labels)) <= {0, ord("K")}
    assert (labels[1:] == ord("K")).any()


def test_text_too_small_to_read_is_ignored_and_not_called_blank() -> None:
    glyphs = np.array([[ord("x"), 10, 100, 15, 112]], np.float32)
    labels = character_map(glyphs, (1600, 1600), (3, 3), view_size=192, patch_size=8)
    assert set(np.unique(labels)) == {0, IGNORED_CHARACTER}


def test_a_page_without_text_is_blank() -> None:
    labels = character_map(np.empty((0, 5), np.float32), (100, 50), (2, 1), view_size=192, patch_size=8)
    assert labels.shape == (3, 24, 24, 2)
    assert not labels.any()
