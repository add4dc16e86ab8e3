"""Images a second of ``mm.captioning.run`` beside a plain loop of ``pipe.caption(image)``, over the same files.

    python -m benchmarks.caption --images 64 --max-new-tokens 64 --sides 200 1600

``--random-weights`` takes a published model's sizes only and draws its weights on the device; prompts are tokenised
with the bundled model's tokenizer, and an answer goes on to its last token:

    python -m benchmarks.caption --model deepseek-ai/deepseek-vl2-tiny --random-weights --device cuda --images 512

The loop and the run take turns in one process with one loaded model; texts must be the same (greedy, float32). One JSON
line. ``floor_s`` is the time that the run's work takes at the rates which this machine reaches in plain matrix products
and copies: operations of the encoder and of the prompts (``2 * activated parameters`` a token, without attention),
and, an answer's step reading the decoder once for a whole batch, the bytes of these steps.
"""

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_model import random_model
from mm.captioning import Job, run
from mm.devices import resolve_device, resolve_dtype
from mm.families.table import load_processor
from mm.generation.sampling import SamplingOptions
from mm.hub import bundled_models, find_config
from mm.pipeline import Pipeline
from mm.plan import Planner, Workload
from mm.products import product
from mm.transforms.optimize import prepare
from mm.transforms.split import weight_bytes


def draw_images(folder: Path, count: int, sides: tuple[int, int], seed: int = 0) -> list[Path]:
    """Scenes of mixed sizes as JPEG files; sides are spread evenly over the logarithm, from the least to the most."""
    random_numbers = random.Random(seed)
    paths = []
    for number in range(count):
        width, height = (round(math.exp(random_numbers.uniform(*map(math.log, sides)))) for _ in range(2))
        image = Image.effect_noise((width, height), 20).convert("RGB")
        draw = ImageDraw.Draw(image)
        for _ in range(random_numbers.randint(1, 6)):
            left, top = random_numbers.randint(0, width - 1), random_numbers.randint(0, height - 1)
            colour = tuple(random_numbers.randrange(256) for _ in range(3))
            draw.rectangle((left, top, left + width // 4, top + height // 4), fill=colour)
        paths.append(folder / f"{number:05d}.jpg")
        image.save(paths[-1], quality=90)
    return paths


class Letters:
    """A tokenizer whose every token is one letter, and none the end."""

    eos_id = -1
    special_ids: frozenset[int] = frozenset()

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, ids: Sequence[int]) -> str:
        """Different texts for different tokens, nearly always."""
        return "".join(chr(0x4E00 + number % 20000) for number in ids)


def random_pipeline(name: str, folder: Path, device: str, dtype: str) -> Pipeline:
    """A pipeline of a published model's sizes.

    Args:
        name: of the model.
        folder: where its settings and a tokenizer are put together.
        device: see ``Pipeline.from_pretrained``.
        dtype: likewise.
    """
    for source in (bundled_models()["nano-vl2"], find_config(name).folder):
        for path in Path(source).glob("*.json"):
            shutil.copy(path, folder)
    place = resolve_device(device)
    model = random_model(folder, place, resolve_dtype(dtype, place))
    prepare(model.decoder)
    processor = load_processor(folder)
    processor.tokenizer = Letters(processor.tokenizer)
    return Pipeline(model, processor, name=name, folder=folder)


def rate(work: Callable[[], object], device: torch.device) -> float:
    """Calls a second, the best of three rounds."""
    best = 0.0
    for _ in range(4):  # the first one warms up
        started = time.perf_counter()
        for _ in range(5):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 5 / (time.perf_counter() - started))
    return best


def _flops_of_a_product(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]


def floor(pipe: Pipeline, rows: Sequence[dict[str, Any]], batch: int, max_tiles: int | None) -> dict[str, float]:
    """Seconds that the work of these rows takes at least."""
    device, dtype = pipe.model.device, pipe.model.dtype
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    with torch.inference_mode():
        flops_per_s = 2 * size**3 * rate(lambda: product(a, b), device)
    block = torch.empty(2**26 if device.type == "cpu" else 2**30, dtype=torch.uint8, device=device)
    bytes_per_s = 2 * block.nbytes * rate(block.clone, device)
    assert pipe.folder is not None
    planner = Planner(pipe.folder)
    activated = planner.parameters().activated
    views = 0
    for row in rows:
        across, down = planner.grid(Workload(image_size=(row["width"], row["height"]), max_tiles=max_tiles))
        views += 1 + across * down
    pixels = torch.zeros(1, 3, *[planner.config.vision.image_size] * 2)
    counted = {torch.ops.mkldnn._linear_pointwise: _flops_of_a_product} if device.type == "cpu" else {}
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=counted) as counter:
        pipe.model.encode_views(pixels)
    prompts = sum(row["prompt_tokens"] for row in rows)
    new = sum(row["completion_tokens"] for row in rows)
    decoder = weight_bytes(pipe.model.decoder)
    seconds = (views * counter.get_total_flops() + 2 * activated * (prompts + new)) / flops_per_s
    return {
        "views_per_image": views / len(rows),
        "prompt_tokens_per_image": prompts / len(rows),
        "new_tokens_per_image": new / len(rows),
        "tflops": flops_per_s / 1e12,
        "floor_s": seconds + new / batch * decoder / bytes_per_s,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--sides", type=int, nargs=2, default=(200, 1600), help="least and most pixels a side")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--max-tiles", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "model").mkdir()
        if given.random_weights:
            pipe = random_pipeline(given.model, folder / "model", given.device, given.dtype)
        else:
            pipe = Pipeline.from_pretrained(given.model, device=given.device, dtype=given.dtype)
        paths = draw_images(folder / "in", given.images, tuple(given.sides))
        loops = not given.random_weights
        options = {"max_new_tokens": given.max_new_tokens, "max_tiles": given.max_tiles, "detect_loops": loops}
        pipe.caption(str(paths[0]), **options)  # the first call of a process is slower
        pipe.weights_changed()  # what was kept of it would be found again
        started, computing = time.perf_counter(), time.process_time()
        texts = [pipe.caption(str(path), **options).text for path in paths]
        loop_s, loop_cpu = time.perf_counter() - started, time.process_time() - computing
        job = Job(
            str(folder / "in"),
            str(folder / "out.jsonl"),
            sampling=SamplingOptions(max_new_tokens=given.max_new_tokens, detect_loops=loops),
            max_tiles=given.max_tiles,
            batch_size=given.batch_size,
            workers=given.workers,
        )
        computing = time.process_time()
        summary = run(job, pipe=pipe)
        run_cpu = time.process_time() - computing
        rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        least = floor(pipe, rows, given.batch_size or 16, given.max_tiles)
    found = {row["id"]: row["text"] for row in rows}
    differing = sum(found.get(path.name) != text.strip() for path, text in zip(paths, texts, strict=True))
    values = {
        "model": given.model,
        "device": str(pipe.model.device),
        "images": given.images,
        "sides": list(given.sides),
        "batch_size": given.batch_size,
        "loop_images_per_s": given.images / loop_s,
        "run_images_per_s": given.images / summary.seconds,
        "ratio": loop_s / summary.seconds,
        "loop_cpu_s": loop_cpu,
        "run_cpu_s": run_cpu,
        "model_computes": summary.busy,
        "differing_texts": differing,
        "quarantined": summary.quarantined,
        **least,
        "share_of_floor": least["floor_s"] / summary.seconds,
    }
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
