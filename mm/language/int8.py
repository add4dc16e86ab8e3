"""Weights of one byte: whole numbers from -127 to 127, and one float32 scale for each output (weight-only int8).

Activations keep their type. A weight is at most half a step from what it was, a step being the largest weight of its
output over 127.

Letters: B rows, D inputs, N outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 127


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(..., N, D) -> int8 (..., N, D) and scales (..., N) float32, weight = int8 * scale within half a scale."""
    scale = weight.detach().abs().amax(dim=-1).float() / LEVELS
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    return (weight.detach().float() / scale.unsqueeze(-1)).round_().to(torch.int8), scale


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., D), int8 (N, D), (N,) float32 -> (..., N)."""
    if x.dtype == torch.float16:  # sums of whole numbers would overflow
        return F.linear(x, (weight * scale.unsqueeze(-1)).to(x.dtype), bias)
    out = (F.linear(x, weight.to(x.dtype)) * scale).to(x.dtype)
    return out if bias is None else out + bias


class Int8Linear(nn.Module):
    """A linear layer for inference.

    Args:
        weight: int8 (N, D).
        scale: (N,) float32.
        bias: (N,) or None.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def of(cls, layer: nn.Linear) -> "Int8Linear":
        """A layer's weights in one byte each."""
        return cls(*to_int8(layer.weight), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        return int8_linear(x, self.weight, self.scale, self.bias)
