"""The front page in a process of its own, with one more endpoint: how many answers the engine has ended."""

import os
import shutil
import sys

import gradio as gr

from apps import common, front
from mm.pipeline import Pipeline

folder = common.make_private_folder()
pipe = Pipeline.from_pretrained("nano-vl2")
demo = front.build_demo(pipe)


def ended() -> int:
    """Requests that have ended, however."""
    return pipe.engine.statistics.requests


with demo:
    gr.api(ended, api_name="ended")
print(common.serve(demo, common.ServeOptions(max_upload_mb=2)), flush=True)
sys.stdin.read()  # until the tests are over
shutil.rmtree(folder)
os._exit(0)  # the servers' threads take seconds to end
