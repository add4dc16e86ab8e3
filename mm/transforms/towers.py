"""Encoders and the image tokenizer with kernels of our own, on CUDA; compared with the modules before they are used."""

import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mm.devices import on_device
from mm.generation.vq import VQTokenizer
from mm.graphed import Graphed
from mm.transforms.difference import relative_difference

Way = Callable[[Tensor], Tensor]

TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # largest relative difference that rounding explains
RECORDED_VIEWS = 2  # that are one graph; more of them take longer to compute than to launch
CHECKED_CODES = 4  # down and across, of the tokenizer's check


class Guarded:
    """A way with kernels that gives way to the modules, for good, where it fails on a shape that its check did not see.

    Args:
        module: what is run; the way is taken while its weights have the type and the device of the check.
        path: the way.
        plain: the modules'.
    """

    def __init__(self, module: nn.Module, path: Way, plain: Way) -> None:
        self._weight = _first_weight(module)
        self._name, self._path, self._plain = type(module).__name__, path, plain
        self._checked = self._weight().device, self._weight().dtype
        self._failed = False

    def __call__(self, given: Tensor) -> Tensor:
        """What the way gives, or else the modules.

        Raises:
            torch.OutOfMemoryError: as the modules would; the way is kept.
        """
        weight = self._weight()
        if not self._failed and (weight.device, weight.dtype) == self._checked:
            try:
                with on_device(given):
                    found = self._path(given)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler or a driver says: the modules do the work
                self._failed = True
                reason = f"they fail on {tuple(given.shape)} ({type(error).__name__}: {error})"
                warnings.warn(f"{self._name} runs without kernels of its own from here on: {reason}", stacklevel=2)
            else:
                # What was computed in inference mode may not be trained on, a copy of it may.
                return found.clone() if found.is_inference() and not torch.is_inference_mode_enabled() else found
        return self._plain(given)

    def clear(self) -> None:
        """Gives back the memory of recorded graphs; they are recorded again when they are needed."""
        if isinstance(self._path, Graphed):
            self._path.clear()


def _first_weight(module: nn.Module) -> Callable[[], Tensor]:
    """Asks for a module's first parameter as it is then: another one may have taken the place of it."""
    part, name = next(
        (part, name) for part in module.modules() for name, weight in part._parameters.items() if weight is not None
    )
    return partial(getattr, part, name)


def use_tower_kernels(model: nn.Module) -> list[str]:
    """Run the towers and the image tokenizer of a loaded model with kernels, where they give what the modules give.

    Float32 models keep the modules: they are for comparisons. So do towers that were compiled or are trained.

    Returns:
        What runs with kernels now.
    """
    weight = next(model.parameters(), None)
    if weight is None or weight.device.type != "cuda" or torch.version.hip is not None:
        return []
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(weight.device)[0] < 9:
        return []
    from mm.vision.encoder import SiglipEncoder
    from mm.vision.fast_encoder import FastSam, FastSiglip
    from mm.vision.sam import SamEncoder

    used = []
    for module in model.modules():
        own = next(module.parameters(), weight)
        if own.dtype not in TOLERANCE or own.device.type != "cuda":
            continue
        name = type(module).__name__
        with on_device(own):
            try:
                if isinstance(module, SiglipEncoder):
                    works = _use(module, FastSiglip(module), module.plainly)
                elif isinstance(module, SamEncoder):
                    works = _use(module, FastSam(module), module.encode_plainly)
                else:
                    works = isinstance(module, VQTokenizer) and _paint(module)
            except Exception as error:  # whatever a compiler or a driver says: the modules do the work
                reason = f"they do not run here ({type(error).__name__}: {error})"
                warnings.warn(f"{name} runs without kernels of its own: {reason}", stacklevel=2)
                continue
        if works:
            used.append(name)
    return used


@torch.inference_mode()
def _use(tower: Any, path: Way, plain: Way) -> bool:
    """Give a tower its other way, where that gives what the modules give."""
    from mm.vision.fast_encoder import takes
    from mm.vision.intact import Intact

    if not takes(tower):
        return False
    side = tower.patch_embed.img_size[0]
    weight = next(tower.parameters())
    views = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(weight)
    if not _is_close(type(tower).__name__, path(views), plain(views)):
        return False
    graphed = Graphed(path, most=RECORDED_VIEWS, modules=[tower])
    tower.path = Intact(Guarded(tower, graphed, plain), plain, tower)
    return True


@torch.inference_mode()
def _paint(tokenizer: VQTokenizer) -> bool:
    """Likewise for the half of an image tokenizer that paints."""
    if importlib.util.find_spec("diffusers") is None:
        return False
    from mm.generation.fast_paint import FastPaint

    if not FastPaint.suits(tokenizer.config):
        return False
    place, path = tokenizer.get_parameter("post_quant_conv.weight").device, FastPaint(tokenizer, tokenizer.config)
    tokenizer.path = None
    shape = 1, CHECKED_CODES, CHECKED_CODES, tokenizer.config.code_width
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(place)
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    # Many convolutions in a row, each of them rounded: either way is 0.04 off the result in float32.
    if not _is_close("VQTokenizer", path(vectors), tokenizer.paint_plainly(vectors), allowed=4.0):
        return False
    parts = [tokenizer.get_submodule(name) for name in ("decoder", "post_quant_conv")]
    tokenizer.path = Guarded(tokenizer, Graphed(path, most=1, modules=parts), tokenizer.paint_plainly)
    return True


def _is_close(name: str, found: Tensor, expected: Tensor, *, allowed: float = 1.0) -> bool:
    difference = relative_difference(found, expected)
    if difference <= allowed * TOLERANCE[expected.dtype]:
        return True
    warnings.warn(
        f"{name} runs without kernels of its own: they differ from the modules by {difference:.2g} here, more than "
        "rounding explains",
        stacklevel=3,
    )
    return False
