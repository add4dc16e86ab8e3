"""Equal views are encoded once, and nothing but speed depends on it."""

import torch
from torch import Tensor

from mm.view_cache import DEFAULT_MAX_BYTES, ViewCache, kept_bytes


class Encoder:
    """Doubles pixels; counts the views it sees."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels.shape[0])
        return pixels.flatten(1)[:, :8].reshape(-1, 2, 4) * 2


def views(*values: float) -> Tensor:
    return torch.stack([torch.full((3, 4, 4), float(value)) for value in values])


def test_equal_views_of_one_call_are_encoded_once_and_come_back_in_order() -> None:
    encoder, cache = Encoder(), ViewCache(0)
    tokens = cache.encode(views(1, 2, 1, 3, 2), encoder)
    assert encoder.seen == [3]
    assert tokens[:, 0, 0].tolist() == [2, 4, 2, 6, 4]
    cache.encode(views(1), encoder)
    assert encoder.seen == [3, 1], "a cache of no bytes keeps nothing"


def test_known_views_are_not_encoded_again() -> None:
    encoder, cache = Encoder(), ViewCache()
    cache.encode(views(1, 2), encoder)
    tokens = cache.encode(views(3, 2, 1), encoder)
    assert encoder.seen == [2, 1] and cache.num_encoded == 3
    assert tokens[:, 0, 0].tolist() == [6, 4, 2]


def test_the_least_recently_used_view_is_dropped_first() -> None:
    encoder, cache = Encoder(), ViewCache(max_bytes=2 * 8 * 4)
    cache.encode(views(1, 2), encoder)
    cache.encode(views(1), encoder)
    cache.encode(views(3), encoder)  # drops 2
    cache.encode(views(1), encoder)
    cache.encode(views(2), encoder)
    assert encoder.seen == [2, 1, 1]


def test_almost_equal_views_are_different() -> None:
    encoder, cache = Encoder(), ViewCache()
    pixels = views(1, 1)
    pixels[1, 2, 3, 3] += 1e-6
    cache.encode(pixels, encoder)
    assert encoder.seen == [2]


def test_a_cache_that_is_cleared_knows_nothing() -> None:
    encoder, cache = Encoder(), ViewCache()
    cache.encode(views(1, 2), encoder)
    assert cache.num_bytes == 2 * 8 * 4
    cache.clear()
    assert cache.num_bytes == 0
    cache.encode(views(2), encoder)
    assert encoder.seen == [2, 1]


def test_views_beside_small_weights_take_a_quarter_of_them() -> None:
    assert kept_bytes(1000) == 250
    assert kept_bytes(2**40) == DEFAULT_MAX_BYTES
