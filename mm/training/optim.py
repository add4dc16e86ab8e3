"""Optimizers: Muon for matrices, AdamW for everything else, and the learning-rate schedule.

Muon orthogonalises the momentum of every weight matrix with a Newton-Schulz iteration (Keller Jordan et al., "Muon: an
optimizer for hidden layers in neural networks", 2024; quintic coefficients and the sqrt(rows / columns) scale are from
there). ``torch.optim.Muon`` takes 2-D parameters one at a time; this one also takes stacked experts (E, rows, columns),
and runs one batched iteration for all matrices of one shape, which at small widths is what the step time hangs on.

Letters: E stacked matrices, R rows (outputs), C columns (inputs).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the reference implementation, tuned for slope at zero
_NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Replaces every matrix of (E, R, C) by an approximation of its nearest semi-orthogonal matrix.

    Singular values land in about 0.7..1.2, which is all that Muon needs. Computed in bfloat16 on accelerators, where
    the iteration is as good and several times faster, and in float32 on the CPU.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    x = x.mT if tall else x  # (E, short, long)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT  # (E, short, short)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for parameters of shape (R, C), (E, R, C) or convolutions.

    Args:
        groups: parameter groups; a convolution (R, C, H, W) is a matrix of R rows. A group's ``parts`` (default 1) says
            into how many equal blocks of rows its matrices are cut before orthogonalising (3 for a fused
            query-key-value projection).
        lr: step size; an update of an R x C matrix has spectral norm about ``lr * max(1, R / C) ** 0.5``.
        momentum: decay of the (Nesterov) momentum.
        weight_decay: decoupled decay.

    Raises:
        ValueError: a parameter that is not a matrix or a stack of matrices, or rows that ``parts`` does not divide.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})
        for group in self.param_groups:
            for parameter in group["params"]:
                rows = parameter.shape[0] if parameter.ndim == 4 else parameter.shape[-2] if parameter.ndim > 1 else 1
                if parameter.ndim not in (2, 3, 4) or rows % group["parts"]:
                    shape = tuple(parameter.shape)
                    raise ValueError(f"Muon takes (stacks of) matrices, got {shape} in {group['parts']} parts")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step with the gradients that are there; parameters without a gradient stay as they are."""
        if closure is not None:
            raise ValueError("Muon evaluates no closure")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            buffers = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov
            directions = _orthogonalize_all(list(updates), group["parts"])
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])


def _orthogonalize_all(updates: list[Tensor], parts: int) -> list[Tensor]:
    """Orthogonalises every (block of a) matrix, all of one shape in one batch, and scales by sqrt(max(1, R / C))."""
    flat = [u.flatten(1) if u.ndim == 4 else u for u in updates]
    stacks = [u.reshape(-1, u.shape[-2] // parts, u.shape[-1]) for u in flat]  # (E * parts, R, C)
    same_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, stack in enumerate(stacks):
        same_shape[stack.shape[1], stack.shape[2]].append(index)
    directions = list(updates)
    for (rows, columns), indices in same_shape.items():
        result = orthogonalize(torch.cat([stacks[i] for i in indices])) * max(1.0, rows / columns) ** 0.5
        for index, piece in zip(indices, result.split([stacks[i].shape[0] for i in indices]), strict=True):
            directions[index] = piece.reshape(updates[index].shape)
    return directions


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """Step sizes. ``muon_lr`` and ``adamw_lr`` are peaks; the schedule multiplies both."""

    muon_lr: float
    muon_momentum: float
    muon_weight_decay: float
    adamw_lr: float
    adamw_betas: tuple[float, float]
    adamw_weight_decay: float
    clip_norm: float


_ADAMW_NAMES = (
    *("embed_tokens", "lm_head", "pos_embed", "patch_embed", ".gate.weight", "image_newline", "char_head"),
    *("patch_head", "vision_head", "image_head.embedding", "quantize.embedding", "encoder.conv_in", "decoder.conv_out"),
)


def build_optimizers(model: nn.Module, recipe: OptimizerRecipe) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices and stacked experts; AdamW for embeddings, heads, routers, norms, biases and vectors."""
    fused_qkv, matrices, rest = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or any(part in name for part in _ADAMW_NAMES):
            rest.append(parameter)
        elif name.endswith("qkv.weight"):
            fused_qkv.append(parameter)
        else:
            matrices.append(parameter)
    groups: list[dict[str, Any]] = [{"params": matrices}]
    if fused_qkv:
        groups.append({"params": fused_qkv, "parts": 3})
    muon = Muon(groups, lr=recipe.muon_lr, momentum=recipe.muon_momentum, weight_decay=recipe.muon_weight_decay)
    adamw = torch.optim.AdamW(
        rest, lr=recipe.adamw_lr, betas=recipe.adamw_betas, weight_decay=recipe.adamw_weight_decay, foreach=True
    )
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adamw]


def lr_factor(progress: float, *, warm_up: float, cool_down: float, final: float) -> float:
    """Multiplier of the peak learning rate: linear warm-up, constant, linear cool-down.

    Args:
        progress: share of the whole schedule that is done, 0..1.
        warm_up: length of the warm-up, as a share of the schedule.
        cool_down: length of the cool-down at the end, as a share of the schedule.
        final: the factor that the cool-down ends at.
    """
    rise = min(1.0, max(progress, 1e-3 * warm_up) / warm_up) if warm_up > 0 else 1.0
    left = (1.0 - progress) / cool_down if cool_down > 0 else 1.0
    return rise * (final + (1.0 - final) * min(1.0, max(0.0, left)))


def set_lr(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Sets every group's learning rate to ``factor`` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
