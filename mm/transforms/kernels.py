"""Decode steps and prompts with kernels of our own, on CUDA; checked against the modules before they are used."""

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mm.devices import on_device
from mm.language.attention import Step
from mm.language.cache import StaticCache
from mm.language.decoder import Decoder, DecoderLayer
from mm.transforms.difference import relative_difference

if TYPE_CHECKING:
    from mm.language.fast_decode import FastDecode  # imports triton

# Largest relative difference of a layer's result that rounding explains, by type.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
CHECKED_SIZES = ((1, 1), (3, 1), (8, 1), (2, 40), (1, 33))  # rows and tokens: one for each set of kernels
CHECKED_SLOTS = 64
CHECKED_PROMPT = 40  # tokens of the longer one of two prompts in one call


def use_kernels(decoder: Decoder) -> str | None:
    """Run the decode steps of a fused decoder with kernels, where they exist and give what the modules give.

    The first use on a machine compiles them, which takes some seconds; Triton keeps them on disk.

    Returns:
        Why the modules go on; None where the kernels are used.
    """
    weight = decoder.lm_head.weight
    if weight.device.type != "cuda" or torch.version.hip is not None:
        return "they are for NVIDIA GPUs"
    if decoder.placement is not None:
        return "they are for models on one GPU"
    if torch.cuda.get_device_capability(weight.device)[0] < 8:
        return "they are for compute capability 8.0 and later"
    if importlib.util.find_spec("triton") is None:
        missing = "Triton is not installed, which torch brings along on Linux; answers are the same, and come slower"
        warnings.warn(f"decode steps run without kernels of their own: {missing}.", stacklevel=2)
        return missing
    if weight.dtype not in TOLERANCE:
        return f"they are not for {weight.dtype}"
    from mm.language.fast_decode import FastDecode

    reason = FastDecode.suits(decoder)
    if reason is not None:
        return reason
    path = FastDecode(decoder)
    try:
        with on_device(weight):
            reason = fault(decoder, path)
            if reason is None and path.joins_prompts:
                _check_prompts(decoder, path)
    except Exception as error:  # whatever a compiler or a driver says: the modules do the work
        reason = f"they do not run here ({type(error).__name__}: {error})"
    if reason is not None:
        warnings.warn(f"decode steps run without kernels of their own: {reason}", stacklevel=2)
        return reason
    decoder.path = path
    return None


def _check_prompts(decoder: Decoder, path: "FastDecode") -> None:
    """Let prompts go one by one where several padded ones do not agree with the modules."""
    reason = None
    try:
        found = prompts_deviation(decoder, path)
        if not found <= TOLERANCE[decoder.lm_head.weight.dtype]:
            reason = f"several at once differ from the modules by {found:.2g} here, more than rounding explains"
    except Exception as error:  # whatever a compiler or a driver says
        reason = f"several at once fail here ({type(error).__name__}: {error})"
    if reason is not None:
        path.joins_prompts = False
        warnings.warn(f"prompts are taken in one by one, without graphs: {reason}", stacklevel=3)


def fault(decoder: Decoder, path: "FastDecode") -> str | None:
    """What speaks against the path after all: a size in which it differs from the modules, or that it takes no step of
    one token. Other sizes may be left to the modules, such as the experts of a prompt in float32."""
    for rows, tokens in CHECKED_SIZES:
        found = deviation(decoder, path, rows, tokens)
        if found is None and tokens == 1:
            return f"they do not take a step of {rows} rows: its weights are not joined, or trained"
        if found is not None and found > TOLERANCE[decoder.lm_head.weight.dtype]:
            return (
                f"they differ from the modules by {found:.2g} here at {rows} x {tokens} tokens, more than rounding "
                "explains"
            )
    return None


