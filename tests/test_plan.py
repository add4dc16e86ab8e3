"""`mm plan`: counts against the published manifests, the activation formula against what a run really allocates."""

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mm.errors import ConfigError, ContextOverflowError, OptionError, TaskError
from mm.families.table import load_model
from mm.generation.text import CPU_BULK_CHUNK, GPU_PREFILL_CHUNK, PREFILL_CHUNK, prefill
from mm.hub import Checkpoint, find_config, known_names
from mm.plan import make_plan
from mm.planner import HEAP_KEPT, HOST_OVERHEAD, PAINTER_OVERHEAD, Planner, Workload
from mm.transforms.optimize import fitting_map
from mm.transforms.split import part_sizes
from tests.tiny_text import random_tensors, raw_config, write_weights

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "activated", "cache"),
    [
        ("deepseek-vl2-tiny", 574_127_360, 61_440),
        ("deepseek-vl2-small", 2_451_435_008, 31_104),
        ("deepseek-vl2", 4_124_128_808, 34_560),
        ("Janus-Pro-7B", 6_490_935_296, 983_040 // 2),
        ("JanusFlow-1.3B", 1_442_940_928, 196_608),
        ("deepseek-vl-1.3b-base", 1_442_940_928, 196_608),
        ("deepseek-vl-7b-chat", 6_490_935_296, 983_040 // 2),
    ],
)
def test_published_numbers(name: str, activated: int, cache: int, manifest: Callable[[str], dict[str, Any]]) -> None:
    planner = Planner(find_config(f"deepseek-ai/{name}").folder)
    parameters = planner.parameters()
    published = manifest(name.lower().removesuffix("-base").removesuffix("-chat"))
    assert parameters.in_published_files == published["total_elements"]
    assert parameters.activated == activated
    parts = (parameters.decoder, parameters.vision, parameters.adaptor, parameters.image_side)
    assert parameters.total == sum(parts)
    assert (parameters.image_side > 0) == name.startswith("Janus")
    assert planner.cache_bytes_per_token(torch.bfloat16) == cache
    assert planner.cache_bytes_per_token(torch.float32) == 2 * cache


@pytest.mark.parametrize(
    ("size", "max_tiles", "tokens"),
    [
        ((384, 384), None, 421),  # 14 x 15 + 1 + 14 x 15
        ((1000, 1000), None, 2017),  # 3 x 3 tiles: 210 + 1 + 42 x 43
        ((1000, 1000), 4, 1023),  # 2 x 2 tiles: 210 + 1 + 28 x 29
        ((1000, 1000), 1, 421),
        (None, None, 2101),  # the worst: 1 x 9 tiles, 210 + 1 + 126 x 15
    ],
)
def test_image_tokens(size: tuple[int, int] | None, max_tiles: int | None, tokens: int) -> None:
    planner = Planner(find_config("deepseek-ai/deepseek-vl2-tiny").folder)
    assert planner.image_tokens(Workload(image_size=size, max_tiles=max_tiles)) == tokens
    assert planner.image_tokens(Workload(image_size=size, max_tiles=max_tiles, images=3)) == 421, "no tiling above two"


def test_a_plan_adds_up() -> None:
    checkpoint = find_config("deepseek-ai/deepseek-vl2-tiny")
    work = Workload(prompt_tokens=100, images=2, image_size=(384, 384), max_new_tokens=50, batch=3)
    plan = make_plan(checkpoint, work, device="cpu", dtype="bf16")
    assert plan.dtype == "bfloat16"
    assert plan.context == 100 + 2 * 421 + 50
    assert plan.peak.cache == 4 * 1024 * 61_440, "rows in powers of two, slots in blocks of 512"
    assert plan.peak.weights == 2 * plan.parameters.total == plan.weight_bytes
    assert plan.download_bytes == 2 * 3_370_501_440
    assert plan.peak.overhead == HOST_OVERHEAD + HEAP_KEPT, "of larger models the heap keeps no more"
    assert plan.peak.views == 256 * 2**20  # as much as a pipeline keeps of them
    assert make_plan(checkpoint, Workload(images=0), device="cpu", dtype="bf16").peak.views == 0
    nano = make_plan(find_config("nano-vl2"), Workload(), device="cpu", dtype="float32")
    assert nano.peak.views == nano.weight_bytes // 4
    assert nano.peak.overhead == HOST_OVERHEAD + nano.peak.activations < HOST_OVERHEAD + HEAP_KEPT
    drawn = make_plan(find_config("nano-janus"), Workload(pictures=1), device="cpu", dtype="float32").peak
    assert drawn.overhead == HOST_OVERHEAD + PAINTER_OVERHEAD + drawn.activations
    assert plan.to_dict()["peak"]["total"] == plan.peak.total
    json.dumps(plan.to_dict())
    longer = make_plan(checkpoint, replace(work, context=4096), device="cpu", dtype="bf16")
    assert longer.peak.cache == 4 * 4096 * 61_440


def test_what_does_not_fit_gets_suggestions(monkeypatch: pytest.MonkeyPatch) -> None:
    from mm import plan as module
    from mm.environment import Memory

    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 8 * GIB))
    others = tuple(find_config(name) for name in known_names())
    small = find_config("deepseek-ai/deepseek-vl2-small")
    plan = make_plan(small, Workload(batch=2), device="cpu", dtype="float32", others=others)
    assert not plan.fits
    assert [(s.flags, s.fits) for s in plan.suggestions] == [
        ("--batch 1", False),
        ("--batch 1 --dtype bfloat16", False),
        ("--batch 1 --dtype bfloat16 --max-tiles 1", False),
        ("--batch 1 --dtype bfloat16 --max-tiles 1 --quantization int8", False),
        ("--batch 1 --dtype bfloat16 --max-tiles 1 --quantization int4", False),
        ("--model deepseek-ai/deepseek-vl2-tiny --batch 1 --dtype bfloat16 --max-tiles 1", True),
    ]
    assert [s.peak_bytes for s in plan.suggestions] == sorted((s.peak_bytes for s in plan.suggestions), reverse=True)
    text = Workload(images=0, context=8192)
    plan = make_plan(find_config("deepseek-ai/DeepSeek-V3"), text, device="cpu", dtype="float32", others=others)
    assert [(s.flags, s.fits) for s in plan.suggestions] == [
        ("--context 768", False),
        ("--context 768 --dtype bfloat16", False),
        ("--context 768 --dtype bfloat16 --quantization int8", False),
        ("--context 768 --dtype bfloat16 --quantization int4", False),
        ("--model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --context 768 --dtype bfloat16", True),
    ], "what costs nothing first; of the models that do not fit none but the first that does is named"
    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 13 * GIB))
    plan = make_plan(small, Workload(), device="cpu", dtype="bfloat16", others=others)
    assert (plan.suggestions[-1].flags, plan.suggestions[-1].fits) == ("--max-tiles 1 --quantization int4", True)
    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 8 * GIB))
    base = make_plan(find_config("deepseek-ai/DeepSeek-V3-Base"), text, device="cpu", dtype="bfloat16", others=others)
    assert "deepseek-coder-1.3b-base" in base.suggestions[-1].flags
    monkeypatch.setattr(module, "device_memory", lambda device: Memory(GIB // 2, GIB // 2))
    nothing = make_plan(small, Workload(), device="cpu", others=others).suggestions
    assert nothing[-1].flags == "--model nano-vl2 --dtype bfloat16 --max-tiles 1", "the smallest"
    assert not any(s.fits for s in nothing)
    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 8 * GIB))
    fitting = make_plan(find_config("nano-vl2"), Workload(), device="cpu", others=others)
    assert fitting.fits
    assert fitting.suggestions == ()
    assert fitting.dtype == "float32"


