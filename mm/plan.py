"""What a model needs before any of its weights are downloaded, and what would make it fit.

The counts are those of `mm.planner`; here they meet the memory of a device.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch

from mm.config import Quantization
from mm.devices import resolve_device, resolve_dtype
from mm.environment import Memory, device_memory
from mm.errors import OptionError, ResourceError
from mm.families.table import (
    FAMILIES,
    cannot_draw,
    cannot_see,
    load_config,
    published_bytes,
)
from mm.hub import AUTOENCODER_BYTES, Checkpoint
from mm.planner import CUDA_OVERHEAD, Parameters, PeakMemory, Planner, Workload
from mm.shards import weight_file_bytes
from mm.transforms.quantize import check_quantization
from mm.transforms.split import (
    MOST_GPUS,
    WEIGHT_SHARE,
    automatic_map,
    check_device_map,
    part_sizes,
    visible_gpus,
)
from mm.view_cache import kept_bytes

__all__ = ["DeviceShare", "Parameters", "PeakMemory", "Plan", "Planner", "Suggestion", "Workload", "make_plan"]

# That are suggested, the one that changes less first.
ROUNDINGS: tuple[Quantization, ...] = ("int8", "int4")


@dataclass(frozen=True, kw_only=True)
class DeviceShare:
    """What one of several GPUs holds."""

    device: str
    holds: str  # in words
    peak: PeakMemory
    memory: Memory

    @property
    def fits(self) -> bool:
        """Whether the peak is below what is free, and the weights below the share of it that they may take."""
        return self.peak.total <= self.memory.available and self.peak.weights <= WEIGHT_SHARE * self.memory.available


@dataclass(frozen=True)
class Suggestion:
    """A change of the command that needs less memory."""

    flags: str
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer of `mm plan`."""

    model: str
    source: str
    dtype: str
    quantization: str | None  # of the language model's large weights
    device: str
    workload: Workload
    parameters: Parameters
    download_bytes: int  # of the weight files in the published type, or of the files that are here
    autoencoder_bytes: int  # of what pictures by flow need besides, downloaded apart; 0 of other models
    weight_bytes: int
    cache_bytes_per_token: int
    image_tokens: int  # of one image
    context: int  # slots of the cache
    trained_context: int
    peak: PeakMemory  # of several GPUs: their sum
    memory: Memory  # likewise
    devices: tuple[DeviceShare, ...]  # of a model that is spread over several, else empty
    suggestions: tuple[Suggestion, ...]

    @property
    def fits(self) -> bool:
        """Whether the peak is below what is free now, on each device."""
        return _fits(self.peak, self.memory, self.devices)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values["peak"]["total"] = self.peak.total
        for share, told in zip(self.devices, values["devices"], strict=True):
            told["peak"]["total"] = share.peak.total
            told["fits"] = share.fits
        return {**values, "fits": self.fits}


def make_plan(
    checkpoint: Checkpoint,
    work: Workload,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Quantization | None = None,
    device_map: Literal["auto"] | None = None,
    gpu_memory: Sequence[int] = (),
    others: tuple[Checkpoint, ...] = (),
) -> Plan:
    """Plan one model on one device, or spread over several GPUs.

    Args:
        checkpoint: where its config is; weights are not needed.
        work: what it is asked to do.
        device: as `mm.devices.resolve_device`.
        dtype: as `mm.devices.resolve_dtype`.
        quantization: as ``Pipeline.from_pretrained`` takes it.
        device_map: "auto": spread over the GPUs of this machine.
        gpu_memory: free bytes of each GPU of another machine, over which it is spread; for ``dtype`` "auto" they have
            bfloat16.
        others: models to suggest instead when this one does not fit.

    Raises:
        ConfigError: a config that is not understood.
        ContextOverflowError: the workload does not fit ``work.context``.
        OptionError: an unknown device or dtype; a device besides a device map or the memory of GPUs.
        TaskError: images for a model that reads text only, or pictures of one that cannot draw.
    """
    machine = _machine(device, device_map, gpu_memory)
    place = next(iter(machine.memory))
    number = torch.bfloat16 if gpu_memory and dtype == "auto" else resolve_dtype(dtype, place)
    check_quantization(quantization, None if gpu_memory else place)
    planner = Planner(checkpoint.folder, quantization)
    if work.pictures:
        if not FAMILIES.load(planner.config.family).draws:
            raise cannot_draw(checkpoint.name)
        work = planner.drawing(work)
    if not FAMILIES.load(planner.config.family).sees:
        if work.images > 1 or work.image_size is not None:
            raise cannot_see(checkpoint.name)
        work = replace(work, images=0)  # one is what is planned for where nothing is said
    parameters = planner.parameters()
    peak, shares = machine.needs(planner, work, number)
    suggestions: tuple[Suggestion, ...] = ()
    if not _fits(peak, machine.all, shares):
        suggestions = tuple(_suggest(checkpoint.name, planner, work, number, machine, others))
    return Plan(
        model=checkpoint.name,
        source=checkpoint.source,
        dtype=str(number).removeprefix("torch."),
        quantization=quantization,
        device=", ".join(map(str, machine.memory)),
        workload=work,
        parameters=parameters,
        download_bytes=weight_file_bytes(checkpoint.folder)
        or published_bytes(planner.config, parameters.in_published_files),
        autoencoder_bytes=0 if planner.model.flow_head is None else AUTOENCODER_BYTES,
        weight_bytes=peak.weights,
        cache_bytes_per_token=planner.cache_bytes_per_token(number),
        image_tokens=planner.image_tokens(work),
        context=planner.tokens(work),
        trained_context=planner.config.decoder.max_positions,
        peak=peak,
        memory=machine.all,
        devices=shares,
        suggestions=suggestions,
    )


