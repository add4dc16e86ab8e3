"""How long `mm chat` takes to its first piece of text, and what it does not import on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm.cli.app import app

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def model(golden: Callable[[str], Path]) -> str:
    """A small model with random weights in the published layout."""
    return str(golden("deepseek_vl2_tiny") / "checkpoint")


def seconds_to_first_output(*command: str) -> float:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    elapsed = time.perf_counter() - start
    process.stdout.close()
    process.kill()
    process.wait()
    return elapsed


def test_first_text_within_two_seconds_of_the_imports(model: str) -> None:
    """The promise is the time of `import torch, timm` plus 2 s; other work on the machine may spoil a measurement."""
    chat = ["-m", "mm", "chat", "-m", model, "examples/receipt.png", "What is the total?", "--max-new-tokens", "4"]
    measured = []
    for _ in range(5):
        imports = seconds_to_first_output("-c", "import torch, timm; print('x', flush=True)")
        measured.append((imports, seconds_to_first_output(*chat)))
        if measured[-1][1] <= imports + 2:
            return
    pytest.fail(f"(import, first text) in seconds: {measured}")


def test_chat_imports_only_what_it_needs(model: str) -> None:
    code = (
        "import sys\nsys.argv = ['mm', 'chat', '-m', sys.argv[1], 'Hi', '--max-new-tokens', '2']\n"
        "from mm.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "names = ['diffusers', 'peft', 'transformers', 'gradio', 'ray', 'open_clip', 'accelerate', 'matplotlib']\n"
        "print('imported:', *[name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_ctrl_c_during_the_first_imports_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n", encoding="utf-8"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", "import sys; from mm.cli.entry import main; print(*sys.modules); main()"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")
    assert not {"typer", "rich", "torch", "json", "mm.errors"} & set(done.stdout.split())  # what takes its time
    done = subprocess.run([sys.executable, "-m", "mm"], env=environment, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, b"Stopped.\n")


def test_ctrl_c_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm.environment.read_environment", lambda: signal.raise_signal(signal.SIGINT))
    result = CliRunner().invoke(app, ["env"], prog_name="mm")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Stopped.\n")


def test_ctrl_c_while_the_command_line_is_parsed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.core.TyperGroup.parse_args", lambda *_: signal.raise_signal(signal.SIGINT))
    result = CliRunner().invoke(app, ["env"], prog_name="mm")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Stopped.\n")
