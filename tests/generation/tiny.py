"""Prompts, pictures and an engine for the tiny decoders of conftest."""

import torch

from mm.contracts import ImageSpan, Inputs
from mm.generation.engine import Engine

IMAGE_ID = 298


def text_inputs(ids):
    """A prompt of these tokens."""
    return Inputs(
        input_ids=torch.tensor(ids),
        image_mask=torch.zeros(len(ids), dtype=torch.bool),
        pixels=torch.zeros(0, 3, 2, 2),
        tile_grids=torch.zeros(0, 2, dtype=torch.int64),
        spans=(),
        prompt="",
    )


def picture_inputs(ids, pictures):
    """A prompt in which each IMAGE_ID is widened to one picture: 5 positions, and a view of 2 x 2 pixels (and a tile)
    of this brightness."""
    expanded, spans = [], []
    for token in ids:
        if token == IMAGE_ID:
            spans.append(ImageSpan(len(expanded), len(expanded) + 5, 2, 2))
            expanded += [token] * 5
        else:
            expanded.append(token)
    assert len(spans) == len(pictures)
    return Inputs(
        input_ids=torch.tensor(expanded),
        image_mask=torch.tensor(expanded) == IMAGE_ID,
        pixels=torch.tensor(pictures, dtype=torch.float32).repeat_interleave(2).view(-1, 1, 1, 1).expand(-1, 3, 2, 2),
        tile_grids=torch.ones(len(pictures), 2, dtype=torch.int64),
        spans=tuple(spans),
        prompt="",
    )


class Embedder:
    """Token embeddings; the positions of a picture are its brightness times fixed numbers. Counts its work."""

    def __init__(self, decoder):
        self.decoder = decoder
        self.device = decoder.lm_head.weight.device
        self.numbers = torch.randn(5, 32, generator=torch.Generator().manual_seed(3)).to(self.device)
        self.views = 0
        self.calls = 0

    def __call__(self, inputs):
        self.calls += 1
        self.views += len(inputs.pixels)
        embeds = self.decoder.embed(inputs.input_ids[None].to(self.device))[0]
        for index, span in enumerate(inputs.spans):
            assert span.stop - span.start == 5
            embeds[span.start : span.stop] = self.numbers * inputs.pixels[2 * index].mean().item()
        return embeds


def new_engine(decoder, embed=None, **options):
    return Engine(decoder, embed or Embedder(decoder), device=decoder.lm_head.weight.device, **options)


def plain_greedy(decoder, ids, count):
    """The answer of a loop without a cache."""
    ids = list(ids)
    for _ in range(count):
        hidden = decoder(decoder.embed(torch.tensor([ids], device=decoder.lm_head.weight.device)))
        ids.append(decoder.logits(hidden[:, -1]).argmax().item())
    return ids[-count:]
