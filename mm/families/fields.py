"""Reading a published JSON object key by key, so that no key is missed and no value is guessed."""

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

from mm.errors import ConfigError

Choice = TypeVar("Choice", bound=str)

# Keys that Hugging Face writes into any config and that say nothing about the architecture.
BASE_KEYS = frozenset(
    [
        "_name_or_path",
        "architectures",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "chunk_size_feed_forward",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "id2label",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "prefix",
        "problem_type",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
        "add_cross_attention",
        "_attn_implementation",
    ]
)
_REQUIRED: Any = object()


class Fields:
    """One JSON object; every getter marks its key as known, ``finish`` reports the rest.

    Args:
        raw: the object.
        place: how messages name it.
        strict: unknown keys are an error (architecture parts) or a warning (elsewhere).
    """

    def __init__(self, raw: dict[str, Any], place: str, *, strict: bool = True) -> None:
        self.raw = raw
        self.place = place
        self.strict = strict
        self._seen: set[str] = set()

    def finish(self) -> None:
        """Raise ConfigError (or warn) when keys are left that nobody asked for."""
        unknown = sorted(self.raw.keys() - self._seen - BASE_KEYS)
        if not unknown:
            return
        message = f"{self.place} has unknown keys: {', '.join(unknown)}."
        if self.strict:
            raise ConfigError(f"{message} This model needs a newer mm, or the key is misspelt.")
        warnings.warn(f"{message} They are ignored.", stacklevel=2)

    def ignore(self, *keys: str) -> None:
        """Keys that are known and mean nothing for inference."""
        self._seen.update(keys)

    def expect(self, key: str, value: object, *, default: object = _REQUIRED) -> None:
        """The key must have this value."""
        found = self._get(key, default)
        if found != value:
            raise ConfigError(f"{self.place}.{key} is {found!r}; only {value!r} is supported.")

    def integer(self, key: str, *, default: int = _REQUIRED, least: int = 1) -> int:
        """A whole number of at least ``least``."""
        found = self._get(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise ConfigError(f"{self.place}.{key} is {found!r}; expected a whole number of at least {least}.")
        return found

    def optional_integer(self, key: str, *, default: int | None, least: int = 1) -> int | None:
        """A whole number or null."""
        return None if self._get(key, default) is None else self.integer(key, default=default or 0, least=least)

    def number(self, key: str, *, default: float = _REQUIRED) -> float:
        """A finite number that is not negative."""
        found = self._get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
            raise ConfigError(f"{self.place}.{key} is {found!r}; expected a number of at least 0.")
        return float(found)

    def boolean(self, key: str, *, default: bool = _REQUIRED) -> bool:
        """True or false."""
        found = self._get(key, default)
        if not isinstance(found, bool):
            raise ConfigError(f"{self.place}.{key} is {found!r}; expected true or false.")
        return found

    def text(self, key: str, *, default: str = _REQUIRED) -> str:
        """A string."""
        found = self._get(key, default)
        if not isinstance(found, str):
            raise ConfigError(f"{self.place}.{key} is {found!r}; expected text.")
        return found

    def choice(self, key: str, options: Sequence[Choice], *, default: Choice = _REQUIRED) -> Choice:
        """One of ``options``."""
        found = self._get(key, default)
        for option in options:
            if found == option:
                return option
        raise ConfigError(f"{self.place}.{key} is {found!r}; known are {', '.join(options)}.")

    def section(self, key: str) -> dict[str, Any]:
        """A JSON object."""
        found = self._get(key, _REQUIRED)
        if not isinstance(found, dict):
            raise ConfigError(f"{self.place}.{key} is {found!r}; expected an object.")
        return found

    def optional_section(self, key: str) -> dict[str, Any] | None:
        """A JSON object or null."""
        return None if self._get(key, None) is None else self.section(key)

    def resolutions(self, key: str, *, default: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """A list of [width, height], all whole multiples of the first one's width."""
        found = self._get(key, default)
        problem = ConfigError(f"{self.place}.{key} is {found!r}; expected a list of [width, height] in pixels.")
        if not isinstance(found, list | tuple) or not found:
            raise problem
        sizes = []
        for item in found:
            if (
                not isinstance(item, list | tuple)
                or len(item) != 2
                or not all(isinstance(n, int) and n > 0 for n in item)
            ):
                raise problem
            sizes.append((int(item[0]), int(item[1])))
        tile = sizes[0][0]
        for width, height in sizes:
            if width % tile or height % tile:
                raise ConfigError(
                    f"{self.place}.{key}: {width} x {height} is no whole number of tiles of {tile} pixels."
                )
        return tuple(sizes)

    def divides(self, part_key: str, part: int, whole_key: str, whole: int) -> None:
        """``whole`` must be a multiple of ``part``."""
        if whole % part:
            raise ConfigError(f"{self.place}.{whole_key} {whole} is no multiple of {part_key} {part}.")

    def _get(self, key: str, default: object) -> Any:
        self._seen.add(key)
        if key in self.raw:
            return self.raw[key]
        if default is _REQUIRED:
            raise ConfigError(f"{self.place} has no {key}.")
        return default
