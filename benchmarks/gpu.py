"""Everything that the pipeline does on one GPU, at real sizes, beside its floor: python benchmarks/gpu.py

Random weights of published sizes (time does not depend on their values), random prompts, through ``Pipeline``'s public
calls. Each group runs in a process of its own with a time limit, so that one that fails or hangs costs its rows only;
rows are printed as they come. Times are medians of wall time with the device idle before and after, first runs (which
record graphs and compile kernels) apart; what these took is in the row. Decoding is what a longer answer takes more
than a shorter one, over the tokens between. The check groups compare the fast path with the modules as they are written
(greedy tokens in float32), and a model's kernels are compared with its modules before they are used at all.

    python benchmarks/gpu.py --groups janus-7b,vl2-small --limit 60 --out bench.json --markdown bench.md
    python benchmarks/gpu.py --profile            # also the kernels that a step spends its time in
    python benchmarks/gpu.py --groups alternatives-vl2-tiny --limit 200     # transformers, with its best settings
    python benchmarks/gpu.py --device cpu --groups check-moe,check-janus      # a test of this script, nothing more

The columns: floor, what the device cannot go below (bytes that must be read over 4.62 TB/s, or operations over 779
TFLOP/s, as measured on an H200); must and goal, what this project set itself; other, the best of the official code and
transformers, measured on such a card on another day (same-day figures are those of the alternatives groups).
"""

import argparse
import itertools
import json
import platform
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

from benchmarks.random_model import random_model, random_pipeline, write_random_autoencoder
from mm import Pipeline
from mm.hub import find_config
from mm.transforms.compile import compile_encoder
from mm.transforms.optimize import prepare

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
        self.begun = time.perf_counter()

    def row(self, job: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure and print one row."""
        started = time.perf_counter()
        try:
            found = work()
        except Exception as error:  # whatever it is: the next row is measured all the same
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"[:400]}
        memory = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None
        found |= {"memory_gb": memory, "row_seconds": round(time.perf_counter() - started, 1)}
        print("ROW " + json.dumps({"job": job, **found}), flush=True)

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
            with profile(activities=[ProfilerActivity.CUDA]) as found:
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


def int8(rows: Rows, job: str, name: str, measure: Callable[..., None]) -> None:
    """The rows of a model in one byte a weight, and how far its logits move."""
    pipe = built(rows, job, name)
    decoder = pipe.model.decoder

    @torch.inference_mode()
    def logits() -> torch.Tensor:
        ids = torch.randint(1000, (1, 64), generator=torch.Generator().manual_seed(0)).to(rows.device)
        return decoder.logits(decoder(decoder.embed(ids)))

    def change() -> dict[str, Any]:
        before, weights = logits(), torch.cuda.memory_allocated() if rows.device.type == "cuda" else 0
        prepare(decoder, quantization="int8")
        after = logits()
        same = (before.argmax(-1) == after.argmax(-1)).float().mean().item()
        now = torch.cuda.memory_allocated() if rows.device.type == "cuda" else 0
        moved = ((after - before).norm() / before.norm()).item()
        return {"logits_moved": moved, "same_best_token": same, "allocated_gb": [weights / 1e9, now / 1e9]}

    rows.row(f"{job}: what int8 changes", change)
    measure(rows, job, name, pipe)


def language(rows: Rows, job: str, name: str, pipe: Pipeline | None = None) -> None:
    """Prefill and decoding of a mixture of experts."""
    pipe = pipe or built(rows, job, name)
    few, many = 8, 136

    def prefill(count: int) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            ask(pipe, count, 1)
            return {"value": 1e3 * rows.seconds(lambda: ask(pipe, count, 1))}

        return work

    def decode(count: int) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            first = rows.seconds(lambda: ask(pipe, count, many), 1)
            for _ in range(3):  # until the cache has grown to what it keeps
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
    rows.kernels(f"{job} prefill", lambda: ask(pipe, 1, 1))
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
            codes = torch.randint(16384, (24, 24))
            painting = rows.seconds(lambda: [pipe.decode_image(codes) for _ in range(count)], 1)
            return {
                "value": total,
                "step_ms": 1e3 * (total - painting / count) / CODES,
                "vq_seconds": painting,
                "first_run_seconds": first,
                **graphs_of(pipe),
            }

        return work

    rows.row(f"{job}, 1 image", timed(1, rows.repeat))
    rows.kernels(f"{job}, 1 image", lambda: draw(1))
    rows.row(f"{job}, 16 images", timed(16, 1))
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
        batch = codes.reshape(1, -1).repeat(16, 1)
        head.vq.decode(batch, (24, 24))
        return {"value": 1e3 * rows.seconds(lambda: head.vq.decode(batch, (24, 24)))}

    rows.row("VQ decode, 1 image", one)
    rows.kernels("VQ decode, 1 image", lambda: pipe.decode_image(codes))
    rows.row("VQ decode, 16 images", many)


def towers(rows: Rows) -> None:
    """Encoders alone: views in, tokens out."""
    for job, name, side, counts, unit in (
        ("SigLIP-SO400M", "deepseek-ai/deepseek-vl2-small", 384, (10, 64), "tiles"),
        ("SAM-B", "deepseek-ai/deepseek-vl-7b-chat", 1024, (1, 8), "images"),
    ):
        model = random_model(find_config(name).folder, torch.device("meta"), rows.dtype)
        vision = model.vision.high if hasattr(model.vision, "high") else model.vision
        vision = vision.to_empty(device=rows.device)
        with torch.no_grad():
            for parameter in vision.parameters():
                parameter.normal_(0.0, 0.02)
        encode: Callable[[torch.Tensor], object] = torch.inference_mode()(vision)
        for count in counts:
            label = f"{count} {unit if count > 1 else unit[:-1]}"
            views = torch.randn(count, 3, side, side, device=rows.device, dtype=rows.dtype)

            def timed(encode: Callable[[torch.Tensor], object] = encode, views: torch.Tensor = views) -> dict[str, Any]:
                encode(views)
                return {"value": len(views) / rows.seconds(lambda: encode(views), 5)}

            rows.row(f"{job}, {label}", timed)
            rows.kernels(f"{job}, {label}", lambda encode=encode, views=views: encode(views))
        compile_encoder(vision)
        for count in counts:
            views = torch.randn(count, 3, side, side, device=rows.device, dtype=rows.dtype)
            label = f"{job} with compile=True, {count} {unit if count > 1 else unit[:-1]}"

            def compiled(
                views: torch.Tensor = views, encode: Callable[[torch.Tensor], object] = encode
            ) -> dict[str, Any]:
                first = rows.seconds(lambda: encode(views), 1)
                return {"value": len(views) / rows.seconds(lambda: encode(views), 5), "first_run_seconds": first}

            rows.row(label, compiled)


def alternative(rows: Rows, job: str, name: str, shape: dict[str, Any], kind: str, counts: tuple[int, ...]) -> None:
    """transformers' own class at the same sizes: static cache, the one-token step compiled, as a user may do it."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**shape, torch_dtype=rows.dtype)
    with torch.device(rows.device):
        model = getattr(transformers, f"{kind}ForCausalLM")(config).to(rows.dtype).eval()
    torch.backends.cuda.enable_cudnn_sdp(False)  # else it prepares a plan for each new length
    for compiled in (False, True):
        step = torch.compile(model, mode="reduce-overhead") if compiled else model

        def timed(count: int, step: Any = step) -> Callable[[], dict[str, Any]]:
            @torch.inference_mode()
            def work() -> dict[str, Any]:
                cache = transformers.StaticCache(config=config, max_cache_len=2048)
                ids = torch.randint(1000, (count, 1536), device=rows.device)
                model(ids, past_key_values=cache, logits_to_keep=1)
                tokens = torch.randint(1000, (count, 1), device=rows.device)

                def run(first: int, steps: int) -> None:
                    for position in range(first, first + steps):
                        place = torch.tensor([position], device=rows.device)
                        step(tokens, past_key_values=cache, cache_position=place, position_ids=place[None])

                begun = time.perf_counter()
                run(1536, 8)
                rows.wait()
                first = time.perf_counter() - begun
                taken = rows.seconds(lambda: run(1544, 32)) / 32
                return {"value": count / taken, "step_ms": 1e3 * taken, "first_run_seconds": first}

            return work

        for count in counts:
            label = "compiled" if compiled else "eager"
            rows.row(f"transformers {transformers.__version__} {label}: {job}, {count} rows", timed(count))


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


SMALL = {
    "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 27,
    "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512, "q_lora_rank": None,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 64,
    "num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    "max_position_embeddings": 4096, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
}  # fmt: skip
JANUS = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 16384,
}  # fmt: skip

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
    "int8-vl2-small": lambda rows: int8(rows, "VL2-Small int8", "deepseek-ai/deepseek-vl2-small", language),
    "int8-janus-7b": lambda rows: int8(rows, "Janus-Pro-7B int8", "deepseek-ai/Janus-Pro-7B", pictures),
    "alternatives-janus-7b": lambda rows: alternative(rows, "Llama of Janus-Pro-7B", "", JANUS, "Llama", (2, 32)),
    "alternatives-vl2-small": lambda rows: alternative(rows, "VL2-Small", "", SMALL, "DeepseekV2", (1, 16)),
}
DEFAULT_GROUPS = [name for name in GROUPS if not name.startswith("alternatives")]


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


