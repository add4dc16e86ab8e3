"""Layers go where the map says, a step passes them all in order, and what fits nowhere is refused with what would."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mm import Pipeline
from mm.environment import Memory
from mm.errors import OptionError, ResourceError
from mm.families.table import load_config, load_model
from mm.generation import slots as slots_module
from mm.generation.slots import Slots
from mm.hub import find_config
from mm.transforms.fuse import fuse
from mm.transforms.optimize import fits, fitting_map, prepare
from mm.transforms.quantize import quantize
from mm.transforms.split import (
    GIB,
    DeviceMap,
    PartSizes,
    automatic_map,
    check_device_map,
    explicit_map,
    part_sizes,
    stretches,
    visible_gpus,
    weight_bytes,
)
from tests.language.tiny import decoder
from tests.transforms.test_fuse import run

EXAMPLES = Path(__file__).parents[2] / "examples"
RECEIPT, CHART = str(EXAMPLES / "receipt.png"), str(EXAMPLES / "chart.png")
CPU, META = torch.device("cpu"), torch.device("meta")
ONE, TWO, THREE = (torch.device("cuda", index) for index in range(3))


def used(sizes, found):
    total = {}
    places = (found.first, *found.layers, found.last)
    for device, size in zip(places, (sizes.first, *sizes.layers, sizes.last), strict=True):
        total[device] = total.get(device, 0) + size
    return total


def test_devices_are_filled_in_order_and_about_equally():
    sizes = PartSizes(first=300, layers=(100,) * 20, last=200)
    found = automatic_map(sizes, {ONE: 2000, TWO: 2000})
    assert found.first == ONE and found.last == TWO
    assert found.layers == tuple(sorted(found.layers, key=lambda device: device.index))  # one stretch each
    assert used(sizes, found) == {ONE: 1300, TWO: 1200}  # neither can be less full without the other being more
    found = automatic_map(sizes, {ONE: 1000, TWO: 3000, THREE: 1000})
    shares = [size / free for size, free in zip(used(sizes, found).values(), (1000, 3000, 1000), strict=True)]
    assert max(shares) < 0.55
    assert automatic_map(sizes, {ONE: 10**6}) == DeviceMap(ONE, (ONE,) * 20, ONE)


def test_a_tenth_of_a_device_is_left_for_the_cache():
    sizes = PartSizes(first=10, layers=(10,) * 8, last=10)
    automatic_map(sizes, {ONE: 112})
    with pytest.raises(ResourceError, match="90% may hold weights"):
        automatic_map(sizes, {ONE: 110})


def test_what_fits_nowhere_is_refused_with_every_number():
    sizes = PartSizes(first=GIB, layers=(GIB,) * 10, last=2 * GIB)
    expected = (
        r"big does not fit: its weights take 13.0 GiB, the largest part of them 2.0 GiB, and free are cuda:0 8.0 GiB, "
        r"cuda:1 4.0 GiB, of which 90% may hold weights"
    )
    with pytest.raises(ResourceError, match=expected):
        automatic_map(sizes, {ONE: 8 * GIB, TWO: 4 * GIB}, name="big")


def test_what_would_fit_is_told():
    config = load_config(find_config("deepseek-ai/deepseek-vl2-tiny").folder)

    def refusal(gib, dtype=torch.bfloat16, kind=None):
        free = {ONE: int(gib * GIB / 2), TWO: int(gib * GIB / 2)}
        with pytest.raises(ResourceError) as caught:
            fitting_map(config, free, name="tiny", dtype=dtype, quantization=kind)
        return str(caught.value).partition("hold weights. ")[2]

    assert refusal(5) == "What would fit: quantization='int8' (3.8 GiB)."
    assert refusal(4) == "What would fit: quantization='int4' (2.8 GiB)."
    assert refusal(8, torch.float32) == "What would fit: dtype='bfloat16' (6.2 GiB)."
    assert refusal(1, kind="int8") == "Free some memory, add GPUs, or use a smaller model."


def test_sizes_are_those_of_the_model_that_is_loaded(golden: Callable[[str], Path]):
    folder = golden("deepseek_vl2_small") / "checkpoint"
    for kind in (None, "int4"):
        sizes = part_sizes(load_config(folder), torch.float32, kind)
        model = load_model(folder, device="cpu", dtype="float32")
        prepare(model.decoder, quantization=kind)
        assert sizes.total == weight_bytes(model)
        assert list(sizes.layers) == [weight_bytes(layer) for layer in model.decoder.model.layers]


def test_a_map_that_is_written_out():
    given = {f"layers.{index}": "cpu" for index in range(3)}
    assert explicit_map(given, 3) == DeviceMap(CPU, (CPU,) * 3, CPU)
    with pytest.raises(OptionError, match="device_map has layers.3, head; this model has first, layers.0 to layers.2,"):
        explicit_map({**given, "layers.3": "cpu", "head": "cpu"}, 3)
    with pytest.raises(OptionError, match=r"says nothing of 2 of 3 layers \(layers.1, layers.2\). Give each a device"):
        explicit_map({"layers.0": "cpu"}, 3)
    with pytest.raises(OptionError, match=r"device_map has None for layers.1; expected a device, such as 'cuda:1'"):
        explicit_map({**given, "layers.1": None}, 3)
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="device 'cuda:1' was asked for, but torch .* sees no GPU"):
            explicit_map({**given, "layers.1": 1}, 3)
    for number in (-1, 128, 300, 10**30):
        with pytest.raises(
            OptionError, match=rf"device_map has {number} for layers.1; expected the number of a GPU, 0 to"
        ):
            explicit_map({**given, "layers.1": number}, 3)
    with pytest.raises(OptionError, match="device 'gpu' is unknown"):
        explicit_map({**given, "first": "gpu"}, 3)


def test_what_is_no_map_is_refused():
    for fine in (None, "auto", {"layers.0": "cpu"}):
        check_device_map(fine, "auto")
    with pytest.raises(OptionError, match="device_map is 'balanced'; use 'auto', or a device for each layer"):
        check_device_map("balanced", "auto")
    with pytest.raises(OptionError, match="device is 'cuda:1' and there is a device_map: .* Leave one of the two out"):
        check_device_map("auto", "cuda:1")


def test_stretches_in_words():
    assert stretches((ONE, ONE, ONE, TWO)) == "layers 0-2 on cuda:0, 3 on cuda:1"


def test_weights_are_loaded_to_where_they_belong(golden: Callable[[str], Path]):
    folder = golden("deepseek_vl2_small") / "checkpoint"
    count = load_config(folder).decoder.num_layers
    places = DeviceMap(CPU, (CPU, *(META,) * (count - 1)), META)
    assert places.devices == (CPU, META)
    model = load_model(folder, dtype="float32", device="cpu", placement=places)
    assert model.placement == places.layers and model.device == CPU
    where = {name: parameter.device for name, parameter in [*model.named_parameters(), *model.named_buffers()]}
    assert {name for name, device in where.items() if device == META} == {
        name for name in where if name.startswith(("decoder.model.norm", "decoder.lm_head", "decoder.model.layers."))
    } - {name for name in where if name.startswith("decoder.model.layers.0.")}
    cache = model.decoder.new_cache(2, 5)
    assert [layer.tensors[0].device for layer in cache.layers] == [CPU, *(META,) * (count - 1)]
    sizes = cache.bytes_by_device()
    assert sum(sizes.values()) == cache.bytes_per_token() and sizes[META] == (count - 1) * sizes[CPU]
    assert load_model(folder, dtype="float32", device="cpu").placement is None
    model.to(META)
    assert model.placement is None


def test_every_product_of_a_step_is_on_one_device():
    """Without a GPU, torch's fake tensors stand for those of two: they refuse to be mixed as real ones do."""
    with FakeTensorMode(), torch.no_grad():
        model = decoder("mha-dense")
        embed, layers, ends = model.model.embed_tokens, model.model.layers, (model.model.norm, model.lm_head)
        for device, parts in ((ONE, (embed, layers[0])), (TWO, (layers[1],)), (THREE, (layers[2], *ends))):
            for module in [module for part in parts for module in part.modules()]:
                for name, weight in module.named_parameters(recurse=False):
                    setattr(module, name, torch.nn.Parameter(torch.empty_like(weight, device=device)))
        model.read_placement()
        assert model.placement == (ONE, TWO, THREE)
        cache = model.new_cache(2, 24)
        prompt = model.embed(torch.zeros(2, 9, dtype=torch.int64, device=ONE))
        hidden = model(prompt, cache=cache)
        assert hidden.device == ONE and model.logits(hidden[:, -1]).device == ONE
        positions = torch.full((2, 1), 9, device=ONE)
        step = model(prompt[:, :1], positions=positions, cache=cache, visible=16)
        assert step.device == ONE and step.shape == (2, 1, 32)
        cache.copy_row(1, cache, 0, 5)


