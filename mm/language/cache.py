"""The preallocated memory of attention.

One tensor per kind of number and layer, (rows, slots, ...): keys and values for plain attention, one latent for MLA.
Slot = position of the token in its row. Nothing here depends on data: a slot that was not written for the current
sequence is hidden by causality until it is overwritten.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """The tensors of one layer, each (B, S, ...)."""

    tensors: tuple[Tensor, ...]

    def write(self, slots: Tensor, values: tuple[Tensor, ...]) -> None:
        """Store ``values`` (each (B, T, ...)) at ``slots`` (B, T) int64 of the same row."""
        rows = torch.arange(slots.shape[0], device=slots.device).unsqueeze(1)  # (B, 1)
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.index_put_((rows, slots), value)

    def read(self, visible: int) -> tuple[Tensor, ...]:
        """Views of the first ``visible`` slots, each (B, visible, ...)."""
        return tuple(tensor[:, :visible] for tensor in self.tensors)


class StaticCache:
    """``num_rows`` rows of ``length`` slots for every layer of a decoder.

    Args:
        layers: one LayerCache per decoder layer; all have the same number of rows and slots.
    """

    def __init__(self, layers: tuple[LayerCache, ...]) -> None:
        self.layers = layers
        self.num_rows, self.length = layers[0].tensors[0].shape[:2]

    @classmethod
    def allocate(
        cls,
        shapes: tuple[tuple[tuple[int, ...], ...], ...],
        num_rows: int,
        length: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "StaticCache":
        """A zeroed cache; ``shapes[layer][kind]`` is what one token stores."""
        return cls(
            tuple(
                LayerCache(tuple(torch.zeros(num_rows, length, *shape, device=device, dtype=dtype) for shape in kinds))
                for kinds in shapes
            )
        )

    def rows(self, start: int, stop: int) -> "StaticCache":
        """A view of rows start..stop-1 that shares memory with this cache."""
        return StaticCache(tuple(LayerCache(tuple(t[start:stop] for t in layer.tensors)) for layer in self.layers))

    def copy_row(self, target: int, other: "StaticCache", source: int, length: int) -> None:
        """Write the first ``length`` slots of row ``source`` of ``other`` (or of this cache) to row ``target``."""
        for ours, theirs in zip(self._tensors(), other._tensors(), strict=True):
            ours[target, :length] = theirs[source, :length]

    def swap_rows(self, first: int, second: int, length: int) -> None:
        """Exchange the first ``length`` slots of two rows."""
        for tensor in self._tensors():
            kept = tensor[first, :length].clone()
            tensor[first, :length] = tensor[second, :length]
            tensor[second, :length] = kept

    def clear_row(self, row: int) -> None:
        """Zeros in all slots of a row."""
        for tensor in self._tensors():
            tensor[row].zero_()

    def bytes_per_token(self) -> int:
        """Bytes one token of one row takes over all layers."""
        return sum(tensor[0, 0].numel() * tensor.element_size() for tensor in self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        return (tensor for layer in self.layers for tensor in layer.tensors)
