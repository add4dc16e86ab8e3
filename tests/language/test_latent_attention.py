"""Absorbed latent attention is the expanded one."""

import torch

from mm.language.attention import Step
from mm.language.latent_attention import LatentAttention
from tests.language.tiny import MLA_LORA, YARN_ROPE, decoder


def test_absorbed_equals_expanded_to_rounding() -> None:
    torch.manual_seed(0)
    layer = LatentAttention(32, MLA_LORA, YARN_ROPE)
    rows, tokens, slots = 2, 3, 11
    nope = torch.randn(rows, tokens, 4, 12)
    rope = torch.randn(rows, tokens, 4, 8)
    stored = torch.randn(rows, slots, 24 + 8)
    mask = torch.rand(rows, 1, tokens, slots) > 0.3
    mask[..., 0] = True
    torch.testing.assert_close(
        layer._absorbed(nope, rope, stored, mask), layer._expanded(nope, rope, stored, mask), rtol=1e-5, atol=1e-5
    )


def test_few_tokens_are_absorbed_and_many_expanded() -> None:
    model = decoder("mla-greedy")
    layer = model.model.layers[0].self_attn
    forms: list[str] = []
    expanded, absorbed = layer._expanded, layer._absorbed
    layer._expanded = lambda *a: forms.append("expanded") or expanded(*a)
    layer._absorbed = lambda *a: forms.append("absorbed") or absorbed(*a)
    model.rope.ensure(64, torch.device("cpu"))
    cache = model.new_cache(1, 64)
    for tokens, fresh in ((20, True), (1, False), (layer.absorb_limit, False), (layer.absorb_limit + 1, False)):
        positions = torch.arange(tokens)[None]
        cos, sin = model.rope(positions, torch.float32)
        mask = None if fresh else torch.ones(1, 1, tokens, 64, dtype=torch.bool)
        step = Step(positions=positions, cos=cos, sin=sin, visible=64, mask=mask, fresh=fresh)
        layer(torch.randn(1, tokens, 32), step, cache.layers[0])
    assert forms == ["expanded", "absorbed", "absorbed", "expanded"]
