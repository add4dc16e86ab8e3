"""The published sizes on the meta device: exactly the tensors of the published files, both ways."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mm.families
from mm.config import AttentionConfig, LatentAttentionConfig
from mm.families.table import FAMILIES, build_model, load_config, unused_elements

CONFIGS = Path(mm.families.__file__).parent / "configs"
VL2 = {
    "deepseek-vl2-tiny": 3_370_501_440,
    "deepseek-vl2-small": 16_148_349_504,
    "deepseek-vl2": 27_480_134_248,
}
VL = {f"deepseek-vl-{size}-{kind}": size for size in ("1.3b", "7b") for kind in ("base", "chat")}
ELEMENTS = {
    **VL2,
    **{name: 1_975_235_584 if size == "1.3b" else 7_343_990_017 for name, size in VL.items()},
    "Janus-1.3B": 2_089_297_547,
    "Janus-Pro-1B": 2_089_297_547,
    "Janus-Pro-7B": 7_420_434_059,
    "JanusFlow-1.3B": 2_046_367_504,
}
UNUSED = (
    "vision.attn_pool.",
    "vision_model.vision_tower.attn_pool.",
    "vision_model.vision_tower_low.vision_tower.attn_pool.",
    "vision_und_enc_model.vision_tower.attn_pool.",
    "vision_model.high_layer_norm.",
    "vision_model.low_layer_norm.",
    "gen_vision_model.quantize.codebook_used",
)


def manifest_name(name: str) -> str:
    """Base and chat checkpoints of DeepSeek-VL hold the same tensors."""
    return name.lower().removesuffix("-base").removesuffix("-chat")


@pytest.mark.parametrize("name", ELEMENTS)
def test_model_and_dropped_tensors_are_the_published_files(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    config = load_config(CONFIGS / name)
    model = build_model(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    key_map = FAMILIES.load(config.family).key_map
    ours = {key: list(shape) for key, shape in key_map.published_shapes(model).items()}
    record = manifest(manifest_name(name))
    published: dict[str, list[int]] = record["tensors"]
    dropped = {key: shape for key, shape in published.items() if key_map.is_dropped(key)}
    assert {**ours, **dropped} == published
    assert not ours.keys() & dropped.keys()
    assert set(dropped) == {key for key in published if key.startswith(UNUSED)}
    assert sum(math.prod(shape) for shape in published.values()) == ELEMENTS[name]
    assert sum(p.numel() for p in model.parameters()) == ELEMENTS[name] - sum(map(math.prod, dropped.values()))
    assert len(published) == record["num_tensors"]
    assert unused_elements(config) == sum(map(math.prod, dropped.values()))


@pytest.mark.parametrize("name", VL2)
def test_one_tensor_of_another_shape_or_name_would_be_noticed(
    name: str, manifest: Callable[[str], dict[str, Any]]
) -> None:
    """The map is one to one: as many published tensors as experts stand behind each stacked parameter."""
    config = load_config(CONFIGS / name)
    model = build_model(config)
    key_map = FAMILIES.load(config.family).key_map
    moe = config.decoder.moe
    assert moe is not None
    stacked = sum(parameter.ndim == 3 and "experts" in key for key, parameter in model.named_parameters())
    layers = config.decoder.num_layers - moe.first_moe_layer
    assert stacked == 3 * layers
    expected = sum(1 for _ in model.parameters()) - stacked + stacked * moe.num_experts
    assert len(key_map.published_shapes(model)) == expected


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("deepseek-vl2-tiny", 2 * 1280 * 12), ("deepseek-vl2-small", (512 + 64) * 27), ("deepseek-vl2", (512 + 64) * 30)],
)
def test_a_token_takes_the_published_cache_size(name: str, numbers: int) -> None:
    """MLA stores the latent and one rope key per layer; tiny's plain attention stores keys and values."""
    config = load_config(CONFIGS / name)
    decoder = build_model(config).decoder.bfloat16()
    assert decoder.new_cache(1, 2).bytes_per_token() == 2 * numbers
    plain = name.endswith("tiny")
    assert isinstance(config.decoder.attention, AttentionConfig if plain else LatentAttentionConfig)
