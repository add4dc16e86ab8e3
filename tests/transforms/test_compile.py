"""Blocks of encoders are traced whole, and compute the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mm.families.table import load_model
from mm.transforms.compile import compile_encoder


@pytest.mark.parametrize("case,side", [("deepseek_vl2_small", 384), ("deepseek_vl_hybrid", 1024)])
def test_blocks_are_traced_without_a_break(golden: Callable[[str], Path], case: str, side: int) -> None:
    vision = load_model(golden(case) / "checkpoint", device="cpu", dtype="float32").vision
    names = [name for name, _ in vision.named_parameters()]
    pixels = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        expected = vision(pixels)
        assert compile_encoder(vision, backend="eager") > 1
        found = vision(pixels)
    assert [name for name, _ in vision.named_parameters()] == names
    torch.testing.assert_close(found, expected)
