"""What is compared in a recorded case of DeepSeek-VL2's preprocessing: bytes, sizes and layouts, all of them exact."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm.adaptors.tile_layout import image_layout, layout
from mm.errors import InputError
from mm.evaluation.compare import Row, compare_values, judge, unknown
from mm.evaluation.recording import Recording, tensor_sha256
from mm.images import open_image
from mm.processing import tiling
from mm.processing.vl2 import VL2Processor

_KNOWN = {"family", "versions", "pad_color", "image_token_id", "images", "size_table", "layouts", "cases", "tensors"}


def verify_vl2_processor(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``vl2_processor`` case; nothing runs on a device.

    Raises:
        CheckpointError: the processor of the case cannot be loaded.
        InputError: the recording is not of the recorded form.
    """
    processor = VL2Processor.from_folder(recording.folder / "processor")
    facts = recording.facts
    if "pad_color" in facts:
        yield compare_values("processor", "pad_color", facts["pad_color"], list(processor.spec.pad_color))
    if "image_token_id" in facts:
        yield compare_values("processor", "image_token_id", facts["image_token_id"], processor.image_id)
    yield from _byte_rows(recording, processor)
    for name, record in _objects(recording, "images").items():
        progress(name)
        yield from _image_rows(recording, processor, name, record)
    yield from _size_rows(recording, processor)
    yield from _layout_rows(recording, processor)
    for field in sorted(set(facts) - _KNOWN):
        yield unknown("processor", field, "")


def _objects(recording: Recording, key: str) -> dict[str, Any]:
    value = recording.facts.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(record, dict) for record in value.values()):
        raise InputError(f"{recording.folder / 'cases.json'}: {key!r} is not an object of objects")
    return value


def _table(recording: Recording, key: str) -> list[dict[str, Any]]:
    value = recording.facts.get(key, [])
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise InputError(f"{recording.folder / 'cases.json'}: {key!r} is not a list of objects")
    return value


def _byte_rows(recording: Recording, processor: VL2Processor) -> Iterator[Row]:
    """The float that every byte value becomes, in each channel."""
    recorded = recording.plain("byte_to_float")
    if recorded is None:
        return
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=3)  # (1, 1, 256, 3)
    ours = processor.normalize(grey)[0, :, 0]  # (3, 256)
    wrong = float((ours != recorded).sum()) if ours.shape == recorded.shape else None
    yield judge("processor", "byte_to_float", tensor_sha256(recorded)[:8], tensor_sha256(ours)[:8], wrong, 0.0)


def _image_rows(recording: Recording, processor: VL2Processor, name: str, record: Mapping[str, Any]) -> Iterator[Row]:
    image = open_image(recording.image(name), official=True)
    if "source_size_wh" in record:
        yield compare_values(name, "source_size_wh", record["source_size_wh"], list(image.size))
    if "rgb_sha256" in record:
        yield _digest_row(name, "rgb", record["rgb_sha256"], np.asarray(image))
    for mode, tiled in (("cropping", True), ("no_cropping", False)):
        expected = record.get(mode)
        if not isinstance(expected, dict):
            continue
        views, grid = processor.views(image, tiling=tiled)
        pixels = processor.normalize(views)
        ours: dict[str, object] = {
            "images_spatial_crop": list(grid),
            "n_tiles_total": len(views),
            "n_image_tokens": tiling.num_tokens(grid, processor.side),
            "tile_uint8_hwc_sha256": [_digest(view) for view in views],
            "tile_float32_sha256": [tensor_sha256(view) for view in pixels],
        }
        for field, value in ours.items():
            if field in expected:
                yield compare_values(name, f"{mode}.{field}", expected[field], value)
        if tiled:
            yield from _canvas_rows(recording, name, record, views, grid)


