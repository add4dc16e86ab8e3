"""The pictures of the model cards."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mm import Pipeline
from mm.evaluation.drawn_gallery import shown_prompts, write_drawn_gallery
from mm.evaluation.gallery import main


def test_pictures_beside_their_nearest(tmp_path: Path) -> None:
    pipe = Pipeline.from_pretrained("nano-janus", device="cpu", dtype="float32")
    prompts = shown_prompts()
    assert len(prompts) == 20
    assert write_drawn_gallery(pipe, tmp_path / "new" / "card", prompts=prompts[:2], training_pictures=8) == 2
    text = (tmp_path / "new" / "card" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# nano-janus: ") and prompts[1].text in text and "python -m mm.evaluation.gallery" in text
    with Image.open(tmp_path / "new" / "card" / "samples.png") as sheet:
        assert len(sheet.getcolors(1 << 20)) > 3


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "drawn.json").write_text(json.dumps({"settings": {}, "answers": [{"task": "draw"}]}), encoding="utf-8")
    for source, message in (
        ("missing.json", "missing.json is no file of mm eval --json"),
        ("broken.json", "broken.json is no file of mm eval --json"),
        ("drawn.json", "drawn.json holds no answers to questions"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([str(tmp_path / source), str(tmp_path / "card")])
    with pytest.raises(SystemExit, match="is no model"):
        main(["nano-jonas", str(tmp_path / "card")])
    with pytest.raises(SystemExit, match="it cannot draw"):
        main(["nano-vl2", str(tmp_path / "card")])
    assert not (tmp_path / "card").exists()
