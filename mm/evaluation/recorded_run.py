"""Our side of a recorded conversation: the public parts of mm, with the intermediate values kept."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mm.chat import parse_messages
from mm.contracts import Inputs
from mm.errors import InputError
from mm.evaluation.recording import Recording
from mm.generation.engine import Engine
from mm.generation.row import Row as Answer
from mm.generation.sampling import SamplingOptions
from mm.model import VisionLanguageModel
from mm.processing.base import Processor


class _EveryView:
    """Encodes equal views again, as the official code does: the recorded features hold one entry a view."""

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Views (N, 3, S, S) -> tokens (N, M, D)."""
        return encode(pixels)


class Run:
    """One conversation through the model, each part computed when a field first asks for it."""

    def __init__(
        self, recording: Recording, entry: Mapping[str, Any], model: VisionLanguageModel, processor: Processor
    ) -> None:
        self.recording, self.entry, self.model, self.processor = recording, entry, model, processor
        self.name: str = entry["id"]
        self.inputs = read_inputs(recording, entry, processor)
        # Tokens whose routing hangs on less than the rounding of float32: another choice is no mistake.
        self.ties: list[int] = []
        if entry.get("router_margin") is not None:
            margin = recording.need(entry, "router_margin", dict)
            self.ties = [tie for tie in recording.need(margin, "close_positions", list) if isinstance(tie, int)]

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
        with torch.inference_mode(), module_outputs(wanted) as outputs:
            (embeds,) = model.embed_inputs([self.inputs], _EveryView())
            if "vision_out" in self.recording.names(self.name) and not self.inputs.pixels.shape[0]:
                model.encode_views(
                    self.inputs.pixels.new_zeros(1, *self.inputs.pixels.shape[1:])
                )  # unused, as recorded
            hidden = model.decoder(embeds.unsqueeze(0))
        for field, values in outputs.items():
            if values and field in PICKED:
                found[field] = torch.cat(PICKED[field](values))
            elif values and isinstance(values[0], Tensor):
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
        tokens, logits = generate_batch(self.recording, self.model, self.processor, [self.inputs], self.entry, chunk)
        return tokens[0], logits[:, 0]


def read_inputs(recording: Recording, entry: Mapping[str, Any], processor: Processor) -> Inputs:
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
    messages = parse_messages(named, image_tags=(processor.spec.image_token,))
    return processor.process(messages, official_images=True)


def generate_batch(
    recording: Recording,
    model: VisionLanguageModel,
    processor: Processor,
    inputs: list[Inputs],
    entry: Mapping[str, Any],
    chunk: int,
) -> tuple[list[list[int]], Tensor]:
    """Greedy answers of a batch and the model's logits (steps, B, V) behind them, on the CPU."""
    options = SamplingOptions(repetition_penalty=repetition_penalty(recording, entry), detect_loops=False)
    greedy = [] if entry.get("greedy_tokens") is None else recording.need(entry, "greedy_tokens", list)
    longest = max([len(row) if isinstance(row, list) else len(greedy) for row in greedy], default=1)
    max_new_tokens = recording.count(entry, "max_new_tokens", max(longest, 1))
    tokenizer = processor.tokenizer
    answers = [
        Answer(
            prompt_ids=row.input_ids,
            options=options,
            max_new_tokens=max_new_tokens,
            end_ids=frozenset((tokenizer.eos_id,)),
            hidden_ids=frozenset(),
            decode=tokenizer.decode,
        )
        for row in inputs
    ]
    logits: list[list[Tensor]] = [[] for _ in inputs]
    with Engine(
        model.decoder, lambda piece: model.embed_inputs([piece])[0], device=model.device, chunk=chunk
    ) as engine:
        handles = [
            engine.submit(row, answer, on_logits=kept.append)
            for row, answer, kept in zip(inputs, answers, logits, strict=True)
        ]
        for handle in handles:
            handle.result()
    steps = max(len(kept) for kept in logits)
    stacked = torch.zeros(steps, len(inputs), model.decoder.vocab_size)  # zeros where an answer has ended
    for index, kept in enumerate(logits):
        stacked[: len(kept), index] = torch.stack(kept).cpu()
    return [answer.tokens for answer in answers], stacked


def repetition_penalty(recording: Recording, entry: Mapping[str, Any]) -> float:
    value = entry.get("repetition_penalty")
    if value is None or isinstance(value, int):
        return 1.0 if value is None else float(value)
    return recording.need(entry, "repetition_penalty", float)


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


def _inside(model: VisionLanguageModel, *names: str) -> nn.Module | None:
    """The first of these parts of the vision side that it has."""
    for name in names:
        try:
            return model.vision.get_submodule(name)
        except AttributeError:
            continue
    return None


def _siglip(model: VisionLanguageModel, name: str) -> nn.Module | None:
    """Part of the SigLIP tower: the vision side itself, or inside DeepSeek-VL's single or hybrid one."""
    return _inside(model, name, f"tower.{name}", f"low.tower.{name}")


def _halves(values: list[Any]) -> list[Tensor]:
    """``vision_out``: the features of one tower, or of a hybrid's two the high-resolution ones."""
    return [value[0] if isinstance(value, tuple) else value for value in values]


# Recorded intermediate -> the module whose output it is.
MODULES: tuple[tuple[re.Pattern[str], Callable[[VisionLanguageModel, list[int]], nn.Module | None]], ...] = (
    (re.compile("siglip_patch_embed"), lambda model, _: _siglip(model, "patch_embed")),
    (re.compile("siglip_pos_drop"), lambda model, _: _siglip(model, "pos_drop")),
    (re.compile("siglip_norm"), lambda model, _: _siglip(model, "norm")),
    (re.compile("siglip_out"), lambda model, _: _inside(model, "low")),
    (re.compile("low_res_pixels"), lambda model, _: _inside(model, "shrink")),
    (re.compile("sam_out"), lambda model, _: _inside(model, "high")),
    (re.compile(r"sam_block(\d+)"), lambda model, numbers: _inside(model, f"high.tower.blocks.{numbers[0]}")),
    (re.compile("sam_patch_embed"), lambda model, _: _inside(model, "high.tower.patch_embed")),
    (re.compile("sam_neck_hd"), lambda model, _: _inside(model, "high.tower.neck_hd")),
    (re.compile("sam_neck"), lambda model, _: _inside(model, "high.tower.neck")),
    (re.compile("sam_downsamples"), lambda model, _: _inside(model, "high.tower.downsamples")),
    (re.compile(r"siglip_block(\d+)"), lambda model, numbers: _siglip(model, f"blocks.{numbers[0]}")),
    (re.compile(r"llm_attn_(\d+)"), lambda model, numbers: getattr(_layer(model, numbers[0]), "self_attn", None)),
    (re.compile(r"llm_hidden_(\d+)"), _hidden),
    (re.compile(r"moe(\d+)_topk_(?:idx|weight)"), _router),
)

# Modules that do not give what is recorded of them: their calls -> the recorded tensors.
PICKED: Mapping[str, Callable[[list[Any]], list[Tensor]]] = {
    "vision_out": _halves,
    "sam_downsamples": lambda values: values[::2],  # each view passes them twice, the main stream first
}


@contextmanager
def module_outputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
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
