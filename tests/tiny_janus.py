"""Tiny random models that draw, in the published layout: pictures of 64 pixels, 4 x 4 codes or patches."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from mm.families.table import build_model, load_config, save_pretrained

SIDE, HIDDEN, WIDTH, CODES = 64, 32, 24, 64
CHANNELS = 16  # of the flow's encoder and decoder


def write_tiny_janus(published: Path, root: Path) -> Path:
    """A Janus: the folder, written by ``save_pretrained``.

    Args:
        published: a recorded checkpoint, for its tokenizer and the form of its configs.
        root: an empty folder.
    """
    source = root / "source"
    shutil.copytree(published, source, ignore=shutil.ignore_patterns("*.bin"))
    config = json.loads((source / "config.json").read_text())
    names = ("vision_config", "aligner_config", "gen_aligner_config", "gen_head_config", "gen_vision_config")
    params = {name: config[name]["params"] for name in names}
    params["vision_config"].update(width=WIDTH, layers=2, heads=3, image_size=SIDE)
    params["aligner_config"].update(input_dim=WIDTH, n_embed=HIDDEN)
    params["gen_aligner_config"].update(n_embed=HIDDEN)
    params["gen_head_config"].update(image_token_embed=HIDDEN, image_token_size=CODES, n_embed=HIDDEN)
    params["gen_vision_config"].update(
        image_token_size=CODES, encoder_ch_mult=[1, 1, 1, 1, 2], decoder_ch_mult=[1, 1, 1, 1, 2]
    )
    return _write(source, config, root / "saved")


def write_tiny_flow(case: Path, root: Path) -> Path:
    """A JanusFlow with its autoencoder, likewise.

    Args:
        case: a recorded case, for its tokenizer, the form of its configs and its autoencoder.
        root: an empty folder.
    """
    source = root / "source"
    shutil.copytree(case / "checkpoint", source, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(case / "vae", source / "vae")
    config = json.loads((source / "config.json").read_text())
    config["vision_und_enc_config"]["params"].update(width=WIDTH, layers=2, heads=3, image_size=SIDE)
    config["vision_gen_enc_config"]["params"].update(block_out_channels=[CHANNELS], hidden_size=HIDDEN)
    config["vision_gen_dec_config"]["params"].update(
        block_out_channels=[CHANNELS], in_channels=CHANNELS, hidden_size=HIDDEN
    )
    return _write(source, config, root / "saved")


def _write(source: Path, config: dict[str, Any], folder: Path) -> Path:
    """Random weights of a config, whose language model is made small here."""
    config["language_config"].update(hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2)
    (source / "config.json").write_text(json.dumps(config))
    for file, changes in (
        ("preprocessor_config.json", {"image_size": SIDE}),
        ("processor_config.json", {"num_image_tokens": (SIDE // 16) ** 2}),
    ):
        values = json.loads((source / file).read_text())
        (source / file).write_text(json.dumps({**values, **changes}))
    torch.manual_seed(0)
    model = build_model(load_config(source), device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # large enough that a mistake shows
                parameter.normal_(std=0.8 / parameter[0].numel() ** 0.5 if parameter[0].numel() > 8 else 0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    save_pretrained(model, folder, source=source, dtype=torch.float32)
    return folder
