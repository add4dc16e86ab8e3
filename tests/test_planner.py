"""What only some models and machines take; most counts are tested through plans (test_plan.py)."""

import torch

from mm.hub import find_config
from mm.plan import make_plan
from mm.planner import Planner, Workload


def test_nothing_is_recorded_where_there_are_no_kernels() -> None:
    work = Workload(batch=16)
    assert Planner(find_config("deepseek-ai/deepseek-vl2").folder).recorded(work, torch.bfloat16) == 0, "noaux_tc"
    small = find_config("deepseek-ai/deepseek-vl2-small")
    recorded = Planner(small.folder).recorded(work, torch.bfloat16)
    one = make_plan(small, work, gpu_memory=[200 * 2**30])
    two = make_plan(small, work, gpu_memory=[200 * 2**30] * 2)
    assert one.devices[0].peak.activations == one.peak.activations > recorded > 2**30
    moments = Planner(small.folder).moments(work, torch.bfloat16, "cuda", spread=True)
    assert moments.widened == 0, "a model on several GPUs goes without kernels and graphs"
    for share in two.devices:
        assert share.peak.activations <= moments.held + max(moments.first, moments.layers, moments.last)
