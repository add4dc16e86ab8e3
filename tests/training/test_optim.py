"""Muon, parameter groups, schedule."""

import pytest
import torch
from torch import nn

from mm.training.optim import Muon, OptimizerRecipe, build_optimizers, lr_factor, orthogonalize, set_lr

RECIPE = OptimizerRecipe(
    muon_lr=0.02,
    muon_momentum=0.95,
    muon_weight_decay=0.0,
    adamw_lr=0.002,
    adamw_betas=(0.9, 0.95),
    adamw_weight_decay=0.0,
    clip_norm=1.0,
)


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (1, 24, 24)])
def test_orthogonalize_brings_singular_values_near_one_and_keeps_the_directions(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalize(matrices)
    assert out.shape == matrices.shape
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    exact = left @ right
    assert torch.nn.functional.cosine_similarity(out.flatten(), exact.flatten(), dim=0) > 0.97


def test_a_stack_of_experts_gets_the_same_update_as_its_matrices_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(4, 12, 20, generator=generator), torch.randn(4, 12, 20, generator=generator)
    stacked = nn.Parameter(start.clone())
    single = [nn.Parameter(matrix.clone()) for matrix in start]
    for parameters, gradients in (([stacked], [gradient]), (single, list(gradient))):
        optimizer = Muon([{"params": parameters}], lr=0.1)
        for _ in range(3):
            for parameter, grad in zip(parameters, gradients, strict=True):
                parameter.grad = grad.clone()
            optimizer.step()
    torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in single]))


def test_a_fused_projection_in_parts_gets_the_update_of_its_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(30, 10, generator=generator), torch.randn(30, 10, generator=generator)
    fused = nn.Parameter(start.clone())
    blocks = [nn.Parameter(block.clone()) for block in start.chunk(3)]
    fused.grad = gradient.clone()
    for block, grad in zip(blocks, gradient.chunk(3), strict=True):
        block.grad = grad.clone()
    Muon([{"params": [fused], "parts": 3}], lr=0.1).step()
    Muon([{"params": blocks}], lr=0.1).step()
    torch.testing.assert_close(fused.detach(), torch.cat([b.detach() for b in blocks]))


def test_muon_refuses_vectors_and_rows_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"got \(5,\) in 1 parts"):
        Muon([{"params": [nn.Parameter(torch.zeros(5))]}], lr=0.1)
    with pytest.raises(ValueError, match=r"got \(10, 4\) in 3 parts"):
        Muon([{"params": [nn.Parameter(torch.zeros(10, 4))], "parts": 3}], lr=0.1)


def test_hidden_matrices_go_to_muon_and_embeddings_heads_and_vectors_to_adamw() -> None:
    module = nn.ModuleDict(
        {
            "embed_tokens": nn.Embedding(8, 4),
            "lm_head": nn.Linear(4, 8, bias=False),
            "fc": nn.Linear(4, 6),
            "qkv": nn.Linear(4, 12),
        }
    )
    muon, adamw = build_optimizers(module, RECIPE)
    assert [[tuple(p.shape) for p in group["params"]] for group in muon.param_groups] == [[(6, 4)], [(12, 4)]]
    assert [group["parts"] for group in muon.param_groups] == [1, 3]
    assert sorted(tuple(p.shape) for p in adamw.param_groups[0]["params"]) == [(6,), (8, 4), (8, 4), (12,)]
    set_lr([muon, adamw], 0.5)
    assert muon.param_groups[1]["lr"] == 0.01
    assert adamw.param_groups[0]["lr"] == 0.001


def test_the_learning_rate_rises_holds_and_falls_to_its_end() -> None:
    values = [lr_factor(p, warm_up=0.1, cool_down=0.5, final=0.02) for p in (0.05, 0.1, 0.5, 0.75, 1.0)]
    assert values == pytest.approx([0.5, 1.0, 1.0, 0.51, 0.02])
    assert lr_factor(0.0, warm_up=0.1, cool_down=0.5, final=0.0) > 0
