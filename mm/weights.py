"""Published checkpoints to models and back: key maps, strict streaming load, save in the published layout.

Loading is: the model on the meta device, a key map, one tensor at a time from safetensors (or ``weights_only``
pickles), ``assign``, strict. Names and shapes of every shard are compared with the model before weights are read.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mm.errors import ResourceError, WeightsError
from mm.shards import Shard, find_shards, open_shard, some, with_scales

# Names of numbers that are compared, not multiplied: half the digits would change what they decide. They are loaded and
# stored in float32 whatever the type of the rest.
FLOAT32_NAMES = ("e_score_correction_bias",)

# Types that weights are read from. Anything narrower is quantised and would need scales.
WEIGHT_TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)

# Told how far something is: what is done, and all there is to do.
Progress = Callable[[int, int], None]

# Where the parameter or buffer of this name goes.
Placement = Callable[[str], torch.device]


@dataclass(frozen=True)
class Rename:
    """Published names that start with ``published`` are the model's names that start with ``model``."""

    published: str
    model: str


@dataclass(frozen=True)
class Part:
    """In published names that start with ``below``, the text ``published`` is the model's ``model``."""

    below: str
    published: str
    model: str


@dataclass(frozen=True)
class Stack:
    """Published tensors that differ in one number are slices of one parameter of the model.

    Both patterns contain ``{prefix}``, any text, and may contain further ``{name}`` fields of word characters; the
    published one also has ``{index}``, the slice.
    """

    published: str
    model: str

    def model_name(self, name: str) -> tuple[str, int] | None:
        """The model's name and the slice of published ``name``, or None where it does not match."""
        found = _pattern(self.published).fullmatch(name)
        if found is None:
            return None
        fields = found.groupdict()
        index = int(fields.pop("index"))
        return self.model.format(**fields), index

    def published_name(self, name: str, index: int) -> str | None:
        """The published name of slice ``index`` of the model's ``name``, or None where it does not match."""
        found = _pattern(self.model).fullmatch(name)
        return None if found is None else self.published.format(**found.groupdict(), index=index)


def _pattern(template: str) -> re.Pattern[str]:
    kinds = {"prefix": ".*", "index": r"\d+"}
    parts = re.split(r"\{(\w+)\}", template)
    pattern = "".join(
        re.escape(part) if position % 2 == 0 else f"(?P<{part}>{kinds.get(part, r'[a-z_]+')})"
        for position, part in enumerate(parts)
    )
    return re.compile(pattern)


@dataclass(frozen=True)
class Dropped:
    """Published tensors that the model does not have, on purpose."""

    pattern: str  # regular expression of the whole published name
    reason: str


