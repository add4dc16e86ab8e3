"""Images a second of ``mm.captioning.run`` beside a plain loop of ``pipe.caption(image)``, over the same files.

    python -m benchmarks.caption --images 64 --max-new-tokens 64

The loop and the run take turns in one process with one loaded model; texts must be the same (greedy). One JSON line.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from mm.captioning import Job, run
from mm.generation.sampling import SamplingOptions
from mm.pipeline import Pipeline


def draw_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Scenes of mixed sizes, 200 to 1600 pixels a side, as JPEG files."""
    random_numbers = random.Random(seed)
    paths = []
    for number in range(count):
        width, height = random_numbers.randint(200, 1600), random_numbers.randint(200, 1600)
        image = Image.effect_noise((width, height), 20).convert("RGB")
        draw = ImageDraw.Draw(image)
        for _ in range(random_numbers.randint(1, 6)):
            left, top = random_numbers.randint(0, width - 100), random_numbers.randint(0, height - 100)
            colour = tuple(random_numbers.randrange(256) for _ in range(3))
            draw.rectangle((left, top, left + 90, top + 90), fill=colour)
        paths.append(folder / f"{number:05d}.jpg")
        image.save(paths[-1], quality=90)
    return paths


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--max-tiles", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(argv)
    pipe = Pipeline.from_pretrained(given.model, device=given.device, dtype=given.dtype, max_running=given.batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        paths = draw_images(folder / "in", given.images)
        options = {"max_new_tokens": given.max_new_tokens, "max_tiles": given.max_tiles}
        pipe.caption(str(paths[0]), **options)  # the first call of a process is slower
        pipe.weights_changed()  # what was kept of it would be found again
        started = time.perf_counter()
        texts = [pipe.caption(str(path), **options).text for path in paths]
        loop_s = time.perf_counter() - started
        pipe.weights_changed()
        job = Job(
            str(folder / "in"),
            str(folder / "out.jsonl"),
            sampling=SamplingOptions(max_new_tokens=given.max_new_tokens),
            max_tiles=given.max_tiles,
            batch_size=given.batch_size,
            workers=given.workers,
        )
        summary = run(job, pipe=pipe)
        rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    found = {row["id"]: row["text"] for row in rows}
    differing = sum(found.get(path.name) != text.strip() for path, text in zip(paths, texts, strict=True))
    values = {
        "model": given.model,
        "device": str(pipe.model.device),
        "images": given.images,
        "batch_size": given.batch_size,
        "loop_images_per_s": round(given.images / loop_s, 3),
        "run_images_per_s": round(given.images / summary.seconds, 3),
        "ratio": round(loop_s / summary.seconds, 2),
        "model_busy": round(summary.busy, 3),
        "differing_texts": differing,
        "quarantined": summary.quarantined,
    }
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
