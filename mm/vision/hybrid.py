"""DeepSeek-VL's vision side: towers that normalise their own pixels, and two of them over one image (arXiv 2403.05525).

Letters: N views, S pixels a side, P features of a view, E and W widths of the two towers.
"""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import HybridVisionConfig, NormalizedVisionConfig, PixelStatistics
from mm.vision.encoder import build_siglip
from mm.vision.sam import SamEncoder


class NormalizedTower(nn.Module):
    """A tower, and what its pixels go through first."""

    def __init__(self, tower: nn.Module, statistics: PixelStatistics | None) -> None:
        super().__init__()
        self.tower = tower
        self.statistics = statistics

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S), in 0..1 where the tower normalises -> what the tower gives."""
        if self.statistics is not None:
            mean, std = (pixels.new_tensor(v)[:, None, None] for v in (self.statistics.mean, self.statistics.std))
            pixels = (pixels - mean) / std
        out: Tensor = self.tower(pixels)
        return out


class Shrink(nn.Module):
    """Pictures at a lower resolution, before any normalisation: bilinear, with antialiasing, in float32."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 3, size, size)."""
        size = (self.size, self.size)
        small = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
        return small.to(pixels.dtype)


class HybridEncoder(nn.Module):
    """SAM on the whole picture and SigLIP on a smaller copy of it."""

    def __init__(self, config: HybridVisionConfig) -> None:
        super().__init__()
        self.high = NormalizedTower(SamEncoder(config.high, config.low.grid), config.high.statistics)
        self.shrink = Shrink(config.low.image_size)
        self.low = build_single(config.low)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) -> high-resolution features (N, P, E) and low-resolution ones (N, P, W), place by place."""
        high = rearrange(self.high(pixels), "n c h w -> n (h w) c")
        return high, self.low(self.shrink(pixels))


def build_single(config: NormalizedVisionConfig) -> NormalizedTower:
    """SigLIP alone: pixels (N, 3, S, S) -> features (N, P, W) after the final norm."""
    return NormalizedTower(build_siglip(config), config.statistics)
