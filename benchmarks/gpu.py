"""Everything that the pipeline does on one GPU, at real sizes, beside its floor: python benchmarks/gpu.py

Random weights of published sizes (time does not depend on their values), random prompts, through ``Pipeline``'s public
calls. Each group runs in a process of its own with a time limit, so that one that fails or hangs costs its rows only;
rows are printed as they come. Times are medians of wall time with the device idle before and after, first runs (which
record graphs and compile kernels) apart; what these took is in the row. Decoding is what a longer answer takes more
than a shorter one, over the tokens between. The check groups compare the fast path with the modules as they are written
(greedy tokens in float32), and a model's kernels are compared with its modules before they are used at all.

    python benchmarks/gpu.py --groups all --together 6 --out bench.json --markdown bench.md      # make bench-gpu
    python benchmarks/gpu.py --groups janus-7b,vl2-small --brief --against benchmarks/results/h200.json
    python benchmarks/gpu.py --profile            # also the kernels that a step spends its time in
    python benchmarks/gpu.py --groups alternatives-vl2-tiny --limit 200     # transformers, with its best settings
    python benchmarks/gpu.py --device cpu --groups check-moe,check-janus      # a test of this script, nothing more

The columns: floor, what the device cannot go below (bytes that must be read over 4.62 TB/s, or operations over 779
TFLOP/s, as measured on an H200); must and goal, what this project set itself; other, the best of what a user would run
instead in the same run (the alternatives groups), or, marked as earlier, as measured on such a card on another day.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import alternatives
from benchmarks.random_model import random_model, random_pipeline, write_random_autoencoder
from mm import Pipeline
from mm.config import Quantization
from mm.hub import find_config
from mm.transforms.compile import compile_encoder
from mm.transforms.difference import relative_difference
from mm.transforms.optimize import prepare
from mm.transforms.towers import use_tower_kernels

CODES = 576


@dataclass(frozen=True)
class Target:
    """What a job is measured against; numbers in the job's unit."""

    unit: str
    floor: float
    must: float
    goal: float
    other: float
    more_is_better: bool = False


TARGETS = {
    "Janus-Pro-7B, 1 image": Target("s", 1.58, 2.4, 1.9, 2.96),
    "Janus-Pro-7B, 16 images": Target("s", 2.20, 3.6, 2.95, 11.4),
    "Janus-Pro-1B, 1 image": Target("s", 0.33, 0.77, 0.56, 7.8),
    "Janus-Pro-1B, 16 images": Target("s", 0.58, 1.04, 0.83, 8.3),
    "VQ decode, 1 image": Target("ms", 0.73, 5.5, 4, 7.4),
    "VQ decode, 16 images": Target("ms", 11.7, 30, 24, 30),
    "VL2-Small decode, 1 row": Target("tok/s", 933, 450, 600, 200, True),
    "VL2-Small decode, 16 rows": Target("tok/s", 2864, 1400, 1700, 820, True),
    "VL2-Tiny decode, 1 row": Target("tok/s", 3712, 1500, 2000, 764, True),
    "VL2-Tiny decode, 16 rows": Target("tok/s", 12164, 6500, 7900, 5327, True),
    "VL2-Small prefill, 1 x 1,536": Target("ms", 9.3, 25, 18, 44),
    "VL2-Small prefill, 16 x 1,536": Target("ms", 148, 300, 250, 466),
    "VL2-Tiny prefill, 1 x 1,536": Target("ms", 1.7, 8, 5, 23),
    "VL2-Tiny prefill, 16 x 1,536": Target("ms", 27, 68, 55, 118),
    "SigLIP-SO400M, 10 tiles": Target("tiles/s", 1169, 600, 680, 554, True),
    "SigLIP-SO400M, 64 tiles": Target("tiles/s", 1169, 650, 720, 597, True),
    "SAM-B, 1 image": Target("images/s", 801, 140, 250, 73, True),
    "SAM-B, 8 images": Target("images/s", 801, 210, 300, 85, True),
}


