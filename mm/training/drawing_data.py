"""From rendered drawings to what a ring holds: for a Janus that draws and answers, and for its image tokenizer.

A row of a Janus has two views and two parts. The first ``drawn_length`` tokens are a prompt and the codes of the first
view, the rest a conversation about the second view. ``source`` and ``labels`` are those of ``EncodedSample``, and:

* ``source`` 0 to P - 1 are the encoder's tokens of the second view, P and above the codes of the first one;
* ``labels`` -2 - i is code i of the first view, whatever it will be: codes are computed on the device.

A map of objects stands in the place of the character map: 1 + shape and 1 + colour of every patch that an object
touches, 0 on the background.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mm.chat import ImagePart, Message, TextPart, user_message
from mm.errors import ConfigError
from mm.processing.vlm import VLMProcessor
from mm.synthetic.sample import Sample, Turn
from mm.synthetic.shapes import COLOURS
from mm.training.recipe import BucketRecipe
from mm.training.ring import EncodedSample

FIRST_ID, FIRST_CODE_LABEL = -3, -2


class PictureEncoder:
    """Pictures alone, for an image tokenizer; buckets of one view and any length.

    Args:
        view_size: pixels a side.
        grid: patches a side of the map of objects.
        buckets: the shapes to fill.
    """

    padding = FIRST_ID

    def __init__(self, view_size: int, grid: int, buckets: Sequence[BucketRecipe]) -> None:
        self.view_size, self.grid = view_size, grid
        _check(buckets, views=1, length=1)

    def encode(self, sample: Sample, kind: int, max_tiles: int) -> tuple[int, EncodedSample] | None:
        """The picture and its map; None where it is of another size."""
        if sample.image.size != (self.view_size, self.view_size):
            return None
        nothing = np.full(1, -1, dtype=np.int16)
        views = np.asarray(sample.image, dtype=np.uint8)[None]
        objects = object_map(sample.glyphs, self.grid, self.view_size / self.grid)[None]
        return 0, EncodedSample(views, objects, np.full(1, FIRST_ID, dtype=np.int16), nothing, kind)


class PairEncoder:
    """Pairs of a drawing and a picture with questions (kind "drawing_pair"); buckets of two views.

    Args:
        processor: the model's processor: a trained prompt is an asked prompt.
        grid: patches a side of the encoder, whose square is the number of a picture's tokens.
        num_codes: codes of a picture.
        drawn_length: tokens of the first part.
        condition_dropout: share of unconditional prompts.
        buckets: the shapes to fill.

    Raises:
        ConfigError: a bucket is too short, or has not two views.
    """

    def __init__(
        self,
        processor: VLMProcessor,
        *,
        grid: int,
        num_codes: int,
        drawn_length: int,
        condition_dropout: float,
        buckets: Sequence[BucketRecipe],
    ) -> None:
        self.processor, self.buckets = processor, tuple(buckets)
        self.view_size, self.grid = processor.spec.image_size, grid
        self.num_codes, self.drawn_length = num_codes, drawn_length
        self.condition_dropout = condition_dropout
        _check(buckets, views=2, length=drawn_length + grid * grid)

    @property
    def padding(self) -> int:
        """The ``source`` value of a padding token."""
        return FIRST_ID - self.processor.pad_id

    def encode(self, sample: Sample, kind: int, max_tiles: int) -> tuple[int, EncodedSample] | None:
        """The shortest bucket that holds the pair; turns are dropped from the end until it fits.

        Returns:
            None when the prompt is too long for the first part or not even one turn fits.
        """
        views = np.stack(np.split(np.asarray(sample.image, dtype=np.uint8), 2, axis=1))  # (2, S, S, 3)
        drawn = self._drawn(sample.fields["prompt"], zlib.crc32(views[0].tobytes()))
        if drawn is None:
            return None
        for count in range(len(sample.turns), 0, -1):
            seen = self._seen(sample.turns[:count])
            length = self.drawn_length + len(seen[0])
            fitting = [index for index, bucket in enumerate(self.buckets) if bucket.length >= length]
            if fitting:
                source, labels = (np.concatenate(parts).astype(np.int16) for parts in zip(drawn, seen, strict=True))
                objects = object_map(sample.glyphs, 2 * self.grid, self.view_size / self.grid)
                maps = np.stack((objects[: self.grid, : self.grid], objects[: self.grid, self.grid :]))
                shortest = min(fitting, key=lambda index: self.buckets[index].length)
                return shortest, EncodedSample(views, maps, source, labels, kind)
        return None

    def _drawn(self, text: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Source and labels of the first part, padded."""
        prompt = self.processor.drawing_prompt(text)
        dropped = np.random.default_rng(seed).random() < self.condition_dropout
        ids = (prompt.unconditional if dropped else prompt.conditional).numpy()
        if len(ids) + self.num_codes > self.drawn_length:
            return None
        codes = np.arange(self.num_codes)
        source = np.full(self.drawn_length, self.padding)
        labels = np.full(self.drawn_length, -1)
        source[: len(ids)] = FIRST_ID - ids
        place = slice(len(ids), len(ids) + self.num_codes)
        source[place], labels[place] = self.grid**2 + codes, FIRST_CODE_LABEL - codes
        return source, labels

    def _seen(self, turns: Sequence[Turn]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source and labels of a conversation about the second view."""
        tag = self.processor.spec.image_token
        special = [
            name
            for name in (self.processor.spec.tags.image_start, self.processor.spec.tags.image_end)
            if name is not None
        ]
        around = frozenset((tag, *special))
        place = TextPart("".join((*special[:1], tag, *special[1:])), around)
        messages = []
        for index, turn in enumerate(turns):
            # The picture itself is not opened here: the tag takes its place and is expanded below.
            question = user_message(turn.question, [b""] if index == 0 else [])
            parts = tuple(place if isinstance(part, ImagePart) else part for part in question.parts)
            messages += [Message("user", parts), Message("assistant", (TextPart(turn.answer),))]
        inputs = self.processor.process(messages, training=True)
        assert inputs.labels is not None
        ids, labels = inputs.input_ids.numpy(), inputs.labels.numpy()
        at = int(np.flatnonzero(ids == self.processor.image_id)[0])
        tokens = np.arange(self.grid**2)
        labels = np.where(labels == self.processor.spec.ignore_id, -1, labels)
        return (
            np.concatenate((FIRST_ID - ids[:at], tokens, FIRST_ID - ids[at + 1 :])),
            np.concatenate((labels[:at], np.full(len(tokens), -1), labels[at + 1 :])),
        )


def object_map(objects: NDArray[np.float32], columns: int, patch: float) -> NDArray[np.uint8]:
    """(rows, columns, 2) 1 + shape and 1 + colour of every patch that an object's box touches, 0 elsewhere.

    Args:
        objects: (objects, 5) number of the pair and box, as ``drawing_scenes.render`` gives them.
        columns: patches across; as many down.
        patch: pixels a side of a patch.
    """
    labels = np.zeros((columns, columns, 2), dtype=np.uint8)
    for pair, *box in objects:
        left, top = (int(value / patch) for value in box[:2])
        right, bottom = (int(np.ceil(value / patch)) for value in box[2:])
        shape, colour = divmod(int(pair), len(COLOURS))
        labels[max(top, 0) : bottom, max(left, 0) : right] = (1 + shape, 1 + colour)
    return labels


def _check(buckets: Sequence[BucketRecipe], *, views: int, length: int) -> None:
    for bucket in buckets:
        if bucket.views != views or bucket.length < length:
            raise ConfigError(
                f"data.buckets: got {bucket.views} views and length {bucket.length}; this recipe's loss needs {views} "
                f"views and a length of at least {length}."
            )
