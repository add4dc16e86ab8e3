"""Language models: published sizes, config.json, FP8 weights, tensors that are recognised and not used."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mm.families
from mm.config import LatentAttentionConfig
from mm.errors import ConfigError, WeightsError
from mm.families.table import (
    FAMILIES,
    build_model,
    family_of,
    load_config,
    load_model,
    published_bytes,
    save_pretrained,
    unused_elements,
)
from mm.families.text import key_map_of
from mm.families.text_config import TextConfig, parse_config
from mm.hub import published_configs
from mm.plan import Planner
from tests.tiny_text import CONFIGS, random_tensors, raw_config, write_checkpoint, write_weights

PUBLISHED = Path(mm.families.__file__).parent / "configs"
# Parameters as the model cards and the hub's pages count them, where they give all digits; else the billions they give.
SIZES = {
    "deepseek-llm-7b-base": 6_910_365_696,
    "deepseek-llm-67b-chat": 67_425_001_472,
    "deepseek-math-7b-rl": 6_910_365_696,
    "deepseek-coder-1.3b-base": 1_346_471_936,
    "deepseek-coder-6.7b-instruct": 6_740_512_768,
    "deepseek-coder-33b-base": 33_342_991_360,
    "deepseek-moe-16b-chat": 16_375_728_128,
    "DeepSeek-V2-Lite-Chat": 15_706_484_224,
    "DeepSeek-V2.5": 235_741_434_880,
    "DeepSeek-V3": 671_026_419_200,
    "DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "DeepSeek-R1-Distill-Qwen-32B": 32_763_876_352,
    "DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "DeepSeek-R1-Distill-Llama-70B": 70_553_706_496,
}


@pytest.mark.parametrize("name", SIZES)
def test_published_configs_have_the_published_sizes(name: str) -> None:
    model = build_model(load_config(PUBLISHED / name))
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[name]


def test_every_published_config_parses_and_repeats_one_of_the_sizes() -> None:
    sizes = {load_config(PUBLISHED / name) for name in SIZES}
    names = [name for name, folder in published_configs().items() if load_config(folder).family == "text"]
    assert len(names) == 37
    for name in names:
        assert load_config(published_configs()[name]) in sizes, name
    for kind, raw in CONFIGS.items():
        assert family_of(raw) == "text", kind


def test_v3_activates_37_billion_and_its_files_hold_685() -> None:
    config = load_config(PUBLISHED / "DeepSeek-V3")
    assert isinstance(config, TextConfig)
    counts = Planner(PUBLISHED / "DeepSeek-V3").parameters()
    assert counts.activated + config.decoder.vocab_size * config.decoder.hidden_size == pytest.approx(37e9, rel=0.02)
    # The hub counts the scales of FP8 weights as well.
    assert counts.in_published_files == 671_026_419_200 + unused_elements(config) == 684_489_845_504
    assert published_bytes(config, counts.in_published_files) == pytest.approx(688.6e9, rel=0.001)
    assert published_bytes(load_config(PUBLISHED / "DeepSeek-V2"), 1000) == 2000


def test_latent_cache_is_small() -> None:
    """DeepSeek-V2, table 1: (512 + 64) numbers a token and layer."""
    config = load_config(PUBLISHED / "DeepSeek-V2")
    assert isinstance(config, TextConfig) and isinstance(config.decoder.attention, LatentAttentionConfig)
    assert Planner(PUBLISHED / "DeepSeek-V2").cache_bytes_per_token(torch.bfloat16) == 60 * (512 + 64) * 2


def test_the_table_of_designs_is_what_is_counted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    table = text.partition("| model | parameters | activated | cache |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(rows) == 11
    for name, *numbers in rows:
        planner = Planner(PUBLISHED / name)
        counts = planner.parameters()
        found = [counts.total, counts.activated, planner.cache_bytes_per_token(torch.bfloat16)]
        assert [f"{number:,}" for number in found] == numbers, name


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("llm", {"colour": "red"}, "config.json has unknown keys: colour. This model needs a newer mm"),
        ("llm", {"hidden_size": 30}, "hidden_size 30 is no multiple of num_attention_heads 4"),
        ("llm", {"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
        ("llm", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ("llm", {"tie_word_embeddings": True}, "tie_word_embeddings is True; only False is supported"),
        ("coder", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is 'dynamic'; known are linear, llama3"),
        ("coder", {"rope_scaling": {"type": "linear", "factor": 0.0}}, "factor is 0.0; expected a number above 0"),
        ("r1-llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling has no low_freq_factor"),
        (
            "r1-llama",
            {"rope_scaling": {"rope_type": "llama3", "type": "linear", "factor": 8.0}},
            "type is 'linear'; only 'llama3'",
        ),
        ("r1-qwen", {"use_sliding_window": True}, "use_sliding_window is True; only False is supported"),
        ("v2", {"norm_topk_prob": True}, "routed_scaling_factor 16.0: the published code of DeepSeek-V2 and others"),
        ("v2", {"topk_group": 5}, "topk_group 5 of n_group 4 cannot supply num_experts_per_tok 3"),
        ("v3", {"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'; only 'fp8' is supported"),
        (
            "v3",
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}},
            r"weight_block_size is \[128\]; expected two whole numbers above 0",
        ),
    ],
)
def test_what_is_not_understood_is_named(kind: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(raw_config(kind) | keys)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_sizes_have_no_defaults(kind: str) -> None:
    raw = raw_config(kind)
    del raw["vocab_size"], raw["hidden_size"]
    with pytest.raises(ConfigError, match="config.json has no vocab_size, hidden_size. Download it again"):
        parse_config(raw)


def test_the_keys_of_transformers_5_say_the_same() -> None:
    raw = raw_config("v3")
    scaling = raw.pop("rope_scaling")
    scaling["rope_type"] = scaling["type"]
    raw["rope_parameters"] = {**scaling, "rope_theta": raw.pop("rope_theta")}
    raw["num_mtp_layers"] = raw.pop("num_nextn_predict_layers")
    del raw["topk_method"], raw["scoring_func"]
    raw |= {"rope_interleave": True, "head_dim": 8, "qk_head_dim": 20}
    assert parse_config(raw) == parse_config(raw_config("v3"))
    plain = raw_config("llm")
    del plain["rope_scaling"]
    plain["rope_parameters"] = {"rope_type": "default", "rope_theta": plain.pop("rope_theta")}
    assert parse_config(plain) == parse_config(raw_config("llm"))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_key_map_round_trips(kind: str) -> None:
    raw = raw_config(kind)
    config = parse_config(raw)
    model, key_map = build_model(config), key_map_of(config)
    names = set(random_tensors(raw))
    used = {name for name in names if not key_map.is_dropped(name)}
    assert used == key_map.published_shapes(model).keys()
    targets = {key_map.to_model(name)[0] for name in used}
    assert targets == {name for name, _ in model.named_parameters()}
    dropped = names - used
    assert all(name.startswith("model.layers.3.") for name in dropped) and bool(dropped) == (kind == "v3")


def test_multi_token_prediction_is_dropped_only_where_config_json_announces_it(tmp_path: Path) -> None:
    tensors = random_tensors(raw_config("v3"))
    raw = raw_config("v3") | {"num_nextn_predict_layers": 0}
    with pytest.raises(WeightsError, match=r"\d+ unexpected: model\.layers\.3\."):
        load_model(write_weights(tmp_path / "unannounced", raw, tensors), device="cpu")
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.3.")}
    first = load_model(write_weights(tmp_path / "without", raw_config("v3"), without), device="cpu")
    second = load_model(write_weights(tmp_path / "with", raw_config("v3"), tensors), device="cpu")
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    missing = {name: tensor for name, tensor in without.items() if "layers.2.mlp.experts.5.up" not in name}
    with pytest.raises(WeightsError, match=r"1 missing: model\.layers\.2\.mlp\.experts\.5\.up_proj\.weight"):
        load_model(write_weights(tmp_path / "missing", raw_config("v3"), missing), device="cpu")


def test_a_pickle_with_frequencies_of_rope(tmp_path: Path) -> None:
    """Old checkpoints, as DeepSeek LLM's, hold them."""
    folder = write_checkpoint(tmp_path, "llm")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / "pytorch_model.bin")
    loaded = load_model(folder, device="cpu")
    assert torch.equal(loaded.decoder.lm_head.weight, tensors["lm_head.weight"])


