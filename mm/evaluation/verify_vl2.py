"""What is compared in a recorded DeepSeek-VL2 case.

A family is a table of fields: name (or pattern) -> function that gives the row. A recorded field that no line of the
table knows is reported as not compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mm.errors import InputError
from mm.evaluation.compare import (
    Row,
    compare_bits,
    compare_close,
    compare_exact,
    compare_values,
    judge,
    shorten,
    unknown,
)
from mm.evaluation.recorded_run import Run, generate_batch, official_grids, read_inputs, repetition_penalty
from mm.evaluation.recording import RecordedTensor, Recording
from mm.families.table import load_model, load_processor
from mm.model import VisionLanguageModel
from mm.processing.base import Processor
from mm.processing.tiling import MAX_TILED_IMAGES

FEATURE_LIMIT = 5e-5  # towers, projector, embeddings (golden README, "Tolerances")
LOGIT_LIMIT = 2e-4  # logits and what stands between them and the embeddings
_LOGIT_ROWS = 256  # positions whose logits are held at once


def verify_vl2(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``deepseek_vl2`` case, in the order of the file.

    Raises:
        CheckpointError: the checkpoint of the case cannot be loaded.
        InputError: an entry is not of the recorded form.
    """
    folder = recording.folder / "checkpoint"
    processor = load_processor(folder)
    yield from _tokenizer_rows(recording, processor)
    entries = recording.entries
    progress("loading the model")
    model = load_model(folder, device=device, dtype="float32")
    for entry in entries:
        name = entry["id"]
        progress(name)
        if entry.get("batch"):
            yield from _batch_rows(recording, entry, model, processor)
            continue
        yield from _conversation_rows(Run(recording, entry, model, processor))


def _tokenizer_rows(recording: Recording, processor: Processor) -> Iterator[Row]:
    """The facts that stand at the head of the file."""
    tokenizer, facts = processor.tokenizer, recording.facts
    ours: dict[str, object] = {
        "image_token_id": tokenizer.token_id(processor.spec.image_token),
        "pad_id": tokenizer.pad_id,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "tokenizer_length": tokenizer.vocab_size,
        "pad_color": list(processor.spec.pad_color),
    }
    if isinstance(facts.get("special_token_ids"), dict):
        ours["special_token_ids"] = {
            text: tokenizer.token_id(text) if text in tokenizer.special_tokens else None
            for text in facts["special_token_ids"]
        }
    for field, value in ours.items():
        if field in facts:
            yield compare_values("tokenizer", field, facts[field], value)


def _conversation_rows(run: Run) -> Iterator[Row]:
    """Tensors and facts of the entry, then the comparison of each."""
    for field in run.recording.names(run.name):
        recorded = run.recording.tensor(f"{run.name}/{field}")
        assert recorded is not None  # names() lists what is described
        for pattern, compare in TENSORS:
            if pattern.fullmatch(field):
                yield compare(run, field, recorded)
                break
        else:
            yield unknown(run.name, field, shorten(str(recorded.shape)))
    for field, compute in FACTS.items():
        if run.entry.get(field) is not None:
            yield compare_values(run.name, field, run.entry[field], compute(run))
    prefilling = run.entry.get("incremental_prefilling")
    if prefilling is not None:
        prefilling = run.recording.need(run.entry, "incremental_prefilling", dict)
        tokens = run.generate(run.recording.count(prefilling, "chunk_size", run.inputs.num_tokens))[0]
        recorded_tokens = run.recording.need(prefilling, "greedy_tokens", list)
        yield compare_values(run.name, "incremental_prefilling", recorded_tokens, tokens)
    for field in sorted(set(run.entry) - FACTS.keys() - _SETTINGS):
        yield unknown(run.name, field, shorten(run.entry[field]))


