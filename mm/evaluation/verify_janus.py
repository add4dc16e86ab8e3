"""What is compared in a recorded Janus case: conversations, the image tokenizer both ways, and guided drawing.

Letters: P pictures drawn together, T prompt tokens, N codes of a picture, K codes of the codebook, V rows of P pairs.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.contracts import DrawingPrompt
from mm.devices import exact_convolutions
from mm.errors import InputError
from mm.evaluation.compare import Row, compare_close, compare_exact, compare_values, judge, shorten, unknown
from mm.evaluation.recorded_run import Run, module_outputs
from mm.evaluation.recording import Recording
from mm.evaluation.understanding import FEATURE_LIMIT, LOGIT_LIMIT, batch_rows, conversation_rows, tokenizer_rows
from mm.evaluation.whole_prompt import TABLES, tokenizer_facts
from mm.families.janus import build_processor
from mm.families.janus_config import parse_config
from mm.families.table import load_model, read_json
from mm.generation.image_head import ImageHead
from mm.generation.vq import VQTokenizer, to_bytes, to_pixels
from mm.images import open_image
from mm.model import VisionLanguageModel
from mm.processing.vlm import VLMProcessor

PIXEL_LIMIT = 1e-4  # decoded pixels and what is computed on the way to and from them
# The official encode-and-decode runs its decoder over channels-last pictures, which torch's group norm sums less
# exactly on the CPU: what it recorded is 1.2e-4 off the same code in float64, and ours 2e-5.
ROUND_TRIP_LIMIT = 2e-4
RECORDED_STEPS = 9  # of a drawing, whose logits are stored


def verify_janus(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``janus_pro`` case, in the order of the file.

    Raises:
        CheckpointError: the checkpoint of the case cannot be loaded.
        InputError: an entry is not of the recorded form.
    """
    folder = recording.folder / "checkpoint"
    processor = build_processor(folder, parse_config(read_json(folder / "config.json")))
    tags = processor.spec.tags
    facts: dict[str, object] = {
        **tokenizer_facts(processor),
        "image_start_id": processor.tokenizer.token_id(str(tags.image_start)),
        "image_end_id": processor.tokenizer.token_id(str(tags.image_end)),
    }
    yield from tokenizer_rows(recording, processor, facts)
    entries = recording.entries
    progress("loading the model")
    model = load_model(folder, device=device, dtype="float32")
    for entry in entries:
        progress(entry["id"])
        if entry.get("kind") is not None:
            yield from _image_rows(recording, entry, model, processor)
        elif entry.get("batch"):
            yield from batch_rows(recording, entry, model, processor, TABLES)
        else:
            yield from conversation_rows(Run(recording, entry, model, processor), TABLES)


def _image_rows(
    recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: VLMProcessor
) -> Iterator[Row]:
    """An entry of the generation side: its tensors, then its facts."""
    name, head = entry["id"], model.image_head
    if head is None:
        raise InputError(f"{recording.folder}: {name} draws, but the checkpoint has no generation side")
    run = _RUNS.get(entry["kind"])
    if run is None:
        yield unknown(name, "kind", shorten(entry["kind"]))
        return
    ours = run(recording, entry, model, head, processor)
    for field in recording.names(name):
        recorded = recording.tensor(f"{name}/{field}")
        assert recorded is not None  # names() lists what is described
        tensor = ours.tensors.get(field)
        if tensor is None:
            yield unknown(name, field, shorten(str(recorded.shape)))
        elif tensor.is_floating_point():
            limit = next((limit for pattern, limit in _LIMITS if pattern.fullmatch(field)), PIXEL_LIMIT)
            yield compare_close(name, field, recorded, tensor.float().cpu(), limit)
        else:
            yield compare_exact(name, field, recorded, tensor.cpu())
    for field, value in ours.facts.items():
        if entry.get(field) is not None:
            yield compare_values(name, field, entry[field], value)
    if entry.get("generated_png") is not None:
        yield _png_row(recording, entry, ours.tensors["decoded"])
    for field in sorted(set(entry) - ours.facts.keys() - _IMAGE_SETTINGS):
        yield unknown(name, field, shorten(entry[field]))


