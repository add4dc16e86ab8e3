"""Several prompts in one call, padded: each gets what it gets alone, as long as it is."""

import pytest
import torch

from tests.language.tiny import VARIANTS, decoder

SLOTS = 41  # of a row; the last one takes what stands behind prompts


def filled(cache):
    """Something left over in every slot."""
    for layer in cache.layers:
        for tensor in layer.tensors:
            tensor.normal_()
    return cache


def padded(blocks, tokens):
    """(N, T, D), numbers that are none behind the blocks."""
    return torch.stack([torch.cat((b, torch.full((tokens - len(b), 32), torch.nan))) for b in blocks])


def run(model, cache, blocks, rows, starts, tokens, visible=None):
    return model.prompts(
        padded(blocks, tokens),
        rows=torch.tensor(rows),
        starts=torch.tensor(starts),
        counts=torch.tensor([len(block) for block in blocks]),
        cache=cache,
        visible=visible,
    )


@pytest.fixture(params=VARIANTS)
def model(request):
    return decoder(request.param)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


def test_prompts_and_what_comes_later_are_those_of_calls_of_their_own(model):
    cache, alone = filled(model.new_cache(5, SLOTS)), model.new_cache(5, SLOTS)
    rows, filled_slots = [3, 0, 4], [0, 0, 0]
    untouched = [tensor[[1, 2]].clone() for layer in cache.layers for tensor in layer.tensors]
    for lengths, tokens, visible in (([16, 5, 11], 16, None), ([7, 1, 12], 20, 32)):
        blocks = [torch.randn(length, 32) for length in lengths]
        found = run(model, cache, blocks, rows, filled_slots, tokens, visible)
        for index, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            start = filled_slots[index]
            positions = torch.arange(start, start + len(block))[None] if start else None
            expected = model(
                block[None], positions=positions, cache=alone.rows(row, row + 1), visible=start + len(block)
            )
            torch.testing.assert_close(found[index], expected[0, -1], atol=1e-5, rtol=1e-5)
            filled_slots[index] += len(block)
    for layer, other in zip(cache.layers, alone.layers, strict=True):
        for tensor, expected in zip(layer.tensors, other.tensors, strict=True):
            for row, count in zip(rows, filled_slots, strict=True):
                torch.testing.assert_close(tensor[row, :count], expected[row, :count], atol=1e-5, rtol=1e-5)
    # Nothing else is written to but the last slot of each of the rows.
    kept = [tensor[[1, 2]] for layer in cache.layers for tensor in layer.tensors]
    assert all(map(torch.equal, kept, untouched))


def test_who_else_is_there_and_how_much_is_padded_changes_a_prompt_by_rounding_only(model):
    blocks = [torch.randn(length, 32) for length in (9, 16, 13)]
    found = []
    for others, tokens in (([], 9), ([], 16), ([1], 16), ([1, 2], 32)):
        cache = filled(model.new_cache(4, SLOTS))
        chosen = [blocks[0], *(blocks[other] for other in others)]
        found.append(run(model, cache, chosen, list(range(3, 3 - len(chosen), -1)), [0] * len(chosen), tokens)[0])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)


def test_a_prompt_of_no_numbers_leaves_the_others_alone(model):
    blocks = [torch.randn(9, 32), torch.full((12, 32), torch.nan)]
    found = run(model, model.new_cache(2, SLOTS), blocks, [1, 0], [0, 0], 16)
    alone = model(blocks[0][None], cache=model.new_cache(1, SLOTS))[0, -1]
    torch.testing.assert_close(found[0], alone, atol=1e-5, rtol=1e-5)
    assert found[1].isnan().all()


def test_rows_of_a_cache_are_copied_and_exchanged_in_every_layer(model, monkeypatch):
    monkeypatch.setattr("mm.language.cache.SWAP_BYTES", 300)  # some layers at a time
    cache = filled(model.new_cache(3, 8))
    before = [tensor.clone() for layer in cache.layers for tensor in layer.tensors]
    cache.swap_rows(0, 2, 5)
    cache.copy_row(1, cache, 0, 4)
    cache.clear_row(2)
    after = [tensor for layer in cache.layers for tensor in layer.tensors]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[0], torch.cat((old[2, :5], old[0, 5:])))
        assert torch.equal(new[1], torch.cat((old[2, :4], old[1, 4:])))
        assert not new[2].any()
    assert cache.bytes_per_token() == sum(tensor[0, 0].numel() * 4 for tensor in after)
