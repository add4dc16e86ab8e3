"""What a loaded model goes through before it answers."""

from mm.language.decoder import Decoder
from mm.transforms.fuse import fuse
from mm.transforms.kernels import use_kernels


def optimize(decoder: Decoder) -> str | None:
    """Fuse a loaded decoder, and on CUDA run its decode steps with kernels.

    Returns:
        Why it runs without kernels; None where it has them.
    """
    fuse(decoder)
    return use_kernels(decoder)
