"""Token ids to text while they arrive, in whole characters."""

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a decoder shows for bytes that are not (yet) a character
_MAX_WINDOW = 32
_CONTEXT = 8


class Detokenizer:
    """Turns a growing list of tokens into pieces of text that never end inside a character.

    The pieces joined are the text of all tokens. A character of several bytes may span tokens; a decoder shows its
    unfinished end as one U+FFFD, which is held back until a later token settles it. Only a short window of tokens is
    decoded at each step, so that the cost of a step does not grow with the answer.

    Args:
        decode: text of a list of token ids.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._context = 0  # leading tokens of the window that are shown completely
        self._shown = 0  # characters of the window's text that were given out

    def push(self, token: int) -> str:
        """Text that the token completes; empty while a character is unfinished."""
        self._window.append(token)
        text = self._decode(self._window)
        settled = text.removesuffix(_INCOMPLETE)
        piece = settled[self._shown :]
        if settled == text:
            # Everything is shown: the next window is the newest tokens, kept because some decoders treat the first
            # token of a list differently (they strip a leading space), and what comes after them.
            self._window = self._window[self._context :]
            self._context = len(self._window)
            self._shown = len(self._decode(self._window))
        elif len(self._window) > _MAX_WINDOW:
            # Bytes that never become text. An unfinished end is at most three bytes, so a few tokens settle the rest.
            self._window = self._window[-_CONTEXT:]
            self._context = 0
            self._shown = len(self._decode(self._window).removesuffix(_INCOMPLETE))
        else:
            self._shown = max(self._shown, len(settled))
        return piece

    def flush(self) -> str:
        """What is left at the end: nothing, or U+FFFD for a character that was never finished."""
        piece = self._decode(self._window)[self._shown :] if self._window else ""
        self._window, self._context, self._shown = [], 0, 0
        return piece