class Rows:
    """Prints rows as they come; a row that fails says so and the next one follows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.profile: bool = options.profile
        self.repeat: int = options.repeat
        self.brief: bool = options.brief
        self.lock: Path | None = options.lock

    def row(
        self, job: str, work: Callable[..., dict[str, Any]], ready: Callable[[], tuple[Any, ...]] | None = None
    ) -> None:
        """Measure and print one row; ``ready`` compiles before, while others measure, and gives ``work`` arguments."""
        given: tuple[Any, ...] = ()
        failed: Exception | None = None
        try:
            given = () if ready is None else ready()
        except Exception as error:
            failed = error
        with self.alone():
            started = time.perf_counter()
            try:
                if failed is not None:
                    raise failed
                found = work(*given)
                self.wait()
            except Exception as error:  # whatever it is: the next row is measured all the same
                traceback.print_exc()
                found = {"error": f"{type(error).__name__}: {error}"[:400]}
        memory = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None
        found |= {"memory_gb": memory, "row_seconds": round(time.perf_counter() - started, 1)}
        print("ROW " + json.dumps({"job": job, **found}), flush=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The device is this process's inside the block: others, that are being built meanwhile, measure before or
        after."""
        if self.lock is None:
            yield
            return
        with self.lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def seconds(self, work: Callable[[], object], repeat: int | None = None) -> float:
        """The median of a few runs."""
        times = []
        for _ in range(repeat or self.repeat):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def kernels(self, job: str, work: Callable[[], object]) -> None:
        """Print what a run spends its time in on the device."""
        if not self.profile or self.device.type != "cuda":
            return
        from torch.profiler import ProfilerActivity, profile

        try:
            with self.alone(), profile(activities=[ProfilerActivity.CUDA]) as found:
                work()
                self.wait()
            events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
            total = sum(event.self_device_time_total for event in events)
            print(f"PROFILE {job}: {total / 1e3:.1f} ms on the device", flush=True)
            for event in events[:14]:
                print(
                    f"  {event.self_device_time_total / total:6.1%} {event.count:6d} x "
                    f"{event.self_device_time_total / event.count:8.1f} us  {event.key[:90]}"
                )
            sys.stdout.flush()
        except Exception:
            traceback.print_exc()


_numbers = itertools.count()


def ask(pipe: Pipeline, rows: int, tokens: int) -> None:
    """``rows`` new prompts at once, answers of exactly so many tokens."""
    requests = [(None, f"question {next(_numbers)}") for _ in range(rows)]
    replies = pipe.chat_batch(requests, batch_size=rows, max_new_tokens=tokens, detect_loops=False)
    assert all(len(reply.token_ids) == tokens for reply in replies)


def graphs_of(pipe: Pipeline) -> dict[str, Any]:
    """What recording took."""
    graphs = pipe.engine.graphs
    if graphs is None:
        return {"graphs": None}
    return {"graphs": graphs.num_recorded, "record_seconds": round(graphs.seconds, 2), "replays": graphs.replays}


def built(rows: Rows, job: str, name: str, **options: Any) -> Pipeline:
    """The pipeline of a group, and what making it took."""
    started = time.perf_counter()
    pipe = random_pipeline(name, rows.device, rows.dtype, **options)
    rows.wait()
    has_kernels = pipe.model.decoder.path is not None
    taken = round(time.perf_counter() - started, 1)
    print(f"BUILT {job}: {taken} s, kernels of our own: {has_kernels}", flush=True)
    return pipe


@torch.inference_mode()
def beside(rows: Rows, pipe: Pipeline) -> dict[str, Any]:
    """How far the fast path's hidden states and best tokens are from the modules', same weights, prompt and steps."""
    decoder = pipe.model.decoder
    path, found = decoder.path, {"cache_bytes_per_token": float(decoder.new_cache(1, 1).bytes_per_token())}
    for count, tokens in ((1, 256), (1, 1), (2, 1), (16, 1)):
        generator = torch.Generator().manual_seed(count)
        prompt = torch.randint(1000, (count, 256), generator=generator).to(rows.device)
        hidden = []
        for way in (path, None):
            decoder.path = None
            cache = decoder.new_cache(count, 384)
            if tokens == 1:
                decoder(decoder.embed(prompt), cache=cache)
            decoder.path = way
            if tokens == 1:
                at = torch.full((count, 1), 256, device=rows.device)
                hidden.append(decoder(decoder.embed(prompt[:, :1]), positions=at, cache=cache, visible=384))
            else:
                hidden.append(decoder(decoder.embed(prompt), cache=cache))
        decoder.path = path
        same = decoder.logits(hidden[0]).argmax(-1) == decoder.logits(hidden[1]).argmax(-1)
        found[f"relative_error_{count}x{tokens}"] = relative_difference(*hidden)
        found[f"same_best_token_{count}x{tokens}"] = same.float().mean().item()
    return found | shared_calls(rows, decoder)


