"""Where tests of Triton kernels run: on a GPU, or else in Triton's interpreter.

The interpreter must be asked for before triton is imported: the checks then run in a process of their own, which the
last test of each file starts.
"""

import os
import subprocess
import sys

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

_has_kernels = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="no CUDA device; see the last test of this file"
)
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
starts_interpreter = pytest.mark.skipif(
    INTERPRETED or DEVICE == "cuda", reason="this is that process, or there is a GPU"
)


def runs(test):
    """A test of kernels: among those of ``-m gpu``, and of the interpreter's process."""
    return pytest.mark.gpu(_has_kernels(test))


def run_in_interpreter(file: str) -> None:
    """All tests of a file in a process in which triton interprets kernels; the last test of the file, marked
    ``starts_interpreter``."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
