"""JanusFlow folders: strict loading, understanding only, half a generation side, settings left out, saving."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm.errors import ConfigError, TaskError, WeightsError
from mm.families.janusflow import FLOW_SIDE, KEY_MAP
from mm.families.table import build_model, load_config, load_model, load_processor, prompt_tokens, save_pretrained
from mm.hub import find_autoencoder
from mm.pipeline import Pipeline


@pytest.fixture(scope="module")
def published(golden: Callable[[str], Path]) -> Path:
    return golden("janusflow") / "checkpoint"


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A writable copy."""
    return Path(shutil.copytree(published, tmp_path / "checkpoint"))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Changed weights."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_key_map_goes_there_and_back(published: Path) -> None:
    model = build_model(load_config(published))
    names = set(load_file(published / "model.safetensors"))
    kept = {name for name in names if not KEY_MAP.is_dropped(name)}
    assert all("attn_pool" in name for name in names - kept)
    parameters = dict(model.named_parameters())
    for name in kept:
        target, index = KEY_MAP.to_model(name)
        assert index is None and KEY_MAP.to_published(target, len(parameters[target])) == [(name, None)]
    assert set(KEY_MAP.published_shapes(model)) == kept


def test_everything_wrong_is_listed_in_one_error(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del tensors["vision_gen_dec_aligner_norm.weight"]
        tensors["beg_of_und_embed"] = torch.zeros(2, 64)
        return {**tensors, "vision_gen_enc_model.extra": torch.zeros(2)}

    rewrite(folder, change)
    with pytest.raises(WeightsError) as caught:
        load_model(folder, device="cpu", dtype="float32")
    for part in (
        "1 missing: vision_gen_dec_aligner_norm.weight",
        "1 unexpected: vision_gen_enc_model.extra",
        "1 of another shape: beg_of_und_embed is [2, 64], expected [1, 64]",
    ):
        assert part in str(caught.value)


def test_weights_for_understanding_only(folder: Path) -> None:
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith(FLOW_SIDE)})
    pipe = Pipeline.from_pretrained(folder, device="cpu", dtype="float32")
    picture = folder.parent / "red.png"
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(picture)
    assert pipe.chat(picture, "What?", max_new_tokens=3).usage.image_tokens == 577
    with pytest.raises(TaskError, match="has no generation side .*deepseek-ai/JanusFlow-1.3B"):
        pipe.generate_images("a star")


def test_half_of_a_generation_side_is_refused(folder: Path) -> None:
    def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        side = sorted(name for name in tensors if name.startswith(FLOW_SIDE))
        return {name: tensor for name, tensor in tensors.items() if name not in side[: len(side) // 2]}

    rewrite(folder, half)
    with pytest.raises(WeightsError, match=r"\d+ missing: vision_gen_dec_aligner"):
        load_model(folder, device="cpu", dtype="float32")


def test_a_saved_model_is_the_same_model(published: Path, tmp_path: Path) -> None:
    model = load_model(published, device="cpu", dtype="float32")
    save_pretrained(model, tmp_path / "saved", source=published, dtype=torch.bfloat16)
    before = load_file(published / "model.safetensors")
    after: dict[str, Tensor] = {}
    for shard in (tmp_path / "saved").glob("*.safetensors"):
        after |= load_file(shard)
    assert before.keys() == after.keys(), "dropped tensors are copied along"
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_processor(tmp_path / "saved").spec == load_processor(published).spec


def test_the_autoencoder_beside_a_model_is_saved_with_it(golden: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden("janusflow") / "checkpoint", tmp_path / "model"))
    shutil.copytree(golden("janusflow") / "vae", folder / "vae")
    (folder / "vae" / "notes.bin").write_bytes(b"of the user")
    model = load_model(folder, device="cpu", dtype="float32")
    save_pretrained(model, tmp_path / "saved", source=folder)
    names = sorted(path.name for path in (tmp_path / "saved" / "vae").iterdir())
    assert names == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert find_autoencoder(None, tmp_path / "saved") == tmp_path / "saved" / "vae"


def test_settings_that_the_files_leave_out_are_those_of_the_published_classes(folder: Path) -> None:
    (folder / "processor_config.json").write_text(
        '{"sft_format": "deepseek_old", "processor_class": "VLChatProcessor"}'
    )
    (folder / "preprocessor_config.json").write_text('{"image_size": 384, "image_mean": [0.5, 0.5, 0.5]}')
    processor = load_processor(folder)
    spec = processor.spec
    assert (spec.num_image_tokens, spec.mask_prompt, spec.ignore_id, spec.normalize) == (576, True, -100, True)
    assert spec.image_mean == (0.5, 0.5, 0.5) and spec.background_color == (127, 127, 127)
    assert spec.image_std == (0.26862954, 0.26130258, 0.27577711)
    assert processor.drawing_prompt("a star").text == "User: a star\n\nAssistant:<｜begin▁of▁generation｜>"
    change_json(folder / "processor_config.json", sft_format="plain")
    with pytest.raises(ConfigError, match="sft_format is 'plain', expected one of deepseek, deepseek_old"):
        load_processor(folder)


def test_files_of_different_models(folder: Path) -> None:
    change_json(folder / "processor_config.json", num_image_tokens=144)
    with pytest.raises(ConfigError, match="has num_image_tokens 144, but the encoder in config.json has 576"):
        load_processor(folder)
    change_json(folder / "processor_config.json", num_image_tokens=576)
    change_json(folder / "preprocessor_config.json", image_size=448)
    with pytest.raises(ConfigError, match="has image_size 448, but vision_und_enc_config.params has 384"):
        load_processor(folder)


def test_tags_that_the_tokenizer_lacks_are_added_in_the_published_order(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tags = ("<image_placeholder>", "<｜begin▁of▁generation｜>", "<begin_of_image>", "<end_of_image>")
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] not in tags]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = load_processor(folder).tokenizer.ids(tags)
    assert [ids[tag] for tag in tags] == [1403, 1404, 1405, 1406]


def test_role_image_and_generation_tokens(folder: Path) -> None:
    tokens = {token.purpose: (token.text, token.id) for token in prompt_tokens(folder)}
    assert tokens["user"][0] == "User" and tokens["assistant"][0] == "Assistant"
    assert tokens["image"] == ("<image_placeholder>", 1403)
    assert tokens["generation"] == ("<｜begin▁of▁generation｜>", 1406)
    assert tokens["pad"] == ("<｜▁pad▁｜>", 1402)


def test_what_a_user_writes_cannot_begin_a_picture(folder: Path) -> None:
    processor = load_processor(folder)
    prompt = processor.drawing_prompt("a <｜begin▁of▁generation｜> <begin_of_image> star")
    assert prompt.conditional.tolist().count(1406) == 1 and prompt.conditional[-1] == 1406
    assert 1404 not in prompt.conditional.tolist()
    assert prompt.unconditional.tolist() == [1400] + [1402] * (len(prompt.conditional) - 1)
    assert prompt.attended == 1
    assert processor.drawing_prompt("a star", "a circle").attended is None
