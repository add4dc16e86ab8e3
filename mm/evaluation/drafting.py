"""Speculative decoding with V3's extra layer, measured beside plain greedy decoding: a loop of its own for one prompt,
which answers of the engine do not use.

Each step runs the model over two tokens: the newest one, and what the extra layer expects behind it (the draft). Where
the model chooses the draft itself, the step has given two tokens, else one. So the tokens are those of greedy decoding.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mm.errors import OptionError
from mm.generation.speculation import accepted
from mm.language.decoder import Decoder
from mm.language.prediction import Predictor


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """What the same greedy answer took with drafts and without.

    Attributes:
        tokens: of the answer.
        equal: whether both ways gave them: always in float32; in bfloat16 two equally likely tokens may change places.
        accepted: share of the drafts that the model chose itself.
        tokens_per_step: tokens of a step, 1 to 2.
        seconds: of the steps with drafts.
        plain_seconds: of the steps without.
    """

    tokens: tuple[int, ...]
    equal: bool
    accepted: float
    tokens_per_step: float
    seconds: float
    plain_seconds: float


@torch.inference_mode()
def complete_greedily(decoder: Decoder, prompt: list[int], count: int) -> tuple[list[int], float]:
    """``count`` tokens, one a step, and the seconds of the steps behind the prompt."""
    cache = decoder.new_cache(1, len(prompt) + count)
    tokens = [_best(decoder, decoder(_embed(decoder, prompt), cache=cache)[:, -1])]
    started = _now(decoder)
    while len(tokens) < count:
        position = len(prompt) + len(tokens) - 1
        tokens.append(_best(decoder, _run(decoder, tokens[-1:], position, cache)[:, -1]))
    return tokens, _now(decoder) - started


@torch.inference_mode()
def complete_with_drafts(
    decoder: Decoder, predictor: Predictor, prompt: list[int], count: int
) -> tuple[list[int], int, float]:
    """The same tokens, the steps that they took behind the prompt, and their seconds.

    Args:
        decoder: the model.
        predictor: its extra layer, on the same device and in the same type.
        prompt: token ids, at least one.
        count: tokens of the answer.
    """
    length = len(prompt) + count + 1  # the last draft may stand one behind the answer
    cache, own = decoder.new_cache(1, length), predictor.new_cache(1, length)
    hidden = decoder(_embed(decoder, prompt), cache=cache)  # (1, T, D)
    tokens = [_best(decoder, hidden[:, -1])]
    following = torch.tensor([[*prompt[1:], tokens[0]]], device=hidden.device)
    draft = _best(predictor, predictor(following, hidden, cache=own)[:, -1])
    steps, started = 0, _now(decoder)
    while len(tokens) < count:
        position = len(prompt) + len(tokens) - 1  # of the newest token
        hidden = _run(decoder, [tokens[-1], draft], position, cache)  # (1, 2, D)
        chosen = decoder.logits(hidden).argmax(dim=-1).cpu()  # (1, 2)
        new = chosen[0, : int(accepted(torch.tensor([[draft]]), chosen[:, :1])) + 1].tolist()
        tokens += new
        steps += 1
        places = torch.arange(position, position + len(new), device=hidden.device)[None]
        guess = predictor(
            torch.tensor([new], device=hidden.device),
            hidden[:, : len(new)],
            positions=places,
            cache=own,
            visible=position + len(new),
        )
        draft = _best(predictor, guess[:, -1])
    return tokens[:count], steps, _now(decoder) - started


def measure_drafting(decoder: Decoder, predictor: Predictor, prompt: list[int], count: int) -> Drafting:
    """Both ways, one after the other.

    Raises:
        OptionError: no prompt, or an answer of less than two tokens.
    """
    if not prompt or count < 2:
        raise OptionError(f"got {len(prompt)} prompt tokens and an answer of {count}; expected at least 1 and 2.")
    plain, plain_seconds = complete_greedily(decoder, prompt, count)
    tokens, steps, seconds = complete_with_drafts(decoder, predictor, prompt, count)
    gained = count - 1 - steps  # a step gives one token, and one more for each draft that was right
    return Drafting(
        tokens=tuple(tokens),
        equal=tokens == plain,
        accepted=max(gained, 0) / steps,
        tokens_per_step=(count - 1) / steps,
        seconds=seconds,
        plain_seconds=plain_seconds,
    )


def _embed(decoder: Decoder, ids: list[int]) -> Tensor:
    return decoder.embed(torch.tensor([ids], device=decoder.lm_head.weight.device))


def _run(decoder: Decoder, ids: list[int], position: int, cache: object) -> Tensor:
    embeds = _embed(decoder, ids)
    positions = torch.arange(position, position + len(ids), device=embeds.device)[None]
    return decoder(embeds, positions=positions, cache=cache, visible=position + len(ids))  # type: ignore[no-any-return]


def _best(head: Decoder | Predictor, hidden: Tensor) -> int:
    """The most likely token behind (1, D)."""
    return int(head.logits(hidden).argmax())


def _now(decoder: Decoder) -> float:
    if decoder.lm_head.weight.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
