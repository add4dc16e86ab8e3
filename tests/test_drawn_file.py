"""Files of drawn pictures: the quantisation in their recipes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mm import Pipeline
from mm.drawn_file import Recipe
from tests.test_cli import invoke


def test_draw_keeps_the_quantisation_and_repeats_it(
    tiny_janus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = []
    load = Pipeline.from_pretrained

    def watched(*names: object, **values: object) -> Pipeline:
        loaded.append(values["quantization"])
        return load(*names, **values)

    monkeypatch.setattr(Pipeline, "from_pretrained", watched)
    words = ["draw", "two red circles", "-m", str(tiny_janus), "--seed", "7"]
    assert invoke(*words, "-o", "star.png", "--quantization", "int4").status == 0
    assert invoke(*words, "-o", "plain.png").status == 0
    assert [Recipe.read(Path(name)).quantization for name in ("star.png", "plain.png")] == ["int4", None]
    assert invoke("draw", "--again", "star.png", "-o", "again.png").status == 0
    assert invoke("draw", "--again", "star.png", "-o", "other.png", "--quantization", "int8").status == 0
    assert loaded == ["int4", None, "int4", "int8"]
    assert Recipe.read(Path("again.png")) == Recipe.read(Path("star.png"))
    assert Recipe.read(Path("other.png")).quantization == "int8"
    with Image.open("star.png") as first, Image.open("again.png") as second:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize(
    ("value", "status", "part"),
    [
        ("int3", 2, "--quantization is 'int3'; use one of int8, fp8, int4, or leave it out."),
        ("", 2, "--quantization is ''; use one of int8, fp8, int4, or leave it out."),
        (["int4"], 1, "'quantization' is ['int4']. Draw it anew"),
        (4, 1, "'quantization' is 4. Draw it anew"),
    ],
)
def test_a_quantisation_that_is_none_is_told(
    value: object, status: int, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pipeline, "from_pretrained", None)  # would fail if it came to that
    info = PngInfo()
    texts = {"prompt": "a", "seed": "1", "model": "nano-janus", "settings": json.dumps({"quantization": value})}
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save("changed.png", pnginfo=info)
    result = invoke("draw", "--again", "changed.png", "-o", "a.png")
    assert (result.status, result.out) == (status, "")
    assert part in result.err.splitlines()[-1] and result.err.splitlines()[-1].startswith("error: ")
