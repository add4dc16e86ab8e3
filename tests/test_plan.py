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
from mm.generation.text import PREFILL_CHUNK, prefill
from mm.hub import Checkpoint, find_config, known_names
from mm.plan import HOST_OVERHEAD, Planner, Workload, make_plan

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
    assert plan.peak.cache == 3 * plan.context * 61_440
    assert plan.peak.weights == 2 * plan.parameters.total == plan.weight_bytes
    assert plan.download_bytes == 2 * 3_370_501_440
    assert plan.peak.overhead == HOST_OVERHEAD
    assert plan.peak.views == 256 * 2**20  # as much as a pipeline keeps of them
    assert make_plan(checkpoint, Workload(images=0), device="cpu", dtype="bf16").peak.views == 0
    nano = make_plan(find_config("nano-vl2"), Workload(), device="cpu", dtype="float32")
    assert nano.peak.views == nano.weight_bytes // 4
    assert plan.to_dict()["peak"]["total"] == plan.peak.total
    json.dumps(plan.to_dict())
    longer = make_plan(checkpoint, replace(work, context=4096), device="cpu", dtype="bf16")
    assert longer.peak.cache == 3 * 4096 * 61_440


def test_what_does_not_fit_gets_suggestions(monkeypatch: pytest.MonkeyPatch) -> None:
    from mm import plan as module
    from mm.environment import Memory

    monkeypatch.setattr(module, "device_memory", lambda device: Memory(16 * GIB, 8 * GIB))
    others = tuple(find_config(name) for name in known_names())
    small = find_config("deepseek-ai/deepseek-vl2-small")
    plan = make_plan(small, Workload(batch=2), device="cpu", dtype="float32", others=others)
    assert not plan.fits
    assert [(s.flags, s.fits) for s in plan.suggestions] == [
        ("--dtype bfloat16", False),
        ("--dtype bfloat16 --batch 1", False),
        ("--dtype bfloat16 --batch 1 --max-tiles 1", False),
        ("--model deepseek-ai/deepseek-vl2-tiny --dtype bfloat16 --batch 1 --max-tiles 1", True),
    ]
    assert [s.peak_bytes for s in plan.suggestions] == sorted((s.peak_bytes for s in plan.suggestions), reverse=True)
    fitting = make_plan(find_config("nano-vl2"), Workload(), device="cpu", others=others)
    assert fitting.fits
    assert fitting.suggestions == ()
    assert fitting.dtype == "float32"


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
    assert plan.context == 30 + 576 and plan.peak.cache == 2 * 3 * plan.context * 983_040 // 2
    assert plan.peak.views == 0 and plan.image_tokens == 576
    one = make_plan(pro, Workload(prompt_tokens=30, pictures=1), device="cpu", dtype="bf16")
    assert one.peak.cache == plan.peak.cache // 3
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
DRAW = """
import re, resource
from pathlib import Path
from mm import Pipeline
pipe = Pipeline.from_pretrained("nano-janus", device="cpu", dtype="float32")
pipe.generate_images("a red star", seed=1, num_images_per_prompt=2)
status = Path("/proc/self/status")
if status.is_file():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_peak_of_drawing_is_as_planned() -> None:
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    work = Workload(prompt_tokens=20, pictures=2)
    planned = make_plan(find_config("nano-janus"), work, device="cpu", dtype="float32").peak.total
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
    assert run.peak <= estimate <= 4 * run.peak, (run.peak, estimate)


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
