"""Every key of a Janus config.json is understood or refused; which family a multi_modality folder is of."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mm.families
from mm.config import AttentionConfig
from mm.errors import ConfigError
from mm.families.janus_config import parse_config
from mm.families.table import family_of, load_config

CONFIGS = Path(mm.families.__file__).parent / "configs"
PUBLISHED: dict[str, Any] = json.loads((CONFIGS / "Janus-Pro-7B" / "config.json").read_text())


def changed(section: str | None, **keys: Any) -> dict[str, Any]:
    raw = copy.deepcopy(PUBLISHED)
    if section == "language_config":
        raw[section].update(keys)
    else:
        (raw if section is None else raw[section]["params"]).update(keys)
    return raw


def test_absent_keys_have_the_values_of_the_published_classes() -> None:
    config = parse_config(PUBLISHED)
    decoder, vision, head = config.decoder, config.vision, config.image_head
    assert (decoder.hidden_size, decoder.mlp_width, decoder.num_layers) == (4096, 11008, 30)
    assert decoder.attention == AttentionConfig(
        num_heads=32, num_kv_heads=32, head_dim=128, qkv_bias=False, output_bias=False
    )
    assert (decoder.rms_norm_eps, decoder.rope.theta, decoder.moe) == (1e-6, 10000.0, None)
    assert (vision.width, vision.num_blocks, vision.num_heads, vision.mlp_width) == (1024, 24, 16, 4096)
    assert (vision.image_size, vision.grid, vision.gelu) == (384, 24, "exact")
    assert head is not None
    assert (head.grid, head.vq.num_codes, head.vq.code_width, head.vq.downsampling) == (24, 16384, 8, 16)
    assert head.vq.encoder_multipliers == head.vq.decoder_multipliers == (1, 1, 2, 2, 4)


@pytest.mark.parametrize(("selected", "blocks"), [(-1, 24), (-2, 23), (0, 24), (20, 20)])
def test_the_selected_layer_counts_as_published(selected: int, blocks: int) -> None:
    assert parse_config(changed("vision_config", select_layer=selected)).vision.num_blocks == blocks


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("vision_config", {"depth": 3}, "vision_config.params has unknown keys: depth"),
        ("vision_config", {"model_name": "clip"}, "model_name is 'clip'; only 'siglip_large_patch16_384' is supported"),
        ("vision_config", {"select_feature": "cls"}, "select_feature is 'cls'; only 'same'"),
        ("vision_config", {"select_layer": 25}, "select_layer is 25; expected a whole number from -24 to 24"),
        ("vision_config", {"width": 512}, r"aligner_config.params.input_dim is 1024, but the width of .* is 512"),
        ("vision_config", {"heads": 5}, "width 1024 is no multiple of heads 5"),
        ("vision_config", {"image_size": 390}, "image_size 390 is no multiple of patch_size 16"),
        ("aligner_config", {"projector_type": "linear"}, "projector_type is 'linear'; only 'mlp_gelu'"),
        ("aligner_config", {"n_embed": 64}, "n_embed is 64, but language_config.hidden_size is 4096: they must agree"),
        ("gen_aligner_config", {"input_dim": 16}, "gen_aligner_config.params.input_dim is 16, .* is 8"),
        ("gen_head_config", {"image_token_size": 512}, "image_token_size is 512, but gen_vision_config.*16384"),
        ("gen_head_config", {"n_embed": 8}, "gen_head_config.params.n_embed is 8, but language_config.hidden_size"),
        ("gen_head_config", {"bias": False}, "gen_head_config.params has unknown keys: bias"),
        ("gen_vision_config", {"ch": 48}, "ch 48 is no multiple of the 32 groups of its norms"),
        ("gen_vision_config", {"encoder_ch_mult": []}, r"encoder_ch_mult is \[\]; expected a list of whole numbers"),
        ("gen_vision_config", {"decoder_ch_mult": [1, 2]}, "the length of .*decoder_ch_mult is 2, but .* is 5"),
        ("language_config", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ("language_config", {"attention_bias": True}, "attention_bias is True; only False is supported"),
        ("language_config", {"n_routed_experts": 8}, "language_config has unknown keys: n_routed_experts"),
        ("language_config", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "type is 'dynamic'; known are linear"),
        (None, {"gen_vision_config": {"cls": "VQ-8", "params": {}}}, "gen_vision_config.cls is 'VQ-8'; only 'VQ-16'"),
        (None, {"aligner_config": {"cls": "MlpProjector", "extra": 1, "params": {}}}, "unknown keys: extra"),
    ],
)
def test_what_is_not_understood_is_named(section: str | None, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(section, **keys))


def test_three_families_share_a_model_type() -> None:
    assert family_of(PUBLISHED) == "janus"
    flow = {"model_type": "multi_modality", "vision_gen_enc_config": {}, "vision_und_enc_config": {}}
    assert family_of(flow) == "janusflow"
    assert family_of({"model_type": "multi_modality", "vision_config": {}}) == "deepseek_vl"
    with pytest.raises(ConfigError, match="it has none of gen_vision_config, vision_gen_enc_config, vision_config"):
        family_of({"model_type": "multi_modality"})


def test_the_recorded_checkpoint_parses(golden: Callable[[str], Path]) -> None:
    head = load_config(golden("janus_pro") / "checkpoint").image_head  # type: ignore[attr-defined]
    assert head.vq.encoder_multipliers == (1, 1, 1, 1, 2)
    assert head.vq.decoder_multipliers == (1, 2, 1, 1, 1)
