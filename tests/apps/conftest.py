"""One real server with the bundled models, in a process of its own, for all tests of the apps."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from mm.families.table import build_model, load_config, load_model, load_processor, save_pretrained
from mm.hub import bundled_models
from mm.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


WIDTH = 64  # of the toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that draws noise: nano-janus with less of everything and random weights."""
    folder = tmp_path_factory.mktemp("models")
    source = folder / "source"
    shutil.copytree(ROOT / "configs" / "nano-janus", source)
    config = json.loads((source / "config.json").read_text())
    config["language_config"].update(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1, num_key_value_heads=1
    )
    config["vision_config"]["params"].update(width=WIDTH, layers=2, heads=1)
    config["aligner_config"]["params"].update(input_dim=WIDTH, n_embed=WIDTH)
    config["gen_aligner_config"]["params"].update(n_embed=WIDTH)
    config["gen_head_config"]["params"].update(image_token_embed=WIDTH, n_embed=WIDTH)
    config["gen_vision_config"]["params"].update(ch=32, z_channels=32)
    (source / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = build_model(load_config(source), device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large enough that pictures of two seeds differ
                parameter.normal_(std=min(0.5, 0.8 / parameter[0].numel() ** 0.5))
    save_pretrained(model, folder / "toy-janus", source=source, dtype=torch.float32)
    return folder / "toy-janus"


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano-vl2 without a way to end: it speaks until the longest answer is reached, on any machine."""
    source = bundled_models()["nano-vl2"]
    folder = tmp_path_factory.mktemp("models") / "endless"
    model = load_model(source, dtype=torch.float32)
    model.decoder.lm_head.weight.data[load_processor(source).tokenizer.eos_id] = 0  # something else is always likelier
    save_pretrained(model, folder, source=source, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def server(toy: Path, endless: Path) -> Iterator[str]:
    """The address of the front page with every app."""
    command = [sys.executable, "-m", "tests.apps.serve", "nano-vl2", "nano-janus", str(toy), str(endless)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        url = process.stdout.readline().strip().rstrip("/")
        assert url.startswith("http://127.0.0.1:"), url
        yield url
        held, deadline = 1, time.monotonic() + 10
        while held and time.monotonic() < deadline:
            time.sleep(0.1)
            held = httpx.post(f"{url}/gradio_api/run/held", json={"data": []}).json()["data"][0]
        tried = httpx.post(f"{url}/gradio_api/run/tried", json={"data": []}).json()["data"]
        process.stdin.close()
        process.wait(30)
    assert held == 0, "somebody who is gone keeps a place in the line"
    assert tried == [""], tried  # connections to other machines


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    """The bundled model in this process."""
    return Pipeline.from_pretrained("nano-vl2")
