"""The order of an image's tokens."""

import torch

from mm.adaptors.tile_layout import image_layout, layout, num_tokens


def test_layout_of_one_image_written_out() -> None:
    # 2 x 2 tokens a view; two tiles side by side: global 0-3, tiles 4-7 and 8-11
    got = image_layout(2, 2, 1, first=0, newline=-1, separator=-2)
    assert got.tolist() == [0, 1, -1, 2, 3, -1, -2, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]
    assert len(got) == num_tokens(2, 2, 1)


def test_tiles_on_top_of_each_other() -> None:
    got = image_layout(2, 1, 2, first=0, newline=-1, separator=-2)
    assert got.tolist() == [0, 1, -1, 2, 3, -1, -2, 4, 5, -1, 6, 7, -1, 8, 9, -1, 10, 11, -1]


def test_images_follow_each_other_and_share_newline_and_separator() -> None:
    grids = torch.tensor([[1, 1], [2, 1]])
    got = layout(2, grids)
    total = 4 * (2 + 3)
    assert got.shape[0] == num_tokens(2, 1, 1) + num_tokens(2, 2, 1)
    assert got.max() == total + 1 and (got == total + 1).sum() == 2
    assert sorted(set(got.tolist()) - {total, total + 1}) == list(range(total))


def test_no_images_give_no_tokens() -> None:
    assert layout(2, torch.empty(0, 2, dtype=torch.int64)).shape == (0,)


def test_published_counts() -> None:
    """reference sizes: 196 tokens a tile, 210 for the global view, 1 separator (DeepSeek-VL2, 384-px tiles)."""
    assert num_tokens(14, 1, 1) == 210 + 1 + 14 * 15
    assert num_tokens(14, 3, 3) == 210 + 1 + 42 * 43
