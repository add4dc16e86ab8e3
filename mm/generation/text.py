"""The text loop: prompts in, pieces of text out, one step at a time.

Letters: B rows, T prompt tokens, D hidden size, V vocabulary.

Every row of the model's batch starts at position 0 and is padded on the right. Slots beyond a row's own position are
hidden from it by causality, and decoding overwrites them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mm.contracts import Cache, CancelToken, Decoder
from mm.errors import TaskError
from mm.generation.row import Row
from mm.generation.sampling import BatchSampler

PREFILL_CHUNK = 512  # tokens; bounds the memory of a long prompt, and how long a cancel can wait
VISIBLE_BLOCK = 128  # cache slots read by a decode step grow in blocks, so that few shapes occur


def prefill(decoder: Decoder, embeds: Sequence[Tensor], start: int, stop: int, cache: Cache) -> Tensor:
    """Run positions ``start`` to ``stop - 1`` of prompts that are all longer than ``start``.

    Args:
        decoder: the language model.
        embeds: per row (T_i, D).
        start: first position; 0, or where the previous call stopped.
        stop: one past the last position of the longest row; shorter rows are padded.
        cache: exactly these rows.

    Returns:
        (B, stop - start, D) hidden states; those beyond a row's own end mean nothing.
    """
    block = embeds[0].new_zeros(len(embeds), stop - start, embeds[0].shape[1])
    for row, values in enumerate(embeds):
        part = values[start:stop]
        block[row, : part.shape[0]] = part
    if start == 0:
        return decoder(block, cache=cache)
    positions = torch.arange(start, stop, device=block.device).expand(len(embeds), -1)  # (B, T)
    return decoder(block, positions=positions, cache=cache, visible=stop)


def decode_step(decoder: Decoder, tokens: Tensor, positions: Tensor, cache: Cache, visible: int) -> Tensor:
    """One more token in every row.

    Args:
        decoder: the language model.
        tokens: (B,) int64, the newest token of each row.
        positions: (B,) int64, where it stands.
        cache: holds everything before it.
        visible: cache slots to read, more than any position.

    Returns:
        (B, V) float32 logits of the token that follows.
    """
    hidden = decoder(decoder.embed(tokens[:, None]), positions=positions[:, None], cache=cache, visible=visible)
    return decoder.logits(hidden[:, 0])


@torch.inference_mode()
def generate(
    decoder: Decoder,
    embeds: Sequence[Tensor],
    rows: Sequence[Row],
    *,
    cancel: CancelToken | None = None,
    chunk: int = PREFILL_CHUNK,
    decode_threads: int | None = None,
) -> Iterator[list[str]]:
    """Answer a batch of prompts. One item per step: the new text of each row, "" where there is none.

    The state of each answer (tokens, finish reason, log-probabilities) is in ``rows``. A row's answer does not depend
    on the rows beside it. Tokens are read back once a step.

    Args:
        decoder: the language model.
        embeds: per row (T_i, D) embeddings of the prompt.
        rows: per row a fresh Row.
        cancel: asked before every chunk of prefill and every step; rows then end with the reason "cancelled".
        chunk: most prompt tokens of a row that go through the decoder at once.
        decode_threads: CPU threads of a decode step; None leaves torch's setting.

    Raises:
        TaskError: the model's output is not a number.
    """
    assert len(embeds) == len(rows) > 0
    # Longest prompt first: the rows that still have prompt left are then the first ones of the cache.
    order = sorted(range(len(rows)), key=lambda row: -embeds[row].shape[0])
    prompts, answers = [embeds[row] for row in order], [rows[row] for row in order]
    lengths = [prompt.shape[0] for prompt in prompts]
    capacity = max(length + row.max_new_tokens for length, row in zip(lengths, answers, strict=True))
    cache = decoder.new_cache(len(rows), capacity)

    logits = _prefill_all(decoder, prompts, cache, chunk, cancel)
    if logits is None:
        yield _cancel(rows)
        return
    device = logits.device
    sampler = BatchSampler(len(rows), decoder.vocab_size, max(row.max_new_tokens for row in rows), device)
    for slot, answer in enumerate(answers):
        sampler.place(slot, answer.options, answer.prompt_ids)
    positions = torch.tensor(lengths, device=device)  # (B,)
    longest = lengths[0]
    while True:
        if cancel is not None and cancel.is_set():
            yield _cancel(rows)
            return
        tokens, logprobs = sampler(logits, _uniforms(answers, sampler, device), _allowed(answers, decoder, device))
        pieces = _push(answers, tokens, logprobs)
        yield [piece for _, piece in sorted(zip(order, pieces, strict=True))]
        if all(answer.finish_reason is not None for answer in answers):
            return
        longest += 1
        visible = min(-(-longest // VISIBLE_BLOCK) * VISIBLE_BLOCK, capacity)
        tokens = tokens.clamp(min=0)  # what a row that has ended computes is not looked at, also not for being a number
        with _cpu_threads(decode_threads):
            logits = decode_step(decoder, tokens, positions, cache, visible)
        positions = (positions + 1).clamp(max=capacity - 1)  # a row that has ended stays within its slots


@contextmanager
def _cpu_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` threads of torch inside the block (a switch takes less than a microsecond)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prefill_all(
    decoder: Decoder, prompts: Sequence[Tensor], cache: Cache, chunk: int, cancel: CancelToken | None
) -> Tensor | None:
    """(B, V) logits after the last token of each prompt (longest first), or None when cancelled."""
    lengths = [prompt.shape[0] for prompt in prompts]
    ends: list[Tensor] = []  # shortest first
    for start in range(0, lengths[0], chunk):
        if cancel is not None and cancel.is_set():
            return None
        stop = min(start + chunk, lengths[0])
        active = sum(length > start for length in lengths)
        hidden = prefill(decoder, prompts[:active], start, stop, cache.rows(0, active))
        ends += [hidden[row, lengths[row] - 1 - start] for row in reversed(range(active)) if lengths[row] <= stop]
    return decoder.logits(torch.stack(ends[::-1]))


def _uniforms(answers: Sequence[Row], sampler: BatchSampler, device: torch.device) -> Tensor:
    """(B,) float32, one new random number for each row that samples."""
    if not sampler.any_sampled:
        return torch.zeros(len(answers), device=device)
    values = [row.uniform() if row.options.samples and row.finish_reason is None else 0.0 for row in answers]
    return torch.tensor(values, device=device)


def _allowed(answers: Sequence[Row], decoder: Decoder, device: torch.device) -> Tensor | None:
    """(B, V) bool of the tokens that constraints allow, or None when nothing is constrained now."""
    masks = [row.allowed() for row in answers]
    if all(mask is None for mask in masks):
        return None
    free = torch.ones(decoder.vocab_size, dtype=torch.bool)
    return torch.stack([free if mask is None else mask for mask in masks]).to(device)


def _push(answers: Sequence[Row], tokens: Tensor, logprobs: Tensor | None) -> list[str]:
    """Read one step's tokens back and hand them to the rows that are not finished."""
    ids: list[int] = tokens.tolist()
    scores: list[float | None] = [None] * len(ids) if logprobs is None else logprobs.tolist()
    pieces = []
    for row, token, score in zip(answers, ids, scores, strict=True):
        if row.finish_reason is not None:
            pieces.append("")
            continue
        if token < 0:
            raise TaskError(
                f"the model's output at token {len(row.tokens) + 1} of the answer is not a number. In float16 this is "
                "an overflow: load the model with dtype='bfloat16' or 'float32'. Otherwise its weights are damaged."
            )
        pieces.append(row.push(token, score))
    return pieces


def _cancel(rows: Sequence[Row]) -> list[str]:
    return [row.finish("cancelled") if row.finish_reason is None else "" for row in rows]