def test_a_plan_of_several_gpus_says_what_each_holds() -> None:
    checkpoint, work = find_config("deepseek-ai/deepseek-vl2"), Workload(batch=3)
    plan = make_plan(checkpoint, work, gpu_memory=[24 * GIB, 48 * GIB])
    assert (plan.device, plan.dtype, plan.fits) == ("cuda:0, cuda:1", "bfloat16", True)
    one, two = plan.devices
    assert (one.holds, two.holds) == ("encoder and embeddings, layers 0-9", "layers 10-29, head")
    planner = Planner(checkpoint.folder)
    free = {torch.device("cuda", 0): 24 * GIB, torch.device("cuda", 1): 48 * GIB}
    sizes = part_sizes(planner.config, torch.bfloat16)
    places = fitting_map(planner.config, free, name="it", dtype=torch.bfloat16)
    assert places.layers == tuple(torch.device("cuda", int(index > 9)) for index in range(30)), "as it is loaded"
    assert one.peak.weights == sizes.first + sum(sizes.layers[:10])
    assert one.peak.weights + two.peak.weights == plan.peak.weights == sizes.total
    alone = planner.peak(work, torch.bfloat16, "cuda")
    assert 3 * one.peak.cache == alone.cache == one.peak.cache + two.peak.cache
    assert (one.peak.views, two.peak.views) == (alone.views, 0)
    assert max(one.peak.activations, two.peak.activations) == alone.activations
    assert plan.peak.total == one.peak.total + two.peak.total and plan.memory.available == 72 * GIB
    told = plan.to_dict()["devices"]
    assert [(share["fits"], share["peak"]["total"]) for share in told] == [
        (True, one.peak.total),
        (True, two.peak.total),
    ]
    assert make_plan(checkpoint, work, device="cpu").devices == ()


