"""DeepSeek-VL2's config.json (arXiv 2412.10302), with the defaults of its published classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mm.config import (
    AttentionConfig,
    DecoderConfig,
    LatentAttentionConfig,
    LinearScalingConfig,
    MoEConfig,
    PixelShuffleConfig,
    RopeConfig,
    VisionConfig,
    YarnConfig,
)
from mm.errors import ConfigError
from mm.families.fields import Fields

NAME = "deepseek_vl2"
MODEL_TYPE = "deepseek_vl_v2"


@dataclass(frozen=True, kw_only=True)
class DeepseekVL2Config:
    """Everything that a DeepSeek-VL2 config.json says about the model."""

    family: ClassVar[str] = NAME
    vision: VisionConfig
    adaptor: PixelShuffleConfig
    decoder: DecoderConfig
    candidate_resolutions: tuple[tuple[int, int], ...]  # width, height in pixels


def parse_config(raw: dict[str, Any]) -> DeepseekVL2Config:
    """A published config.json -> DeepseekVL2Config. Defaults are those of the published classes.

    Raises:
        ConfigError: an unknown key in an architecture part, an unknown or contradictory value.
    """
    top = Fields(raw, "config.json", strict=False)
    top.expect("model_type", MODEL_TYPE)
    top.expect("tile_tag", "2D", default="2D")
    top.expect("global_view_pos", "head", default="head")
    resolutions = top.resolutions("candidate_resolutions", default=((384, 384),))
    image_size = resolutions[0][0]
    vision = _parse_vision(Fields(top.section("vision_config"), "vision_config"), image_size)
    adaptor = _parse_adaptor(Fields(top.section("projector_config"), "projector_config"))
    decoder = _parse_decoder(Fields(top.section("language_config"), "language_config"))
    top.finish()
    if adaptor.input_width != vision.width:
        raise ConfigError(
            f"projector_config.input_dim is {adaptor.input_width}, but vision_config.width is {vision.width}: "
            "they must agree."
        )
    if adaptor.output_width != decoder.hidden_size:
        raise ConfigError(
            f"projector_config.n_embed is {adaptor.output_width}, but language_config.hidden_size is "
            f"{decoder.hidden_size}: they must agree."
        )
    return DeepseekVL2Config(vision=vision, adaptor=adaptor, decoder=decoder, candidate_resolutions=resolutions)


def _parse_vision(fields: Fields, tile_size: int) -> VisionConfig:
    fields.expect("model_type", "vision", default="vision")
    name = fields.text("model_name", default="siglip_large_patch16_384")
    if not name.startswith("siglip"):
        raise ConfigError(f"vision_config.model_name is {name!r}; the vision encoder of DeepSeek-VL2 is a SigLIP.")
    fields.expect("class_token", False, default=False)
    fields.ignore("global_pool", "ignore_head", "num_classes", "use_checkpoint", "weight_init", "deterministic")
    fields.ignore("num_recomputing_layers")
    width = fields.integer("width", default=1024)
    # The class default is 384, which every published tile has; a folder that gives no size means its tile's.
    image_size = fields.integer("image_size", default=tile_size)
    if image_size != tile_size:
        raise ConfigError(
            f"vision_config.image_size is {image_size}, but the first of candidate_resolutions makes tiles of "
            f"{tile_size}."
        )
    config = VisionConfig(
        image_size=image_size,
        patch_size=fields.integer("patch_size", default=16),
        width=width,
        num_blocks=fields.integer("layers", default=24),
        num_heads=fields.integer("heads", default=16),
        mlp_width=int(width * fields.number("mlp_ratio", default=4.0)),
        gelu="tanh",
    )
    fields.finish()
    fields.divides("heads", config.num_heads, "width", config.width)
    if config.patch_size > config.image_size:
        raise ConfigError(
            f"vision_config.patch_size {config.patch_size} is larger than the tile of {config.image_size}."
        )
    return config


def _parse_adaptor(fields: Fields) -> PixelShuffleConfig:
    fields.expect("model_type", "mlp_projector", default="mlp_projector")
    fields.expect("projector_type", "downsample_mlp_gelu", default="downsample_mlp_gelu")
    fields.expect("token_pooling", False, default=False)
    config = PixelShuffleConfig(
        input_width=fields.integer("input_dim", default=1152),
        output_width=fields.integer("n_embed", default=2048),
        ratio=fields.integer("downsample_ratio", default=2),
        mlp_ratio=fields.integer("mlp_ratio", default=1),
        depth=fields.integer("depth", default=2),
    )
    fields.finish()
    if config.depth < 2:
        raise ConfigError(f"projector_config.depth is {config.depth}; the downsampling MLP has at least 2 layers.")
    return config


def _parse_decoder(fields: Fields) -> DecoderConfig:
    fields.expect("model_type", "deepseek_v2", default="deepseek_v2")
    fields.expect("hidden_act", "silu", default="silu")
    fields.expect("tie_word_embeddings", False, default=False)
    # Training and bookkeeping keys of the published class; the head is there in every published file, whatever
    # lm_head and rm_head say.
    fields.ignore("lm_head", "rm_head", "aux_loss_alpha", "seq_aux", "ep_size", "pretraining_tp", "initializer_range")
    fields.ignore("attention_dropout", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
    hidden = fields.integer("hidden_size", default=4096)
    heads = fields.integer("num_attention_heads", default=32)
    kv_heads = fields.integer("num_key_value_heads", default=heads)
    bias = fields.boolean("attention_bias", default=False)
    latent = LatentAttentionConfig(
        num_heads=heads,
        q_lora_rank=fields.optional_integer("q_lora_rank", default=1536),
        kv_lora_rank=fields.optional_integer("kv_lora_rank", default=512) or 0,
        qk_nope_head_dim=fields.optional_integer("qk_nope_head_dim", default=128, least=0) or 0,
        qk_rope_head_dim=fields.optional_integer("qk_rope_head_dim", default=64, least=0) or 0,
        v_head_dim=fields.optional_integer("v_head_dim", default=128, least=0) or 0,
        bias=bias,
    )
    attention: AttentionConfig | LatentAttentionConfig
    if fields.boolean("use_mla", default=True):
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if getattr(latent, key) < 1:
                raise ConfigError(
                    f"language_config.{key} is missing or 0, but use_mla is true: expected a positive number."
                )
        if latent.qk_rope_head_dim % 2:
            raise ConfigError(f"language_config.qk_rope_head_dim is {latent.qk_rope_head_dim}; it must be even.")
        attention = latent
    else:
        fields.divides("num_attention_heads", heads, "hidden_size", hidden)
        fields.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
        attention = AttentionConfig(
            num_heads=heads, num_kv_heads=kv_heads, head_dim=hidden // heads, qkv_bias=bias, output_bias=bias
        )
    rope = _parse_rope(fields)
    if isinstance(attention, AttentionConfig) and isinstance(rope.scaling, YarnConfig):
        raise ConfigError(f"{fields.place}.rope_scaling yarn is defined for use_mla true only.")
    config = DecoderConfig(
        vocab_size=fields.integer("vocab_size", default=102400),
        hidden_size=hidden,
        mlp_width=fields.integer("intermediate_size", default=11008),
        num_layers=fields.integer("num_hidden_layers", default=30),
        rms_norm_eps=fields.number("rms_norm_eps", default=1e-6),
        max_positions=fields.integer("max_position_embeddings", default=2048),
        rope=rope,
        attention=attention,
        moe=_parse_moe(fields),
    )
    fields.finish()
    return config


def _parse_rope(fields: Fields) -> RopeConfig:
    theta = fields.number("rope_theta", default=10000.0)
    raw = fields.optional_section("rope_scaling")
    if raw is None:
        return RopeConfig(theta=theta, scaling=None)
    scaling = Fields(raw, f"{fields.place}.rope_scaling")
    kind = scaling.choice("type", ("yarn", "linear"))
    if kind == "linear":
        config: YarnConfig | LinearScalingConfig = LinearScalingConfig(factor=scaling.number("factor"))
    else:
        config = YarnConfig(
            factor=scaling.number("factor"),
            original_max_positions=scaling.integer("original_max_position_embeddings", default=4096),
            beta_fast=scaling.number("beta_fast", default=32),
            beta_slow=scaling.number("beta_slow", default=1),
            mscale=scaling.number("mscale", default=1),
            mscale_all_dim=scaling.number("mscale_all_dim", default=0),
        )
    scaling.finish()
    return RopeConfig(theta=theta, scaling=config)


MOE_KEYS = [
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
]


def _parse_moe(fields: Fields) -> MoEConfig | None:
    experts = fields.optional_integer("n_routed_experts", default=None)
    if experts is None:
        fields.ignore(*MOE_KEYS)
        return None
    config = MoEConfig(
        num_experts=experts,
        num_experts_per_token=fields.integer("num_experts_per_tok"),
        expert_width=fields.integer("moe_intermediate_size", default=1407),
        num_shared_experts=fields.optional_integer("n_shared_experts", default=None, least=0) or 0,
        scoring=fields.choice("scoring_func", ("softmax", "sigmoid"), default="softmax"),
        # The class default is a misspelt word that matches no branch of the published code, so the key is required.
        method=fields.choice("topk_method", ("greedy", "group_limited_greedy", "noaux_tc")),
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
