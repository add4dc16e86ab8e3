"""Reading the decoder of a published config.json, for every family: Llama's kind, and DeepSeek's with experts and MLA.

Absent keys have the defaults of the published classes; a family that wants a key to be there asks for it first.
"""

from typing import Literal

from mm.config import (
    AttentionConfig,
    DecoderConfig,
    LatentAttentionConfig,
    LinearScalingConfig,
    Llama3ScalingConfig,
    MoEConfig,
    RopeConfig,
    YarnConfig,
)
from mm.errors import ConfigError
from mm.families.fields import Fields

Scaling = Literal["linear", "llama3", "yarn"]
Scoring = Literal["softmax", "sigmoid"]
Method = Literal["greedy", "group_limited_greedy", "noaux_tc"]

# Training and bookkeeping keys, which say nothing of inference.
TRAINING_KEYS = ("attention_dropout", "initializer_range", "pretraining_tp", "use_cache")
TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
ROUTING_KEYS = ("aux_loss_alpha", "seq_aux", "ep_size", "output_router_logits", "router_aux_loss_coef")

MOE_KEYS = (
    "n_routed_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "topk_method",
    "moe_intermediate_size",
    "n_shared_experts",
    "scoring_func",
    "norm_topk_prob",
    "routed_scaling_factor",
    "first_k_dense_replace",
    "moe_layer_freq",
)


def parse_dense(fields: Fields, *, qkv_bias: bool, output_bias: bool, scalings: tuple[Scaling, ...]) -> DecoderConfig:
    """A decoder of Llama's kind; defaults of transformers' LlamaConfig. Leaves ``finish`` to the caller.

    Args:
        fields: the object with its keys.
        qkv_bias: whether the projections to queries, keys and values have biases.
        output_bias: whether the projection of attention's output has one.
        scalings: kinds of ``rope_scaling`` that models of this kind have.

    Raises:
        ConfigError: values that do not fit each other.
    """
    fields.expect("hidden_act", "silu", default="silu")
    fields.expect("tie_word_embeddings", False, default=False)
    fields.expect("mlp_bias", False, default=False)
    fields.ignore(*TRAINING_KEYS, *TOKEN_KEYS, "rope_interleaved")
    hidden = fields.integer("hidden_size", default=4096)
    heads = fields.integer("num_attention_heads", default=32)
    kv_heads = fields.optional_integer("num_key_value_heads", default=None) or heads
    head_dim = fields.optional_integer("head_dim", default=None)
    if head_dim is None:
        fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    fields.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    return DecoderConfig(
        vocab_size=fields.integer("vocab_size", default=32000),
        hidden_size=hidden,
        mlp_width=fields.integer("intermediate_size", default=11008),
        num_layers=fields.integer("num_hidden_layers", default=32),
        rms_norm_eps=fields.number("rms_norm_eps", default=1e-6),
        max_positions=fields.integer("max_position_embeddings", default=2048),
        rope=parse_rope(fields, scalings),
        attention=AttentionConfig(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim or hidden // heads,
            qkv_bias=qkv_bias,
            output_bias=output_bias,
        ),
        moe=None,
    )


def parse_deepseek(
    fields: Fields, *, latent: bool | None = None, scoring: Scoring = "softmax", method: Method | None = None
) -> DecoderConfig:
    """A decoder of DeepSeek's kind, dense or with experts; defaults of the published DeepseekV2Config. Leaves
    ``finish`` to the caller.

    Args:
        fields: the object with its keys.
        latent: whether attention is latent; None: what the key ``use_mla`` says, True without it.
        scoring: where the key ``scoring_func`` is absent.
        method: where the key ``topk_method`` is absent; None: the key must be there.

    Raises:
        ConfigError: values that do not fit each other.
    """
    fields.expect("hidden_act", "silu", default="silu")
    fields.expect("tie_word_embeddings", False, default=False)
    fields.ignore(*TRAINING_KEYS, *TOKEN_KEYS, *ROUTING_KEYS)
    hidden = fields.integer("hidden_size", default=4096)
    heads = fields.integer("num_attention_heads", default=32)
    if latent is None:
        latent = fields.boolean("use_mla", default=True)
    bias = fields.boolean("attention_bias", default=False)
    attention = _parse_latent(fields, heads, bias) if latent else _parse_heads(fields, hidden, heads, bias)
    rope = parse_rope(fields, ("yarn", "linear"))
    if isinstance(attention, AttentionConfig) and isinstance(rope.scaling, YarnConfig):
        raise ConfigError(f"{fields.place}.rope_scaling yarn is defined for use_mla true only.")
    return DecoderConfig(
        vocab_size=fields.integer("vocab_size", default=102400),
        hidden_size=hidden,
        mlp_width=fields.integer("intermediate_size", default=11008),
        num_layers=fields.integer("num_hidden_layers", default=30),
        rms_norm_eps=fields.number("rms_norm_eps", default=1e-6),
        max_positions=fields.integer("max_position_embeddings", default=2048),
        rope=rope,
        attention=attention,
        moe=_parse_moe(fields, scoring, method),
    )


_LATENT_KEYS = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def _parse_latent(fields: Fields, heads: int, bias: bool) -> LatentAttentionConfig:
    fields.ignore("num_key_value_heads")
    config = LatentAttentionConfig(
        num_heads=heads,
        q_lora_rank=fields.optional_integer("q_lora_rank", default=1536),
        kv_lora_rank=fields.optional_integer("kv_lora_rank", default=512) or 0,
        qk_nope_head_dim=fields.optional_integer("qk_nope_head_dim", default=128, least=0) or 0,
        qk_rope_head_dim=fields.optional_integer("qk_rope_head_dim", default=64, least=0) or 0,
        v_head_dim=fields.optional_integer("v_head_dim", default=128, least=0) or 0,
        bias=bias,
    )
    for key in _LATENT_KEYS:
        if getattr(config, key) < 1:
            raise ConfigError(f"{fields.place}.{key} is missing or 0, but use_mla is true: expected a positive number.")
    if config.qk_rope_head_dim % 2:
        raise ConfigError(f"{fields.place}.qk_rope_head_dim is {config.qk_rope_head_dim}; it must be even.")
    return config


