"""Strict loading, one error that lists everything, and the way back."""

import json
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mm.errors import ResourceError, WeightsError
from mm.families.deepseek_vl2 import KEY_MAP
from mm.families.table import build_model, load_config, load_model, save_pretrained
from mm.hub import find_config
from mm.shards import find_shards
from mm.weights import load_weights

CASE = "deepseek_vl2_grouplimited_softmax"
LAYER = "language.model.layers.1.mlp"


@pytest.fixture
def folder(golden: Callable[[str], Path], tmp_path: Path) -> Path:
    """A writable copy of a small checkpoint."""
    return Path(shutil.copytree(golden(CASE) / "checkpoint", tmp_path / "checkpoint"))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def load(folder: Path) -> torch.nn.Module:
    return load_model(folder, device="cpu", dtype="float32")


def test_key_map_goes_there_and_back(folder: Path) -> None:
    model = build_model(load_config(folder))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if not KEY_MAP.is_dropped(name)]  # noqa: SIM118
    parameters = dict(model.named_parameters())
    for name in names:
        target, index = KEY_MAP.to_model(name)
        assert (name, index) in KEY_MAP.to_published(target, parameters[target].shape[0])
    assert set(KEY_MAP.published_shapes(model)) == set(names)
    assert KEY_MAP.to_model("view_seperator") == ("arrange.view_separator", None)
    assert KEY_MAP.to_model(f"{LAYER}.experts.3.up_proj.weight") == ("decoder.model.layers.1.mlp.experts.up_proj", 3)


def test_everything_wrong_is_listed_in_one_error(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[f"{LAYER}.experts.2.up_proj.weight"]
        tensors["language.extra.weight"] = torch.zeros(2)
        tensors["image_newline"] = torch.zeros(7)

    rewrite(folder, change)
    with pytest.raises(WeightsError) as caught:
        load(folder)
    message = str(caught.value)
    assert f"1 missing: {LAYER}.experts.2.up_proj.weight" in message
    assert "1 unexpected: language.extra.weight" in message
    assert "1 of another shape: image_newline is [7], expected [64]" in message
    assert "config and weights are of different models" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(folder: Path, bad: float) -> None:
    rewrite(folder, lambda tensors: tensors.update({"vision.norm.weight": torch.full((32,), bad)}))
    with pytest.raises(WeightsError, match=r"NaN or infinite numbers in vision.norm.weight \(read as torch.float32\)"):
        load(folder)


def test_float32_among_bfloat16_is_cast(folder: Path) -> None:
    expected = load(folder).image_newline
    rewrite(folder, lambda tensors: tensors.update(image_newline=tensors["image_newline"].float()))
    model = load(folder)
    assert torch.equal(model.image_newline, expected)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_bin_shards_load_and_pickles_with_code_do_not(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    expected = load(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    got = load(folder).state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    got = load(folder).state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)

    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(mark)!r}, 'w').close()",))

    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"image_newline": Evil()}, file)
    with pytest.raises(
        WeightsError, match="cannot be read as tensors only: .* they can run code: download the file again"
    ):
        load(folder)
    torch.save({"image_newline": tensors["image_newline"], "step": 3}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="is no dictionary of tensors"):
        load(folder)
    assert not mark.exists()


def test_damaged_files(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(
            WeightsError, match="model.safetensors is not a readable safetensors file .*Download it again"
        ):
            load(folder)
    path.unlink()
    with pytest.raises(WeightsError, match=r"holds no weights: expected \*.safetensors or \*.bin files"):
        load(folder)


def test_indexes_that_lead_nowhere(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-000002.safetensors"}}))
    with pytest.raises(WeightsError, match="names model-00001-of-000002.safetensors, which is not in"):
        find_shards(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(WeightsError, match="which is not a plain file name"):
        find_shards(folder)
    index.write_text("[]")
    with pytest.raises(WeightsError, match="is not a weight index"):
        find_shards(folder)


def test_of_a_repository_with_both_kinds_the_kind_that_is_here_is_loaded(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))
    assert find_shards(folder) == [folder / "model.safetensors"]  # the .bin files were not downloaded
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert find_shards(folder) == [folder / "model.safetensors"]
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-1.bin").touch()
    assert find_shards(folder) == [folder / "pytorch_model-1.bin"]


def test_files_beside_the_weights_are_left_alone(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert find_shards(folder) == [folder / "model.safetensors"]
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "training_args.bin").touch()
    assert find_shards(folder) == [folder / "pytorch_model.bin"]


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_quantised_numbers_are_refused(folder: Path, kind: torch.dtype) -> None:
    rewrite(folder, lambda tensors: tensors.update(image_newline=tensors["image_newline"].to(kind)))
    expected = f"image_newline in .*model.safetensors is stored as {str(kind)[6:]}; expected bfloat16, .*not quantised"
    with pytest.raises(WeightsError, match=expected):
        load(folder)


def test_numbers_that_decide_are_saved_with_all_their_digits(golden: Callable[[str], Path], tmp_path: Path) -> None:
    source = golden("deepseek_vl2_base") / "checkpoint"
    model = load(source)
    biases = {name: value for name, value in model.named_parameters() if name.endswith("e_score_correction_bias")}
    assert biases
    for value in biases.values():
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 1e-3)
    save_pretrained(model, tmp_path / "saved", source=source)
    tensors = load_file(tmp_path / "saved" / "model-00001-of-00001.safetensors")
    stored = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype != torch.bfloat16}
    assert len(stored) == len(biases) and set(stored.values()) == {torch.float32}
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    again = dict(load(tmp_path / "saved").named_parameters())
    assert all(torch.equal(again[name], value) for name, value in biases.items())


@pytest.mark.parametrize("limit", [10**9, 200_000])
def test_saved_folders_load_and_keep_dropped_tensors(folder: Path, tmp_path: Path, limit: int) -> None:
    model = load(folder)
    target = tmp_path / "saved"
    save_pretrained(model, target, source=folder, max_shard_bytes=limit)
    shards = find_shards(target)
    assert len(shards) == 1 if limit == 10**9 else len(shards) > 3
    saved = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in saved.values())  # as others count it
    original = load_file(folder / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name].bfloat16()) for name in original)
    again = load(target).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert (target / "tokenizer.json").is_file()
    with pytest.raises(ResourceError, match="already holds weights"):
        save_pretrained(model, target, source=folder)


def test_a_full_disk_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    target = tmp_path / "saved"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            ResourceError, match="cannot write the weights to .* bytes are free there. No weight file was"
        ):
            save_pretrained(model, target, source=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(target.iterdir())


def test_loading_touches_no_other_device(folder: Path) -> None:
    model = build_model(load_config(folder))
    load_weights(model, folder, KEY_MAP, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert {buffer.device.type for buffer in model.buffers()} == {"cpu"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="Linux tells what a process has mapped")
def test_files_of_another_type_do_not_stay_mapped() -> None:
    """The routers' correction is float32 in the files as in memory: what is not copied would hold all of them."""
    folder = find_config("nano-vl2").folder
    model = load_model(folder, device="cpu", dtype="float32")
    assert any(name.endswith("e_score_correction_bias") for name, _ in model.named_parameters())
    assert str(folder) not in Path("/proc/self/maps").read_text()
