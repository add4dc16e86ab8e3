"""Models on a CPU with ``mm.products``, at load: what is computed stays the same but for rounding."""

from torch import nn

from mm.products import WideLinear


def use_wide_products(model: nn.Module) -> int:
    """Make the plain linear layers of a loaded model take the faster library, and give SigLIP towers their other way.

    A layer keeps its parameters and its name; on another device, in another type, or where gradients are wanted it is
    what it was.

    Returns:
        How many layers and towers were changed.
    """
    count = 0
    for module in list(model.modules()):
        if type(module) is nn.Linear:
            module.__class__ = WideLinear
            count += 1
    return count + _use_towers(model)


def _use_towers(model: nn.Module) -> int:
    if not any(hasattr(module, "plainly") for module in model.modules()):
        return 0  # timm is slow to import, and a model of text needs none of it
    from mm.vision.encoder import SiglipEncoder
    from mm.vision.intact import Intact
    from mm.vision.wide_encoder import WideSiglip, takes

    count = 0
    for module in model.modules():
        if isinstance(module, SiglipEncoder) and module.path is None and takes(module):
            module.path = Intact(WideSiglip(module), module.plainly, module)
            count += 1
    return count
