"""The adaptor of two towers."""

import torch
from torch.nn import functional as F

from mm.adaptors.split import SplitMLPAdaptor
from mm.config import SplitMLPConfig


def test_the_high_resolution_half_stands_first() -> None:
    torch.manual_seed(0)
    adaptor = SplitMLPAdaptor(SplitMLPConfig(input_width=6, output_width=8, depth=2))
    assert [name for name, _ in adaptor.named_parameters() if name.endswith("weight")] == [
        "high_up_proj.weight",
        "low_up_proj.weight",
        "layers.1.weight",
    ]
    high, low = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    state = adaptor.state_dict()
    halves = [
        F.linear(x, state[f"{n}_up_proj.weight"], state[f"{n}_up_proj.bias"]) for n, x in (("high", high), ("low", low))
    ]
    expected = F.linear(F.gelu(torch.cat(halves, -1)), state["layers.1.weight"], state["layers.1.bias"])
    torch.testing.assert_close(adaptor((high, low)), expected)
    assert (adaptor((low, high)) - expected).abs().max() > 1e-2
    assert len(SplitMLPAdaptor(SplitMLPConfig(input_width=6, output_width=8, depth=3)).layers) == 4
