"""DeepSeek-VL folders: strict loading, another SAM, saving, prompts, batches, chat and completion."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mm.chat import user_message
from mm.errors import ConfigError, TaskError, WeightsError
from mm.families.deepseek_vl import HIGH, KEY_MAP
from mm.families.table import (
    build_model,
    image_head_of,
    load_config,
    load_processor,
    prompt_tokens,
    save_pretrained,
)
from mm.generation.engine import Engine
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.model import VisionLanguageModel
from mm.pipeline import Pipeline
from tests.published_folder import change_json, check_key_map, load, published, rewrite


@pytest.fixture(scope="module")
def hybrid(golden: Callable[[str], Path]) -> Path:
    return golden("deepseek_vl_hybrid") / "checkpoint"


@pytest.fixture(scope="module")
def single(golden: Callable[[str], Path]) -> Path:
    return golden("deepseek_vl_single") / "checkpoint"


@pytest.fixture
def folder(hybrid: Path, tmp_path: Path) -> Path:
    """A writable copy."""
    return Path(shutil.copytree(hybrid, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def pipe(hybrid: Path) -> Pipeline:
    return Pipeline.from_pretrained(hybrid, device="cpu", dtype="float32")


def picture(seed: int, size: tuple[int, int] = (90, 50)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("case", ["single", "hybrid"])
def test_the_key_map_goes_there_and_back(case: str, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue(case)
    dropped = check_key_map(KEY_MAP, build_model(load_config(source)), set(published(source)))
    norms = {f"vision_model.{level}_layer_norm.{kind}" for level in ("high", "low") for kind in ("weight", "bias")}
    assert {name for name in dropped if "attn_pool" not in name} == (norms if case == "hybrid" else set())


def test_everything_wrong_is_listed_in_one_error(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del tensors[f"{HIGH}hd_alpha_downsamples"], tensors[f"{HIGH}neck_hd.2.weight"]
        tensors["aligner.low_up_proj.bias"] = torch.zeros(9)
        return {**tensors, f"{HIGH}blocks.0.mlp.fc1.weight": torch.zeros(2)}

    rewrite(folder, change)
    with pytest.raises(WeightsError) as caught:
        load(folder)
    for part in (
        f"2 missing: {HIGH}hd_alpha_downsamples, {HIGH}neck_hd.2.weight",
        f"1 unexpected: {HIGH}blocks.0.mlp.fc1.weight",
        "1 of another shape: aligner.low_up_proj.bias is [9], expected [40]",
        "The download is incomplete, or config and weights are of different models",
    ):
        assert part in str(caught.value)


def test_a_sam_trained_at_another_resolution(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[f"{HIGH}pos_embed"] = tensors[f"{HIGH}pos_embed"][:, :32, :32].contiguous()
        for block in (1, 3):
            for axis in "hw":
                name = f"{HIGH}blocks.{block}.attn.rel_pos_{axis}"
                tensors[name] = tensors[name][32:95].contiguous()
        return tensors

    rewrite(folder, change)
    with pytest.raises(
        WeightsError,
        match=r"SAM tower in the weight files was trained at 512 x 512 pixels "
        r"\(its position table has 32 x 32 patches\), but config.json says high_res_cfg.image_size 1024 "
        r"\(64 x 64 patches\). Positions are not interpolated: use",
    ):
        load(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["params"]["high_res_cfg"]["image_size"] = 512
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="preprocessor_config.json has image_size 1024, but .* has 512"):
        load_processor(folder)
    change_json(folder / "preprocessor_config.json", image_size=512)
    reply = Pipeline.from_pretrained(folder, device="cpu").chat(picture(0), "What?", max_new_tokens=2)
    assert reply.usage.image_tokens == 576, "with its own config it runs at its own size"


def test_weights_of_the_other_layout(folder: Path, single: Path) -> None:
    shutil.copy(single / "config.json", folder / "config.json")
    with pytest.raises(WeightsError, match=r"missing: aligner.layers.0.bias, .*unexpected: aligner.high_up_proj.bias"):
        load(folder)


def test_a_saved_model_is_the_same_model(hybrid: Path, tmp_path: Path) -> None:
    model = load(hybrid)
    save_pretrained(model, tmp_path / "saved", source=hybrid, dtype=torch.bfloat16)
    before, after = published(hybrid), published(tmp_path / "saved")
    assert before.keys() == after.keys(), "dropped tensors are copied along"
    assert all(torch.equal(before[name], after[name]) for name in before)
    pairs = zip(model.parameters(), load(tmp_path / "saved").parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert load_processor(tmp_path / "saved").spec == load_processor(hybrid).spec


def test_files_of_different_models(folder: Path) -> None:
    change_json(folder / "processor_config.json", num_image_tokens=144)
    with pytest.raises(ConfigError, match="has num_image_tokens 144, but the encoder in config.json has 576"):
        load_processor(folder)
    change_json(folder / "processor_config.json", num_image_tokens=576)
    change_json(folder / "preprocessor_config.json", do_normalize=True)
    with pytest.raises(ConfigError, match="do_normalize true, .* would be normalised twice. Set do_normalize to false"):
        load_processor(folder)


def test_the_background_is_named_or_follows_from_the_mean(folder: Path) -> None:
    assert load_processor(folder).spec.pad_color == (122, 116, 104), "not in the file"
    change_json(folder / "preprocessor_config.json", background_color=[1, 2, 3])
    assert load_processor(folder).spec.pad_color == (1, 2, 3)
    change_json(folder / "preprocessor_config.json", background_color=[1, 2, 300])
    with pytest.raises(ConfigError, match="background_color is .*, expected three whole numbers within 0..255"):
        load_processor(folder)


def test_role_and_image_tokens(folder: Path) -> None:
    tokens = {token.purpose: (token.text, token.id) for token in prompt_tokens(folder)}
    assert tokens["image"] == ("<image_placeholder>", 1402)
    assert {purpose: text for purpose, (text, _) in tokens.items()} == {
        "user": "User",
        "assistant": "Assistant",
        "image": "<image_placeholder>",
    }


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path) -> None:
    """As published: pad_token is null."""
    change_json(folder / "tokenizer_config.json", pad_token=None)
    (folder / "special_tokens_map.json").unlink()
    processor = load_processor(folder)
    assert processor.tokenizer.pad_id == processor.tokenizer.eos_id == 1401
    rows = [processor.process([user_message(text)]) for text in ("Hi.", "What is the total of it?")]
    batch = processor.collate(rows)
    missing = int((~batch.attention_mask[0]).sum())
    assert missing > 0 and batch.input_ids[0, :missing].tolist() == [1401] * missing


def test_drawing_is_refused(pipe: Pipeline) -> None:
    assert isinstance(pipe.model, VisionLanguageModel)
    with pytest.raises(TaskError, match=r"my-vl has no generation side .* cannot draw. Models that can: .*Janus"):
        image_head_of(pipe.model, "my-vl")
    with pytest.raises(TaskError, match="this model's prompts have no place for a picture, so it cannot draw"):
        pipe.processor.drawing_prompt("a red circle")


def test_a_batch_answers_like_one_by_one(pipe: Pipeline) -> None:
    requests = [
        (picture(1), "What is it?"),
        (None, "Say 5 words."),
        ([picture(2), picture(3, (300, 20))], "Which one is taller, and by how much?"),
        (picture(1), "Describe it."),
    ]
    together = pipe.chat_batch(requests, max_new_tokens=6)  # type: ignore[arg-type]
    alone = [pipe.chat(images, text, max_new_tokens=6) for images, text in requests]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert [reply.usage.image_tokens for reply in together] == [576, 0, 1152, 576]


def test_features_of_a_view_do_not_depend_on_the_views_beside_it(pipe: Pipeline) -> None:
    assert isinstance(pipe.model, VisionLanguageModel)
    inputs = [pipe.processor.process([user_message("<image>", [picture(seed)])]) for seed in range(5)]
    pixels = torch.cat([item.pixels for item in inputs])
    before = pixels.clone()
    with torch.inference_mode():
        together = pipe.model.encode_views(pixels)
        torch.testing.assert_close(together[4:], pipe.model.encode_views(pixels[4:]))
    assert torch.equal(pixels, before)


def test_a_base_checkpoint_completes(pipe: Pipeline) -> None:
    """Base and chat folders are published alike; a raw prompt goes to the model without template."""
    model, processor = pipe.model, pipe.processor
    inputs = processor.process_prompt("<image_placeholder>A photo of", [picture(1)], apply_template=False)
    assert inputs.input_ids[0] == processor.tokenizer.bos_id and inputs.prompt == "<image_placeholder>A photo of"
    row = Row(
        prompt_ids=inputs.input_ids,
        options=SamplingOptions(detect_loops=False),
        max_new_tokens=4,
        end_ids=frozenset((processor.tokenizer.eos_id,)),
        hidden_ids=frozenset(),
        decode=processor.tokenizer.decode,
    )
    with Engine(model.decoder, lambda piece: model.embed_inputs([piece])[0], device=model.device) as engine:
        engine.submit(inputs, row).result()
    with torch.inference_mode():
        embeds = model.embed_inputs([inputs])[0][None]
        expected = []
        for _ in range(4):
            token = int(model.decoder.logits(model.decoder(embeds))[0, -1].argmax())
            expected.append(token)
            embeds = torch.cat((embeds, model.decoder.embed(torch.tensor([[token]]))), dim=1)
    assert row.tokens == expected


def test_the_other_verbs(pipe: Pipeline, hybrid: Path) -> None:
    image = hybrid.parent / "images" / "chart_640x480.png"
    assert pipe.ocr(image, max_new_tokens=3).reply.usage.image_tokens == 576
    (caption,) = pipe.caption([image], max_new_tokens=3)
    assert caption.usage.completion_tokens == 3


def test_a_vocabulary_without_boxes_refuses_to_ground(pipe: Pipeline, hybrid: Path) -> None:
    image = hybrid.parent / "images" / "chart_640x480.png"
    with pytest.raises(TaskError, match=r"cannot ground: its vocabulary has no <\|ref\|>, .* Use a DeepSeek-VL2 model"):
        pipe.ground(image, "the red car")
    with pytest.raises(TaskError, match=r"cannot constrain boxes: .* vocabulary has no <\|ref\|>"):
        pipe.chat(image, "Where is it?", constrain_boxes=True)


def test_the_command_line_answers_from_a_folder(hybrid: Path) -> None:
    image = str(hybrid.parent / "images" / "chart_640x480.png")
    question = "<image_placeholder>Describe the chart in one line."
    command = [sys.executable, "-m", "mm", "chat", "-m", str(hybrid), "--max-new-tokens", "5", "--json"]
    done = subprocess.run([*command, image, question], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["text"].strip() == "systemweight responsegenerate^", "as recorded"
    assert answer["usage"]["prompt_tokens"] == 673 and answer["usage"]["image_tokens"] == 576