@dataclass(frozen=True)
class _Machine:
    """Where a model is planned for: one device, or GPUs that it is spread over."""

    memory: Mapping[torch.device, Memory]
    spread: bool

    @property
    def all(self) -> Memory:
        """Of all devices together."""
        each = self.memory.values()
        return Memory(sum(one.total for one in each), sum(one.available for one in each))

    def needs(self, planner: Planner, work: Workload, dtype: torch.dtype) -> tuple[PeakMemory, tuple[DeviceShare, ...]]:
        """Bytes of all together, and of each where there are several."""
        if not self.spread:
            return planner.peak(work, dtype, next(iter(self.memory)).type), ()
        shares = tuple(_shares(planner, work, dtype, self.memory))
        names = [field.name for field in fields(PeakMemory)]
        return PeakMemory(**{name: sum(getattr(one.peak, name) for one in shares) for name in names}), shares


def _shares(
    planner: Planner, work: Workload, dtype: torch.dtype, memory: Mapping[torch.device, Memory]
) -> list[DeviceShare]:
    """What each GPU holds of the model as ``device_map="auto"`` spreads it; where it does not fit, what each would
    hold if all had more memory in proportion.

    Args:
        work: what is run.
        dtype: of the weights that are not quantised.
        memory: of the GPUs, in the order in which they are used; each has some.
    """
    sizes = part_sizes(planner.config, dtype, planner.quantization)
    free = {device: one.available for device, one in memory.items()}
    try:
        places = automatic_map(sizes, free)
    except ResourceError:
        larger = 1 + int(sizes.total / WEIGHT_SHARE / min(free.values()))
        places = automatic_map(sizes, {device: larger * bytes for device, bytes in free.items()})
    spread = len({places.first, *places.layers, places.last}) > 1
    moments, total = planner.moments(work, dtype, "cuda", spread=spread), len(places.layers)
    cache = planner.cache(work, dtype)
    shares = []
    for device, one in memory.items():
        layers = [index for index, place in enumerate(places.layers) if place == device]
        first, last = places.first == device, places.last == device
        weights = sum(sizes.layers[index] for index in layers) + first * sizes.first + last * sizes.last
        if first and work.pictures and planner.model.flow_head is not None:
            weights += AUTOENCODER_BYTES // 4 * dtype.itemsize
        active = [first * moments.first, moments.growth * len(layers) // total, last * moments.last]
        active += [moments.layers] if layers else []
        held = first * moments.held + bool(layers) * moments.widened
        peak = PeakMemory(
            weights=weights,
            cache=cache * len(layers) // total,
            views=kept_bytes(sizes.total) if first and work.images else 0,
            activations=held + max(active),
            overhead=CUDA_OVERHEAD if layers or first or last else 0,
        )
        holds = ["encoder and embeddings" if planner.parameters().vision else "embeddings"] * first
        holds += [f"layers {layers[0]}-{layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"] if layers else []
        holds += ["head"] * last
        shares.append(DeviceShare(device=str(device), holds=", ".join(holds) or "nothing", peak=peak, memory=one))
    return shares


def _machine(device: str, device_map: Literal["auto"] | None, gpu_memory: Sequence[int]) -> _Machine:
    check_device_map(device_map, device)
    if not gpu_memory:
        places = (resolve_device(device),) if device_map is None else visible_gpus()
        return _Machine({place: device_memory(str(place)) for place in places}, device_map is not None)
    if device != "auto":
        raise OptionError(f"device is {device!r}, and gpu_memory has GPUs to plan for: leave one of the two out.")
    if min(gpu_memory) < 1 or len(gpu_memory) > MOST_GPUS:
        raise OptionError(
            f"gpu_memory is of {len(gpu_memory)} GPUs, the least {min(gpu_memory)} bytes; expected the free bytes of 1 "
            f"to {MOST_GPUS} GPUs, each above 0."
        )
    return _Machine({torch.device("cuda", index): Memory(size, size) for index, size in enumerate(gpu_memory)}, True)


def _fits(peak: PeakMemory, memory: Memory, shares: Sequence[DeviceShare]) -> bool:
    """Whether the peak is below what is free, on each device where there are several."""
    return all(share.fits for share in shares) if shares else peak.total <= memory.available


def _suggest(
    name: str,
    planner: Planner,
    work: Workload,
    dtype: torch.dtype,
    machine: _Machine,
    others: tuple[Checkpoint, ...],
) -> Iterator[Suggestion]:
    """Changes that save memory, what they cost the user rising, each on top of the ones before it, until one fits.

    Last comes another model of the family: the largest that fits, or the smallest where none does.
    """

    def suggestion(flags: list[str], planner: Planner, work: Workload, dtype: torch.dtype) -> Suggestion:
        peak, shares = machine.needs(planner, work, dtype)
        return Suggestion(" ".join(flags), peak.total, _fits(peak, machine.all, shares))

    flags: list[str] = []
    for flag, work, dtype in _savings(planner, work, dtype):  # noqa: B020 (each change builds on the one before)
        flags.append(flag)
        yield (best := suggestion(flags, planner, work, dtype))
        if best.fits:
            return
    if planner.quantization is None:
        for kind in ROUNDINGS:
            best = suggestion([*flags, f"--quantization {kind}"], planner.rounded(kind), work, dtype)
            yield best
            if best.fits:
                return
    # Of the same family: another one may not know these flags, or not do this task.
    family = planner.config.family
    alike = [other for other in others if load_config(other.folder).family == family]
    alike = [other for other in alike if _is_base(other.name) == _is_base(name)] or alike
    once = {load_config(other.folder): other for other in reversed(alike)}  # of those of the same sizes
    smaller = {other.name: Planner(other.folder, planner.quantization) for other in once.values()}
    sizes = {name: other.parameters().total for name, other in smaller.items()}
    last: Suggestion | None = None
    for other in sorted(sizes, key=lambda name: -sizes[name]):
        if sizes[other] < planner.parameters().total:
            last = suggestion([f"--model {other}", *flags], smaller[other], work, dtype)
            if last.fits:
                break
    if last is not None:
        yield last


def _is_base(name: str) -> bool:
    """Whether a checkpoint completes texts and does not chat, by its name."""
    return name.lower().endswith("-base")


def _savings(planner: Planner, work: Workload, dtype: torch.dtype) -> Iterator[tuple[str, Workload, torch.dtype]]:
    """Flags that save memory without another model, with what the run is after each and all before it: those that cost
    nothing, then time, then the last digits of numbers, then small print."""
    needed = planner.tokens(replace(work, context=None))
    if work.context is not None and needed < work.context:
        work = replace(work, context=needed)
        yield f"--context {needed}", work, dtype
    if max(work.batch, work.pictures) > 1:
        work = replace(work, batch=1, pictures=min(work.pictures, 1))
        yield f"--{'pictures' if work.pictures else 'batch'} 1", work, dtype
    if dtype.itemsize > torch.bfloat16.itemsize:
        dtype = torch.bfloat16
        yield "--dtype bfloat16", work, dtype
    if work.images and math.prod(planner.grid(work)) > 1:
        yield "--max-tiles 1", replace(work, max_tiles=1), dtype