def test_several_gpus_that_are_too_small() -> None:
    plan = make_plan(find_config("deepseek-ai/deepseek-vl2"), Workload(), gpu_memory=[24 * GIB, 16 * GIB])
    assert not plan.fits and [share.fits for share in plan.devices] == [False, False]
    shares = [share.peak.weights / share.memory.available for share in plan.devices]
    assert shares[0] == pytest.approx(shares[1], abs=0.1), "what each would hold if both had more"
    assert [(s.flags, s.fits) for s in plan.suggestions][-1] == ("--max-tiles 1 --quantization int8", True)
    tight = make_plan(find_config("deepseek-ai/deepseek-vl2-tiny"), Workload(images=0), gpu_memory=[8 * 10**9, 10**7])
    assert [(share.holds, share.fits) for share in tight.devices] == [
        ("encoder and embeddings, layers 0-11, head", True),
        ("nothing", True),
    ]
    drawn = make_plan(find_config("nano-janus"), Workload(pictures=2), gpu_memory=[GIB, GIB])
    assert [share.peak.activations > 0 for share in drawn.devices] == [True, True]
    text = make_plan(find_config("deepseek-ai/deepseek-llm-7b-chat"), Workload(), gpu_memory=[24 * GIB])
    assert [share.holds for share in text.devices] == ["embeddings, layers 0-29, head"]
    with pytest.raises(OptionError, match="gpu_memory is .* 0 bytes; expected the free bytes of 1 to 128 GPUs"):
        make_plan(find_config("nano-vl2"), Workload(), gpu_memory=[0])
    with pytest.raises(OptionError, match="^gpu_memory is of 129 GPUs, the least 1 bytes; expected"):
        make_plan(find_config("nano-vl2"), Workload(), gpu_memory=[1] * 129)
    with pytest.raises(OptionError, match="device is 'cpu', and gpu_memory has GPUs to plan for"):
        make_plan(find_config("nano-vl2"), Workload(), device="cpu", gpu_memory=[GIB])
    with pytest.raises(OptionError, match="device is 'cpu' and there is a device_map"):
        make_plan(find_config("nano-vl2"), Workload(), device="cpu", device_map="auto")


def test_context_too_small() -> None:
    with pytest.raises(
        ContextOverflowError, match=r"867 tokens \(256 of text, 1 x 421 of images, 190 of answer\) do not fit "
    ):
        make_plan(
            find_config("deepseek-ai/deepseek-vl2"),
            Workload(image_size=(300, 300), max_new_tokens=190, context=800),
            device="cpu",
        )


def test_a_plan_of_pictures() -> None:
    pro = find_config("deepseek-ai/Janus-Pro-7B")
    plan = make_plan(pro, Workload(prompt_tokens=30, pictures=3, batch=9), device="cpu", dtype="bf16")
    assert plan.context == 30 + 576 and plan.peak.cache == 8 * 1024 * 983_040 // 2
    assert plan.peak.views == 0 and plan.image_tokens == 576
    one = make_plan(pro, Workload(prompt_tokens=30, pictures=1), device="cpu", dtype="bf16")
    assert one.peak.cache == plan.peak.cache // 4
    flow = find_config("deepseek-ai/JanusFlow-1.3B")
    drawn, said = (make_plan(flow, Workload(pictures=n, images=0), device="cpu", dtype="bf16") for n in (1, 0))
    assert drawn.weight_bytes - said.weight_bytes == 2 * 83_653_863, "the autoencoder"
    with pytest.raises(TaskError, match="nano-vl2 has no generation side"):
        make_plan(find_config("nano-vl2"), Workload(pictures=1), device="cpu")