@torch.inference_mode()
def deviation(decoder: Decoder, path: "FastDecode", rows: int, tokens: int = 1) -> float | None:
    """The largest relative difference of path and modules in the first and the last layer, on random numbers; None
    where the path leaves such a call to the modules.

    Attention and experts have the same input in both: where the modules' rounding differs from the path's, a token may
    go to another expert, which would look like a fault.
    """
    weight = decoder.lm_head.weight
    generator = torch.Generator().manual_seed(rows)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight)

    cache = decoder.new_cache(rows, CHECKED_SLOTS)
    x = numbers(rows, tokens, weight.shape[1])
    starts = torch.randint(CHECKED_SLOTS - tokens + 1, (rows, 1), generator=generator)
    begins = rows == 1 and tokens > 1  # a prompt from its first token on
    step = decoder.step_at(x, None if begins else (starts + torch.arange(tokens)).to(weight.device), cache)
    if not path.takes(x, step):
        return None
    logits = path.head(x)
    worst = 0.0 if logits is None else relative_difference(logits, decoder.lm_head(x))
    everything = torch.ones(rows * tokens, dtype=torch.bool, device=weight.device)
    return max(worst, _in_layers(decoder, path, x, step, cache, numbers, everything))


@torch.inference_mode()
def prompts_deviation(decoder: Decoder, path: "FastDecode") -> float:
    """The same for two prompts in one call (``Decoder.prompts``), at their beginnings and later; what stands behind
    them is not looked at."""
    weight = decoder.lm_head.weight
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight)

    worst = 0.0
    rows, counts = (
        torch.tensor(values, device=weight.device) for values in ([2, 0], [CHECKED_PROMPT, CHECKED_PROMPT - 7])
    )
    for starts, visible in (([0, 0], None), ([9, 20], CHECKED_SLOTS)):
        cache = decoder.new_cache(3, CHECKED_SLOTS + 1)
        x = numbers(2, CHECKED_PROMPT, weight.shape[1])
        step, x = decoder.prompts_step(x, rows, torch.tensor(starts, device=weight.device), counts, cache, visible)
        if not path.takes(x, step):
            return math.inf
        inside = torch.arange(CHECKED_PROMPT, device=weight.device) < counts.unsqueeze(1)
        worst = max(worst, _in_layers(decoder, path, x, step, cache, numbers, inside.flatten(), parts=2))
    return worst


def _in_layers(
    decoder: Decoder,
    path: "FastDecode",
    x: Tensor,
    step: Step,
    cache: StaticCache,
    numbers: Callable[..., Tensor],
    inside: Tensor,
    parts: int = 1,
) -> float:
    """The largest relative difference in the first and the last layer.

    Args:
        decoder: with the modules.
        path: with the kernels.
        x: (B, T, D), the input.
        step: where its tokens stand.
        cache: what it holds is overwritten.
        numbers: gives random ones of a shape.
        inside: (B * T,) bool, tokens whose results count.
        parts: see ``FastDecode.feed``.
    """
    h, worst = x.flatten(0, 1), 0.0
    slots = slice(None) if step.rows is None else slice(-1)  # the last one takes what stands behind prompts
    for index in {0, len(decoder.model.layers) - 1}:
        layer, stored = decoder.model.layers[index], cache.layers[index]
        assert isinstance(layer, DecoderLayer)
        for tensor in stored.tensors:
            tensor.copy_(numbers(*tensor.shape))
        before = [tensor.clone() for tensor in stored.tensors]
        expected = layer.self_attn(x, step, stored).flatten(0, 1)[inside]
        written = [tensor[:, slots].clone() for tensor in stored.tensors]
        for tensor, old in zip(stored.tensors, before, strict=True):
            tensor.copy_(old)
        found = path.attend(index, h, step, cache)[inside]
        norm = layer.input_layernorm
        worst = max(
            worst,
            relative_difference(found, expected),
            relative_difference(path.feed(index, h, parts)[inside], layer.mlp(x).flatten(0, 1)[inside]),
            relative_difference(path.normed(h[inside], found, norm), norm(h[inside] + found)),
            *(
                relative_difference(tensor[:, slots], other)
                for tensor, other in zip(stored.tensors, written, strict=True)
            ),
        )
    return worst
