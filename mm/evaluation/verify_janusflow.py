"""What is compared in a recorded JanusFlow case: conversations, and pictures by flow with the autoencoder beside them.

Letters: P pictures, R = 2 P rows (prompts first, then what guidance leads away from), T prompt tokens, N patches of a
picture, D hidden size, C h w channels and sides of the latents.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.contracts import DrawingPrompt
from mm.errors import InputError
from mm.evaluation.compare import Row, compare_close, compare_exact, compare_values, judge, shorten, unknown
from mm.evaluation.recorded_run import Run
from mm.evaluation.recording import RecordedTensor, Recording
from mm.evaluation.understanding import FEATURE_LIMIT, LOGIT_LIMIT, conversation_rows, tokenizer_rows
from mm.evaluation.whole_prompt import TABLES, tokenizer_facts
from mm.families.janusflow import build_processor
from mm.families.janusflow_config import parse_config
from mm.families.table import load_model, read_json
from mm.generation.flow import FlowHead
from mm.generation.flow_picture import TIME_SCALE
from mm.generation.vae import Autoencoder
from mm.generation.vq import to_bytes
from mm.images import open_image
from mm.model import VisionLanguageModel
from mm.processing.vlm import VLMProcessor

PIXEL_LIMIT = 5e-4  # of decoded pixels (golden README, "Tolerances")
# Latents, velocities and what stands between: the rounding of the official code is 6e-6, its smallest mistake 8e-4.
FLOW_LIMIT = 5e-5
RECORDED_STEPS = 2  # of a picture, whose intermediate values are stored


def verify_janusflow(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``janusflow`` case, in the order of the file.

    Raises:
        CheckpointError: the checkpoint or the autoencoder of the case cannot be loaded.
        InputError: an entry is not of the recorded form.
    """
    folder = recording.folder / "checkpoint"
    processor = build_processor(folder, parse_config(read_json(folder / "config.json")))
    tags, tokenizer = processor.spec.tags, processor.tokenizer
    facts: dict[str, object] = {
        **tokenizer_facts(processor),
        "image_start_id": tokenizer.token_id(str(tags.image_start)),
        "image_end_id": tokenizer.token_id(str(tags.image_end)),
        "image_gen_id": tokenizer.token_id(str(tags.generation)),
    }
    yield from tokenizer_rows(recording, processor, facts)
    entries = recording.entries
    progress("loading the model")
    model = load_model(folder, device=device, dtype="float32")
    for entry in entries:
        progress(entry["id"])
        if entry.get("kind") is None:
            yield from conversation_rows(Run(recording, entry, model, processor), TABLES)
        elif entry["kind"] == "flow_generation":
            yield from _flow_rows(recording, entry, model, processor)
        else:
            yield unknown(entry["id"], "kind", shorten(entry["kind"]))


@dataclass(frozen=True)
class FlowDrawing:
    """What the plain loop computed."""

    tokens: Tensor  # (R, T) int64
    attended: Tensor  # (R, T + N) bool, what each row may look at; the time takes the place of the last token
    latents: Tensor  # (steps, P, C, h, w), after each step
    steps: tuple[Mapping[str, Tensor], ...]  # of each step the intermediate values by their recorded names


@torch.inference_mode()
def draw_plainly(
    model: VisionLanguageModel,
    head: FlowHead,
    prompt: DrawingPrompt,
    noise: Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    pad_id: int,
) -> FlowDrawing:
    """Pictures from noise (P, C, h, w) by a plain loop without a cache, to check others by.

    As published, the rows are as long as the prompt; those that guidance leads away from attend to their first token
    and to the picture.
    """
    decoder, device = model.decoder, model.device
    count, length = len(noise), len(prompt.conditional)
    nothing = torch.full_like(prompt.conditional, pad_id)
    nothing[0] = prompt.conditional[0]
    tokens = torch.cat((prompt.conditional.expand(count, -1), nothing.expand(count, -1)))  # (R, T)
    attended = torch.ones(2 * count, length - 1 + head.num_positions, dtype=torch.bool)
    attended[count:, 1 : length - 1] = False
    before = decoder.embed(tokens.to(device))[:, :-1]  # (R, T - 1, D)
    latents, kept, steps = noise.to(device), [], []
    for step in range(num_steps):
        time = torch.full((2 * count,), step / num_steps * TIME_SCALE, device=device)
        embedded, moment, features = head.encode(torch.cat((latents, latents)), time)
        hidden = decoder(torch.cat((before, moment[:, None], embedded), dim=1), key_mask=attended.to(device))
        picture = hidden[:, length:]  # (R, N, D)
        conditional, unconditional = head.velocity(picture, features, moment).chunk(2)
        velocity = guidance_scale * conditional - (guidance_scale - 1) * unconditional
        latents = latents + velocity / num_steps
        kept.append(latents)
        steps.append(
            {
                "t_emb": moment,
                "enc_out": features,
                "llm_hidden_last576": picture,
                "v_cond": conditional,
                "v_uncond": unconditional,
                "v": velocity,
            }
        )
    return FlowDrawing(tokens, attended, torch.stack(kept), tuple(steps))


