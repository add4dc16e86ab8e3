"""Folders as published, read by this library and by transformers: equal logits, equal greedy tokens, in float32."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.deepseek_v2.configuration_deepseek_v2 import DeepseekV2Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe

from mm.families.table import load_model
from mm.language.decoder import Decoder
from tests.tiny_text import CONFIGS, VOCABULARY, random_tensors, raw_config, write_checkpoint

LIMIT = 2e-4
KINDS = sorted(CONFIGS.keys() - {"moe"})


def load_reference(folder: Path) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    return model  # type: ignore[no-any-return]


def moe_reference() -> nn.Module:
    """DeepSeekMoE, which transformers lacks, of its parts: Llama's attention and DeepSeek-V2's experts, whose routing
    is the same: softmax over all experts, the largest ones as they are."""
    raw = raw_config("moe")
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    model = LlamaForCausalLM(LlamaConfig(**{key: raw[key] for key in keys}, num_key_value_heads=4, rms_norm_eps=1e-6))
    experts = ("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size")
    config = DeepseekV2Config(hidden_size=32, num_attention_heads=4, **{key: raw[key] for key in experts})
    for layer in model.model.layers[1:]:
        layer.mlp = DeepseekV2Moe(config)
    tensors = random_tensors(raw)
    for name in list(model.state_dict()):
        for target, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
            if name.endswith(f"experts.{target}"):
                place = name.removesuffix(target)
                stacks = [torch.stack([tensors.pop(f"{place}{i}.{part}.weight") for i in range(8)]) for part in parts]
                tensors[name] = torch.cat(stacks, dim=1)
    model.load_state_dict(tensors, strict=True)
    model.eval()
    return model


def pair(kind: str, folder: Path) -> tuple[nn.Module, Decoder]:
    write_checkpoint(folder, kind)
    reference = moe_reference() if kind == "moe" else load_reference(folder)
    return reference, load_model(folder, device="cpu", dtype="float32").decoder


@pytest.mark.filterwarnings("ignore")  # of transformers, about its own files
@pytest.mark.parametrize("kind", [*KINDS, "moe"])
def test_logits_and_greedy_tokens_equal_transformers(kind: str, tmp_path: Path) -> None:
    reference, ours = pair(kind, tmp_path)
    ids = torch.randint(0, VOCABULARY, (2, 48), generator=torch.Generator().manual_seed(1))
    steps = 12
    with torch.inference_mode():
        expected = reference(input_ids=ids).logits
        full = ours.logits(ours(ours.embed(ids)))
        assert expected.std() > 0.1  # the comparisons mean something
        assert (full - expected).abs().max() < LIMIT
        theirs = reference.generate(  # type: ignore[operator]
            ids[:1], max_new_tokens=steps, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, 48:]
        cache = ours.new_cache(1, 64)
        hidden = ours(ours.embed(ids[:1]), cache=cache)[:, -1]
        tokens = []
        for step in range(steps):
            tokens.append(ours.logits(hidden).argmax(-1))
            position = torch.tensor([[48 + step]])
            hidden = ours(ours.embed(tokens[-1][:, None]), positions=position, cache=cache, visible=64)[:, 0]
        assert torch.cat(tokens).tolist() == theirs.tolist()
        whole = torch.cat((ids[:1], torch.cat(tokens)[None]), dim=1)
        uncached = ours.logits(ours(ours.embed(whole)))[0, -1]
        torch.testing.assert_close(ours.logits(hidden)[0], uncached, atol=1e-4, rtol=1e-4)
