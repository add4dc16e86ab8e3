"""What makes a pass cheaper on a GPU without changing what is computed: fused kernels and a narrow residual stream."""

import logging
import warnings
from typing import Any

import torch
from torch import nn

from mm.training.objective import StepObjective

_RECOMPILE_LIMIT = 64  # of one block's code: by shape, and for layers with and without experts


def compile_blocks(objective: StepObjective) -> None:
    """Compiles every encoder block and decoder layer in place, for any number of rows and tokens; names stay.

    An image tokenizer's networks are compiled as a whole, for each shape that they meet: a layout that suits
    convolutions is only found for fixed shapes.

    Blocks of one kind share their code, so three kinds are compiled. On an H200 that takes a minute and a half once
    (``TORCHINDUCTOR_CACHE_DIR`` keeps the result) and makes a pass 1.7 times as fast: a model of this size is bound by
    the memory traffic of its normalisations and additions.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    # diffusers asks for torch's version through a cache, which compilation may well look through.
    warnings.filterwarnings("ignore", r"Dynamo detected a call to a `functools\.lru_cache`", UserWarning)
    for name in objective.stacks:
        for block in objective.model.get_submodule(name).children():
            block.compile(dynamic=True)
    for network in objective.pictured():
        network.compile(dynamic=False)


def narrow_residual(objective: StepObjective) -> None:
    """Keeps the residual streams in bfloat16, as the published models were trained; autocast alone leaves float32."""
    for name in objective.stacks:
        first = next(objective.model.get_submodule(name).children())
        first.register_forward_pre_hook(_to_bfloat16)


def _to_bfloat16(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (arguments[0].to(torch.bfloat16), *arguments[1:])
