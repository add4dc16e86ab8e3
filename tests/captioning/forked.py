"""Runs in forked processes: the model is loaded once, before there is any thread. Orders come on standard input, one a
line, answers go to standard output likewise, both JSON.

An order: source, output; kill_at: SIGKILL at the n-th time that the disk is reached, before or (late) after;
kill_after: SIGKILL so many seconds after the start; limit: most bytes of a file; unprivileged: as a user who owns
nothing.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from mm.captioning import Job, ledger, run
from mm.captioning.local import LocalEngine  # what is imported later would be read as another user
from mm.errors import MMError
from mm.generation.sampling import SamplingOptions
from mm.pipeline import Pipeline

NOBODY = 65534


def deadly(call: Callable[..., Any], left: list[int], late: bool) -> Callable[..., Any]:
    """Ends the process when it is called for the n-th time."""

    def wrapped(*values: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*values)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def obey(order: dict[str, Any], pipe: Pipeline) -> dict[str, Any]:
    """One run, in a process of its own."""
    if "kill_at" in order:
        left = [order["kill_at"]]
        os.fsync, os.replace = (deadly(call, left, order["late"]) for call in (os.fsync, os.replace))
    if "limit" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
    if order.get("unprivileged") and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    short = SamplingOptions(max_new_tokens=2)
    job = Job(order["source"], order["output"], sampling=short, max_tiles=1, batch_size=4, workers=0)
    try:
        summary = run(job, pipe=pipe)
    except MMError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"done": summary.done, "quarantined": summary.quarantined, "status": summary.exit_status}


def main() -> None:
    """Until the input ends."""
    torch.set_num_threads(1)
    ledger.COMMIT_EVERY_S = 0.0  # every answer is a commit, so that there is something in between to be cut off
    Image.init()
    pipe = Pipeline.from_pretrained("nano-vl2")
    assert LocalEngine
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, json.dumps(obey(order, pipe)).encode())
            os._exit(0)
        os.close(writer)
        if "kill_after" in order:
            time.sleep(order["kill_after"])
            os.kill(child, signal.SIGKILL)
        with open(reader, "rb") as answer:
            text = answer.read().decode()
        os.waitpid(child, 0)
        sys.stdout.write((text or json.dumps({"killed": True})) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
