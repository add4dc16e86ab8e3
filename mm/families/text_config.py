"""The config.json of the language models: DeepSeek LLM, Coder, Math, MoE, V2, V3, R1 and R1-Distill.

The architecture is the whole file here, so an unknown key is an error. Sizes have no defaults: every published file
names them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from mm.config import DecoderConfig, NoVisionConfig
from mm.errors import ConfigError
from mm.families.decoders import parse_deepseek, parse_dense
from mm.families.fields import Fields

NAME = "text"
MODEL_TYPES = ("llama", "qwen2", "deepseek", "deepseek_v2", "deepseek_v3")

_PLACE = "config.json"
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
_EXPERTS = ("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size")
_LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_REQUIRED = {
    "llama": (),
    "qwen2": (),
    "deepseek": (*_EXPERTS, "first_k_dense_replace"),
    "deepseek_v2": (*_EXPERTS, *_LATENT, "first_k_dense_replace"),
    "deepseek_v3": (*_EXPERTS, *_LATENT, "first_k_dense_replace", "n_group", "topk_group", "norm_topk_prob"),
}
# transformers' Qwen2Config; a window that is not used says nothing.
_QWEN_KEYS = ("max_window_layers", "sliding_window", "layer_types")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Everything that the config.json of a language model says.

    Attributes:
        decoder: the model.
        num_predict_layers: layers behind the last one that predict further tokens (V3's MTP, arXiv 2412.19437, section
            2.2); published files hold them, this library does not run them.
        scale_block: rows and columns of a weight that share a scale, in files with FP8 weights; None: no such files.
    """

    family: ClassVar[str] = NAME
    decoder: DecoderConfig
    num_predict_layers: int
    scale_block: tuple[int, int] | None

    @property
    def vision(self) -> NoVisionConfig:
        """None: these models read text only."""
        return NoVisionConfig()


def parse_config(raw: dict[str, Any]) -> TextConfig:
    """A published config.json -> TextConfig.

    Raises:
        ConfigError: a missing or unknown key, an unknown or contradictory value.
    """
    fields = Fields(raw, _PLACE)
    model_type = fields.choice("model_type", MODEL_TYPES)
    missing = [key for key in (*_SIZES, *_REQUIRED[model_type]) if key not in raw]
    if missing:
        raise ConfigError(f"{_PLACE} has no {', '.join(missing)}. Download it again.")
    if model_type == "llama":
        bias = fields.boolean("attention_bias", default=False)
        decoder = parse_dense(fields, qkv_bias=bias, output_bias=bias, scalings=("linear", "llama3"))
    elif model_type == "qwen2":
        fields.expect("use_sliding_window", False, default=False)
        fields.expect("use_mrope", False, default=False)
        fields.ignore(*_QWEN_KEYS)
        decoder = parse_dense(fields, qkv_bias=True, output_bias=False, scalings=("linear",))
    elif model_type == "deepseek":
        decoder = parse_deepseek(fields, latent=False, method="greedy")
    else:
        decoder = _parse_latent(fields, model_type)
    num_predict_layers = _predict_layers(fields)
    block = _parse_quantization(fields)
    fields.finish()
    return TextConfig(decoder=decoder, num_predict_layers=num_predict_layers, scale_block=block)


def _parse_latent(fields: Fields, model_type: str) -> DecoderConfig:
    fields.ignore("head_dim", "qk_head_dim")  # transformers writes them; they follow from others
    fields.expect("rope_interleave", True, default=True)
    fields.expect("mlp_bias", False, default=False)
    if model_type == "deepseek_v3":
        return parse_deepseek(fields, latent=True, scoring="sigmoid", method="noaux_tc")
    decoder = parse_deepseek(fields, latent=True)
    moe = decoder.moe
    if moe is not None and moe.normalize_weights and moe.scaling_factor != 1:
        raise ConfigError(
            f"{_PLACE} has norm_topk_prob true and routed_scaling_factor {moe.scaling_factor}: the published code of "
            "DeepSeek-V2 and others disagree on what that means, and no published model has it. Set one of them back."
        )
    return decoder


def _predict_layers(fields: Fields) -> int:
    """V3's files say ``num_nextn_predict_layers``; transformers writes ``num_mtp_layers``."""
    published = fields.optional_integer("num_nextn_predict_layers", default=None, least=0)
    other = fields.optional_integer("num_mtp_layers", default=None, least=0)
    return published or other or 0


def _parse_quantization(fields: Fields) -> tuple[int, int] | None:
    """The block of FP8 weights.

    Raises:
        ConfigError: weights quantised in another way.
    """
    raw = fields.optional_section("quantization_config")
    if raw is None:
        return None
    section = Fields(raw, f"{_PLACE}.quantization_config")
    section.expect("quant_method", "fp8")
    section.expect("fmt", "e4m3", default="e4m3")
    section.ignore("activation_scheme", "scale_fmt", "modules_to_not_convert", "dequantize")  # of kernels for FP8
    block = raw.get("weight_block_size")
    section.ignore("weight_block_size")
    section.finish()
    right = isinstance(block, list) and len(block) == 2
    if not right or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in block or ()):
        raise ConfigError(
            f"{section.place}.weight_block_size is {block!r}; expected two whole numbers above 0, such as [128, 128]."
        )
    assert block is not None
    return block[0], block[1]
