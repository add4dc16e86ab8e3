"""What the apps share: options, the server, uploads, and errors as sentences in the page.

Nothing here or in the page asks another machine for anything: no analytics, no share link, no font of a web service.
"""

import argparse
import atexit
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from gradio import processing_utils
from PIL import Image

from mm.errors import ImageError, InputError, MMError, OptionError, ResourceError
from mm.images import open_image
from mm.pipeline import Pipeline
from mm.reply import Reply, TextStream

MAX_PIXELS = 50_000_000  # a picture from a camera has 12 to 48 million
DELETE_AFTER_S = 3600  # age at which files of a session are deleted, and how often that is looked after
FIRST_PORT, LAST_PORT = 7860, 7959
CONCURRENCY = 8  # requests that run at the same time; the engine steps them together
IMAGE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"]
CSS = """
footer { display: none !important; }
button[aria-label="Share"], button[title="Share"] { display: none !important; }  /* would upload to another site */
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container > main { width: 100%; }
.app-head h1 { margin: 0 0 2px; font-size: 1.35rem; }
.app-head p { margin: 0; color: var(--body-text-color-subdued); }
"""

_log = logging.getLogger("mm.apps")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How an app is served.

    Attributes:
        host: address to listen on.
        port: None takes the first free one from 7860.
        auth: (user, password), or None.
        max_upload_mb: largest uploaded file.
        queue_size: requests that may wait; the next one is told to come back.
        root_path: path prefix behind a reverse proxy.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: tuple[str, str] | None = None
    max_upload_mb: int = 20
    queue_size: int = 32
    root_path: str | None = None


def parse_arguments(argv: Sequence[str] | None, name: str, description: str) -> tuple[argparse.Namespace, ServeOptions]:
    """The command line of an app. A wrong option ends the process with status 2, as argparse does.

    Args:
        argv: words after the program's name; None takes those of the process.
        name: of the program, for messages.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--model", "-m", default="nano-vl2", help="bundled name, folder or hub id (default: nano-vl2)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=_whole(1, 65535), help=f"default: the next free one from {FIRST_PORT}")
    parser.add_argument("--auth", type=_user_and_password, metavar="USER:PASS", help="ask for a name and a password")
    parser.add_argument("--max-upload-mb", type=_whole(1, 4096), default=20, help="largest file (default: 20)")
    parser.add_argument("--queue-size", type=_whole(1, 10_000), default=32, help="most waiting requests (default: 32)")
    parser.add_argument("--root-path", metavar="PATH", help="path prefix behind a reverse proxy, such as /mm")
    given = parser.parse_args(argv)
    return given, ServeOptions(
        host=given.host,
        port=given.port,
        auth=given.auth,
        max_upload_mb=given.max_upload_mb,
        queue_size=given.queue_size,
        root_path=given.root_path,
    )


def run_app(
    argv: Sequence[str] | None, build_demo: Callable[[Pipeline], gr.Blocks], *, name: str, description: str
) -> int:
    """Parse, load the model, build, serve until interrupted. Returns the exit status."""
    given, options = parse_arguments(argv, name, description)
    try:
        make_private_folder()
        print(f"loading {given.model} ...", file=sys.stderr, flush=True)
        pipe = Pipeline.from_pretrained(given.model, device=given.device, dtype=given.dtype)
        demo = build_demo(pipe)
        url = serve(demo, options)
    except MMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that uploads are deleted
    print(f"{name} with {pipe.name}: {url}  (Ctrl-C ends it)", flush=True)
    demo.block_thread()
    return 0


def make_private_folder() -> Path:
    """A folder that only this user can read, for uploads and results; it goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="mm-app-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def serve(demo: gr.Blocks, options: ServeOptions) -> str:
    """Start the server in threads of its own and return its address.

    Raises:
        OptionError: the port cannot be had.
    """
    close_downloads()
    port = options.port if options.port is not None else free_port(options.host)
    demo.queue(max_size=options.queue_size, default_concurrency_limit=CONCURRENCY)
    try:
        _, url, _ = demo.launch(
            server_name=options.host,
            server_port=port,
            auth=options.auth,
            root_path=options.root_path,
            max_file_size=f"{options.max_upload_mb}mb",
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            inbrowser=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=theme(),
            css=CSS,
        )
    except OSError as error:
        raise OptionError(
            f"port {port} of {options.host} cannot be had ({error}). Pass another --port, or leave it out."
        ) from error
    return url


