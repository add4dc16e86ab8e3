"""The high-resolution tower: its attention is timm's without the bias, and its second stream is the published one."""

from functools import partial
from typing import Any

import pytest
import torch
from timm.models.vision_transformer_sam import Attention, VisionTransformerSAM
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mm.config import PAIRS_PER_PASS, SamConfig
from mm.vision.sam import PositionBiasAttention, SamEncoder


def config(**changes: object) -> SamConfig:
    sizes: dict[str, Any] = {
        "image_size": 320,  # 20 patches a side: windows of 14 are padded
        "patch_size": 16,
        "width": 24,
        "num_blocks": 4,
        "num_heads": 3,
        "window_size": 14,
        "global_blocks": (1, 3),
        "neck_width": 8,
        "downsample_widths": (12, 16),
        "statistics": None,
    }
    return SamConfig(**{**sizes, **changes})


def randomize(module: nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(mean=float("norm" in name), std=0.4 if parameter.ndim > 1 else 0.1)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("size", [(14, 14), (20, 20), (48, 40)])  # a window, one pass, two
def test_attention_is_that_of_timm(size: tuple[int, int]) -> None:
    theirs = Attention(24, num_heads=3, use_rel_pos=True, input_size=size).eval()
    randomize(theirs)
    ours = PositionBiasAttention(theirs)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    patches = torch.randn(2, *size, 24)
    with torch.inference_mode():
        expected = theirs(patches)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(patches), expected)
        theirs.rel_pos_h.mul_(0)
        assert (ours(patches) - expected).abs().max() > 1e-2, "positions count"


def test_no_bias_of_all_queries_and_keys_is_made() -> None:
    attention = Attention(8, num_heads=1, use_rel_pos=True, input_size=(64, 64)).eval()
    patches = torch.randn(1, 64, 64, 8)
    most = {}
    for kind, module in (("timm", attention), ("ours", PositionBiasAttention(attention))):
        with torch.inference_mode(), Largest() as largest:
            module(patches)
        most[kind] = largest.numbers
    assert most == {"timm": 4096 * 4096, "ours": PAIRS_PER_PASS}


def test_the_tower_is_timms_and_a_second_stream() -> None:
    tower = SamEncoder(config(), grid=6).eval()
    randomize(tower)
    theirs = VisionTransformerSAM(
        img_size=320,
        embed_dim=24,
        depth=4,
        num_heads=3,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
        use_rel_pos=True,
        global_attn_indexes=(1, 3),
        neck_chans=8,
        num_classes=0,
        global_pool="",
    ).eval()
    own = ("neck_hd.", "downsamples.", "hd_alpha_downsamples")
    theirs.load_state_dict({k: v for k, v in tower.state_dict().items() if not k.startswith(own)}, strict=True)
    pixels = torch.randn(5, 3, 320, 320)
    with torch.inference_mode():
        last, (first, second) = theirs.forward_intermediates(pixels, indices=[1, 3])
        streams = []
        for stream in (last, tower.neck_hd(first), tower.neck_hd(second)):
            resized = nn.functional.interpolate(stream, size=(24, 24), mode="bilinear")
            streams.append(tower.downsamples(resized))
        out = tower(pixels)
        assert out.shape == (5, 16, 6, 6)
        torch.testing.assert_close(out, streams[0] + tower.hd_alpha_downsamples * streams[1])
        wrong = streams[0] + tower.hd_alpha_downsamples * streams[2]
        assert (out - wrong).abs().max() > 1e-2
        torch.testing.assert_close(tower(pixels[4:]), out[4:]), "a view alone"


def test_half_precision_stays_close() -> None:
    tower = SamEncoder(config(), grid=6).eval()
    randomize(tower)
    pixels = torch.randn(1, 3, 320, 320).bfloat16()
    with torch.inference_mode():
        exact = tower(pixels.float())
        rounded = tower.bfloat16()(pixels)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
