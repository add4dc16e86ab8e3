"""Normalisation and the gated MLP that every DeepSeek decoder shares."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.language.joint import Joint, WithJoint


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (arXiv 1910.07467), computed in float32, cast back, then scaled.

    The order of cast and scale is the published one (transformers' LlamaRMSNorm); it matters in bf16.
    """

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class GatedMLP(WithJoint):
    """SwiGLU without biases: ``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.joint: Joint | None = None  # of gate and up; see mm.transforms.fuse

    @property
    def joined(self) -> tuple[nn.Module, ...]:
        """The layers over the input."""
        return self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        gate, up = (self.gate_proj(x), self.up_proj(x)) if self.joint is None else self.joint(x, self.joined)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out
