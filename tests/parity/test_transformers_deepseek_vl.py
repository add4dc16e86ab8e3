"""DeepSeek-VL against the newest transformers at tiny random sizes, through folders that ``save_pretrained`` wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import normalize, resize
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    LlamaConfig,
    PreTrainedModel,
    SamVisionConfig,
    SiglipVisionConfig,
)

from mm.chat import user_message
from mm.families.table import build_model, load_config, load_model, load_processor, save_pretrained
from tests.parity.siglip_of_transformers import check_answer, picture, renamed, tower_names
from tests.published_folder import change_json, published

LOW, HIGH, HIDDEN, WIDTH, NECK, VOCABULARY = 64, 320, 32, 24, 6, 1472
CLIP = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5] * 3, [0.5] * 3
SIGLIP = {"width": WIDTH, "layers": 2, "heads": 3, "image_size": LOW, "pixel_mean": HALF[0], "pixel_std": HALF[1]}
SAM = {"width": 32, "layers": 4, "heads": 2, "image_size": HIGH, "global_attn_indexes": [1, 3], "output_dim": WIDTH}
SAM |= {"prompt_embed_dim": NECK, "downsample_channels": [2 * NECK, 4 * NECK], "pixel_mean": CLIP[0]}
KINDS = ["single", "hybrid"]
# Published name -> transformers' name, in this order.
NAMES = (
    (r"^vision_model\.vision_tower_low\.vision_tower", "vision_model"),
    (r"^vision_model\.vision_tower\.", "vision_model."),
    (r"^vision_model\.vision_tower_high\.vision_tower\.(neck_hd|downsamples)", r"\1"),
    (r"^vision_model\.vision_tower_high\.vision_tower\.hd_alpha_downsamples", "high_res_vision_alpha"),
    (r"^vision_model\.vision_tower_high\.vision_tower", "high_res_vision_model.vision_encoder"),
    (r"^neck_hd", "high_res_vision_neck"),
    (r"^downsamples\.0", "high_res_vision_proj.conv1"),
    (r"^downsamples\.1", "high_res_vision_proj.conv2"),
    (r"(neck)\.0", r"\1.conv1"),
    (r"(neck)\.1", r"\1.layer_norm1"),
    (r"(neck)\.2", r"\1.conv2"),
    (r"(neck)\.3", r"\1.layer_norm2"),
    (r"encoder\.patch_embed\.proj", "encoder.patch_embed.projection"),
    (r"encoder\.blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
    (r"encoder\.blocks", "encoder.layers"),
    *tower_names("out_proj"),
    (r"aligner\.layers\.0", "aligner.linear1"),
    (r"aligner\.layers\.2", "aligner.linear2"),
    (r"aligner\.layers\.1", "aligner.proj"),
    (r"aligner\.low_up_proj", "aligner.vision_proj"),
    (r"aligner\.high_up_proj", "aligner.high_res_vision_proj"),
    (r"^language_model\.model", "language_model"),
)


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, golden: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny random DeepSeek-VL in the published layout, written by ``save_pretrained``."""
    root = tmp_path_factory.mktemp(request.param)
    source = root / "source"
    recorded = golden(f"deepseek_vl_{request.param}") / "checkpoint"
    shutil.copytree(recorded, source, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    config = json.loads((source / "config.json").read_text())
    tower = config["vision_config"]["params"]
    if request.param == "hybrid":
        tower["low_res_cfg"].update(SIGLIP, output_dim=WIDTH)
        tower["high_res_cfg"].update(SAM, pixel_std=CLIP[1])
    else:
        tower.update(SIGLIP)
    config["aligner_config"]["params"].update(input_dim=WIDTH, n_embed=HIDDEN)
    config["language_config"].update(hidden_size=HIDDEN, intermediate_size=48, num_attention_heads=4)
    config["language_config"].update(num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-6)
    (source / "config.json").write_text(json.dumps(config))
    side = HIGH if request.param == "hybrid" else LOW
    change_json(source / "preprocessor_config.json", image_size=side, do_normalize=False)
    change_json(source / "processor_config.json", num_image_tokens=(LOW // 16) ** 2)
    torch.manual_seed(0)
    model = build_model(load_config(source), device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # large enough that a mistake shows
                parameter.normal_(std=0.8 / parameter[0].numel() ** 0.5 if "pos" not in name else 0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif name.endswith("hd_alpha_downsamples"):
                parameter.fill_(0.7)
    save_pretrained(model, root / "saved", source=source, dtype=torch.float32)
    return root / "saved"


@pytest.fixture(scope="module")
def reference(folder: Path) -> PreTrainedModel:
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        max_position_embeddings=2048,
    )
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=LOW,
        patch_size=16,
        hidden_act="gelu",
        vision_use_head=False,
    )
    sam = SamVisionConfig(
        hidden_size=32,
        output_channels=NECK,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=HIGH,
        global_attn_indexes=[1, 3],
    )
    parts: dict[str, Any] = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
    parts |= {"image_token_id": load_processor(folder).image_id, "tie_word_embeddings": False}  # type: ignore[attr-defined]
    model: PreTrainedModel
    if is_hybrid(folder):
        model = DeepseekVLHybridForConditionalGeneration(
            DeepseekVLHybridConfig(**parts, high_res_vision_config=sam.to_dict())
        )
    else:
        model = DeepseekVLForConditionalGeneration(DeepseekVLConfig(**parts))
    model.load_state_dict(dict(renamed(published(folder), NAMES)), strict=True)
    return model.eval()


def is_hybrid(folder: Path) -> bool:
    return "high_res_cfg" in (folder / "config.json").read_text()


def their_pixels(folder: Path, pixels: Tensor) -> dict[str, Tensor]:
    """transformers normalises before its towers: the same numbers, made by torchvision."""
    if not is_hybrid(folder):
        return {"pixel_values": normalize(pixels, *HALF)}
    small = resize(pixels, [LOW, LOW], antialias=True)
    return {"pixel_values": normalize(small, *HALF), "high_res_pixel_values": normalize(pixels, *CLIP)}


def test_logits(folder: Path, reference: PreTrainedModel) -> None:
    model = load_model(folder, device="cpu", dtype="float32")
    question = user_message("<image> and <image>: which?", [picture(0), picture(1)])
    inputs = load_processor(folder).process([question])
    with torch.inference_mode():
        expected = reference(input_ids=inputs.input_ids[None], **their_pixels(folder, inputs.pixels))
        (embeds,) = model.embed_inputs([inputs])
        logits = model.decoder.logits(model.decoder(embeds[None]))
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(logits, expected.logits)


@pytest.mark.parametrize("seed", [2, 3])
def test_answers_through_the_engine(folder: Path, reference: PreTrainedModel, seed: int) -> None:
    check_answer(folder, reference, seed, lambda pixels: their_pixels(folder, pixels))
