"""The errors that users see."""

import pickle

import pytest

from mm.errors import ContextOverflowError, ImageError, MissingExtraError, MMError


@pytest.mark.parametrize(
    ("given", "shown"),
    [("no file", "no file."), ("No file.", "No file."), ("Is it there?", "Is it there?"), ("'a b'", "'a b'.")],
)
def test_every_message_ends_as_a_sentence(given: str, shown: str) -> None:
    error = ImageError(given)
    assert str(error) == shown
    assert str(ContextOverflowError(f"conversation 0: {error}")) == f"conversation 0: {shown}"
    assert isinstance(error, MMError) and isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == shown


def test_a_missing_extra_names_the_command() -> None:
    with pytest.raises(MMError, match=r"charts needs the package 'peft'\. Install it with: pip install peft"):
        raise MissingExtraError("peft", "train", "charts")
    assert "pip install 'ray[data]' (or" in str(MissingExtraError("ray[data]", "ray", "a cluster"))  # zsh expands [ ]
