"""The README does what it says: Python and console blocks are run, the commands of the other blocks exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm.cli.app import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def console() -> list[tuple[str, str]]:
    """(command, what the README says it prints) of every command in a console block."""
    found = []
    for block in blocks("console"):
        for entry in block.split("$ ")[1:]:
            command, _, output = entry.partition("\n")
            found.append((command, output))
    return found


def test_length_and_languages() -> None:
    assert len(TEXT.splitlines()) <= 150
    languages = set(re.findall(r"^```(\w+)", TEXT, flags=re.MULTILINE))
    assert languages == {"sh", "console", "python"}


@pytest.mark.parametrize(
    "block", blocks("python"), ids=lambda block: f"line {TEXT[: TEXT.index(block)].count(chr(10))}"
)
def test_python(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", block],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(("command", "output"), console(), ids=[command for command, _ in console()])
def test_console(command: str, output: str) -> None:
    done = subprocess.run(command, shell=True, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if output:
        assert done.stdout == output


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_other_commands_exist(line: str) -> None:
    """Installing, downloading and training are too much for a test: the targets and options must exist."""
    words = shlex.split(line)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=60)
    elif words[0] == "mm":
        page = CliRunner().invoke(app, [words[1], "--help"], prog_name="mm", env={"COLUMNS": "200"})
        assert page.exit_code == 0
        for option in [word for word in words if word.startswith("--")]:
            assert option in page.output
        for config in [word for word in words if word.endswith(".yaml")]:
            assert (ROOT / config).is_file()
    else:
        assert Path(words[0]).name in ("python3", "pip")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`((?:mm|tests|configs|docs|examples)/[\w./-]*)`", TEXT):
        assert (ROOT / path).exists(), path