def _png_row(recording: Recording, entry: Mapping[str, Any], decoded: Tensor) -> Row:
    """The picture as bytes; rounding of floats may move a byte by one."""
    path = recording.inside(recording.need(entry, "generated_png", str))
    theirs, ours = np.asarray(open_image(path, official=True)), to_bytes(decoded)[0]
    apart = float(np.abs(theirs.astype(int) - ours).max()) if theirs.shape == ours.shape else None
    return judge(entry["id"], "generated_png", str(theirs.shape), str(ours.shape), apart, 1.0)


@dataclass(frozen=True)
class _Computed:
    """Our side of an entry, by recorded names."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, object]


def _decoded(vq: VQTokenizer, codes: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Codes to pixels, with the intermediate values."""
    _, decoder = vq.networks()
    wanted: dict[str, nn.Module] = {
        "dec_conv_in": decoder.conv_in,
        "dec_mid0": decoder.mid_block.resnets[0],
        "dec_mid1": decoder.mid_block.attentions[0],
        "dec_mid2": decoder.mid_block.resnets[1],
        "dec_norm_out": decoder.conv_norm_out,
        **{f"dec_up{index}": block for index, block in enumerate(decoder.up_blocks)},
    }
    with module_outputs(wanted) as outputs:
        pixels = vq.decode(codes, grid)
    return {"decoded": pixels, **{name: torch.cat(values) for name, values in outputs.items()}}


def _run_decode(
    recording: Recording,
    entry: Mapping[str, Any],
    model: VisionLanguageModel,
    head: ImageHead,
    processor: VLMProcessor,
) -> _Computed:
    codes = recording.plain(f"{entry['id']}/codes")
    shape = recording.need(entry, "shape", list)
    if codes is None or len(shape) != 4:
        raise InputError(f"{recording.folder}: {entry['id']} has no codes or no shape of four sides")
    grid = (int(shape[2]), int(shape[3]))
    tensors = _decoded(head.vq, codes, grid)
    with torch.inference_mode():
        vectors = head.vq.codebook()[codes.to(model.device).long()].unflatten(1, grid).permute(0, 3, 1, 2)
        tensors["post_quant_conv"] = _project(head.vq, "post_quant_conv", vectors)
    return _Computed({"codes": codes, **tensors}, {"shape": [codes.shape[0], head.vq.config.code_width, *grid]})