def _canvas_rows(
    recording: Recording, name: str, record: Mapping[str, Any], views: np.ndarray, grid: tuple[int, int]
) -> Iterator[Row]:
    """The padded canvases: the global view, and the tiles put together again."""
    across, down = grid
    side = views.shape[1]
    tiles = views[1:].reshape(down, across, side, side, 3).swapaxes(1, 2)  # (down, S, across, S, 3)
    canvas = np.ascontiguousarray(tiles.reshape(down * side, across * side, 3))
    if "local_uint8_hwc_sha256" in record:
        yield _digest_row(name, "local_uint8_hwc", record["local_uint8_hwc_sha256"], canvas)
    for field, ours in (("global_png", views[0]), ("local_png", canvas)):
        if isinstance(record.get(field), str):
            yield _digest_row(name, field, _digest(_png(recording.inside(record[field]))), ours)


def _size_rows(recording: Recording, processor: VL2Processor) -> Iterator[Row]:
    spec = processor.spec
    for record in _table(recording, "size_table"):
        size = (recording.need(record, "w", int), recording.need(record, "h", int))
        best = tiling.choose_resolution(size, spec.candidate_resolutions)
        grid = (best[0] // spec.image_size, best[1] // spec.image_size)
        ours = {
            "best_width": best[0],
            "best_height": best[1],
            "num_width_tiles": grid[0],
            "num_height_tiles": grid[1],
            "n_tiles_incl_global": 1 + grid[0] * grid[1],
            "n_image_tokens": processor.num_image_tokens(*size),
            "layout": _spell_layout(processor.side, *grid),
        }
        wrong = [key for key, value in ours.items() if key in record and record[key] != value]
        yield judge(
            f"{size[0]}x{size[1]}",
            "size_table",
            str(record.get("layout")),
            str(ours["layout"]),
            float(len(wrong)),
            0.0,
            ", ".join(wrong),
        )


def _layout_rows(recording: Recording, processor: VL2Processor) -> Iterator[Row]:
    """Which feature stands at each image position, from the model's own layout code."""
    for record in _table(recording, "layouts"):
        key, grids = (
            recording.need(record, "key", str),
            torch.tensor(recording.need(record, "images_spatial_crop", list)),
        )
        recorded = recording.plain(key)
        if recorded is None:
            raise InputError(
                f"{recording.folder}: tensor {key} is described but not stored. Copy the case folder again"
            )
        ours = _named_positions(layout(processor.side, grids), processor.side, grids)
        wrong = float((ours != recorded).sum()) if ours.shape == recorded.shape else None
        shown = f"{len(recorded)} tokens", f"{len(ours)} tokens"
        yield judge(key, "layout", *shown, wrong, 0.0)


def _named_positions(indices: Tensor, side: int, grids: Tensor) -> Tensor:
    """Feature indices -> (T, 2) (view, place in it); (-1, -1) newline, (-2, -2) separator."""
    area = side * side
    newline = area * int((1 + grids.prod(dim=1)).sum())
    named = torch.stack((indices // area, indices % area), dim=1)
    named[indices == newline] = -1
    named[indices == newline + 1] = -2
    return named


def _spell_layout(side: int, across: int, down: int) -> str:
    """The recorded notation: g/l a token of the global view/the tiles, n newline, s separator, runs folded."""
    area = side * side
    last = area * (1 + across * down)
    indices = image_layout(side, across, down, first=0, newline=last, separator=last + 1).tolist()
    letters = "".join("n" if i == last else "s" if i > last else "g" if i < area else "l" for i in indices)
    parts = []
    for part in letters.split("s"):
        rows = [f"({len(row)}{row[0]} n)" for row in part.split("n")[:-1]]
        parts.append(" ".join(f"{row}x{len(list(group))}" for row, group in groupby(rows)))
    return " | s | ".join(parts)


def _png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _digest_row(case: str, field: str, recorded: str, ours: np.ndarray) -> Row:
    mine = _digest(ours)
    return judge(case, field, str(recorded)[:8], mine[:8], float(mine != recorded), 0.0)