def markdown(found: list[dict[str, Any]]) -> str:
    """The table of all rows that have a target, and the others below."""
    lines = ["| job | ours | floor | share of it | must | goal | other | ours beside it | |", "|---|" + "---|" * 8]
    rest = []
    for row in found:
        target, value = TARGETS.get(row["job"]), row.get("value")
        if target is None or value is None:
            rest.append(f"- {as_line(row)[3:]}")
            continue
        share = value / target.floor if target.more_is_better else target.floor / value
        ratio = value / target.other if target.more_is_better else target.other / value
        lines.append(
            f"| {row['job']} | {value:.4g} {target.unit} | {target.floor:g} | {share:.0%} | {target.must:g} | "
            f"{target.goal:g} | {target.other:g} | {ratio:.1f} x | {meets(value, target)} |"
        )
    return "\n".join(lines + [""] + rest) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Every job of the pipeline on one GPU, beside its floor.")
    parser.add_argument("--groups", default=",".join(DEFAULT_GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--limit", type=float, default=90.0, help="most seconds of a group")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE", help="all rows as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="JSON of an earlier run: losses over 10%% are named"
    )
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.group is not None:
        GROUPS[options.group](Rows(options))
        return
    names = options.groups.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        parser.error(f"there is no group {unknown[0]!r}; use {', '.join(GROUPS)}")
    passed = ["--device", options.device, "--repeat", str(options.repeat), *(["--profile"] if options.profile else [])]
    found: list[dict[str, Any]] = []
    for name in names:
        for row in run_group(name, passed, options.limit):
            found.append(row)
            if options.out is not None:
                targets = {job: asdict(target) for job, target in TARGETS.items()}
                report = {"command": sys.argv, "rows": found, "targets": targets}
                options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = markdown(found)
    if options.against is not None:
        before = json.loads(options.against.read_text(encoding="utf-8"))["rows"]
        table += "\n".join(losses(found, before) or ["- no row is worse than before by more than 10%"]) + "\n"
    print("\n" + table)
    if options.markdown is not None:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
