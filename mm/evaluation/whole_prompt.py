"""How conversations of DeepSeek-VL and Janus are recorded: one view an image, the whole prompt tokenised at once."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mm.contracts import Batch
from mm.evaluation.understanding import Tables
from mm.processing.vlm import VLMProcessor


def tokenizer_facts(processor: VLMProcessor) -> dict[str, object]:
    """What both families record at the head of a file."""
    return {
        "pad_id": processor.pad_id,
        "background_color": list(processor.spec.background_color),
        "system_prompt": processor.template.system_prompt,
    }


def _official(batch: Batch) -> Mapping[str, Tensor]:
    most = max(1, *(len(row.spans) for row in batch.rows))
    used = torch.tensor([[index < len(row.spans) for index in range(most)] for row in batch.rows])  # (B, images)
    tokens = max((span.stop - span.start for row in batch.rows for span in row.spans), default=576)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "images_seq_mask": batch.image_mask,
        "images_emb_mask": used[:, :, None].expand(-1, -1, tokens),
    }
    if len(batch.rows) == 1:
        pixels = batch.rows[0].pixels
        inputs["pixel_values"] = (pixels if len(pixels) else pixels.new_zeros(1, *pixels.shape[1:])).unsqueeze(0)
    return inputs


TABLES = Tables(
    official=_official,
    bits=frozenset(("pixel_values",)),
    facts={
        "prompt": lambda run: run.inputs.prompt,
        "n_tokens": lambda run: run.inputs.num_tokens,
        "n_image_tokens": lambda run: int(run.inputs.image_mask.sum()),
        "n_images": lambda run: len(run.inputs.spans),
        "eos_token_id": lambda run: run.processor.tokenizer.eos_id,
        "greedy_tokens": lambda run: run.answer[0],
        "text": lambda run: run.processor.tokenizer.decode(run.answer[0], skip_special=True),
        "text_with_special": lambda run: run.processor.tokenizer.decode(run.answer[0]),
    },
    answers={
        "prompts": lambda answers, _: [row.prompt for row in answers.batch.rows],
        "greedy_tokens": lambda answers, _: answers.tokens,
        "text": lambda answers, processor: answers.text(processor, skip_special=True),
    },
    settings=frozenset(
        ("id", "batch", "conversation", "conversations", "max_new_tokens")
        + ("greedy_top2_gap", "fp32_vs_fp64_max_abs", "logits_abs_mean", "note")
    ),
)
