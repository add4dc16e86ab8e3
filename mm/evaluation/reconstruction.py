"""How much of a picture its codes keep: PSNR, and whether the checker still sees what the picture shows.

python -m mm.evaluation.reconstruction FOLDER
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from mm.evaluation.held_out_drawings import drawing
from mm.evaluation.metrics import Interval, wilson
from mm.evaluation.scene_checker import look
from mm.evaluation.wishes import judge
from mm.generation.vq import to_bytes, to_pixels


class Coder(Protocol):
    """Pictures to codes and back."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in -1..1 -> (B, N) int64."""
        ...

    def decode(self, codes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, N) of a grid (down, across) -> (B, 3, H, W) float32, about -1..1."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """Means over held-out drawings, pairs of colour and shape that were never trained included."""

    psnr: float  # dB, of bytes, mean over pictures
    right: Interval  # pictures in which the checker sees every object, of those in which it did before


def evaluate_reconstruction(coder: Coder, grid: tuple[int, int], *, limit: int = 500, seed: int = 0) -> Reconstruction:
    """Encode and decode ``limit`` held-out drawings."""
    decibels, right = [], []
    for index in range(limit):
        wish, _, image = drawing(index, seed=seed, trained=index % 5 > 0)
        before = np.asarray(image)
        after = to_bytes(coder.decode(coder.encode(to_pixels(before)), grid))[0]
        error = np.square(before.astype(np.float64) - after).mean()
        decibels.append(10 * np.log10(255**2 / max(error, 1e-3)))
        if judge(look(image), wish).right:
            right.append(judge(look(Image.fromarray(after)), wish).right)
    return Reconstruction(float(np.mean(decibels)), wilson(sum(right), len(right)))


def main(folder: str) -> None:
    """Prints the scores of a model's image tokenizer."""
    from mm.families.table import image_head_of, load_model

    head = image_head_of(load_model(Path(folder), device="cpu", dtype=torch.float32), folder)
    found = evaluate_reconstruction(head.vq, head.grid)
    print(f"PSNR {found.psnr:.2f} dB, {100 * found.right.score:.1f}% of {found.right.count} pictures still right")


if __name__ == "__main__":
    main(sys.argv[1])
