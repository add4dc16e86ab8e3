"""Counts are checked before anything is written, and nothing of the caller's is written to."""

import pytest
import torch

from mm.errors import InputError
from mm.fusion import merge


def test_images_land_in_order() -> None:
    tokens = torch.zeros(4, 2)
    mask = torch.tensor([False, True, False, True])
    merged = merge(tokens, mask, torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    assert merged[:, 0].tolist() == [0, 1, 0, 2]
    assert tokens.abs().sum() == 0


def test_a_wrong_count_is_an_error() -> None:
    with pytest.raises(InputError, match="the prompt has 2 image positions, but the images give 3 embeddings"):
        merge(torch.zeros(4, 2), torch.tensor([False, True, False, True]), torch.ones(3, 2))
