"""Lazy tables of strings."""

import pytest

from mm.errors import OptionError
from mm.families.family import Family
from mm.families.table import FAMILIES, MODEL_TYPES, family_of, read_json, runs
from mm.hub import published_configs
from mm.registry import Registry


def test_every_family_imports() -> None:
    for name in FAMILIES.names():
        assert isinstance(FAMILIES.load(name), Family)
    raws = [read_json(folder / "config.json") for folder in published_configs().values()]
    assert {family_of(raw) for raw in raws} == set(FAMILIES.names()), "every family has published checkpoints"
    assert {raw["model_type"] for raw in raws} == set(MODEL_TYPES)
    assert all(runs(raw) for raw in raws) and not runs(None) and not runs({"model_type": "gpt2"})


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown fruit 'aple'; known: apple, pear. Did you mean 'apple'?"):
        Registry("fruit", {"pear": "json:loads", "apple": "json:dumps"}).load("aple")