@torch.inference_mode()
def shared_calls(rows: Rows, decoder: Any) -> dict[str, Any]:
    """Eight prompts in one padded call (more than 128 rows an expert, where torch takes other tiles): how far they are
    from calls of their own, as long as they are; and whether they are to the bit what padded calls of their own give.
    """
    lengths, tokens = (256, 250, 200, 131, 256, 233, 190, 129), 256
    order = list(range(len(lengths)))
    generator = torch.Generator().manual_seed(4)
    prompts = [torch.randint(1000, (1, length), generator=generator).to(rows.device) for length in lengths]
    embeds = torch.cat([torch.nn.functional.pad(decoder.embed(p), (0, 0, 0, tokens - p.shape[1])) for p in prompts])
    cache = decoder.new_cache(len(lengths), 384)

    def padded(chosen: list[int]) -> torch.Tensor:
        numbers = [[*chosen], [0] * len(chosen), [lengths[index] for index in chosen]]
        row, start, count = torch.tensor(numbers, device=rows.device)
        found: torch.Tensor = decoder.prompts(embeds[chosen], rows=row, starts=start, counts=count, cache=cache)
        return found

    together = padded(order)
    alone = torch.cat([padded([index]) for index in order])
    path, decoder.path = decoder.path, None
    plain = torch.cat([decoder(decoder.embed(p), cache=decoder.new_cache(1, 384))[:, -1] for p in prompts])
    decoder.path = path
    return {
        "prompts_equal_in_company": torch.equal(together, alone),
        "relative_error_8_prompts": relative_difference(together, plain),
    }


def check_row(rows: Rows, job: str, name: str, *, layers: int = 6) -> None:
    """Greedy tokens in float32 and hidden states in bfloat16, fast path against modules, at real widths."""

    def work() -> dict[str, Any]:
        answers, tokens = [], 24
        for fast in (True, False):
            pipe = random_pipeline(name, rows.device, torch.float32, tokens=200, fast=fast, layers=layers)
            requests = [(None, f"check {n}") for n in range(5)]
            answers.append([r.token_ids for r in pipe.chat_batch(requests, max_new_tokens=tokens, detect_loops=False)])
            answers[-1] += [pipe.chat(None, "check 0", max_new_tokens=tokens, detect_loops=False).token_ids]
            kernels = pipe.model.decoder.path is not None
            if fast:
                used = {"kernels": kernels, **graphs_of(pipe)}
            pipe.engine.close()
            del pipe
        equal = sum(a == b for a, b in zip(*answers, strict=True))
        return {"equal_greedy_answers": f"{equal} of {len(answers[0])}", **used}

    rows.row(f"check {job}", work)


def quantized(rows: Rows, job: str, name: str, measure: Callable[..., None], kind: Quantization) -> None:
    """The rows of a model with quantised weights, and how far its logits move."""
    job = f"{job} {kind}"
    pipe = built(rows, job, name)
    decoder = pipe.model.decoder

    @torch.inference_mode()
    def logits() -> torch.Tensor:
        ids = torch.randint(1000, (1, 64), generator=torch.Generator().manual_seed(0)).to(rows.device)
        return decoder.logits(decoder(decoder.embed(ids)))

    def change() -> dict[str, Any]:
        before, weights = logits(), torch.cuda.memory_allocated() if rows.device.type == "cuda" else 0
        prepare(decoder, quantization=kind)
        after = logits()
        same = (before.argmax(-1) == after.argmax(-1)).float().mean().item()
        now = torch.cuda.memory_allocated() if rows.device.type == "cuda" else 0
        moved = relative_difference(after, before)
        return {"logits_moved": moved, "same_best_token": same, "allocated_gb": [weights / 1e9, now / 1e9]}

    rows.row(f"{job}: what {kind} changes", change)
    measure(rows, job, name, pipe)


