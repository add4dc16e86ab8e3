"""What a model goes through while it is loaded, before it answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mm.config import Quantization
from mm.devices import resolve_dtype
from mm.environment import device_memory
from mm.errors import ResourceError
from mm.families.family import FamilyConfig
from mm.families.table import load_config, load_model
from mm.language.decoder import Decoder
from mm.model import VisionLanguageModel
from mm.transforms.compile import compile_encoder
from mm.transforms.fuse import fuse
from mm.transforms.kernels import use_kernels
from mm.transforms.quantize import check_quantization, is_to_be_rounded, quantize_layer
from mm.transforms.split import (
    GIB,
    WEIGHT_SHARE,
    DeviceMap,
    PartSizes,
    automatic_map,
    explicit_map,
    part_sizes,
    visible_gpus,
)
from mm.transforms.towers import use_tower_kernels
from mm.transforms.wide import use_wide_products
from mm.weights import Progress


def load_prepared(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    places: DeviceMap | None = None,
    optimize: bool = True,
    quantization: Quantization | None = None,
    compile: bool = False,
    progress: Progress | None = None,
) -> VisionLanguageModel:
    """Load a model for use. See ``Pipeline.from_pretrained`` for the options.

    Quantised weights are read as they are, layer by layer, into main memory first where they would not fit the device
    (or devices) before they are rounded.

    Args:
        folder: of the checkpoint.
        device: where all of it goes.
        dtype: of its weights, or of those that are not quantised.
        places: where its parts go instead.
        optimize: see ``prepare``.
        quantization: likewise.
        compile: compile the encoder.
        progress: see ``mm.weights.load_weights``.

    Raises:
        CheckpointError: the folder is not a complete checkpoint of a known family.
        OptionError: a device lacks the type of the quantisation.
    """
    for each in (device,) if places is None else places.devices:
        check_quantization(quantization, each)
    placement = places
    config = load_config(folder)
    waits = False
    if quantization is not None and any(each.type == "cuda" for each in (places.devices if places else (device,))):
        num_layers = config.decoder.num_layers
        final = places or DeviceMap(device, (device,) * num_layers, device)
        waits = not fits(part_sizes(config, dtype), final)
        if waits:
            placement = DeviceMap(final.first, (torch.device("cpu"),) * num_layers, final.last)
            places = final
    model = load_model(folder, device=device, dtype=dtype, progress=progress, placement=placement)
    prepare(
        model.decoder,
        optimize=optimize,
        quantization=quantization,
        layers=places.layers if places is not None and waits else None,
    )
    if optimize:
        use_tower_kernels(model)
    if compile:
        compile_encoder(model.vision)
    if optimize and device.type == "cpu" and dtype == torch.float32:
        use_wide_products(model)
    return model


def prepare(
    decoder: Decoder,
    *,
    optimize: bool = True,
    quantization: Quantization | None = None,
    layers: Sequence[torch.device] | None = None,
) -> str | None:
    """Fuse a loaded decoder, round its weights where it is asked for, and on CUDA run its steps with kernels.

    One layer is done with before the next one begins, so that one at a time is in memory twice.

    Args:
        decoder: loaded, with merged LoRA weights.
        optimize: False neither fuses nor uses kernels.
        quantization: see ``mm.transforms.quantize``.
        layers: where each layer goes before it is rounded; None leaves them where they are.

    Returns:
        Why it runs without kernels; None where it has them.
    """
    rounds = is_to_be_rounded(decoder, quantization)
    for index, layer in enumerate(decoder.model.layers):
        if layers is not None:
            layer.to(layers[index])
        if optimize:
            fuse(layer)
        if rounds and quantization is not None:
            quantize_layer(layer, quantization)
    if rounds:
        decoder.quantization = quantization
    if layers is not None:
        decoder.read_placement()
    if torch.cuda.is_available() and decoder.lm_head.weight.device.type == "cuda":
        # What the separate weights took: torch would keep it, and who asks how much is free would miss it.
        torch.cuda.empty_cache()
    return use_kernels(decoder) if optimize else "they were not asked for"


def fits(sizes: PartSizes, places: DeviceMap) -> bool:
    """Whether the weights fit the free memory of their devices."""
    needed: dict[torch.device, int] = {}
    devices = (places.first, *places.layers, places.last)
    for device, size in zip(devices, (sizes.first, *sizes.layers, sizes.last), strict=True):
        needed[device] = needed.get(device, 0) + size
    return all(size <= WEIGHT_SHARE * device_memory(str(device)).available for device, size in needed.items())


def resolve_device_map(
    value: str | Mapping[str, str | int | torch.device],
    folder: Path,
    *,
    name: str,
    dtype: str | torch.dtype,
    quantization: Quantization | None = None,
) -> DeviceMap:
    """Where the parts of a model go.

    Args:
        value: "auto" spreads the layers over the visible GPUs by their free memory; or see ``explicit_map``.
        folder: of the checkpoint.
        name: of the model, for messages.
        dtype: of its weights, as ``Pipeline.from_pretrained`` takes it.
        quantization: of its layers.

    Raises:
        OptionError: no GPU, or no map of this model.
        ResourceError: it does not fit all GPUs together; the message says what would.
    """
    config = load_config(folder)
    if not isinstance(value, str):
        return explicit_map(value, config.decoder.num_layers)
    free = {gpu: device_memory(str(gpu)).available for gpu in visible_gpus()}
    number = resolve_dtype(dtype, next(iter(free)))
    return fitting_map(config, free, name=name, dtype=number, quantization=quantization)


def fitting_map(
    config: FamilyConfig,
    free: Mapping[torch.device, int],
    *,
    name: str,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
) -> DeviceMap:
    """``automatic_map`` of a model, whose error says what would fit.

    Raises:
        ResourceError: it does not fit.
    """
    sizes = part_sizes(config, dtype, quantization)
    try:
        return automatic_map(sizes, free, name=name)
    except ResourceError as error:
        if dtype.itemsize > 2:
            others: list[tuple[torch.dtype, Quantization | None]] = [(torch.bfloat16, quantization)]
        else:
            others = []
        for other, kind in [*others, (torch.bfloat16, "int8"), (torch.bfloat16, "int4")]:
            smaller = part_sizes(config, other, kind)
            if _has_map(smaller, free):
                flags = [f"dtype={str(other).removeprefix('torch.')!r}"] * (other != dtype)
                flags += [f"quantization={kind!r}"] * (kind != quantization)
                raise ResourceError(
                    f"{error} What would fit: {', '.join(flags)} ({smaller.total / GIB:.1f} GiB)."
                ) from None
        raise ResourceError(f"{error} Free some memory, add GPUs, or use a smaller model.") from None


def _has_map(sizes: PartSizes, free: Mapping[torch.device, int]) -> bool:
    try:
        automatic_map(sizes, free)
    except ResourceError:
        return False
    return True
