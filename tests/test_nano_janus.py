"""The model in the box that draws: its files, what it draws and sees, and the defaults that are published with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mm import Pipeline
from mm.drawn_file import Recipe
from mm.errors import ConfigError
from mm.evaluation.held_out_drawings import drawing
from mm.evaluation.held_out_prompts import Prompt, category_prompts
from mm.evaluation.scene_checker import look
from mm.evaluation.wishes import judge
from mm.families.table import drawing_defaults, load_config
from mm.hub import bundled_models
from mm.pictures import DrawDefaults
from tests.test_cli import invoke

FOLDER = bundled_models()["nano-janus"]
PROMPT = "two red circles left of a blue star on a yellow background"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("nano-janus", device="cpu", dtype="float32")


def test_it_fits_in_the_box() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 32e6
    weights = sorted(FOLDER.glob("*.safetensors"))
    assert all(path.stat().st_size < 16 * 2**20 for path in weights)
    for path in weights:
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    recipe = Path(__file__).parents[1] / "configs" / "nano-janus"
    assert load_config(recipe) == load_config(FOLDER), "what the recipe trains"


def test_a_picture_without_naming_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("draw", PROMPT, "-o", "star.png", "--seed", "1").status == 0
    recipe = Recipe.read(Path("star.png"))
    assert (recipe.model, recipe.guidance_scale, recipe.temperature, recipe.top_p) == ("nano-janus", 2.0, 1.0, None)
    assert invoke("draw", "--again", "star.png", "-o", "again.png").status == 0
    with Image.open("star.png") as one, Image.open("again.png") as other:
        assert one.size == (128, 128) and np.array_equal(np.asarray(one), np.asarray(other))


def test_it_draws_what_prompts_say(pipe: Pipeline) -> None:
    """One of each category: it draws 5 of 6, another number where sums are rounded otherwise; chance is 1 in 40."""
    prompts: list[Prompt] = category_prompts(6)
    drawn = pipe.generate_images([prompt.text for prompt in prompts], seed=7)
    assert isinstance(drawn.images, list)
    right = [judge(look(image), prompt.wish).right for image, prompt in zip(drawn.images, prompts, strict=True)]
    assert sum(right) >= 3


def test_it_sees_what_pictures_show(pipe: Pipeline) -> None:
    pictures = [drawing(index)[1:] for index in range(4)]
    said = [pipe.caption(image).text.strip() for _, image in pictures]
    assert sum(one == scene.caption() for one, (scene, _) in zip(said, pictures, strict=True)) >= 3


def test_the_defaults_of_a_model_are_used_where_nothing_is_named(pipe: Pipeline) -> None:
    assert pipe.drawing_defaults == DrawDefaults(guidance_scale=2.0, temperature=1.0, top_p=None)
    usual, named, other = (
        pipe.generate_images(PROMPT, seed=3, **options).pictures[0].codes
        for options in (
            {},
            {"guidance_scale": 2.0, "temperature": 1.0, "top_p": 1.0},
            {"guidance_scale": 5.0},
        )
    )
    assert usual == named != other
    assert Pipeline(pipe.model, pipe.processor).drawing_defaults == DrawDefaults(guidance_scale=5.0, temperature=1.0)


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ([1], r"drawing \[1\]; expected an object of numbers, of guidance_scale, temperature, top_p"),
        ({"guidance": 2}, r"drawing \{'guidance': 2\}; expected an object of numbers"),
        ({"temperature": "1"}, r"drawing \{'temperature': '1'\}; expected an object of numbers"),
        ({"guidance_scale": True}, "expected an object of numbers"),
        ({"top_p": 1.5}, "generation_config.json: top_p is 1.5; expected a number above 0 and at most 1"),
        ({"guidance_scale": -1}, "generation_config.json: guidance_scale is -1; expected a number of 0 or more"),
    ],
)
def test_defaults_that_mean_nothing_are_refused(drawing: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"drawing": drawing}))
    with pytest.raises(ConfigError, match=message):
        drawing_defaults(tmp_path)


def test_a_folder_without_defaults_has_the_published_ones(tmp_path: Path) -> None:
    shutil.copyfile(FOLDER / "config.json", tmp_path / "config.json")
    assert drawing_defaults(tmp_path) == DrawDefaults(guidance_scale=5.0, temperature=1.0)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.3}')  # of texts
    assert drawing_defaults(tmp_path).temperature == 1.0


def test_codes_keep_a_picture(pipe: Pipeline) -> None:
    """A picture as training paints it comes back."""
    image = Image.new("RGB", (128, 128), (250, 220, 40))
    image.paste((220, 30, 35), (30, 40, 66, 76))
    codes = pipe.encode_image(image)
    assert codes.shape == (16, 16) and codes.dtype == torch.int64
    back = np.asarray(pipe.decode_image(codes), dtype=np.float64)
    assert 10 * np.log10(255**2 / np.square(back - np.asarray(image)).mean()) > 24
