"""Which of the words on the command line are images and which one is the question."""

import difflib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from mm.errors import ImageError, PromptError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".ico", ".tga"),
    *(".pdf", ".svg", ".heic", ".heif"),  # not opened, but meant as images: opening them says what to do
)


@dataclass(frozen=True)
class Prompt:
    """What the user asked; no question means an interactive session about the images."""

    images: tuple[str, ...]
    question: str | None


def split_words(words: list[str], question: str | None) -> Prompt:
    """Images first, the question last, "-" for a question on standard input.

    The last word is the question unless it names a file that exists. A last word that looks like a path and names
    nothing is an error: a missing image must not become the question.

    Args:
        words: positional arguments.
        question: of ``--question``; every word is an image then.

    Raises:
        ImageError: a file that does not exist.
        PromptError: an empty question.
    """
    words = list(words)
    if question is None and words and words[-1] == "-":
        words.pop()
        question = sys.stdin.read()
        if not question.strip():
            raise PromptError(
                "standard input was empty. Pipe a question in, as here: (echo 'What is the total?' | mm chat a.png -)"
            )
    elif question is None and words and not _is_image_source(words[-1]):
        if _looks_like_a_path(words[-1]):
            raise ImageError(
                f"there is no file {words[-1]!r}.{_closest(words[-1])} If this is the question, write "
                f"--question {words[-1]!r}"
            )
        question = words.pop()
    for word in words:
        if not _is_image_source(word):
            hint = _closest(word) or " The question comes last; put it in quotes if it has more than one word."
            raise ImageError(f"there is no file {word!r}.{hint}")
    if question is not None and not question.strip():
        raise PromptError(
            "the question is empty. Write it last, in quotes, or leave it out for an interactive session."
        )
    return Prompt(tuple(words), question)


def _is_image_source(word: str) -> bool:
    """Something to open: a file (or a folder: opening it says what is wrong), a data URI, or an address to refuse."""
    return os.path.exists(word) or word.startswith(("data:", "http://", "https://"))


def _looks_like_a_path(word: str) -> bool:
    suffix = Path(word).suffix.lower()
    if suffix in IMAGE_SUFFIXES or re.search(r"\s", word):
        return suffix in IMAGE_SUFFIXES
    return bool(re.fullmatch(r"\.\w{2,4}", suffix) or re.match(r"(~|\.{1,2}|[A-Za-z]:)?[/\\]\w", word))


def _closest(word: str) -> str:
    """`" Did you mean ...?"` when a file of the same folder is spelt nearly so; what a broken link leads to."""
    path = Path(word)
    try:
        if path.is_symlink():
            return f" It is a link to {os.readlink(path)!r}, which does not exist."
        names = [entry.name for entry in path.parent.iterdir() if entry.exists()]
    except PermissionError:
        return " Its folder cannot be read: check its permissions."
    except OSError:  # no such folder, or one that may not be read; a name longer than names are
        return ""
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