def _parse_heads(fields: Fields, hidden: int, heads: int, bias: bool) -> AttentionConfig:
    fields.ignore(*_LATENT_KEYS, "q_lora_rank")
    kv_heads = fields.optional_integer("num_key_value_heads", default=None) or heads
    fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    fields.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    return AttentionConfig(
        num_heads=heads, num_kv_heads=kv_heads, head_dim=hidden // heads, qkv_bias=bias, output_bias=bias
    )


def parse_rope(fields: Fields, scalings: tuple[Scaling, ...]) -> RopeConfig:
    """``rope_theta`` and ``rope_scaling``, or the ``rope_parameters`` that hold both in files of transformers 5.

    Raises:
        ConfigError: another kind of scaling, or a value out of its range.
    """
    both = fields.optional_section("rope_parameters")
    if both is not None:
        fields.ignore("rope_theta", "rope_scaling")
        scaling = Fields(both, f"{fields.place}.rope_parameters")
        theta = scaling.number("rope_theta")
        if both.get("rope_type", "default") == "default":
            scaling.ignore("rope_type")
            scaling.finish()
            return RopeConfig(theta=theta, scaling=None)
    else:
        theta = fields.number("rope_theta", default=10000.0)
        raw = fields.optional_section("rope_scaling")
        if raw is None:
            return RopeConfig(theta=theta, scaling=None)
        scaling = Fields(raw, f"{fields.place}.rope_scaling")
    # Newer files say rope_type, some say both.
    key = "rope_type" if "rope_type" in scaling.raw else "type"
    kind = scaling.choice(key, scalings)
    scaling.expect("type", kind, default=kind)
    return RopeConfig(theta=theta, scaling=_parse_scaling(scaling, kind))


def _parse_scaling(scaling: Fields, kind: Scaling) -> YarnConfig | LinearScalingConfig | Llama3ScalingConfig:
    factor = scaling.number("factor")
    if factor <= 0:
        raise ConfigError(f"{scaling.place}.factor is {factor}; expected a number above 0.")
    config: YarnConfig | LinearScalingConfig | Llama3ScalingConfig
    if kind == "linear":
        config = LinearScalingConfig(factor=factor)
    elif kind == "llama3":
        low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
        if low >= high:
            raise ConfigError(f"{scaling.place}.low_freq_factor {low} must be below high_freq_factor {high}.")
        config = Llama3ScalingConfig(
            factor=factor,
            low_frequency_factor=low,
            high_frequency_factor=high,
            original_max_positions=scaling.integer("original_max_position_embeddings"),
        )
    else:
        config = YarnConfig(
            factor=factor,
            original_max_positions=scaling.integer("original_max_position_embeddings", default=4096),
            beta_fast=scaling.number("beta_fast", default=32),
            beta_slow=scaling.number("beta_slow", default=1),
            mscale=scaling.number("mscale", default=1),
            mscale_all_dim=scaling.number("mscale_all_dim", default=0),
        )
    scaling.finish()
    return config


def _parse_moe(fields: Fields, scoring: Scoring, method: Method | None) -> MoEConfig | None:
    experts = fields.optional_integer("n_routed_experts", default=None)
    if experts is None:
        fields.ignore(*MOE_KEYS)
        return None
    methods: tuple[Method, ...] = ("greedy", "group_limited_greedy", "noaux_tc")
    config = MoEConfig(
        num_experts=experts,
        num_experts_per_token=fields.integer("num_experts_per_tok"),
        expert_width=fields.integer("moe_intermediate_size", default=1407),
        num_shared_experts=fields.optional_integer("n_shared_experts", default=None, least=0) or 0,
        scoring=fields.choice("scoring_func", ("softmax", "sigmoid"), default=scoring),
        # The class default of DeepSeek-V2 is a misspelt word that matches no branch of the published code, so the key
        # is required there.
        method=fields.choice("topk_method", methods)
        if method is None
        else fields.choice("topk_method", methods, default=method),
        num_groups=fields.optional_integer("n_group", default=None) or 1,
        num_groups_per_token=fields.optional_integer("topk_group", default=None) or 1,
        normalize_weights=fields.boolean("norm_topk_prob", default=False),
        scaling_factor=fields.number("routed_scaling_factor", default=1.0),
        first_moe_layer=fields.integer("first_k_dense_replace", default=0, least=0),
        layer_frequency=fields.integer("moe_layer_freq", default=1),
    )
    chosen = config.num_experts_per_token
    if chosen > experts:
        raise ConfigError(f"{fields.place}.num_experts_per_tok {chosen} is more than n_routed_experts {experts}.")
    if config.method != "greedy":
        fields.divides("n_group", config.num_groups, "n_routed_experts", experts)
        size = experts // config.num_groups
        if config.num_groups_per_token > config.num_groups or config.num_groups_per_token * size < chosen:
            raise ConfigError(
                f"{fields.place}.topk_group {config.num_groups_per_token} of n_group {config.num_groups} cannot supply "
                f"num_experts_per_tok {chosen} experts."
            )
        if config.method == "noaux_tc" and size < 2:
            raise ConfigError(
                f"{fields.place}.topk_method noaux_tc needs at least 2 experts in each of n_group groups."
            )
    return config
