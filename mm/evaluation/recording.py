"""Recorded cases: what the official code computed, read from a folder and checked before anything is compared.

<case>/cases.json             facts, "cases": one entry a conversation, "tensors": a description of each tensor
<case>/cases.safetensors      tensors, named "<entry id>/<name>"; "<name>.rows" holds the row numbers of a tensor of
                              which only some rows are stored
<case>/checkpoint/            the model folder
<case>/images/                the images that the conversations name
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mm.errors import InputError

_T = TypeVar("_T")


@dataclass(frozen=True)
class RecordedTensor:
    """One tensor of a recording.

    Attributes:
        shape: of the complete tensor.
        values: the complete tensor, or the stored rows of it (rows, last dimension).
        rows: which rows of the tensor viewed as (-1, last dimension) are stored; None when it is complete.
        facts: its entry in cases.json: sha256 of the complete tensor's bytes, mean and abs_mean of floats.
    """

    shape: tuple[int, ...]
    values: Tensor
    rows: Tensor | None
    facts: Mapping[str, Any]


class Recording:
    """A case folder. Tensors are read when they are asked for.

    Args:
        folder: as above.

    Raises:
        InputError: the folder is not a recorded case, or a file of it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder. Pass a recorded case: a folder with cases.json")
        self.facts = self._read_facts()
        self.family = str(self.facts.get("family"))
        path = self.folder / "cases.safetensors"
        try:
            self._file = safe_open(path, framework="pt")
            self._stored = frozenset(self._file.keys())  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}). Copy the case folder again") from error

    def _read_facts(self) -> dict[str, Any]:
        path = self.folder / "cases.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            inside = sorted(child.name for child in self.folder.iterdir() if (child / "cases.json").is_file())
            hint = f" It holds the cases {', '.join(inside)}: name one of them" if inside else ""
            raise InputError(f"{self.folder} is not a recorded case: it has no cases.json.{hint}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}). Copy the case folder again") from error
        if not isinstance(facts, dict) or not isinstance(facts.get("family"), str):
            raise InputError(f"{path} names no family, so it is not a recorded case. Expected an object with 'family'")
        return facts

    @property
    def _described(self) -> Mapping[str, Any]:
        described = self.facts.get("tensors", {})
        if not isinstance(described, dict):
            raise InputError(f"{self.folder / 'cases.json'}: 'tensors' is not an object. Copy the case folder again")
        return described

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The conversations and tests of the case.

        Raises:
            InputError: there are none, or one has no id.
        """
        entries = self.facts.get("cases")
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{self.folder / 'cases.json'} lists no cases. Expected a list of conversations")
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
                raise InputError(f"{self.folder / 'cases.json'}: an entry of 'cases' has no id")
        return entries

    def need(self, record: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
        """A value of an entry that cannot be run without it.

        Raises:
            InputError: it is missing or of another type.
        """
        value = record.get(key)
        if not isinstance(value, kind):
            name = record.get("id", "an entry")
            raise InputError(
                f"{self.folder / 'cases.json'}: {name} has {key} = {value!r:.60}; expected a {kind.__name__}. "
                "Copy the case folder again"
            )
        return value

    def count(self, record: Mapping[str, Any], key: str, default: int) -> int:
        """A whole number of 1 or more, ``default`` where there is none.

        Raises:
            InputError: something else.
        """
        value = default if record.get(key) is None else self.need(record, key, int)
        if value < 1:
            raise InputError(f"{self.folder / 'cases.json'}: {key} is {value}; expected 1 or more")
        return value

    def names(self, entry: str) -> list[str]:
        """Names of the recorded tensors of one entry, in the order of the file's description."""
        return [name.removeprefix(f"{entry}/") for name in self._described if name.startswith(f"{entry}/")]

    def plain(self, name: str) -> Tensor | None:
        """A stored tensor without description, None where there is none.

        Raises:
            InputError: it cannot be read.
        """
        if name not in self._stored:
            return None
        try:
            tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
            return tensor
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.folder}: tensor {name} cannot be read ({error}). Copy the case again") from error

    def tensor(self, name: str) -> RecordedTensor | None:
        """A recorded tensor, None where there is none.

        Raises:
            InputError: what is stored is not what cases.json describes.
        """
        if name not in self._described:
            return None
        facts = self._described[name]
        values, rows = self.plain(name), self.plain(f"{name}.rows")
        shape = _shape_of(facts)
        if values is None or not shape:
            raise InputError(f"{self.folder}: tensor {name} is described but not stored. Copy the case folder again")
        expected = shape if rows is None else (rows.numel(), shape[-1])
        damaged = tuple(values.shape) != expected
        if rows is None and not damaged and "sha256" in facts:
            damaged = tensor_sha256(values) != facts["sha256"]
        if rows is not None and not damaged:
            damaged = bool(rows.numel()) and not 0 <= int(rows.min()) <= int(rows.max()) < values_in(shape) // shape[-1]
        if damaged:
            raise InputError(f"{self.folder}: tensor {name} is not what cases.json describes. Copy the case again")
        return RecordedTensor(shape, values, rows, facts)

    def image(self, name: object) -> Path:
        """The path of an image that an entry names.

        Raises:
            InputError: the name leads out of the case folder.
        """
        path = self.folder / "images" / str(name)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"the case names the image {name!r}, which is outside of {self.folder}")
        return path

    def inside(self, name: str) -> Path:
        """The path of a file that an entry names relative to the case folder.

        Raises:
            InputError: there is none, or the name leads out of the case folder.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
            raise InputError(f"{self.folder}: the case names {name!r}, which is not in the folder")
        return path


def _shape_of(facts: object) -> tuple[int, ...]:
    """The shape in a tensor's description; empty when that is malformed."""
    shape = facts.get("shape") if isinstance(facts, dict) else None
    if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 0 for side in shape):
        return ()
    return tuple(shape) if isinstance(facts, dict) and isinstance(facts.get("sha256", ""), str) else ()


def values_in(shape: tuple[int, ...]) -> int:
    """Number of elements."""
    count = 1
    for side in shape:
        count *= side
    return count


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes, C order, little endian as on every machine that torch runs on."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
