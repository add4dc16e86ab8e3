"""A tiny random JanusFlow in the published layout, with its autoencoder: pictures of 64 pixels, 4 x 4 patches."""

import json
import shutil
from pathlib import Path

import torch

from mm.families.table import build_model, load_config, save_pretrained

SIDE, HIDDEN, WIDTH, CHANNELS = 64, 32, 24, 16


def write_tiny_flow(case: Path, root: Path) -> Path:
    """The folder, written by ``save_pretrained``, and the case's autoencoder in it.

    Args:
        case: a recorded case, for its tokenizer, the form of its configs and its autoencoder.
        root: an empty folder.
    """
    source = root / "source"
    shutil.copytree(case / "checkpoint", source, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((source / "config.json").read_text())
    config["vision_und_enc_config"]["params"].update(width=WIDTH, layers=2, heads=3, image_size=SIDE)
    config["vision_gen_enc_config"]["params"].update(block_out_channels=[CHANNELS], hidden_size=HIDDEN)
    config["vision_gen_dec_config"]["params"].update(
        block_out_channels=[CHANNELS], in_channels=CHANNELS, hidden_size=HIDDEN
    )
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
                parameter.normal_(std=0.8 / max(parameter[0].numel(), 8) ** 0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    save_pretrained(model, root / "saved", source=source, dtype=torch.float32)
    shutil.copytree(case / "vae", root / "saved" / "vae")
    return root / "saved"
