"""Layers whose weights are codes and scales (``mm.language.packing``), for inference.

Their tensors are buffers that keep their types whatever type the model is put in (``half()``, ``to(dtype)``).

Letters: D inputs, N outputs, E experts, I expert width, M tokens, K experts a token.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import Quantization
from mm.language.joint import Joint
from mm.language.moe import Experts, by_expert, mix
from mm.language.packing import pack, packed_linear, unpack


class _Coded(nn.Module):
    """Codes and scales move with the model, and are never cast: a code in another type is another number."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for name, buffer in self._buffers.items():
            if buffer is not None:
                moved = fn(buffer)
                self._buffers[name] = moved if moved.dtype == buffer.dtype else buffer.to(moved.device)
        for name, parameter in self._parameters.items():  # a bias
            if parameter is not None:
                self._parameters[name] = nn.Parameter(fn(parameter.detach()), requires_grad=False)
        return self


class QuantizedLinear(_Coded):
    """A linear layer.

    Args:
        weight: codes, (N, D) or in int4 (N, 16 G).
        scale: (N,) or in int4 (N, G).
        bias: (N,) or None.
        in_features: D.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, in_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.in_features, self.out_features = in_features, weight.shape[0]

    @classmethod
    def of(cls, layer: nn.Linear, kind: Quantization) -> "QuantizedLinear":
        """A layer's weights, rounded."""
        return cls(*pack(layer.weight, kind), layer.bias, layer.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        return packed_linear(x, self.weight, self.scale, self.bias)


class QuantizedJoint(Joint):
    """Quantised layers over the same input as one product; see ``mm.language.joint``. Each layer's tensors become views
    of rows of the common ones.

    Args:
        layers: quantised, of one kind.
    """

    scale: Tensor

    def __init__(self, layers: Sequence[QuantizedLinear]) -> None:  # not Joint's: these have no parameters
        self.layers = tuple(layers)
        self.sizes = [layer.out_features for layer in layers]
        self.weight = torch.cat([layer.weight for layer in layers])
        self.scale = torch.cat([layer.scale for layer in layers])
        self.bias = None
        if any(layer.bias is not None for layer in layers):
            like = next(layer.bias for layer in layers if layer.bias is not None)
            parts = [like.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers]
            self.bias = torch.cat(parts).detach()
        start = 0
        for layer, size in zip(layers, self.sizes, strict=True):
            rows = slice(start, start + size)
            layer.weight, layer.scale = self.weight[rows], self.scale[rows]
            if layer.bias is not None and self.bias is not None:
                layer.bias = nn.Parameter(self.bias[rows], requires_grad=False)
            start += size

    @property
    def is_intact(self) -> bool:
        """Whether the layers' codes and biases are still these rows."""
        place, width = self.weight.data_ptr(), self.weight.stride(0) * self.weight.element_size()
        shift, step = (0, 0) if self.bias is None else (self.bias.data_ptr(), self.bias.element_size())
        for layer, size in zip(self.layers, self.sizes, strict=True):
            if layer.weight.data_ptr() != place or (layer.bias is not None and layer.bias.data_ptr() != shift):
                return False
            place, shift = place + size * width, shift + size * step
        return True

    def product(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., sum of N)."""
        return packed_linear(x, self.weight, self.scale, self.bias)

    def part(self) -> None:
        """Give each layer memory of its own again. What was rounded stays rounded."""
        for layer in self.layers:
            layer.weight, layer.scale = layer.weight.clone(), layer.scale.clone()
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)


class QuantizedExperts(_Coded, Experts):
    """Stacked experts, gates before ups.

    Args:
        experts: as they were.
        kind: how they are rounded.
    """

    joint: Tensor  # (E, 2 I, D), or in int4 (E, 2 I, 16 G)
    joint_scale: Tensor
    down_proj: Tensor  # type: ignore[assignment]  # (E, D, I), or in int4 (E, D, 16 G)
    down_scale: Tensor

    def __init__(self, experts: Experts, kind: Quantization) -> None:
        nn.Module.__init__(self)  # without parameters in a wide type
        self.width, self.inner = experts.down_proj.shape[1:]  # D, I
        joint = torch.cat((experts.gate_proj, experts.up_proj), dim=1) if experts.joint is None else experts.joint
        for name, weight in (("joint", joint), ("down", experts.down_proj)):
            codes, scale = _packed(weight, kind)
            self.register_buffer("joint" if name == "joint" else "down_proj", codes)
            self.register_buffer(f"{name}_scale", scale)

    @property
    def is_joint(self) -> bool:
        """True: gates and ups lie one behind the other."""
        return True

    def join(self) -> None:
        """Nothing to do."""

    def part(self) -> None:
        """Nothing: they were never apart."""

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """Of gates and ups, and of the last product."""
        return self.joint_scale, self.down_scale

    def widened(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(E, 2 I, D) and (E, D, I) in ``dtype``, for products that take no codes."""
        return (
            unpack(self.joint, self.joint_scale, self.width, dtype),
            unpack(self.down_proj, self.down_scale, self.inner, dtype),
        )

    def grouped(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Tokens sorted by expert; on the CPU one expert after another, so that few weights are wide at a time."""
        order, ends = by_expert(indices, len(self.joint))
        rows = x[order // indices.shape[1]]  # (M * K, D)
        if x.device.type == "cpu":
            out = torch.empty_like(rows)
            start = 0
            for expert, stop in enumerate(ends.tolist()):
                if stop > start:
                    both = packed_linear(rows[start:stop], self.joint[expert], self.joint_scale[expert])
                    hidden = _gate(both)
                    out[start:stop] = packed_linear(hidden, self.down_proj[expert], self.down_scale[expert])
                start = stop
        else:
            joint, down = self.widened(x.dtype)
            hidden = _gate(F.grouped_mm(rows, joint.transpose(1, 2), offs=ends))
            out = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        return mix(out[order.argsort()].unflatten(0, indices.shape), weights)

    def gathered(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """The chosen experts' weights made wide for each token: for very few tokens, no host involved."""
        joint = unpack(self.joint[indices], self.joint_scale[indices], self.width, x.dtype)
        down = unpack(self.down_proj[indices], self.down_scale[indices], self.inner, x.dtype)
        return mix(torch.einsum("mki,mkdi->mkd", _gate(torch.einsum("md,mkid->mki", x, joint)), down), weights)

    def every(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Every expert on every token, and the chosen ones picked."""
        joint, down = self.widened(x.dtype)
        out = _gate(x.expand(len(joint), *x.shape).bmm(joint.transpose(1, 2))).bmm(down.transpose(1, 2))  # (E, M, D)
        return mix(out[indices, torch.arange(x.shape[0], device=x.device).unsqueeze(1)], weights)

    def dense(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """As ``every``: nothing is trained in this form."""
        return self.every(x, indices, weights)


def _packed(weight: Tensor, kind: Quantization) -> tuple[Tensor, Tensor]:
    """``pack``, expert by expert: float32 copies of all of them may not fit."""
    if weight.is_meta:
        return pack(weight, kind)
    codes, scales = zip(*(pack(each, kind) for each in weight), strict=True)
    return torch.stack(codes), torch.stack(scales)


def _gate(both: Tensor) -> Tensor:
    """(..., 2 I), gates before ups -> (..., I)."""
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate) * up
