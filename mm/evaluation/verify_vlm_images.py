"""What is compared in a recorded case of the image processor of DeepSeek-VL and Janus: bytes and floats, all exact."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from mm.errors import InputError
from mm.evaluation.compare import Row, compare_values, judge, unknown
from mm.evaluation.recording import Recording, tensor_sha256
from mm.images import open_image
from mm.processing.base import as_colour
from mm.processing.square import SquareImages

_SETTINGS = ("background_color", "do_normalize", "image_mean", "image_size", "image_std", "min_size", "rescale_factor")
_KNOWN = {*_SETTINGS, "images", "sizes"}
_REMARKS = {"source_mode", "exif_orientation", "sample_stride_hw"}


def verify_vlm_images(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``vlm_image_processor`` case; nothing runs on a device.

    Raises:
        InputError: the recording is not of the recorded form.
    """
    for name, config in recording.need(recording.facts, "configs", dict).items():
        progress(name)
        squares = _squares(recording, config)
        recorded = recording.plain(f"{name}/byte_to_float")
        if recorded is not None:
            grey = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=3)  # (1, 1, 256, 3)
            yield _equal(name, "byte_to_float", recorded, squares.normalize(grey)[0, :, 0])
        for file, record in recording.need(config, "images", dict).items():
            yield from _picture_rows(recording, f"{name}/{file}", record, squares, file)
        for record in recording.need(config, "sizes", list):
            size = (recording.need(record, "w", int), recording.need(record, "h", int))
            (width, height), (left, top) = squares.place(*size)
            ours = {"content_x0": left, "content_y0": top, "content_w": width, "content_h": height}
            theirs = {key: record.get(key) for key in ours}
            yield compare_values(f"{name}/{size[0]}x{size[1]}", "sizes", theirs, ours)
        for field in sorted(set(config) - _KNOWN):
            yield unknown(name, field, "")


def _squares(recording: Recording, config: Any) -> SquareImages:
    missing = [key for key in _SETTINGS if not isinstance(config, dict) or key not in config]
    if missing:
        raise InputError(f"{recording.folder / 'cases.json'}: a config lacks {', '.join(missing)}")
    red, green, blue = config["background_color"]
    mean_std = as_colour(config["image_mean"]), as_colour(config["image_std"])
    return SquareImages(
        size=config["image_size"],
        min_size=config["min_size"],
        background=(red, green, blue),
        rescale_factor=config["rescale_factor"],
        mean_std=mean_std if config["do_normalize"] else None,
    )


def _picture_rows(
    recording: Recording, name: str, record: Mapping[str, Any], squares: SquareImages, file: str
) -> Iterator[Row]:
    image = open_image(recording.image(file), official=True)
    view = squares.view(image)
    floats = squares.normalize(view[None])[0]  # (3, S, S)
    ours: dict[str, object] = {
        "source_size_wh": list(image.size),
        "rgb_sha256": _digest(np.asarray(image)),
        "uint8_hwc_sha256": _digest(view),
        "uint8_sha256_chw": _digest(view.transpose(2, 0, 1)),
        "float32_sha256_chw": tensor_sha256(floats),
    }
    for field, value in ours.items():
        if field in record:
            yield compare_values(name, field, record[field], value)
    if record.get("png") is not None:
        path = recording.inside(recording.need(record, "png", str))
        yield compare_values(name, "png", _digest(np.asarray(open_image(path, official=True))), _digest(view))
    samples = recording.plain(f"{name}/float_sample")
    if samples is not None:
        down, across = recording.need(record, "sample_stride_hw", list)
        yield _equal(name, "float_sample", samples, floats[:, ::down, ::across])
    for field in sorted(set(record) - ours.keys() - {"png"} - _REMARKS):
        yield unknown(name, field, "")


def _equal(case: str, field: str, recorded: Tensor, ours: Tensor) -> Row:
    wrong = float((ours != recorded).sum()) if ours.shape == recorded.shape else None
    return judge(case, field, tensor_sha256(recorded)[:8], tensor_sha256(ours)[:8], wrong, 0.0)


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
