"""How far the result of a faster way is from that of the modules."""

import math

from torch import Tensor


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The norm of found - expected as a part of that of expected, over all numbers and in float32; infinite where it is
    no number."""
    difference = ((found.float() - expected.float()).norm() / expected.float().norm()).item()
    return float("inf") if math.isnan(difference) else difference
