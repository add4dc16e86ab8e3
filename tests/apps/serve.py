"""The front page in a process of its own, with more endpoints: how many answers the engines have ended, how many places
are held, and which connections to other machines were tried (they are refused).

Arguments: the models that it offers.
"""

import os
import shutil
import socket
import sys

import gradio as gr

from apps import front, server
from apps.line import Line
from apps.models import Models

tried: list[str] = []
connect = socket.socket.connect


def guarded(self: socket.socket, address: object) -> None:
    """Connect within this machine only."""
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        tried.append(str(address))
        raise OSError(f"tests refuse a connection to {address}")
    connect(self, address)


socket.socket.connect = guarded
folder = server.make_private_folder()
models = Models(sys.argv[1:], line=Line(running=2, waiting=20))
models.load_defaults(["chat", "read", "draw"])
models.load("toy-janus")
models.load("endless")
demo = front.build_page(models)


def ended() -> int:
    """Requests that have ended, however."""
    loaded = [label for label in models.labels("chat") if models.is_loaded(label)]
    return sum(models.get(label, "chat").engine.statistics.requests for label in loaded)


def connections() -> str:
    """What was tried, joined."""
    return " ".join(tried)


def held() -> int:
    """Places in the line that somebody has."""
    return models.line.num_running + models.line.num_waiting


with demo:
    gr.api(held, api_name="held")
    gr.api(ended, api_name="ended")
    gr.api(connections, api_name="tried")
print(server.serve(demo, server.ServeOptions(max_upload_mb=2)), flush=True)
sys.stdin.read()  # until the tests are over
shutil.rmtree(folder)
os._exit(0)  # the servers' threads take seconds to end
