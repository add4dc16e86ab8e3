"""Folders in the published layout, read and changed by tests."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm.families.table import load_model
from mm.model import VisionLanguageModel

Tensors = dict[str, Tensor]


def load(folder: Path) -> VisionLanguageModel:
    """The model in float32 on the CPU."""
    return load_model(folder, device="cpu", dtype="float32")


def published(folder: Path) -> Tensors:
    """The tensors of all weight files."""
    tensors: Tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(shard)
    for shard in sorted(folder.glob("*.bin")):
        tensors |= torch.load(shard, weights_only=True)
    return tensors


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Changed weights, as one safetensors file."""
    tensors = change(published(folder))
    for pattern in ("*.safetensors", "*.bin", "*.index.json"):
        for path in folder.glob(pattern):
            path.unlink()
    save_file(tensors, folder / "model.safetensors")


def change_json(path: Path, **values: object) -> None:
    """Some keys of a file with others than were there."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def check_key_map(key_map: object, model: VisionLanguageModel, names: set[str]) -> set[str]:
    """Every published name leads to a parameter and back; the names that are dropped are returned."""
    from mm.weights import KeyMap

    assert isinstance(key_map, KeyMap)
    kept = {name for name in names if not key_map.is_dropped(name)}
    parameters = dict(model.named_parameters())
    for name in kept:
        target, index = key_map.to_model(name)
        assert index is None and key_map.to_published(target, len(parameters[target])) == [(name, None)]
    assert set(key_map.published_shapes(model)) == kept
    return names - kept
