"""What speculation saves: Jacobi decoding of pictures and prompt lookup for texts, each beside plain decoding.

    python -m benchmarks.speculation                                  both, with the bundled models
    python -m benchmarks.speculation pictures --windows 8 16 32       several windows
    python -m benchmarks.speculation pictures --model FOLDER --device cuda
    python -m benchmarks.speculation texts --out result.json

Every job is run through ``Pipeline``'s public calls, plain and ahead in turn, ``--repeat`` times after one run that
warms up; the least time of each counts, and images are remembered from the first run on. On a CPU one thread is used,
and its processor time is told, which other work on the machine changes little. Passes are the steps through
the decoder; "right" is the share of the guesses that were accepted. Greedy answers and pictures are compared. Pictures
of both ways are written side by side to ``--sheet``.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mm import Pipeline
from mm.synthetic.fonts import FontSet
from mm.synthetic.render import render

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMPTS = (
    "a red circle on a white background",
    "two green squares left of a blue star",
    "four crosses",
    "a heart below a diamond",
    "three brown diamonds above a brown cross on a gray background",
    "five yellow hexagons on a brown background",
)
READ, TABLE, AGAIN = "Read all the text.", "Convert the chart to a Markdown table.", "Repeat the text."


@dataclass
class Way:
    """Of some jobs, decoded one way."""

    seconds: float = 0.0
    passes: int = 0
    tokens: int = 0  # without the first one of each answer, which the prompt gives
    drafted: int = 0
    accepted: int = 0


@dataclass
class Measured:
    """Some jobs, decoded both ways."""

    name: str
    jobs: int
    plain: Way
    ahead: Way
    equal: int | None  # jobs that gave the same both ways; None where they need not

    @property
    def row(self) -> str:
        """A row of the table."""
        plain, ahead = self.plain, self.ahead
        right = f"{ahead.accepted / ahead.drafted:.0%}" if ahead.drafted else "-"
        equal = "-" if self.equal is None else f"{self.equal} of {self.jobs}"
        return (
            f"| {self.name} | {plain.tokens} | {plain.passes} | {ahead.passes} | {ahead.tokens / ahead.passes:.2f} | "
            f"{right} | {plain.seconds:.2f} | {ahead.seconds:.2f} | {plain.seconds / ahead.seconds:.2f} | {equal} |"
        )


HEAD = (
    "| job | tokens | passes plain | ahead | tokens a pass | right | seconds plain | ahead | ratio | equal |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)

Job = Callable[[dict[str, Any]], object]
"""Runs with these options more; returns what is compared."""


def measure(
    pipe: Pipeline, name: str, jobs: list[Job], options: dict[str, Any], repeat: int, *, same: bool
) -> Measured:
    """Each job both ways, in turn.

    Args:
        pipe: whose engine runs them.
        name: of the row.
        jobs: what is run.
        options: of the way with speculation.
        repeat: runs that are timed.
        same: whether both ways must give the same.
    """
    ways, equal = (Way(), Way()), 0
    clock = time.process_time if pipe.model.device.type == "cpu" else time.perf_counter
    for job in jobs:
        best, results = [float("inf")] * 2, [None] * 2
        for turn in range(repeat + 1):
            for index, chosen in enumerate(({}, options)):
                before = asdict(pipe.engine.statistics)
                begin = clock()
                results[index] = job(chosen)
                if pipe.model.device.type == "cuda":
                    torch.cuda.synchronize(pipe.model.device)
                best[index] = min(best[index], clock() - begin) if turn else best[index]
                after = asdict(pipe.engine.statistics)
                if turn == repeat:  # a seed takes the same passes each time
                    way = ways[index]
                    way.seconds += best[index]
                    way.passes += after["decode_steps"] - before["decode_steps"]
                    way.tokens += after["decoded_tokens"] - before["decoded_tokens"]
                    way.drafted += after["drafted_tokens"] - before["drafted_tokens"]
                    way.accepted += after["accepted_tokens"] - before["accepted_tokens"]
        equal += results[0] == results[1]
    return Measured(name, len(jobs), *ways, equal if same else None)


# Pictures


def picture_jobs(pipe: Pipeline, prompts: Sequence[str], count: int, **options: Any) -> list[Job]:
    """``count`` pictures of each prompt, their codes."""

    def job(prompt: str, seed: int) -> Job:
        def run(more: dict[str, Any]) -> object:
            drawn = pipe.generate_images(prompt, seed=seed, num_images_per_prompt=count, **options, **more)
            return [picture.codes for picture in drawn.pictures]

        return run

    return [job(prompt, 10 * index) for index, prompt in enumerate(prompts)]


def measure_pictures(pipe: Pipeline, windows: list[int], repeat: int, prompts: Sequence[str]) -> Iterator[Measured]:
    """One picture at a time with each window, greedy ones, and several together."""
    for window in windows:
        options = {"speculation": "jacobi", "speculation_window": window}
        jobs = picture_jobs(pipe, prompts, 1)
        yield measure(pipe, f"1 picture, window {window}", jobs, options, repeat, same=False)
        jobs = picture_jobs(pipe, prompts, 1, temperature=0)
        yield measure(pipe, f"1 picture, greedy, window {window}", jobs, options, repeat, same=True)
        jobs = picture_jobs(pipe, prompts[:3], 4)
        yield measure(pipe, f"4 pictures together, window {window}", jobs, options, repeat, same=False)


def draw_sheet(pipe: Pipeline, window: int, path: Path, prompts: Sequence[str]) -> None:
    """A row a prompt: plain greedy, ahead greedy, and three sampled ones of each."""
    ahead = {"speculation": "jacobi", "speculation_window": window}
    rows = []
    for prompt in prompts:
        row = []
        for options in ({}, ahead):
            row += pipe.generate_images(prompt, temperature=0, **options).images
        for options in ({}, ahead):
            row += pipe.generate_images(prompt, seed=0, num_images_per_prompt=3, **options).images
        rows.append(row)
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(rows[0]) * (width + 4), len(rows) * (height + 4)), "white")
    for down, row in enumerate(rows):
        for across, image in enumerate(row):
            sheet.paste(image, (across * (width + 4), down * (height + 4)))
    sheet.save(path)


# Texts


def chat_jobs(pipe: Pipeline, images: list[Image.Image], *questions: str, **options: Any) -> list[Job]:
    """The last of some questions about each image, the answers before it taken as they come; its tokens."""

    def job(image: Image.Image) -> Job:
        messages: list[dict[str, Any]] = []
        for index, question in enumerate(questions):
            shown = {"content": f"<image>\n{question}", "images": [image]} if index == 0 else {"content": question}
            messages.append({"role": "user", **shown})
            if index < len(questions) - 1:
                messages.append({"role": "assistant", "content": pipe.chat(messages=messages, **options).raw_text})
        return lambda more: pipe.chat(messages=messages, **options, **more).token_ids

    return [job(image) for image in images]


def measure_texts(pipe: Pipeline, windows: list[int], repeat: int, count: int) -> Iterator[Measured]:
    """Documents and charts, asked once and asked to repeat what they hold."""
    rng, fonts = np.random.default_rng(0), FontSet.find("held_out")
    documents = [Image.open(EXAMPLES / f"{name}.png").convert("RGB") for name in ("page", "receipt", "form")]
    documents += [render(kind, rng, fonts).image for kind in ("paragraph", "receipt", "table") for _ in range(count)]
    charts = [Image.open(EXAMPLES / "chart.png").convert("RGB")]
    charts += [render("bar", rng, fonts).image for _ in range(2 * count)]
    jobs = {
        "documents: read": chat_jobs(pipe, documents, READ),
        "charts: to Markdown": chat_jobs(pipe, charts, TABLE),
        "documents: read, then repeat": chat_jobs(pipe, documents, READ, AGAIN),
        "charts: to Markdown, then repeat": chat_jobs(pipe, charts, TABLE, AGAIN),
        "charts: to Markdown, then to Markdown": chat_jobs(pipe, charts, TABLE, TABLE),
    }
    for window in windows:
        options = {"speculation": "prompt-lookup", "speculation_window": window}
        for name, each in jobs.items():
            yield measure(pipe, f"{name}, window {window}", each, options, repeat, same=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", nargs="?", choices=["pictures", "texts"], help="default: both")
    parser.add_argument("--model", help="default: nano-janus, nano-vl2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--windows", type=int, nargs="+", default=[16])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--count", type=int, default=2, help="synthetic documents of each kind")
    parser.add_argument("--sheet", type=Path, help="PNG file with pictures of both ways")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.model is not None and options.group is None:
        parser.error("--model needs a group: pictures or texts")
    print(HEAD, flush=True)
    found = []
    for group, default in (("pictures", "nano-janus"), ("texts", "nano-vl2")):
        if options.group not in (None, group):
            continue
        pipe = Pipeline.from_pretrained(options.model or default, device=options.device, dtype=options.dtype)
        if pipe.model.device.type == "cpu":
            torch.set_num_threads(1)
        if group == "pictures":
            measured = measure_pictures(pipe, options.windows, options.repeat, PROMPTS)
        else:
            measured = measure_texts(pipe, options.windows, options.repeat, options.count)
        for item in measured:
            print(item.row, flush=True)
            found.append(item)
        if group == "pictures" and options.sheet is not None:
            draw_sheet(pipe, options.windows[0], options.sheet, PROMPTS)
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(item) for item in found], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
