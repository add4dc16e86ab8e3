"""Every kernel against the plain function that it equals, and the whole step against the modules.

On a machine without CUDA the kernels run in Triton's interpreter (``tests/triton_kernels.py``).
"""

import re
from contextlib import contextmanager

import pytest
import torch

from mm.config import DecoderConfig, LatentAttentionConfig
from mm.language.decoder import Decoder
from mm.language.packing import pack
from mm.transforms.fuse import fuse, unfuse
from mm.transforms.kernels import _check_prompts, deviation, fault, prompts_deviation, use_kernels
from tests.language.tiny import MHA, PLAIN_ROPE, decoder, moe
from tests.triton_kernels import DEVICE, INTERPRETED, run_in_interpreter, runs, starts_interpreter

# In the interpreter numpy warns of what the kernels do on purpose (exp of -inf, sums with nan).
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

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
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("rows", [1, 3, 6])
def test_products_with_weights_of_one_byte(rows, kind):
    x, bias = numbers(rows, 96), numbers(26)
    weight, scale = pack(numbers(26, 96, scale=0.1), kind)
    close(kernels.linear(x, weight, bias, scale), kernels.linear_plain(x, weight, bias, scale))
    close(kernels.linear(x, weight, None, scale), kernels.linear_plain(x, weight, None, scale))
    if rows <= kernels.MAX_ROWS:
        close(kernels.gated(x, weight, scale), kernels.gated_plain(x, weight, scale))


@runs
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("rows", [2, 6])
def test_experts_with_weights_of_one_byte(rows, kind):
    joint, first = pack(numbers(6, 96, 32, scale=0.3), kind)
    down, second = pack(numbers(6, 32, 48, scale=0.3), kind)
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
@pytest.mark.parametrize("rows", [1, 3])
def test_experts_and_the_mlp_that_every_token_passes(rows):
    joint, down = numbers(6, 96, 32, scale=0.3), numbers(6, 32, 48, scale=0.3)
    shared = numbers(2 * 2 * 48, 32, scale=0.3), numbers(32, 2 * 48, scale=0.3)
    x, chosen = numbers(rows, 32), torch.stack([torch.randperm(6)[:3] for _ in range(rows)]).to(DEVICE)
    arguments = x, joint, down, chosen, torch.rand(rows, 3).to(DEVICE), None, None, shared
    close(kernels.experts(*arguments), kernels.experts_plain(*arguments))


@runs
def test_the_router_chooses_what_its_products_say():
    x, router = numbers(7, 130), numbers(11, 130, scale=0.2)
    options = {"softmax": True, "normalize": True, "scale": 1.5}
    found = kernels.choose(x, router, 3, **options)
    expected = kernels.route_plain(kernels.router_plain(x, router), 3, **options)
    assert torch.equal(found[0], expected[0])
    close(found[1], expected[1])


@runs
@pytest.mark.parametrize("tokens", [1, 900])
def test_pairs_by_expert(tokens):
    chosen = torch.stack([torch.randperm(9)[:3] for _ in range(tokens)]).to(DEVICE)
    for found, expected in zip(kernels.by_expert(chosen, 10), kernels.by_expert_plain(chosen, 10), strict=True):
        assert torch.equal(found, expected)


@runs
@pytest.mark.parametrize("values", [10, 20])
def test_expanded_keys_and_values(values):
    both, rope = numbers(5, 3, 12 + values), numbers(5, 40)[:, :8]
    for found, expected in zip(
        kernels.expanded(both, rope, values), kernels.expanded_plain(both, rope, values), strict=True
    ):
        assert torch.equal(found, expected)


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
    assert deviation(model, path, 1, 33) < 1e-5
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
@pytest.mark.parametrize("kind", ["heads", "latent-lora"])
def test_several_padded_prompts_are_those_of_the_modules(kind, monkeypatch):
    monkeypatch.setattr("mm.language.fast_decode.kernels.MAX_GROUPED_ROWS", 8)  # fewer programs to interpret
    monkeypatch.setattr("mm.transforms.kernels.CHECKED_PROMPT", 12)
    model = suited(kind)
    path = FastDecode(model)
    assert FastDecode.can_join(model) and path.joins_prompts
    assert prompts_deviation(model, path) < 1e-5
    blocks = [numbers(length, 32) for length in (8, 11)]
    embeds = torch.full((2, 12, 32), torch.nan, device=DEVICE)
    for place, block in zip(embeds, blocks, strict=True):
        place[: len(block)] = block
    rows, starts, counts = torch.tensor([[2, 1], [0, 0], [8, 11]], device=DEVICE)
    model.path = path
    found = model.prompts(embeds, rows=rows, starts=starts, counts=counts, cache=model.new_cache(3, 48))
    model.path = None
    for state, block in zip(found, blocks, strict=True):
        close(state, model(block[None], cache=model.new_cache(1, 48))[0, -1])


