"""Lazy tables: names to ``module:attribute`` strings, imported when asked for."""

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mm.errors import OptionError


class Registry:
    """A table of strings.

    Args:
        kind: what an entry is, for messages.
        entries: name -> "package.module:attribute".
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.entries = dict(entries)

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self.entries)

    def load(self, name: str) -> Any:
        """Import the entry.

        Raises:
            OptionError: unknown name; the message lists the known ones.
        """
        if name not in self.entries:
            close = difflib.get_close_matches(name, self.entries, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise OptionError(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}.{hint}")
        module, _, attribute = self.entries[name].partition(":")
        return getattr(import_module(module), attribute)
