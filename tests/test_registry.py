"""Lazy tables of strings."""

import pytest

from mm.errors import OptionError
from mm.families.family import Family
from mm.families.table import FAMILIES, MODEL_TYPES
from mm.registry import Registry


def test_every_family_imports() -> None:
    for name in FAMILIES.names():
        assert isinstance(FAMILIES.load(name), Family)
    assert set(MODEL_TYPES.values()) <= set(FAMILIES.names())


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown fruit 'aple'; known: apple, pear. Did you mean 'apple'?"):
        Registry("fruit", {"pear": "json:loads", "apple": "json:dumps"}).load("aple")