BLOCK = (16, 24)


def quantised(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The projections in FP8 with their scales, and what they stand for, block by block."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        stored[name] = meant[name] = tensor
        if "_proj.weight" not in name or "eh_proj" in name:
            continue
        rows, columns = tensor.shape
        scales = torch.empty(math.ceil(rows / BLOCK[0]), math.ceil(columns / BLOCK[1]))
        small, full = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                place = (slice(i * BLOCK[0], (i + 1) * BLOCK[0]), slice(j * BLOCK[1], (j + 1) * BLOCK[1]))
                scales[i, j] = tensor[place].abs().max() / 448
                small[place] = (tensor[place] / scales[i, j]).to(torch.float8_e4m3fn)
                full[place] = small[place].float() * scales[i, j]
        stored[name], stored[f"{name}_scale_inv"], meant[name] = small, scales, full
    return stored, meant


def fp8_config() -> dict[str, Any]:
    quantization = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
    return raw_config("v3") | {"quantization_config": {**quantization, "weight_block_size": list(BLOCK)}}


@pytest.fixture(scope="module")
def fp8() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return quantised(random_tensors(raw_config("v3")))


def test_fp8_weights_are_multiplied_by_their_scales(
    fp8: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    stored, meant = fp8
    assert any("self_attn" in name for name in stored if name.endswith("_scale_inv"))
    ours = load_model(write_weights(tmp_path / "fp8", fp8_config(), stored), device="cpu", dtype="float32")
    plain = load_model(write_weights(tmp_path / "plain", raw_config("v3"), meant), device="cpu", dtype="float32")
    for (name, found), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)
    original = random_tensors(raw_config("v3"))["model.layers.1.mlp.experts.3.down_proj.weight"]
    found = ours.get_parameter("decoder.model.layers.1.mlp.experts.down_proj")[3]
    assert 0 < (found - original).abs().max() < 0.07 * original.abs().max()  # e4m3 has three digits of mantissa


def test_saving_an_fp8_folder_writes_plain_weights_and_says_so(
    fp8: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    stored, meant = fp8
    source = write_weights(tmp_path / "fp8", fp8_config(), stored)
    model = load_model(source, device="cpu", dtype="float32")
    save_pretrained(model, tmp_path / "saved", source=source, dtype=torch.float32)
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    saved = {
        name: tensor for path in (tmp_path / "saved").glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    assert saved.keys() == meant.keys()  # with the layer that is not used, and without scales
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor, meant[name], msg=name)
    assert load_model(tmp_path / "saved", device="cpu").decoder.config == model.decoder.config


WEIGHT = "model.layers.0.self_attn.o_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: [t.pop(name) for name in list(t) if name.endswith("_scale_inv")],
            r"holds \d+ FP8 weights without their scales \(.*\): no file has .*_scale_inv\. FP8 numbers mean nothing",
        ),
        (lambda t: [t.pop(f"{WEIGHT}_scale_inv")], rf"holds 1 FP8 weights without their scales \({WEIGHT}\)"),
        (
            lambda t: t.update({WEIGHT: t[WEIGHT].float()}),
            rf"holds 1 scales whose weights are not in FP8 \({WEIGHT}_scale_inv\)",
        ),
        (
            lambda t: t.update({f"{WEIGHT}_scale_inv": torch.ones(1, 1)}),
            rf"{WEIGHT}_scale_inv in .* is \[1, 1\], but its weight is \[32, 40\] .* weight_block_size \[16, 24\]",
        ),
    ],
)
def test_an_fp8_folder_whose_scales_are_wrong(
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    fp8: tuple[dict[str, Tensor], dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    tensors = dict(fp8[0])
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        load_model(write_weights(tmp_path, fp8_config(), tensors), device="cpu")


def test_fp8_weights_that_config_json_does_not_announce(
    fp8: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"unexpected: .*_scale_inv"):
        load_model(write_weights(tmp_path / "a", raw_config("v3"), fp8[0]), device="cpu")
    bare = {name: tensor for name, tensor in fp8[0].items() if not name.endswith("_scale_inv")}
    with pytest.raises(WeightsError, match="is stored as float8_e4m3fn; expected bfloat16"):
        load_model(write_weights(tmp_path / "b", raw_config("v3"), bare), device="cpu")


def test_the_routers_correction_stays_in_float32(tmp_path: Path) -> None:
    """It decides between experts by small differences of large numbers: bfloat16 would choose others."""
    model = load_model(write_checkpoint(tmp_path, "v3"), device="cpu", dtype="bfloat16")
    kinds = {name.rpartition(".")[2]: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds.pop("e_score_correction_bias") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    bias = random_tensors(raw_config("v3"))["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert torch.equal(model.get_parameter("decoder.model.layers.1.mlp.gate.e_score_correction_bias"), bias)
    with torch.inference_mode():
        ids = torch.arange(20)[None]
        assert model.decoder.logits(model.decoder(model.decoder.embed(ids))).isfinite().all()


def test_no_drawing_and_no_encoder() -> None:
    family = FAMILIES.load("text")
    assert not family.sees and not family.draws
    model = build_model(parse_config(raw_config("llm")))
    assert sum(parameter.numel() for parameter in model.vision.parameters()) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_writes_what_the_cpu_writes(tmp_path: Path, fp8: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    """Every architecture, and FP8 weights multiplied out on the device."""
    folders = {kind: write_checkpoint(tmp_path / kind, kind) for kind in CONFIGS}
    folders["fp8"] = write_weights(tmp_path / "fp8", fp8_config(), fp8[0])
    ids = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(3))
    for kind, folder in folders.items():
        logits = []
        for device in ("cpu", "cuda"):
            decoder = load_model(folder, device=device, dtype="float32").decoder
            with torch.inference_mode():
                logits.append(decoder.logits(decoder(decoder.embed(ids.to(device)))).cpu())
        assert (logits[0] - logits[1]).abs().max() < 2e-4, kind
