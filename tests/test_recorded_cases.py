"""The packed recorded cases and manifests unpack to what was recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = sorted(p.name.removesuffix(".tar.xz") for p in (Path(__file__).parent / "golden").glob("*.tar.xz"))


@pytest.mark.parametrize("case", CASES)
def test_cases_unpack_with_the_recorded_sha256(case: str, golden: Callable[[str], Path]) -> None:
    folder = golden(case)
    assert (folder / "cases.json").is_file()
    assert (folder / "cases.safetensors").is_file()
    assert golden(case) == folder  # unpacked once a session


def test_an_unknown_case_names_the_known_ones(golden: Callable[[str], Path]) -> None:
    with pytest.raises(FileNotFoundError, match="deepseek_vl2_tiny"):
        golden("deepseek_vl3")


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("deepseek-vl-1.3b", 1_975_235_584),
        ("deepseek-vl-7b", 7_343_990_017),
        ("deepseek-vl2-tiny", 3_370_501_440),
        ("deepseek-vl2-small", 16_148_349_504),
        ("deepseek-vl2", 27_480_134_248),
        ("janus-1.3b", 2_089_297_547),
        ("janus-pro-1b", 2_089_297_547),
        ("janus-pro-7b", 7_420_434_059),
        ("janusflow-1.3b", 2_046_367_504),
    ],
)
def test_manifests_add_up_to_their_totals(name: str, elements: int, manifest: Callable[[str], dict[str, Any]]) -> None:
    record = manifest(name)
    assert record["num_tensors"] == len(record["tensors"])
    total = 0
    for shape in record["tensors"].values():
        count = 1
        for side in shape:
            count *= side
        total += count
    assert total == record["total_elements"] == elements
