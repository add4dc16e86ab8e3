"""Weights of one byte: whole numbers from -127 to 127, and one float32 scale for each output (weight-only int8).

Activations keep their type. A weight is at most half a step from what it was, a step being the largest weight of its
output over 127.

Letters: B rows, D inputs, N outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.language.joint import Joint
from mm.language.moe import Experts, by_expert, mix

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


class Int8Joint(Joint):
    """Layers over the same input as one product, in one byte each; see ``mm.language.joint``.

    Attributes:
        parts: each layer as a module, a view of its rows.

    Args:
        joint: of the layers as they were.
    """

    scale: Tensor

    def __init__(self, joint: Joint) -> None:
        self.sizes, self.bias = joint.sizes, joint.bias
        self.weight, self.scale = to_int8(joint.weight)
        biases = [None] * len(self.sizes) if self.bias is None else self.bias.split(self.sizes)
        rows = zip(self.weight.split(self.sizes), self.scale.split(self.sizes), biases, strict=True)
        self.parts = [Int8Linear(*part) for part in rows]
        self.layers = tuple(self.parts)

    @property
    def is_intact(self) -> bool:
        """True: nothing trains them or puts them elsewhere."""
        return True

    def product(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., sum of N)."""
        return int8_linear(x, self.weight, self.scale, self.bias)

    def part(self) -> None:
        """Nothing: what was rounded stays rounded."""


class Int8Experts(Experts):
    """Stacked experts in one byte a weight, for inference.

    Args:
        experts: as they were.
    """

    joint: Tensor
    joint_scale: Tensor
    down_proj: Tensor  # type: ignore[assignment]
    down_scale: Tensor

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)  # without parameters in a wide type
        joint = torch.cat((experts.gate_proj, experts.up_proj), dim=1) if experts.joint is None else experts.joint
        for name, weight in (("joint", joint), ("down", experts.down_proj)):
            # Expert by expert: float32 copies of all of them may not fit.
            values, scales = zip(*(to_int8(each) for each in weight), strict=True)
            self.register_buffer("joint" if name == "joint" else "down_proj", torch.stack(values))
            self.register_buffer(f"{name}_scale", torch.stack(scales))

    @property
    def is_joint(self) -> bool:
        """True: gates and ups lie one behind the other."""
        return True

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """(E, 2 I) and (E, D) float32."""
        return self.joint_scale, self.down_scale

    def widened(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(E, 2 I, D) and (E, D, I) in ``dtype``, for products that take no bytes."""
        joint = self.joint.to(dtype).mul_(self.joint_scale.to(dtype).unsqueeze(-1))
        return joint, self.down_proj.to(dtype).mul_(self.down_scale.to(dtype).unsqueeze(-1))

    def grouped(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Tokens sorted by expert; on the CPU one expert after another, so that few weights are wide at a time."""
        order, ends = by_expert(indices, len(self.joint))
        rows = x[order // indices.shape[1]]  # (M * K, D)
        if x.device.type == "cpu":
            out = torch.empty_like(rows)
            start = 0
            for expert, stop in enumerate(ends.tolist()):
                if stop > start:
                    both = int8_linear(rows[start:stop], self.joint[expert], self.joint_scale[expert])
                    hidden = _gate(both)
                    out[start:stop] = int8_linear(hidden, self.down_proj[expert], self.down_scale[expert])
                start = stop
        else:
            joint, down = self.widened(x.dtype)
            hidden = _gate(F.grouped_mm(rows, joint.transpose(1, 2), offs=ends))
            out = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        return mix(out[order.argsort()].unflatten(0, indices.shape), weights)

    def gathered(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """The chosen experts' weights made wide for each token: for very few tokens, no host involved."""
        both = torch.einsum("md,mkid->mki", x, self.joint[indices].to(x.dtype)) * self.joint_scale[indices]
        out = torch.einsum("mki,mkdi->mkd", _gate(both.to(x.dtype)), self.down_proj[indices].to(x.dtype))
        return mix((out * self.down_scale[indices]).to(x.dtype), weights)

    def every(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Every expert on every token, and the chosen ones picked."""
        joint, down = self.widened(x.dtype)
        out = _gate(x.expand(len(joint), *x.shape).bmm(joint.transpose(1, 2))).bmm(down.transpose(1, 2))  # (E, M, D)
        return mix(out[indices, torch.arange(x.shape[0], device=x.device).unsqueeze(1)], weights)

    def dense(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """As ``every``: nothing is trained in this form."""
        return self.every(x, indices, weights)


def _gate(both: Tensor) -> Tensor:
    """(..., 2 I), gates before ups -> (..., I)."""
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up
