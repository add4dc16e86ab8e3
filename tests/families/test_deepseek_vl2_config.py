"""Every key of a DeepSeek-VL2 config.json is understood or refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm.config import AttentionConfig, LatentAttentionConfig, YarnConfig
from mm.errors import CheckpointNotFoundError, ConfigError
from mm.families.deepseek_vl2_config import parse_config
from mm.families.table import family_of, load_config

BASE: dict[str, Any] = {
    "model_type": "deepseek_vl_v2",
    "architectures": ["DeepseekVLV2ForCausalLM"],
    "candidate_resolutions": [[32, 32], [32, 64]],
    "vision_config": {
        "model_type": "vision",
        "width": 16,
        "layers": 2,
        "heads": 2,
        "patch_size": 8,
        "mlp_ratio": 3.7362,
    },
    "projector_config": {"model_type": "mlp_projector", "input_dim": 16, "n_embed": 24},
    "language_config": {
        "hidden_size": 24,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 300,
        "intermediate_size": 40,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 8,
        "first_k_dense_replace": 1,
        "topk_method": "greedy",
        "q_lora_rank": None,
    },
}


def changed(section: str | None, **keys: Any) -> dict[str, Any]:
    raw = copy.deepcopy(BASE)
    (raw if section is None else raw[section]).update(keys)
    return raw


def test_defaults_are_those_of_the_published_classes() -> None:
    config = parse_config(BASE)
    attention = config.decoder.attention
    assert isinstance(attention, LatentAttentionConfig)
    assert (attention.kv_lora_rank, attention.qk_nope_head_dim, attention.qk_rope_head_dim) == (512, 128, 64)
    assert (attention.v_head_dim, attention.q_lora_rank, attention.cache_width) == (128, None, 576)
    assert config.decoder.moe is not None
    assert (config.decoder.moe.scoring, config.decoder.moe.scaling_factor) == ("softmax", 1.0)
    assert config.decoder.rms_norm_eps == 1e-6 and config.decoder.max_positions == 2048
    assert config.vision.mlp_width == int(16 * 3.7362) and config.vision.gelu == "tanh"
    assert config.vision.image_size == 32 and config.vision.grid == 4
    assert [config.decoder.is_moe_layer(index) for index in range(2)] == [False, True]


def test_q_lora_rank_is_1536_unless_null() -> None:
    raw = copy.deepcopy(BASE)
    del raw["language_config"]["q_lora_rank"]
    attention = parse_config(raw).decoder.attention
    assert isinstance(attention, LatentAttentionConfig) and attention.q_lora_rank == 1536


def test_plain_attention_and_yarn() -> None:
    plain = parse_config(changed("language_config", use_mla=False, kv_lora_rank=None, qk_nope_head_dim=0, v_head_dim=0))
    assert plain.decoder.attention == AttentionConfig(
        num_heads=4, num_kv_heads=4, head_dim=6, qkv_bias=False, output_bias=False
    )
    scaled = parse_config(changed("language_config", rope_scaling={"type": "yarn", "factor": 40}))
    assert scaled.decoder.rope.scaling == YarnConfig(
        factor=40, original_max_positions=4096, beta_fast=32, beta_slow=1, mscale=1, mscale_all_dim=0
    )


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("language_config", {"num_attenion_heads": 3}, "language_config has unknown keys: num_attenion_heads"),
        ("vision_config", {"depth": 3}, "vision_config has unknown keys: depth"),
        ("projector_config", {"projector_type": "linear"}, "projector_type is 'linear'; only 'downsample_mlp_gelu'"),
        ("language_config", {"topk_method": "magic"}, "topk_method is 'magic'; known are greedy, group_limited_greedy"),
        ("language_config", {"scoring_func": "tanh"}, "scoring_func is 'tanh'; known are softmax, sigmoid"),
        ("language_config", {"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than n_routed_experts 8"),
        (
            "language_config",
            {"topk_method": "noaux_tc", "n_group": 3},
            "n_routed_experts 8 is no multiple of n_group 3",
        ),
        ("language_config", {"topk_method": "noaux_tc", "n_group": 8, "topk_group": 8}, "at least 2 experts in each"),
        ("language_config", {"hidden_size": "24"}, "hidden_size is '24'; expected a whole number of at least 1"),
        ("language_config", {"hidden_size": 32}, "n_embed is 24, but language_config.hidden_size is 32"),
        ("vision_config", {"width": 32}, "input_dim is 16, but vision_config.width is 32"),
        (
            "vision_config",
            {"image_size": 64},
            "image_size is 64, but the first of candidate_resolutions makes tiles of 32",
        ),
        ("vision_config", {"heads": 3}, "width 16 is no multiple of heads 3"),
        ("vision_config", {"patch_size": 64}, "patch_size 64 is larger than the tile of 32"),
        ("vision_config", {"model_name": "clip"}, "the vision encoder of DeepSeek-VL2 is a SigLIP"),
        ("language_config", {"kv_lora_rank": None}, "kv_lora_rank is missing or 0, but use_mla is true"),
        (
            "language_config",
            {"rope_scaling": {"type": "dynamic", "factor": 2}},
            "type is 'dynamic'; known are yarn, linear",
        ),
        (
            "language_config",
            {"use_mla": False, "rope_scaling": {"type": "yarn", "factor": 2}},
            "rope_scaling yarn is defined for use_mla true only",
        ),
        (None, {"tile_tag": "1D"}, "tile_tag is '1D'; only '2D' is supported"),
        (None, {"candidate_resolutions": [[32, 40]]}, "32 x 40 is no whole number of tiles of 32 pixels"),
        (None, {"candidate_resolutions": 7}, "candidate_resolutions is 7; expected a list"),
        (None, {"language_config": None}, "language_config is None; expected an object"),
    ],
)
def test_what_is_not_understood_is_named(section: str | None, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(section, **keys))


def test_an_unknown_key_outside_the_architecture_warns() -> None:
    with pytest.warns(UserWarning, match="config.json has unknown keys: colour. They are ignored"):
        parse_config(changed(None, colour="red"))


def test_a_missing_routing_method_is_an_error() -> None:
    raw = copy.deepcopy(BASE)
    del raw["language_config"]["topk_method"]
    with pytest.raises(ConfigError, match="language_config has no topk_method"):
        parse_config(raw)


def test_another_models_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="model_type 'gpt2', which mm does not run; it runs deepseek_vl_v2"):
        family_of({"model_type": "gpt2"})


def test_a_folder_without_or_with_broken_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no config.json, so it is no model folder"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not readable as JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds list; expected a JSON object"):
        load_config(tmp_path)


@pytest.mark.parametrize("case", ["tiny", "small", "base", "groups_yarn", "grouplimited_softmax"])
def test_recorded_checkpoints_parse(case: str, golden: Callable[[str], Path]) -> None:
    folder = golden(f"deepseek_vl2_{case}") / "checkpoint"
    raw = json.loads((folder / "config.json").read_text())
    assert load_config(folder).decoder.hidden_size == raw["language_config"]["hidden_size"]
