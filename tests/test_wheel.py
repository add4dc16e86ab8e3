"""The wheel holds the package with all its data and nothing else, and works outside the tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the tree; with the installed setuptools, so without a network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("mm", "apps", "configs", "examples"):
        shutil.copytree(ROOT / name, tree / name, ignore=CACHES)
    (tree / "mm" / "__pycache__").mkdir()
    (tree / "mm" / "__pycache__" / "errors.cpython-311.pyc").touch()
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = out.glob("mm-*.whl")
    return found


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"mm"}
    inside = {name for name in names if name.startswith("mm/")}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mm").rglob("*") if path.is_file()}
    wanted |= {f"mm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "apps").rglob("*.py")}
    assert inside == {name for name in wanted if "__pycache__" not in name}
    assert "mm/py.typed" in inside
    assert {"mm/nano/nano-vl2/config.json", "mm/nano/nano-janus/config.json"} <= inside
    assert "mm/families/configs/deepseek-vl2-small/config.json" in inside
    licences = {name.split("/")[-1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_it_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import mm; print(mm.__file__)").strip() == str(site / "mm" / "__init__.py")
    assert "nano-vl2\tbundled" in run("-m", "mm", "models")
    assert "passed: " in run("-m", "mm", "verify")
    assert not any(elsewhere.iterdir())
