"""The evaluation of drawing, with artists whose pictures are known."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm.errors import OptionError
from mm.evaluation.drawing import ALL, TASK, evaluate_drawing
from mm.evaluation.held_out_drawings import arrange
from mm.evaluation.held_out_prompts import CATEGORIES, PAIRS, WHOLE_SCENES, Prompt, category_prompts, scene_prompts
from mm.evaluation.held_out_scenes import SHADES, paint
from mm.evaluation.wishes import Group, Wish
from tests.test_cli import invoke


@dataclass
class Drawn:
    images: list[Image.Image]


def completed(wish: Wish, rng: np.random.Generator) -> Wish:
    """A wish with all that it leaves open filled in."""
    used = {wish.background, *(group.colour for group in wish.groups)}
    free = [name for name in SHADES if name not in used]
    groups = tuple(
        Group(group.count, group.colour or free.pop(int(rng.integers(len(free)))), group.shape, group.size)
        for group in wish.groups
    )
    layout = wish.layout or ("row" if len(groups) > 1 else "")
    return Wish(groups, layout, wish.place, wish.background or free[0])


class Painter:
    """Draws what is asked for, by the held-out renderer; ``blind`` draws the same red circle always."""

    def __init__(self, prompts: Sequence[Prompt], blind: bool = False) -> None:
        self.wishes = {prompt.text: prompt.wish for prompt in prompts}
        self.blind = blind
        self.sizes: list[int] = []

    def generate_images(
        self,
        prompt: Sequence[str],
        *,
        guidance_scale: float | None,
        temperature: float | None,
        top_p: float | None,
        seed: int | None,
        batch_size: int,
    ) -> Drawn:
        assert guidance_scale is None and temperature is None and top_p is None, "its own"
        self.sizes.append(len(prompt))
        rng = np.random.default_rng(seed)
        images = []
        for text in prompt:
            wish = Wish((Group(1, "red", "circle"),), "", "", "white") if self.blind else self.wishes[text]
            scene = None
            while scene is None:
                scene = arrange(rng, completed(wish, rng))
            images.append(paint(rng, scene)[0])
        return Drawn(images)


def test_a_perfect_artist_and_a_blind_one() -> None:
    prompts = [*category_prompts(48), *scene_prompts(6)]
    painter = Painter(prompts)
    report = evaluate_drawing(painter, limit=48, scene_limit=6, batch_size=16)
    assert painter.sizes == [16, 16, 16, 16, 14]
    rows = {row.measure: row for row in report.rows}
    for name in (ALL, *CATEGORIES, *WHOLE_SCENES, PAIRS, "background, of all six", "binding, of all six"):
        result = rows[name].result
        assert result is not None and result.score >= 0.97, name
    control = rows["two groups and relation"].control
    assert control is not None and control.score == 0
    assert rows[ALL].result is not None and rows[ALL].result.count == 48
    assert "other prompts" in report.to_markdown() and len(report.answers) == 2 * len(prompts)
    blind = evaluate_drawing(Painter(prompts, blind=True), limit=12, scene_limit=0)
    assert blind.row(TASK, ALL).result is not None
    result = blind.row(TASK, ALL).result
    assert result is not None and result.score < 0.35
    assert report.answers[0].given.count(" on ") == 1


@pytest.mark.parametrize("name", ["limit", "batch_size"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 0; expected 1 or more"):
        evaluate_drawing(Painter([]), **{name: 0})  # type: ignore[arg-type]


def test_a_model_that_cannot_draw_is_refused_first() -> None:
    result = invoke("eval", "nano-vl2", "--task", "draw")
    assert result.status == 1 and result.out == ""
    assert result.err.startswith("error: nano-vl2 has no generation side") and result.err.count("\n") == 1


def test_a_model_draws_with_its_own_defaults(tiny_janus: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_janus, tmp_path / "model"))
    own = {"drawing": {"guidance_scale": 3.5, "temperature": 0.5, "top_p": 0.9}}
    (folder / "generation_config.json").write_text(json.dumps(own))
    result = invoke("eval", str(folder), "--task", "draw", "--limit", "1", "--json", str(tmp_path / "out.json"))
    assert result.status == 0
    assert f"{folder} draws with guidance 3.5, temperature 0.5 and top-p 0.9, its own." in result.err
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert (settings["guidance_scale"], settings["temperature"], settings["top_p"]) == (3.5, 0.5, 0.9)
