"""Fixtures that several test folders share: recorded cases and weight manifests of the published checkpoints."""

import hashlib
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_janus import write_tiny_flow, write_tiny_janus

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"


def recorded_cases(prefix: str = "") -> list[str]:
    """Names of the packed cases, for parametrised tests."""
    return sorted(p.name.removesuffix(".tar.xz") for p in GOLDEN.glob(f"{prefix}*.tar.xz"))


def recorded_digests(case: str) -> dict[str, str]:
    """{file name relative to the case folder: sha256} from the manifest of the recorded cases."""
    digests = {}
    for line in (GOLDEN / "MANIFEST.sha256").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        folder, _, file = name.partition("/")
        if folder == case:
            digests[file] = digest
    return digests


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """golden("deepseek_vl2_tiny") -> the unpacked case folder; every file's sha256 is checked once a session."""
    root = tmp_path_factory.mktemp("golden")

    def unpack(case: str) -> Path:
        folder = root / case
        if folder.is_dir():
            return folder
        archive = GOLDEN / f"{case}.tar.xz"
        if not archive.is_file():
            raise FileNotFoundError(f"no recorded case {case!r}; there are: {', '.join(recorded_cases())}")
        with tarfile.open(archive, "r:xz") as tar:
            tar.extractall(root, filter="data")
        found = {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*")
            if p.is_file()
        }
        assert found == recorded_digests(case), f"{case}: unpacked files differ from MANIFEST.sha256"
        return folder

    return unpack


@pytest.fixture(scope="session")
def tiny_janus(golden: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Janus, which draws."""
    return write_tiny_janus(golden("janus_pro") / "checkpoint", tmp_path_factory.mktemp("janus"))


@pytest.fixture(scope="session")
def tiny_flow(golden: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random JanusFlow and its autoencoder, which draws."""
    return write_tiny_flow(golden("janusflow"), tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, Any]]:
    """manifest("deepseek-vl2-tiny") -> {"num_tensors", "total_elements", "tensors": {name: shape}} as published."""

    def read(name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(lzma.decompress((TESTS / "manifests" / f"{name}.json.xz").read_bytes()))
        return data

    return read