def _flow_rows(
    recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: VLMProcessor
) -> Iterator[Row]:
    """An entry of the generation side: its tensors, then its facts and its pictures."""
    name, head = entry["id"], model.flow_head
    if head is None:
        raise InputError(f"{recording.folder}: {name} draws, but the checkpoint has no generation side")
    question = recording.need(entry, "conversation", list)[0]
    prompt = processor.drawing_prompt(recording.need(question, "content", str))
    noise = recording.plain(f"{name}/noise")
    if noise is None or tuple(noise.shape[1:]) != head.latent_shape:
        raise InputError(f"{recording.folder}: {name} has no noise of shape (pictures, {head.latent_shape})")
    drawing = draw_plainly(
        model,
        head,
        prompt,
        noise,
        num_steps=recording.count(entry, "num_inference_steps", 1),
        guidance_scale=recording.need(entry, "cfg_weight", float),
        pad_id=processor.pad_id,
    )
    autoencoder = Autoencoder(
        recording.folder / "vae",
        channels=head.latent_shape[0],
        pixels=head.size[0] // head.latent_shape[1],
        device=model.device,
        dtype=torch.float32,
    )
    ours = {
        "input_ids": prompt.conditional,
        "cfg_token_rows": drawing.tokens,
        "attention_mask": drawing.attended,
        "z_after_step0": drawing.latents[0],
        "z_final": drawing.latents[-1],
        "vae_decoded": autoencoder.decode(drawing.latents[-1]),
    }
    for step, values in enumerate(drawing.steps[:RECORDED_STEPS]):
        ours |= {f"step{step}_{field}": value for field, value in values.items()}
    for field in recording.names(name):
        recorded = recording.tensor(f"{name}/{field}")
        assert recorded is not None  # names() lists what is described
        yield _tensor_row(name, field, recorded, ours.get(field))
    facts: dict[str, object] = {"prompt": prompt.text, "batch": len(noise), "vae_scaling_factor": autoencoder.scale}
    for field, value in facts.items():
        if entry.get(field) is not None:
            yield compare_values(name, field, entry[field], value)
    if entry.get("generated_png") is not None:
        yield _png_row(recording, entry, ours["vae_decoded"])
    for field in sorted(set(entry) - facts.keys() - _SETTINGS):
        yield unknown(name, field, shorten(entry[field]))


def _tensor_row(name: str, field: str, recorded: RecordedTensor, ours: Tensor | None) -> Row:
    if ours is None:
        return unknown(name, field, shorten(str(recorded.shape)))
    if not ours.is_floating_point():
        return compare_exact(name, field, recorded, ours.cpu())
    limit = next((limit for part, limit in _LIMITS.items() if field.endswith(part)), FLOW_LIMIT)
    return compare_close(name, field, recorded, ours.float().cpu(), limit)


def _png_row(recording: Recording, entry: Mapping[str, Any], decoded: Tensor) -> Row:
    """The first picture as bytes; rounding of floats may move a byte by one."""
    path = recording.inside(recording.need(entry, "generated_png", str))
    theirs, ours = np.asarray(open_image(path, official=True)), to_bytes(decoded)[0]
    apart = float(np.abs(theirs.astype(int) - ours).max()) if theirs.shape == ours.shape else None
    return judge(entry["id"], "generated_png", str(theirs.shape), str(ours.shape), apart, 1.0)


_LIMITS = {"vae_decoded": PIXEL_LIMIT, "enc_out": FEATURE_LIMIT, "llm_hidden_last576": LOGIT_LIMIT}
_SETTINGS = frozenset(
    ("id", "kind", "conversation", "cfg_weight", "num_inference_steps", "generated_png")
    + ("fp32_vs_fp64_max_abs", "note")
)
