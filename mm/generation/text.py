"""The steps of generation, as plain functions: a stretch of prompt, and one more position in every row.

Letters: B rows, T tokens of the call, D hidden size, V vocabulary.

Every row starts at position 0 of its cache row. Slots beyond a row's own position are hidden from it by causality, and
decoding overwrites them. Who calls the steps, and for which rows, is decided in ``mm.generation.scheduler`` alone.
"""

import torch
from torch import Tensor

from mm.contracts import Cache, Decoder

PREFILL_CHUNK = 512  # tokens; bounds the memory of a long prompt, and how long others wait for it
GPU_PREFILL_CHUNK = 2048  # the same on a GPU: each chunk of a mixture of experts reads all experts once
# On a CPU where nobody waits for a single answer: attention within one piece skips what is hidden (1,437 tokens of
# nano-vl2 on one core: 0.34 s in one piece, 0.41 s in pieces of 512).
CPU_BULK_CHUNK = 2048
VISIBLE_BLOCK = 128  # cache slots read by a decode step grow in blocks, so that few shapes occur
VISIBLE_SHARE = 8  # and these by an eighth of the whole, so that a long answer does not bring many


def prefill(decoder: Decoder, embeds: Tensor, start: int, cache: Cache) -> Tensor:
    """Run a stretch of one prompt.

    Args:
        decoder: the language model.
        embeds: (T, D), what stands at positions ``start`` to ``start + T - 1``.
        start: first position.
        cache: one row that holds everything before it.

    Returns:
        (T, D) hidden states.
    """
    block = embeds.unsqueeze(0)
    if start == 0:
        return decoder(block, cache=cache)[0]
    stop = start + embeds.shape[0]
    positions = torch.arange(start, stop, device=block.device).unsqueeze(0)  # (1, T)
    return decoder(block, positions=positions, cache=cache, visible=stop)[0]


def advance(decoder: Decoder, embeds: Tensor, positions: Tensor, cache: Cache, visible: int) -> Tensor:
    """One more position in every row.

    Args:
        decoder: the language model.
        embeds: (B, D), what stands there.
        positions: (B,) int64, where.
        cache: holds everything before it.
        visible: cache slots to read, more than any position of a row whose result counts.

    Returns:
        (B, D) hidden states.
    """
    return decoder(embeds[:, None], positions=positions[:, None], cache=cache, visible=visible)[:, 0]


def visible_bucket(position: int) -> int:
    """Cache slots that a decode step reads when the longest row stands at ``position``: at most an eighth too many, or
    ``VISIBLE_BLOCK``."""
    block = max(VISIBLE_BLOCK, (1 << position.bit_length()) // (2 * VISIBLE_SHARE))
    return (position // block + 1) * block


def decode_step(decoder: Decoder, tokens: Tensor, positions: Tensor, cache: Cache, visible: int) -> Tensor:
    """One more token in every row: as ``advance`` with the newest tokens (B,) int64 -> (B, V) float32 logits of what
    follows them."""
    return decoder.logits(advance(decoder, decoder.embed(tokens), positions, cache, visible))
