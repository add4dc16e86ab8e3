"""Fonts for the tests: the DejaVu files that matplotlib (a test dependency) carries, so that none need be installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from mm.synthetic.fonts import FontSet


@pytest.fixture(scope="session")
def font_folder():
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@pytest.fixture(scope="session")
def fonts(font_folder):
    return FontSet.find("train", [font_folder])
