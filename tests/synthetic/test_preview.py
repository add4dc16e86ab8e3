import sys

from PIL import Image

from mm.synthetic import preview


def test_contact_sheet_is_written(tmp_path, font_folder, monkeypatch):
    target = tmp_path / "sheet.png"
    arguments = ["--kind", "form", "--out", str(target), "--count", "3", "--across", "2", "--cell", "200", "--boxes"]
    monkeypatch.setattr(sys, "argv", ["preview", *arguments, "--fonts", str(font_folder)])
    preview.main()
    with Image.open(target) as sheet:
        assert sheet.size == (400, 2 * (200 + 118))
