"""What the families with a SigLIP tower share when they are compared with transformers: names, pictures, answers."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mm.chat import user_message
from mm.families.table import load_processor
from mm.pipeline import Pipeline

Names = Sequence[tuple[str, str]]


def tower_names(attention_output: str) -> Names:
    """Published name -> transformers' name in the tower, without the prefix of the published tower.

    Args:
        attention_output: what transformers calls the last product of an attention block.
    """
    return (
        (r"^vision_model\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
        (r"^vision_model\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
        (r"^vision_model\.norm\.", "vision_model.post_layernorm."),
        (r"^vision_model\.blocks\.(\d+)\.norm", r"vision_model.encoder.layers.\1.layer_norm"),
        (r"^vision_model\.blocks\.(\d+)\.mlp", r"vision_model.encoder.layers.\1.mlp"),
        (
            r"^vision_model\.blocks\.(\d+)\.attn\.proj",
            rf"vision_model.encoder.layers.\1.self_attn.{attention_output}",
        ),
    )


def renamed(tensors: dict[str, Tensor], names: Names) -> Iterator[tuple[str, Tensor]]:
    """The same weights under transformers' names; ``names`` are applied in order."""
    for name, tensor in tensors.items():
        if name == "language_model.lm_head.weight":
            yield "lm_head.weight", tensor
            continue
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        fused = re.fullmatch(r"vision_model\.blocks\.(\d+)\.attn\.qkv\.(\w+)", name)
        if fused:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                yield f"model.vision_model.encoder.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}", rows
            continue
        yield f"model.{name}", tensor[0] if name.endswith("position_embedding.weight") else tensor


def picture(seed: int) -> Image.Image:
    """Noise of 90 x 50 pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 90, 3), dtype=np.uint8))


def check_answer(
    folder: Path, reference: PreTrainedModel, seed: int, pixels: Callable[[Tensor], dict[str, Tensor]]
) -> None:
    """The engine's greedy answer about a picture is that of transformers.

    Args:
        folder: the model.
        reference: the same model in transformers.
        seed: of the picture.
        pixels: what transformers is given for our pixels.
    """
    pipe, processor = Pipeline.from_pretrained(folder, device="cpu", dtype="float32"), load_processor(folder)
    reply = pipe.chat(picture(seed), "What is it?", max_new_tokens=8, detect_loops=False)
    inputs = processor.process([user_message("What is it?", [picture(seed)])])
    with torch.inference_mode():
        expected = reference.generate(  # type: ignore[operator]
            inputs.input_ids[None],
            attention_mask=torch.ones(1, inputs.num_tokens, dtype=torch.int64),
            **pixels(inputs.pixels),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=processor.tokenizer.eos_id,
            pad_token_id=processor.tokenizer.pad_id,
        )[0, inputs.num_tokens :]
    assert len(reply.token_ids) > 1
    assert list(reply.token_ids) == expected.tolist()
