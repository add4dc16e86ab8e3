"""Recipes: every file in configs/ parses, and mistakes are named."""

from pathlib import Path

import pytest
import yaml

from mm.errors import ConfigError
from mm.training.recipe import load_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_the_repository_parses(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.model in ("nano-vl2", "configs/nano-janus")
    assert recipe.data.phases[-1].until >= 1.0


def test_values_can_be_set_from_the_command_line() -> None:
    recipe = load_recipe(CONFIGS / "nano_vl2.yaml", ("optimizer.muon_lr=0.015", "data.workers=3", "model=somewhere"))
    assert (recipe.optimizer.muon_lr, recipe.data.workers, recipe.model) == (0.015, 3, "somewhere")


@pytest.mark.parametrize("override", ["optimizer.lr=1", "data.buckets", "nothing.at.all=1"])
def test_a_value_that_the_recipe_does_not_have_cannot_be_set(override: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot set '{override}': write section.key=value"):
        load_recipe(CONFIGS / "nano_vl2.yaml", (override,))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("optimizer", "learning_rate", 1, r"recipe.optimizer: unknown: learning_rate. The keys are muon_lr"),
        ("run", "precision", "fp8", r"recipe.run.precision: got 'fp8', expected one of 'bf16', 'float32'"),
        ("data", "prefill", "many", r"recipe.data.prefill: got 'many', expected int"),
        ("optimizer", "adamw_betas", [0.9], r"recipe.optimizer.adamw_betas: expected 2 values, got 1"),
        ("loss", "condition_dropout", 0.1, r"recipe.loss: unknown: condition_dropout. The keys are char_map_start"),
        ("schedule", "max_steps", 5, r"set exactly one of train_seconds and max_steps"),
        (
            "data",
            "phases",
            [{"until": 0.5, "level": [0.0, 1.0], "max_tiles": 1, "kinds": {"line": 1.0}}],
            r"the last phase must reach until: 1.0",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, section: str, key: str, value: object, message: str) -> None:
    raw = yaml.safe_load((CONFIGS / "nano_vl2.yaml").read_text(encoding="utf-8"))
    raw[section][key] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_missing_key_a_missing_file_and_no_yaml_are_named(tmp_path: Path) -> None:
    raw = yaml.safe_load((CONFIGS / "nano_vl2.yaml").read_text(encoding="utf-8"))
    del raw["loss"]["length_power"]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match="recipe.loss: missing: length_power"):
        load_recipe(path)
    with pytest.raises(ConfigError, match="cannot be read .No such file"):
        load_recipe(tmp_path / "absent.yaml")
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_recipe(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_recipe(path)
