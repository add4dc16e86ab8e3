"""The drawing page: its endpoints, the files it makes, and what a wrong request gets."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps import recipes as recipes_of_files
from apps import text_to_image
from mm.drawn_file import Recipe, save
from mm.errors import ImageError, OptionError, PromptError
from mm.pictures import Drawings

pytestmark = pytest.mark.filterwarnings("ignore")  # of the server's own libraries, in its threads
EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "count": 1,
    "seed": 7,
    "keep_seed": True,
    "guidance": 5,
    "temperature": 1,
    "top_p": 1,
    "best_of": 1,
    "model": "toy-janus",
}


@pytest.fixture
def client(server: str) -> Client:
    return Client(server, verbose=False)


def draw(client: Client, prompt: str = "a red circle", **changes: Any) -> tuple[str, list[str], int, dict[str, Any]]:
    """Status, files of the pictures, first seed, data."""
    status, gallery, seed, data, _ = client.predict(prompt, **{**SETTINGS, **changes}, api_name="/draw")
    return status, [item["image"] for item in gallery["value"]], seed, data


def recipes(files: list[str]) -> list[Recipe]:
    return [Recipe.read(Path(file)) for file in files]


def test_pictures_keep_their_settings(client: Client) -> None:
    status, files, seed, data = draw(client, count=2, guidance=3.5, temperature=0.9, negative="blue")
    assert status.startswith("2 pictures in ")
    assert seed == 7 and [picture["seed"] for picture in data["pictures"]] == [7, 8]
    first, second = recipes(files)
    assert first == Recipe(
        prompt="a red circle", seed=7, model="toy-janus", negative_prompt="blue", guidance_scale=3.5, temperature=0.9
    )
    assert second.seed == 8
    with Image.open(files[0]) as a, Image.open(files[1]) as b:
        assert a.size == (128, 128) and a.tobytes() != b.tobytes()


def test_a_picture_restores_its_settings_and_is_drawn_again(client: Client) -> None:
    _, files, *_ = draw(client, seed=11, guidance=2, top_p=0.9)
    prompt, count, seed, keep, guidance, temperature, top_p, negative, best_of, steps, model, said = client.predict(
        handle_file(files[0]), api_name="/restore"
    )
    assert (prompt, count, seed, keep, guidance) == ("a red circle", 1, 11, True, 2)
    assert (temperature, top_p, negative, best_of, steps, model) == (1, 0.9, "", 1, 30, "toy-janus")
    assert said == "Settings restored; seed 11 is kept."
    _, again, *_ = draw(client, prompt, seed=seed, guidance=guidance, top_p=top_p)
    with Image.open(files[0]) as a, Image.open(again[0]) as b:
        assert a.tobytes() == b.tobytes()


def test_a_fresh_seed_is_told(client: Client) -> None:
    _, _, first, data = draw(client, keep_seed=False)
    _, _, second, _ = draw(client, keep_seed=False)
    assert first != second and data["pictures"][0]["seed"] == first


def test_the_best_are_shown_with_scores(client: Client) -> None:
    status, files, _, data = draw(client, count=1, best_of=3)
    assert "the best of 3" in status and len(files) == 1
    assert data["pictures"][0]["score"] < 0
    (recipe,) = recipes(files)
    assert recipe.best_of is None and recipe.seed == data["pictures"][0]["seed"]  # the file draws it alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "x" * 5000}, "has 5,000 letters; at most 4,000"),
        ({"prompt": "q7 " * 1300}, "the context of"),
        ({"seed": None}, "There is no seed to keep"),
        ({"seed": 2**60}, "9007199254740991"),
        ({"count": 99}, "99"),
        ({"temperature": -1}, "-1"),
        ({"top_p": 0}, "0"),
        ({"negative": "blue", "guidance": 1}, "negative_prompt needs guidance"),
        ({"count": 2, "best_of": 1.5}, "1.5"),
        ({"model": "nano-vl2"}, "nano-vl2"),
        ({"model": "/etc"}, "/etc"),
    ],
)
def test_a_mistake_is_a_sentence(client: Client, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=message) as shown:
        draw(client, **changes)
    assert "Traceback" not in str(shown.value)


def outputs(server: str, session: str) -> Iterator[list[Any]]:
    """What a browser is told of one request, step by step; changes of a list are left as such."""
    with httpx.stream("GET", f"{server}/gradio_api/queue/data?session_hash={session}", timeout=60) as events:
        for line in events.iter_lines():
            told = json.loads(line[5:]) if line.startswith("data:") else {}
            if told.get("msg") in ("process_generating", "process_completed"):
                yield told["output"].get("data") or []
            if told.get("msg") == "process_completed":
                return


def test_pictures_grow_and_cancel_keeps_what_is_finished(server: str, client: Client) -> None:
    numbers = {entry["api_name"]: entry["id"] for entry in client.config["dependencies"]}

    def send(name: str, data: list[Any]) -> None:
        body = {"data": data, "fn_index": numbers[name], "session_hash": "cancelling"}
        httpx.post(f"{server}/gradio_api/queue/join", json=body).raise_for_status()

    send("draw", ["a red circle", 4, 7, True, 5, 1, 1, "", 24, 30, "toy-janus", None])
    told, cancelled = [], False
    for output in outputs(server, "cancelling"):
        told.append(json.dumps(output))
        if not cancelled and re.search(r", [1-9]\d* of 24 finished", told[-1]):
            body = {"data": [], "fn_index": numbers["cancel_drawing"], "session_hash": "cancelling"}
            httpx.post(f"{server}/gradio_api/run/cancel_drawing", json=body).raise_for_status()
            cancelled = True
    rows = [int(row) for row in re.findall(r"row (\d+) of 16", "".join(told))]
    assert min(rows) < 8 < max(rows)
    assert re.search(r"Stopped: \d pictures? of 4 (was|were) finished\.", told[-1]), told[-1]
    assert "a-red-circle-" in told[-1]


def test_restore_refuses_what_was_not_drawn(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="receipt.png' does not say how it was drawn") as shown:
        client.predict(handle_file(str(EXAMPLES / "receipt.png")), api_name="/restore")
    assert "/tmp" not in str(shown.value)
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(AppError, match="SVG drawing"):
        client.predict(handle_file(str(tmp_path / "a.png")), api_name="/restore")


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def test_a_changed_recipe_is_refused(uploads: Path) -> None:
    Image.new("RGB", (8, 8)).save(uploads / "plain.png")
    with pytest.raises(ImageError, match=r"^'plain.png' does not say how it was drawn"):
        recipes_of_files.read_recipe(str(uploads / "plain.png"))
    with pytest.raises(ImageError, match="not uploaded here"):
        recipes_of_files.read_recipe("/etc/hostname")
    save(Image.new("RGB", (8, 8)), uploads / "many.png", Recipe(prompt="x", seed=1, model="m", number=99))
    with pytest.raises(OptionError, match="the number of its pictures is 99; expected a whole number from 1 to 16"):
        recipes_of_files.settings_of(recipes_of_files.read_recipe(str(uploads / "many.png")), ["m"])


def test_what_the_page_lacks_is_said() -> None:
    recipe = Recipe(prompt="x", seed=1, model="other", top_k=50)
    *_, model, said = recipes_of_files.settings_of(recipe, ["toy"])
    assert model == gr.skip()
    assert "drawn by other, which is not loaded" in said and "top-k 50" in said
    far = Recipe(prompt="x", seed=1, model="toy", guidance_scale=30.0, temperature=2.0, top_p=0.01)
    *_, guidance, temperature, top_p, _, _, _, _, said = recipes_of_files.settings_of(far, ["toy"])
    assert (guidance, temperature, top_p) == (20, 2, 0.05), "the sliders refuse what is beyond them"
    assert said.endswith(
        "Its guidance was 30, which only 'mm draw --again' repeats: here it is 20. "
        "Its top-p was 0.01, which only 'mm draw --again' repeats: here it is 0.05."
    )
    *_, said = recipes_of_files.settings_of(Recipe(prompt="x", seed=1, model="toy", quantization="int4"), ["toy"])
    assert said.endswith("Its model's weights were in int4: with others it becomes another picture.")
    with pytest.raises(OptionError, match="the seed is 9223372036854770000"):
        recipes_of_files.settings_of(Recipe(prompt="x", seed=9223372036854770000, model="toy"), ["toy"])


def test_endings() -> None:
    nothing = Drawings(images=[], pictures=(), cancelled=True)
    recipe = Recipe(prompt="x", seed=1, model="toy", number=4)
    assert text_to_image.ending(nothing, recipe, 1) == "Stopped: no picture was finished."
    with pytest.raises(PromptError, match="Write what to draw"):
        recipes_of_files.check_prompt(None)
