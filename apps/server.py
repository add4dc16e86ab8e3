"""The server of the apps: its options, and starting it.

Nothing here asks another machine for anything, unless the operator names a model of the hub or passes ``--share``.
"""

import argparse
import atexit
import errno
import io
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

# Gradio and the hub's library look at these.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from starlette.middleware import Middleware

from mm.cli.spelling import error_text, use_names
from mm.errors import MMError, OptionError, ResourceError
from mm.language.packing import KINDS

from .common import DELETE_AFTER_S
from .doors import StayHere, close_doors
from .line import RUNNING, WAITING, Line
from .look import CSS, NAMES, theme
from .models import Models, Task

FIRST_PORT, PORTS_TRIED = 7860, 100
SHARE_WARNING = (
    "warning: --share makes this page public. Whoever has the address can use it, and all that is sent passes through "
    "servers of Gradio."
)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How an app is served.

    Attributes:
        host: address to listen on.
        port: the first one to try, and the next free one is taken; None starts at 7860.
        auth: (user, password), or None.
        max_upload_mb: largest uploaded file.
        queue_size: requests that may wait; the next one is told to come back.
        root_path: path prefix behind a reverse proxy.
        share: also reach it from anywhere, through servers of Gradio.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: tuple[str, str] | None = None
    max_upload_mb: int = 20
    queue_size: int = WAITING
    root_path: str | None = None
    share: bool = False


def parse_arguments(argv: Sequence[str] | None, name: str, description: str) -> tuple[argparse.Namespace, ServeOptions]:
    """The command line of an app. A wrong option ends the process with status 2, as argparse does.

    Args:
        argv: words after the program's name; None takes those of the process.
        name: of the program, for messages.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument(
        "--model",
        "-m",
        action="append",
        default=[],
        metavar="NAME",
        help="bundled name, folder or hub id; several times to offer several (default: the bundled ones)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--quantization", choices=KINDS, help="weights of the language model: less memory")
    parser.add_argument("--compile", action="store_true", help="compile image encoders; pays on a GPU")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument(
        "--port", type=_whole(1, 65535), help=f"the next free one from here on is taken (default: {FIRST_PORT})"
    )
    parser.add_argument("--auth", type=_user_and_password, metavar="USER:PASS", help="ask for a name and a password")
    parser.add_argument("--max-upload-mb", type=_whole(1, 4096), default=20, help="largest file (default: 20)")
    parser.add_argument(
        "--queue-size", type=_whole(1, 10_000), default=WAITING, help=f"default: {WAITING} waiting requests"
    )
    parser.add_argument(
        "--root-path", type=_root_path, metavar="PATH", help="path prefix behind a reverse proxy, such as /mm"
    )
    parser.add_argument("--share", action="store_true", help="make it public through servers of Gradio")
    given = parser.parse_args(argv)
    return given, ServeOptions(
        host=given.host,
        port=given.port,
        auth=given.auth,
        max_upload_mb=given.max_upload_mb,
        queue_size=given.queue_size,
        root_path=given.root_path,
        share=given.share,
    )


def run_app(
    argv: Sequence[str] | None,
    build: Callable[[Models], gr.Blocks],
    tasks: Sequence[Task],
    *,
    name: str,
    description: str,
) -> int:
    """Parse, load the models of some tasks, build, serve until interrupted. Returns the exit status."""
    given, options = parse_arguments(argv, name, description)
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # so that uploads are deleted
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup does
            signal.signal(ending, lambda number, frame: sys.exit(128 + number))
    use_names({parameter: f"--{parameter.replace('_', '-')}" for parameter in vars(given)})
    try:
        make_private_folder()
        find_port(options)  # fails before the models are loaded, not after
        line = Line(RUNNING, options.queue_size)
        models = Models(
            given.model,
            device=given.device,
            dtype=given.dtype,
            quantization=given.quantization,
            compile=given.compile,
            line=line,
        )
        for task in tasks:
            if models.lacking(task):
                print(f"note: {models.lacking(task)}", file=sys.stderr)
        print(f"loading {', '.join(models.defaults(tasks)) or 'no model'} ...", file=sys.stderr, flush=True)
        models.load_defaults(tasks)
        demo = build(models)
        url = serve(demo, options)
    except MMError as error:
        print(f"error: {error_text(error)}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(f"{name}: {url}  (Ctrl-C ends it)", flush=True)
    if demo.share_url:
        print(f"public: {demo.share_url}", flush=True)
    try:
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        models.close()  # first, so that no answer keeps the server from ending
        demo.close(verbose=False)
    return 0


def make_private_folder() -> Path:
    """A folder that only this user can read, for uploads and results; it goes with the process.

    Raises:
        ResourceError: there is no place for it.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="mm-app-")).resolve()
    except OSError as error:
        raise ResourceError(
            f"there is no folder for uploads ({error.strerror or error}). Set TMPDIR to a folder that can be written"
        ) from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    threading.Thread(target=_keep_sweeping, args=(folder,), name="mm-sweep", daemon=True).start()
    return folder


