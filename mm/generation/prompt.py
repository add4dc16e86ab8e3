"""What the engine needs to know of a prompt: what stands at each position, and how to take it in pieces.

Letters: T prompt tokens, N views.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mm.contracts import ImageSpan, Inputs

Keys = npt.NDArray[np.int64]

_IMAGE = np.int64(np.iinfo(np.int64).min)  # the sign bit: no token id has it


def token_keys(inputs: Inputs) -> Keys:
    """(T,) int64; equal beginnings of two prompts' keys mean equal beginnings of what the decoder is given.

    The key of a text position is its token. The positions of an image hold the words of a 256-bit digest of its pixels
    and its grid, in turn.
    """
    keys = inputs.input_ids.numpy().astype(np.int64)  # a copy
    views = _view_counts(inputs)
    assert sum(views) == inputs.pixels.shape[0]
    first = 0
    for span, count, grid in zip(inputs.spans, views, inputs.tile_grids.tolist(), strict=True):
        digest = hashlib.blake2b(repr(grid).encode(), digest_size=32)
        pixels = inputs.pixels[first : first + count].contiguous().numpy()
        digest.update(pixels.reshape(-1).view(np.uint8).data)
        words = np.frombuffer(digest.digest(), dtype=np.int64) | _IMAGE
        keys[span.start : span.stop] = np.resize(words, span.stop - span.start)
        first += count
    return keys


def common_prefix(a: Keys, b: Keys) -> int:
    """How many keys agree from the first on."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if different.size else length


def whole_images(spans: Sequence[ImageSpan], length: int) -> int:
    """The longest beginning of at most ``length`` positions that ends inside no image."""
    for span in spans:
        if span.start < length < span.stop:
            return span.start
    return length


def next_piece(inputs: Inputs, start: int) -> Inputs:
    """The part of a prompt from ``start`` up to its second image from there on, or to its end.

    A piece has at most one image, so that a long prompt is embedded in steps. ``start`` must lie inside no image.
    """
    ahead = [index for index, span in enumerate(inputs.spans) if span.start >= start]
    stop = inputs.spans[ahead[1]].start if len(ahead) > 1 else inputs.num_tokens
    views = _view_counts(inputs)
    images = slice(ahead[0], ahead[0] + 1) if ahead else slice(0, 0)
    first = sum(views[: images.start])
    return replace(
        inputs,
        input_ids=inputs.input_ids[start:stop],
        image_mask=inputs.image_mask[start:stop],
        pixels=inputs.pixels[first : first + sum(views[images])],
        tile_grids=inputs.tile_grids[images],
        spans=tuple(replace(s, start=s.start - start, stop=s.stop - start) for s in inputs.spans[images]),
        labels=None,
    )


def _view_counts(inputs: Inputs) -> list[int]:
    """Views of each image: the global one and its tiles."""
    return [1 + across * down for across, down in inputs.tile_grids.tolist()]
