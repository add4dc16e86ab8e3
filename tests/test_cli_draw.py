"""`mm draw` and `mm tokens`: files, what they say of themselves, and what is refused before any work."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mm import Pipeline
from mm.drawn_file import Recipe, check_target
from mm.errors import ResourceError
from mm.pipeline import Pipeline as PipelineClass
from mm.whole_file import write_whole
from tests.test_cli import FORM, fails, invoke

PROMPT = "two red circles, ein blauer Stern ★"


@pytest.fixture
def janus(tiny_janus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that draws; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    return str(tiny_janus)


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_picture_with_its_recipe(janus: str) -> None:
    result = invoke("draw", PROMPT, "-o", "star.png", "-m", janus, "--seed", "7", "--guidance-scale", "3")
    assert (result.status, result.out, result.err) == (0, "star.png\tseed 7\n", "")
    with Image.open("star.png") as image:
        assert image.size == (64, 64)
        assert image.text["prompt"] == PROMPT
        assert (image.text["seed"], image.text["model"]) == ("7", janus)
        assert json.loads(image.text["settings"])["guidance_scale"] == 3
    pipe = Pipeline.from_pretrained(janus, device="cpu", dtype="float32")
    expected = pipe.generate_images(PROMPT, seed=7, guidance_scale=3.0).images[0]
    np.testing.assert_array_equal(pixels("star.png"), np.asarray(expected))


def test_again_repeats_a_file_and_options_change_it(janus: str) -> None:
    options = ["--top-k", "20", "--top-p", "0.9", "--temperature", "0.8", "--negative-prompt", "green"]
    assert invoke("draw", PROMPT, "-o", "star.png", "-m", janus, *options).status == 0
    result = invoke("draw", "--again", "star.png", "-o", "again.png")
    assert result.status == 0
    assert result.err == f"again: {PROMPT!r}, seed {Recipe.read(Path('star.png')).seed}, model {janus}\n"
    assert Recipe.read(Path("again.png")) == Recipe.read(Path("star.png"))
    np.testing.assert_array_equal(pixels("again.png"), pixels("star.png"))
    assert invoke("draw", "--again", "star.png", "-o", "other.png", "--seed", "1", "--temperature", "1.0").status == 0
    other = Recipe.read(Path("other.png"))
    assert other.top_p == 0.9
    assert (other.seed, other.temperature, other.top_k) == (1, 1.0, 20)


def test_a_file_that_names_no_top_p_was_drawn_from_all_codes(janus: str) -> None:
    """As files of models without a default of their own are, whatever default the model has now."""
    shutil.copytree(janus, "own")
    assert invoke("draw", PROMPT, "-o", "all.png", "-m", "./own", "--seed", "3").status == 0
    assert Recipe.read(Path("all.png")).top_p is None
    settings = {"drawing": {"temperature": 1.0, "top_p": 0.2}}
    Path("own/generation_config.json").write_text(json.dumps(settings))
    assert invoke("draw", PROMPT, "-o", "few.png", "-m", "./own", "--seed", "3").status == 0
    assert Recipe.read(Path("few.png")).top_p == 0.2
    assert invoke("draw", "--again", "all.png", "-o", "again.png").status == 0
    np.testing.assert_array_equal(pixels("again.png"), pixels("all.png"))
    assert (pixels("few.png") != pixels("all.png")).any()


def test_several_pictures_are_numbered_and_each_is_drawn_again_alone(janus: str) -> None:
    result = invoke("draw", PROMPT, "-o", "star.png", "-m", janus, "-n", "3", "--seed", "4", "--best-of", "5")
    assert result.status == 0
    lines = [line.split("\t") for line in result.out.splitlines()]
    assert [line[0] for line in lines] == ["star-1.png", "star-2.png", "star-3.png"]
    scores = [float(line[2].removeprefix("score ")) for line in lines]
    assert scores == sorted(scores, reverse=True)
    for name, seed, _ in lines:
        recipe = Recipe.read(Path(name))
        assert (f"seed {recipe.seed}", recipe.number, recipe.best_of) == (seed, 1, None)
    assert invoke("draw", "--again", "star-2.png", "-o", "again.png").status == 0
    np.testing.assert_array_equal(pixels("again.png"), pixels("star-2.png"))


def test_a_grid_is_one_file_and_is_drawn_again_whole(janus: str) -> None:
    result = invoke("draw", PROMPT, "-o", "sheet.png", "-m", janus, "-n", "3", "--best-of", "4", "--grid", "--json")
    values = json.loads(result.out)
    assert [picture["file"] for picture in values["pictures"]] == ["sheet.png"] * 3
    assert pixels("sheet.png").shape == (132, 132, 3)
    assert invoke("draw", "--again", "sheet.png", "-o", "again.png").status == 0
    np.testing.assert_array_equal(pixels("again.png"), pixels("sheet.png"))


def test_without_a_name_nothing_is_overwritten(janus: str) -> None:
    for name in ("drawing.png", "drawing-2.png"):
        assert invoke("draw", PROMPT, "-m", janus).out.startswith(name)
    assert sorted(os.listdir()) == ["drawing-2.png", "drawing.png"]


@pytest.mark.parametrize(
    ("words", "status", "parts"),
    [
        (["draw"], 1, ["the prompt is empty. Write what to draw"]),
        (["draw", "  "], 1, ["the prompt is empty"]),
        (["draw", "a", "-n", "0"], 2, ["--number is 0"]),
        (["draw", "a", "-n", "10000"], 2, ["--number is 10,000; expected a whole number from 1 to 1,024"]),
        (["draw", "a", "--guidance-scale", "-1"], 2, ["--guidance-scale is -1.0; expected a number of 0 or more"]),
        (["draw", "a", "--temperature", "-1"], 2, ["--temperature is -1.0"]),
        (["draw", "a", "--top-p", "1.5"], 2, ["--top-p is 1.5; expected a number above 0 and at most 1"]),
        (["draw", "a", "--best-of", "2", "-n", "3"], 2, ["--best-of is 2"]),
        (["draw", "a", "--rerank", "luck"], 2, ["--rerank is 'luck'; expected one of self, clip"]),
        (["draw", "a", "--negative-prompt", "b", "--guidance-scale", "1"], 2, ["--negative-prompt needs guidance"]),
        (["draw", "a", "-o", "star.jpg"], 2, ["pictures are written as PNG"]),
        (["draw", "a", "--steps", "4"], 2, ["--steps is 4, but nano-janus draws code after code"]),
        (["draw", "a", "-o", ""], 2, ["cannot write '.': it is a folder. Name a .png file in it"]),
        (["draw", "a", "-o", "none/star.png"], 1, ["cannot write 'none/star.png': its folder does not exist"]),
        (["draw", "a", "-o", "folder.png"], 2, ["cannot write 'folder.png': it is a folder"]),
        (["draw", "a", "--again", "a.png"], 2, ["got a prompt and --again"]),
        (["draw", "--again", "none.png"], 1, ["there is no file 'none.png'"]),
        (["draw", "--again", FORM], 1, ["does not say how it was drawn: it has no 'prompt'"]),
        (["draw", "a", "-m", "nano-vl2"], 1, ["nano-vl2 has no generation side", "deepseek-ai/Janus-Pro-7B"]),
        (["tokens", "encode", FORM, "-m", "nano-vl2"], 1, ["nano-vl2 has no generation side"]),
        (["tokens", "encode", "none.png"], 1, ["none.png"]),
        (["tokens", "encode", FORM, "-o", "none/codes.json"], 1, ["cannot write 'none/codes.json'"]),
        (["tokens", "decode", "none.json", "-o", "a.png"], 1, ["there is no file 'none.json'"]),
        (["tokens", "decode", FORM, "-o", "a.png"], 1, ["cannot be read as JSON"]),
    ],
)
def test_mistakes_are_told_before_any_work(
    words: list[str], status: int, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(PipelineClass, "from_pretrained", None)  # would fail if it came to that
    fails(invoke(*words), *parts, status=status)
    assert os.listdir() == ["folder.png"]


def test_another_size_is_named_and_refused(janus: str) -> None:
    result = invoke("draw", "a", "-m", janus, "--size", "512x512")
    fails(result, "a picture of 512x512 pixels was asked for", "trained for 64x64 alone", status=2)
    for wrong in ("big", "²x²"):
        result = invoke("draw", "a", "-m", janus, "--size", wrong)
        assert result.status == 2 and f"Invalid value for --size: '{wrong}' is not a size" in result.err


def test_without_the_bundled_model_those_that_draw_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import mm.hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mm.hub, "bundled_models", dict)
    result = invoke("draw", "a star")
    fails(result, "nano-janus is not part of this installation", "deepseek-ai/Janus-Pro-1B", "--model")


def test_changed_settings_are_refused(janus: str) -> None:
    def write(**changes: str) -> None:
        info = PngInfo()
        values = {"prompt": "a", "seed": "1", "model": "m", "settings": "{}"} | changes
        for name, text in values.items():
            info.add_text(name, text)
        Image.new("RGB", (8, 8)).save("changed.png", pnginfo=info)

    for changes, part in [
        ({"seed": "x"}, "invalid literal"),
        ({"settings": "[]"}, "not as 'mm draw' wrote them"),
        ({"settings": "[" * 100_000}, "not as 'mm draw' wrote them"),
        ({"settings": '{"temperature": "hot"}'}, "'temperature' is 'hot'"),
        ({"settings": '{"number": true}'}, "'number' is True"),
        ({"settings": '{"extra": 1}'}, "'extra' is 1"),
    ]:
        write(**changes)
        fails(invoke("draw", "--again", "changed.png", "-o", "a.png"), part, "Draw it anew")
    write(settings='{"temperature": -2.0}')
    assert "temperature is -2.0" in invoke("draw", "--again", "changed.png", "-o", "a.png").err


def test_ctrl_c_saves_what_is_finished(janus: str, tmp_path: Path) -> None:
    slow = (
        "import sys, time\n"
        "from mm.generation.image import ImageRow\n"
        "push = ImageRow.push\n"
        "def slow(row, token, logprob):\n"
        "    time.sleep(0.02)\n"
        "    push(row, token, logprob)\n"
        "    if row.finish_reason:\n"
        "        print('whole', file=sys.stderr, flush=True)\n"
        "    return ''\n"
        "ImageRow.push = slow\n"
        "from mm.cli.app import main\n"
        "main()\n"
    )
    words = ["draw", "a star", "-o", "star.png", "-m", janus, "-n", "50", "--batch-size", "1", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["whole\n"] * 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    values = json.loads(out)
    assert values["cancelled"]
    files = [picture["file"] for picture in values["pictures"]]
    assert 2 <= len(files) < 50
    assert f"Stopped: {len(files)} of 50 pictures were finished." in err
    assert sorted(files) == sorted(name for name in os.listdir(tmp_path) if name.startswith("star"))
    assert all(pixels(name).shape == (64, 64, 3) for name in files)


# Tokens


def test_a_picture_to_codes_and_back(janus: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)).save("in.png")
    result = invoke("tokens", "encode", "in.png", "-o", "codes.json", "-m", janus)
    assert result.status == 0
    assert result.out.startswith("codes.json\t2 x 3 codes\tPSNR ")
    values = json.loads(Path("codes.json").read_text())
    assert (values["grid"], np.shape(values["codes"])) == ([2, 3], (2, 3))
    result = invoke("tokens", "decode", "codes.json", "-o", "out.png", "--compare", "in.png", "-m", janus)
    assert result.out == f"out.png\tPSNR {values['psnr']:.2f} dB\n"
    assert result.err == ""
    difference = pixels("in.png").astype(float) - pixels("out.png")
    assert values["psnr"] == pytest.approx(10 * np.log10(255**2 / (difference**2).mean()), abs=1e-3)
    assert json.loads(invoke("tokens", "encode", "in.png", "-m", janus).out) == values


def test_sizes_that_have_no_whole_codes(janus: str) -> None:
    fails(invoke("tokens", "encode", FORM, "-m", janus), "has no whole number of codes of 16x16", "multiples of 16")
    values = json.loads(invoke("tokens", "encode", FORM, "--resize", "-m", janus).out)
    assert values["grid"] == [4, 4]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"codes": [[0, 64]]}', "1 of 2 codes are out of range, 64 for example"),
        ('{"codes": [[-1]]}', "out of range, -1 for example; expected whole numbers from 0 to 63"),
        ('{"codes": [[0.5]]}', "expected a rectangle of whole numbers"),
        ('{"codes": [[1, 2], [3]]}', "rows of different length"),
        ('{"codes": []}', "expected a rectangle of whole numbers"),
        ('{"codes": [1, 2]}', "expected a rectangle of whole numbers"),
        ('{"codes": [[true]]}', "expected a rectangle of whole numbers"),
        ('{"codes": "abc"}', "expected a rectangle of whole numbers"),
        ("[1]", 'holds no object with "codes"'),
        ('{"codes":' + "[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_codes_that_are_none(janus: str, text: str, part: str) -> None:
    Path("codes.json").write_text(text)
    fails(invoke("tokens", "decode", "codes.json", "-o", "a.png", "-m", janus), part)
    assert not Path("a.png").exists()


def test_a_photo_of_too_many_codes_is_told_at_once(janus: str) -> None:
    Image.new("RGB", (4000, 3008)).save("photo.png")
    said = ["a picture of 4000x3008 pixels has 47,000 codes of 16x16, and at most 4,096 are made", "encode --resize"]
    fails(invoke("tokens", "encode", "photo.png", "-m", janus), *said)
    assert invoke("tokens", "encode", "photo.png", "--resize", "-m", janus).status == 0
    Path("codes.json").write_text(json.dumps({"codes": [[0] * 65] * 64}))
    said = ["64 x 65 codes were given, and at most 4,096 are decoded at once"]
    fails(invoke("tokens", "decode", "codes.json", "-o", "a.png", "-m", janus), *said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="cannot write '/dev/full': No space left on device. Name another file"):
        write_whole(Path("/dev/full"), b"x" * 100_000)
    with pytest.raises(ResourceError, match="cannot write .*a.png': File name too long"):
        write_whole(tmp_path / ("a" * 300 + "a.png"), b"x")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(ResourceError, match="cannot write .*star.png': File too large"):
            write_whole(tmp_path / "star.png", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == []


def test_codes_do_not_replace_their_picture(janus: str) -> None:
    Image.new("RGB", (64, 64)).save("in.png")
    os.symlink("in.png", "same.json")
    for output in ("in.png", "same.json"):
        message = f"cannot write '{output}': it is the picture itself. Name another file for the codes"
        fails(invoke("tokens", "encode", "in.png", "-o", output, "-m", janus), message, status=2)
    assert pixels("in.png").shape == (64, 64, 3)
    uri = "data:image/png;base64," + b64encode(Path("in.png").read_bytes()).decode()
    assert invoke("tokens", "encode", uri, "-o", "in.png", "-m", janus).status == 0  # an old file may be replaced


def test_a_link_that_leads_to_no_file_yet_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("later.png", "link.png")
    check_target(Path("link.png"))
    assert os.path.islink("link.png") and not os.path.exists("later.png")


def test_codes_of_another_model_are_told(janus: str) -> None:
    Path("codes.json").write_text('{"model": "other", "codes": [[1]]}')
    result = invoke("tokens", "decode", "codes.json", "-o", "a.png", "-m", janus)
    assert result.status == 0
    assert "warning: the codes are of 'other'" in result.err
    assert pixels("a.png").shape == (16, 16, 3)