def language(rows: Rows, job: str, name: str, pipe: Pipeline | None = None) -> None:
    """Prefill and decoding of a mixture of experts."""
    pipe = pipe or built(rows, job, name)
    few, many = 8, 136

    def prefill(count: int) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            first = rows.seconds(lambda: ask(pipe, count, 1), 1)
            for _ in range(2):  # until every call of it is recorded
                ask(pipe, count, 1)
            value = 1e3 * rows.seconds(lambda: ask(pipe, count, 1))
            joined = pipe.model.decoder.joins_prompts
            return {"value": value, "first_run_seconds": first, "prompts_share_calls": joined, **graphs_of(pipe)}

        return work

    def decode(count: int) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            first = rows.seconds(lambda: ask(pipe, count, many), 1)
            for _ in range(2):  # until the cache has grown to what it keeps
                ask(pipe, count, few)
            ask(pipe, count, many)
            before, after = (rows.seconds(lambda n=n: ask(pipe, count, n)) for n in (few, many))
            step = (after - before) / (many - few)
            return {"value": count / step, "step_ms": 1e3 * step, "first_run_seconds": first, **graphs_of(pipe)}

        return work

    for count, label in ((1, "1 row"), (16, "16 rows")):
        rows.row(f"{job} decode, {label}", decode(count))
        rows.kernels(f"{job} decode, {label}", lambda count=count: ask(pipe, count, 24))
    for count in (1, 16):
        rows.row(f"{job} prefill, {count} x 1,536", prefill(count))
        rows.kernels(f"{job} prefill, {count} x 1,536", lambda count=count: ask(pipe, count, 1))
    rows.row(f"{job}: fast path beside the modules", lambda: beside(rows, pipe))
    if rows.brief:
        return
    path, pipe.model.decoder.path = pipe.model.decoder.path, None
    pipe.weights_changed()
    if path is not None:
        for count, label in ((1, "1 row"), (16, "16 rows")):
            rows.row(f"{job} decode, {label}, graphs without kernels of our own", decode(count))


def pictures(rows: Rows, job: str, name: str, pipe: Pipeline | None = None) -> None:
    """Pictures from prompts to pixels."""
    pipe = pipe or built(rows, job, name)

    def draw(count: int) -> None:
        drawn = pipe.generate_images(f"picture {next(_numbers)}", num_images_per_prompt=count, seed=next(_numbers))
        assert len(drawn.images) == count

    def timed(count: int, repeat: int) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            first = rows.seconds(lambda: draw(count), 1)
            draw(count)
            total = rows.seconds(lambda: draw(count), repeat)
            seen = pipe.engine.statistics
            spent = seen.seconds
            draw(count)
            spent = seen.seconds - spent
            codes = torch.randint(16384, (24, 24))
            painting = rows.seconds(lambda: [pipe.decode_image(codes) for _ in range(count)], 1)
            return {
                "value": total,
                "step_ms": 1e3 * spent / CODES,
                "without_painting": spent,
                "vq_seconds": painting,
                "first_run_seconds": first,
                **graphs_of(pipe),
            }

        return work

    rows.row(f"{job}, 1 image", timed(1, rows.repeat))
    rows.row(f"{job}, 16 images", timed(16, 1))
    rows.row(f"{job}: fast path beside the modules", lambda: beside(rows, pipe))
    if rows.brief:
        return
    rows.kernels(f"{job}, 1 image", lambda: draw(1))
    path, pipe.model.decoder.path = pipe.model.decoder.path, None
    pipe.weights_changed()
    if path is not None:
        rows.row(f"{job}, 1 image, graphs without kernels of our own", timed(1, 1))


