"""One model on several devices: whole layers, one stretch of them after the other.

What comes in (encoder, adaptor, token embeddings) and what draws is on the first device, the final norm and the head
are on the last one. Between two stages the hidden states of a step are moved (``Decoder.forward``), a few kilobytes a
token; each layer's part of the cache is where the layer is. The weights are read from the files to where they belong,
as those of a model on one device are. accelerate, which could dispatch modules, is not used: it wraps each module's
``forward`` in hooks, and would still need our loader (published names are not the model's) and cache.

Devices compute one after another, so that several are for models that one cannot hold; they make none faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from mm.config import Quantization
from mm.devices import resolve_device
from mm.errors import OptionError, ResourceError
from mm.families.family import FamilyConfig
from mm.families.table import build_model
from mm.transforms.quantize import quantize_layer

GIB = 2**30
WEIGHT_SHARE = 0.9  # of a device's free memory, at most; the rest is for the cache and activations
MOST_GPUS = 128  # torch numbers devices in a signed byte, and takes larger numbers for others without a word
_LAYER = "decoder.model.layers."
_LAST = ("decoder.model.norm.", "decoder.lm_head.")


@dataclass(frozen=True)
class DeviceMap:
    """Where the parts of a model are.

    Args:
        first: of everything but the two below.
        layers: of each layer of the decoder.
        last: of its final norm and its head.
    """

    first: torch.device
    layers: tuple[torch.device, ...]
    last: torch.device

    def __call__(self, name: str) -> torch.device:
        """The device of the parameter of this name."""
        if name.startswith(_LAYER):
            return self.layers[int(name.removeprefix(_LAYER).partition(".")[0])]
        return self.last if name.startswith(_LAST) else self.first

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Each once, in the order of the computation."""
        return tuple(dict.fromkeys((self.first, *self.layers, self.last)))


@dataclass(frozen=True)
class PartSizes:
    """Bytes of the weights that a ``DeviceMap`` places together."""

    first: int
    layers: tuple[int, ...]
    last: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.first + sum(self.layers) + self.last


@lru_cache(maxsize=64)
def part_sizes(config: FamilyConfig, dtype: torch.dtype, quantization: Quantization | None = None) -> PartSizes:
    """Counted on a model without memory."""
    model = build_model(config).to(dtype)
    decoder = model.decoder
    last = weight_bytes(decoder.model.norm) + weight_bytes(decoder.lm_head)
    wide = [weight_bytes(layer) for layer in decoder.model.layers]
    first = weight_bytes(model) - sum(wide) - last
    if quantization is None:
        return PartSizes(first, tuple(wide), last)
    sizes: dict[tuple[torch.Size, ...], int] = {}  # of layers with weights of these shapes
    rounded = []
    for layer in decoder.model.layers:
        shapes = tuple(weight.shape for weight in layer.parameters())
        if shapes not in sizes:
            quantize_layer(layer, quantization)
            sizes[shapes] = weight_bytes(layer)
        rounded.append(sizes[shapes])
    return PartSizes(first, tuple(rounded), last)


def weight_bytes(module: object) -> int:
    """Of parameters and buffers of a module, codes of quantised weights among them."""
    assert isinstance(module, nn.Module)
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def explicit_map(given: Mapping[str, str | int | torch.device], num_layers: int) -> DeviceMap:
    """A map as a caller writes it: ``{"layers.0": "cuda:0", ..., "layers.26": "cuda:1"}``.

    Args:
        given: a device of each layer, or the number of a GPU; "first" and "last" are those of the first and the last
            layer where they are not given.
        num_layers: of the decoder.

    Raises:
        OptionError: a name that is no part of the model, layers without a device, or a device that is not there.
    """
    names = [f"layers.{index}" for index in range(num_layers)]
    known = ("first", *names, "last")
    strange = [str(name) for name in given if name not in known]
    if strange:
        raise OptionError(
            f"device_map has {', '.join(strange)}; this model has first, layers.0 to layers.{num_layers - 1}, and last."
        )
    missing = [name for name in names if name not in given]
    if missing:
        raise OptionError(
            f"device_map says nothing of {len(missing)} of {num_layers} layers ({', '.join(missing[:4])}"
            f"{', ...' if len(missing) > 4 else ''}). Give each a device, or use device_map='auto'."
        )
    for name, device in given.items():
        if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
            raise OptionError(f"device_map has {device!r} for {name}; expected a device, such as 'cuda:1'.")
        if isinstance(device, int) and not 0 <= device < MOST_GPUS:
            raise OptionError(
                f"device_map has {device} for {name}; expected the number of a GPU, 0 to {MOST_GPUS - 1}, or a device "
                "such as 'cuda:1'."
            )
    devices = {
        name: _indexed(resolve_device(f"cuda:{device}" if isinstance(device, int) else device))
        for name, device in given.items()
    }
    layers = tuple(devices[name] for name in names)
    return DeviceMap(devices.get("first", layers[0]), layers, devices.get("last", layers[-1]))


