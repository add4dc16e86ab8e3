# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""Triton kernels that choose experts and bring tokens to them, and beside each the plain function that it equals.

Letters: B rows, D hidden size, E experts, K experts a token.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from mm.language.kernel_launch import launch_options, wait
from mm.language.linear_kernels import TOGETHER, times


def route_plain(
    logits: Tensor, per_token: int, *, softmax: bool, normalize: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Logits (B, E) float32 -> the K best experts (B, K) int64 and their weights (B, K) float32, best first."""
    scores = logits.softmax(dim=-1) if softmax else logits.sigmoid()
    weights, experts = scores.topk(per_token, dim=-1)
    if normalize and per_token > 1:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return experts, weights * scale


def route(logits: Tensor, per_token: int, *, softmax: bool, normalize: bool, scale: float) -> tuple[Tensor, Tensor]:
    """``route_plain`` in one kernel."""
    rows, count = logits.shape
    experts = torch.empty(rows, per_token, device=logits.device, dtype=torch.int64)
    weights = torch.empty(rows, per_token, device=logits.device, dtype=torch.float32)
    _route[(rows,)](
        logits, experts, weights, count, scale,
        PER_TOKEN=per_token, SOFTMAX=softmax, NORMALIZE=normalize and per_token > 1,
        BLOCK=triton.next_power_of_2(count), num_warps=1, **launch_options(logits.device),
    )  # fmt: skip
    return experts, weights


@triton.jit
def _route(
    logits, experts, weights, count, scale,
    PER_TOKEN: tl.constexpr, SOFTMAX: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    wait(PDL)
    value = tl.load(logits + row * count + expert, mask=expert < count, other=float("-inf"))
    _choose(value, expert, row, experts, weights, count, scale, PER_TOKEN, SOFTMAX, NORMALIZE)


def router_plain(x: Tensor, router: Tensor) -> Tensor:
    """(B, D), (E, D) -> (B, E) float32, from products that are not rounded."""
    return F.linear(x.float(), router.float())


def choose(
    x: Tensor, router: Tensor, per_token: int, *, softmax: bool, normalize: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """``route_plain`` of ``router_plain`` in one kernel, for up to ``MAX_GROUPED_ROWS`` rows: each reads the router."""
    (rows, width), count = x.shape, router.shape[0]
    experts = torch.empty(rows, per_token, device=x.device, dtype=torch.int64)
    weights = torch.empty(rows, per_token, device=x.device, dtype=torch.float32)
    block = triton.next_power_of_2(count)
    _router[(rows,)](
        x, router, experts, weights, count, width, scale, router.stride(0),
        PER_TOKEN=per_token, SOFTMAX=softmax, NORMALIZE=normalize and per_token > 1,
        BLOCK=block, BLOCK_D=max(TOGETHER, 16384 // block), TOGETHER=TOGETHER, num_warps=8, **launch_options(x.device),
    )  # fmt: skip
    return experts, weights


@triton.jit
def _router(
    x, router, experts, weights, count, width, scale, stride,
    PER_TOKEN: tl.constexpr, SOFTMAX: tl.constexpr, NORMALIZE: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    expert = tl.arange(0, BLOCK)
    column = tl.arange(0, BLOCK_D)
    wait(PDL)
    total = tl.zeros((BLOCK, BLOCK_D // TOGETHER), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + column
        inside = (expert < count)[:, None] & (d < width)[None, :]
        w = tl.load(router + expert[:, None] * stride + d[None, :], mask=inside, other=0.0).to(tl.float32)
        total += times(w, x + row * width, d, width, BLOCK, BLOCK_D, TOGETHER)
    value = tl.where(expert < count, tl.sum(total, axis=1), float("-inf"))
    _choose(value, expert, row, experts, weights, count, scale, PER_TOKEN, SOFTMAX, NORMALIZE)


@triton.jit
def _choose(
    value, expert, row, experts, weights, count, scale,
    PER_TOKEN: tl.constexpr, SOFTMAX: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Write the best experts of a row and their weights."""
    if SOFTMAX:
        raised = tl.exp(value - tl.max(value, axis=0))
        score = raised / tl.sum(raised, axis=0)
    else:
        score = tl.sigmoid(value)
    score = tl.where(expert < count, score, -1.0)
    total = 0.0
    left = score
    for place in tl.static_range(PER_TOKEN):
        best = tl.minimum(tl.argmax(left, axis=0), count - 1)
        tl.store(experts + row * PER_TOKEN + place, best.to(tl.int64))
        total += tl.sum(tl.where(expert == best, score, 0.0), axis=0)
        left = tl.where(expert == best, -2.0, left)
    factor = scale
    if NORMALIZE:
        factor = scale / (total + 1e-20)
    left = score
    for place in tl.static_range(PER_TOKEN):
        best = tl.minimum(tl.argmax(left, axis=0), count - 1)
        tl.store(weights + row * PER_TOKEN + place, tl.sum(tl.where(expert == best, score, 0.0), axis=0) * factor)
        left = tl.where(expert == best, -2.0, left)


def by_expert_plain(chosen: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of tokens and experts, expert after expert.

    Args:
        chosen: (B, K) int64.
        count: E.

    Returns:
        The token (B * K,) of each place, the place (B, K) of each pair, both int64, and where the places of each expert
        end, (E,) int32.
    """
    order = chosen.flatten().argsort(stable=True)
    places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    ends = (chosen.flatten() == torch.arange(count, device=chosen.device)[:, None]).sum(dim=1).cumsum(0)
    return order // chosen.shape[1], places.view_as(chosen), ends.to(torch.int32)


def by_expert(chosen: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """``by_expert_plain`` in two kernels: each program counts and places the pairs of one expert."""
    pairs, device = chosen.numel(), chosen.device
    counts, ends = (torch.empty(count, device=device, dtype=torch.int32) for _ in range(2))
    tokens, places = torch.empty(pairs, device=device, dtype=torch.int64), torch.empty_like(chosen)
    _count_pairs[(count,)](chosen, counts, pairs, BLOCK=4096, num_warps=8, **launch_options(device))
    _place_pairs[(count,)](
        chosen, counts, ends, tokens, places, pairs, count, chosen.shape[1],
        BLOCK_E=triton.next_power_of_2(count), BLOCK=2048, num_warps=8, **launch_options(device),
    )  # fmt: skip
    return tokens, places, ends


@triton.jit
def _count_pairs(chosen, counts, pairs, BLOCK: tl.constexpr, PDL: tl.constexpr):
    expert = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.int32)
    wait(PDL)
    for start in range(0, pairs, BLOCK):
        pair = start + tl.arange(0, BLOCK)
        total += (tl.load(chosen + pair, mask=pair < pairs, other=-1) == expert).to(tl.int32)
    tl.store(counts + expert, tl.sum(total, axis=0))


@triton.jit
def _place_pairs(
    chosen, counts, ends, tokens, places, pairs, count, per_token,
    BLOCK_E: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(0)
    each = tl.arange(0, BLOCK_E)
    wait(PDL)
    place = tl.sum(tl.load(counts + each, mask=each < expert, other=0), axis=0)
    for start in range(0, pairs, BLOCK):
        pair = start + tl.arange(0, BLOCK)
        found = (tl.load(chosen + pair, mask=pair < pairs, other=-1) == expert).to(tl.int32)
        target = place + tl.cumsum(found, axis=0) - found
        tl.store(tokens + target, (pair // per_token).to(tl.int64), mask=found > 0)
        tl.store(places + pair, target.to(tl.int64), mask=found > 0)
        place += tl.sum(found, axis=0)
    tl.store(ends + expert, place)
