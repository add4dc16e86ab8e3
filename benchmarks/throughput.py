"""Requests at once against one after another: python benchmarks/throughput.py [--model nano-vl2] [--requests 16]

Every request is a picture of its own with a question and an answer of exactly ``--tokens`` tokens, so that nothing is
reused. ``--random deepseek-ai/deepseek-vl2-tiny`` takes the published sizes of that model, random weights and prompts
of random text: nothing is downloaded, and the decoder takes the time of the real one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mm import Pipeline
from mm.chat import user_message
from mm.contracts import Inputs
from mm.devices import resolve_device, resolve_dtype
from mm.families.table import build_model, load_config
from mm.generation.engine import Engine
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.hub import find_config
from mm.images import open_image
from mm.model import VisionLanguageModel
from mm.processing.base import Processor

RECEIPT = Path(__file__).parent.parent / "examples" / "receipt.png"


def random_model(name: str, device: torch.device, dtype: torch.dtype) -> VisionLanguageModel:
    """The sizes of a published model, weights drawn at random on the device."""
    model = build_model(load_config(find_config(name).folder)).to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


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


def answer(engine: Engine, prompts: list[Inputs], tokens: int, together: int) -> float:
    """Seconds for all prompts, at most ``together`` at once."""
    start = time.perf_counter()
    for first in range(0, len(prompts), together):
        handles = []
        for inputs in prompts[first : first + together]:
            row = Row(
                prompt_ids=inputs.input_ids,
                options=SamplingOptions(detect_loops=False),
                max_new_tokens=tokens,
                end_ids=frozenset(),
                hidden_ids=frozenset(),
                decode=lambda ids: " " * len(ids),
            )
            handles.append(engine.submit(inputs, row))
        for handle in handles:
            handle.result()
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Requests at once against one after another.")
    parser.add_argument("--model", default="nano-vl2")
    parser.add_argument("--random", metavar="NAME", help="sizes of this published model, random weights, text prompts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1000, help="prompt tokens with --random")
    parser.add_argument("--max-tiles", type=int, default=1, help="tiles of each picture")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    make: Callable[[int], list[Inputs]]
    if options.random:
        model = random_model(options.random, device, dtype)
        engine = Engine(model.decoder, lambda inputs: model.embed_inputs([inputs])[0], device=device)
        make = lambda first: text_prompts(model.decoder.vocab_size, options.requests, first, options.prompt)  # noqa: E731
    else:
        pipe = Pipeline.from_pretrained(options.model, device=device, dtype=dtype)
        engine = pipe.engine
        make = lambda first: pictures(pipe.processor, options.requests, first, options.max_tiles)  # noqa: E731
    times: dict[str, list[float]] = {"one after another": [], "at once": []}
    lengths: list[int] = []
    for repeat in range(options.repeat + 1):  # the first is not counted
        for number, (name, together) in enumerate((("one after another", 1), ("at once", options.requests))):
            prompts = make((2 * repeat + number) * options.requests)
            taken = answer(engine, prompts, options.tokens, together)
            if repeat:
                times[name].append(taken)
                lengths += [inputs.num_tokens for inputs in prompts]
    reused = engine.statistics.reused_tokens
    engine.close()
    shortest, longest = min(lengths), max(lengths)
    if options.json:
        print(
            json.dumps(
                {"prompt_tokens": [shortest, longest], "tokens": options.tokens, "reused": reused, "seconds": times}
            )
        )
        return
    print(
        f"{options.random or options.model} on {device} in {str(dtype).removeprefix('torch.')}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads: {options.requests} requests of {shortest} to "
        f"{longest} prompt tokens and {options.tokens} of answer; {reused} prompt tokens reused\n"
    )
    print("| what | s (fastest-slowest) | tokens of answer a second |\n|---|---|---|")
    for name, values in times.items():
        middle, count = statistics.median(values), options.requests * options.tokens
        print(f"| {name} | {middle:.2f} ({min(values):.2f}-{max(values):.2f}) | {count / middle:.0f} |")


if __name__ == "__main__":
    main()
