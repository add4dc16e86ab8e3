"""The SigLIP encoder against transformers' SiglipVisionModel: the same random weights, float32, default tolerances."""

from typing import Literal

import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from mm.config import VisionConfig
from mm.vision.encoder import build_siglip

NAMES = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@pytest.mark.parametrize(("gelu", "act"), [("tanh", "gelu_pytorch_tanh"), ("exact", "gelu")])
@pytest.mark.parametrize("image_size", [56, 62])  # 62: a rest of 6 pixels at the right and bottom is not used
def test_features_equal_transformers(gelu: Literal["exact", "tanh"], act: str, image_size: int) -> None:
    torch.manual_seed(0)
    reference = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=36,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=image_size,
            patch_size=14,
            hidden_act=act,
            vision_use_head=False,
        )
    ).eval()
    state = {name.removeprefix("vision_model."): tensor for name, tensor in reference.state_dict().items()}
    for tensor in state.values():
        tensor.normal_(std=0.3)
    config = VisionConfig(
        image_size=image_size, patch_size=14, width=24, num_blocks=2, num_heads=3, mlp_width=36, gelu=gelu
    )
    ours = build_siglip(config).eval()
    weights = {
        "patch_embed.proj.weight": state["embeddings.patch_embedding.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embedding.bias"],
        "pos_embed": state["embeddings.position_embedding.weight"][None],
    }
    for kind in ("weight", "bias"):
        weights[f"norm.{kind}"] = state[f"post_layernorm.{kind}"]
        for block in range(2):
            theirs = f"encoder.layers.{block}"
            for old, new in NAMES.items():
                weights[f"blocks.{block}.{new}.{kind}"] = state[f"{theirs}.{old}.{kind}"]
            parts = [state[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    ours.load_state_dict(weights, strict=True)
    pixels = torch.randn(2, 3, image_size, image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), reference(pixel_values=pixels).last_hidden_state)
