"""mm verify: passes on what was recorded, and notices every kind of deviation and of damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mm.errors import CheckpointNotFoundError, ImageError, InputError
from mm.evaluation.compare import compare_bits, compare_close, compare_exact, compare_values, shorten
from mm.evaluation.recording import RecordedTensor, tensor_sha256
from mm.evaluation.verify import BUNDLED, Report, verify, verify_bundled, verify_case

CASE = "deepseek_vl2_grouplimited_softmax"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of the bundled case that may be damaged."""
    return shutil.copytree(BUNDLED, tmp_path / "case")


def edit(case: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = case / "cases.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def failed(report: Report) -> set[str]:
    return {row.field for row in report.rows if row.verdict == "differs"}


def test_the_bundled_case_passes_and_says_what_it_proves() -> None:
    report = verify_bundled()
    assert report.passed and report.seconds > 0
    assert {row.verdict for row in report.rows} == {"ok"}
    assert "proves the install" in report.notice and "nothing about the weights of any other model" in report.notice
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["passed"] is True
    assert {"case", "field", "recorded", "ours", "difference", "limit", "verdict"} <= set(report.to_dict()["rows"][0])
    by_field = {row.field: row for row in report.fields()}
    assert len(by_field) == len(report.fields()) and by_field["logits"].note == "2 of 2"
    assert {
        "input_ids",
        "labels",
        "images",
        "vision_out",
        "projector_out",
        "inputs_embeds",
        "logits",
    } <= by_field.keys()
    assert {"greedy_tokens", "greedy_scores", "moe1_topk_idx", "llm_hidden_3", "llm_attn_0", "text"} <= by_field.keys()


def test_the_bundled_case_is_the_recorded_one(golden: Callable[[str], Path]) -> None:
    recorded = golden(CASE)
    files = sorted(p.relative_to(recorded) for p in recorded.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(BUNDLED) for p in BUNDLED.rglob("*") if p.is_file())
    for file in files:
        assert (recorded / file).read_bytes() == (BUNDLED / file).read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "<|User|>: List 4 fruits"),
        ("n_tokens", 21),
        ("n_tiles", 1),
        ("greedy_tokens", [1170, 1100, 1405, 539, 227, 363, 178, 558, 905, 133, 1055, 1384, 1342, 234, 870, 640]),
        ("greedy_tokens", [1170, 1100]),
        ("text", "another text"),
        ("cropping", False),
        ("incremental_prefilling", {"chunk_size": 7, "greedy_tokens": [1170] * 16}),
    ],
)
def test_a_fact_that_is_not_met_is_a_row_that_differs(case: Path, field: str, value: object) -> None:
    edit(case, lambda facts: facts["cases"][0].update({field: value}))
    report = verify(case)
    assert failed(report) == {field} and not report.passed