@dataclass(frozen=True)
class KeyMap:
    """Which published tensor is which parameter; reversible.

    Stacks are tried before parts, parts before renames; the first matching rename wins, names without a rule stay as
    they are.
    """

    renames: tuple[Rename, ...] = ()
    parts: tuple[Part, ...] = ()
    stacks: tuple[Stack, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    def is_dropped(self, published: str) -> bool:
        """Whether the tensor is written down as not part of the model."""
        return any(re.fullmatch(rule.pattern, published) for rule in self.dropped)

    def to_model(self, published: str) -> tuple[str, int | None]:
        """Published name -> the model's name and the slice of it (None: the whole parameter)."""
        index = None
        for stack in self.stacks:
            found = stack.model_name(published)
            if found is not None:
                published, index = found
                break
        for part in self.parts:
            if published.startswith(part.below):
                published = published.replace(part.published, part.model)
        for rule in self.renames:
            if published.startswith(rule.published):
                return rule.model + published.removeprefix(rule.published), index
        return published, index

    def to_published(self, model: str, count: int) -> list[tuple[str, int | None]]:
        """The model's name -> its published names, each with its slice.

        Args:
            model: name of a parameter.
            count: size of its first axis, used only where the parameter is a stack.
        """
        for rule in self.renames:
            if model.startswith(rule.model):
                model = rule.published + model.removeprefix(rule.model)
                break
        for part in self.parts:
            if model.startswith(part.below):
                model = model.replace(part.model, part.published)
        for stack in self.stacks:
            if stack.published_name(model, 0) is not None:
                return [(str(stack.published_name(model, index)), index) for index in range(count)]
        return [(model, None)]

    def published_shapes(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Published name -> shape of every tensor the model takes from a checkpoint."""
        shapes = {}
        for name, parameter in model.named_parameters():
            for published, index in self.to_published(name, parameter.shape[0]):
                shapes[published] = tuple(parameter.shape if index is None else parameter.shape[1:])
        return shapes


def load_weights(
    model: nn.Module,
    folder: Path,
    key_map: KeyMap,
    *,
    device: torch.device | Placement,
    dtype: torch.dtype,
    scale_block: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill a model that was built on the meta device from the weight files of ``folder``.

    Args:
        model: its parameters are replaced by loaded ones on ``device`` in ``dtype``.
        folder: a checkpoint folder in the published layout.
        key_map: of the model's family.
        device: where the parameters go, all or each; host memory holds about one tensor at a time.
        dtype: every tensor is cast to it, but for ``FLOAT32_NAMES``, which are float32.
        scale_block: rows and columns of a weight that share a scale, where config.json says that weights are in FP8.
        progress: called after each tensor with the numbers that are loaded and how many there are.

    Raises:
        WeightsError: missing, unexpected, misshapen, quantised or non-finite tensors; an unreadable or unsafe file.
    """
    place = (lambda name: device) if isinstance(device, torch.device) else device
    with ExitStack() as stack:
        readers = _open(folder, stack, scale_block)
        _check(key_map.published_shapes(model), readers, key_map, folder)
        parameters = dict(model.named_parameters())
        filled: dict[str, Tensor] = {}
        broken = []
        sizes = [math.prod(shape) for reader in readers for shape in reader.shapes.values()]
        loaded = 0
        for reader in readers:
            for name, shape in reader.shapes.items():
                loaded += math.prod(shape)
                if key_map.is_dropped(name):
                    continue
                target, index = key_map.to_model(name)
                tensor = reader.read(name)
                if tensor.dtype not in WEIGHT_TYPES:
                    raise WeightsError(
                        f"{name} in {reader.path} is stored as {str(tensor.dtype).removeprefix('torch.')}; expected "
                        f"{', '.join(str(kind).removeprefix('torch.') for kind in WEIGHT_TYPES)}. Quantised numbers "
                        "mean nothing without their scales: use the checkpoint that is not quantised."
                    )
                apart = name.endswith(FLOAT32_NAMES)  # a copy: what stays in the mapped file keeps all of it mapped
                tensor = tensor.to(device=place(target), dtype=torch.float32 if apart else dtype, copy=apart)
                if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
                    broken.append(name)
                if index is None:
                    filled[target] = tensor.contiguous()
                else:
                    if target not in filled:
                        filled[target] = torch.empty(parameters[target].shape, device=place(target), dtype=dtype)
                    filled[target][index] = tensor
                if progress is not None:
                    progress(loaded, sum(sizes))
        if broken:
            raise WeightsError(
                f"{folder} holds NaN or infinite numbers in {some(broken)} (read as {dtype}). The file is damaged, or "
                "its numbers do not fit this type: download it again or choose another --dtype."
            )
    model.load_state_dict(filled, strict=True, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameters[name].requires_grad)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    for name in left:  # buffers are in no checkpoint: counters and tables, which start empty
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        module.register_buffer(leaf, torch.zeros_like(module.get_buffer(leaf), device=place(name)), persistent=False)


def _open(folder: Path, stack: ExitStack, scale_block: tuple[int, int] | None) -> list[Shard]:
    shards = [open_shard(path, stack) for path in find_shards(folder)]
    return shards if scale_block is None else with_scales(shards, scale_block, folder)


def _check(expected: dict[str, tuple[int, ...]], shards: Sequence[Shard], key_map: KeyMap, folder: Path) -> None:
    """Compare names and shapes with the model; one error lists everything that is wrong."""
    found: dict[str, tuple[int, ...]] = {}
    problems = []
    for shard in shards:
        for name, shape in shard.shapes.items():
            if name in found:
                problems.append(f"{name} is in more than one file (again in {shard.path.name})")
            found[name] = shape
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(name for name in found.keys() - expected.keys() if not key_map.is_dropped(name))
    misshapen = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    if missing:
        problems.append(f"{len(missing)} missing: {some(missing)}")
    if extra:
        problems.append(f"{len(extra)} unexpected: {some(extra)}")
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape: {some(misshapen)}")
    if problems:
        raise WeightsError(
            f"the weights in {folder} do not fit its config.json: {'; '.join(problems)}. "
            "The download is incomplete, or config and weights are of different models."
        )


def save_weights(
    model: nn.Module,
    folder: Path,
    key_map: KeyMap,
    *,
    dtype: torch.dtype,
    max_shard_bytes: int,
    source: Path | None,
    scale_block: tuple[int, int] | None = None,
) -> None:
    """Write the model's tensors under their published names as safetensors shards with an index.

    Args:
        model: on any device.
        folder: an existing folder.
        key_map: of the model's family.
        dtype: type on disk, but for ``FLOAT32_NAMES``.
        max_shard_bytes: a shard ends before it grows over this (a single larger tensor gets a shard of its own).
        source: a checkpoint whose dropped tensors are copied along, so that strict loaders of other engines accept the
            result; None writes the model's tensors only.
        scale_block: of the source, as in ``load_weights``. What is written has no FP8 weights.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; what was written is removed.
        WeightsError: the model holds numbers that are no published tensors, as quantised weights are.
    """
    others = sorted(model.state_dict().keys() - dict(model.named_parameters()).keys())
    if others:
        raise WeightsError(
            f"{some(others)} cannot be written in the published layout: codes and scales of quantised weights. What "
            "was rounded is lost: load the model without quantization and save that."
        )
    with ExitStack() as stack:
        tensors = _tensors_to_save(model, key_map, dtype)
        if source is not None:
            tensors |= _dropped_to_save(_open(source, stack, scale_block), key_map, dtype)
        plan = _plan_shards(tensors, max_shard_bytes)
        written: list[Path] = []
        try:
            weight_map = {}
            for number, names in enumerate(plan, start=1):
                path = folder / f"model-{number:05}-of-{len(plan):05}.safetensors"
                written.append(path)
                path.touch()  # with the permissions that new files have here; the library would make it private
                mode = path.stat().st_mode
                save_file({name: tensors[name].read() for name in names}, path, metadata={"format": "pt"})
                path.chmod(mode)
                weight_map.update(dict.fromkeys(names, path.name))
            index = {
                "metadata": {"total_size": sum(tensor.num_bytes for tensor in tensors.values())},
                "weight_map": dict(sorted(weight_map.items())),
            }
            written.append(folder / "model.safetensors.index.json")
            written[-1].write_text(json.dumps(index, indent=2) + "\n")
        except (OSError, SafetensorError) as error:
            for path in written:
                path.unlink(missing_ok=True)
            free = shutil.disk_usage(folder).free if folder.is_dir() else 0
            raise ResourceError(
                f"cannot write the weights to {folder} ({error}); {free:,} bytes are free there. "
                "No weight file was left behind: free some space or choose another folder."
            ) from error


@dataclass(frozen=True)
class _Pending:
    """A tensor that is read when its shard is written."""

    num_bytes: int
    read: Callable[[], Tensor]


def _tensors_to_save(model: nn.Module, key_map: KeyMap, dtype: torch.dtype) -> dict[str, _Pending]:
    def pending(name: str, tensor: Tensor) -> _Pending:
        kind = torch.float32 if name.endswith(FLOAT32_NAMES) else dtype
        return _Pending(
            tensor.numel() * kind.itemsize, lambda: tensor.to(device="cpu", dtype=kind, copy=True).contiguous()
        )

    tensors = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        for published, index in key_map.to_published(name, parameter.shape[0]):
            tensors[published] = pending(published, values if index is None else values[index])
    return tensors


def _dropped_to_save(shards: Sequence[Shard], key_map: KeyMap, dtype: torch.dtype) -> dict[str, _Pending]:
    def pending(shard: Shard, name: str) -> _Pending:
        kind = torch.float32 if name.endswith(FLOAT32_NAMES) else dtype

        def read() -> Tensor:
            tensor = shard.read(name)
            return (tensor.to(kind) if tensor.is_floating_point() else tensor).contiguous()

        return _Pending(math.prod(shard.shapes[name]) * kind.itemsize, read)

    return {name: pending(shard, name) for shard in shards for name in shard.shapes if key_map.is_dropped(name)}


def _plan_shards(tensors: dict[str, _Pending], max_bytes: int) -> list[list[str]]:
    plan: list[list[str]] = [[]]
    used = 0
    for name in sorted(tensors):
        size = tensors[name].num_bytes
        if plan[-1] and used + size > max_bytes:
            plan.append([])
            used = 0
        plan[-1].append(name)
        used += size
    return plan
