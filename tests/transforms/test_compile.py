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
        assert compile_encoder(vision, backend="eager", fullgraph=True) > 1
        found = vision(pixels)
    assert [name for name, _ in vision.named_parameters()] == names
    torch.testing.assert_close(found, expected)


def test_more_shapes_than_torch_keeps_versions_of_are_encoded_all_the_same(
    golden: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm.transforms.compile.VERSIONS", 1)
    with torch._dynamo.config.patch(recompile_limit=1), torch.inference_mode():
        for case, side in (("deepseek_vl2_small", 384), ("deepseek_vl2_tiny", 384)):
            vision = load_model(golden(case) / "checkpoint", device="cpu", dtype="float32").vision
            batches = [torch.rand(count, 3, side, side) for count in (1, 2, 3)]
            expected = [vision(pixels) for pixels in batches]
            compile_encoder(vision, backend="eager")
            for pixels, tokens in zip(batches, expected, strict=True):
                torch.testing.assert_close(vision(pixels), tokens)


def test_the_limit_of_versions_is_raised_and_never_lowered(golden: Callable[[str], Path]) -> None:
    vision = load_model(golden("deepseek_vl2_tiny") / "checkpoint", device="cpu", dtype="float32").vision
    for before, after in ((8, 64), (100, 100)):
        with torch._dynamo.config.patch(recompile_limit=before):
            compile_encoder(vision, backend="eager")
            assert torch._dynamo.config.recompile_limit == after
