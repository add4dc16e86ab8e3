"""A folder whose files are of different models is refused before anything runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mm.errors import ConfigError
from mm.families.table import known_parameters, load_config, load_processor
from mm.hub import find_config, known_names
from mm.plan import Planner


@pytest.fixture
def folder(golden: Callable[[str], Path], tmp_path: Path) -> Path:
    """A writable copy of a small checkpoint."""
    return Path(shutil.copytree(golden("deepseek_vl2_tiny") / "checkpoint", tmp_path / "checkpoint"))


def change(path: Path, *keys: str, value: object) -> None:
    """Replace one value of a JSON file."""
    whole = values = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
    path.write_text(json.dumps(whole), encoding="utf-8")


def test_the_files_of_one_model_agree(folder: Path) -> None:
    assert load_processor(folder).tokenizer.highest_id < load_config(folder).decoder.vocab_size


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("candidate_resolutions", [[70, 70]], "processor_config.json has tile 70, but config.json has "),
        ("patch_size", 7, "processor_config.json has patch_size 7, but vision_config has 14"),
        ("downsample_ratio", 1, "has downsample_ratio 1, but projector_config has 2. The two files are of different"),
    ],
)
def test_geometry_of_another_model(folder: Path, key: str, value: object, message: str) -> None:
    change(folder / "processor_config.json", key, value=value)
    with pytest.raises(ConfigError, match=message):
        load_processor(folder)


def test_the_parameters_that_are_written_down_are_those_of_the_models() -> None:
    known = known_parameters()
    folders = {load_config(find_config(name).folder): find_config(name).folder for name in known_names()}
    counted = {config: Planner(folder).parameters().total for config, folder in folders.items()}
    assert known == counted, "a model was added or changed: mend mm/families/parameters.json"


def test_a_tokenizer_larger_than_the_embedding(folder: Path) -> None:
    highest = load_processor(folder).tokenizer.highest_id
    change(folder / "config.json", "language_config", "vocab_size", value=highest)
    with pytest.raises(ConfigError, match=rf"ids up to {highest} .* but language_config.vocab_size is {highest}\. The"):
        load_processor(folder)
    change(folder / "config.json", "language_config", "vocab_size", value=highest + 1)
    load_processor(folder)
