"""One real server with the bundled model, in a process of its own, for all tests of the apps."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of the front page with every app."""
    command = [sys.executable, "-m", "tests.apps.serve"]
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
