"""Requests at once against one after another: python benchmarks/throughput.py [--model nano-vl2] [--requests 16]

Every request has a prompt of its own and an answer of exactly ``--tokens`` tokens, so that nothing is reused. With the
weights of a model each prompt is a picture and a question. ``--random-weights`` takes only the published sizes of
``--model`` (any of ``mm models``), draws weights on the device and asks with random text, answers sampled so that the
router's choices stay spread: nothing is downloaded, and the decoder takes the time of the real one. On one GPU:

    python benchmarks/throughput.py --model deepseek-ai/deepseek-vl2-tiny --random-weights --device cuda --out t.json

The floor beside each time is what the device cannot go below: in prefill the products with all weights that the prompts
pass, at the rate of a large matrix product; in decoding the bytes that each step must read (every weight that it uses
once, of the routed experts as many as uniform choices of B rows hit, E (1 - (1 - K / E)^B), and the cache at the mean
length) at the bandwidth of a large copy. Rate and bandwidth are the best of a few, measured in the same run. The time
of a decode step is what the whole takes more than the same prompts with answers of one token, over the steps.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.random_model import random_model
from mm import Pipeline
from mm.chat import user_message
from mm.config import HybridVisionConfig, VisionConfig
from mm.contracts import Inputs
from mm.devices import resolve_device, resolve_dtype
from mm.generation.engine import Engine
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.hub import find_config
from mm.images import open_image
from mm.language.moe import Experts
from mm.plan import Planner
from mm.processing.base import Processor
from mm.transforms.optimize import prepare

RECEIPT = Path(__file__).parent.parent / "examples" / "receipt.png"


def pictures(processor: Processor, count: int, first: int, max_tiles: int) -> list[Inputs]:
    """The receipt with other noise in each, seeds from ``first`` on."""
    image = np.asarray(open_image(RECEIPT)).astype(np.int16)
    found = []
    for seed in range(first, first + count):
        noise = np.random.default_rng(seed).integers(-3, 4, image.shape)
        noisy = (image + noise).clip(0, 255).astype(np.uint8)
        found.append(processor.process((user_message("What is the total?", [noisy]),), max_tiles=max_tiles))
    return found


def text_prompts(vocab_size: int, count: int, first: int, tokens: int) -> list[Inputs]:
    """Random tokens, for a model without a processor."""
    generator = torch.Generator().manual_seed(first)
    return [
        Inputs(
            input_ids=torch.randint(vocab_size, (tokens,), generator=generator),
            image_mask=torch.zeros(tokens, dtype=torch.bool),
            pixels=torch.zeros(0, 3, 1, 1),
            tile_grids=torch.zeros(0, 2, dtype=torch.int64),
            spans=(),
            prompt="",
        )
        for _ in range(count)
    ]


def answer(engine: Engine, prompts: list[Inputs], tokens: int, together: int, *, sample: bool) -> float:
    """Seconds for all prompts, at most ``together`` at once."""
    start = time.perf_counter()
    for first in range(0, len(prompts), together):
        handles = []
        for number, inputs in enumerate(prompts[first : first + together], start=first):
            row = Row(
                prompt_ids=inputs.input_ids,
                options=SamplingOptions(detect_loops=False, do_sample=sample, seed=number),
                max_new_tokens=tokens,
                end_ids=frozenset(),
                hidden_ids=frozenset(),
                decode=lambda ids: " " * len(ids),
            )
            handles.append(engine.submit(inputs, row))
        for handle in handles:
            handle.result()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Rates:
    """What the device does at best, measured here."""

    bytes_per_second: float  # read and written by a copy
    flops_per_second: float  # of a square matrix product in the weights' type


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The fastest of a few copies and products."""

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        return min(times)

    large = device.type != "cpu"
    source = torch.ones(2**30 if large else 2**26, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    copied = seconds(lambda: target.copy_(source))
    size = 8192 if large else 1024
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    return Rates(2 * source.nbytes / copied, 2 * size**3 / seconds(lambda: a @ b))


@dataclass(frozen=True)
class Floor:
    """Seconds that a run cannot go below."""

    prefill: float
    decode_step: float

    def total(self, steps: int) -> float:
        """Of a run with this many decode steps."""
        return self.prefill + steps * self.decode_step


def encoder_products(planner: Planner) -> float:
    """Products with the encoder's weights that one view passes: each weight once for every patch."""
    config, vision = planner.config.vision, planner.model.vision
    if isinstance(config, HybridVisionConfig):
        towers = ((vision.high, config.high.grid), (vision.low, config.low.grid))
    elif isinstance(config, VisionConfig):
        towers = ((vision, config.grid),)
    else:  # a model without eyes
        towers = ()
    return float(sum(p.numel() * grid**2 for tower, grid in towers for p in tower.parameters()))


def floor_of(
    planner: Planner, dtype: torch.dtype, rates: Rates, prompts: list[Inputs], rows: int, tokens: int
) -> Floor:
    """Prefill of all prompts, and one decode step of ``rows`` rows at the mean length of such an answer."""
    count, decoder, moe = planner.parameters(), planner.model.decoder, planner.config.decoder.moe
    length = statistics.mean(inputs.num_tokens for inputs in prompts)
    views = sum(inputs.pixels.shape[0] for inputs in prompts)
    head = decoder.lm_head.weight.numel()  # for the last token of a prompt only
    products = ((count.activated - head) * length + head) * len(prompts)
    products += encoder_products(planner) * views
    routed = sum(p.numel() for part in decoder.modules() if isinstance(part, Experts) for p in part.parameters())
    weights = count.decoder - decoder.model.embed_tokens.weight.numel() - routed
    if moe is not None:
        hit = 1 - (1 - moe.num_experts_per_token / moe.num_experts) ** rows
        weights += routed * hit
    cache = rows * (length + tokens / 2) * planner.cache_bytes_per_token(dtype)
    read = weights * dtype.itemsize + cache
    return Floor(2 * products / rates.flops_per_second, read / rates.bytes_per_second)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Requests at once against one after another.")
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--random-weights", action="store_true", help="the model's sizes only, and text prompts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1000, help="prompt tokens with --random-weights")
    parser.add_argument("--max-tiles", type=int, default=1, help="tiles of each picture")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers there as JSON, too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    begun = time.perf_counter()
    options = parse_arguments(arguments)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    folder = find_config(options.model).folder
    make: Callable[[int], list[Inputs]]
    if options.random_weights:
        model = random_model(folder, device, dtype)
        prepare(model.decoder)
        device = model.device  # with its number
        engine = Engine(
            model.decoder, lambda inputs: model.embed_inputs([inputs])[0], device=device, num_slots=options.requests
        )
        make = lambda first: text_prompts(model.decoder.vocab_size, options.requests, first, options.prompt)  # noqa: E731
    else:
        pipe = Pipeline.from_pretrained(options.model, device=device, dtype=dtype)
        engine = pipe.engine
        make = lambda first: pictures(pipe.processor, options.requests, first, options.max_tiles)  # noqa: E731
    ready = time.perf_counter() - begun

    planner, rates = Planner(folder), measure_rates(device, dtype)
    runs, lengths = {}, []
    for number, (name, together) in enumerate((("one after another", 1), ("at once", options.requests))):
        seeds = itertools.count(number * 10**6, options.requests)

        def timed(tokens: int, together: int = together, seeds: Iterator[int] = seeds) -> tuple[float, list[Inputs]]:
            prompts = make(next(seeds))
            return answer(engine, prompts, tokens, together, sample=options.random_weights), prompts

        timed(4)  # not counted
        prefill = statistics.median(timed(1)[0] for _ in range(options.repeat))
        times, before = [], engine.statistics.decode_steps
        for _ in range(options.repeat):
            taken, prompts = timed(options.tokens)
            times.append(taken)
            lengths += [inputs.num_tokens for inputs in prompts]
        steps = (engine.statistics.decode_steps - before) // options.repeat
        floor = floor_of(planner, dtype, rates, prompts, together, options.tokens)
        runs[name] = {
            "seconds": times,
            "prefill_seconds": prefill,
            "decode_steps": steps,
            "decode_step_seconds": (statistics.median(times) - prefill) / steps,
            "floor": asdict(floor),
            "floor_seconds": floor.total(options.requests // together * (options.tokens - 1)),
        }
    engine.close()
    report = {
        "model": options.model,
        "random_weights": options.random_weights,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "requests": options.requests,
        "prompt_tokens": [min(lengths), max(lengths)],
        "tokens": options.tokens,
        "reused_tokens": engine.statistics.reused_tokens,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "rates": asdict(rates),
        "runs": runs,
        "ready_seconds": ready,
        "all_seconds": time.perf_counter() - begun,
    }
    print_table(report)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def print_table(report: dict[str, Any]) -> None:
    """As Markdown."""
    rates, runs = report["rates"], report["runs"]
    shortest, longest = report["prompt_tokens"]
    weights = " (random weights)" if report["random_weights"] else ""
    print(
        f"{report['model']}{weights} on {report['device']} in {report['dtype']}, torch {report['torch']}, "
        f"{report['threads']} threads: {report['requests']} requests of {shortest} to "
        f"{longest} prompt tokens and {report['tokens']} of answer; {report['reused_tokens']} prompt tokens reused. "
        f"Copy {rates['bytes_per_second'] / 1e9:.0f} GB/s, product {rates['flops_per_second'] / 1e12:.2f} TFLOP/s.\n"
    )
    print(
        "| what | s (fastest-slowest) | tokens of answer a second | decode step, ms | its floor | all, floor / time |"
    )
    print("|---|---|---|---|---|---|")
    for name, run in runs.items():
        middle, count = statistics.median(run["seconds"]), report["requests"] * report["tokens"]
        spread = f"{min(run['seconds']):.2f}-{max(run['seconds']):.2f}"
        step, least = 1000 * run["decode_step_seconds"], 1000 * run["floor"]["decode_step"]
        print(
            f"| {name} | {middle:.2f} ({spread}) | {count / middle:.0f} | {step:.2f} ({run['decode_steps']} steps) | "
            f"{least:.3f} | {run['floor_seconds'] / middle:.1%} |"
        )
    slow, fast = (statistics.median(run["seconds"]) for run in runs.values())
    print(f"\nAt once {slow / fast:.2f} times as fast.")


if __name__ == "__main__":
    main()
