"""DeepSeek-VL2's adaptor: blocks of patches become one token, then an MLP (arXiv 2412.10302, section 3.2)."""

import math

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import PixelShuffleConfig


class PixelShuffleAdaptor(nn.Module):
    """``ratio`` x ``ratio`` patches -> one token, channels outermost, then Linear (GELU Linear) x (depth - 1)."""

    def __init__(self, config: PixelShuffleConfig) -> None:
        super().__init__()
        self.ratio = config.ratio
        inner = config.output_width * config.mlp_ratio
        layers: list[nn.Module] = [nn.Linear(config.input_width * config.ratio**2, inner)]
        for index in range(1, config.depth):
            width = config.output_width if index == config.depth - 1 else inner
            layers += [nn.GELU(), nn.Linear(inner, width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, W) square grids of patches -> (N, M, D), zero-padded at the right and bottom to whole blocks."""
        side = math.isqrt(features.shape[1])
        assert side * side == features.shape[1], "the patches of a view form a square"
        grid = rearrange(features, "n (h w) c -> n h w c", h=side)
        missing = -side % self.ratio
        grid = F.pad(grid, (0, 0, 0, missing, 0, missing))
        blocks = rearrange(grid, "n (h a) (w b) c -> n (h w) (c a b)", a=self.ratio, b=self.ratio)
        out: Tensor = self.layers(blocks)
        return out
