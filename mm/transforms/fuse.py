"""Products over the same input made one, at load: queries, keys and values; queries and latents; gates and ups.

One product of several layers reads its input once and is launched once. Every layer keeps its parameter under its own
name as a view of the common tensor, so saving, LoRA merging and changes in place need no inverse; ``unfuse`` gives each
parameter memory of its own again. Order of load-time changes: load, merge LoRA, fuse, quantise, record graphs.
"""

from torch import nn

from mm.language.attention import Attention
from mm.language.joint import Joint, WithJoint
from mm.language.latent_attention import LatentAttention
from mm.language.layers import GatedMLP
from mm.language.moe import Experts
from mm.products import is_plain


def fuse(model: nn.Module) -> int:
    """Make every product that can be common common; layer by layer, so that one layer at a time is in memory twice.

    Args:
        model: loaded and not trained any more. What is fused already stays.

    Returns:
        How many products were made common.
    """
    count = 0
    for module in model.modules():
        if isinstance(module, WithJoint):
            layers = [layer for layer in module.joined if is_plain(layer)]  # an adapter, LoRA, int8 are none
            held = module.joint is not None and module.joint.holds(module.joined)
            if not held and len(layers) == len(module.joined) and _agree(layers):
                module.joint = Joint(layers)
                count += 1
        elif isinstance(module, Experts) and not module.is_joint and not module.gate_proj.requires_grad:
            module.join()
            count += 1
    return count


def unfuse(model: nn.Module) -> None:
    """The inverse of ``fuse``: every parameter has memory of its own."""
    for module in model.modules():
        if isinstance(module, WithJoint) and module.joint is not None:
            module.joint.part()
            module.joint = None
        elif isinstance(module, Experts) and module.is_joint:
            module.part()


def joined_names(module: WithJoint) -> tuple[str, ...]:
    """Names of the layers of a module that take the same input."""
    if isinstance(module, Attention):
        return "q_proj", "k_proj", "v_proj"
    if isinstance(module, LatentAttention):
        return "q_proj" if module.config.q_lora_rank is None else "q_a_proj", "kv_a_proj_with_mqa"
    assert isinstance(module, GatedMLP)
    return "gate_proj", "up_proj"


def _agree(layers: list[nn.Linear]) -> bool:
    """Whether these are of one type and place, none of them trained."""
    first = layers[0]
    return all(
        not layer.weight.requires_grad
        and not layer.weight.is_meta
        and (layer.weight.device, layer.weight.dtype) == (first.weight.device, first.weight.dtype)
        for layer in layers
    )
