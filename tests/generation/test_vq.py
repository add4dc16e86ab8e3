"""The image tokenizer: parameters as published, codes in range, one picture like several, trainable."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mm.config import VQConfig
from mm.errors import ImageError, InputError
from mm.generation.vq import VQTokenizer, check_codes, to_bytes, to_pixels

PUBLISHED = VQConfig(
    num_codes=16384,
    code_width=8,
    width=128,
    encoder_multipliers=(1, 1, 2, 2, 4),
    decoder_multipliers=(1, 1, 2, 2, 4),
    latent_width=256,
    num_res_blocks=2,
)
TINY = replace(
    PUBLISHED, num_codes=50, width=32, encoder_multipliers=(1, 1, 2), decoder_multipliers=(2, 1, 1), latent_width=16
)


@pytest.fixture(scope="module")
def vq() -> VQTokenizer:
    torch.manual_seed(0)
    return VQTokenizer(TINY).requires_grad_(False)


def test_the_published_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VQTokenizer(PUBLISHED).parameters()) == 71_883_403


def test_every_parameter_is_one_of_diffusers(vq: VQTokenizer) -> None:
    """No parameter of theirs is without a value, and none of ours without a use."""
    for part, network in zip(("encoder", "decoder"), vq.networks(), strict=True):
        ours = [parameter.data_ptr() for parameter in vq.get_submodule(part).parameters()]
        theirs = [tensor.data_ptr() for _, tensor in network.named_parameters()]
        assert sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours)
    with torch.device("meta"):
        published = VQTokenizer(PUBLISHED)
    for part, network in zip(("encoder", "decoder"), published.networks(), strict=True):
        shapes = [tensor.numel() for tensor in published.get_submodule(part).parameters()]
        assert sorted(shapes) == sorted(tensor.numel() for _, tensor in network.named_parameters())


def test_a_picture_alone_and_among_others(vq: VQTokenizer) -> None:
    torch.manual_seed(1)
    pixels = torch.rand(3, 3, 24, 16) * 2 - 1
    codes = vq.encode(pixels)
    assert codes.shape == (3, 24) and codes.dtype == torch.int64
    decoded = vq.decode(codes, (6, 4))
    assert decoded.shape == (3, 3, 24, 16) and decoded.dtype == torch.float32
    for index in range(3):
        assert torch.equal(vq.encode(pixels[index : index + 1])[0], codes[index])
        assert torch.equal(vq.decode(codes[index : index + 1], (6, 4))[0], decoded[index])


def test_the_codebook_is_used_at_length_one(vq: VQTokenizer) -> None:
    longer = copy.deepcopy(vq)
    longer.get_parameter("quantize.embedding.weight").mul_(torch.rand(50, 1) + 0.5)
    codes = torch.arange(24)[None]
    torch.testing.assert_close(longer.decode(codes, (6, 4)), vq.decode(codes, (6, 4)))
    rows = vq.codebook()
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(50))
    assert torch.equal(vq.nearest(rows), torch.arange(50))


def test_changed_weights_are_seen(vq: VQTokenizer) -> None:
    changed = copy.deepcopy(vq)
    codes = torch.arange(24)[None]
    before = changed.decode(codes, (6, 4))
    changed.get_parameter("decoder.mid.1.q.weight").add_(0.5)  # a squeezed kernel on diffusers' side
    changed.get_parameter("decoder.conv_out.bias").add_(1.0)
    after = changed.decode(codes, (6, 4))
    assert (after - before - 1).abs().max() > 1e-6 and (after - before).mean() > 0.9
    assert torch.equal(vq.decode(codes, (6, 4)), before)
    assert changed.double().decode(codes, (6, 4)).dtype == torch.float32


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    vq = VQTokenizer(TINY)
    pixels = torch.rand(1, 3, 8, 8)
    vectors = vq.latents(pixels)
    assert torch.equal(vq.encode(pixels).flatten(), vq.nearest(vectors).flatten())
    # Codes that were encoded before a step may be labels and indices in it.
    torch.nn.functional.embedding(vq.encode(pixels), torch.rand(50, 4, requires_grad=True)).sum().backward()
    rows = vq.codebook()[vq.nearest(vectors)]
    painted = vq.paint(vectors + (rows - vectors).detach())
    (painted.square().mean() + (rows - vectors).square().mean()).backward()
    assert torch.equal(copy.deepcopy(vq).paint(vectors), vq.paint(vectors)), "a copy while training"
    without = [name for name, parameter in vq.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[0, 1, 2, 50]]), r"1 of 4 codes are out of range, 50 for example; .* from 0 to 49\. Codes of"),
        (torch.tensor([[0, -1, -2, 5]]), "2 of 4 codes are out of range, -1 for example"),
        (torch.zeros(1, 4), "codes are of type torch.float32; expected whole numbers from 0 to 49"),
        (torch.zeros(1, 5, dtype=torch.int64), r"codes of shape \(1, 5\) do not fill a grid of 2 x 2: expected "),
        (torch.zeros(4, dtype=torch.int64), r"codes of shape \(4,\) do not fill a grid of 2 x 2"),
    ],
)
def test_codes_that_are_none(vq: VQTokenizer, codes: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vq.decode(codes, (2, 2))


def test_codes_of_any_integer_type(vq: VQTokenizer) -> None:
    check_codes(torch.tensor([0, 49], dtype=torch.int32), 50)
    codes = torch.tensor([[0, 49, 3, 4]])
    assert torch.equal(vq.decode(codes.int(), (2, 2)), vq.decode(codes, (2, 2)))


@pytest.mark.parametrize("size", [(24, 18), (0, 4), (3, 4)])
def test_sizes_that_are_no_whole_number_of_codes(vq: VQTokenizer, size: tuple[int, int]) -> None:
    height, width = size
    with pytest.raises(ImageError, match=f"a picture of {width}x{height} pixels has no whole number of codes of 4x4"):
        vq.encode(torch.zeros(1, 3, height, width))


def test_bytes_there_and_back() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, axis=2)
    pixels = to_pixels(picture)
    assert pixels.shape == (1, 3, 8, 32)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)
    assert np.abs(to_bytes(pixels)[0].astype(int) - picture).max() <= 1, "truncated as published"
    assert to_bytes(torch.tensor([-3.0, 3.0, 0.0]).view(1, 3, 1, 1)).tolist() == [[[[0, 255, 127]]]]


def test_bfloat16_finds_the_codes_that_float32_finds(vq: VQTokenizer) -> None:
    """Of rows that differ in less than bf16 resolves."""
    close = copy.deepcopy(vq)
    rows = close.get_parameter("quantize.embedding.weight")
    rows.copy_(rows[:1] + torch.linspace(0, 0.01, 50)[:, None] * torch.eye(8)[0])
    codes = close.nearest(close.codebook())
    half = close.bfloat16()
    assert half.codebook().dtype == torch.float32
    assert len(half.nearest(half.codebook()).unique()) == len(half.codebook().unique(dim=0))
    assert half.decode(codes[None, :24], (6, 4)).dtype == torch.float32


def test_a_parameter_that_was_replaced_is_used() -> None:
    """What was bound to diffusers' networks is looked at before it is used again."""

    def fresh(seed: int) -> VQTokenizer:
        torch.manual_seed(seed)
        return VQTokenizer(TINY).requires_grad_(False)

    tokenizer, other, codes = fresh(0), fresh(1), torch.arange(4)[None]
    before = tokenizer.decode(codes, (2, 2))
    assert torch.equal(tokenizer.decode(codes, (2, 2)), before)
    expected = other.decode(codes, (2, 2))
    tokenizer.load_state_dict(other.state_dict(), assign=True)
    tokenizer.requires_grad_(False)
    assert not torch.equal(expected, before)
    assert torch.equal(tokenizer.decode(codes, (2, 2)), expected)
    copied = copy.deepcopy(tokenizer)
    copied.get_parameter("decoder.conv_out.weight").zero_()
    assert torch.equal(tokenizer.decode(codes, (2, 2)), expected)
    assert not torch.equal(copied.decode(codes, (2, 2)), expected)