def test_chunked_prefill_is_run_when_it_was_recorded(case: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        tokens = facts["cases"][0]["greedy_tokens"]
        facts["cases"][0]["incremental_prefilling"] = {"chunk_size": 7, "greedy_tokens": tokens}

    edit(case, change)
    report = verify(case)
    assert report.passed and "incremental_prefilling" in {row.field for row in report.rows}


def test_a_repetition_penalty_counts_the_prompt(case: Path) -> None:
    edit(case, lambda facts: facts["cases"][1].update(repetition_penalty=1.5))
    assert {"greedy_tokens", "greedy_scores", "text"} <= failed(verify(case))


@pytest.mark.parametrize(
    ("tensor", "factor", "first"),
    [
        ("vision.blocks.0.norm1.weight", 1.001, "vision_out"),
        ("projector.layers.2.weight", 1.001, "projector_out"),
        ("image_newline", 1.01, "inputs_embeds"),
        ("language.model.layers.1.mlp.gate.weight", 1.01, "moe1_topk_weight"),
        ("language.model.layers.2.mlp.experts.3.up_proj.weight", 1.05, "llm_hidden_3"),
        ("language.model.layers.0.self_attn.kv_a_layernorm.weight", 1.01, "llm_attn_0"),
        ("language.lm_head.weight", 1.01, "logits"),
    ],
)
def test_a_weight_that_is_a_little_off_is_found_where_it_acts(
    case: Path, tensor: str, factor: float, first: str
) -> None:
    path = case / "checkpoint" / "model.safetensors"
    weights = load_file(path)
    weights[tensor] = (weights[tensor].float() * factor).float()  # float32 among bf16: loaded as it is
    save_file(weights, path)
    report = verify(case)
    assert first in failed(report) and not report.passed
    assert "input_ids" not in failed(report) and "images" not in failed(report)


def test_other_pixels_are_counted_view_by_view(case: Path) -> None:
    from PIL import Image

    (name,) = [p.name for p in (case / "images").iterdir()]
    with Image.open(case / "images" / name) as image:
        turned = image.convert("RGB").rotate(180)
    turned.save(case / "images" / name)
    rows = {row.field: row for row in verify(case).rows if row.case == "one_image"}
    assert rows["images"].verdict == "differs" and rows["images"].difference == 2.0
    assert rows["images"].note.startswith("of 2 views")
    assert rows["input_ids"].verdict == "ok"  # the same size, so the same prompt


def test_another_image_size_is_another_shape(case: Path) -> None:
    from PIL import Image

    (path,) = (case / "images").iterdir()
    Image.new("RGB", (640, 200)).save(path)
    report = verify(case)
    rows = {row.field: row for row in report.rows if row.case == "one_image"}
    assert rows["input_ids"].note == rows["vision_out"].note == rows["logits_argmax"].note == "another shape"
    assert rows["input_ids"].difference is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_fields_that_nobody_knows_are_said_not_to_be_compared(case: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["cases"][0]["mood"] = "cheerful"
        for name in ("sam_out", "llm_hidden_99", "siglip_block77", "moe0_topk_idx"):  # layer 0 is dense
            facts["tensors"][f"text_only/{name}"] = facts["tensors"]["text_only/greedy_scores"]

    edit(case, change)
    path = case / "cases.safetensors"
    tensors = load_file(path)
    for name in ("sam_out", "llm_hidden_99", "siglip_block77", "moe0_topk_idx"):
        tensors[f"text_only/{name}"] = tensors["text_only/greedy_scores"].clone()
    save_file(tensors, path)
    report = verify(case)
    assert report.passed
    unknown = {row.field for row in report.rows if row.verdict == "not compared"}
    assert unknown == {"mood", "sam_out", "llm_hidden_99", "siglip_block77", "moe0_topk_idx"}


def test_preprocessing_that_differs_is_found(golden: Callable[[str], Path], tmp_path: Path) -> None:
    case = shutil.copytree(golden("preprocess_vl2"), tmp_path / "case")

    def change(facts: dict[str, Any]) -> None:
        facts["images"]["dot_1x1.png"]["cropping"]["tile_float32_sha256"][1] = "0" * 64
        facts["size_table"][3]["layout"] = "s"
        facts["layouts"][1]["key"] = "layout_1x2"
        facts["pad_color"] = [0, 0, 0]

    edit(case, change)
    report = verify(case)
    assert failed(report) == {"cropping.tile_float32_sha256", "size_table", "layout", "pad_color"}
    row = next(row for row in report.rows if row.field == "size_table" and row.verdict == "differs")
    assert row.note == "layout"
    assert [row.case for row in report.fields() if row.field == "size_table"] == [row.case]


# Damage: one clear error each.


def test_a_folder_that_is_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder. Pass a recorded case"):
        verify(tmp_path / "missing")
    with pytest.raises(InputError, match="is not a recorded case: it has no cases.json"):
        verify(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cases.json").write_text("{}")
    with pytest.raises(InputError, match="It holds the cases one: name one of them"):
        verify(tmp_path)
    with pytest.raises(InputError, match="names no family"):
        verify(tmp_path / "one")
    (tmp_path / "one" / "cases.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        verify_case(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.update(family="deepseek_vl9"),
            "records the family 'deepseek_vl9'; this version verifies deepseek_vl, deepseek_vl2, janus_pro",
        ),
        (lambda f: f.update(cases=[]), "lists no cases"),
        (lambda f: f.update(cases=[{"prompt": "x"}]), "an entry of 'cases' has no id"),
        (lambda f: f.update(tensors=[]), "'tensors' is not an object"),
        (lambda f: f["cases"][0].pop("conversation"), "text_only has conversation = None; expected a list"),
        (lambda f: f["cases"][0].update(conversation=["x"]), "a message of the conversation is not an object"),
        (lambda f: f["cases"][0].update(prompt_mode=True), "raw_prompt = None; expected a str"),
        (
            lambda f: f["cases"][0].update(incremental_prefilling={"chunk_size": "x"}),
            "chunk_size = 'x'; expected a int",
        ),
        (
            lambda f: f["cases"][0].update(incremental_prefilling={"chunk_size": 0}),
            "chunk_size is 0; expected 1 or more",
        ),
        (lambda f: f["cases"][0].update(max_new_tokens=-1), "max_new_tokens is -1; expected 1 or more"),
        (lambda f: f["cases"][0].update(repetition_penalty="x"), "repetition_penalty = 'x'; expected a float"),
        (lambda f: f["cases"][0].update(greedy_tokens=7), "greedy_tokens = 7; expected a list"),
        (lambda f: f["cases"][0].update(router_margin={}), "close_positions = None; expected a list"),
        (lambda f: f["cases"][0].update(batch=True, conversations=[]), "text_only is a batch of no conversations"),
        (lambda f: f["tensors"].update({"text_only/logits": None}), "logits is described but not stored"),
        (lambda f: f["tensors"].update({"text_only/x": {"shape": [1]}}), "text_only/x is described but not stored"),
        (lambda f: f["tensors"]["text_only/logits"].update(shape=[5, 5]), "logits is not what cases.json describes"),
        (lambda f: f["tensors"]["text_only/logits"].update(sha256="0"), "logits is not what cases.json describes"),
        (lambda f: f["cases"][1]["conversation"][0].update(images=["../../../etc/x.png"]), "which is outside of"),
    ],
)
def test_a_damaged_description_is_refused(case: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit(case, change)
    with pytest.raises(InputError, match=message):
        verify(case)


def test_missing_and_truncated_files_are_refused(case: Path) -> None:
    data = (case / "cases.safetensors").read_bytes()
    (case / "cases.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cases.safetensors cannot be read .*Copy the case folder again"):
        verify(case)
    (case / "cases.safetensors").unlink()
    with pytest.raises(InputError, match="cases.safetensors cannot be read"):
        verify(case)
    (case / "cases.safetensors").write_bytes(data)
    (next((case / "images").iterdir())).unlink()
    with pytest.raises(ImageError):
        verify(case)
    shutil.rmtree(case / "checkpoint")
    with pytest.raises(CheckpointNotFoundError):
        verify(case)


# The comparisons themselves.


def recorded(values: torch.Tensor, **facts: Any) -> RecordedTensor:
    return RecordedTensor(tuple(values.shape), values, None, {"sha256": tensor_sha256(values), **facts})


def test_near_ties_of_the_router_excuse_their_own_tokens_only() -> None:
    values = torch.zeros(1, 5, 3)
    ours = values.clone()
    ours[0, 2] = 1.0
    assert compare_close("c", "f", recorded(values), ours, 1e-4).verdict == "differs"
    row = compare_close("c", "f", recorded(values), ours, 1e-4, ties=[2])
    assert row.verdict == "ok" and row.note == "1 token left out: routed by a near tie"
    ours[0, 3] = 1.0
    assert compare_close("c", "f", recorded(values), ours, 1e-4, ties=[2]).verdict == "differs"
    chosen = torch.tensor([[0, 1], [2, 3]])
    other = torch.tensor([[0, 1], [2, 4]])
    assert compare_exact("c", "f", recorded(chosen), other).difference == 1.0
    assert compare_exact("c", "f", recorded(chosen), other, ties=[1]).verdict == "ok"
    mask = compare_exact("c", "f", recorded(torch.tensor([True, False])), torch.tensor([1, 0]))
    assert mask.verdict == "ok" and mask.recorded == mask.ours  # another type, and the same digest beside it


def test_rows_that_are_not_stored_are_checked_by_their_mean() -> None:
    complete = torch.linspace(-1, 1, 40).view(10, 4)
    facts = {"mean": float(complete.mean()), "abs_mean": float(complete.abs().mean())}
    stored = RecordedTensor((10, 4), complete[[0, 9]], torch.tensor([0, 9]), facts)
    assert compare_close("c", "f", stored, complete, 1e-6).verdict == "ok"
    wrong = complete.clone()
    wrong[4] += 1.0
    assert compare_close("c", "f", stored, wrong, 1e-3).verdict == "differs"


def test_what_is_not_a_number_differs() -> None:
    values = torch.ones(2, 2)
    row = compare_close("c", "f", recorded(values), torch.full((2, 2), torch.nan), 1.0)
    assert (row.verdict, row.difference, row.note) == ("differs", None, "not a number")


def test_bits_and_values() -> None:
    values = torch.tensor([[0.0, 1.0]])
    assert compare_bits("c", "f", recorded(values), values.clone()).verdict == "ok"
    assert compare_bits("c", "f", recorded(values), torch.tensor([[-0.0, 1.0]])).verdict == "differs"
    assert compare_values("c", "f", [1, 2, 3], [1, 5, 4]).difference == 2.0
    assert compare_values("c", "f", "a", "b").difference == 1.0
    assert shorten("a\nb" * 30) == ("a\\nb" * 30)[:37] + "..."
