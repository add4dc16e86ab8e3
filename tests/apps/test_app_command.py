"""``mm app``: finds the apps from any folder and hands the options on."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm.cli.app import app
from mm.cli.app_command import APPS, find_apps

ROOT = Path(__file__).parents[2]


def test_every_entry_is_an_app() -> None:
    find_apps()
    for name in APPS.names():
        assert callable(APPS.load(name))


def test_an_unknown_app_lists_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["app", "chta"])
    assert result.exit_code == 2
    assert "unknown app 'chta'; known: all, chat, draw, ocr. Did you mean 'chat'?" in result.stderr


@pytest.mark.parametrize("words", [[], ["chat"], ["ocr"], ["draw"]])
def test_help_is_the_apps_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["app", *words, "--help"])
    assert result.exit_code == 0
    assert "--max-upload-mb" in result.stdout


@pytest.mark.parametrize("name", ["front", "chat", "ocr_chart", "text_to_image"])
def test_an_app_is_a_program_of_a_checkout(name: str) -> None:
    command = [sys.executable, "-m", f"apps.{name}", "--port", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'none' is not a whole number from 1 to 65535" in done.stderr and "Traceback" not in done.stderr


def test_from_another_folder(tmp_path: Path) -> None:
    code = "from mm.cli.app_command import *; find_apps(); print(find_spec('mm.apps.chat').origin)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(ROOT / "apps" / "chat.py"), done.stderr
