"""Speculative Jacobi decoding of image codes (arXiv 2410.01699): drafts that each pass makes better, without training.

A pass over a window of drafts gives, for each place in it, the distribution of the code that stands there, given the
drafts before it. Drafts that cannot be counted yet become the drafts of the next pass, and are verified then by the
criterion of speculative sampling (arXiv 2211.17192, section 2.3): a draft x, drawn from the distribution q of the pass
before, stays with the probability min(1, p(x) / q(x)), where p is the distribution of this pass, and else makes place
for one from the positive part of p - q. What comes of it has the distribution p, whatever q was. Where all codes before
a place are final, p is the model's own, and so is the code.

All places of a window are treated so in every pass, not only the first of those that were refused (maximal coupling,
arXiv 2510.24211): drafts change as little as they may, and more of them are right later. It stays exact: whether the
code of a place changes tells nothing of places before it.

A place that is new in the window gets the code above it, in a picture the likeliest to be repeated (q is 1 there).

Letters: M pictures, T places of a window, K codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

HEAD = 64  # codes that come first where one is drawn


class Jacobi:
    """The drafts of one picture; see ``mm.generation.speculation.Drafter``.

    Attributes:
        window: codes that one pass decides on at most.
        num_kept: of the latest drafts, how many the pass before has drawn, from ``probs[shift]`` on.
        shift: places by which the window has moved since that pass.
        probs: (T, K) of that pass, where the pictures are drawn; None before the first.

    Args:
        window: see above.
        across: codes in a row of the picture.
    """

    def __init__(self, window: int, across: int) -> None:
        self.window = window
        self.num_kept = self.shift = 0
        self.probs: Tensor | None = None
        self._across = across
        self._drawn: list[int] = []  # of the pass before, and not final

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """See ``Drafter``."""
        drawn = self._drawn[:most]
        self.num_kept = len(drawn)
        known = [*tokens, *drawn]
        while len(known) < len(tokens) + most:
            known.append(known[-self._across] if len(known) >= self._across else known[-1])
        return known[len(tokens) :]

    def settle(self, chosen: Sequence[int], count: int, probs: Tensor) -> None:
        """Take note of a pass.

        Args:
            chosen: the codes of its places, the first of which follows the codes that were known. A guess may have led
                to what is no number (-1): neither that nor what comes behind it is a draft.
            count: how many of them are final.
            probs: (T, K) of these places or more.
        """
        drawn = list(chosen[count:])
        self._drawn = drawn[: drawn.index(-1)] if -1 in drawn else drawn
        self.shift, self.probs = count, probs


def prior(probs: Tensor, drafts: Tensor, source: Tensor, fresh: Tensor) -> Tensor:
    """What drafts were drawn from.

    Args:
        probs: (M, S, K) of the pass before.
        drafts: (M, T) int64.
        source: (M, T) int64, the place in ``probs`` of each draft; below 0: none.
        fresh: (M, T) bool, drafts that were not drawn but given.

    Returns:
        (M, T, K): from ``probs``; 1 at the draft and 0 elsewhere; or zeros where there is no draft.
    """
    rows = torch.arange(len(probs), device=probs.device)[:, None]
    found = torch.where((source >= 0)[..., None], probs[rows, source.clamp(min=0)], 0.0)
    return found.scatter_add_(2, drafts[..., None], fresh[..., None].to(found.dtype))


def redraw(probs: Tensor, before: Tensor, drafts: Tensor, uniforms: Tensor) -> Tensor:
    """Codes that are distributed as ``probs``, and are the drafts as often as that allows.

    Args:
        probs: (M, T, K) float32.
        before: (M, T, K), what the drafts were drawn from; zeros where there is no draft.
        drafts: (M, T) int64.
        uniforms: (M, T, 2) in [0, 1), independent of each other and of the drafts.

    Returns:
        (M, T) int64.
    """
    index = drafts[..., None]
    old, new = before.gather(2, index)[..., 0], probs.gather(2, index)[..., 0]
    kept = (old > 0) & (uniforms[..., 0] * old < new)  # with the probability min(1, new / old)
    rest = (probs - before).clamp(min=0)
    # Both distributions may be the same but for rounding: then hardly anything is refused, and nothing is left.
    rest = torch.where(rest.sum(dim=2, keepdim=True) > 0, rest, probs)
    # The likeliest codes come first, so that rounding, which differs between batches, rarely leads to another code.
    head, first = rest.topk(min(HEAD, probs.shape[2]), dim=2)
    ordered = torch.cat((head, rest.scatter(2, first, 0.0)), dim=2)  # (M, T, HEAD + K)
    cumulative = ordered.cumsum(dim=2)
    target = uniforms[..., 1:] * cumulative[..., -1:]
    chosen = (cumulative <= target).sum(dim=2, keepdim=True)
    # Rounding may carry the target to the very end: the last one with any probability is then meant.
    places = torch.arange(ordered.shape[2], device=probs.device)
    chosen = chosen.minimum(torch.where(ordered > 0, places, 0).amax(dim=2, keepdim=True))
    drawn = torch.where(
        chosen < head.shape[2], first.gather(2, chosen.clamp(max=head.shape[2] - 1)), chosen - head.shape[2]
    )
    return torch.where(kept, drafts, drawn[..., 0])
