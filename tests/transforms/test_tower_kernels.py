"""The kernels of towers and of the image tokenizer against the plain functions, and whole networks against the modules.

On a machine without CUDA they run in Triton's interpreter (``tests/triton_kernels.py``).
"""

import copy
import threading

import pytest
import torch

from mm.config import SamConfig, VisionConfig, VQConfig
from mm.devices import exact_convolutions
from mm.generation.vq import VQTokenizer
from mm.graphed import Graphed, release_graphs
from mm.transforms.compile import compile_encoder
from mm.transforms.towers import Guarded, use_tower_kernels
from mm.vision.encoder import build_siglip
from mm.vision.sam import SamEncoder
from tests.triton_kernels import DEVICE, INTERPRETED, on_gpu, run_in_interpreter, runs, starts_interpreter

if DEVICE == "cuda" or INTERPRETED:
    kernels = pytest.importorskip("mm.vision.kernels")
    from mm.generation import paint_kernels
    from mm.generation.fast_paint import FastPaint
    from mm.vision.fast_encoder import FastSam, FastSiglip, takes
    from mm.vision.intact import Intact


def numbers(*shape):
    return torch.randn(*shape, device=DEVICE)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(found, expected, tolerance=2e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def siglip(gelu="tanh"):
    config = VisionConfig(image_size=35, patch_size=9, width=48, num_blocks=2, num_heads=3, mlp_width=80, gelu=gelu)
    return build_siglip(config).eval().requires_grad_(False).to(DEVICE)


def sam():
    config = SamConfig(
        image_size=96,
        patch_size=16,
        width=32,
        num_blocks=3,
        num_heads=2,
        window_size=4,
        global_blocks=(1, 2),
        neck_width=16,
        downsample_widths=(24,),
        statistics=None,
    )
    tower = SamEncoder(config, grid=6).eval().requires_grad_(False).to(DEVICE)
    for parameter in tower.parameters():
        parameter.normal_(std=0.2)
    return tower


def vq_config(width, multipliers=(1, 2)):
    return VQConfig(
        num_codes=64,
        code_width=8,
        width=width,
        encoder_multipliers=multipliers,
        decoder_multipliers=multipliers,
        latent_width=16,
        num_res_blocks=1,
    )


def tokenizer(width=32):
    return VQTokenizer(vq_config(width)).eval().requires_grad_(False).to(DEVICE)


@runs
@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_norm_and_activation(act, shifted):
    x, weight, bias, shift = numbers(700, 64), numbers(64), numbers(64), numbers(64) if shifted else None
    found = paint_kernels.norm_silu(x, weight, bias, shift, act=act)
    close(found, paint_kernels.norm_silu_plain(x, weight, bias, shift, act=act))


@runs
def test_residual_with_the_bias_of_the_convolution_before():
    x, y, shift = numbers(700, 32), numbers(700, 32), numbers(32)
    close(paint_kernels.add_shifted(x, y, shift), paint_kernels.add_shifted_plain(x, y, shift))


@runs
def test_every_pixel_four_times():
    x = numbers(15 * 20, 64)
    assert torch.equal(paint_kernels.doubled(x, 15, 20), paint_kernels.doubled_plain(x, 15, 20))


@runs
def test_residual_and_layer_norm():
    x, delta, weight, bias = numbers(3, 7, 40), numbers(3, 7, 40), numbers(40), numbers(40)
    for given in (delta, None):
        found = kernels.add_layer_norm(x, given, weight, bias, 1e-6)
        for each, expected in zip(found, kernels.add_layer_norm_plain(x, given, weight, bias, 1e-6), strict=True):
            close(each, expected)


@runs
@pytest.mark.parametrize("down,across", [(6, 5), (3, 4)])
def test_attention_with_terms_of_rows_and_columns(down, across):
    query, key, value = numbers(2, down * across, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
    tables = numbers(2 * down - 1, 16), numbers(2 * across - 1, 16)
    terms = kernels.position_terms(query, *tables, down, across)
    for found, expected in zip(terms, kernels.position_terms_plain(query, *tables, down, across), strict=True):
        close(found, expected)
    found = kernels.position_bias_attention(query, key, value, *terms)
    close(found, kernels.position_bias_attention_plain(query, key, value, *terms))


@runs
@torch.inference_mode()
def test_a_picture_is_that_of_the_modules():
    plain = tokenizer()
    vectors = torch.nn.functional.normalize(numbers(1, 4, 5, 8), dim=-1)
    with exact_convolutions(torch.device(DEVICE), torch.float32):
        close(FastPaint(plain, plain.config)(vectors), plain.paint(vectors))
    assert FastPaint.suits(plain.config) and not FastPaint.suits(vq_config(24, (1,)))


@pytest.mark.gpu
@on_gpu
@torch.inference_mode()
@pytest.mark.parametrize("side", [1, 3])  # Triton compiles anew for a number that is 1
def test_pictures_of_few_codes(side):
    plain = tokenizer(64)
    vectors = torch.nn.functional.normalize(numbers(1, side, side, 8), dim=-1)
    close(FastPaint(plain, plain.config)(vectors), plain.paint(vectors), 1e-2)


@runs
@torch.inference_mode()
@pytest.mark.parametrize("kind", ["tanh", "exact", "sam"])
def test_a_tower_gives_what_its_modules_give(kind):
    tower = sam() if kind == "sam" else siglip(kind)
    side = 96 if kind == "sam" else 35
    path, plain = (FastSam(tower), tower.encode_plainly) if kind == "sam" else (FastSiglip(tower), tower.plainly)
    views = numbers(2, 3, side, side)
    assert takes(tower)
    with exact_convolutions(torch.device(DEVICE), torch.float32):
        close(path(views), plain(views), 1e-4)


@runs
@torch.inference_mode()
def test_a_tower_whose_layers_have_changed_goes_through_its_modules():
    tower, views = siglip(), numbers(1, 3, 35, 35)
    plain = tower.plainly(views)
    way = Intact(lambda given: given.sum(), tower.plainly, tower)
    assert way(views).ndim == 0
    layer = tower.blocks[1].attn.qkv
    tower.blocks[1].attn.qkv = torch.nn.Sequential(layer)  # such as an adapter around it
    assert torch.equal(way(views), plain) and not takes(tower.requires_grad_(True))
    tower.blocks[1].attn.qkv = layer
    assert way(views).ndim == 0
    compile_encoder(tower, backend="eager")
    close(way(views), plain)


def test_on_a_cpu_and_in_copies_the_modules_do_the_work():
    tower = build_siglip(
        VisionConfig(image_size=35, patch_size=9, width=48, num_blocks=1, num_heads=3, mlp_width=80, gelu="tanh")
    ).eval()
    assert use_tower_kernels(tower) == []
    tower.path = Graphed(torch.abs, most=1, modules=[tower])
    views = torch.randn(1, 3, 35, 35)
    assert torch.equal(tower(views), tower.plainly(views))
    assert compile_encoder(tower, backend="eager") == 0  # it has a faster way
    assert copy.deepcopy(tower).path is None


def test_without_a_gpu_nothing_is_recorded():
    work = Graphed(torch.abs, most=2)
    for _ in range(3):
        assert work(torch.tensor([-1.0])).item() == 1.0
    assert work.num_recorded == 0


@pytest.mark.gpu
@on_gpu
def test_a_recorded_function_follows_its_numbers_and_its_weights():
    layer = torch.nn.Linear(8, 8).cuda().requires_grad_(False)
    work = Graphed(layer, most=2, modules=[layer])
    for index in range(4):
        x = numbers(2, 8)
        found = work(x)
        assert torch.equal(found, layer(x))
        assert work.num_recorded == (index > 0)
    kept = found.clone()
    work(numbers(2, 8))
    assert torch.equal(found, kept)
    layer.weight = torch.nn.Parameter(numbers(8, 8), requires_grad=False)
    for _ in range(3):
        x = numbers(2, 8)
        assert torch.equal(work(x), layer(x))
    work(numbers(3, 8))
    assert work.num_recorded == 1


@pytest.mark.gpu
@on_gpu
def test_no_thread_records_in_its_first_call():
    """It would set up cuBLAS meanwhile, which breaks the recording."""
    layer, x = torch.nn.Linear(8, 8).cuda().requires_grad_(False), numbers(2, 8)
    work, found = Graphed(layer, most=2, modules=[layer]), []
    work(x)
    thread = threading.Thread(target=lambda: found.extend((work(x), work.num_recorded) for _ in range(2)))
    thread.start()
    thread.join()
    assert [count for _, count in found] == [0, 1]
    assert all(torch.equal(each, layer(x)) for each, _ in found)


@pytest.mark.gpu
@on_gpu
@torch.inference_mode()
def test_towers_and_pictures_in_bfloat16_run_with_kernels():
    for module, shape in ((siglip(), (1, 3, 35, 35)), (sam(), (1, 3, 96, 96))):
        module.bfloat16()
        views = numbers(*shape).bfloat16()
        plain = module(views).float()
        assert use_tower_kernels(module) == [type(module).__name__]
        for _ in range(3):
            assert (module(views).float() - plain).norm() < 5e-2 * plain.norm()
    painter = tokenizer().bfloat16()
    codes = torch.arange(20, device=DEVICE)[None]
    plain = painter.decode(codes, (4, 5))
    assert use_tower_kernels(painter) == ["VQTokenizer"]
    first = painter.decode(codes, (4, 5))
    assert (first - plain).norm() < 0.1 * plain.norm()
    assert torch.equal(painter.decode(codes, (4, 5)), painter.decode(codes.repeat(2, 1), (4, 5))[1:])


@starts_interpreter
def test_tower_kernels_in_the_interpreter():
    run_in_interpreter(__file__)


def test_a_way_that_fails_later_gives_way_to_the_modules_for_good():
    tower, tried = torch.nn.Linear(2, 2), []

    def path(given):
        tried.append(len(given))
        if len(given) == 1:
            raise RuntimeError("no such kernel")
        return given + 1

    way = Guarded(tower, path, lambda given: given + 2)
    assert way(torch.zeros(2)).tolist() == [1, 1]
    tower.double()  # not what was checked
    assert way(torch.zeros(2)).tolist() == [2, 2]
    tower.float()
    with pytest.warns(UserWarning, match=r"Linear runs without kernels of its own from here on: they fail on \(1,\) "):
        assert way(torch.zeros(1)).tolist() == [2]
    assert way(torch.zeros(2)).tolist() == [2, 2]
    assert tried == [2, 1]


def test_what_a_way_gives_may_be_trained_on():
    tower = torch.nn.Linear(2, 2)
    way = Guarded(tower, Graphed(torch.abs, most=2), torch.abs)
    with torch.no_grad():
        features = way(torch.ones(2, 2))
    tower(features).sum().backward()
    assert tower.weight.grad is not None
    tower.path = way
    release_graphs(tower)
