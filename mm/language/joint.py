"""Several linear layers over the same input as one product."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, Self

import torch
from torch import Tensor, nn

from mm.products import product


class Joint:
    """Linear layers whose weights are consecutive rows of one tensor.

    Each layer keeps its parameter, which becomes a view of its rows: names, saving, merging and changes in place are
    those of the separate layers, and no number is in memory twice. Where a layer's parameter is put elsewhere later
    (``to``, ``load_state_dict(assign=True)``, a copy of the model) or is trained, or another layer takes its place (an
    adapter around it), the separate layers are used.

    Not a module: its tensors are the layers' own.

    Args:
        layers: of equal input width; weights on one device, of one type.
    """

    layers: tuple[Any, ...]  # linear layers; with codes for weights they are another class
    scale: Tensor | None = None  # of codes, see mm.language.packing

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = tuple(layers)
        self.sizes = [layer.out_features for layer in layers]
        with torch.no_grad():
            self.weight = torch.cat(tuple(layer.weight for layer in layers))  # (sum of outputs, inputs)
            self.bias = None
            if any(layer.bias is not None for layer in layers):
                parts: list[Tensor] = [
                    self.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers
                ]
                self.bias = torch.cat(parts)
            start = 0
            for layer, size in zip(layers, self.sizes, strict=True):
                layer.weight = nn.Parameter(self.weight[start : start + size], requires_grad=False)
                if layer.bias is not None and self.bias is not None:
                    layer.bias = nn.Parameter(self.bias[start : start + size], requires_grad=False)
                start += size

    def holds(self, layers: Sequence[nn.Module]) -> bool:
        """Whether these are the layers, and ``is_intact``."""
        return all(map(is_, layers, self.layers)) and self.is_intact

    @property
    def is_intact(self) -> bool:
        """Whether the layers' parameters are still these rows, and not trained."""
        place, width = self.weight.data_ptr(), self.weight.stride(0) * self.weight.element_size()
        for layer, size in zip(self.layers, self.sizes, strict=True):
            if layer.weight.data_ptr() != place or layer.weight.requires_grad:
                return False
            place += size * width
        return True

    def __call__(self, x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        """(..., inputs) -> (..., outputs) of each of the layers, which stand where those stood that were joined."""
        if self.holds(layers):
            parts: tuple[Tensor, ...] = self.product(x).split(self.sizes, dim=-1)
            return parts
        return tuple(layer(x) for layer in layers)

    def product(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., sum of outputs)."""
        return product(x, self.weight, self.bias)

    def part(self) -> None:
        """Give each layer memory of its own again."""
        for layer in self.layers:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)


class WithJoint(nn.Module, ABC):
    """A module with layers over the same input, which may be one product.

    Where the module goes to another device or type, the product is made anew there: nothing of the old place is kept.
    """

    joint: Joint | None

    @property
    @abstractmethod
    def joined(self) -> tuple[nn.Module, ...]:
        """The layers over the input."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.joint
        held = before is not None and before.holds(self.joined)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None and not before.holds(self.joined):
            kind = type(before)
            self.joint = before = None  # before the new one is made: its memory
            if held:
                self.joint = kind(self.joined)  # type: ignore[arg-type]  # they were these layers before
        return self
