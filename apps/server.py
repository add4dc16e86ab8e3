"""The server of the apps: its options, and starting it.

Nothing here asks another machine for anything, unless the operator names a model of the hub or passes ``--share``.
"""

import argparse
import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Gradio and the hub's library look at these.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from gradio import processing_utils

from mm.errors import MMError, OptionError

from .common import DELETE_AFTER_S
from .line import RUNNING, WAITING, Line
from .models import Models, Task

FIRST_PORT, LAST_PORT = 7860, 7959
SHARE_WARNING = (
    "warning: --share makes this page public. Whoever has the address can use it, and all that is sent passes through "
    "servers of Gradio."
)
CSS = """
footer { display: none !important; }
button[aria-label="Share"], button[title="Share"] { display: none !important; }  /* would upload to another site */
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container > main { width: 100%; }
.app-top > .column { gap: 4px; }
.app-head h1 { margin: 0; font-size: 1.35rem; }
.app-about p { margin: 0; color: var(--body-text-color-subdued); }
/* What is asked, what comes of it, and further settings: beside each other, and in this order on a phone. */
@media (min-width: 800px) {
  .app-work { display: grid !important; grid-template: auto 1fr / minmax(0, 2fr) minmax(0, 3fr); align-items: start; }
  .app-work > :nth-child(2) { grid-area: 1 / 2 / span 2; }
}
.app-gallery { min-height: 300px; }
.app-gallery .grid-wrap, .app-album .grid-wrap { max-height: none !important; padding-top: 34px; }
.app-gallery .grid-container { max-width: 66vh; margin: 0 auto; }
"""

# Controls that Gradio leaves without a name for screen readers get one, whenever they appear.
NAMES = """
<script>
const names = [
    [".multimodal-textbox textarea", "Message"],
    [".submit-button", "Send"],
    [".stop-button", "Stop"],
    [".arrow > button", "Details"],
    ["button:has(> .image-frame)", "Show larger"],
];
function nameControls() {
    for (const [selector, name] of names)
        for (const part of document.querySelectorAll(selector))
            if (!part.getAttribute("aria-label")) part.setAttribute("aria-label", name);
}
let planned = false;
new MutationObserver(() => {
    if (planned) return;
    planned = true;
    setTimeout(() => { planned = false; nameControls(); }, 100);
}).observe(document.documentElement, {childList: true, subtree: true});
</script>
"""


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
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=_whole(1, 65535), help=f"default: the next free one from {FIRST_PORT}")
    parser.add_argument("--auth", type=_user_and_password, metavar="USER:PASS", help="ask for a name and a password")
    parser.add_argument("--max-upload-mb", type=_whole(1, 4096), default=20, help="largest file (default: 20)")
    parser.add_argument(
        "--queue-size", type=_whole(1, 10_000), default=WAITING, help=f"default: {WAITING} waiting requests"
    )
    parser.add_argument("--root-path", metavar="PATH", help="path prefix behind a reverse proxy, such as /mm")
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
    try:
        make_private_folder()
        line = Line(RUNNING, options.queue_size)
        models = Models(given.model, device=given.device, dtype=given.dtype, line=line)
        for task in tasks:
            if models.lacking(task):
                print(f"note: {models.lacking(task)}", file=sys.stderr)
        print(f"loading {', '.join(models.defaults(tasks)) or 'no model'} ...", file=sys.stderr, flush=True)
        models.load_defaults(tasks)
        demo = build(models)
        url = serve(demo, options)
    except MMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that uploads are deleted
    print(f"{name}: {url}  (Ctrl-C ends it)", flush=True)
    if demo.share_url:
        print(f"public: {demo.share_url}", flush=True)
    demo.block_thread()
    return 0


def make_private_folder() -> Path:
    """A folder that only this user can read, for uploads and results; it goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="mm-app-")).resolve()
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
        OptionError: the port cannot be had, or the page cannot be shared.
    """
    close_downloads()
    warn_of_sharing(options)
    port = options.port if options.port is not None else free_port(options.host)
    demo.queue(default_concurrency_limit=None)  # the apps have a line of their own
    try:
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
            enable_monitoring=False,
            theme=theme(),
            css=CSS,
            head=NAMES,
        )
    except OSError as error:
        raise OptionError(
            f"port {port} of {options.host} cannot be had ({error}). Pass another --port, or leave it out."
        ) from error
    if options.share and not demo.share_url:
        demo.close()
        raise OptionError("the page cannot be shared: the servers of Gradio cannot be reached. Leave out --share")
    return url


def warn_of_sharing(options: ServeOptions) -> None:
    """What ``--share`` means, on standard error."""
    if options.share:
        print(SHARE_WARNING + (" Ask for a password with --auth." if options.auth is None else ""), file=sys.stderr)


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
