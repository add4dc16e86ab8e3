"""The decoder against the newest transformers: the same random weights, float32, default tolerances."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mm.config import (
    AttentionConfig,
    DecoderConfig,
    LatentAttentionConfig,
    LinearScalingConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from mm.language.decoder import Decoder

PLAIN = RopeConfig(theta=10000.0, scaling=None)
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "rms_norm_eps": 1e-3}
LATENT = {"kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16, "n_shared_experts": 2}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
}
YARN_ROPE = RopeConfig(
    theta=10000.0,
    scaling=YarnConfig(
        factor=4.0, original_max_positions=16, beta_fast=32, beta_slow=1, mscale=0.7, mscale_all_dim=1.0
    ),
)


def config(
    attention: AttentionConfig | LatentAttentionConfig, moe: MoEConfig | None, rope: RopeConfig
) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=96,
        hidden_size=32,
        mlp_width=40,
        num_layers=3,
        rms_norm_eps=1e-3,
        max_positions=64,
        rope=rope,
        attention=attention,
        moe=moe,
    )


def latent(q_lora_rank: int | None, bias: bool) -> LatentAttentionConfig:
    return LatentAttentionConfig(
        num_heads=4,
        q_lora_rank=q_lora_rank,
        kv_lora_rank=24,
        qk_nope_head_dim=12,
        qk_rope_head_dim=8,
        v_head_dim=10,
        bias=bias,
    )


def moe(method: str, scoring: str, groups: int, kept: int, normalize: bool, scaling: float) -> MoEConfig:
    return MoEConfig(
        num_experts=8,
        num_experts_per_token=3,
        expert_width=16,
        num_shared_experts=2,
        scoring=scoring,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
        num_groups=groups,
        num_groups_per_token=kept,
        normalize_weights=normalize,
        scaling_factor=scaling,
        first_moe_layer=1,
        layer_frequency=1,
    )


def copy_weights(reference: nn.Module, ours: Decoder) -> None:
    """Random weights in the reference, the same ones in ours, every name of both sides used."""
    torch.manual_seed(5)
    weights: dict[str, Tensor] = {}
    for name, tensor in reference.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            tensor.uniform_(0.0, 0.3)  # never negative: transformers excludes by -inf, published code by 0
        elif tensor.ndim > 1:
            tensor.normal_(std=1.5 * tensor.shape[-1] ** -0.5)
        else:
            tensor.uniform_(-0.5, 1.5)
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            weights[name.replace("gate_up_proj", "gate_proj")] = gate.clone()
            weights[name.replace("gate_up_proj", "up_proj")] = up.clone()
        else:
            weights[name] = tensor.clone()
    ours.load_state_dict(weights, strict=True)


def build(kind: str) -> tuple[nn.Module, Decoder]:
    reference: nn.Module
    latent_keys: dict[str, Any] = {**SIZES, **LATENT, **EXPERTS, "num_attention_heads": 4, "num_key_value_heads": 4}
    if kind == "llama":
        reference = LlamaForCausalLM(
            LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=4, attention_bias=False)
        )
        attention = AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8, qkv_bias=False, output_bias=False)
        ours = Decoder(config(attention, None, PLAIN))
    elif kind == "llama-gqa-bias-linear":
        rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
        reference = LlamaForCausalLM(
            LlamaConfig(
                **SIZES, num_attention_heads=4, num_key_value_heads=2, attention_bias=True, rope_parameters=rope
            )
        )
        attention = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qkv_bias=True, output_bias=True)
        scaled = RopeConfig(theta=500.0, scaling=LinearScalingConfig(factor=3.0))
        ours = Decoder(config(attention, None, scaled))
    elif kind == "v2-greedy":
        reference = DeepseekV2ForCausalLM(
            DeepseekV2Config(**latent_keys, q_lora_rank=None, first_k_dense_replace=1, routed_scaling_factor=1.0)
        )
        ours = Decoder(config(latent(None, False), moe("greedy", "softmax", 1, 1, False, 1.0), PLAIN))
    elif kind == "v2-group-limited":
        reference = DeepseekV2ForCausalLM(
            DeepseekV2Config(
                **latent_keys,
                q_lora_rank=16,
                attention_bias=True,
                first_k_dense_replace=1,
                routed_scaling_factor=2.5,
                topk_method="group_limited_greedy",
                n_group=4,
                topk_group=2,
            )
        )
        routing = moe("group_limited_greedy", "softmax", 4, 2, False, 2.5)
        ours = Decoder(config(latent(16, True), routing, PLAIN))
    else:
        grouped = kind == "v3-groups-yarn"
        reference = DeepseekV3ForCausalLM(
            DeepseekV3Config(
                **latent_keys,
                q_lora_rank=16 if grouped else None,
                first_k_dense_replace=1,
                routed_scaling_factor=2.0,
                norm_topk_prob=grouped,
                n_group=4 if grouped else 1,
                topk_group=2 if grouped else 1,
                rope_parameters=YARN if grouped else {"rope_type": "default", "rope_theta": 10000.0},
                max_position_embeddings=64,
            )
        )
        routing = moe("noaux_tc", "sigmoid", 4 if grouped else 1, 2 if grouped else 1, grouped, 2.0)
        ours = Decoder(config(latent(16 if grouped else None, False), routing, YARN_ROPE if grouped else PLAIN))
    copy_weights(reference, ours)
    return reference.eval(), ours.eval()


KINDS = ["llama", "llama-gqa-bias-linear", "v2-greedy", "v2-group-limited", "v3", "v3-groups-yarn"]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_transformers(kind: str) -> None:
    reference, ours = build(kind)
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits
        found = ours.logits(ours(ours.embed(ids)))
    assert expected.std() > 0.1  # the comparison below means something
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_equals_transformers_under_left_padding(kind: str) -> None:
    """transformers pads a batch on the left and masks; here every row starts at 0 and stands on its own."""
    reference, ours = build(kind)
    generator = torch.Generator().manual_seed(2)
    lengths, steps = (9, 4), 3
    rows = [torch.randint(0, 96, (length + steps,), generator=generator) for length in lengths]
    padded = torch.zeros(2, 9 + steps, dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, ids in enumerate(rows):
        padded[row, 9 + steps - len(ids) :] = ids
        mask[row, 9 + steps - len(ids) :] = 1
    with torch.inference_mode():
        expected = reference(
            input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)
        ).logits[:, -1 - steps :]
        cache = ours.new_cache(2, 16)
        block = torch.zeros(2, 9, 32)
        for row, ids in enumerate(rows):
            block[row, : lengths[row]] = ours.embed(ids[: lengths[row]])
        hidden = ours(block, cache=cache)
        found = [torch.stack([hidden[row, length - 1] for row, length in enumerate(lengths)])]
        for step in range(steps):
            token = torch.stack([ids[length + step] for ids, length in zip(rows, lengths, strict=True)])
            positions = torch.tensor(lengths)[:, None] + step
            found.append(ours(ours.embed(token[:, None]), positions=positions, cache=cache, visible=16)[:, 0])
        torch.testing.assert_close(ours.logits(torch.stack(found, dim=1)), expected)
