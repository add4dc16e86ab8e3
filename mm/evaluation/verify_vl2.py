"""What is compared in a recorded DeepSeek-VL2 case, and how our side of each field is computed.

A family is a table of fields: name (or pattern) -> function of a ``_Run`` that gives the row. A recorded field that no
line of the table knows is reported as not compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mm.chat import parse_messages
from mm.contracts import Inputs
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
from mm.evaluation.recording import RecordedTensor, Recording
from mm.families.table import load_model, load_processor
from mm.generation.row import Row as Answer
from mm.generation.sampling import SamplingOptions
from mm.generation.text import generate
from mm.model import VisionLanguageModel
from mm.processing.base import Processor
from mm.processing.tiling import MAX_TILED_IMAGES

FEATURE_LIMIT = 5e-5  # towers, projector, embeddings (golden README, "Tolerances")
_PREFILLING: tuple[tuple[str, type[Any]], ...] = (("chunk_size", int), ("greedy_tokens", list))
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
        yield from _Run(recording, entry, model, processor).rows()


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


class _Run:
    """One conversation through the model, each part computed when a field first asks for it."""

    def __init__(
        self, recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: Processor
    ) -> None:
        self.recording, self.entry, self.model, self.processor = recording, entry, model, processor
        self.name: str = entry["id"]
        self.inputs = _inputs(recording, entry, processor)
        margin = entry.get("router_margin")
        # Tokens whose routing hangs on less than the rounding of float32: another choice is no mistake.
        self.ties: list[int] = margin.get("close_positions", []) if isinstance(margin, dict) else []

    def rows(self) -> Iterator[Row]:
        """Tensors and facts of the entry, then the comparison of each."""
        for field in self.recording.names(self.name):
            recorded = self.recording.tensor(f"{self.name}/{field}")
            assert recorded is not None  # names() lists what is described
            for pattern, compare in TENSORS:
                if match := pattern.fullmatch(field):
                    yield compare(self, field, recorded, [int(group) for group in match.groups()])
                    break
            else:
                yield unknown(self.name, field, shorten(str(recorded.shape)))
        for field, compute in FACTS.items():
            if self.entry.get(field) is not None:
                yield compare_values(self.name, field, self.entry[field], compute(self))
        prefilling = self.entry.get("incremental_prefilling")
        if prefilling is not None:
            prefilling = self.recording.need(self.entry, "incremental_prefilling", dict)
            chunk, recorded_tokens = (self.recording.need(prefilling, k, t) for k, t in _PREFILLING)
            yield compare_values(self.name, "incremental_prefilling", recorded_tokens, self.generate(chunk)[0])
        for field in sorted(set(self.entry) - FACTS.keys() - _SETTINGS):
            yield unknown(self.name, field, shorten(self.entry[field]))

    @cached_property
    def forward(self) -> dict[str, Tensor]:
        """One uncached forward pass over the whole prompt: recorded intermediates by their recorded names."""
        model, found = self.model, {}
        wanted: dict[str, nn.Module] = {"vision_out": model.vision, "projector_out": model.adaptor}
        for field in self.recording.names(self.name):
            for pattern, locate in MODULES:
                if match := pattern.fullmatch(field):
                    module = locate(model, [int(group) for group in match.groups()])
                    if module is not None:
                        wanted[field] = module
        with torch.inference_mode(), _outputs(wanted) as outputs:
            (embeds,) = model.embed_inputs([self.inputs])
            hidden = model.decoder(embeds.unsqueeze(0))
        for field, values in outputs.items():
            if values and isinstance(values[0], Tensor):
                found[field] = torch.cat(values)  # views may pass in several groups
            elif values:
                found[field] = _by_expert(values[0])[0 if field.endswith("_idx") else 1]
        found["inputs_embeds"] = embeds.unsqueeze(0)
        found["llm_hidden_0"] = embeds.unsqueeze(0)
        found["hidden"] = hidden
        return found

    @cached_property
    def answer(self) -> tuple[list[int], Tensor]:
        """The whole prompt at once, then greedy decoding with the cache: tokens and the logits of each step."""
        return self.generate(self.inputs.num_tokens)

    def generate(self, chunk: int) -> tuple[list[int], Tensor]:
        """Greedy tokens and (steps, V) logits with the prompt fed ``chunk`` tokens at a time."""
        tokens, logits = _generate(self.model, self.processor, [self.inputs], self.entry, chunk)
        return tokens[0], logits[:, 0]

    def input_tensor(self, field: str) -> Tensor:
        """Our inputs in the official form: a batch of one, and a zero image where a conversation has none."""
        inputs = self.inputs
        if field == "images" and not inputs.pixels.shape[0]:
            return inputs.pixels.new_zeros(1, 1, *inputs.pixels.shape[1:])
        tensors = {
            "input_ids": inputs.input_ids,
            "labels": inputs.labels,
            "attention_mask": torch.ones_like(inputs.image_mask),
            "images_seq_mask": inputs.image_mask,
            "images_spatial_crop": _official_grids([inputs])[0],
            "images": inputs.pixels,
        }
        tensor = tensors[field]
        assert tensor is not None  # the processor always fills labels
        return tensor.unsqueeze(0)


Comparison = Callable[[_Run, str, RecordedTensor, list[int]], Row]


def _exact_input(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    return compare_exact(run.name, field, recorded, run.input_tensor(field))


def _pixels(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    return compare_bits(run.name, field, recorded, run.input_tensor(field))


def _feature(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    return _intermediate(run, field, recorded, FEATURE_LIMIT, ())


def _decoder_state(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    return _intermediate(run, field, recorded, LOGIT_LIMIT, run.ties)


def _router_weights(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    return _intermediate(run, field, recorded, LOGIT_LIMIT, run.ties)


def _intermediate(run: _Run, field: str, recorded: RecordedTensor, limit: float, ties: Sequence[int]) -> Row:
    ours = run.forward.get(field)
    if ours is None:
        return unknown(run.name, field, shorten(str(recorded.shape)))
    return compare_close(run.name, field, recorded, ours.float().cpu(), limit, ties)


def _router_choice(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    ours = run.forward.get(field)
    if ours is None:
        return unknown(run.name, field, shorten(str(recorded.shape)))
    return compare_exact(run.name, field, recorded, ours, run.ties)


def _logits(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    positions = run.recording.plain(f"{run.name}/logits_positions")
    if positions is None:
        raise InputError(f"{run.recording.folder}: {run.name} has logits but no logits_positions")
    inside = bool(positions.numel()) and 0 <= int(positions.min()) <= int(positions.max()) < run.inputs.num_tokens
    if not inside:
        return judge(
            run.name, field, f"positions up to {int(positions.max())}", "", None, LOGIT_LIMIT, "prompt differs"
        )
    hidden = run.forward["hidden"][0, positions.to(run.model.device)]
    with torch.inference_mode():
        ours = run.model.decoder.logits(hidden).cpu()
    ties = [row for row, position in enumerate(positions.tolist()) if position in run.ties]
    return compare_close(run.name, field, recorded, ours, LOGIT_LIMIT, ties)


def _argmax(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
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
    excused[[tie for tie in run.ties if tie < len(gaps)]] = True
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


def _scores(run: _Run, field: str, recorded: RecordedTensor, numbers: list[int]) -> Row:
    tokens, logits = run.answer
    scores = logits[: recorded.shape[0]]
    penalty = float(run.entry.get("repetition_penalty") or 1.0)
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
    (re.compile(r"llm_hidden_\d+|llm_attn_\d+"), _decoder_state),
    (re.compile(r"moe\d+_topk_idx"), _router_choice),
    (re.compile(r"moe\d+_topk_weight"), _router_weights),
    (re.compile("logits"), _logits),
    (re.compile("logits_argmax"), _argmax),
    (re.compile("greedy_scores"), _scores),
)

FACTS: Mapping[str, Callable[[_Run], object]] = {
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
}

# How an entry is run, or remarks on how it was recorded.
_SETTINGS = frozenset(
    ("id", "conversation", "prompt_mode", "raw_prompt", "apply_sft_format", "repetition_penalty", "max_new_tokens")
    + ("incremental_prefilling", "greedy_top2_gap", "router_margin", "fp32_vs_fp64_max_abs", "logits_abs_mean", "note")
)


def _layer(model: VisionLanguageModel, index: int) -> Any:
    layers = model.decoder.model.layers
    return layers[index] if index < len(layers) else None


def _hidden(model: VisionLanguageModel, numbers: list[int]) -> nn.Module | None:
    """``llm_hidden_i``: after layer i, the last one after the final norm."""
    count = len(model.decoder.model.layers)
    if numbers[0] == count:
        return model.decoder.model.norm
    return _layer(model, numbers[0] - 1) if numbers[0] > 0 else None


def _router(model: VisionLanguageModel, numbers: list[int]) -> nn.Module | None:
    mlp = getattr(_layer(model, numbers[0]), "mlp", None)
    return getattr(mlp, "gate", None)


def _siglip(model: VisionLanguageModel, name: str) -> nn.Module | None:
    try:
        return model.vision.get_submodule(name)
    except AttributeError:
        return None


# Recorded intermediate -> the module whose output it is.
MODULES: tuple[tuple[re.Pattern[str], Callable[[VisionLanguageModel, list[int]], nn.Module | None]], ...] = (
    (re.compile("siglip_patch_embed"), lambda model, _: _siglip(model, "patch_embed")),
    (re.compile("siglip_pos_drop"), lambda model, _: _siglip(model, "pos_drop")),
    (re.compile("siglip_norm"), lambda model, _: _siglip(model, "norm")),
    (re.compile(r"siglip_block(\d+)"), lambda model, numbers: _siglip(model, f"blocks.{numbers[0]}")),
    (re.compile(r"llm_attn_(\d+)"), lambda model, numbers: getattr(_layer(model, numbers[0]), "self_attn", None)),
    (re.compile(r"llm_hidden_(\d+)"), _hidden),
    (re.compile(r"moe(\d+)_topk_(?:idx|weight)"), _router),
)


@contextmanager
def _outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """What each module returns while the context is open, call by call."""
    outputs: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _module, _args, output, kept=outputs[name]: kept.append(output))
        for name, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _by_expert(choice: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Experts in ascending order, as recorded, with their weights."""
    indices, order = choice[0].sort(dim=-1)
    return indices, choice[1].gather(-1, order)