def test_less_pictures_are_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    from mm import plan as module
    from mm.environment import Memory

    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 6 * GIB))
    plan = make_plan(
        find_config("deepseek-ai/Janus-Pro-1B"), Workload(pictures=16), device="cpu", dtype="bf16", others=()
    )
    assert [(s.flags, s.fits) for s in plan.suggestions] == [("--pictures 1", True)]


# Not getrusage where it can be helped: on Linux its peak is also that of the process that started this one.
RUN = """
import re, resource
from pathlib import Path
from PIL import Image
from mm import Pipeline
{work}
status = Path("/proc/self/status")
if status.is_file():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
DRAW = """pipe = Pipeline.from_pretrained("nano-janus", device="cpu", dtype="float32")
pipe.generate_images("a red star", seed=1, num_images_per_prompt=2)"""
CHAT = """pipe = Pipeline.from_pretrained({name!r}, device="cpu", dtype="float32")
pipe.chat_batch([(Image.effect_noise({size}, n), "What is it?") for n in range({batch})], max_new_tokens=2)"""


@pytest.mark.parametrize(
    ("name", "size", "batch"),
    [("nano-janus", None, 2), ("nano-janus", (384, 384), 1), ("nano-vl2", (384, 384), 1), ("nano-vl2", (900, 1200), 3)],
)
def test_the_peak_of_a_process_is_as_planned(name: str, size: tuple[int, int] | None, batch: int) -> None:
    work, run = Workload(prompt_tokens=20, pictures=batch), DRAW
    if size is not None:
        work = Workload(prompt_tokens=20, images=1, image_size=size, max_new_tokens=2, batch=batch)
        run = CHAT.format(name=name, size=size, batch=batch)
    done = subprocess.run([sys.executable, "-c", RUN.format(work=run)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    planned = make_plan(find_config(name), work, device="cpu", dtype="float32").peak.total
    assert planned == pytest.approx(int(done.stdout), rel=0.1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pictures", -1, "pictures is -1; expected 0 or more"),
        ("batch", 0, "batch is 0; expected 1 or more"),
        ("images", -1, "images is -1; expected 0 or more"),
        ("max_tiles", 0, "max_tiles is 0; expected 1 or more"),
        ("context", 0, "context is 0; expected 1 or more"),
        ("image_size", (0, 5), r"image_size is \(0, 5\); expected a width and a height"),
    ],
)
def test_workload_out_of_range(field: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Workload(**{field: value})


def test_a_config_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError, match="model_type 'gpt2'"):
        make_plan(Checkpoint("x", tmp_path, "local", None), Workload(), device="cpu")


class Allocations(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.add(storage)
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        self.known.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.release, address, size)

    def release(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.live -= size


@pytest.mark.parametrize(
    "case",
    [
        "deepseek_vl2_tiny",
        "deepseek_vl2_small",
        "deepseek_vl2_base",
        "deepseek_vl_single",
        "deepseek_vl_hybrid",
        "janus_pro",
    ],
)
def test_activations_are_estimated_from_above(case: str, golden: Callable[[str], Path]) -> None:
    """The real modules, run on an image and a long prompt: the formula covers what they allocate, within a factor."""
    folder = golden(case) / "checkpoint"
    planner = Planner(folder)
    model = load_model(folder, device="cpu", dtype="float32")
    work = Workload(prompt_tokens=600, images=1, image_size=(700, 380), max_new_tokens=1)
    across, down = planner.grid(work)
    size = planner.spec.image_size
    prompt = planner.tokens(work) - work.max_new_tokens
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
    with torch.inference_mode():
        cache = model.decoder.new_cache(1, prompt)
        with Allocations() as run:
            run.known = {t.untyped_storage().data_ptr() for layer in cache.layers for t in layer.tensors}
            run.known |= {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
            pixels = torch.zeros(1 + across * down, 3, size, size)
            images = model.image_embeddings(model.encode_views(pixels), torch.tensor([[across, down]]))
            del pixels
            embeds = torch.cat((images, torch.zeros(prompt - images.shape[0], images.shape[1])))
            for start in range(0, prompt, PREFILL_CHUNK):
                hidden = prefill(model.decoder, embeds[start : start + PREFILL_CHUNK], start, cache)
            model.decoder.logits(hidden[-1:])
    estimate = planner.activations(work, torch.float32)
    assert run.peak <= estimate <= 2.2 * run.peak, (run.peak, estimate)


@pytest.mark.parametrize("kind", ["coder", "r1-qwen", "moe", "v2-lite"])
def test_a_prompt_in_pieces_is_estimated_from_above(kind: str, tmp_path: Path) -> None:
    """Also where scores are written to memory: latent attention of a short piece; on Apple's GPU, grouped queries."""
    raw = {**raw_config(kind), "max_position_embeddings": 2048}
    folder = write_weights(tmp_path, raw, random_tensors(raw))
    planner = Planner(folder)
    model = load_model(folder, device="cpu", dtype="float32")
    work = Workload(prompt_tokens=1040, images=0, max_new_tokens=1)
    with torch.inference_mode():
        cache = model.decoder.new_cache(1, 1040)
        with Allocations() as run:
            run.known = {t.untyped_storage().data_ptr() for layer in cache.layers for t in layer.tensors}
            run.known |= {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
            embeds = torch.zeros(1040, 32)
            for start in range(0, 1040, PREFILL_CHUNK):
                hidden = prefill(model.decoder, embeds[start : start + PREFILL_CHUNK], start, cache)
            model.decoder.logits(hidden[-1:])
    estimate = planner.activations(work, torch.float32)
    assert run.peak <= estimate <= 2.6 * run.peak, (run.peak, estimate)
    if kind == "r1-qwen":
        longer, scores = replace(work, prompt_tokens=4096), 4 * GPU_PREFILL_CHUNK * 4096 * 4  # bytes, once
        assert planner.activations(longer, torch.float32, "mps") > scores
        assert planner.activations(longer, torch.float32, "cuda") < scores, "keys and values are repeated instead"


def test_a_gpu_takes_longer_pieces_and_the_pixels_stay_in_main_memory() -> None:
    planner = Planner(find_config("deepseek-ai/deepseek-vl2-tiny").folder)
    text = Workload(prompt_tokens=4000, images=0)
    pieces = [planner.activations(text, torch.bfloat16, device) for device in ("cpu", "cuda")]
    pieces[1] -= planner.recorded(text, torch.bfloat16)
    assert GPU_PREFILL_CHUNK == 4 * PREFILL_CHUNK and 2.5 * pieces[0] < pieces[1] < 4 * pieces[0]
    bulk = planner.activations(text, torch.bfloat16, "cpu", bulk=True)
    assert CPU_BULK_CHUNK == GPU_PREFILL_CHUNK and bulk == pieces[1]
    one, two = (Workload(image_size=(1000, 1000), max_new_tokens=8, batch=batch) for batch in (1, 2))
    host = [planner.activations(work, torch.bfloat16) for work in (one, two)]
    assert host[1] - host[0] == 10 * 3 * 384**2 * 4, "one prompt is taken in at a time: the other waits as pixels"
    kept = [planner.recorded(work, torch.bfloat16) for work in (one, two)]
    device = [
        planner.activations(work, torch.bfloat16, "cuda") - size for work, size in zip((one, two), kept, strict=True)
    ]
    assert device[1] == device[0], "pixels wait in main memory"
    bulk = planner.activations(two, torch.bfloat16, "cuda", bulk=True) - kept[1]
    assert bulk > 1.3 * device[1], "encoded together"


def test_recorded_prompts_keep_what_several_take() -> None:
    planner = Planner(find_config("deepseek-ai/deepseek-vl2-tiny").folder)
    work = [Workload(prompt_tokens=1500, images=0, max_new_tokens=30, batch=batch) for batch in (1, 2, 4, 16)]
    kept = [planner.recorded(each, torch.bfloat16) for each in work]
    assert 1.7 * kept[0] < kept[1] < 2 * kept[0] and 3 * kept[0] < kept[2] == kept[3] < 4 * kept[0]
    assert planner.recorded(work[0], torch.float32) == 0, "experts in float32 wait for the host"


def test_painting_is_estimated_from_above() -> None:
    checkpoint = find_config("nano-janus")
    model = load_model(checkpoint.folder, device="cpu", dtype="float32")
    planner = Planner(checkpoint.folder)
    assert model.image_head is not None
    head = model.image_head
    head.vq.decode(torch.zeros(1, 1, dtype=torch.int64), (1, 1))  # builds the networks
    with torch.inference_mode(), Allocations() as run:
        run.known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        head.vq.decode(torch.arange(256)[None], head.grid)
    estimate = planner.activations(planner.drawing(Workload(prompt_tokens=20, pictures=1)), torch.float32)
    assert run.peak <= estimate <= 3 * run.peak, (run.peak, estimate)
