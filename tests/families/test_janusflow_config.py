"""Every key of a JanusFlow config.json is understood or refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import mm.families
from mm.errors import ConfigError
from mm.families.janusflow_config import parse_config
from mm.families.table import load_config, load_spec

FOLDER = Path(mm.families.__file__).parent / "configs" / "JanusFlow-1.3B"
PUBLISHED: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())


def changed(section: str | None, **keys: Any) -> dict[str, Any]:
    raw = copy.deepcopy(PUBLISHED)
    if section == "language_config":
        raw[section].update(keys)
    else:
        (raw if section is None else raw[section]["params"]).update(keys)
    return raw


def test_the_published_config() -> None:
    config = load_config(FOLDER)
    assert config.family == "janusflow"
    decoder, vision, head = config.decoder, config.vision, config.flow_head  # type: ignore[attr-defined]
    assert (decoder.hidden_size, decoder.mlp_width, decoder.num_layers) == (2048, 5632, 24)
    assert (decoder.max_positions, decoder.vocab_size, decoder.rms_norm_eps) == (16384, 102400, 1e-6)
    assert (vision.width, vision.num_blocks, vision.image_size, vision.gelu) == (1024, 24, 384, "exact")
    assert (head.latent_channels, head.latent_pixels, head.patch_size, head.grid) == (4, 8, 2, 24)
    assert (head.width, head.encoder_blocks, head.decoder_blocks, head.norm_eps) == (768, 2, 2, 1e-6)


def test_an_image_takes_a_position_more_than_its_patches() -> None:
    spec = load_spec(FOLDER)
    assert (spec.tokens_per_view, spec.num_tokens((0, 0))) == (576, 577)


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("vision_und_enc_config", {"image_size": 392, "patch_size": 8}, "392 is no whole number of patches of 16"),
        ("vision_gen_enc_config", {"stride": 4}, "vision_gen_enc_config.params.stride is 4; only 2 is supported"),
        ("vision_gen_enc_config", {"kernel_size": 7}, "kernel_size is 7; only 2 is supported"),
        ("vision_gen_enc_config", {"padding": 1}, "padding is 1; only 0 is supported"),
        ("vision_gen_enc_config", {"use_bias": False}, "use_bias is False; only True is supported"),
        ("vision_gen_enc_config", {"use_mid_block": False}, "use_mid_block is False; only True is supported"),
        ("vision_gen_enc_config", {"extra": 1}, "vision_gen_enc_config.params has unknown keys: extra"),
        ("vision_gen_enc_config", {"hidden_size": 64}, "hidden_size is 64, but language_config.hidden_size is 2048"),
        ("vision_gen_enc_config", {"block_out_channels": [8, 8]}, r"is \[8, 8\]; expected a list of one whole number"),
        ("vision_gen_enc_config", {"block_out_channels": 768}, "is 768; expected a list of one whole number"),
        (
            "vision_gen_enc_config",
            {"block_out_channels": [64]},
            r"vision_gen_dec_.*block_out_channels is 768, but .* 64",
        ),
        ("vision_gen_enc_config", {"input_channels": 16}, "out_channels is 4, but .*input_channels is 16: they must"),
        (
            "vision_gen_enc_config",
            {"layers_in_middle": 0},
            "layers_in_middle is 0; expected a whole number of at least 1",
        ),
        ("vision_gen_dec_config", {"in_channels": 64}, "vision_gen_dec_config.params.in_channels is 64, but .* 768"),
        ("vision_gen_dec_config", {"upsamples": 2}, "upsamples is 2; only 1 is supported"),
        ("vision_gen_dec_config", {"norm_eps": 1e-5}, "norm_eps is not that of vision_gen_enc_config.params, 1e-06"),
        ("language_config", {"model_type": "qwen2"}, "language_config.model_type is 'qwen2'; only 'llama'"),
        (None, {"vision_gen_enc_config": {"cls": "UViT", "params": {}}}, "cls is 'UViT'; only 'ShallowUViTEncoder'"),
        (None, {"vision_gen_dec_config": 3}, "config.json.vision_gen_dec_config is 3; expected an object"),
    ],
)
def test_what_is_not_understood_is_named(section: str | None, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(section, **keys))


def test_a_key_that_could_not_be_seen_in_the_published_file_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match="vision_und_enc_config.params has unknown keys: freeze. They are ignored"):
        config = parse_config(changed("vision_und_enc_config", freeze=True))
    assert config == parse_config(PUBLISHED)


def test_an_odd_width_has_no_place_for_the_time() -> None:
    raw = changed("vision_gen_enc_config", block_out_channels=[7])
    raw["vision_gen_dec_config"]["params"].update(block_out_channels=[7], in_channels=7)
    with pytest.raises(ConfigError, match="block_out_channels is 7; expected an even number: half of the time embedd"):
        parse_config(raw)
