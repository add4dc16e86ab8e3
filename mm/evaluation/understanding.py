"""What is compared in a recorded conversation, whatever the family: each field by its name, from a family's ``Tables``.

A table is name (or pattern) -> function that gives the row. A recorded field that no line of a family's tables knows is
reported as not compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm.contracts import Batch
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
from mm.evaluation.recorded_run import Run, generate_batch, read_inputs, repetition_penalty
from mm.evaluation.recording import RecordedTensor, Recording
from mm.model import VisionLanguageModel
from mm.processing.base import Processor

FEATURE_LIMIT = 5e-5  # towers, projector, embeddings (golden README, "Tolerances")
LOGIT_LIMIT = 2e-4  # logits and what stands between them and the embeddings
_LOGIT_ROWS = 256  # positions whose logits are held at once


@dataclass(frozen=True)
class Answers:
    """Several conversations answered together."""

    batch: Batch
    tokens: list[list[int]]  # as recorded: after a row's end the end token again

    def text(self, processor: Processor, *, skip_special: bool) -> list[str]:
        """Each answer as text."""
        return [processor.tokenizer.decode(row, skip_special=skip_special) for row in self.tokens]


@dataclass(frozen=True)
class Tables:
    """How a family recorded a conversation.

    Attributes:
        official: a batch's inputs in the official form, by their recorded names.
        bits: names of inputs that must be equal to the bit, beside integers.
        facts: field of an entry -> our value.
        answers: field of an entry of several conversations -> our value.
        settings: fields that say how an entry is run, or remarks on how it was recorded.
    """

    official: Callable[[Batch], Mapping[str, Tensor]]
    bits: frozenset[str]
    facts: Mapping[str, Callable[[Run], object]]
    answers: Mapping[str, Callable[[Answers, Processor], object]]
    settings: frozenset[str]


def tokenizer_rows(recording: Recording, processor: Processor, more: Mapping[str, object]) -> Iterator[Row]:
    """The facts of the tokenizer at the head of the file, and ``more`` of a family."""
    tokenizer, facts = processor.tokenizer, recording.facts
    ours: dict[str, object] = {
        "image_token_id": tokenizer.token_id(processor.spec.image_token),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "tokenizer_length": tokenizer.vocab_size,
        **more,
    }
    for field, value in ours.items():
        if field in facts:
            yield compare_values("tokenizer", field, facts[field], value)


def conversation_rows(run: Run, tables: Tables) -> Iterator[Row]:
    """Tensors and facts of the entry, then the comparison of each."""
    official = tables.official(run.processor.collate([run.inputs]))
    for field in run.recording.names(run.name):
        recorded = run.recording.tensor(f"{run.name}/{field}")
        assert recorded is not None  # names() lists what is described
        if field in tables.bits:
            yield compare_bits(run.name, field, recorded, official[field])
        elif field in official:
            yield compare_exact(run.name, field, recorded, official[field])
        else:
            yield _computed_row(run, field, recorded)
    for field, compute in tables.facts.items():
        if run.entry.get(field) is not None:
            yield compare_values(run.name, field, run.entry[field], compute(run))
    prefilling = run.entry.get("incremental_prefilling")
    if prefilling is not None:
        prefilling = run.recording.need(run.entry, "incremental_prefilling", dict)
        tokens = run.generate(run.recording.count(prefilling, "chunk_size", run.inputs.num_tokens))[0]
        recorded_tokens = run.recording.need(prefilling, "greedy_tokens", list)
        yield compare_values(run.name, "incremental_prefilling", recorded_tokens, tokens)
    for field in sorted(set(run.entry) - tables.facts.keys() - tables.settings):
        yield unknown(run.name, field, shorten(run.entry[field]))


def batch_rows(
    recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: Processor, tables: Tables
) -> Iterator[Row]:
    """Several conversations answered together; the official code pads them on the left."""
    name, conversations = entry["id"], recording.need(entry, "conversations", list)
    if not conversations:
        raise InputError(f"{recording.folder}: {name} is a batch of no conversations")
    inputs = [read_inputs(recording, {"id": name, "conversation": turns}, processor) for turns in conversations]
    batch = processor.collate(inputs, "left")
    official = tables.official(batch)
    longest = max(row.num_tokens for row in inputs)
    tokens, logits = generate_batch(recording, model, processor, inputs, entry, longest)
    for field in recording.names(name):
        recorded = recording.tensor(f"{name}/{field}")
        assert recorded is not None
        if field in official:
            yield compare_exact(name, field, recorded, official[field])
        elif field == "greedy_scores":
            scores = logits[: recorded.shape[0]].clone()
            if tuple(scores.shape) == recorded.shape and recorded.rows is None:
                for row, ids in enumerate(tokens):  # what a row that has ended computes means nothing
                    scores[len(ids) :, row] = recorded.values[len(ids) :, row]
            yield compare_close(name, field, recorded, scores, LOGIT_LIMIT)
        else:
            yield unknown(name, field, shorten(str(recorded.shape)))
    steps, end = max(len(row) for row in tokens), processor.tokenizer.eos_id
    answers = Answers(batch, [row + [end] * (steps - len(row)) for row in tokens])
    for field in entry:
        if field in tables.answers:
            yield compare_values(name, field, entry[field], tables.answers[field](answers, processor))
        elif field not in tables.settings:
            yield unknown(name, field, shorten(entry[field]))


def _computed_row(run: Run, field: str, recorded: RecordedTensor) -> Row:
    for pattern, compare in _COMPUTED:
        if pattern.fullmatch(field):
            return compare(run, field, recorded)
    return unknown(run.name, field, shorten(str(recorded.shape)))


Comparison = Callable[[Run, str, RecordedTensor], Row]


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


_COMPUTED: tuple[tuple[re.Pattern[str], Comparison], ...] = (
    (re.compile(r"siglip_\w+|sam_\w+|low_res_pixels|vision_out|projector_out|inputs_embeds|llm_hidden_0"), _feature),
    (re.compile(r"llm_hidden_\d+|llm_attn_\d+|moe\d+_topk_weight"), _decoder_state),
    (re.compile(r"moe\d+_topk_idx"), _router_choice),
    (re.compile("logits"), _logits),
    (re.compile("logits_argmax"), _argmax),
    (re.compile("greedy_scores"), _scores),
)
