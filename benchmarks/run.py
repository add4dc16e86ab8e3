"""Times of one model on this machine, as one table: python benchmarks/run.py [--model nano-vl2] [--quantization int8]

Every row is the median of the repeats and, in brackets, the fastest and the slowest. What is measured: load (files to a
ready pipeline), first piece (a new image and a question to the first token), next piece (another question about the
same image), decode (one token of one row, and of eight rows together), ocr (a page of four lines, its image known), and
whole answers about new images: a chart question, a receipt of 110 characters, a page of 400.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mm import Pipeline
from mm.chat import user_message
from mm.config import Quantization
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.images import open_image
from mm.language.packing import KINDS

EXAMPLES = Path(__file__).parent.parent / "examples"
RECEIPT, PAGE, CHART = EXAMPLES / "receipt.png", EXAMPLES / "page.png", EXAMPLES / "chart.png"
QUESTION, CHART_QUESTION = "What is the total?", "Which bar is the highest?"
RECEIPT_TEXT = """Miller & Sons
12 Bridge Street
2024-03-17 14:05
Coffee 3.40
Orange juice 4.10
Bagel 2.75
Total 10.25
Thank you"""  # 110 characters
PAGE_TEXT = """The old harbour was quiet in the morning. Two
boats had come in by six, and their crews
carried boxes of fish up the stairs to
the hall. A man in a green coat wrote down
the weight of each box and the name of each
boat. By eight the hall was full of people who
had come from the villages along the coast. At
midday the boxes were gone, the floor was clean,
and only the clock over the door was heard."""  # 400 characters
DECODED = 64  # tokens a decode is measured over


def seconds(work: Callable[[], object], repeat: int) -> list[float]:
    """Wall time of each of ``repeat`` runs, after one that is not counted."""
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def written(text: str, repeat: int) -> Iterator[Image.Image]:
    """So many pictures of a text, no two alike, so that nothing of one is used for the next."""
    font = ImageFont.load_default(20)
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox(
        (24, 24), text, font, spacing=8
    )
    for number in range(repeat):
        image = Image.new("RGB", (int(right) + 24, int(bottom) + 24), (255, 255, 255 - number))
        ImageDraw.Draw(image).multiline_text((24, 24), text, (0, 0, 0), font, spacing=8)
        yield image


def decode_seconds(pipe: Pipeline, rows: int, repeat: int) -> list[float]:
    """Seconds of one decode step: a run of many tokens less the fastest run of one, over the tokens between."""
    tokenizer = pipe.processor.tokenizer
    inputs = pipe.processor.process((user_message(QUESTION, [RECEIPT]),))

    def run(tokens: int) -> None:
        handles = []
        for _ in range(rows):
            row = Row(
                prompt_ids=inputs.input_ids,
                options=SamplingOptions(detect_loops=False),
                max_new_tokens=tokens,
                end_ids=frozenset(),
                hidden_ids=tokenizer.special_ids,
                decode=tokenizer.decode,
            )
            handles.append(pipe.engine.submit(inputs, row))
        for handle in handles:
            handle.result()

    before = min(seconds(lambda: run(1), repeat))
    return [max(total - before, 0.0) / DECODED for total in seconds(lambda: run(1 + DECODED), repeat)]


def measure(
    model: str,
    device: str,
    dtype: str,
    repeat: int,
    tokens: int,
    quantization: Quantization | None = None,
    compile: bool = False,
) -> dict[str, list[float]]:
    """{what: seconds of each repeat}; an answer has at most so many tokens."""

    def load() -> Pipeline:
        return Pipeline.from_pretrained(model, device=device, dtype=dtype, quantization=quantization, compile=compile)

    pipe = load()
    fresh = (ImageOps.expand(open_image(RECEIPT), 1, (255, 255, 255 - n)) for n in range(repeat + 1))
    charts = (ImageOps.expand(open_image(CHART), 1, (255, 255, 255 - n)) for n in range(repeat + 1))
    receipts, pages = written(RECEIPT_TEXT, repeat + 1), written(PAGE_TEXT, repeat + 1)
    questions = (f"What is the price of item {n}?" for n in range(repeat + 1))
    return {
        "load": seconds(load, repeat),
        "first piece": seconds(lambda: pipe.chat(next(fresh), QUESTION, max_new_tokens=1), repeat),
        "next piece, same image": seconds(lambda: pipe.chat(RECEIPT, next(questions), max_new_tokens=1), repeat),
        "decode, 1 row, a token": decode_seconds(pipe, 1, repeat),
        "decode, 8 rows, a step": decode_seconds(pipe, 8, repeat),
        "ocr of a page": seconds(lambda: pipe.ocr(PAGE, max_new_tokens=min(tokens, 256)), repeat),
        "chart question, new image": seconds(
            lambda: pipe.chat(next(charts), CHART_QUESTION, max_new_tokens=min(tokens, 64)), repeat
        ),
        "receipt of 110 characters": seconds(lambda: pipe.ocr(next(receipts), max_new_tokens=min(tokens, 160)), repeat),
        "page of 400 characters": seconds(lambda: pipe.ocr(next(pages), max_new_tokens=tokens), repeat),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Times of one model on this machine.")
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", choices=KINDS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of an answer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    times = measure(
        options.model,
        options.device,
        options.dtype,
        options.repeat,
        options.tokens,
        options.quantization,
        options.compile,
    )
    if options.json:
        print(json.dumps({"model": options.model, "threads": torch.get_num_threads(), "seconds": times}, indent=2))
        return
    print(f"{options.model}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.repeat} repeats\n")
    print("| what | ms (fastest-slowest) |\n|---|---|")
    for name, values in times.items():
        low, middle, high = (1000 * v for v in (min(values), statistics.median(values), max(values)))
        print(f"| {name} | {middle:.1f} ({low:.1f}-{high:.1f}) |")


if __name__ == "__main__":
    main()
