import sys

import numpy as np
from PIL import Image

from mm.synthetic import preview
from mm.synthetic.render import render


def test_contact_sheet_is_written(tmp_path, font_folder, monkeypatch):
    target = tmp_path / "sheet.png"
    arguments = ["--kind", "form", "--out", str(target), "--count", "3", "--across", "2", "--cell", "200", "--boxes"]
    monkeypatch.setattr(sys, "argv", ["preview", *arguments, "--fonts", str(font_folder)])
    preview.main()
    with Image.open(target) as sheet:
        assert sheet.size == (400, 2 * (200 + 118))


def test_boxes_of_answers_are_drawn(fonts):
    sample = render("scene_ground", np.random.default_rng(0), fonts, 0.0)
    plain, marked = (preview.contact_sheet([sample], across=1, cell=200, boxes=boxes) for boxes in (False, True))
    changed = np.abs(np.asarray(plain).astype(int) - np.asarray(marked)).max(axis=-1) > 0
    assert changed[:200].sum() > 50 and not changed[200:].any()
