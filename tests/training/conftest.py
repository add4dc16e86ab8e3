"""A model folder of the nano architecture at toy size."""

import json
import shutil
from pathlib import Path

import pytest

import mm

NANO = Path(mm.__file__).parent / "nano" / "nano-vl2"


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano-vl2's files with tiles of 96 pixels, two narrow layers each side; everything else as shipped."""
    folder = tmp_path_factory.mktemp("toy")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(NANO / name, folder / name)
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    processor = json.loads((NANO / "processor_config.json").read_text(encoding="utf-8"))
    sizes = [[96 * (w // 192), 96 * (h // 192)] for w, h in config["candidate_resolutions"]]
    config["candidate_resolutions"] = processor["candidate_resolutions"] = sizes
    config["vision_config"] |= {"image_size": 96, "width": 64, "layers": 2, "heads": 2, "mlp_ratio": 2.0}
    config["projector_config"] |= {"input_dim": 64, "n_embed": 64}
    config["language_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 128,
        "kv_lora_rank": 32,
        "moe_intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
