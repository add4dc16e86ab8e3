"""What codes keep of pictures, with coders whose loss is known."""

import pytest
import torch

from mm.evaluation.reconstruction import evaluate_reconstruction


class Bytes:
    """Codes are the bytes themselves, ``lost`` of their bits left out."""

    def __init__(self, lost: int) -> None:
        self.step = 2**lost

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return (((pixels + 1) * 127.5).round().long() // self.step).flatten(1)

    def decode(self, codes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        values = codes * self.step + self.step // 2
        return ((values + 0.01) / 127.5 - 1).unflatten(1, (3, *grid)).float()


def test_nothing_lost_and_much_lost() -> None:
    whole = evaluate_reconstruction(Bytes(0), (128, 128), limit=12)
    assert whole.psnr == pytest.approx(78.13, abs=0.1) and whole.right.score == 1
    coarse = evaluate_reconstruction(Bytes(3), (128, 128), limit=12)
    assert 38 < coarse.psnr < 44 and coarse.right.score == 1
    flat = evaluate_reconstruction(Bytes(8), (128, 128), limit=12)
    assert flat.psnr < 15 and flat.right.score == 0
