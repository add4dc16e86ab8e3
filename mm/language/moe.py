"""Mixture of experts: router, stacked routed experts, shared experts.

DeepSeekMoE (arXiv 2401.06066); group-limited routing (DeepSeek-V2, arXiv 2405.04434); routing with a correction bias
(DeepSeek-V3, arXiv 2412.19437). Letters: M tokens, E experts, K experts per token, D hidden size, I expert width.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import MoEConfig
from mm.errors import ConfigError
from mm.language.layers import GatedMLP
from mm.products import LEAST_ROWS, product, suits

# DeepSeek-V3's published router divides by the sum plus this.
NORM_EPS = 1e-20

# F.grouped_mm takes rows of whole 16 bytes only, on every device.
GROUPED_BYTES = 16


class Router(nn.Module):
    """Chooses K experts for each token; everything in float32.

    In training mode the number of tokens each expert received is added to the buffer ``load`` (E,), for balancing.
    """

    load: Tensor

    def __init__(self, width: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        if config.method == "noaux_tc":
            self.e_score_correction_bias = nn.Parameter(torch.zeros(config.num_experts), requires_grad=False)
        self.register_buffer("load", torch.zeros(config.num_experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(M, D) -> expert indices (M, K) int64 and their weights (M, K) float32, in no promised order."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())  # (M, E)
            scores = logits.softmax(dim=-1) if self.config.scoring == "softmax" else logits.sigmoid()
            indices = self._choose(scores)
            weights = scores.gather(1, indices)
            if self.config.normalize_weights and self.config.num_experts_per_token > 1:
                weights = weights / (weights.sum(dim=-1, keepdim=True) + NORM_EPS)
            weights = weights * self.config.scaling_factor
        if self.training:
            self.load.add_(_count(indices, self.config.num_experts))
        return indices, weights

    def _choose(self, scores: Tensor) -> Tensor:
        config = self.config
        if config.method == "greedy":
            return scores.topk(config.num_experts_per_token, dim=-1, sorted=False).indices
        if config.method == "noaux_tc":
            scores = scores + self.e_score_correction_bias.float()
        grouped: Tensor = scores.unflatten(-1, (config.num_groups, -1))  # (M, G, E / G)
        if config.method == "noaux_tc":
            group_scores = grouped.topk(2, dim=-1).values.sum(dim=-1)
        else:
            group_scores = grouped.amax(dim=-1)
        groups = group_scores.topk(config.num_groups_per_token, dim=-1, sorted=False).indices
        kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, groups, True)
        # Excluded experts score 0.0, not minus infinity (published code): a negative biased score can lose to them.
        allowed = grouped.masked_fill(~kept.unsqueeze(-1), 0.0).flatten(1)
        return allowed.topk(config.num_experts_per_token, dim=-1, sorted=False).indices


def _count(indices: Tensor, num_experts: int) -> Tensor:
    """Tokens per expert, (E,), without reading anything back to the host (bincount would)."""
    experts = torch.arange(num_experts, device=indices.device)
    return (indices.flatten().unsqueeze(1) == experts).sum(dim=0)


def by_expert(indices: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Expert indices (M, K) -> the order (M * K,) int64 that sorts the pairs by expert, and where each expert's pairs
    end, (E,) int32."""
    order = indices.flatten().argsort(stable=True)
    return order, _count(indices, num_experts).cumsum(0).to(torch.int32)


def _check_sizes(width: int, inner: int, dtype: torch.dtype) -> None:
    """Refuse rows that the grouped product cannot take in ``dtype``."""
    multiple = GROUPED_BYTES // dtype.itemsize
    if width % multiple or inner % multiple:
        other = "" if dtype.itemsize >= torch.float32.itemsize else "use --dtype float32, or "
        raise ConfigError(
            f"the experts are {inner} wide on a hidden size of {width}; torch's grouped product in {dtype} needs both "
            f"to be multiples of {multiple}. No published model has others: {other}check moe_intermediate_size and "
            "hidden_size in config.json."
        )


Form = Literal["grouped", "gathered", "every", "dense"]

# A gathered weight is read, written and read again; one of all experts is read once.
GATHER_COST = 3


