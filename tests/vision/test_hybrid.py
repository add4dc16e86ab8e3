"""Towers that normalise their own pixels, and two of them over one image."""

import torch
from torchvision.transforms.functional import normalize, resize

from mm.config import HybridVisionConfig, NormalizedVisionConfig, PixelStatistics, SamConfig
from mm.vision.hybrid import HybridEncoder, NormalizedTower, Shrink, build_single

HALF = PixelStatistics(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CLIP = PixelStatistics(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


def low(statistics: PixelStatistics | None) -> NormalizedVisionConfig:
    return NormalizedVisionConfig(
        image_size=64,
        patch_size=16,
        width=24,
        num_blocks=2,
        num_heads=3,
        mlp_width=96,
        gelu="exact",
        statistics=statistics,
    )


def hybrid() -> HybridVisionConfig:
    high = SamConfig(
        image_size=256,
        patch_size=16,
        width=16,
        num_blocks=2,
        num_heads=2,
        window_size=14,
        global_blocks=(1,),
        neck_width=8,
        downsample_widths=(12, 24),
        statistics=CLIP,
    )
    return HybridVisionConfig(high=high, low=low(HALF))


def test_pixels_are_normalised_in_the_tower_and_left_alone_for_the_caller() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    before = pixels.clone()
    tower = NormalizedTower(torch.nn.Identity(), CLIP)
    torch.testing.assert_close(tower(pixels), normalize(pixels, list(CLIP.mean), list(CLIP.std)), rtol=0, atol=0)
    assert torch.equal(pixels, before)
    assert NormalizedTower(torch.nn.Identity(), None)(pixels) is pixels


def test_a_single_tower_with_statistics_is_one_whose_pixels_arrive_normalised() -> None:
    torch.manual_seed(0)
    inside, outside = build_single(low(HALF)).eval(), build_single(low(None)).eval()
    outside.load_state_dict(inside.state_dict())
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(inside(pixels), outside((pixels - 0.5) / 0.5), rtol=0, atol=0)


def test_shrinking_is_that_of_torchvision() -> None:
    pixels = torch.rand(2, 3, 256, 256)
    expected = resize(pixels, [64, 64], antialias=True)
    torch.testing.assert_close(Shrink(64)(pixels), expected, rtol=0, atol=0)
    assert Shrink(64)(pixels.bfloat16()).dtype == torch.bfloat16


def test_both_towers_see_the_picture_place_by_place() -> None:
    torch.manual_seed(0)
    encoder = HybridEncoder(hybrid()).eval()
    pixels = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        high, small = encoder(pixels)
        assert high.shape == small.shape == (2, 16, 24)
        picture = encoder.high(pixels)  # (2, 24, 4, 4)
        assert torch.equal(high[:, 4 * 1 + 2], picture[:, :, 1, 2])
        torch.testing.assert_close(small, encoder.low(resize(pixels, [64, 64], antialias=True)), rtol=0, atol=0)


def test_memory_of_a_view_counts_the_larger_tower() -> None:
    config = hybrid()
    assert config.image_size == 256
    # SAM: 256 patches x (8 widths of 16, and 2 x 16 terms of 2 heads), and 256 x 256 numbers of bias a head
    assert config.block_numbers(1) == 256 * (8 * 16 + 2 * 16 * 2) + 256 * 256 * 2
    assert config.block_numbers(40) == 4 * config.block_numbers(1)
    assert config.low.block_numbers(1) == 16 * (2 * 24 + 2 * 96)
