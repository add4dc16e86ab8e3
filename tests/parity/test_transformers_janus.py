"""Janus against the newest transformers at a tiny random size, through a folder that ``save_pretrained`` wrote."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import GenerationConfig, JanusForConditionalGeneration, LlamaConfig
from transformers import JanusConfig as TheirConfig
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig

from mm.chat import user_message
from mm.evaluation.verify_janus import draw_greedily
from mm.families.janus import build_processor
from mm.families.table import load_config, load_model
from mm.processing.vlm import VLMProcessor
from tests.parity.siglip_of_transformers import check_answer, picture, renamed, tower_names
from tests.published_folder import published
from tests.tiny_janus import CODES, HIDDEN, SIDE, WIDTH

VOCABULARY = 1472
# Published name -> transformers' name, in this order.
NAMES = (
    (r"^vision_model\.vision_tower", "vision_model"),
    *tower_names("projection_layer"),
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
    model.load_state_dict(dict(renamed(published(folder), NAMES)), strict=True)
    return model


def processor(folder: Path) -> VLMProcessor:
    return build_processor(folder, load_config(folder))  # type: ignore[arg-type]


def test_understanding(folder: Path, reference: JanusForConditionalGeneration) -> None:
    model = load_model(folder, device="cpu", dtype="float32")
    inputs = processor(folder).process([user_message("<image> and <image>: which?", [picture(0), picture(1)])])
    with torch.inference_mode():
        expected = reference(input_ids=inputs.input_ids[None], pixel_values=inputs.pixels)
        (embeds,) = model.embed_inputs([inputs])
        logits = model.decoder.logits(model.decoder(embeds[None]))
    torch.testing.assert_close(logits, expected.logits)


def test_answers_through_the_engine(folder: Path, reference: JanusForConditionalGeneration) -> None:
    check_answer(folder, reference, 2, lambda pixels: {"pixel_values": pixels})


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