@cache
def grouped_is_static(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``F.grouped_mm`` runs on the device alone. It does for bfloat16 on NVIDIA's compute capability 9 and 10;
    elsewhere it reads the number of rows of each expert back to the host (ATen's GroupedBlas.cpp and GroupedMMUtils.h,
    torch 2.11)."""
    if device.type != "cuda" or torch.version.hip is not None or sys.platform == "win32":
        return False
    return dtype == torch.bfloat16 and torch.cuda.get_device_capability(device)[0] in (9, 10)


def choose_form(
    *, tokens: int, per_token: int, num_experts: int, on_host: bool, static: bool, decoding: bool
) -> Literal["grouped", "gathered", "every"]:
    """The form of the routed product that suits a call.

    Args:
        tokens: M.
        per_token: K.
        num_experts: E.
        on_host: on the CPU, where there is nobody to wait for.
        static: see ``grouped_is_static``.
        decoding: whether this is a decode step, which must not wait for the host.
    """
    if on_host or static:
        return "grouped"
    if GATHER_COST * tokens * per_token <= num_experts:
        return "gathered"
    return "every" if decoding else "grouped"


class Experts(nn.Module):
    """E gated MLPs with stacked weights; stored one by one in checkpoints.

    Raises:
        ConfigError: sizes that the grouped product cannot take.
    """

    def __init__(self, width: int, config: MoEConfig) -> None:
        super().__init__()
        inner, count = config.expert_width, config.num_experts
        _check_sizes(width, inner, torch.float32)  # in the widest type; a narrower one is checked where it is used
        self.gate_proj = nn.Parameter(torch.empty(count, inner, width))
        self.up_proj = nn.Parameter(torch.empty(count, inner, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, inner))
        for parameter, fan_in in ((self.gate_proj, width), (self.up_proj, width), (self.down_proj, inner)):
            nn.init.normal_(parameter, std=fan_in**-0.5)
        self.joint: Tensor | None = None  # (E, 2 I, D), of which gates and ups are views; see mm.transforms.fuse

    @property
    def is_joint(self) -> bool:
        """Whether gates and ups of an expert lie one behind the other in memory and are not trained."""
        joint = self.joint
        return (
            joint is not None
            and self.gate_proj.data_ptr() == joint.data_ptr()
            and self.up_proj.data_ptr() == joint.data_ptr() + joint.stride(0) // 2 * joint.element_size()
            and not self.gate_proj.requires_grad
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        joined = self.is_joint
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.is_joint:
            self.joint = None  # of the old place
            if joined:
                self.join()
        return self

    @torch.no_grad()
    def join(self) -> None:
        """Lay gates and ups of each expert one behind the other, so that one product computes both."""
        self.joint = torch.cat((self.gate_proj, self.up_proj), dim=1)
        gate, up = self.joint.chunk(2, dim=1)
        self.gate_proj = nn.Parameter(gate, requires_grad=False)
        self.up_proj = nn.Parameter(up, requires_grad=False)

    @torch.no_grad()
    def part(self) -> None:
        """The inverse of ``join``."""
        self.joint = None
        for name in ("gate_proj", "up_proj"):
            own = getattr(self, name).detach().clone(memory_format=torch.contiguous_format)
            setattr(self, name, nn.Parameter(own, requires_grad=False))

    def grouped(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Tokens sorted by expert, one grouped product per projection; experts without tokens are not read."""
        _check_sizes(x.shape[-1], self.gate_proj.shape[1], x.dtype)
        order, ends = by_expert(indices, self.gate_proj.shape[0])
        rows = x[order // indices.shape[1]]  # (M * K, D)
        if self.joint is not None and self.is_joint:
            if suits(rows, self.joint) and rows.shape[0] >= LEAST_ROWS * self.joint.shape[0]:
                return mix(self._one_by_one(rows, ends)[order.argsort()].unflatten(0, indices.shape), weights)
            gate, up = F.grouped_mm(rows, self.joint.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        else:
            gate = F.grouped_mm(rows, self.gate_proj.transpose(1, 2), offs=ends)
            up = F.grouped_mm(rows, self.up_proj.transpose(1, 2), offs=ends)
        out = F.grouped_mm(F.silu(gate) * up, self.down_proj.transpose(1, 2), offs=ends)  # (M * K, D)
        out = out[order.argsort()].unflatten(0, indices.shape)  # (M, K, D)
        return mix(out, weights)

    def _one_by_one(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Rows (M * K, D) sorted by expert, and where each one's end (E,) -> (M * K, D): on a CPU, where the grouped
        product is a loop as well, and what stands between the two products of one expert stays in the cache."""
        assert self.joint is not None
        found, start = [], 0
        for expert, stop in enumerate(ends.tolist()):
            if stop > start:
                gate, up = product(rows[start:stop], self.joint[expert]).chunk(2, dim=-1)
                found.append(product(F.silu(gate).mul_(up), self.down_proj[expert]))
            start = stop
        return torch.cat(found)

    def gathered(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """The chosen experts' weights copied for each token: for very few tokens, no host involved."""
        gate = torch.einsum("md,mkid->mki", x, self.gate_proj[indices])
        up = torch.einsum("md,mkid->mki", x, self.up_proj[indices])
        out = torch.einsum("mki,mkdi->mkd", F.silu(gate) * up, self.down_proj[indices])
        return mix(out, weights)

    def every(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Every expert on every token, and the chosen ones picked: reads each weight once, copies none, no host
        involved. For a decode step of many rows, which needs most experts anyway."""
        rows = x.expand(self.gate_proj.shape[0], *x.shape)  # (E, M, D)
        hidden = F.silu(rows.bmm(self.gate_proj.transpose(1, 2))) * rows.bmm(self.up_proj.transpose(1, 2))  # (E, M, I)
        out = hidden.bmm(self.down_proj.transpose(1, 2))  # (E, M, D)
        return mix(out[indices, torch.arange(x.shape[0], device=x.device).unsqueeze(1)], weights)

    def dense(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """Every expert on every token, unchosen ones weighted zero: one wide MLP, good for training small models."""
        count = self.gate_proj.shape[0]
        mixing = torch.zeros(x.shape[0], count, dtype=weights.dtype, device=x.device).scatter(1, indices, weights)
        hidden = F.silu(F.linear(x, self.gate_proj.flatten(0, 1))) * F.linear(x, self.up_proj.flatten(0, 1))
        hidden = hidden.unflatten(1, (count, -1)) * mixing.unsqueeze(-1).to(hidden.dtype)  # (M, E, I)
        return F.linear(hidden.flatten(1), self.down_proj.transpose(0, 1).flatten(1))


def mix(out: Tensor, weights: Tensor) -> Tensor:
    """(M, K, D) expert outputs and (M, K) float32 weights -> (M, D), summed in float32 as published."""
    return (out.float() * weights.unsqueeze(-1)).sum(dim=1).to(out.dtype)


class MoE(nn.Module):
    """Routed experts plus one shared MLP that every token passes.

    ``dispatch`` picks the form of the routed product: "auto" as ``choose_form`` says; "dense" computes every expert
    (training of small models). All are the same function.
    """

    def __init__(self, width: int, config: MoEConfig) -> None:
        super().__init__()
        self.gate = Router(width, config)
        self.experts = Experts(width, config)
        self.num_experts = config.num_experts
        if config.num_shared_experts:
            self.shared_experts = GatedMLP(width, config.num_shared_experts * config.expert_width)
        self.dispatch: Literal["auto", "dense"] = "auto"

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        flat = x.flatten(0, -2)  # (M, D)
        indices, weights = self.gate(flat)
        form: Form = "dense"
        if self.dispatch == "auto":
            form = choose_form(
                tokens=indices.shape[0],
                per_token=indices.shape[1],
                num_experts=self.num_experts,
                on_host=flat.device.type == "cpu",
                static=grouped_is_static(flat.device, flat.dtype),
                decoding=x.shape[-2] == 1,
            )
        product = getattr(self.experts, form)
        out: Tensor = product(flat, indices, weights).view_as(x)
        if hasattr(self, "shared_experts"):
            out = out + self.shared_experts(x)
        return out
