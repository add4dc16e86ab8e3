"""From a rendered sample to what a ring holds: views by the processor, ids by its message encoding, character labels.

The ids are made by the very processor of inference, so a trained prompt and an asked prompt are the same tokens.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mm.adaptors.tile_layout import image_layout
from mm.chat import GROUNDING_TOKENS, ImagePart, Message, TextPart, user_message
from mm.errors import ConfigError
from mm.processing.vl2 import VL2Processor
from mm.synthetic.sample import Sample, Turn
from mm.training.charmap import character_map
from mm.training.recipe import BucketRecipe
from mm.training.ring import EncodedSample

_NEWLINE, _SEPARATOR, _FIRST_ID = -1, -2, -3  # of EncodedSample.source


class Encoding(Protocol):
    """Makes of a rendered sample what a ring holds."""

    @property
    def padding(self) -> int:
        """The ``source`` value of a padding token."""
        ...

    @property
    def view_size(self) -> int:
        """Pixels a side of a view."""
        ...

    @property
    def grid(self) -> int:
        """Patches a side of a view."""
        ...

    def encode(self, sample: Sample, kind: int, max_tiles: int) -> tuple[int, EncodedSample] | None:
        """The number of a bucket that holds the sample, and the sample; None where none does."""
        ...


class SampleEncoder:
    """Encodes samples and finds the bucket they fit.

    Args:
        processor: the model's processor.
        buckets: the shapes to fill.

    Raises:
        ConfigError: a vocabulary whose ids do not fit 16 bits.
    """

    def __init__(self, processor: VL2Processor, buckets: Sequence[BucketRecipe]) -> None:
        highest, most = processor.tokenizer.highest_id, np.iinfo(np.int16).max + 1 + _FIRST_ID
        if highest > most:
            raise ConfigError(
                f"the tokenizer has ids up to {highest}; samples are kept in 16 bits, which hold ids up to {most}. "
                "Train a model with a smaller vocabulary."
            )
        self.processor = processor
        self.buckets = tuple(buckets)
        self.view_size = processor.spec.image_size
        self.grid = processor.spec.image_size // processor.spec.patch_size

    @property
    def padding(self) -> int:
        """The ``source`` value of a padding token."""
        return _FIRST_ID - self.processor.tokenizer.pad_id

    def encode(self, sample: Sample, kind: int, max_tiles: int) -> tuple[int, EncodedSample] | None:
        """The cheapest bucket that holds the sample, and the sample; turns are dropped from the end until it fits.

        Args:
            sample: what was rendered.
            kind: number of its kind.
            max_tiles: largest number of tiles of its image.

        Returns:
            None when not even the first turn fits any bucket: an answer is never cut.
        """
        views, tiles = self.processor.views(sample.image, tiling=True, max_tiles=max_tiles)
        image_source = _image_source(self.processor.side, *tiles)
        num_views = 1 if tiles == (1, 1) else views.shape[0]
        turns = sample.turns
        while turns:
            ids, learn = self._ids(turns)
            length = ids.shape[0] + image_source.shape[0] - 1
            bucket = self._bucket(num_views, length)
            if bucket is not None:
                break
            turns = turns[:-1]
        else:
            return None
        place = int(np.flatnonzero(ids == self.processor.image_id)[0])
        text, labels = _FIRST_ID - ids, np.where(learn, ids, -1)
        blank = np.full(image_source.shape, -1)
        spec = self.processor.spec
        characters = character_map(
            sample.glyphs, sample.image.size, tiles, view_size=spec.image_size, patch_size=spec.patch_size
        )
        return bucket, EncodedSample(
            views=views[:num_views],
            characters=characters[:num_views],
            source=np.concatenate((text[:place], image_source, text[place + 1 :])).astype(np.int16),
            labels=np.concatenate((labels[:place], blank, labels[place + 1 :])).astype(np.int16),
            kind=kind,
        )

    def _ids(self, turns: Sequence[Turn]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids of the conversation with one image token for the image, and which of them are learned."""
        tag = TextPart(self.processor.spec.image_token, frozenset({self.processor.spec.image_token}))
        messages = []
        for index, turn in enumerate(turns):
            # The image itself is not opened here: its place is taken by the tag, which the caller expands.
            question = user_message(turn.question, [b""] if index == 0 else [])
            parts = tuple(tag if isinstance(part, ImagePart) else part for part in question.parts)
            messages += [Message("user", parts), Message("assistant", (TextPart(turn.answer, GROUNDING_TOKENS),))]
        inputs = self.processor.process(messages, training=True)
        assert inputs.labels is not None
        return inputs.input_ids.numpy(), (inputs.labels != self.processor.spec.ignore_id).numpy()

    def _bucket(self, num_views: int, length: int) -> int | None:
        fitting = [i for i, b in enumerate(self.buckets) if b.views >= num_views and b.length >= length]
        return max(fitting, key=lambda i: self.buckets[i].rows, default=None)


@lru_cache(maxsize=64)
def _image_source(side: int, across: int, down: int) -> NDArray[np.int64]:
    """``source`` of an image's tokens; the only tile of a 1 x 1 grid is the global view itself."""
    indices = image_layout(side, across, down, first=0, newline=_NEWLINE, separator=_SEPARATOR).numpy()
    return np.where(indices >= side * side, indices - side * side, indices) if across * down == 1 else indices