def _run_encode(
    recording: Recording,
    entry: Mapping[str, Any],
    model: VisionLanguageModel,
    head: ImageHead,
    processor: VLMProcessor,
) -> _Computed:
    vq = head.vq
    picture = np.asarray(open_image(recording.inside(recording.need(entry, "input_png", str)), official=True))
    encoder, _ = vq.networks()
    wanted: dict[str, nn.Module] = {
        "enc_conv_in": encoder.conv_in,
        "enc_conv_out": encoder.conv_out,
        **{f"enc_down{index}": block for index, block in enumerate(encoder.down_blocks)},
    }
    with module_outputs(wanted) as outputs:
        codes = vq.encode(to_pixels(picture))
    tensors = {name: values[0] for name, values in outputs.items()}
    grid = (picture.shape[0] // vq.config.downsampling, picture.shape[1] // vq.config.downsampling)
    with torch.inference_mode():
        tensors["quant_conv"] = _project(vq, "quant_conv", tensors["enc_conv_out"])
        tensors["quant"] = vq.codebook()[codes].unflatten(1, grid).permute(0, 3, 1, 2)
    tensors["reconstruction"] = vq.decode(codes, grid)
    tensors["indices"] = codes[0]
    return _Computed(tensors, {"size_wh": [picture.shape[1], picture.shape[0]]})


def _project(vq: VQTokenizer, name: str, picture: Tensor) -> Tensor:
    weight = vq.get_parameter(f"{name}.weight")
    with exact_convolutions(weight.device, weight.dtype):
        return F.conv2d(picture, weight, vq.get_parameter(f"{name}.bias"))


@dataclass(frozen=True)
class Drawing:
    """What the plain loop computed; steps stand first."""

    codes: Tensor  # (P, N) int64
    conditional: Tensor  # (N, P, K) float32
    unconditional: Tensor  # (N, P, K)
    guided: Tensor  # (N, P, K)
    embeds: Tensor  # (N, P, D), what was fed back


@torch.inference_mode()
def draw_greedily(
    model: VisionLanguageModel,
    head: ImageHead,
    prompt: DrawingPrompt,
    *,
    steps: int,
    guidance_scale: float,
    pictures: int,
) -> Drawing:
    """The most likely code under guidance, step by step: a plain loop over the decoder's contract, to check others by.

    Conditional and unconditional rows alternate (as published, pads of the unconditional prompt are attended), and
    logits are u + scale * (c - u). Both prompts must be of one length.
    """
    decoder = model.decoder
    rows = torch.stack((prompt.conditional, prompt.unconditional)).repeat(pictures, 1).to(model.device)  # (V, T)
    length = rows.shape[1]
    cache = decoder.new_cache(len(rows), length + steps)
    hidden = decoder(decoder.embed(rows), cache=cache)[:, -1]  # (V, D)
    kept: list[tuple[Tensor, ...]] = []
    for step in range(steps):
        conditional, unconditional = head.logits(hidden).unflatten(0, (pictures, 2)).unbind(1)  # (P, K) each
        guided = unconditional + guidance_scale * (conditional - unconditional)
        codes = guided.argmax(dim=-1)  # (P,)
        embeds = head.embed(codes)  # (P, D)
        kept.append((codes, conditional, unconditional, guided, embeds))
        if step < steps - 1:
            positions = torch.full((len(rows), 1), length + step, device=rows.device)
            fed = embeds.repeat_interleave(2, dim=0)[:, None]  # (V, 1, D)
            hidden = decoder(fed, positions=positions, cache=cache, visible=length + step + 1)[:, -1]
    codes, *others = (torch.stack(values) for values in zip(*kept, strict=True))
    return Drawing(codes.T, *others)


def _run_generation(
    recording: Recording,
    entry: Mapping[str, Any],
    model: VisionLanguageModel,
    head: ImageHead,
    processor: VLMProcessor,
) -> _Computed:
    question = recording.need(entry, "conversation", list)[0]
    prompt = processor.drawing_prompt(recording.need(question, "content", str))
    down, across = (int(side) for side in recording.need(entry, "grid", list))
    pictures = recording.count(entry, "parallel_size", 1)
    drawing = draw_greedily(
        model,
        head,
        prompt,
        steps=down * across,
        guidance_scale=recording.need(entry, "cfg_weight", float),
        pictures=pictures,
    )
    identical = bool((drawing.codes == drawing.codes[:1]).all())
    return _Computed(
        {
            "input_ids": prompt.conditional,
            "cfg_token_rows": torch.stack((prompt.conditional, prompt.unconditional)),
            "gen_logits_cond": drawing.conditional[:RECORDED_STEPS, 0],
            "gen_logits_uncond": drawing.unconditional[:RECORDED_STEPS, 0],
            "gen_logits_mixed": drawing.guided[:RECORDED_STEPS, 0],
            "img_embeds": drawing.embeds[:RECORDED_STEPS, 0],
            "generated_tokens": drawing.codes,
            "decoded": head.vq.decode(drawing.codes[:1], (down, across)),
        },
        {
            "prompt": prompt.text,
            "decode_shape": [pictures, head.vq.config.code_width, down, across],
            "rows_identical": identical,
        },
    )


_RUNS = {"vq_decode": _run_decode, "vq_encode": _run_encode, "generation": _run_generation}
_LIMITS = (
    (re.compile("gen_logits_.*"), LOGIT_LIMIT),
    (re.compile("img_embeds|quant"), FEATURE_LIMIT),
    (re.compile("reconstruction"), ROUND_TRIP_LIMIT),
)
_IMAGE_SETTINGS = frozenset(
    ("id", "kind", "input_png", "input_range", "conversation", "cfg_weight", "grid", "parallel_size", "generated_png")
    + ("min_index_gap", "min_top2_gap", "n_gaps_below_1e-3", "fp32_vs_fp64_max_abs", "note")
)
