"""The preallocated memory of attention.

One tensor per kind of number and layer, (rows, slots, ...): keys and values for plain attention, one latent for MLA.
Those of all layers lie together, layer after layer.
Slot = position of the token in its row. Nothing here depends on data: a slot that was not written for the current
sequence is hidden by causality until it is overwritten. It is for generation: with values that carry gradients torch
refuses to write to it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SWAP_BYTES = 2**26  # that exchanging two rows holds beside them, or what a layer of one row takes


@dataclass(frozen=True)
class LayerCache:
    """The tensors of one layer, each (B, S, ...)."""

    tensors: tuple[Tensor, ...]

    def write(self, slots: Tensor, values: tuple[Tensor, ...], rows: Tensor | None = None) -> None:
        """Store ``values`` (each (B, T, ...)) at ``slots`` (B, T) int64 of ``rows`` (B,) int64, or of row i for the
        i-th of them."""
        if rows is None:
            rows = torch.arange(slots.shape[0], device=slots.device)
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.index_put_((rows.unsqueeze(1), slots), value)

    def read(self, visible: int, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """The first ``visible`` slots, each (B, visible, ...): views of all rows, or copies of ``rows`` (B,) int64."""
        views = tuple(tensor[:, :visible] for tensor in self.tensors)
        return views if rows is None else tuple(view.index_select(0, rows) for view in views)


class StaticCache:
    """``num_rows`` rows of ``length`` slots for every layer of a decoder.

    Args:
        layers: one LayerCache per decoder layer; all have the same number of rows and slots.
        parts: the same tensors, those that lie together in memory as one of (L, B, S, ...) each, so that a row is
            copied in few launches; None takes them one by one.
    """

    def __init__(self, layers: tuple[LayerCache, ...], parts: tuple[Tensor, ...] | None = None) -> None:
        self.layers = layers
        self.num_rows, self.length = layers[0].tensors[0].shape[:2]
        self._parts = parts or tuple(tensor.unsqueeze(0) for layer in layers for tensor in layer.tensors)

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
        kinds = shapes[0]
        assert all(shape == kinds for shape in shapes), "layers of one decoder store the same"
        parts = tuple(torch.zeros(len(shapes), num_rows, length, *kind, device=device, dtype=dtype) for kind in kinds)
        return cls(tuple(LayerCache(tensors) for tensors in zip(*parts, strict=True)), parts)

    def rows(self, start: int, stop: int) -> "StaticCache":
        """A view of rows start..stop-1 that shares memory with this cache."""
        layers = tuple(LayerCache(tuple(t[start:stop] for t in layer.tensors)) for layer in self.layers)
        return StaticCache(layers, tuple(part[:, start:stop] for part in self._parts))

    def copy_row(self, target: int, other: "StaticCache", source: int, length: int) -> None:
        """Write the first ``length`` slots of row ``source`` of ``other`` (or of this cache) to row ``target``."""
        for ours, theirs in zip(self._parts, other._parts, strict=True):
            ours[:, target, :length] = theirs[:, source, :length]

    def swap_rows(self, first: int, second: int, length: int) -> None:
        """Exchange the first ``length`` slots of two rows."""
        for part in self._parts:
            size = max(part[0, 0, :length].numel() * part.element_size(), 1)
            for some in part.split(max(SWAP_BYTES // size, 1)):  # of the layers
                kept = some[:, first, :length].clone()
                some[:, first, :length] = some[:, second, :length]
                some[:, second, :length] = kept

    def clear_row(self, row: int) -> None:
        """Zeros in all slots of a row."""
        for part in self._parts:
            part[:, row].zero_()

    def bytes_per_token(self) -> int:
        """Bytes one token of one row takes over all layers."""
        return sum(self.bytes_by_device().values())

    def bytes_by_device(self) -> dict[torch.device, int]:
        """The same on each device that has layers."""
        sizes: dict[torch.device, int] = {}
        for part in self._parts:
            sizes[part.device] = sizes.get(part.device, 0) + part[:, 0, 0].numel() * part.element_size()
        return sizes
