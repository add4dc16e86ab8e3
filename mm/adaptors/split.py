"""DeepSeek-VL 7B's adaptor between two towers and the decoder (arXiv 2403.05525, section 3.1)."""

import torch
from torch import Tensor, nn

from mm.config import SplitMLPConfig


class SplitMLPAdaptor(nn.Module):
    """Half of the channels from each tower, the high-resolution one first; then (exact GELU, Linear) x (depth - 1)."""

    def __init__(self, config: SplitMLPConfig) -> None:
        super().__init__()
        half = config.output_width // 2
        self.high_up_proj = nn.Linear(config.input_width, half)
        self.low_up_proj = nn.Linear(config.input_width, half)
        layers: list[nn.Module] = []
        for _ in range(1, config.depth):
            layers += [nn.GELU(), nn.Linear(config.output_width, config.output_width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """High- and low-resolution features (N, P, W) -> (N, P, D)."""
        high, low = features
        out: Tensor = self.layers(torch.cat((self.high_up_proj(high), self.low_up_proj(low)), dim=-1))
        return out
