"""Weight-only quantisation of a loaded decoder: a half or less of the bytes of bfloat16, in memory and in every step.

What becomes codes (``mm.language.packing``): the projections of attention and of the MLPs, and all experts. Embeddings,
head, norms, routers and ``kv_b_proj`` (whose halves are multiplied into queries and outputs) keep their type: small, or
sensitive.
"""

import torch
from torch import nn

from mm.config import Quantization
from mm.errors import OptionError
from mm.language.decoder import Decoder
from mm.language.joint import WithJoint
from mm.language.moe import MoE
from mm.language.packing import KINDS
from mm.language.quantized import QuantizedExperts, QuantizedJoint, QuantizedLinear
from mm.products import is_plain
from mm.transforms.fuse import joined_names

KEPT = ("kv_b_proj",)


def check_quantization(kind: object, device: torch.device | None = None) -> None:
    """Refuse what is no quantisation, or none that a device computes with.

    Args:
        kind: None is fine.
        device: where the model goes; None where that is not known yet.

    Raises:
        OptionError: it is none, or the device lacks its type.
    """
    if kind is None:
        return
    if kind not in KINDS:
        raise OptionError(
            f"quantization is {kind!r}; use one of {', '.join(KINDS)}, or None for the weights as they are."
        )
    if kind == "fp8" and device is not None:
        others = ", ".join(known for known in KINDS if known != "fp8")
        if device.type == "mps":
            raise OptionError(f"quantization 'fp8' has no type on {device}. Use one of {others}, or --device cpu.")
        if device.type == "cuda" and torch.version.hip is None:
            have = torch.cuda.get_device_capability(device)
            if have < (8, 9):
                raise OptionError(
                    f"quantization 'fp8' needs a GPU of compute capability 8.9 or later; {device} has "
                    f"{have[0]}.{have[1]}. Use one of {others}."
                )


def quantize(decoder: Decoder, kind: Quantization = "int8") -> None:
    """Round the weights of a loaded (and fused, where it shall be) decoder; there is no way back.

    Raises:
        OptionError: an unknown kind, or it is rounded in another one.
    """
    if is_to_be_rounded(decoder, kind):
        for layer in decoder.model.layers:
            quantize_layer(layer, kind)
        decoder.quantization = kind


def quantization_of(decoder: object) -> Quantization | None:
    """What the weights of a decoder are rounded to; None for wide ones, and for what is no decoder of ours."""
    return decoder.quantization if isinstance(decoder, Decoder) else None


def is_to_be_rounded(decoder: Decoder, kind: Quantization | None) -> bool:
    """Whether a decoder's weights are wide and shall be codes.

    Raises:
        OptionError: an unknown kind, or they are codes of another one.
    """
    check_quantization(kind)
    if kind is None or decoder.quantization == kind:
        return False
    if decoder.quantization is not None:
        have = decoder.quantization
        raise OptionError(f"these weights are {have} already and cannot become {kind}. Load them again.")
    return True


def quantize_layer(layer: nn.Module, kind: Quantization) -> None:
    """Round the weights of one layer of a decoder."""
    for module in list(layer.modules()):
        if isinstance(module, WithJoint) and module.joint is not None and module.joint.holds(module.joined):
            module.joint = None
            parts = []
            for name in joined_names(module):
                parts.append(QuantizedLinear.of(getattr(module, name), kind))
                setattr(module, name, parts[-1])
            module.joint = QuantizedJoint(parts)
        if isinstance(module, MoE):
            module.experts = QuantizedExperts(module.experts, kind)
        for name, child in list(module.named_children()):
            if is_plain(child) and name not in KEPT:
                setattr(module, name, QuantizedLinear.of(child, kind))