def flow(rows: Rows, *, steps: int = 30, **options: Any) -> None:
    """Pictures by flow under guidance from prompts to pixels, and the autoencoder alone; its weights are random too."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_autoencoder(Path(folder))
        pipe = built(rows, "JanusFlow", "deepseek-ai/JanusFlow-1.3B", vae=folder, **options)

        def draw(count: int) -> None:
            drawn = pipe.generate_images(
                f"picture {next(_numbers)}",
                num_images_per_prompt=count,
                num_inference_steps=steps,
                seed=next(_numbers),
            )
            assert len(drawn.images) == count

        def timed(count: int) -> dict[str, Any]:
            first = rows.seconds(lambda: draw(count), 1)
            seen = pipe.engine.statistics
            before = seen.seconds
            total = rows.seconds(lambda: draw(count), 1)
            return {
                "value": total,
                "step_ms": 1e3 * (seen.seconds - before) / (steps * count),
                "first_run_seconds": first,
            }

        rows.row("JanusFlow, 1 image", lambda: timed(1))
        rows.kernels("JanusFlow, 1 image", lambda: draw(1))
        rows.row("JanusFlow, 16 images", lambda: timed(16))


def vq(rows: Rows) -> None:
    """Codes to pixels."""
    pipe = built(rows, "VQ decode", "deepseek-ai/Janus-Pro-1B", layers=1)
    codes = torch.randint(16384, (24, 24))
    head = pipe.model.image_head
    assert head is not None

    def one() -> dict[str, Any]:
        pipe.decode_image(codes)
        return {"value": 1e3 * rows.seconds(lambda: pipe.decode_image(codes), 8)}

    def many() -> dict[str, Any]:
        def work() -> None:
            for _ in range(16):
                pipe.decode_image(codes)

        work()
        return {"value": 1e3 * rows.seconds(work)}

    @torch.inference_mode()
    def check() -> dict[str, Any]:
        grid = codes.reshape(1, -1)
        ours = head.vq.decode(grid, (24, 24))
        way, head.vq.path = head.vq.path, None
        plain = head.vq.decode(grid, (24, 24))
        head.vq.path = way
        return {"relative_error": relative_difference(ours, plain), "kernels": way is not None}

    rows.row("VQ decode, 1 image", one)
    rows.kernels("VQ decode, 1 image", lambda: pipe.decode_image(codes))
    rows.row("VQ decode, 16 images", many)
    rows.row("VQ decode: fast path beside the modules", check)


def towers(rows: Rows) -> None:
    """Encoders alone: views in, tokens out."""
    for job, name, side, counts, unit in (
        ("SigLIP-SO400M", "deepseek-ai/deepseek-vl2-small", 384, (10, 64), "tiles"),
        ("SAM-B", "deepseek-ai/deepseek-vl-7b-chat", 1024, (1, 8), "images"),
    ):
        model = random_model(find_config(name).folder, torch.device("meta"), rows.dtype)
        vision = model.vision.high if hasattr(model.vision, "high") else model.vision
        vision = vision.to_empty(device=rows.device).eval().requires_grad_(False)
        with torch.no_grad():
            for parameter in vision.parameters():
                parameter.normal_(0.0, 0.02)
        encode: Callable[[torch.Tensor], torch.Tensor] = torch.inference_mode()(vision)

        def timed(count: int, encode: Any = encode, side: int = side) -> Callable[[], dict[str, Any]]:
            def work() -> dict[str, Any]:
                views = torch.randn(count, 3, side, side, device=rows.device, dtype=rows.dtype)
                first = rows.seconds(lambda: encode(views), 1)
                encode(views)
                return {"value": count / rows.seconds(lambda: encode(views), 7), "first_run_seconds": first}

            return work

        def check(encode: Any = encode, vision: Any = vision, side: int = side) -> dict[str, Any]:
            views = torch.randn(3, 3, side, side, device=rows.device, dtype=rows.dtype)
            plain = encode(views)
            used = use_tower_kernels(vision)
            return {"kernels": used, "relative_error": relative_difference(encode(views), plain)}

        names = {count: f"{count} {unit if count > 1 else unit[:-1]}" for count in counts}
        for count in counts:
            rows.row(f"{job} by timm's modules, {names[count]}", timed(count))
        rows.row(f"{job}: fast path beside the modules", check)
        for count in counts:
            rows.row(f"{job}, {names[count]}", timed(count))
            views = torch.randn(count, 3, side, side, device=rows.device, dtype=rows.dtype)
            rows.kernels(f"{job}, {names[count]}", lambda encode=encode, views=views: encode(views))
        if rows.brief:
            continue
        for part in vision.modules():
            if hasattr(part, "path"):
                part.path = None
        compile_encoder(vision)
        for count in counts:
            rows.row(f"{job} with compile=True, {names[count]}", timed(count))


def versions(rows: Rows) -> None:
    """What ran, and the two ceilings."""
    if rows.device.type == "cuda":
        source = torch.randn(2**30, device=rows.device)
        target = torch.empty_like(source)
        a, b = torch.randn(2, 8192, 8192, device=rows.device, dtype=rows.dtype)
        for _ in range(3):
            target.copy_(source), a @ b
        copied = rows.seconds(lambda: target.copy_(source), 9)
        product = rows.seconds(lambda: a @ b, 9)
        ceilings = {"copy_tb_s": 2 * source.nbytes / copied / 1e12, "product_tflop_s": 2 * 8192**3 / product / 1e12}
    else:
        ceilings = {}
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), **ceilings}
    if rows.device.type == "cuda":
        found["device"] = torch.cuda.get_device_name()
    rows.row("versions", lambda: found)


GROUPS: dict[str, Callable[[Rows], None]] = {
    "versions": versions,
    "check-moe": lambda rows: check_row(rows, "VL2-Tiny", "deepseek-ai/deepseek-vl2-tiny"),
    "check-latent": lambda rows: check_row(rows, "VL2-Small", "deepseek-ai/deepseek-vl2-small", layers=4),
    "check-janus": lambda rows: check_row(rows, "Janus-Pro-1B", "deepseek-ai/Janus-Pro-1B"),
    "vl2-small": lambda rows: language(rows, "VL2-Small", "deepseek-ai/deepseek-vl2-small"),
    "janus-7b": lambda rows: pictures(rows, "Janus-Pro-7B", "deepseek-ai/Janus-Pro-7B"),
    "vl2-tiny": lambda rows: language(rows, "VL2-Tiny", "deepseek-ai/deepseek-vl2-tiny"),
    "janus-1b": lambda rows: pictures(rows, "Janus-Pro-1B", "deepseek-ai/Janus-Pro-1B"),
    "janusflow": flow,
    "towers": towers,
    "vq": vq,
    "int8-vl2-small": lambda rows: quantized(rows, "VL2-Small", "deepseek-ai/deepseek-vl2-small", language, "int8"),
    "int8-janus-7b": lambda rows: quantized(rows, "Janus-Pro-7B", "deepseek-ai/Janus-Pro-7B", pictures, "int8"),
    "int4-vl2-small": lambda rows: quantized(rows, "VL2-Small", "deepseek-ai/deepseek-vl2-small", language, "int4"),
    "int4-janus-7b": lambda rows: quantized(rows, "Janus-Pro-7B", "deepseek-ai/Janus-Pro-7B", pictures, "int4"),
    "fp8-vl2-small": lambda rows: quantized(rows, "VL2-Small", "deepseek-ai/deepseek-vl2-small", language, "fp8"),
    "fp8-janus-7b": lambda rows: quantized(rows, "Janus-Pro-7B", "deepseek-ai/Janus-Pro-7B", pictures, "fp8"),
    "alternatives-vl2-small": lambda rows: alternatives.language(rows, "VL2-Small", "DeepseekV2", alternatives.SMALL),
    "alternatives-vl2-tiny": lambda rows: alternatives.language(
        rows, "VL2-Tiny", "DeepseekOcr2Text", alternatives.TINY
    ),
    "alternatives-janus-7b": lambda rows: alternatives.drawing(rows, "Janus-Pro-7B", alternatives.JANUS_7B),
    "alternatives-janus-1b": lambda rows: alternatives.drawing(rows, "Janus-Pro-1B", alternatives.JANUS_1B),
    "alternatives-towers": alternatives.towers,
    "alternatives-vq": alternatives.painter,
}
OURS = [name for name in GROUPS if not name.startswith("alternatives")]


def run_group(name: str, arguments: list[str], limit: float) -> Iterator[dict[str, Any]]:
    """The rows of a group, from a process of its own; what it prints goes on to the terminal."""
    command = [sys.executable, "-u", __file__, "--group", name, *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ROW "):
                found = json.loads(line[4:])
                print(as_line(found), flush=True)
                yield {"group": name, **found}
            else:
                print(f"  [{name}] {line}", end="", flush=True)
        process.wait()
        timer.cancel()
    taken = time.perf_counter() - started
    print(f"GROUP {name}: {taken:.0f} s, exit status {process.returncode}", flush=True)
    if process.returncode:
        why = f"ended after {taken:.0f} s of {limit:.0f} with status {process.returncode}"
        yield {"group": name, "job": f"group {name}", "error": why}


def run_groups(names: list[str], arguments: list[str], limit: float, together: int) -> Iterator[dict[str, Any]]:
    """The rows of several groups as they come, so many groups at a time."""
    waiting, rows = list(reversed(names)), queue.SimpleQueue[dict[str, Any] | None]()

    def work() -> None:
        while waiting:
            for row in run_group(waiting.pop(), arguments, limit):
                rows.put(row)
        rows.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(together, len(names)))]
    for thread in threads:
        thread.start()
    left = len(threads)
    while left:
        row = rows.get()
        if row is None:
            left -= 1
        else:
            yield row


def as_line(found: dict[str, Any]) -> str:
    """A row for the terminal."""
    target, value = TARGETS.get(found["job"]), found.get("value")
    rest = {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items() if k not in ("job", "value")}
    if value is None or target is None:
        shown = "" if value is None else f" {value:.4g}"
        return f"== {found['job']}:{shown} {rest}"
    met = meets(value, target)
    return f"== {found['job']}: {value:.4g} {target.unit} [{met}; must {target.must}, goal {target.goal}] {rest}"


def meets(value: float, target: Target) -> str:
    """Which of the two marks a value reaches."""
    better = (lambda mark: value >= mark) if target.more_is_better else (lambda mark: value <= mark)
    return "goal" if better(target.goal) else "must" if better(target.must) else "missed"


def losses(found: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[str]:
    """Rows that are more than a tenth worse than those of an earlier run."""
    known = {row["job"]: row["value"] for row in before if row.get("value")}
    told = []
    for row in found:
        target, value, old = TARGETS.get(row["job"]), row.get("value"), known.get(row["job"])
        if target is None or not value or not old:
            continue
        ratio = old / value if target.more_is_better else value / old
        if ratio > 1.1:
            told.append(f"- worse than before by {ratio - 1:.0%}: {row['job']}, {old:.4g} -> {value:.4g} {target.unit}")
    return told


def best_other(job: str, found: list[dict[str, Any]]) -> tuple[float, str] | None:
    """The best of what a user would run instead, in the same run, and its name."""
    values = [
        (row["value"], row["job"].removesuffix(f": {job}"))
        for row in found
        if row["job"].endswith(f": {job}") and row.get("value")
    ]
    if not values:
        return None
    return max(values) if TARGETS[job].more_is_better else min(values)


def markdown(found: list[dict[str, Any]]) -> str:
    """The table of all rows that have a target, and the others below."""
    lines = ["| job | ours | floor | share of it | must | goal | other | ours beside it | |", "|---|" + "---|" * 8]
    rest = []
    for row in found:
        target, value = TARGETS.get(row["job"]), row.get("value")
        if target is None or value is None:
            rest.append(f"- {as_line(row)[3:]}")
            continue
        other, named = best_other(row["job"], found) or (target.other, "earlier")
        share = value / target.floor if target.more_is_better else target.floor / value
        ratio = value / other if target.more_is_better else other / value
        lines.append(
            f"| {row['job']} | {value:.4g} {target.unit} | {target.floor:g} | {share:.0%} | {target.must:g} | "
            f"{target.goal:g} | {other:.4g} ({named}) | {ratio:.1f} x | {meets(value, target)} |"
        )
    return "\n".join(lines + [""] + rest) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Every job of the pipeline on one GPU, beside its floor.")
    parser.add_argument("--groups", default=",".join(OURS), help=f"of {', '.join(GROUPS)}; or all")
    parser.add_argument("--limit", type=float, default=300.0, help="most seconds of a group")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE", help="all rows as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="JSON of an earlier run: losses over 10%% are named"
    )
    parser.add_argument("--brief", action="store_true", help="leave out the rows that no target is set for")
    parser.add_argument(
        "--together",
        type=int,
        default=1,
        metavar="N",
        help="build so many groups at once; rows are measured in turn",
    )
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--lock", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.group is not None:
        GROUPS[options.group](Rows(options))
        return
    names = list(GROUPS) if options.groups == "all" else options.groups.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        parser.error(f"there is no group {unknown[0]!r}; use {', '.join(GROUPS)}")
    passed = ["--device", options.device, "--repeat", str(options.repeat)]
    passed += [flag for flag, given in (("--profile", options.profile), ("--brief", options.brief)) if given]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if options.together > 1:
            passed += ["--lock", str(Path(folder) / "lock")]
        for row in run_groups(names, passed, options.limit, options.together):
            found.append(row)
            if options.out is not None:
                targets = {job: asdict(target) for job, target in TARGETS.items()}
                report = {"command": sys.argv, "rows": found, "targets": targets}
                options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            if options.markdown is not None:
                options.markdown.write_text(markdown(found), encoding="utf-8")
    table = markdown(found)
    if options.against is not None:
        before = json.loads(options.against.read_text(encoding="utf-8"))["rows"]
        table += "\n".join(losses(found, before) or ["- no row is worse than before by more than 10%"]) + "\n"
    print("\n" + table)
    if options.markdown is not None:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