def test_the_memory_of_a_cache_on_several_devices_is_that_of_the_fullest(monkeypatch):
    model = decoder("mha-dense")
    model.placement = (CPU, META, META)
    found = {"cpu": 1000, "meta": 1000}
    monkeypatch.setattr(slots_module, "device_memory", lambda name: Memory(10**6, found[name]))
    slots = Slots(model, CPU, 4)
    assert slots._free() == 1500  # two of three layers are on meta: 1000 there are 1500 in all
    found["cpu"] = 100
    assert slots._free() == 300


def test_layers_that_wait_elsewhere_are_rounded_where_they_go():
    waiting, plain = decoder("mla-greedy"), decoder("mla-greedy")
    prepare(waiting, quantization="int4", layers=(CPU,) * 3)
    fuse(plain)
    quantize(plain, "int4")
    assert waiting.quantization == "int4" and waiting.placement is None
    assert torch.equal(run(waiting), run(plain))


def test_whether_weights_fit_their_devices(monkeypatch):
    sizes = PartSizes(first=300, layers=(100,) * 4, last=200)
    found = {"cuda:0": 560, "cuda:1": 450}
    monkeypatch.setattr("mm.transforms.optimize.device_memory", lambda name: Memory(10**6, found[name]))
    assert fits(sizes, DeviceMap(ONE, (ONE, ONE, TWO, TWO), TWO))
    assert not fits(sizes, DeviceMap(ONE, (ONE, ONE, ONE, TWO), TWO))