def _batch_rows(
    recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: Processor
) -> Iterator[Row]:
    """Several conversations answered together; the official code pads them on the left."""
    name, conversations = entry["id"], recording.need(entry, "conversations", list)
    if not conversations:
        raise InputError(f"{recording.folder}: {name} is a batch of no conversations")
    inputs = [read_inputs(recording, {"id": name, "conversation": turns}, processor) for turns in conversations]
    batch = processor.collate(inputs, "left")
    grids = official_grids(inputs)
    ours = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "images_seq_mask": batch.image_mask,
        "images_spatial_crop": grids,
        "labels": batch.labels,
    }
    longest = max(row.num_tokens for row in inputs)
    tokens, logits = generate_batch(recording, model, processor, inputs, entry, longest)
    for field in recording.names(name):
        recorded = recording.tensor(f"{name}/{field}")
        assert recorded is not None
        tensor = ours.get(field)
        if tensor is not None:
            yield compare_exact(name, field, recorded, tensor)
        elif field == "greedy_scores":
            scores = logits[: recorded.shape[0]].clone()
            if tuple(scores.shape) == recorded.shape and recorded.rows is None:
                for row, ids in enumerate(tokens):  # what a row that has ended computes means nothing
                    scores[len(ids) :, row] = recorded.values[len(ids) :, row]
            yield compare_close(name, field, recorded, scores, LOGIT_LIMIT)
        else:
            yield unknown(name, field, shorten(str(recorded.shape)))
    steps, end = max(len(row) for row in tokens), processor.tokenizer.eos_id
    padded = [row + [end] * (steps - len(row)) for row in tokens]
    values: dict[str, object] = {
        "n_tokens": batch.input_ids.shape[1],
        "prompts": [row.prompt for row in inputs],
        "seq_lens": [row.num_tokens for row in inputs],
        "greedy_tokens": padded,
        "text": [processor.tokenizer.decode(row) for row in padded],
        "text_skip_special": [processor.tokenizer.decode(row, skip_special=True) for row in padded],
    }
    for field in entry:
        if field in values:
            yield compare_values(name, field, entry[field], values[field])
        elif field not in _SETTINGS:
            yield unknown(name, field, shorten(entry[field]))


Comparison = Callable[[Run, str, RecordedTensor], Row]


def _exact_input(run: Run, field: str, recorded: RecordedTensor) -> Row:
    return compare_exact(run.name, field, recorded, run.input_tensor(field))


def _pixels(run: Run, field: str, recorded: RecordedTensor) -> Row:
    return compare_bits(run.name, field, recorded, run.input_tensor(field))


def _feature(run: Run, field: str, recorded: RecordedTensor) -> Row:
    return _intermediate(run, field, recorded, FEATURE_LIMIT, ())


def _decoder_state(run: Run, field: str, recorded: RecordedTensor) -> Row:
    return _intermediate(run, field, recorded, LOGIT_LIMIT, run.ties)


def _intermediate(run: Run, field: str, recorded: RecordedTensor, limit: float, ties: Sequence[int]) -> Row:
    ours = run.forward.get(field)
    if ours is None:
        return unknown(run.name, field, shorten(str(recorded.shape)))
    return compare_close(run.name, field, recorded, ours.float().cpu(), limit, ties)


def _router_choice(run: Run, field: str, recorded: RecordedTensor) -> Row:
    ours = run.forward.get(field)
    if ours is None:
        return unknown(run.name, field, shorten(str(recorded.shape)))
    return compare_exact(run.name, field, recorded, ours, run.ties)


def _logits(run: Run, field: str, recorded: RecordedTensor) -> Row:
    positions = run.recording.plain(f"{run.name}/logits_positions")
    if positions is None:
        raise InputError(f"{run.recording.folder}: {run.name} has logits but no logits_positions")
    last = run.inputs.num_tokens - 1
    if not positions.numel() or int(positions.min()) < 0 or int(positions.max()) > last:
        shown = f"positions {shorten(positions.tolist())}", f"last position {last}"
        return judge(run.name, field, *shown, None, LOGIT_LIMIT, "the prompt has another length")
    hidden = run.forward["hidden"][0, positions.to(run.model.device)]
    with torch.inference_mode():
        ours = run.model.decoder.logits(hidden).cpu()
    ties = [row for row, position in enumerate(positions.tolist()) if position in run.ties]
    return compare_close(run.name, field, recorded, ours, LOGIT_LIMIT, ties)


