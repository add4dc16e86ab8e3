"""The weight files of a folder: which they are, what is in them, and FP8 weights with the scales that belong to them.

Pickles are read as tensors only. Nothing here knows a model: names and shapes are the published ones.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mm.errors import WeightsError

# How many names an error lists before it only counts.
LISTED = 8

# DeepSeek-V3's files (arXiv 2412.19437, section 3.3): the scale of X.weight is X.weight_scale_inv, a number a block.
SCALE_SUFFIX = "_scale_inv"
FP8 = torch.float8_e4m3fn
_FP8_NAME = "F8_E4M3"  # in safetensors


def find_shards(folder: Path) -> list[Path]:
    """The weight files of a folder, safetensors before .bin: those an index names, else the file with the usual name,
    else every file of that kind.

    Raises:
        WeightsError: no weights, an unreadable index, an index that names a file elsewhere or an absent one.
    """
    indices = []
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        shards = sorted(folder.glob(f"*{Path(name).suffix}"))
        if index.is_file():
            if shards:
                return _indexed_shards(index)
            indices.append(index)  # a repository may publish both kinds, and only one of them be here
        elif folder / name in shards:
            return [folder / name]
        elif shards:
            return shards
    if indices:
        return _indexed_shards(indices[0])
    raise WeightsError(f"{folder} holds no weights: expected *.safetensors or *.bin files.")


def _indexed_shards(index: Path) -> list[Path]:
    folder = index.parent
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is not a weight index ({error}). Download it again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{index} names the file {name!r}, which is not a plain file name in its folder.")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise WeightsError(
            f"{index} names {some(absent)}, which {'is' if len(absent) == 1 else 'are'} not in {folder}. "
            "Download the missing files."
        )
    return [folder / name for name in names]


def weight_file_bytes(folder: Path) -> int:
    """Bytes of the weight files that are in the folder, 0 when there are none."""
    return sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of all tensors in the weight files of a folder; no tensor is read.

    Raises:
        WeightsError: no weights, or an unreadable file.
    """
    with ExitStack() as stack:
        shards = [open_shard(path, stack) for path in find_shards(folder)]
        return {name: shape for shard in shards for name, shape in shard.shapes.items()}


@dataclass(frozen=True)
class Shard:
    """One weight file, open.

    Attributes:
        path: of the file.
        shapes: of its tensors by name.
        quantised: names of tensors that are stored in FP8.
        read: a tensor by name, on the CPU.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    quantised: frozenset[str]
    read: Callable[[str], Tensor]


def open_shard(path: Path, stack: ExitStack) -> Shard:
    """A weight file, closed with ``stack``.

    Raises:
        WeightsError: an unreadable or unsafe file.
    """
    if path.suffix == ".bin":
        return _open_pickle(path)
    try:
        path.open("rb").close()  # safetensors says of a file that may not be read that there is none
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}. Check its permissions.") from error
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
        quantised = frozenset(name for name, tensor in slices.items() if tensor.get_dtype() == _FP8_NAME)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}). Download it again.") from error
    return Shard(path, shapes, quantised, file.get_tensor)


def _open_pickle(path: Path) -> Shard:
    try:
        # Files in torch's old format, before 1.6, are no zip archives and cannot be mapped.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except PermissionError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}. Check its permissions.") from error
    except Exception as error:  # torch raises RuntimeError, UnpicklingError and more, and advises to run the code
        raise WeightsError(
            f"{path} cannot be read as tensors only: it is damaged, or it holds something else. Pickles that hold "
            "anything else are refused because they can run code: download the file again, or ask its author for "
            "safetensors."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(
            f"{path} is no dictionary of tensors, so it is not a model's state dict. Expected names and tensors: ask "
            "its author for safetensors."
        )
    quantised = frozenset(name for name, value in tensors.items() if value.dtype == FP8)
    return Shard(path, {name: tuple(value.shape) for name, value in tensors.items()}, quantised, tensors.__getitem__)


def with_scales(shards: Sequence[Shard], block: tuple[int, int], folder: Path) -> list[Shard]:
    """The shards as if they held float32: FP8 weights are multiplied by their scales as they are read, and the scales
    are no tensors of their own. A scale may be in another file than its weight.

    Args:
        shards: all weight files of a folder.
        block: rows and columns of a weight that share a scale.
        folder: for the messages.

    Raises:
        WeightsError: a weight without its scales, scales without an FP8 weight, or scales of another shape.
    """
    owners = {name: shard for shard in shards for name in shard.shapes}
    quantised = {name for shard in shards for name in shard.quantised}
    scales = {name for name in owners if name.endswith(SCALE_SUFFIX)}
    bare = sorted(name for name in quantised if name + SCALE_SUFFIX not in scales)
    if bare:
        raise WeightsError(
            f"{folder} holds {len(bare)} FP8 weights without their scales ({some(bare)}): no file has "
            f"{bare[0]}{SCALE_SUFFIX}. FP8 numbers mean nothing without them: download the missing files, or use a "
            "checkpoint in bfloat16."
        )
    idle = sorted(name for name in scales if name.removesuffix(SCALE_SUFFIX) not in quantised)
    if idle:
        raise WeightsError(
            f"{folder} holds {len(idle)} scales whose weights are not in FP8 ({some(idle)}). The files are of "
            "different checkpoints: download the folder again."
        )
    for name in sorted(quantised):
        shape = owners[name].shapes[name]
        found = owners[name + SCALE_SUFFIX].shapes[name + SCALE_SUFFIX]
        expected = tuple(-(-side // size) for side, size in zip(shape, block, strict=True)) if len(shape) == 2 else None
        if found != expected:
            raise WeightsError(
                f"{name}{SCALE_SUFFIX} in {folder} is {list(found)}, but its weight is {list(shape)} and config.json "
                f"says weight_block_size {list(block)}. The files are of different checkpoints: download the folder "
                "again."
            )

    def reader(shard: Shard) -> Callable[[str], Tensor]:
        def read(name: str) -> Tensor:
            if name not in shard.quantised:
                return shard.read(name)
            scale = owners[name + SCALE_SUFFIX].read(name + SCALE_SUFFIX)
            return dequantised(shard.read(name), scale, block)

        return read

    return [
        replace(
            shard,
            shapes={name: shape for name, shape in shard.shapes.items() if name not in scales},
            quantised=frozenset(),
            read=reader(shard),
        )
        for shard in shards
    ]


def dequantised(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """(R, C) FP8 times (ceil(R / r), ceil(C / c)) scales of blocks (r, c) -> (R, C) float32."""
    rows, columns = weight.shape
    spread = scale.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return weight.float() * spread


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"
