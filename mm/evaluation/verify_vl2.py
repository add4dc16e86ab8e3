"""What is compared in a recorded DeepSeek-VL2 case."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mm.contracts import Batch, Inputs
from mm.evaluation.compare import Row
from mm.evaluation.recorded_run import Run
from mm.evaluation.recording import Recording
from mm.evaluation.understanding import Tables, batch_rows, conversation_rows, tokenizer_rows
from mm.families.table import load_model, load_processor
from mm.processing.tiling import MAX_TILED_IMAGES


def verify_vl2(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``deepseek_vl2`` case, in the order of the file.

    Raises:
        CheckpointError: the checkpoint of the case cannot be loaded.
        InputError: an entry is not of the recorded form.
    """
    folder = recording.folder / "checkpoint"
    processor = load_processor(folder)
    tokenizer, special = processor.tokenizer, recording.facts.get("special_token_ids")
    facts: dict[str, object] = {"pad_id": tokenizer.pad_id, "pad_color": list(processor.spec.pad_color)}
    if isinstance(special, dict):
        facts["special_token_ids"] = {
            text: tokenizer.token_id(text) if text in tokenizer.special_tokens else None for text in special
        }
    yield from tokenizer_rows(recording, processor, facts)
    entries = recording.entries
    progress("loading the model")
    model = load_model(folder, device=device, dtype="float32")
    for entry in entries:
        progress(entry["id"])
        if entry.get("batch"):
            yield from batch_rows(recording, entry, model, processor, TABLES)
        else:
            yield from conversation_rows(Run(recording, entry, model, processor), TABLES)


def _official(batch: Batch) -> Mapping[str, Tensor]:
    assert batch.labels is not None  # the processor always fills labels
    inputs = {
        "input_ids": batch.input_ids,
        "labels": batch.labels,
        "attention_mask": batch.attention_mask,
        "images_seq_mask": batch.image_mask,
        "images_spatial_crop": _official_grids(batch.rows),
    }
    if len(batch.rows) == 1:
        pixels = batch.rows[0].pixels
        inputs["images"] = (pixels if len(pixels) else pixels.new_zeros(1, *pixels.shape[1:])).unsqueeze(0)
    return inputs


def _official_grids(rows: Sequence[Inputs]) -> Tensor:
    """(B, most images, 2): tile grids, zeros where a conversation has fewer images."""
    most = max(1, *(row.tile_grids.shape[0] for row in rows))
    grids = torch.zeros(len(rows), most, 2, dtype=torch.int64)
    for index, row in enumerate(rows):
        grids[index, : row.tile_grids.shape[0]] = row.tile_grids
    return grids


TABLES = Tables(
    official=_official,
    bits=frozenset(("images",)),
    facts={
        "prompt": lambda run: run.inputs.prompt,
        "n_tokens": lambda run: run.inputs.num_tokens,
        "n_image_tokens": lambda run: int(run.inputs.image_mask.sum()),
        "n_images": lambda run: len(run.inputs.spans),
        "n_tiles": lambda run: run.inputs.pixels.shape[0],
        "cropping": lambda run: len(run.inputs.spans) <= MAX_TILED_IMAGES,
        "images_spatial_crop": lambda run: _official_grids([run.inputs])[0].tolist(),
        "seq_lens": lambda run: [run.inputs.num_tokens],
        "image_sizes": lambda run: [[span.width, span.height] for span in run.inputs.spans],
        "greedy_tokens": lambda run: run.answer[0],
        "text": lambda run: run.processor.tokenizer.decode(run.answer[0]),
        "text_skip_special": lambda run: run.processor.tokenizer.decode(run.answer[0], skip_special=True),
    },
    answers={
        "n_tokens": lambda answers, _: answers.batch.input_ids.shape[1],
        "prompts": lambda answers, _: [row.prompt for row in answers.batch.rows],
        "seq_lens": lambda answers, _: [row.num_tokens for row in answers.batch.rows],
        "greedy_tokens": lambda answers, _: answers.tokens,
        "text": lambda answers, processor: answers.text(processor, skip_special=False),
        "text_skip_special": lambda answers, processor: answers.text(processor, skip_special=True),
    },
    settings=frozenset(
        ("id", "batch", "conversation", "conversations", "prompt_mode", "raw_prompt", "apply_sft_format")
        + ("repetition_penalty", "max_new_tokens", "incremental_prefilling", "router_margin")
        + ("greedy_top2_gap", "fp32_vs_fp64_max_abs", "logits_abs_mean", "note")
    ),
)
