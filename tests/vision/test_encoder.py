"""The SigLIP tower has the published tensors and sizes."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mm.config import VisionConfig
from mm.vision.encoder import build_siglip


def config(**changes: object) -> VisionConfig:
    sizes = {
        "image_size": 28,
        "patch_size": 8,
        "width": 24,
        "num_blocks": 2,
        "num_heads": 3,
        "mlp_width": 89,
        "gelu": "tanh",
    }
    return VisionConfig(**{**sizes, **changes})


def test_output_is_one_feature_a_whole_patch() -> None:
    encoder = build_siglip(config())
    assert config().grid == 3  # the last 4 pixels are not used
    assert encoder(torch.randn(2, 3, 28, 28)).shape == (2, 9, 24)
    assert encoder.blocks[0].mlp.fc1.weight.shape == (89, 24)
    assert not any(name.startswith(("attn_pool", "head", "cls_token")) for name, _ in encoder.named_parameters())


def test_gelu_is_the_one_asked_for() -> None:
    torch.manual_seed(0)
    tanh, exact = build_siglip(config()), build_siglip(config(gelu="exact"))
    exact.load_state_dict({name: value * 10 for name, value in tanh.state_dict().items()})
    tanh.load_state_dict(exact.state_dict())
    pixels = torch.randn(1, 3, 28, 28)
    difference = (tanh(pixels) - exact(pixels)).abs().max()
    assert 1e-5 < difference < 1e-1


def test_a_timm_that_knows_no_causal_attention_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, pixels = build_siglip(config()), torch.randn(1, 3, 28, 28)
    expected = encoder(pixels)
    monkeypatch.setattr(VisionTransformer, "forward", lambda self, x, attn_mask=None: self.forward_features(x))
    assert torch.equal(encoder(pixels), expected)
