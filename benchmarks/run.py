"""Times of one model on this machine, as one table: python benchmarks/run.py [--model nano-vl2] [--repeat 5]

Every row is the median of the repeats and, in brackets, the fastest and the slowest. What is measured: load (files to a
ready pipeline), first piece (a new image and a question to the first token), next piece (another question about the
same image), decode (one token of one row, and of eight rows together), ocr (a page of four lines, its image known).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import ImageOps

from mm import Pipeline
from mm.chat import user_message
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.images import open_image

EXAMPLES = Path(__file__).parent.parent / "examples"
RECEIPT, PAGE = EXAMPLES / "receipt.png", EXAMPLES / "page.png"
QUESTION = "What is the total?"
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


def measure(model: str, device: str, dtype: str, repeat: int) -> dict[str, list[float]]:
    """{what: seconds of each repeat}."""
    pipe = Pipeline.from_pretrained(model, device=device, dtype=dtype)
    fresh = (ImageOps.expand(open_image(RECEIPT), 1, (255, 255, 255 - n)) for n in range(repeat + 1))
    questions = (f"What is the price of item {n}?" for n in range(repeat + 1))
    return {
        "load": seconds(lambda: Pipeline.from_pretrained(model, device=device, dtype=dtype), repeat),
        "first piece": seconds(lambda: pipe.chat(next(fresh), QUESTION, max_new_tokens=1), repeat),
        "next piece, same image": seconds(lambda: pipe.chat(RECEIPT, next(questions), max_new_tokens=1), repeat),
        "decode, 1 row, a token": decode_seconds(pipe, 1, repeat),
        "decode, 8 rows, a step": decode_seconds(pipe, 8, repeat),
        "ocr of a page": seconds(lambda: pipe.ocr(PAGE, max_new_tokens=256), repeat),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Times of one model on this machine.")
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    times = measure(options.model, options.device, options.dtype, options.repeat)
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
