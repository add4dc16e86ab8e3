"""processor_config.json: read strictly, every problem named, written back the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm.errors import ConfigError, ResourceError
from mm.processing.vl2_spec import VL2Spec

Golden = Callable[[str], Path]


@pytest.fixture
def values(golden: Golden) -> dict[str, Any]:
    path = golden("deepseek_vl2_tiny") / "checkpoint" / "processor_config.json"
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def test_published_values(values: dict[str, Any]) -> None:
    spec = VL2Spec.from_dict(values)
    assert (spec.image_size, spec.patch_size, spec.downsample_ratio) == (384, 14, 2)
    assert len(spec.candidate_resolutions) == 23
    assert spec.pad_color == (127, 127, 127)
    assert spec.mask_prompt is False
    assert spec.to_dict() == values


def test_round_trip(values: dict[str, Any], tmp_path: Path) -> None:
    values["candidate_resolutions"] = [[192, 192], [384, 192]]
    spec = VL2Spec.from_dict(values)
    assert spec.image_size == 192
    spec.save(tmp_path / "model")
    assert VL2Spec.from_folder(tmp_path / "model") == spec
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ResourceError, match=r"cannot write .*processor_config\.json.*Free space or pick another folder"
    ):
        spec.save(tmp_path / "file")


def test_unknown_keys_warn_and_known_ones_do_not(values: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="unknown keys are not used: crop, resize"):
        VL2Spec.from_dict({**values, "resize": 1, "crop": 2})
    VL2Spec.from_dict({**values, "auto_map": {}})


def test_missing_keys_are_all_named(values: dict[str, Any]) -> None:
    del values["patch_size"], values["image_mean"]
    with pytest.raises(ConfigError, match="lacks image_mean, patch_size. Is this a DeepSeek-VL2 model"):
        VL2Spec.from_dict(values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "processor_class",
            "VLChatProcessor",
            "processor_class is 'VLChatProcessor', expected 'DeepseekVLV2Processor'",
        ),
        ("candidate_resolutions", [], r"must be a list of \[width, height\] in pixels"),
        ("candidate_resolutions", [[384]], r"must be a list of \[width, height\] in pixels"),
        ("candidate_resolutions", [[384, 384], [384, "768"]], r"must be a list of \[width, height\] in pixels"),
        ("candidate_resolutions", [[384, 768]], r"the first .* must be one square tile, got \[384, 768\]"),
        ("candidate_resolutions", [[384, 384], [384, 500]], r"\[\[384, 500\]\] are not multiples of the tile of 384"),
        ("patch_size", 0, "patch_size is 0, expected a positive integer"),
        ("patch_size", True, "patch_size is True, expected a positive integer"),
        ("patch_size", 400, "patch_size 400 is larger than a tile of 384 pixels"),
        ("downsample_ratio", 1.5, "downsample_ratio is 1.5, expected a positive integer"),
        ("ignore_id", 5, "ignore_id is 5, expected a negative integer"),
        ("image_token", "", "image_token is '', expected a string"),
        ("normalize", 1, "normalize is 1, expected true or false"),
        ("image_mean", [0.5, 0.5], "image_mean is .*, expected three numbers within 0..1"),
        ("image_std", [0.5, 0.5, 0], "image_std is .*, expected three numbers above 0"),
        ("sft_format", "alpaca", "sft_format is 'alpaca', expected one of deepseek"),
    ],
)
def test_wrong_values(values: dict[str, Any], key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VL2Spec.from_dict({**values, key: value})


def test_all_problems_in_one_message(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="patch_size is 0.*; normalize is 'yes'"):
        VL2Spec.from_dict({**values, "patch_size": 0, "normalize": "yes"})


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no processor_config.json. Download the whole model folder"):
        VL2Spec.from_folder(tmp_path)
    for text, message in (("{", "cannot be read as JSON"), ("[]", "holds a list, expected a JSON object")):
        (tmp_path / "processor_config.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            VL2Spec.from_folder(tmp_path)