def _inputs(recording: Recording, entry: Mapping[str, Any], processor: Processor) -> Inputs:
    """An entry's conversation or raw prompt through the processor, images opened the official way."""
    conversation = recording.need(entry, "conversation", list)
    if not all(isinstance(message, dict) for message in conversation):
        raise InputError(f"{recording.folder}: {entry['id']}: a message of the conversation is not an object")
    named = [
        {**message, **({"images": [recording.image(n) for n in message["images"]]} if message.get("images") else {})}
        for message in conversation
    ]
    if entry.get("prompt_mode"):
        images = [image for message in named for image in message.get("images", [])]
        apply = bool(entry.get("apply_sft_format"))
        prompt = recording.need(entry, "raw_prompt", str)
        return processor.process_prompt(prompt, images, apply_template=apply, official_images=True)
    messages = parse_messages(named, image_tag=processor.spec.image_token)
    return processor.process(messages, official_images=True)


def _generate(
    model: VisionLanguageModel, processor: Processor, inputs: list[Inputs], entry: Mapping[str, Any], chunk: int
) -> tuple[list[list[int]], Tensor]:
    """Greedy answers of a batch and the model's logits (steps, B, V) behind them."""
    # The loop takes the longest prompt first; in that order its rows are ours.
    order = sorted(range(len(inputs)), key=lambda row: -inputs[row].num_tokens)
    options = SamplingOptions(repetition_penalty=float(entry.get("repetition_penalty") or 1.0), detect_loops=False)
    recorded = entry.get("greedy_tokens") or [0]
    longest = max([len(row) for row in recorded] if isinstance(recorded[0], list) else [len(recorded)])
    tokenizer = processor.tokenizer
    answers = [
        Answer(
            prompt_ids=inputs[row].input_ids,
            options=options,
            max_new_tokens=int(entry.get("max_new_tokens") or longest),
            end_ids=frozenset((tokenizer.eos_id,)),
            hidden_ids=frozenset(),
            decode=tokenizer.decode,
        )
        for row in order
    ]
    with torch.inference_mode(), _outputs({"logits": model.decoder.lm_head}) as outputs:
        embeds = model.embed_inputs([inputs[row] for row in order])
        for _ in generate(model.decoder, embeds, answers, chunk=chunk):
            pass
    back = sorted(range(len(order)), key=lambda slot: order[slot])
    logits = torch.stack(outputs["logits"]).float().cpu()[:, back]  # (steps, B, V)
    return [answers[slot].tokens for slot in back], logits


