"""Equal views are encoded once, and nothing but speed depends on it."""

from typing import Any

import torch
from torch import Tensor, nn

from mm.view_cache import DEFAULT_MAX_BYTES, PromptEmbedder, ViewCache, kept_bytes


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


def test_every_change_of_the_weights_is_a_new_version_and_nothing_else_is() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()))
    embedder, first, seen = PromptEmbedder(model, ViewCache()), model[0], set()

    def is_new() -> bool:
        versions = {embedder.version() for _ in range(3)}
        new = not versions & seen
        seen.update(versions)
        assert len(versions) == 1
        return new

    assert is_new() and not is_new()
    kept = [first.weight, first, model[1]]  # so that none of them comes to stand where another one was
    with torch.no_grad():
        first.weight.add_(1)  # in place
    assert is_new()
    first.weight = nn.Parameter(torch.ones(2, 2))  # another parameter
    assert is_new()
    model[1][0] = nn.Sequential(model[1][0], nn.Linear(2, 2))  # such as an adapter around a layer
    assert is_new()
    kept.append(model[1][0][1])
    model[1][0][1] = nn.Linear(2, 2)
    assert is_new() and len(kept) == 4
    model.append(nn.Linear(2, 2))
    assert is_new()
    embedder.weights_changed()
    assert is_new() and not is_new()