def test_the_pipeline_takes_a_map():
    layers = {f"layers.{index}": "cpu" for index in range(6)}
    pipe, plain = Pipeline.from_pretrained("nano-vl2", device_map=layers), Pipeline.from_pretrained("nano-vl2")
    assert pipe.model.device == CPU and pipe.model.placement is None
    question = (RECEIPT, "What is the total?")
    assert pipe.chat(*question, max_new_tokens=8).token_ids == plain.chat(*question, max_new_tokens=8).token_ids
    with pytest.raises(OptionError, match="says nothing of 1 of 6 layers"):
        Pipeline.from_pretrained("nano-vl2", device_map={f"layers.{index}": "cpu" for index in range(5)})
    with pytest.raises(OptionError, match="Leave one of the two out"):
        Pipeline.from_pretrained("nano-vl2", device_map="auto", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_says_so():
    with pytest.raises(OptionError, match="splits a model over GPUs, and torch .* sees none. Leave it out"):
        visible_gpus()
    with pytest.raises(OptionError, match="splits a model over GPUs"):
        Pipeline.from_pretrained("nano-vl2", device_map="auto")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_two_gpus_give_the_tokens_of_one(quantization):
    options = {"dtype": "float32", "quantization": quantization}
    one = Pipeline.from_pretrained("nano-vl2", device="cuda:0", optimize=False, **options)
    two = Pipeline.from_pretrained("nano-vl2", device_map="auto", **options)
    assert two.engine.graphs is None
    assert set(two.model.placement) == {ONE, TWO}
    questions = [(RECEIPT, "What is the total?"), (CHART, "What does it show?")]
    pairs = zip(one.chat_batch(questions, max_new_tokens=32), two.chat_batch(questions, max_new_tokens=32), strict=True)
    assert all(first.token_ids == second.token_ids for first, second in pairs)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_two_gpus_draw_the_codes_of_one():
    layers = {f"layers.{index}": f"cuda:{index // 3}" for index in range(6)}
    one = Pipeline.from_pretrained("nano-janus", device="cuda:0", dtype="float32", optimize=False)
    two = Pipeline.from_pretrained("nano-janus", device_map=layers, dtype="float32")
    options = {"seed": 3, "output_type": "pt", "num_images_per_prompt": 2}
    found = [pipe.generate_images("a red circle", **options).images for pipe in (one, two)]
    assert (found[0] - found[1]).abs().max() < 1e-3
