"""Every kernel against the plain function that it equals, and the whole step against the modules.

On a machine without CUDA the kernels run in Triton's interpreter, which must be asked for before triton is imported:
the checks then run in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm.config import DecoderConfig, LatentAttentionConfig
from mm.language.decoder import Decoder
from mm.language.int8 import to_int8
from mm.transforms.fuse import fuse
from mm.transforms.kernels import deviation, use_kernels
from tests.language.tiny import MHA, PLAIN_ROPE, decoder, moe

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# In the interpreter numpy warns of what the kernels do on purpose (exp of -inf, sums with nan).
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
runs = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="no CUDA device; see the last test of this file")

if DEVICE == "cuda" or INTERPRETED:
    kernels = pytest.importorskip("mm.language.decode_kernels")
    from mm.language.fast_decode import FastDecode


def numbers(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).to(DEVICE)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@runs
@pytest.mark.parametrize("rows,width", [(1, 48), (5, 130)])
def test_add_norm(rows, width):
    x, delta, weight = numbers(rows, width), numbers(rows, width), numbers(width)
    for found, expected in zip(
        kernels.add_norm(x, delta, weight, 1e-6), kernels.add_norm_plain(x, delta, weight, 1e-6), strict=True
    ):
        close(found, expected)
    close(kernels.add_norm(x, None, weight, 1e-6)[1], kernels.add_norm_plain(x, None, weight, 1e-6)[1])


@runs
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_products_of_few_rows(rows):
    x, weight, bias = numbers(rows, 1100), numbers(26, 1100, scale=0.1), numbers(26)
    close(kernels.linear(x, weight, bias), kernels.linear_plain(x, weight, bias))
    close(kernels.linear(x, weight), kernels.linear_plain(x, weight))
    close(kernels.gated(x, weight), kernels.gated_plain(x, weight))
    close(kernels.silu_mul(x), kernels.silu_mul_plain(x))


@runs
@pytest.mark.parametrize("rows", [1, 3, 6])
def test_products_with_weights_of_one_byte(rows):
    x, bias = numbers(rows, 96), numbers(26)
    weight, scale = to_int8(numbers(26, 96, scale=0.1))
    close(kernels.linear(x, weight, bias, scale), kernels.linear_plain(x, weight, bias, scale))
    close(kernels.linear(x, weight, None, scale), kernels.linear_plain(x, weight, None, scale))
    if rows <= kernels.MAX_ROWS:
        close(kernels.gated(x, weight, scale), kernels.gated_plain(x, weight, scale))


@runs
@pytest.mark.parametrize("rows", [2, 6])
def test_experts_with_weights_of_one_byte(rows):
    joint, first = to_int8(numbers(6, 96, 32, scale=0.3))
    down, second = to_int8(numbers(6, 32, 48, scale=0.3))
    x, chosen = numbers(rows, 32), torch.stack([torch.randperm(5)[:3] for _ in range(rows)]).to(DEVICE)
    arguments = x, joint, down, chosen, torch.rand(rows, 3).to(DEVICE), numbers(rows, 32), (first, second)
    close(kernels.experts(*arguments), kernels.experts_plain(*arguments))


@runs
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_route(softmax, normalize):
    options = {"softmax": softmax, "normalize": normalize, "scale": 1.5}
    logits = numbers(5, 11)
    found, expected = (route(logits, 3, **options) for route in (kernels.route, kernels.route_plain))
    assert torch.equal(found[0], expected[0])
    close(found[1], expected[1])
    experts, _ = kernels.route(torch.full((2, 11), torch.nan, device=DEVICE), 3, **options)
    assert ((experts >= 0) & (experts < 11)).all()  # an index out of range would end the process


@runs
@pytest.mark.parametrize("rows,extra", [(1, True), (4, False), (5, False), (17, True)])
def test_experts(rows, extra):
    joint, down = numbers(6, 96, 32, scale=0.3), numbers(6, 32, 48, scale=0.3)
    x, chosen = numbers(rows, 32), torch.stack([torch.randperm(5)[:3] for _ in range(rows)]).to(DEVICE)
    weights, more = torch.rand(rows, 3).to(DEVICE), numbers(rows, 32) if extra else None
    arguments = x, joint, down, chosen, weights, more
    close(kernels.experts(*arguments), kernels.experts_plain(*arguments))


@runs
@pytest.mark.parametrize("groups,slots", [(4, 300), (2, 37)])
def test_attention(groups, slots):
    keys, values, query = numbers(3, slots, groups, 16), numbers(3, slots, groups, 16), numbers(3, 4, 16)
    positions = torch.tensor([0, slots - 1, slots // 2], device=DEVICE)
    found = kernels.attention(query, keys, values, positions, scale=0.25)
    close(found, kernels.attention_plain(query, keys, values, positions, scale=0.25))
    seen = keys[:, : slots - 5], values[:, : slots - 5]  # a view, as of a cache, and a row that nobody reads
    assert kernels.attention(query, *seen, positions, scale=0.25).isfinite().all()


@runs
def test_rotate_and_store():
    joint, angles = numbers(3, (4 + 2 * 2) * 16), numbers(3, 8)
    cos, sin = (torch.cat((f, f), dim=-1).contiguous() for f in (angles.cos(), angles.sin()))
    positions = torch.tensor([0, 5, 2], device=DEVICE)
    keys, values = numbers(3, 7, 2, 16), numbers(3, 7, 2, 16)
    before = keys.clone(), values.clone()
    query = kernels.rotate_and_store(joint, cos, sin, positions, keys, values, 4)
    heads = joint.unflatten(-1, (-1, 16))
    first, second = heads.chunk(2, dim=-1)
    turned = heads * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    rows = torch.arange(3)
    close(query, turned[:, :4])
    before[0][rows, positions] = turned[:, 4:6]
    before[1][rows, positions] = heads[:, 6:]
    close(keys, before[0])
    close(values, before[1])


@runs
def test_store_latent():
    query, compressed, weight = numbers(3, 4, 24)[..., 8:], numbers(3, 100)[:, :48], numbers(32)
    angles = numbers(3, 8)
    cos, sin = (torch.cat((f, f), dim=-1).contiguous() for f in (angles.cos(), angles.sin()))
    positions = torch.tensor([0, 5, 2], device=DEVICE)
    caches = [numbers(3, 7, 48)]
    caches.append(caches[0].clone())
    found, expected = (
        store(query, compressed, weight, 1e-6, cos, sin, positions, cache)
        for store, cache in zip((kernels.store_latent, kernels.store_latent_plain), caches, strict=True)
    )
    close(found, expected)
    close(*caches)


@runs
def test_combine():
    output, places = numbers(12, 40), torch.randperm(12).view(4, 3).to(DEVICE)
    weights, extra = torch.rand(4, 3).to(DEVICE), numbers(4, 40)
    close(kernels.combine(output, places, weights, extra), kernels.combine_plain(output, places, weights, extra))
    close(kernels.combine(output, places, weights, None), kernels.combine_plain(output, places, weights, None))


@runs
@pytest.mark.parametrize("heads,slots", [(4, 300), (18, 37)])
def test_latent_attention(heads, slots):
    nope, rope, cache = numbers(3, heads, 32), numbers(3, heads, 16), numbers(3, slots, 48)
    positions = torch.tensor([0, slots - 1, slots // 2], device=DEVICE)
    arguments = {"scale": 0.2}
    found = kernels.latent_attention(
        nope.transpose(0, 1).contiguous().transpose(0, 1), rope, cache, positions, **arguments
    )
    close(found, kernels.latent_attention_plain(nope, rope, cache, positions, **arguments))


def suited(kind: str) -> Decoder:
    """A decoder of sizes that the kernels take."""
    latent = LatentAttentionConfig(
        num_heads=4,
        q_lora_rank=24 if kind == "latent-lora" else None,
        kv_lora_rank=32,
        qk_nope_head_dim=12,
        qk_rope_head_dim=16,
        v_head_dim=10,
        bias=kind == "latent-lora",
    )
    config = DecoderConfig(
        vocab_size=50,
        hidden_size=32,
        mlp_width=48,
        num_layers=2,
        rms_norm_eps=1e-6,
        max_positions=64,
        rope=PLAIN_ROPE,
        attention=MHA if kind == "heads" else latent,
        moe=None if kind == "dense" else moe(scoring="sigmoid" if kind == "latent-lora" else "softmax"),
    )
    torch.manual_seed(1)
    model = Decoder(config).eval().requires_grad_(False).to(DEVICE)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    fuse(model)
    return model


@runs
@pytest.mark.parametrize("kind,rows", [("heads", 1), ("latent-lora", 5)])
def test_a_whole_step_is_that_of_the_modules(kind, rows):
    model = suited(kind)
    assert FastDecode.suits(model) is None
    path = FastDecode(model)
    assert deviation(model, path, rows) < 1e-5
    assert deviation(model, path, 2, 40) < 1e-5
    found = []
    for used in (None, path):
        torch.manual_seed(2)
        cache = model.new_cache(rows, 40)
        model.path = used
        steps = [model(numbers(rows, 14, 32), cache=cache)]
        for position in range(14, 15):
            positions = torch.arange(position, position + rows, device=DEVICE)[:, None]
            steps.append(model(numbers(rows, 1, 32), positions=positions, cache=cache, visible=24))
        found.append(torch.cat(steps, dim=1))
        model.path = None
    close(*found)


@runs
def test_weights_that_went_elsewhere_are_not_taken_from_where_they_were():
    model = suited("latent")
    path = FastDecode(model)
    cache = model.new_cache(1, 8)
    x = numbers(1, 1, 32)
    step = model.step_at(x, torch.tensor([[3]], device=DEVICE), cache)
    assert path.takes(x, step)
    product = model.model.layers[1].self_attn.o_proj
    model.model.layers[1].self_attn.o_proj = torch.nn.Sequential(product)  # such as an adapter around it
    assert not path.takes(x, step)
    model.model.layers[1].self_attn.o_proj = product
    assert path.takes(x, step)
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    assert not path.takes(x, step)


@runs
def test_what_the_kernels_are_not_made_for_is_told():
    told = FastDecode.suits(decoder("mla-greedy"))
    assert told == "latents of 24 + 8 numbers: powers of two from 16 on are needed"
    model = suited("heads")
    model.model.layers[1].mlp.dispatch = "dense"
    assert FastDecode.suits(model) == "experts computed in the form 'dense': 'auto' is needed"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_kernels_of_a_model_on_the_second_gpu():
    model = suited("heads").to("cuda:1")
    fuse(model)
    assert use_kernels(model) is None and model.path is not None


def test_without_a_gpu_the_modules_do_the_work():
    model = decoder("mha-dense")
    assert use_kernels(model) == "they are for NVIDIA GPUs"
    assert model.path is None


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="this is that process, or there is a GPU")
def test_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
