"""Janus against the newest transformers at a tiny random size, through a folder that ``save_pretrained`` wrote."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, JanusForConditionalGeneration, LlamaConfig
from transformers import JanusConfig as TheirConfig
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig

from mm.chat import user_message
from mm.evaluation.verify_janus import draw_greedily
from mm.families.janus import build_processor
from mm.families.table import load_config, load_model
from mm.pipeline import Pipeline
from mm.processing.vlm import VLMProcessor
from tests.tiny_janus import CODES, HIDDEN, SIDE, WIDTH

VOCABULARY = 1472
# Published name -> transformers' name, in this order.
NAMES = (
    (r"^vision_model\.vision_tower\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"^vision_model\.vision_tower\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
    (r"^vision_model\.vision_tower\.norm\.", "vision_model.post_layernorm."),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.norm", r"vision_model.encoder.layers.\1.layer_norm"),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.mlp", r"vision_model.encoder.layers.\1.mlp"),
    (
        r"^vision_model\.vision_tower\.blocks\.(\d+)\.attn\.proj",
        r"vision_model.encoder.layers.\1.self_attn.projection_layer",
    ),
    (r"^gen_embed", "generation_embeddings"),
    (r"^gen_aligner", "generation_aligner"),
    (r"^gen_head\.output_mlp_projector", "generation_head.proj_out"),
    (r"^gen_head", "generation_head"),
    (r"aligner\.layers\.0", "aligner.fc1"),
    (r"aligner\.layers\.2", "aligner.hidden_layers.0"),
    (r"^gen_vision_model", "vqmodel"),
    (r"encoder\.conv_blocks", "encoder.down"),
    (r"decoder\.conv_blocks", "decoder.up"),
    (r"\.res\.", ".block."),
    (r"mid\.0", "mid.block_1"),
    (r"mid\.1", "mid.attn_1"),
    (r"mid\.2", "mid.block_2"),
    (r"^language_model\.model", "language_model"),
)


def theirs(published: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same weights under transformers' names."""
    for name, tensor in published.items():
        fused = re.fullmatch(r"vision_model\.vision_tower\.blocks\.(\d+)\.attn\.qkv\.(\w+)", name)
        if fused:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                yield f"model.vision_model.encoder.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}", rows
            continue
        if name == "language_model.lm_head.weight":
            yield "lm_head.weight", tensor
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        yield f"model.{name}", tensor[0] if name.endswith("position_embedding.weight") else tensor


@pytest.fixture(scope="module")
def folder(tiny_janus: Path) -> Path:
    return tiny_janus


@pytest.fixture(scope="module")
def reference(folder: Path) -> JanusForConditionalGeneration:
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        rms_norm_eps=1e-6,
        max_position_embeddings=2048,
    )
    vision = JanusVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=SIDE,
        projection_dim=HIDDEN,
        num_image_tokens=(SIDE // 16) ** 2,
    )
    vq = JanusVQVAEConfig(
        num_embeddings=CODES,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1, 2],
        projection_dim=HIDDEN,
        image_token_embed_dim=HIDDEN,
    )
    config = TheirConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        vq_config=vq.to_dict(),
        image_token_id=processor(folder).image_id,
        tie_word_embeddings=False,
    )
    model = JanusForConditionalGeneration(config).eval()
    published: dict[str, Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        published |= load_file(shard)
    model.load_state_dict(dict(theirs(published)), strict=True)
    return model


def processor(folder: Path) -> VLMProcessor:
    return build_processor(folder, load_config(folder))  # type: ignore[arg-type]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 90, 3), dtype=np.uint8))


def test_understanding(folder: Path, reference: JanusForConditionalGeneration) -> None:
    model = load_model(folder, device="cpu", dtype="float32")
    inputs = processor(folder).process([user_message("<image> and <image>: which?", [picture(0), picture(1)])])
    with torch.inference_mode():
        expected = reference(input_ids=inputs.input_ids[None], pixel_values=inputs.pixels)
        (embeds,) = model.embed_inputs([inputs])
        logits = model.decoder.logits(model.decoder(embeds[None]))
    torch.testing.assert_close(logits, expected.logits)


def test_answers_through_the_engine(folder: Path, reference: JanusForConditionalGeneration) -> None:
    pipe = Pipeline.from_pretrained(folder, device="cpu", dtype="float32")
    reply = pipe.chat(picture(2), "What is it?", max_new_tokens=8)
    inputs = processor(folder).process([user_message("What is it?", [picture(2)])])
    expected = reference.generate(
        inputs.input_ids[None],
        attention_mask=torch.ones(1, inputs.num_tokens, dtype=torch.int64),
        pixel_values=inputs.pixels,
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=processor(folder).tokenizer.eos_id,
        pad_token_id=processor(folder).pad_id,
    )[0, inputs.num_tokens :]
    assert list(reply.token_ids) == expected.tolist()[: len(reply.token_ids)]


def test_the_image_tokenizer(folder: Path, reference: JanusForConditionalGeneration) -> None:
    model = load_model(folder, device="cpu", dtype="float32")
    assert model.image_head is not None
    torch.manual_seed(1)
    pixels = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    their = reference.model.vqmodel
    vq = model.image_head.vq
    with torch.inference_mode():
        # transformers compares vectors with the codebook as they are; the official code scales both to length 1 first.
        expected = F.normalize(their.quant_conv(their.encoder(pixels)), dim=1).permute(0, 2, 3, 1)
        torch.testing.assert_close(vq.latents(pixels), expected)
        codes = vq.encode(pixels)
        distances = torch.cdist(expected.flatten(0, 2), F.normalize(their.quantize.embedding.weight, dim=-1))
        assert torch.equal(codes.flatten(), distances.argmin(dim=-1))
        assert len(codes.unique()) > 3
        torch.testing.assert_close(vq.decode(codes, (4, 4)), their.decode(codes))


@pytest.mark.parametrize("scale", [3.0, 5.0])
def test_guided_drawing(folder: Path, reference: JanusForConditionalGeneration, scale: float) -> None:
    model, own = load_model(folder, device="cpu", dtype="float32"), processor(folder)
    assert model.image_head is not None
    prompt = own.drawing_prompt("two red circles")
    drawn = draw_greedily(model, model.image_head, prompt, steps=16, guidance_scale=scale, pictures=1)
    settings = GenerationConfig(
        do_sample=False,
        guidance_scale=scale,
        bos_token_id=own.tokenizer.bos_id,
        eos_token_id=own.tokenizer.eos_id,
        pad_token_id=own.pad_id,
        max_length=64,
        generation_kwargs={"boi_token_id": own.tokenizer.token_id("<begin_of_image>")},
    )
    expected = reference.generate(
        prompt.conditional[None],
        attention_mask=torch.ones(1, len(prompt.conditional), dtype=torch.int64),
        generation_mode="image",
        generation_config=settings,
    )
    assert torch.equal(drawn.codes, expected)
    assert len(drawn.codes.unique()) > 2
