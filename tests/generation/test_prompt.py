"""Keys of prompts, and prompts in pieces."""

from dataclasses import replace

import numpy as np
import torch

from mm.generation.prompt import common_prefix, next_piece, token_keys, whole_images
from tests.generation.tiny import IMAGE_ID, picture_inputs, text_inputs


def test_text_is_its_tokens_and_an_image_its_pixels():
    assert token_keys(text_inputs([3, 1, 2])).tolist() == [3, 1, 2]
    ids = [5, IMAGE_ID, 6, IMAGE_ID, 7]
    one, same, other = (token_keys(picture_inputs(ids, pictures)) for pictures in ([1, 2], [1, 2], [1, 3]))
    assert (one == same).all()
    assert one[[0, 6, 12]].tolist() == [5, 6, 7]
    assert (one[1:6] < 0).all()
    assert len(set(one[1:5].tolist())) == 4  # 256 bits
    assert common_prefix(one, other) == 7
    assert common_prefix(one, token_keys(text_inputs([5, *[IMAGE_ID] * 5]))) == 1


def test_the_grid_of_an_image_counts():
    inputs = picture_inputs([IMAGE_ID], [1])
    wide, high = (
        replace(inputs, pixels=inputs.pixels[:1].expand(3, -1, -1, -1), tile_grids=torch.tensor([grid]))
        for grid in ([2, 1], [1, 2])
    )
    assert common_prefix(token_keys(wide), token_keys(high)) == 0


def test_common_prefix():
    a = np.array([1, 2, 3])
    assert common_prefix(a, a) == common_prefix(a, np.array([1, 2, 3, 4])) == 3
    assert common_prefix(a, np.array([1, 5, 3])) == 1
    assert common_prefix(a, a[:0]) == 0


def test_a_beginning_ends_inside_no_image():
    spans = picture_inputs([1, IMAGE_ID, IMAGE_ID], [1, 2]).spans  # 1-5 and 6-10
    assert [whole_images(spans, length) for length in (0, 1, 2, 5, 6, 7, 10, 11)] == [0, 1, 1, 1, 6, 6, 6, 11]


def test_a_piece_has_at_most_one_image_and_pieces_make_the_whole():
    inputs = picture_inputs([1, 2, IMAGE_ID, 3, IMAGE_ID, IMAGE_ID, 4], [0.5, 1.0, 2.0])
    for start in (0, 1, 7, 8):
        pieces, at = [], start
        while at < inputs.num_tokens:
            pieces.append(next_piece(inputs, at))
            at += pieces[-1].num_tokens
        assert [len(piece.spans) for piece in pieces] == ([1, 1, 1] if start < 3 else [1, 1])
        assert torch.equal(torch.cat([piece.input_ids for piece in pieces]), inputs.input_ids[start:])
        assert torch.equal(torch.cat([piece.image_mask for piece in pieces]), inputs.image_mask[start:])
        assert torch.equal(torch.cat([piece.pixels for piece in pieces]), inputs.pixels[0 if start < 3 else 2 :])
        for piece in pieces:
            for span in piece.spans:
                assert piece.image_mask[span.start : span.stop].all()
            assert piece.image_mask.sum() == 5
    assert next_piece(inputs, inputs.num_tokens - 1).pixels.shape[0] == 0