@runs
def test_prompts_that_differ_from_the_modules_are_taken_in_one_by_one(monkeypatch):
    model = suited("latent")
    path = FastDecode(model)
    monkeypatch.setattr("mm.transforms.kernels.prompts_deviation", lambda *_: 0.01)
    with pytest.warns(UserWarning, match=r"one by one, without graphs: several at once differ .* by 0.01 here"):
        _check_prompts(model, path)
    assert not path.joins_prompts
    path.joins_prompts = True
    monkeypatch.undo()
    monkeypatch.setattr(FastDecode, "takes", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match=r"one by one, without graphs: several at once fail here \(ZeroDivisionError"):
        _check_prompts(model, path)
    assert not path.joins_prompts


@runs
def test_a_size_that_is_left_to_the_modules_is_no_fault_but_a_step_that_is_not_taken_is(monkeypatch):
    monkeypatch.setattr("mm.transforms.kernels.CHECKED_SIZES", ((1, 1), (2, 40)))

    class Steps(FastDecode):
        """Takes no prompts, as with experts in float32 on a GPU."""

        def takes(self, embeds, step):
            return embeds.shape[1] == 1 and super().takes(embeds, step)

    model = suited("heads")
    path = Steps(model)
    assert deviation(model, path, 2, 40) is None
    assert fault(model, path) is None
    path.feed = lambda index, h, parts: 1.01 * FastDecode.feed(path, index, h, parts)
    assert re.match(r"they differ from the modules by 0.01 here at 1 x 1 tokens", fault(model, path))
    del path.feed
    unfuse(model)
    assert fault(model, path) == "they do not take a step of 1 rows: its weights are not joined, or trained"


@runs
def test_the_head_of_few_rows_wherever_they_lie():
    model = suited("dense")
    path, hidden = FastDecode(model), numbers(3, 5, 32)
    close(path.head(hidden[:, -1]), model.lm_head(hidden[:, -1]))
    assert path.head(hidden) is None  # 15 rows


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
    path, x, found = model.path, numbers(2, 1, 32).to("cuda:1"), []
    for model.path in (path, None):  # while the first GPU is the current one
        states = model(x, positions=torch.zeros(2, 1, dtype=torch.int64, device="cuda:1"), cache=model.new_cache(2, 8))
        found.append((states, model.logits(states)))
    for ours, modules in zip(*found, strict=True):
        close(ours, modules)


@runs
def test_steps_and_heads_are_launched_on_the_device_of_what_they_are_given(monkeypatch):
    model, current, launches = suited("heads"), [], []
    path = FastDecode(model)

    @contextmanager
    def on_device(given):
        current.append(given.device)
        yield
        current.clear()

    def watched(work):
        def launch(x, *others, **options):
            launches.append(current == [x.device])
            return work(x, *others, **options)

        return launch

    monkeypatch.setattr("mm.language.fast_decode.on_device", on_device)
    for name in ("add_norm", "linear", "attention", "experts"):
        monkeypatch.setattr(kernels, name, watched(getattr(kernels, name)))
    model.path, cache = path, model.new_cache(1, 8)
    states = model(numbers(1, 1, 32), positions=torch.zeros(1, 1, dtype=torch.int64, device=DEVICE), cache=cache)
    count = len(launches)
    model.logits(states)
    assert count > 10 and len(launches) == count + 1 and all(launches) and not current


def test_without_a_gpu_the_modules_do_the_work():
    model = decoder("mha-dense")
    assert use_kernels(model) == "they are for NVIDIA GPUs"
    assert model.path is None


@starts_interpreter
def test_kernels_in_the_interpreter():
    run_in_interpreter(__file__)
