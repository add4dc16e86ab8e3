"""Language models of tiny random sizes, in folders as they are published: config.json, safetensors, tokenizer files."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mm.families.table import build_model
from mm.families.text import key_map_of
from mm.families.text_config import parse_config

VOCABULARY = 1440  # room for the small tokenizers of the recorded cases and tokens added to them
_COMMON: dict[str, Any] = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
_EXPERTS: dict[str, Any] = {
    "aux_loss_alpha": 0.001,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "moe_layer_freq": 1,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_experts_per_tok": 3,
    "scoring_func": "softmax",
    "seq_aux": True,
}
_LATENT: dict[str, Any] = {
    "attention_bias": False,
    "kv_lora_rank": 24,
    "q_lora_rank": None,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 16,
        "type": "yarn",
    },
    "v_head_dim": 10,
}
_V3 = {
    **_COMMON,
    **_EXPERTS,
    **_LATENT,
    "model_type": "deepseek_v3",
    "n_group": 4,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 16,
    "rope_scaling": {**_LATENT["rope_scaling"], "mscale": 1.0, "mscale_all_dim": 1.0},
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_group": 2,
    "topk_method": "noaux_tc",
}
# The keys of published files, by the model that has such a file.
CONFIGS: dict[str, dict[str, Any]] = {
    "llm": {**_COMMON, "model_type": "llama", "num_key_value_heads": 2, "pretraining_tp": 1, "rope_scaling": None},
    "coder": {
        **_COMMON,
        "model_type": "llama",
        "rope_scaling": {"factor": 4.0, "type": "linear"},
        "rope_theta": 100000,
    },
    "moe": {**_COMMON, **_EXPERTS, "attention_bias": False, "model_type": "deepseek", "rope_scaling": None},
    "v2-lite": {
        **_COMMON,
        **_EXPERTS,
        **_LATENT,
        "model_type": "deepseek_v2",
        "n_group": 1,
        "routed_scaling_factor": 1.0,
        "topk_group": 1,
        "topk_method": "greedy",
    },
    "v2": {
        **_COMMON,
        **_EXPERTS,
        **_LATENT,
        "model_type": "deepseek_v2",
        "n_group": 4,
        "q_lora_rank": 16,
        "routed_scaling_factor": 16.0,
        "topk_group": 2,
        "topk_method": "group_limited_greedy",
    },
    "v3": _V3,
    "r1-qwen": {
        **_COMMON,
        "attention_dropout": 0.0,
        "max_window_layers": 21,
        "model_type": "qwen2",
        "num_key_value_heads": 2,
        "sliding_window": 4096,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    "r1-llama": {
        **_COMMON,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "model_type": "llama",
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
    },
}


def raw_config(kind: str) -> dict[str, Any]:
    """A copy of a config.json."""
    return copy.deepcopy(CONFIGS[kind])


def random_tensors(raw: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Published names and random float32 numbers of all tensors, those of further layers (MTP) included."""
    config = parse_config(raw)
    shapes = key_map_of(config).published_shapes(build_model(config))
    last, width = config.decoder.num_layers - 1, config.decoder.hidden_size
    for index in range(config.num_predict_layers):
        layer = f"model.layers.{last + 1 + index}."
        own = {name: shape for name, shape in shapes.items() if name.startswith(f"model.layers.{last}.")}
        shapes |= {layer + name.removeprefix(f"model.layers.{last}."): shape for name, shape in own.items()}
        shapes |= {
            f"{layer}enorm.weight": (width,),
            f"{layer}hnorm.weight": (width,),
            f"{layer}eh_proj.weight": (width, 2 * width),
            f"{layer}shared_head.norm.weight": (width,),
            f"{layer}shared_head.head.weight": (config.decoder.vocab_size, width),
            f"{layer}embed_tokens.weight": (config.decoder.vocab_size, width),
        }
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("e_score_correction_bias"):
            tensors[name] = torch.rand(shape, generator=generator) * 0.3  # above 0: transformers excludes by -inf
        elif len(shape) > 1:
            tensors[name] = torch.randn(shape, generator=generator) * 1.5 * shape[-1] ** -0.5
        else:
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
    return tensors


def write_weights(folder: Path, raw: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """config.json and one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_checkpoint(folder: Path, kind: str, seed: int = 0) -> Path:
    """A folder with config.json and random weights, without a tokenizer."""
    raw = raw_config(kind)
    return write_weights(folder, raw, random_tensors(raw, seed))


def write_tokenizer(source: Path, folder: Path, *, tokens: tuple[str, ...], eos: str, jinja: str | None) -> None:
    """The tokenizer of ``source``, with further added tokens (not marked as special, as V3's file has them).

    Args:
        source: a folder with a small tokenizer.json.
        folder: receives the tokenizer files.
        tokens: to add, after the ids that are there.
        eos: the token that ends an answer.
        jinja: the chat template of tokenizer_config.json; None: it has none.
    """
    data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    first = 1 + max(max(data["model"]["vocab"].values()), *(token["id"] for token in data["added_tokens"]))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    data["added_tokens"] += [{"id": first + index, "content": text, **plain} for index, text in enumerate(tokens)]
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    config: dict[str, Any] = {"add_bos_token": True, "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": eos}
    if jinja is not None:
        config["chat_template"] = jinja
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
