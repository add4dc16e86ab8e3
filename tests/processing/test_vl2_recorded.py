"""VL2Processor against every recorded preprocessing result: equal to the bit."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mm.chat import parse_messages
from mm.contracts import Inputs
from mm.images import open_image
from mm.processing import tiling
from mm.processing.vl2 import VL2Processor
from mm.processing.vl2_spec import VL2Spec

CASES = (
    "deepseek_vl2_tiny",
    "deepseek_vl2_small",
    "deepseek_vl2_base",
    "deepseek_vl2_groups_yarn",
    "deepseek_vl2_grouplimited_softmax",
)

Golden = Callable[[str], Path]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def with_paths(conversation: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    return [
        {**message, "images": [folder / "images" / name for name in message["images"]]}
        if "images" in message
        else message
        for message in conversation
    ]


def run(processor: VL2Processor, case: dict[str, Any], folder: Path) -> Inputs:
    conversation = with_paths(case["conversation"], folder)
    if case.get("prompt_mode"):
        return processor.process_prompt(
            case["raw_prompt"],
            conversation[0]["images"],
            apply_template=case.get("apply_sft_format", False),
            official_images=True,
        )
    return processor.process(parse_messages(conversation), official_images=True)


@pytest.mark.parametrize("name", CASES)
def test_conversations(name: str, golden: Golden) -> None:
    folder = golden(name)
    processor = VL2Processor.from_folder(folder / "checkpoint")
    record = json.loads((folder / "cases.json").read_text())
    tensors = load_file(folder / "cases.safetensors")
    assert processor.image_id == record["image_token_id"]
    assert processor.tokenizer.vocab_size == record["tokenizer_length"]
    for token in ("bos", "eos"):
        assert getattr(processor.tokenizer, f"{token}_id") == record[f"{token}_token_id"]
    assert processor.tokenizer.pad_id == record["pad_id"]
    assert list(processor.spec.pad_color) == record["pad_color"]
    for token, index in record["special_token_ids"].items():
        if index is not None:
            assert processor.tokenizer.token_id(token) == index
    for case in record["cases"]:
        if case.get("batch"):
            continue
        key = case["id"]
        inputs = run(processor, case, folder)
        assert inputs.prompt == case["prompt"], key
        assert inputs.num_tokens == case["n_tokens"], key
        assert torch.equal(inputs.input_ids, tensors[f"{key}/input_ids"][0]), key
        assert torch.equal(inputs.image_mask, tensors[f"{key}/images_seq_mask"][0].bool()), key
        assert inputs.labels is not None
        assert torch.equal(inputs.labels, tensors[f"{key}/labels"][0]), key
        grids = [grid for grid in case["images_spatial_crop"] if grid != [0, 0]]  # text only is recorded as one [0, 0]
        assert inputs.tile_grids.tolist() == grids, key
        assert [[span.width, span.height] for span in inputs.spans] == case["image_sizes"], key
        assert inputs.pixels.shape[0] == case["n_tiles"], key
        assert inputs.pixels.dtype == torch.float32
        if case["n_tiles"]:
            stored = record["tensors"][f"{key}/images"]
            assert [sha256(view.numpy()) for view in inputs.pixels] == stored["tile_sha256"], key
            assert sha256(inputs.pixels.numpy()) == stored["sha256"], key


@pytest.mark.parametrize("name", CASES[:2])
def test_left_padded_batch(name: str, golden: Golden) -> None:
    folder = golden(name)
    processor = VL2Processor.from_folder(folder / "checkpoint")
    record = json.loads((folder / "cases.json").read_text())
    tensors = load_file(folder / "cases.safetensors")
    [case] = [case for case in record["cases"] if case.get("batch")]
    rows = [
        processor.process(parse_messages(with_paths(conversation, folder)), official_images=True)
        for conversation in case["conversations"]
    ]
    batch = processor.collate(rows)
    assert [row.prompt for row in rows] == case["prompts"]
    assert torch.equal(batch.input_ids, tensors["batch_left_pad/input_ids"])
    assert torch.equal(batch.attention_mask, tensors["batch_left_pad/attention_mask"].bool())
    assert torch.equal(batch.image_mask, tensors["batch_left_pad/images_seq_mask"].bool())
    assert batch.labels is not None
    assert torch.equal(batch.labels, tensors["batch_left_pad/labels"])


def test_images(golden: Golden) -> None:
    folder = golden("preprocess_vl2")
    processor = VL2Processor.from_folder(folder / "processor")
    record = json.loads((folder / "cases.json").read_text())
    for name, facts in record["images"].items():
        image = open_image(folder / "images" / name, official=True)
        assert sha256(np.asarray(image)) == facts["rgb_sha256"], name
        for mode, tiled in (("cropping", True), ("no_cropping", False)):
            expected = facts[mode]
            views, grid = processor.views(image, tiling=tiled)
            assert list(grid) == expected["images_spatial_crop"], (name, mode)
            assert len(views) == expected["n_tiles_total"], (name, mode)
            assert [sha256(view) for view in views] == expected["tile_uint8_hwc_sha256"], (name, mode)
            pixels = processor.normalize(views)
            assert [sha256(view.numpy()) for view in pixels] == expected["tile_float32_sha256"], (name, mode)
            tokens = processor.num_image_tokens(*image.size, num_images=1 if tiled else 3)
            assert tokens == expected["n_image_tokens"], (name, mode)
        if facts.get("global_png"):
            with Image.open(folder / facts["global_png"]) as png:
                assert np.array_equal(np.asarray(png), processor.views(image, tiling=True)[0][0]), name


def test_every_byte_to_float(golden: Golden) -> None:
    folder = golden("preprocess_vl2")
    spec = VL2Spec.from_folder(folder / "processor")
    processor = VL2Processor.from_folder(folder / "processor")
    every = np.zeros((1, spec.image_size, spec.image_size, 3), dtype=np.uint8)
    every[0, 0, :256] = np.arange(256, dtype=np.uint8)[:, None]
    expected = load_file(folder / "cases.safetensors")["byte_to_float"]  # (3, 256)
    assert torch.equal(processor.normalize(every)[0, :, 0, :256], expected)


def test_size_table(golden: Golden) -> None:
    folder = golden("preprocess_vl2")
    spec = VL2Spec.from_folder(folder / "processor")
    processor = VL2Processor.from_folder(folder / "processor")
    record = json.loads((folder / "cases.json").read_text())
    assert len(record["size_table"]) == 60
    for row in record["size_table"]:
        size = (row["w"], row["h"])
        best = tiling.choose_resolution(size, spec.candidate_resolutions)
        assert best == (row["best_width"], row["best_height"]), size
        grid = (best[0] // spec.image_size, best[1] // spec.image_size)
        assert grid == (row["num_width_tiles"], row["num_height_tiles"]), size
        assert processor.num_image_tokens(*size) == row["n_image_tokens"], size
        side = processor.side
        layout = f"({side}g n)x{side} | s | ({side * grid[0]}l n)x{side * grid[1]}"
        assert layout == row["layout"], size


def test_layout_lengths(golden: Golden) -> None:
    folder = golden("preprocess_vl2")
    processor = VL2Processor.from_folder(folder / "processor")
    record = json.loads((folder / "cases.json").read_text())
    tensors = load_file(folder / "cases.safetensors")
    for layout in record["layouts"]:
        total = sum(tiling.num_tokens((across, down), processor.side) for across, down in layout["images_spatial_crop"])
        assert total == layout["n_tokens"] == len(tensors[layout["key"]])
