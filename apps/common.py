"""What the pages share: uploads, errors as sentences, files for the page, answers on their way by session."""

import logging
import re
import stat
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder
from PIL import Image

from mm.errors import ImageError, InputError, MMError, ResourceError
from mm.images import open_image, shown
from mm.reply import Reply

from .doors import is_upload
from .line import Line, Place

MAX_PIXELS = 50_000_000  # a picture from a camera has 12 to 48 million
DELETE_AFTER_S = 3600  # age at which files of a session are deleted, and how often that is looked after
AGES = (DELETE_AFTER_S, DELETE_AFTER_S)
IMAGE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"]

_log = logging.getLogger("mm.apps")


@contextmanager
def sentences() -> Iterator[None]:
    """Every error inside becomes a sentence in the page; the server goes on. A bug is logged with its traceback."""
    try:
        yield
    except gr.Error:
        raise
    except MMError as error:
        text = str(error)
        if text.partition(" ")[0].isalpha():  # not the name of an option
            text = text[:1].upper() + text[1:]
        title = "Not enough memory" if isinstance(error, ResourceError) else "This does not work"
        raise gr.Error(text, duration=None, title=title, print_exception=False) from error
    except Exception as error:
        _log.exception("an app failed")
        raise gr.Error(
            "The server met an error of its own and went on; its log has the details. Try again.",
            duration=None,
            title="Server error",
            print_exception=False,
        ) from error


def uploaded(path: object) -> Path:
    """The file of an upload, checked to be one.

    Raises:
        ImageError: a path outside the upload folder, a link, or nothing there.
    """
    if not isinstance(path, str) or not path:
        raise ImageError("no file came with the request. Upload it again.")
    if not is_upload(path):
        raise ImageError("that file was not uploaded here. Upload the picture itself.")
    file = Path(path)
    try:
        kind = file.stat().st_mode
    except OSError as error:
        raise ImageError("the uploaded file is gone: files are deleted after an hour. Upload it again.") from error
    if not stat.S_ISREG(kind):
        raise ImageError("that is no file. Upload the picture itself.")
    return file


def path_of(file: object) -> str:
    """The path in what Gradio calls a file."""
    return str(file.get("path", "")) if isinstance(file, Mapping) else str(file)


def open_upload(path: object) -> Image.Image:
    """An uploaded picture as RGB. Messages name the file, never its folder.

    Raises:
        ImageError: not an upload, not a picture, or too large.
    """
    file = uploaded(path)
    try:
        return open_image(file, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise without_folder(error, file) from error


def without_folder(error: ImageError, file: Path) -> ImageError:
    """An error about an upload that names the file alone, also where a long path is cut in the middle of it."""
    text = str(error).replace(shown(str(file)), shown(file.name)).replace(str(file), file.name)
    return ImageError(text)


def keep_file(name: str, write: Callable[[Path], object]) -> str:
    """Save a file for the page, where it is deleted in time; returns its path.

    A file with this content may be there already and be on its way to a visitor: it is never written twice.

    Args:
        name: of the file, for the visitor.
        write: writes it to a path.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return processing_utils.save_file_to_cache(path, cache_dir=get_upload_folder())


def keep_picture(picture: Image.Image, name: str = "picture.png") -> str:
    """Save a picture for the page; see ``keep_file``."""
    return keep_file(name, picture.save)


class Cancellable(Protocol):
    """Something on its way that can be ended."""

    def cancel(self) -> None:
        """End it within a step; may be called twice."""
        ...


class Sessions:
    """What runs, by session, so that a closed tab ends its own and no other's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[Cancellable]] = defaultdict(set)

    @contextmanager
    def running(self, request: gr.Request, stream: Cancellable, place: Place) -> Iterator[None]:
        """What runs ends with the block, however that ends; at once where its place was given up while it was made."""
        key = request.session_hash or ""
        with self._lock:
            self._running[key].add(stream)
            if place.cancelled:
                stream.cancel()
        try:
            yield
        finally:
            stream.cancel()
            with self._lock:
                self._running[key].discard(stream)
                if not self._running[key]:
                    del self._running[key]

    @contextmanager
    def place(self, line: Line, request: gr.Request) -> Iterator[Place]:
        """A place in the line, which a closed tab gives up.

        Raises:
            BusyError: too many wait.
        """
        with line.place() as place, self.running(request, place, place):
            yield place

    def end(self, request: gr.Request) -> None:
        """End what a closed tab has running. Who names no session ends nothing: it would be that of others like it."""
        with self._lock:
            for stream in self._running.get(request.session_hash, ()) if request.session_hash else ():
                stream.cancel()

    def count(self) -> int:
        """Answers on their way."""
        with self._lock:
            return sum(len(streams) for streams in self._running.values())


def finish_sentence(reply: Reply) -> str:
    """What to say of an answer that did not end by itself; empty when it did."""
    return {
        "length": "The answer stops at the token limit; a longer answer can be allowed in the settings.",
        "loop": "The answer repeated itself without end and was stopped.",
        "cancelled": "Stopped.",
    }.get(reply.finish_reason, "")


def speed_text(reply: Reply, first_s: float, total_s: float) -> str:
    """Token counts and speeds of an answer, in one line."""
    usage = reply.usage
    made = usage.completion_tokens
    rate = (made - 1) / (total_s - first_s) if made > 1 and total_s > first_s else 0.0
    speed = f" · {rate:.0f} tokens/s" if rate else ""
    return f"{usage.prompt_tokens:,} tokens in, {made:,} out{speed} · first after {first_s:.2f} s"


def check_question(text: object) -> str:
    """A question, without white space at its ends.

    Raises:
        InputError: nothing is asked.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("nothing is asked. Write a question.")
    return text.strip()


def plain(text: str) -> str:
    """Text of a visitor or a model, so that Markdown shows it as it is."""
    return "".join(f"&#{ord(c)};" if c in "|<>&`*_[]\\" else c for c in " ".join(text.split()))


def plain_lines(text: str) -> str:
    """Lines of a model, so that Markdown shows them as they are: no headings, no lists."""
    lines = [plain(line) for line in text.split("\n")]
    kept = [f"&#{ord(line[0])};{line[1:]}" if line[:1] in tuple("#+-=~") else line for line in lines]
    return "  \n".join(re.sub(r"^(\d+)([.)])", r"\1&#x200b;\2", line) for line in kept)