def _argmax(run: Run, field: str, recorded: RecordedTensor) -> Row:
    """The best token at every position. Where ours is another one, how much better it is than the recorded one."""
    hidden = run.forward["hidden"][0]
    if recorded.shape != (hidden.shape[0],) or recorded.rows is not None:
        return judge(run.name, field, str(recorded.shape), str(tuple(hidden.shape[:1])), None, 0.0, "another shape")
    theirs = recorded.values.to(hidden.device)
    behind, changed = [], 0
    with torch.inference_mode():
        for part, wanted in zip(hidden.split(_LOGIT_ROWS), theirs.split(_LOGIT_ROWS), strict=True):
            logits = run.model.decoder.logits(part)
            best, tokens = logits.max(dim=-1)
            behind.append(best - logits.gather(1, wanted[:, None])[:, 0])
            changed += int((tokens != wanted).sum())
    gaps = torch.cat(behind).cpu()
    excused = torch.zeros_like(gaps, dtype=torch.bool)
    excused[[tie for tie in run.ties if 0 <= tie < len(gaps)]] = True
    excused &= gaps > 2 * LOGIT_LIMIT
    count = len(gaps)
    note = f"{int(excused.sum())} left out: routed by a near tie" if excused.any() else ""
    return judge(
        run.name,
        field,
        f"{count} tokens",
        f"{count - changed} equal",
        float(gaps[~excused].max()),
        2 * LOGIT_LIMIT,  # both sides may be off by the limit of the logits
        note,
    )


def _scores(run: Run, field: str, recorded: RecordedTensor) -> Row:
    tokens, logits = run.answer
    scores = logits[: recorded.shape[0]]
    penalty = repetition_penalty(run.recording, run.entry)
    if penalty != 1.0:  # recorded as transformers hands them to the choice of the token
        rows = []
        for step, row in enumerate(scores):
            seen = torch.cat((run.inputs.input_ids, torch.tensor(tokens[:step], dtype=torch.int64))).unique()
            rows.append(row.scatter(0, seen, torch.where(row > 0, row / penalty, row * penalty)[seen]))
        scores = torch.stack(rows)
    return compare_close(run.name, field, recorded, scores, LOGIT_LIMIT)


TENSORS: tuple[tuple[re.Pattern[str], Comparison], ...] = (
    (re.compile("input_ids|labels|attention_mask|images_seq_mask|images_spatial_crop"), _exact_input),
    (re.compile("images"), _pixels),
    (re.compile(r"siglip_\w+|vision_out|projector_out|inputs_embeds|llm_hidden_0"), _feature),
    (re.compile(r"llm_hidden_\d+|llm_attn_\d+|moe\d+_topk_weight"), _decoder_state),
    (re.compile(r"moe\d+_topk_idx"), _router_choice),
    (re.compile("logits"), _logits),
    (re.compile("logits_argmax"), _argmax),
    (re.compile("greedy_scores"), _scores),
)

FACTS: Mapping[str, Callable[[Run], object]] = {
    "prompt": lambda run: run.inputs.prompt,
    "n_tokens": lambda run: run.inputs.num_tokens,
    "n_image_tokens": lambda run: int(run.inputs.image_mask.sum()),
    "n_images": lambda run: len(run.inputs.spans),
    "n_tiles": lambda run: run.inputs.pixels.shape[0],
    "cropping": lambda run: len(run.inputs.spans) <= MAX_TILED_IMAGES,
    "images_spatial_crop": lambda run: official_grids([run.inputs])[0].tolist(),
    "seq_lens": lambda run: [run.inputs.num_tokens],
    "image_sizes": lambda run: [[span.width, span.height] for span in run.inputs.spans],
    "greedy_tokens": lambda run: run.answer[0],
    "text": lambda run: run.processor.tokenizer.decode(run.answer[0]),
    "text_skip_special": lambda run: run.processor.tokenizer.decode(run.answer[0], skip_special=True),
}

# How an entry is run, or remarks on how it was recorded.
_SETTINGS = frozenset(
    ("id", "batch", "conversation", "conversations", "prompt_mode", "raw_prompt", "apply_sft_format")
    + ("repetition_penalty", "max_new_tokens", "incremental_prefilling", "router_margin")
    + ("greedy_top2_gap", "fp32_vs_fp64_max_abs", "logits_abs_mean", "note")
)