def _official_grids(rows: Sequence[Inputs]) -> Tensor:
    """(B, most images, 2): tile grids, zeros where a conversation has fewer images."""
    most = max(1, *(row.tile_grids.shape[0] for row in rows))
    grids = torch.zeros(len(rows), most, 2, dtype=torch.int64)
    for index, row in enumerate(rows):
        grids[index, : row.tile_grids.shape[0]] = row.tile_grids
    return grids


def _batch_rows(
    recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: Processor
) -> Iterator[Row]:
    """Several conversations answered together; the official code pads them on the left."""
    name, conversations = entry["id"], recording.need(entry, "conversations", list)
    inputs = [_inputs(recording, {"id": name, "conversation": turns}, processor) for turns in conversations]
    batch = processor.collate(inputs, "left")
    grids = _official_grids(inputs)
    ours = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "images_seq_mask": batch.image_mask,
        "images_spatial_crop": grids,
        "labels": batch.labels,
    }
    tokens, logits = _generate(model, processor, inputs, entry, max(row.num_tokens for row in inputs))
    for field in recording.names(name):
        recorded = recording.tensor(f"{name}/{field}")
        assert recorded is not None
        tensor = ours.get(field)
        if tensor is not None:
            yield compare_exact(name, field, recorded, tensor)
        elif field == "greedy_scores":
            steps = logits[: recorded.shape[0]].clone()
            if tuple(steps.shape) == recorded.shape and recorded.rows is None:
                for row, ids in enumerate(tokens):  # what a row that has ended computes means nothing
                    steps[len(ids) :, row] = recorded.values[len(ids) :, row]
            yield compare_close(name, field, recorded, steps, LOGIT_LIMIT)
        else:
            yield unknown(name, field, shorten(str(recorded.shape)))
    longest = max(len(row) for row in tokens)
    end = processor.tokenizer.eos_id
    padded = [row + [end] * (longest - len(row)) for row in tokens]
    values: dict[str, object] = {
        "prompts": [row.prompt for row in inputs],
        "seq_lens": [row.num_tokens for row in inputs],
        "greedy_tokens": padded,
        "text": [processor.tokenizer.decode(row) for row in padded],
    }
    for field, value in values.items():
        if entry.get(field) is not None:
            yield compare_values(name, field, entry[field], value)
