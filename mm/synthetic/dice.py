"""Short names for the draws that the renderers make, all from one ``numpy.random.Generator``."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Draws from ``rng``; cheaper than ``Generator.choice`` for one element."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """A real number in [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int(self.rng.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One element, all equally likely."""
        return options[int(self.rng.random() * len(options))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One key, with probability proportional to its value."""
        mark = self.uniform(0.0, sum(weights.values()))
        for key, weight in weights.items():
            mark -= weight
            if mark < 0.0:
                return key
        return key

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` different elements (all of them when there are fewer), in random order."""
        order = self.rng.permutation(len(options))[:count]
        return [options[int(index)] for index in order]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All elements in random order."""
        return self.sample(options, len(options))

    def digits(self, count: int) -> str:
        """A string of ``count`` decimal digits."""
        return "".join(chr(48 + int(value)) for value in self.rng.integers(0, 10, count))
