"""Text to token ids and back, over a published ``tokenizer.json``.

Only the special tokens that a caller names become control tokens; every other special string in a text is tokenised as
plain characters, so that nothing a user types can end a turn or open another role.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from mm.errors import ConfigError, PromptError, ResourceError

_NAMES = ("bos_token", "eos_token", "pad_token")


class Tokenizer:
    """A ``tokenizers`` tokenizer with its begin, end and pad tokens. Safe to share between threads.

    Attributes:
        bos_id, eos_id, pad_id: ids of the begin, end and padding tokens.
        add_bos: whether a conversation starts with the begin token (``add_bos_token``, default true as in the
            published tokenizer class LlamaTokenizerFast).
        vocab_size: number of tokens, added ones included (a model's embedding may have more rows).
        highest_id: the largest id of a token; more than ``vocab_size`` - 1 where ids have gaps.
        special_ids: ids of all special tokens.
        hidden_ids: those that are left out of the text of an answer.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_token: str,
        eos_token: str,
        pad_token: str,
        add_bos: bool = True,
        add_missing: Sequence[str] = (),
        bracketed: bool = False,
        shown: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap ``backend``, which must not be changed afterwards.

        Args:
            backend: the tokenizer; ``add_missing`` is added to it.
            bos_token: begin of sentence, a token of the vocabulary.
            eos_token: end of sentence, likewise.
            pad_token: padding, likewise.
            add_bos: see the class.
            add_missing: special tokens that are appended, in this order, where the vocabulary lacks them.
            bracketed: added tokens that begin with "<" and end with ">" are special tokens, whatever the file says.
            shown: special tokens that stay in the text of an answer.
            config: entries of tokenizer_config.json that ``save`` writes back.

        Raises:
            ConfigError: one of the three tokens is not in the vocabulary.
        """
        self._backend = backend
        self._config = dict(config or {})
        present = [token.content for token in backend.get_added_tokens_decoder().values()]
        wanted = [
            *(token for token in present if bracketed and token.startswith("<") and token.endswith(">")),
            *add_missing,
            *(token for token in (bos_token, eos_token, pad_token) if backend.token_to_id(token) is not None),
        ]
        self._backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in wanted])
        self._backend.encode_special_tokens = True  # special strings in plain text stay text, always
        added = self._backend.get_added_tokens_decoder()
        trimming = [t.content for t in added.values() if t.special and (t.lstrip or t.rstrip or t.single_word)]
        if trimming:
            raise ConfigError(
                f"tokenizer.json: the special tokens {trimming} strip spaces or match whole words only, which no "
                "published DeepSeek tokenizer does. Set lstrip, rstrip and single_word to false"
            )
        self._special = {token.content: index for index, token in added.items() if token.special}
        self._patterns: dict[frozenset[str], re.Pattern[str] | None] = {}
        self.special_ids = frozenset(self._special.values())
        self.hidden_ids = self.special_ids - {self._special[token] for token in shown if token in self._special}
        self.bos_token, self.eos_token, self.pad_token = bos_token, eos_token, pad_token
        self.bos_id = self.token_id(bos_token)
        self.eos_id = self.token_id(eos_token)
        self.pad_id = self.token_id(pad_token)
        self.add_bos = add_bos
        vocabulary: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size, self.highest_id = len(vocabulary), max(vocabulary.values())

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        add_missing: Sequence[str] = (),
        *,
        pad_token: str | None = None,
        pad_with_end: bool = False,
        bracketed: bool = False,
        shown: Sequence[str] = (),
    ) -> "Tokenizer":
        """Load tokenizer.json (merges as pairs or as "a b" strings) and the token names beside it.

        Args:
            folder: holds tokenizer.json and tokenizer_config.json and/or special_tokens_map.json.
            add_missing: see the constructor.
            pad_token: the padding token of a folder whose files name none; added first, as published.
            pad_with_end: such a folder without ``pad_token`` pads with its end token.
            bracketed: see the constructor.
            shown: likewise.

        Raises:
            ConfigError: a file is missing or cannot be parsed, or a token is named nowhere or not in the vocabulary.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"{folder} has no tokenizer.json. Download the whole model folder again") from error
        except Exception as error:  # the Rust parser raises plain Exception
            raise ConfigError(f"{path} is not a tokenizer file: {error}. Download it again") from error
        backend.no_padding()
        backend.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        names = _token_names(config, _read_json(folder / "special_tokens_map.json"))
        missing = [name for name in _NAMES[:2] if names[name] is None]
        if missing:
            raise ConfigError(
                f"{folder}: neither tokenizer_config.json nor special_tokens_map.json names {' and '.join(missing)}. "
                'Add, for example, "eos_token": "<｜end▁of▁sentence｜>"'
            )
        bos, eos, pad = (names[name] for name in _NAMES)
        if pad is None and pad_token is None and pad_with_end:
            pad = eos
        if pad is None:
            if pad_token is None:
                raise ConfigError(
                    f"{folder}: tokenizer_config.json names no pad_token. Add one, or pass pad_token= to use another"
                )
            pad, add_missing = pad_token, (pad_token, *add_missing)
        add_bos = config.get("add_bos_token", True)
        assert bos is not None and eos is not None and pad is not None
        return cls(
            backend,
            bos_token=bos,
            eos_token=eos,
            pad_token=pad,
            add_bos=True if add_bos is None else bool(add_bos),
            add_missing=add_missing,
            bracketed=bracketed,
            shown=shown,
            config=config,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled copies (data workers) escape special strings too; the backend forgets that setting."""
        self.__dict__.update(state)
        self._backend.encode_special_tokens = True

    def token_id(self, text: str) -> int:
        """The id of the token spelt exactly ``text``; ``ConfigError`` when there is none."""
        index: int | None = self._backend.token_to_id(text)
        if index is None:
            raise ConfigError(
                f"the tokenizer has no token {text!r}. The tokenizer files do not belong to this model: "
                "download the model folder again"
            )
        return index

    def ids(self, texts: Iterable[str]) -> dict[str, int]:
        """{text: id} of those that are one token of the vocabulary each."""
        found = ((text, self._backend.token_to_id(text)) for text in texts)
        return {text: index for text, index in found if index is not None}

    @property
    def special_tokens(self) -> frozenset[str]:
        """The strings of all special tokens."""
        return frozenset(self._special)

    def encode(self, text: str, special: frozenset[str] = frozenset()) -> list[int]:
        """Token ids of ``text``, without a begin token.

        Args:
            text: any text.
            special: the special tokens that count as such in ``text``; all others in it are plain characters. Names
                that the tokenizer does not have are plain characters as well.

        Raises:
            PromptError: the text holds surrogate code points and has no UTF-8 form.
        """
        return self.encode_parts([(text, special)])

    def encode_parts(self, parts: Iterable[tuple[str, frozenset[str]]]) -> list[int]:
        """Token ids of the joined texts, each with its own set of special tokens.

        Plain characters on both sides of a border are tokenised together, exactly as if they were one text; a special
        token never forms across a border.
        """
        ids: list[int] = []
        plain: list[str] = []
        for text, special in parts:
            pattern = self._pattern(special)
            if pattern is None:
                plain.append(text)
                continue
            for index, piece in enumerate(pattern.split(text)):
                if index % 2 == 0:
                    plain.append(piece)
                else:
                    ids += self._encode_plain("".join(plain))
                    ids.append(self._special[piece])
                    plain.clear()
        return ids + self._encode_plain("".join(plain))

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of ``ids``; bytes that are not yet whole UTF-8 characters show as U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json in the published layout.

        Raises:
            ResourceError: the files cannot be written.
        """
        folder = Path(folder)
        names = {"bos_token": self.bos_token, "eos_token": self.eos_token, "pad_token": self.pad_token}
        config = {
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": None,
            **self._config,
            "add_bos_token": self.add_bos,
            **names,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_json(folder / "tokenizer.json", self._to_json())
            _write_json(folder / "tokenizer_config.json", config)
            _write_json(folder / "special_tokens_map.json", names)
        except OSError as error:
            raise ResourceError(
                f"cannot write the tokenizer to {folder}: {error.strerror or error}. Free space or pick another folder"
            ) from error

    def _to_json(self) -> dict[str, Any]:
        """The tokenizer file with merges as "a b" strings, as published; every version of ``tokenizers`` reads that."""
        data: dict[str, Any] = json.loads(self._backend.to_str())
        merges = data["model"].get("merges", [])
        if not any(" " in piece for merge in merges for piece in merge if isinstance(merge, list)):
            data["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        return data

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text is not valid Unicode: at position {error.start} stands the lone surrogate "
                f"{text[error.start]!r}, which a byte that is not UTF-8 becomes. Convert the text to UTF-8"
            ) from error
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _pattern(self, special: frozenset[str]) -> re.Pattern[str] | None:
        """A pattern that splits a text at ``special``, None when the tokenizer has none of them."""
        if special not in self._patterns:
            known = sorted(special & self._special.keys(), key=lambda token: (-len(token), token))
            self._patterns[special] = re.compile(f"({'|'.join(map(re.escape, known))})") if known else None
        return self._patterns[special]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, {} where the file does not exist."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}. Download it again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}, expected a JSON object. Download it again")
    return value


def _token_names(config: dict[str, Any], special_map: dict[str, Any]) -> dict[str, str | None]:
    """bos, eos and pad by string. A token is stored as a string or as an object with ``content``."""
    names: dict[str, str | None] = {}
    for name in _NAMES:
        value = config.get(name)
        if value is None:
            value = special_map.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if value is not None and not isinstance(value, str):
            raise ConfigError(
                f"tokenizer_config.json: {name} must be a string or an object with content, got {value!r}"
            )
        names[name] = value
    return names
