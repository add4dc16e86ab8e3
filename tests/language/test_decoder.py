"""Every kind of decoder: one pass, cached, chunked, batched and trained give the same numbers."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.language.tiny import VARIANTS, decoder

TOKENS = 13
READS_BACK = {"_local_scalar_dense", "nonzero", "unique", "_unique2", "bincount", "masked_select", "is_nonzero"}


class Recorder(TorchDispatchMode):
    """Fails on operations that read values back to the host; notes every operation and its output shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in READS_BACK, f"{name} waits for the device"
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.shapes.append((name, tuple(out.shape)))
        return out


every_variant = pytest.mark.parametrize("name", VARIANTS)


def ids(rows: int = 1, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(3))


@every_variant
def test_cached_decode_equals_the_full_pass(name: str) -> None:
    model = decoder(name)
    embeds = model.embed(ids())
    full = model.logits(model(embeds))
    cache = model.new_cache(1, TOKENS)
    hidden = [model(embeds[:, :5], cache=cache)]
    for position in range(5, TOKENS):
        hidden.append(
            model(
                embeds[:, position : position + 1],
                positions=torch.tensor([[position]]),
                cache=cache,
                visible=position + 1,
            )
        )
    torch.testing.assert_close(model.logits(torch.cat(hidden, dim=1)), full)


@every_variant
@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_chunked_prefill_equals_the_whole(name: str, chunk: int) -> None:
    model = decoder(name)
    embeds = model.embed(ids())
    cache = model.new_cache(1, 2 * TOKENS)
    parts = []
    for start in range(0, TOKENS, chunk):
        part = embeds[:, start : start + chunk]
        positions = torch.arange(start, start + part.shape[1])[None]
        parts.append(model(part, positions=positions, cache=cache, visible=start + part.shape[1]))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(embeds))


@every_variant
def test_rows_of_different_length_do_not_disturb_each_other(name: str) -> None:
    model = decoder(name)
    lengths = [4, TOKENS, 9]
    tokens = ids(len(lengths), TOKENS + 2)
    cache = model.new_cache(len(lengths), TOKENS + 2)
    model(model.embed(tokens[:, :TOKENS]), cache=cache)  # short rows hold other rows' width of padding
    positions = torch.tensor(lengths)[:, None]
    step = tokens[:, -1:]
    hidden = model(model.embed(step), positions=positions, cache=cache)
    for row, length in enumerate(lengths):
        alone = model(model.embed(torch.cat((tokens[row : row + 1, :length], step[row : row + 1]), dim=1)))
        torch.testing.assert_close(hidden[row], alone[0, -1:])


@every_variant
def test_a_row_of_the_cache_is_filled_through_its_view(name: str) -> None:
    model = decoder(name)
    tokens = ids(2)
    cache = model.new_cache(3, TOKENS)
    for row in (2, 0):
        model(model.embed(tokens[row // 2 : row // 2 + 1, :-1]), cache=cache.rows(row, row + 1))
    last = model.embed(tokens[:, -1:])[[0, 0, 1]]
    hidden = model(last, positions=torch.full((3, 1), TOKENS - 1), cache=cache)
    torch.testing.assert_close(hidden[[0, 2]], model(model.embed(tokens))[:, -1:])


@every_variant
def test_hidden_keys_change_nothing(name: str) -> None:
    model = decoder(name)
    embeds = model.embed(ids())
    mask = torch.ones(1, TOKENS, dtype=torch.bool)
    torch.testing.assert_close(model(embeds, key_mask=mask), model(embeds))
    mask[0, :3] = False
    shifted = torch.arange(-3, TOKENS - 3).clamp(min=0)[None]
    torch.testing.assert_close(
        model(embeds, positions=shifted, key_mask=mask)[:, 3:], model(embeds[:, 3:]), msg="left padding must not matter"
    )


@every_variant
def test_training_mode_gives_the_same_logits(name: str) -> None:
    model = decoder(name)
    embeds = model.embed(ids(2))
    expected = model(embeds)
    model.train()
    for layer in model.model.layers:
        if hasattr(layer.mlp, "dispatch"):
            layer.mlp.dispatch = "dense"
    torch.testing.assert_close(model(embeds), expected)


@every_variant
def test_a_decode_step_reads_nothing_back_and_keeps_its_shapes(name: str) -> None:
    model = decoder(name)
    cache = model.new_cache(2, 16)
    shapes = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        tokens, positions = torch.randint(0, 50, (2, 1)), torch.randint(0, 16, (2, 1))
        with Recorder() as recorder:
            model(model.embed(tokens), positions=positions, cache=cache, visible=16)
        shapes.append(recorder.shapes)
    assert shapes[0] == shapes[1], "another token or position must run the same operations on the same shapes"


@pytest.mark.parametrize(
    ("name", "numbers"), [("mha-dense", 2 * 4 * 8), ("gqa-moe", 2 * 2 * 8), ("mla-greedy", 24 + 8)]
)
def test_cache_holds_exactly_what_a_token_needs(name: str, numbers: int) -> None:
    cache = decoder(name).new_cache(2, 7)
    assert cache.bytes_per_token() == 3 * numbers * 4
    assert (cache.num_rows, cache.length) == (2, 7)
    assert sum(t.numel() * 4 for layer in cache.layers for t in layer.tensors) == 2 * 7 * cache.bytes_per_token()


def test_positions_beyond_the_trained_length_work() -> None:
    model = decoder("mla-greedy")
    assert model(model.embed(ids(1, 100))).shape == (1, 100, 32)


def test_the_callers_tensors_are_not_written_to() -> None:
    model = decoder("mla-lora-yarn-noaux")
    embeds = model.embed(ids())
    before = embeds.clone()
    model(embeds, cache=model.new_cache(1, TOKENS))
    assert torch.equal(embeds, before)
