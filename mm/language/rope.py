"""Rotary position embeddings: plain, linearly scaled, Llama 3.1's scaling and YaRN.

Letters: B rows, T tokens, H heads, R rotated dimensions of a head.
"""

import math
import threading

import torch
from torch import Tensor, nn

from mm.config import LinearScalingConfig, Llama3ScalingConfig, RopeConfig, YarnConfig

_growing = threading.Lock()  # of every table: a lock inside a module could not be copied


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature term ``0.1 * mscale * ln(factor) + 1`` (arXiv 2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def inverse_frequencies(rope: RopeConfig, width: int) -> Tensor:
    """(width / 2,) float32 inverse frequencies.

    YaRN keeps the fast dimensions, divides the slow ones by ``factor`` and blends linearly between the dimensions that
    turn ``beta_fast`` and ``beta_slow`` times within the original context (DeepSeek-V2's published code). Llama 3.1
    does the same by turns of each dimension instead of by its number.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width
    plain = 1.0 / (rope.theta**exponents)
    scaling = rope.scaling
    if scaling is None:
        return plain
    if isinstance(scaling, LinearScalingConfig):
        return plain / scaling.factor  # equals dividing the positions
    if isinstance(scaling, Llama3ScalingConfig):
        turns = plain * scaling.original_max_positions / (2 * math.pi)  # within the original context
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * kept + plain / scaling.factor * (1 - kept)
    slow = 1.0 / (scaling.factor * rope.theta**exponents)

    def dimension_of(turns: float) -> float:
        return width * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first = max(math.floor(dimension_of(scaling.beta_fast)), 0)
    last = min(math.ceil(dimension_of(scaling.beta_slow)), width - 1)
    span = last - first if last != first else 0.001
    ramp = ((torch.arange(width // 2, dtype=torch.float32, device="cpu") - first) / span).clamp(0, 1)
    return slow * ramp + plain * (1 - ramp)


class Rope(nn.Module):
    """Tables of cos and sin for every position, filled by ``ensure`` (outside of any step).

    The tables are no parameters and are in no checkpoint; they live in float32 and are cast at use. They are made as
    long as the model's context at once and stay where they are, so that a captured graph may hold their address. Where
    more is asked of them they are replaced by longer ones, and the old ones are kept for such graphs.

    Args:
        config: base and scaling.
        width: R.
        context: positions that the tables cover from the start.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: RopeConfig, width: int, context: int = 0) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.context = context
        self._outgrown: list[tuple[Tensor, Tensor]] = []
        self.register_buffer("cos", torch.empty(0, width), persistent=False)
        self.register_buffer("sin", torch.empty(0, width), persistent=False)

    def ensure(self, length: int, device: torch.device) -> None:
        """Make the tables cover positions 0..length-1 on ``device``. Threads may ask at the same time."""
        if self._covers(length, device):
            return
        with _growing:  # a thread with a shorter prompt must not replace the longer table of another one
            if not self._covers(length, device):
                self._grow(max(length, self.context, self.cos.shape[0]), device)

    def _covers(self, length: int, device: torch.device) -> bool:
        return all(
            table.shape[0] >= length and table.device == device and table.dtype == torch.float32
            for table in (self.cos, self.sin)
        )

    def _grow(self, length: int, device: torch.device) -> None:
        if device.type == "meta":  # a model that is counted, not run
            self.cos, self.sin = (torch.empty(length, self.width, device=device) for _ in range(2))
            return
        positions = torch.arange(length, dtype=torch.float32, device="cpu")
        angles = torch.outer(positions, inverse_frequencies(self.config, self.width))
        angles = torch.cat((angles, angles), dim=-1)  # (length, R)
        scaling = self.config.scaling
        scale = 1.0
        if isinstance(scaling, YarnConfig):
            scale = yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(scaling.factor, scaling.mscale_all_dim)
        if self.cos.numel() and self.cos.device == device:
            self._outgrown.append((self.cos, self.sin))
        self.cos = (angles.cos() * scale).to(device)
        self.sin = (angles.sin() * scale).to(device)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(B, T) int64 -> cos, sin, each (B, T, 1, R) in ``dtype``."""
        return self.cos[positions].unsqueeze(2).to(dtype), self.sin[positions].unsqueeze(2).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation of (B, T, H, R) by (B, T, 1, R)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def deinterleave(x: Tensor) -> Tensor:
    """(..., R) pairs (a0, b0, a1, b1, ...) -> (a0, a1, ..., b0, b1, ...).

    MLA checkpoints store the rotated dimensions interleaved; the published code reorders them before the half-split
    rotation, for queries and keys alike.
    """
    pairs: Tensor = x.unflatten(-1, (-1, 2))  # (..., R / 2, 2)
    return pairs.transpose(-1, -2).flatten(-2)