def theme() -> gr.themes.Base:
    """Fonts of the reader's own machine, so that none is fetched."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"],
    )


def free_port(host: str) -> int:
    """The first port from 7860 that nothing listens on.

    Raises:
        OptionError: none of a hundred, or no such address on this machine.
    """
    try:
        family, _, _, _, _ = socket.getaddrinfo(host, FIRST_PORT, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OptionError(f"there is no address {host!r} ({error}). Pass --host 127.0.0.1 or 0.0.0.0.") from error
    for port in range(FIRST_PORT, LAST_PORT + 1):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
    raise OptionError(f"no port from {FIRST_PORT} to {LAST_PORT} of {host} can be had. Pass another one with --port.")


def close_downloads() -> None:
    """Gradio fetches a file that a request names by its URL. These apps never download for a visitor."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Addresses are never downloaded here. Save the picture and upload the file.", duration=None)

    processing_utils.async_ssrf_protected_download = refuse


@contextmanager
def sentences() -> Iterator[None]:
    """Every error inside becomes a sentence in the page; the server goes on. A bug is logged with its traceback."""
    try:
        yield
    except gr.Error:
        raise
    except MMError as error:
        text = str(error)
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
    from gradio.utils import get_upload_folder

    root = Path(get_upload_folder()).resolve()
    if not isinstance(path, str) or not path:
        raise ImageError("no file came with the request. Upload it again.")
    file = Path(path)
    inside = file.is_absolute() and file.resolve().is_relative_to(root) and ".." not in file.parts
    if not inside or file.is_symlink():
        raise ImageError("that file was not uploaded here. Upload the picture itself.")
    try:
        kind = file.stat().st_mode
    except OSError as error:
        raise ImageError("the uploaded file is gone: files are deleted after an hour. Upload it again.") from error
    if not stat.S_ISREG(kind):
        raise ImageError("that is no file. Upload the picture itself.")
    return file


def open_upload(path: object) -> Image.Image:
    """An uploaded picture as RGB. Messages name the file, never its folder.

    Raises:
        ImageError: not an upload, not a picture, or too large.
    """
    file = uploaded(path)
    try:
        return open_image(file, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise ImageError(str(error).replace(str(file), file.name)) from error


def keep_picture(picture: Image.Image) -> str:
    """Save a picture for the page, where it is deleted in time; returns its path."""
    from gradio.utils import get_upload_folder

    return processing_utils.save_pil_to_cache(picture, cache_dir=get_upload_folder(), format="png")


class Sessions:
    """Running answers by session, so that a closed tab ends its own and no other's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[TextStream]] = defaultdict(set)

    @contextmanager
    def running(self, session: str | None, stream: TextStream) -> Iterator[None]:
        """The answer ends with the block, however that ends."""
        key = session or ""
        with self._lock:
            self._running[key].add(stream)
        try:
            yield
        finally:
            stream.cancel()
            with self._lock:
                self._running[key].discard(stream)
                if not self._running[key]:
                    del self._running[key]

    def end(self, request: gr.Request) -> None:
        """End what a closed tab has running."""
        with self._lock:
            streams = list(self._running.get(request.session_hash or "", ()))
        for stream in streams:
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
    return f"{usage.prompt_tokens} tokens in, {made} out{speed} · first after {first_s:.2f} s"


def check_question(text: object) -> str:
    """A question, without white space at its ends.

    Raises:
        InputError: nothing is asked.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("nothing is asked. Write a question.")
    return text.strip()


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A converter for argparse: a whole number in a range."""

    def convert(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return value

    return convert


def _user_and_password(text: str) -> tuple[str, str]:
    """USER:PASS; the password may hold further colons."""
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("expected USER:PASS, both not empty")
    return user, password
