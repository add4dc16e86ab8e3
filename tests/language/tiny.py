"""Decoder configs at tiny random sizes, one for every kind of layer the decoder has."""

import torch

from mm.config import (
    AttentionConfig,
    DecoderConfig,
    LatentAttentionConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from mm.language.decoder import Decoder

PLAIN_ROPE = RopeConfig(theta=10000.0, scaling=None)
YARN_ROPE = RopeConfig(
    theta=10000.0,
    scaling=YarnConfig(
        factor=40.0, original_max_positions=4096, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707
    ),
)
MHA = AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8, qkv_bias=False, output_bias=False)
GQA = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qkv_bias=True, output_bias=False)
MLA = LatentAttentionConfig(
    num_heads=4, q_lora_rank=None, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, bias=False
)
MLA_LORA = LatentAttentionConfig(
    num_heads=4, q_lora_rank=16, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, bias=True
)


def moe(method: str = "greedy", scoring: str = "softmax", *, groups: int = 1, shared: int = 1) -> MoEConfig:
    """Eight experts, three a token."""
    return MoEConfig(
        num_experts=8,
        num_experts_per_token=3,
        expert_width=16,
        num_shared_experts=shared,
        scoring=scoring,
        method=method,
        num_groups=groups,
        num_groups_per_token=max(groups // 2, 1),
        normalize_weights=True,
        scaling_factor=1.5,
        first_moe_layer=1,
        layer_frequency=1,
    )


VARIANTS = {
    "mha-dense": (MHA, None, PLAIN_ROPE),
    "gqa-moe": (GQA, moe(), PLAIN_ROPE),
    "mla-greedy": (MLA, moe(), PLAIN_ROPE),
    "mla-lora-yarn-noaux": (MLA_LORA, moe("noaux_tc", "sigmoid", groups=2), YARN_ROPE),
    "mla-grouplimited": (MLA, moe("group_limited_greedy", groups=4, shared=0), PLAIN_ROPE),
}


def config(name: str) -> DecoderConfig:
    """A decoder of three layers, hidden size 32."""
    attention, experts, rope = VARIANTS[name]
    return DecoderConfig(
        vocab_size=50,
        hidden_size=32,
        mlp_width=48,
        num_layers=3,
        rms_norm_eps=1e-6,
        max_positions=64,
        rope=rope,
        attention=attention,
        moe=experts,
    )


def decoder(name: str, seed: int = 0) -> Decoder:
    """A decoder with fixed random weights, without gradients."""
    torch.manual_seed(seed)
    built = Decoder(config(name)).eval().requires_grad_(False)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built
