"""The adaptor's blocks are channel-major and zero-padded to whole blocks, as published (torch's unfold)."""

import torch
from torch.nn import functional as F

from mm.adaptors.pixel_shuffle import PixelShuffleAdaptor
from mm.config import PixelShuffleConfig


def test_equals_unfold_on_a_padded_grid() -> None:
    torch.manual_seed(0)
    adaptor = PixelShuffleAdaptor(PixelShuffleConfig(input_width=5, output_width=7, ratio=2, mlp_ratio=1, depth=2))
    features = torch.randn(3, 9, 5)
    grid = F.pad(features.view(3, 3, 3, 5), (0, 0, 0, 1, 0, 1)).permute(0, 3, 1, 2)
    blocks = F.unfold(grid, kernel_size=2, stride=2).transpose(1, 2)  # (3, 4, 20)
    first, _, second = adaptor.layers
    torch.testing.assert_close(adaptor(features), second(F.gelu(first(blocks))))


def test_depth_and_mlp_ratio_shape_the_layers() -> None:
    adaptor = PixelShuffleAdaptor(PixelShuffleConfig(input_width=4, output_width=6, ratio=2, mlp_ratio=3, depth=3))
    shapes = {name: tuple(value.shape) for name, value in adaptor.state_dict().items() if name.endswith("weight")}
    assert shapes == {"layers.0.weight": (18, 16), "layers.2.weight": (18, 18), "layers.4.weight": (6, 18)}
