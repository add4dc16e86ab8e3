"""The plain MLP between an encoder (or an embedding of image codes) and the decoder: DeepSeek-VL and Janus."""

from torch import Tensor, nn

from mm.config import MLPConfig


class MLPAdaptor(nn.Module):
    """Linear, then (exact GELU, Linear) x (depth - 1), on every token alone."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(config.input_width, config.output_width)]
        for _ in range(1, config.depth):
            layers += [nn.GELU(), nn.Linear(config.output_width, config.output_width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(..., W) -> (..., D)."""
        out: Tensor = self.layers(features)
        return out
