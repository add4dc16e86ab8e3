"""The front page in a process of its own, with one more endpoint: how many answers the engines have ended.

Arguments: the models that it offers.
"""

import os
import shutil
import sys

import gradio as gr

from apps import front, server
from apps.line import Line
from apps.models import Models

folder = server.make_private_folder()
models = Models(sys.argv[1:], line=Line(running=2, waiting=20))
models.load_defaults(["chat", "read", "draw"])
demo = front.build_page(models)


def ended() -> int:
    """Requests that have ended, however."""
    loaded = [label for label in models.labels("chat") if models.is_loaded(label)]
    return sum(models.get(label, "chat").engine.statistics.requests for label in loaded)


with demo:
    gr.api(ended, api_name="ended")
print(server.serve(demo, server.ServeOptions(max_upload_mb=2)), flush=True)
sys.stdin.read()  # until the tests are over
shutil.rmtree(folder)
os._exit(0)  # the servers' threads take seconds to end
