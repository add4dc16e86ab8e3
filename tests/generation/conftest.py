"""Tiny real decoders with random weights, and answers to drive them with."""

import copy
from collections.abc import Callable

import pytest
import torch

from mm.config import AttentionConfig, DecoderConfig, LatentAttentionConfig, MoEConfig, RopeConfig
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.language.decoder import Decoder

VOCAB = 300


def build_decoder(*, latent: bool) -> Decoder:
    config = DecoderConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        mlp_width=48,
        num_layers=2,
        rms_norm_eps=1e-6,
        max_positions=512,
        rope=RopeConfig(theta=10000.0, scaling=None),
        attention=(
            LatentAttentionConfig(
                num_heads=4,
                q_lora_rank=None,
                kv_lora_rank=16,
                qk_nope_head_dim=8,
                qk_rope_head_dim=8,
                v_head_dim=8,
                bias=False,
            )
            if latent
            else AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qkv_bias=False, output_bias=False)
        ),
        moe=MoEConfig(
            num_experts=6,
            num_experts_per_token=2,
            expert_width=16,
            num_shared_experts=1,
            scoring="softmax",
            method="greedy",
            num_groups=1,
            num_groups_per_token=1,
            normalize_weights=True,
            scaling_factor=1.0,
            first_moe_layer=1,
            layer_frequency=1,
        ),
    )
    torch.manual_seed(0)
    decoder = Decoder(config).eval().requires_grad_(False)
    for name, weight in decoder.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return decoder


@pytest.fixture(scope="session", params=["latent", "grouped"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """A decoder of each kind of attention, with a mixture of experts."""
    return build_decoder(latent=request.param == "latent")


@pytest.fixture(scope="session")
def on_gpu(decoder: Decoder) -> Decoder:
    """The same decoder on the GPU."""
    return copy.deepcopy(decoder).to("cuda")


def decode_bytes(tokens: list[int]) -> str:
    """Text of a byte vocabulary: id % 256 is the byte."""
    return bytes(token % 256 for token in tokens).decode("utf-8", errors="replace")


@pytest.fixture
def new_row() -> Callable[..., Row]:
    """new_row(prompt_ids, max_new_tokens=16, **options) -> Row without end tokens unless given."""

    def build(
        prompt_ids,
        *,
        max_new_tokens=16,
        end_ids=(),
        stop_ids=(),
        hidden_ids=(),
        decode=decode_bytes,
        constraint=None,
        **options,
    ):
        return Row(
            prompt_ids=torch.as_tensor(prompt_ids),
            options=SamplingOptions(**options),
            max_new_tokens=max_new_tokens,
            end_ids=frozenset(end_ids),
            stop_ids=frozenset(stop_ids),
            hidden_ids=frozenset(hidden_ids),
            decode=decode,
            constraint=constraint,
        )

    return build
