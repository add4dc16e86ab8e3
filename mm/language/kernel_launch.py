# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, no-any-return"
"""How kernels of a decode step are launched: each may come while the one before it ends.

With programmatic dependent launch (compute capability 9.0 on) a kernel that came early reads weights meanwhile, and
waits (``gdc_wait``) before it reads or writes anything else. Every program of every kernel waits, so that what has
ended has waited for all that was launched before it.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@cache
def launch_options(device: torch.device) -> dict[str, Any]:
    """What a launch on this device is given for an early start."""
    early = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9
    return {"PDL": True, "launch_pdl": True} if early else {"PDL": False}


@triton.jit
def wait(PDL: tl.constexpr):
    """Let the next kernel come, and wait for those before."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