def _indexed(device: torch.device) -> torch.device:
    """With the number that torch gives tensors there: "cuda" is one of several GPUs."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def automatic_map(sizes: PartSizes, free: Mapping[torch.device, int], *, name: str = "the model") -> DeviceMap:
    """Stretches of layers such that all devices are about equally full.

    Args:
        sizes: of the parts.
        free: bytes of each device, in the order in which they are to be used.
        name: of the model, for the message.

    Raises:
        ResourceError: it does not fit all of them together.
    """
    budgets = {device: int(size * WEIGHT_SHARE) for device, size in free.items()}
    best = _fill(sizes, budgets, 1.0)
    if best is None:
        have = ", ".join(f"{device} {size / GIB:.1f} GiB" for device, size in free.items())
        raise ResourceError(
            f"{name} does not fit: its weights take {sizes.total / GIB:.1f} GiB, the largest part of them "
            f"{max(sizes.first, *sizes.layers, sizes.last) / GIB:.1f} GiB, and free are {have}, of which "
            f"{WEIGHT_SHARE:.0%} may hold weights."
        )
    low, high = 0.0, 1.0
    for _ in range(30):
        share = (low + high) / 2
        found = _fill(sizes, budgets, share)
        low, high, best = (share, high, best) if found is None else (low, share, found)
    return best


def _fill(sizes: PartSizes, budgets: Mapping[torch.device, int], share: float) -> DeviceMap | None:
    """Device after device up to this share of its budget; None where something is left over."""
    parts = [sizes.first, *sizes.layers, sizes.last]
    places: list[torch.device] = []
    for device, budget in budgets.items():
        left = budget * share
        while len(places) < len(parts) and parts[len(places)] <= left:
            left -= parts[len(places)]
            places.append(device)
    return DeviceMap(places[0], tuple(places[1:-1]), places[-1]) if len(places) == len(parts) else None


def visible_gpus() -> tuple[torch.device, ...]:
    """The GPUs that torch sees.

    Raises:
        OptionError: none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise OptionError(
            f"device_map='auto' splits a model over GPUs, and torch {torch.__version__} sees none. Leave it out, or "
            "give a device for each layer: device_map={'layers.0': 'cpu', ...}."
        )
    return tuple(torch.device("cuda", index) for index in range(count))


def check_device_map(value: object, device: str | torch.device) -> None:
    """Refuse what is no map, or a device besides.

    Raises:
        OptionError: it is neither None, "auto", nor a mapping; or ``device`` names one too.
    """
    if value is None:
        return
    if value != "auto" and not isinstance(value, Mapping):
        raise OptionError(
            f"device_map is {value!r}; use 'auto', or a device for each layer: {{'layers.0': 'cuda:0', ...}}."
        )
    if device != "auto":
        raise OptionError(
            f"device is {str(device)!r} and there is a device_map: both say where the model goes. Leave one of the two "
            "out."
        )


def stretches(devices: Sequence[torch.device]) -> str:
    """Which layers are where, in words: "layers 0-13 on cuda:0, 14-26 on cuda:1"."""
    found: list[tuple[int, int, torch.device]] = []
    for index, device in enumerate(devices):
        if found and found[-1][2] == device:
            found[-1] = (found[-1][0], index, device)
        else:
            found.append((index, index, device))
    return "layers " + ", ".join(f"{a}{f'-{b}' if b > a else ''} on {device}" for a, b, device in found)
