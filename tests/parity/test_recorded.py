"""Every recorded case of DeepSeek-VL, VL2, Janus and JanusFlow against the limits of the contract 2 of the design."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mm.evaluation.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(p.name.removesuffix(".tar.xz") for p in GOLDEN.glob("*.tar.xz"))


def test_every_recorded_case_is_here() -> None:
    assert CASES == [
        "deepseek_vl2_base",
        "deepseek_vl2_grouplimited_softmax",
        "deepseek_vl2_groups_yarn",
        "deepseek_vl2_small",
        "deepseek_vl2_tiny",
        "deepseek_vl_hybrid",
        "deepseek_vl_single",
        "janus_pro",
        "janusflow",
        "preprocess_vl2",
        "preprocess_vlm",
    ]


# The least number of fields a case must have compared, so that a case that silently shrinks is noticed.
ROWS = {
    "deepseek_vl2_base": 97,
    "deepseek_vl2_grouplimited_softmax": 64,
    "deepseek_vl2_groups_yarn": 68,
    "deepseek_vl2_small": 108,
    "deepseek_vl2_tiny": 252,
    "deepseek_vl_hybrid": 70,
    "deepseek_vl_single": 120,
    "janus_pro": 186,
    "janusflow": 95,
    "preprocess_vl2": 278,
    "preprocess_vlm": 310,
}


@pytest.mark.parametrize("case", CASES)
def test_everything_recorded_is_reproduced(case: str, golden: Callable[[str], Path]) -> None:
    report = verify(golden(case))
    assert [row for row in report.rows if row.verdict != "ok"] == []
    assert report.passed and len(report.rows) >= ROWS[case]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("preprocess")])
def test_everything_recorded_is_reproduced_on_a_gpu(case: str, golden: Callable[[str], Path]) -> None:
    report = verify(golden(case), device="cuda")
    assert [row for row in report.rows if row.verdict != "ok"] == []
