"""Weight-only int8: half the memory of bfloat16, and half the bytes that a decode step reads.

What becomes bytes: the projections of attention and of the MLPs, and all experts. Embeddings, head, norms, routers and
``kv_b_proj`` (whose halves are multiplied into queries and outputs) keep their type: small, or sensitive.
"""

from typing import Literal

from torch import nn

from mm.errors import OptionError
from mm.language.decoder import Decoder
from mm.language.int8 import Int8Experts, Int8Joint, Int8Linear
from mm.language.moe import MoE
from mm.transforms.fuse import WITH_JOINT, joined_names

Quantization = Literal["int8"]

KEPT = ("kv_b_proj",)


def check_quantization(kind: object) -> None:
    """Refuse what is no quantization.

    Raises:
        OptionError: it is none.
    """
    if kind not in (None, "int8"):
        raise OptionError(f"quantization is {kind!r}; use 'int8', or None for the weights as they are.")


def quantize(decoder: Decoder, kind: Quantization = "int8") -> None:
    """Round the weights of a loaded (and fused, where it shall be) decoder; there is no way back.

    Raises:
        OptionError: an unknown kind.
    """
    check_quantization(kind)
    if decoder.quantization is not None:
        return
    for layer in decoder.model.layers:
        for module in list(layer.modules()):
            if isinstance(module, WITH_JOINT) and module.joint is not None and module.joint.holds(module.joined):
                joint = Int8Joint(module.joint)
                module.joint = joint
                for name, part in zip(joined_names(module), joint.parts, strict=True):
                    setattr(module, name, part)
            if isinstance(module, MoE):
                module.experts = Int8Experts(module.experts)
            for name, child in list(module.named_children()):
                if type(child) is nn.Linear and name not in KEPT:
                    setattr(module, name, Int8Linear.of(child))
    decoder.quantization = kind
