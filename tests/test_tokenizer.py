"""The tokenizer: special tokens are control only where named; files in both merge formats; missing tokens."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from mm.errors import ConfigError, PromptError
from mm.processing.vl2 import EXTRA_TOKENS
from mm.tokenizer import Tokenizer

Golden = Callable[[str], Path]

PIECES = [
    *("Hello", " the", "  ", "\n", "\n\n", "日本", "café", "12345", "😀", "\t", ": ", "...", "<|", "|>", "a<image>b"),
    *("<image>", "<|ref|>", "<|/ref|>", "<|User|>", "<|Assistant|>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "é"),
]


@pytest.fixture
def folder(golden: Golden, tmp_path: Path) -> Path:
    """A copy of recorded tokenizer files that a test may change."""
    source = golden("deepseek_vl2_tiny") / "checkpoint"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    return tmp_path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def random_texts(count: int) -> list[str]:
    chance = random.Random(0)
    return ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(count)]


def test_all_specials_equals_the_plain_library(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in random_texts(500):
        assert tokenizer.encode(text, tokenizer.special_tokens) == reference.encode(text, add_special_tokens=False).ids


def test_unnamed_specials_are_plain_text(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    for text in random_texts(500):
        ids = tokenizer.encode(text)
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.decode(ids) == text


def test_only_named_specials_are_control(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    text = "<|ref|>a<|User|><｜end▁of▁sentence｜><|/ref|>"
    ids = tokenizer.encode(text, frozenset({"<|ref|>", "<|/ref|>", "<|unknown|>"}))
    assert [i for i in ids if i in tokenizer.special_ids] == [
        tokenizer.token_id("<|ref|>"),
        tokenizer.token_id("<|/ref|>"),
    ]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special=True) == "a<|User|><｜end▁of▁sentence｜>"


def test_parts_join_like_one_text_and_never_form_a_special(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    both = frozenset({"<|ref|>"})
    assert tokenizer.encode_parts([("Hel", frozenset()), ("lo wor", both), ("ld", frozenset())]) == tokenizer.encode(
        "Hello world"
    )
    assert tokenizer.encode_parts([("<|re", both), ("f|>", both)]) == tokenizer.encode("<|ref|>")
    assert tokenizer.encode_parts([("a ", frozenset()), ("<|ref|> b", both)]) == tokenizer.encode("a <|ref|> b", both)
    assert tokenizer.encode_parts([]) == tokenizer.encode("") == []


def test_copies_escape_too(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.encode("<image>") == tokenizer.encode("<image>")
        assert other.token_id("<image>") not in other.encode("<image>")


def test_partial_characters_decode_to_replacements(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode("😀")
    assert tokenizer.decode(ids) == "😀"
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
    assert tokenizer.decode([10**6]) == ""  # rows of the embedding beyond the vocabulary


def test_missing_tokens_are_appended_in_order(golden: Golden) -> None:
    source = golden("deepseek_vl2_small") / "checkpoint"
    tokenizer = Tokenizer.from_folder(source, ("<image>", *EXTRA_TOKENS), pad_token="<｜▁pad▁｜>")
    assert [tokenizer.token_id(token) for token in ("<image>", *EXTRA_TOKENS)] == list(range(1402, 1410))
    assert tokenizer.pad_id == tokenizer.eos_id == 1401  # its files name a pad token, so none is added
    assert tokenizer.vocab_size == 1410
    again = Tokenizer.from_folder(source, ("<image>", *EXTRA_TOKENS), pad_token="<｜▁pad▁｜>")
    assert again.encode("x<|User|>", again.special_tokens) == tokenizer.encode("x<|User|>", tokenizer.special_tokens)


def test_pad_token_comes_first_when_the_files_name_none(golden: Golden, tmp_path: Path) -> None:
    source = golden("deepseek_vl2_small") / "checkpoint"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    edit(tmp_path / "tokenizer_config.json", lambda data: data.update(pad_token=None))
    tokenizer = Tokenizer.from_folder(tmp_path, ("<image>", *EXTRA_TOKENS), pad_token="<｜▁pad▁｜>")
    assert (tokenizer.pad_id, tokenizer.token_id("<image>")) == (1402, 1403)
    with pytest.raises(ConfigError, match="names no pad_token. Add one, or pass pad_token="):
        Tokenizer.from_folder(tmp_path)


def test_a_known_token_becomes_special_without_a_new_id(golden: Golden, tmp_path: Path) -> None:
    source = golden("deepseek_vl2_tiny") / "checkpoint"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    edit(tmp_path / "tokenizer.json", lambda data: [token.update(special=False) for token in data["added_tokens"]])
    tokenizer = Tokenizer.from_folder(tmp_path, ("<image>", *EXTRA_TOKENS))
    assert tokenizer.token_id("<image>") == 1400
    assert tokenizer.vocab_size == 1408
    assert not tokenizer.special_ids & set(tokenizer.encode("<image><|User|><｜end▁of▁sentence｜>"))


def test_names_from_the_special_tokens_map(folder: Path) -> None:
    edit(
        folder / "tokenizer_config.json",
        lambda data: [data.pop(name) for name in ("bos_token", "eos_token", "pad_token")],
    )
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (None, True)])
def test_add_bos_token(folder: Path, value: bool | None, expected: bool) -> None:
    edit(folder / "tokenizer_config.json", lambda data: data.update(add_bos_token=value))
    assert Tokenizer.from_folder(folder).add_bos is expected
    edit(folder / "tokenizer_config.json", lambda data: data.pop("add_bos_token"))
    assert Tokenizer.from_folder(folder).add_bos is True


def test_both_merge_formats_and_saving(folder: Path, tmp_path: Path) -> None:
    old = Tokenizer.from_folder(folder)
    assert isinstance(json.loads((folder / "tokenizer.json").read_text())["model"]["merges"][0], str)
    edit(folder / "tokenizer.json", lambda d: d["model"].update(merges=[m.split(" ") for m in d["model"]["merges"]]))
    new = Tokenizer.from_folder(folder)
    new.save(tmp_path / "saved")
    saved = Tokenizer.from_folder(tmp_path / "saved")
    merges = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["model"]["merges"]
    assert all(isinstance(merge, str) for merge in merges)
    for text in random_texts(200):
        ids = old.encode(text, old.special_tokens)
        assert new.encode(text, old.special_tokens) == saved.encode(text, old.special_tokens) == ids
    for name in ("bos_id", "eos_id", "pad_id", "vocab_size", "special_ids", "add_bos"):
        assert getattr(saved, name) == getattr(old, name)
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 16384  # what was in the source stays


def test_padding_and_truncation_in_the_file_are_ignored(folder: Path) -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", lambda data: data.update(truncation=truncation))
    assert len(Tokenizer.from_folder(folder).encode("one two three four five")) > 2


def test_lone_surrogates(folder: Path) -> None:
    with pytest.raises(
        PromptError, match=r"position 1 stands the lone surrogate '\\udc80'.* Convert the text to UTF-8"
    ):
        Tokenizer.from_folder(folder).encode("a\udc80")


def test_broken_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no tokenizer.json. Download the whole model folder"):
        Tokenizer.from_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="the tokenizer has no token '<absent>'"):
        Tokenizer.from_folder(folder).token_id("<absent>")
    edit(folder / "tokenizer_config.json", lambda data: data.update(eos_token=7))
    with pytest.raises(ConfigError, match="eos_token must be a string or an object with content, got 7"):
        Tokenizer.from_folder(folder)
    edit(folder / "tokenizer_config.json", lambda data: data.update(eos_token="<nope>"))
    with pytest.raises(ConfigError, match="the tokenizer has no token '<nope>'"):
        Tokenizer.from_folder(folder)
    edit(folder / "tokenizer_config.json", lambda data: [data.pop(name) for name in ("bos_token", "eos_token")])
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(ConfigError, match="neither .* names bos_token and eos_token"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json cannot be read as JSON"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds a list, expected a JSON object"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not a tokenizer file"):
        Tokenizer.from_folder(folder)


def test_space_stripping_specials_are_refused(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda data: data["added_tokens"][3].update(lstrip=True))
    with pytest.raises(ConfigError, match=r"the special tokens \['<image>'\] strip spaces"):
        Tokenizer.from_folder(folder)
