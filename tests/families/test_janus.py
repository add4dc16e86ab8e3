"""Janus folders: strict loading, understanding only, half a generation side, saving, and chat without diffusers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mm.errors import ConfigError, TaskError, WeightsError
from mm.families.janus import IMAGE_SIDE, KEY_MAP
from mm.families.table import (
    build_model,
    drawing_models,
    image_head_of,
    load_config,
    load_processor,
    prompt_tokens,
    save_pretrained,
)
from mm.pipeline import Pipeline
from tests.published_folder import change_json, check_key_map, load, rewrite
from tests.published_folder import published as tensors_of


@pytest.fixture(scope="module")
def published(golden: Callable[[str], Path]) -> Path:
    return golden("janus_pro") / "checkpoint"


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A writable copy."""
    return Path(shutil.copytree(published, tmp_path / "checkpoint"))


def test_the_key_map_goes_there_and_back(published: Path) -> None:
    dropped = check_key_map(KEY_MAP, build_model(load_config(published)), set(tensors_of(published)))
    assert "gen_vision_model.quantize.codebook_used" in dropped


def test_everything_wrong_is_listed_in_one_error(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del tensors["aligner.layers.2.bias"]
        tensors["gen_embed.weight"] = torch.zeros(512, 9)
        return {**tensors, "gen_vision_model.extra": torch.zeros(2)}

    rewrite(folder, change)
    with pytest.raises(WeightsError) as caught:
        load(folder)
    for part in (
        "1 missing: aligner.layers.2.bias",
        "1 unexpected: gen_vision_model.extra",
        r"1 of another shape: gen_embed.weight is [512, 9], expected [512, 8]",
    ):
        assert part in str(caught.value)


def test_weights_for_understanding_only(folder: Path) -> None:
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(IMAGE_SIDE)})
    model = load(folder)
    assert model.image_head is None
    reply = Pipeline(model, load_processor(folder)).chat(None, "Say 5 words.", max_new_tokens=4)
    assert reply.token_ids == (996, 565, 1356, 406), "as recorded with all weights"
    with pytest.raises(
        TaskError,
        match=r"my-model has no generation side .* cannot draw. Models that can: nano-janus, deepseek-ai/Janus-1.3B, "
        r"deepseek-ai/Janus-Pro-1B, deepseek-ai/Janus-Pro-7B, deepseek-ai/JanusFlow-1.3B\.",
    ):
        image_head_of(model, "my-model")


def test_pickles_in_shards_with_an_index(folder: Path, published: Path) -> None:
    """As Janus-Pro-7B is published."""
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    files = {f"pytorch_model-0000{n + 1}-of-00002.bin": names[n::2] for n in range(2)}
    for file, kept in files.items():
        torch.save({name: tensors[name] for name in kept}, folder / file)
    index = {"weight_map": {name: file for file, kept in files.items() for name in kept}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    pairs = zip(load(folder).parameters(), load(published).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(WeightsError, match="names pytorch_model-00002-of-00002.bin, which is not in"):
        load(folder)


def test_half_of_a_generation_side_is_refused(folder: Path) -> None:
    def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        side = sorted(name for name in tensors if name.startswith(IMAGE_SIDE))
        return {name: tensor for name, tensor in tensors.items() if name not in side[: len(side) // 2]}

    rewrite(folder, half)
    with pytest.raises(WeightsError, match=r"\d+ missing: gen_aligner.layers.0.bias, .*The download is incomplete"):
        load(folder)


def test_models_that_draw() -> None:
    names = drawing_models()
    assert names == sorted(names, key=lambda name: "/" in name), "bundled ones first"
    assert not any("vl2" in name for name in names)


def test_a_saved_model_is_the_same_model(folder: Path, published: Path, tmp_path: Path) -> None:
    model = load(published)
    save_pretrained(model, tmp_path / "saved", source=published, dtype=torch.bfloat16)
    before, after = tensors_of(published), tensors_of(tmp_path / "saved")
    assert before.keys() == after.keys(), "dropped tensors are copied along"
    assert all(torch.equal(before[name], after[name]) for name in before if before[name].dtype == torch.bfloat16)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), load(tmp_path / "saved").parameters(), strict=True)
    )
    assert load_processor(tmp_path / "saved").spec == load_processor(published).spec


def test_files_of_different_models(folder: Path) -> None:
    change_json(folder / "processor_config.json", num_image_tokens=144)
    with pytest.raises(
        ConfigError, match="processor_config.json has num_image_tokens 144, but the encoder in config.json has 576"
    ):
        load_processor(folder)
    change_json(folder / "processor_config.json", num_image_tokens=576)
    change_json(folder / "preprocessor_config.json", image_size=448)
    with pytest.raises(
        ConfigError, match="preprocessor_config.json has image_size 448, but vision_config.params has 384"
    ):
        load_processor(folder)


def test_role_and_image_tokens(folder: Path) -> None:
    tokens = {token.purpose: (token.text, token.id) for token in prompt_tokens(folder)}
    assert tokens["assistant"] == ("<|Assistant|>", 1407)
    assert tokens["image"] == ("<image_placeholder>", 1403)
    assert tokens["image start"] == ("<begin_of_image>", 1404)
    assert tokens["image end"] == ("<end_of_image>", 1405)
    assert tokens["pad"] == ("<｜▁pad▁｜>", 1402)
    (folder / "tokenizer.json").unlink()
    assert {token.id for token in prompt_tokens(folder)} == {None}


def test_loading_answering_and_saving_import_no_diffusers(published: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from mm import Pipeline
from mm.families.table import save_pretrained
pipe = Pipeline.from_pretrained({str(published)!r}, device="cpu")
pipe.chat(None, "Say 5 words.", max_new_tokens=2)
save_pretrained(pipe.model, {str(tmp_path / "saved")!r}, source=pipe.folder)
sys.exit(", ".join({{"diffusers", "transformers", "peft", "accelerate"}} & sys.modules.keys()) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_answers_from_a_folder(published: Path) -> None:
    picture = published.parent / "images" / "chart_640x480.png"
    command = [sys.executable, "-m", "mm", "chat", "-m", str(published), "--max-new-tokens", "4", "--json"]
    done = subprocess.run(
        [*command, str(picture), "Convert the chart into a table."], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["text"] == "hor this dependenciesdim", "as recorded"
    assert answer["usage"]["prompt_tokens"] == 673 and answer["usage"]["image_tokens"] == 576
