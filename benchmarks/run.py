"""Times of one model on this machine, as one table: python benchmarks/run.py [--model nano-vl2] [--repeat 5]

Every row is the median of the repeats and, in brackets, the fastest and the slowest. What is measured: load (files to a
ready pipeline), first piece (image and question to the first token), decode (one token
of one row, and of eight rows together), ocr (a page of four lines, whole).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mm import Pipeline

EXAMPLES = Path(__file__).parent.parent / "examples"
RECEIPT, PAGE = EXAMPLES / "receipt.png", EXAMPLES / "page.png"
QUESTION = "What is the total?"
DECODED = 32  # tokens a decode is measured over


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

    def run(tokens: int) -> Callable[[], object]:
        # Sampling at a high temperature keeps the answer going; the seed keeps it the same.
        requests = [(RECEIPT, QUESTION)] * rows
        return lambda: pipe.chat_batch(
            requests, batch_size=rows, max_new_tokens=tokens, temperature=5.0, seed=1, detect_loops=False
        )

    before = min(seconds(run(1), repeat))
    return [max(total - before, 0.0) / DECODED for total in seconds(run(1 + DECODED), repeat)]


def measure(model: str, device: str, dtype: str, repeat: int) -> dict[str, list[float]]:
    """{what: seconds of each repeat}."""
    pipe = Pipeline.from_pretrained(model, device=device, dtype=dtype)
    return {
        "load": seconds(lambda: Pipeline.from_pretrained(model, device=device, dtype=dtype), repeat),
        "first piece": seconds(lambda: pipe.chat(RECEIPT, QUESTION, max_new_tokens=1), repeat),
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
