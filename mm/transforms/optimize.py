"""What a loaded model goes through before it answers."""

import torch

from mm.language.decoder import Decoder
from mm.transforms.fuse import fuse
from mm.transforms.kernels import use_kernels
from mm.transforms.quantize import Quantization, quantize


def prepare(decoder: Decoder, *, optimize: bool = True, quantization: Quantization | None = None) -> str | None:
    """Fuse a loaded decoder, round its weights where it is asked for, and on CUDA run its steps with kernels.

    Args:
        decoder: loaded, with merged LoRA weights.
        optimize: False neither fuses nor uses kernels.
        quantization: see ``mm.transforms.quantize``.

    Returns:
        Why it runs without kernels; None where it has them.
    """
    if optimize:
        fuse(decoder)
    if quantization is not None:
        quantize(decoder, quantization)
    if decoder.lm_head.weight.device.type == "cuda":
        # What the separate weights took: torch would keep it, and who asks how much is free would miss it.
        torch.cuda.empty_cache()
    return use_kernels(decoder) if optimize else "they were not asked for"
