"""A loaded model and small pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mm.captioning import Job, Summary, run
from mm.generation.sampling import SamplingOptions
from mm.pipeline import Pipeline

SHORT = SamplingOptions(max_new_tokens=3)


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("nano-vl2", max_running=4)


def paint(folder: Path, count: int, *, ending: str = ".png", kinds: int = 1000) -> list[Path]:
    """``count`` pictures of different colours, of which ``kinds`` differ: the model has seen the others before."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}{ending}" for number in range(count)]
    for number, path in enumerate(paths):
        kind = number % kinds
        Image.new("RGB", (24 + kind % 3, 16), (kind * 37 % 256, kind * 91 % 256, 128)).save(path)
    return paths


@pytest.fixture
def do(pipe: Pipeline) -> Callable[..., Summary]:
    """Run a job on the loaded model, one tile and three tokens an image."""

    def call(source: object, output: object, **values: object) -> Summary:
        job = Job(str(source), str(output), sampling=SHORT, max_tiles=1, batch_size=4, workers=0)
        own = {name: values.pop(name) for name in ("on_progress", "stop", "dry_run") if name in values}
        return run(replace(job, **values), pipe=pipe, **own)

    return call