def sweep(folder: Path, age_s: float) -> int:
    """Delete the files below a folder that nobody wrote for so long; returns how many. Gradio deletes what it knows of;
    this finds the rest, such as previews that were overtaken by the next one."""
    deleted, now = 0, time.time()
    for path in folder.rglob("*"):
        try:
            if path.is_file() and now - path.lstat().st_mtime > age_s:
                path.unlink()
                deleted += 1
        except OSError:  # gone meanwhile
            continue
    return deleted


def _keep_sweeping(folder: Path) -> None:
    while folder.is_dir():
        time.sleep(DELETE_AFTER_S / 4)
        sweep(folder, DELETE_AFTER_S)


def serve(demo: gr.Blocks, options: ServeOptions) -> str:
    """Start the server in threads of its own and return its address.

    Raises:
        OptionError: the port cannot be had.
        ResourceError: the page cannot be reached, or not be shared.
    """
    close_doors()
    warn_of_sharing(options)
    port = find_port(options)
    if options.port not in (None, port):
        print(f"note: port {options.port} is taken; {port} is the next free one", file=sys.stderr)
    demo.queue(default_concurrency_limit=None)  # the apps have a line of their own
    try:
        with redirect_stdout(io.StringIO()):  # Gradio's advice; ours is in the errors
            _, url, _ = demo.launch(
                server_name=options.host,
                server_port=port,
                auth=options.auth,
                root_path=options.root_path,
                max_file_size=f"{options.max_upload_mb}mb",
                share=options.share,
                quiet=True,
                show_error=True,
                prevent_thread_lock=True,
                inbrowser=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,  # may ask the hub, with the operator's own token, for whoever comes through a proxy
                enable_monitoring=False,
                theme=theme(),
                css=CSS,
                head=NAMES,
                app_kwargs={"middleware": [Middleware(StayHere)]},
            )
            if options.share and not demo.share_url:
                demo.close()
    except OSError as error:
        raise OptionError(f"port {port} of {options.host} cannot be had any more. Start again") from error
    except ValueError as error:  # Gradio asks its own page once
        raise ResourceError(
            f"the page on {options.host} cannot be reached from this machine itself. Where HTTP_PROXY or ALL_PROXY is "
            "set, add the host to NO_PROXY"
        ) from error
    if options.share and not demo.share_url:
        raise ResourceError(
            "the page cannot be shared: the servers of Gradio cannot be reached from here. Start without --share"
        )
    return url


def warn_of_sharing(options: ServeOptions) -> None:
    """What ``--share`` means, on standard error."""
    if options.share:
        print(SHARE_WARNING + (" Ask for a password with --auth." if options.auth is None else ""), file=sys.stderr)


def find_port(options: ServeOptions) -> int:
    """The port that is asked for, or the next one that nothing listens on.

    Raises:
        OptionError: no such address on this machine, a port that needs more rights, or a hundred taken ones.
    """
    host, first = options.host, options.port or FIRST_PORT
    try:
        family, _, _, _, _ = socket.getaddrinfo(host, first, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OptionError(f"there is no address {host!r} ({error}). Pass --host 127.0.0.1 or 0.0.0.0.") from error
    for port in range(first, min(first + PORTS_TRIED, 2**16)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except PermissionError as error:
                raise OptionError(
                    f"port {port} needs rights that this user does not have. Pass a --port from 1024 on"
                ) from error
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise OptionError(
                        f"{host} is no address of this machine ({error.strerror}). Pass --host 127.0.0.1 or 0.0.0.0"
                    ) from error
    raise OptionError(f"{PORTS_TRIED} ports from {first} of {host} are taken. Pass another --port")


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


def _root_path(text: str) -> str:
    """A path from the root of a host, or a whole address."""
    if not text.startswith(("/", "http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path such as /mm or an address such as https://host/mm")
    return text.rstrip("/")
