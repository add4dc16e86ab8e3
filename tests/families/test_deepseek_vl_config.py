"""Every key of a DeepSeek-VL config.json is understood or refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mm.families
from mm.config import AttentionConfig, HybridVisionConfig, MLPConfig, NormalizedVisionConfig, SplitMLPConfig
from mm.errors import ConfigError
from mm.families.deepseek_vl_config import parse_config
from mm.families.table import family_of

CONFIGS = Path(mm.families.__file__).parent / "configs"
SMALL: dict[str, Any] = json.loads((CONFIGS / "deepseek-vl-1.3b-chat" / "config.json").read_text())
LARGE: dict[str, Any] = json.loads((CONFIGS / "deepseek-vl-7b-chat" / "config.json").read_text())


def changed(raw: dict[str, Any], place: str, **keys: Any) -> dict[str, Any]:
    """A copy with other keys at "section/params/...", a key set to ... taken out."""
    raw = copy.deepcopy(raw)
    found = raw
    for name in filter(None, place.split("/")):
        found = found[name]
    found.update(keys)
    for key in [key for key, value in keys.items() if value is ...]:
        del found[key]
    return raw


def test_one_tower() -> None:
    config = parse_config(SMALL)
    vision = config.vision
    assert isinstance(vision, NormalizedVisionConfig) and vision is config.low
    assert (vision.width, vision.num_blocks, vision.num_heads, vision.mlp_width) == (1024, 24, 16, 4096)
    assert (vision.image_size, vision.grid, vision.gelu) == (384, 24, "exact")
    assert vision.statistics is not None and vision.statistics.mean == (0.5, 0.5, 0.5)
    assert config.normalizes
    assert config.adaptor == MLPConfig(input_width=1024, output_width=2048, depth=2)
    bare = changed(SMALL, "vision_config/params", pixel_mean=..., pixel_std=...)
    assert not parse_config(bare).normalizes


def test_two_towers_and_absent_keys() -> None:
    config = parse_config(LARGE)
    vision = config.vision
    assert isinstance(vision, HybridVisionConfig) and vision.low is config.low
    high = vision.high
    assert (high.width, high.num_blocks, high.num_heads, high.neck_width) == (768, 12, 12, 256)
    assert (high.grid, high.window_size, high.global_blocks, high.downsample_widths) == (
        64,
        14,
        (2, 5, 8, 11),
        (512, 1024),
    )
    assert high.statistics is not None and high.statistics.std == (0.26862954, 0.26130258, 0.27577711)
    assert vision.image_size == 1024 and vision.low.image_size == 384
    assert config.adaptor == SplitMLPConfig(input_width=1024, output_width=4096, depth=2)
    assert (config.decoder.hidden_size, config.decoder.mlp_width, config.decoder.num_layers) == (4096, 11008, 30)
    assert config.decoder.attention == AttentionConfig(
        num_heads=32, num_kv_heads=32, head_dim=128, qkv_bias=False, output_bias=False
    )


@pytest.mark.parametrize("size", ["1.3b", "7b"])
def test_base_and_chat_are_published_alike(size: str) -> None:
    for file in ("config.json", "processor_config.json", "preprocessor_config.json"):
        base, chat = (
            json.loads((CONFIGS / f"deepseek-vl-{size}-{kind}" / file).read_text()) for kind in ("base", "chat")
        )
        assert base == chat


HIGH, LOW = "vision_config/params/high_res_cfg", "vision_config/params/low_res_cfg"


@pytest.mark.parametrize(
    ("raw", "place", "keys", "message"),
    [
        (SMALL, "vision_config/params", {"depth": 3}, "vision_config.params has unknown keys: depth"),
        (SMALL, "vision_config", {"cls": "SamTower"}, "cls is 'SamTower'; known are CLIPVisionTower, HybridVision"),
        (SMALL, "vision_config/params", {"pixel_std": ...}, r"pixel_mean \(0.5, .* and pixel_std None; expected both"),
        (SMALL, "vision_config/params", {"pixel_std": [0.5, 0, 0.5]}, "expected both .deviations above 0. or neither"),
        (SMALL, "vision_config/params", {"pixel_mean": [0.5, 2, 0]}, "pixel_mean is .* three numbers within 0..1"),
        (SMALL, "aligner_config/params", {"n_embed": 64}, "n_embed is 64, but language_config.hidden_size is 2048"),
        (
            SMALL,
            "aligner_config/params",
            {"projector_type": "linear"},
            "type is 'linear'; only 'mlp_gelu' is",
        ),
        (SMALL, "language_config", {"n_routed_experts": 8}, "language_config has unknown keys: n_routed_experts"),
        (LARGE, "aligner_config/params", {"projector_type": "mlp_gelu"}, "only 'low_high_hybrid_split_mlp_gelu' is"),
        (LARGE, "aligner_config/params", {"input_dim": 768}, "input_dim is 768, but the width of what it is given is"),
        (LARGE, "vision_config/params", {"concat_type": "add"}, "concat_type is 'add'; only 'tuple' is supported"),
        (LARGE, HIGH, {"model_name": "sam_b"}, "high_res_cfg.model_name is 'sam_b'; only 'sam_b_downsample'"),
        (LARGE, HIGH, {"image_size": 1000}, "high_res_cfg.image_size 1000 is no multiple of the patches of 16"),
        (LARGE, HIGH, {"image_size": 256}, "high_res_cfg.image_size 256 is smaller than low_res_cfg.image_size 384"),
        (LARGE, HIGH, {"heads": 5}, "high_res_cfg.width 768 is no multiple of heads 5"),
        (LARGE, HIGH, {"global_attn_indexes": [2, 12]}, r"is \[2, 12\]; expected blocks below 12 in ascending order"),
        (LARGE, HIGH, {"global_attn_indexes": []}, r"global_attn_indexes is \[\]; expected a list of whole numbers"),
        (LARGE, HIGH, {"output_dim": 512}, "output_dim is 512, but the last of downsample_channels is 1024"),
        (LARGE, HIGH, {"rope": True}, "vision_config.params.high_res_cfg has unknown keys: rope"),
        (LARGE, HIGH, {"downsample_channels": [512, 768], "output_dim": 768}, "the width of the high-resolution tower"),
        (LARGE, LOW, {"output_dim": 512}, "low_res_cfg.output_dim is 512, but the tower's width is 1024"),
        (LARGE, LOW, {"select_layer": 30}, "select_layer is 30; expected a whole number from -24 to 24"),
    ],
)
def test_what_is_not_understood_is_named(raw: dict[str, Any], place: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(raw, place, **keys))


def test_the_family_is_recognised_by_its_keys(golden: Callable[[str], Path]) -> None:
    assert family_of(SMALL) == family_of(LARGE) == "deepseek_vl"
    for case in ("single", "hybrid"):
        raw = json.loads((golden(f"deepseek_vl_{case}") / "checkpoint" / "config.json").read_text())
        assert family_of(raw) == "deepseek_vl"
    assert family_of({**SMALL, "gen_vision_config": {}}) == "janus"
