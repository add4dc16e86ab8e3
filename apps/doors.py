"""What Gradio would do for a visitor and a server of these apps does not: fetch an address, hand out a file that was
not uploaded, build a component that a conversation names, show what lies on another server."""

from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.components import chatbot
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page asks this server alone, whatever a model or a file makes it show: an image at an address, for one.
POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; base-uri 'self'; object-src 'none'"


class StayHere:
    """Middleware that tells browsers so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with the policy and without a name of its page for other servers."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


def close_doors() -> None:
    """Replace the parts of Gradio that do so, in this process.

    Gradio lets every file below the working and the temporary folder out, if only an answer names it; and what a saved
    conversation says, which lies in the visitor's browser, comes back as an answer.
    """
    _replace(processing_utils, "async_ssrf_protected_download", _refuse_address)
    _replace(processing_utils, "_check_allowed", _check_upload)
    _replace(chatbot, "import_component_and_data", _build_nothing)


def is_upload(path: object) -> bool:
    """Whether a path leads into the folder of uploads and results, without a link on its way."""
    if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
        return False
    file = Path(path)
    root = Path(get_upload_folder()).resolve()
    inside = file.is_absolute() and ".." not in file.parts and file.resolve().is_relative_to(root)
    return inside and not file.is_symlink()


def _replace(module: ModuleType, name: str, function: Any) -> None:
    if not hasattr(module, name):  # another version of Gradio, in which the door is elsewhere
        raise RuntimeError(f"{module.__name__} of this Gradio has no {name}; the apps are not safe with it")
    setattr(module, name, function)


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise gr.Error("Addresses are never downloaded here. Save the picture and upload the file.", duration=None)


def _check_upload(path: str | Path, check_in_upload_folder: bool) -> None:
    if not is_upload(path):
        raise gr.Error(
            "That file was not uploaded here. Upload the picture itself.", duration=None, print_exception=False
        )


def _build_nothing(component_name: str) -> None:
    return None
