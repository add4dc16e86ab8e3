"""One real server with the bundled models, in a process of its own, for all tests of the apps."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mm.families.table import build_model, load_config, save_pretrained
from mm.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that draws noise: nano-janus with random weights."""
    source, folder = ROOT / "configs" / "nano-janus", tmp_path_factory.mktemp("models") / "toy-janus"
    torch.manual_seed(0)
    model = build_model(load_config(source), device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large enough that pictures of two seeds differ
                parameter.normal_(std=min(0.5, 0.8 / parameter[0].numel() ** 0.5))
    save_pretrained(model, folder, source=source, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def server(toy: Path) -> Iterator[str]:
    """The address of the front page with every app."""
    command = [sys.executable, "-m", "tests.apps.serve", "nano-vl2", str(toy)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        url = process.stdout.readline().strip().rstrip("/")
        assert url.startswith("http://127.0.0.1:"), url
        yield url
        process.stdin.close()
        process.wait(30)


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    """The bundled model in this process."""
    return Pipeline.from_pretrained("nano-vl2")
