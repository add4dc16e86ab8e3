"""Prompts on a GPU: padded, several in one call, replayed; the numbers of calls launched alone."""

import copy
import threading
from dataclasses import replace

import pytest
import torch

from mm.devices import steady_attention
from mm.language.decoder import Decoder
from mm.language.moe import grouped_is_static
from mm.transforms.fuse import fuse
from mm.transforms.kernels import use_kernels
from tests.generation.conftest import build_decoder
from tests.generation.test_prefill import new_prompts
from tests.generation.tiny import new_engine, plain_greedy, text_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def suited(*, latent, experts, dtype, std=0.3, **sizes):
    """A tiny decoder of sizes that the kernels take. Of three layers: the last one's experts see few tokens."""
    config = build_decoder(latent=latent).config
    attention = config.attention
    attention = replace(attention, qk_rope_head_dim=16) if latent else replace(attention, head_dim=16)
    moe = replace(config.moe, **experts) if experts is not None else None
    torch.manual_seed(0)
    model = Decoder(replace(config, num_layers=3, attention=attention, moe=moe, max_positions=4096, **sizes))
    model = model.eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=std)
    return model.to("cuda", dtype)


def with_kernels(**options):
    """With the modules, and with the kernels."""
    plain = suited(**options)
    fast = copy.deepcopy(plain)
    fuse(fast)
    assert use_kernels(fast) is None
    return plain, fast


@pytest.fixture(params=[True, False], ids=["latent", "heads"])
def dense(request):
    plain, fast = with_kernels(latent=request.param, experts=None, dtype=torch.float32)
    assert fast.joins_prompts
    return plain, fast


@pytest.fixture(params=[True, False], ids=["latent", "heads"])
def mixed(request):
    if not grouped_is_static(torch.device("cuda"), torch.bfloat16):
        pytest.skip("torch's grouped product waits for the host on this GPU")
    return with_kernels(latent=request.param, experts={}, dtype=torch.bfloat16)


def ask(engine, new_row, prompts, **options):
    """All at once, from a thread each; the tokens."""
    rows = [new_row(prompt, detect_loops=False, **options) for prompt in prompts]
    work = [
        threading.Thread(target=lambda p=p, row=row: engine.submit(text_inputs(p), row).result())
        for p, row in zip(prompts, rows, strict=True)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    return [row.tokens for row in rows]


def test_prompts_are_replays_from_their_third_time_on_and_equal_a_loop_without_a_cache(dense, new_row):
    plain, fast = dense
    with new_engine(fast) as engine:
        for round_ in range(6):  # until the cache has grown to what it keeps
            ask(engine, new_row, [new_prompts(6, [700])[round_]], max_new_tokens=1)
        before = engine.graphs.num_recorded, engine.graphs.replays
        for round_ in range(3):
            (prompt,) = new_prompts(1, [600 + round_])
            assert ask(engine, new_row, [prompt], max_new_tokens=1) == [plain_greedy(plain, prompt, 1)]
            done = engine.graphs.num_recorded - before[0], engine.graphs.replays - before[1]
            assert done == [(0, 0), (1, 1), (1, 2)][round_]
        later = [*prompt, *new_prompts(1, [50])[0]]
        for round_ in range(3):
            turn = [*later, round_]
            assert ask(engine, new_row, [turn], max_new_tokens=1) == [plain_greedy(plain, turn, 1)]
        assert engine.graphs.num_recorded - before[0] == 2  # with something before it


def test_many_prompts_at_once(dense, new_row):
    plain, fast = dense
    with new_engine(fast) as engine:
        for _ in range(3):
            prompts = [*new_prompts(9, range(130, 250)), *new_prompts(5, range(3, 100))]
            found = ask(engine, new_row, prompts, max_new_tokens=4)
            assert found == [plain_greedy(plain, prompt, 4) for prompt in prompts]
        assert engine.graphs.replays > 0


def test_long_prompts_in_pieces(dense, new_row):
    plain, fast = dense
    prompts = new_prompts(3, range(700, 800))
    with new_engine(fast, chunk=256) as engine:
        for _ in range(2):
            assert ask(engine, new_row, prompts, max_new_tokens=3) == [plain_greedy(plain, p, 3) for p in prompts]


def states(model, blocks, rows, tokens, *, length=520):
    """Hidden states (N, D), and what is in the cache of each prompt."""
    cache = model.new_cache(len(blocks) + 2, length)
    embeds = torch.full((len(blocks), tokens, blocks[0].shape[1]), torch.nan, device="cuda", dtype=blocks[0].dtype)
    for place, block in zip(embeds, blocks, strict=True):
        place[: len(block)] = block
    numbers = torch.tensor([rows, [0] * len(rows), [len(block) for block in blocks]], device="cuda")
    with torch.inference_mode(), steady_attention(embeds.device):  # as in the engine's thread
        found = model.prompts(embeds, rows=numbers[0], starts=numbers[1], counts=numbers[2], cache=cache)
    kept = [
        [tensor[row, : len(block)] for layer in cache.layers for tensor in layer.tensors]
        for row, block in zip(rows, blocks, strict=True)
    ]
    return found, kept


def check_company(model, lengths, rows, tokens):
    """To the bit what each prompt has alone."""
    generator = torch.Generator().manual_seed(0)
    width = model.config.hidden_size
    blocks = [torch.randn(n, width, generator=generator).to("cuda", torch.bfloat16) for n in lengths]
    together, kept = states(model, blocks, rows, tokens)
    for index, block in enumerate(blocks):
        alone, own = states(model, [block], [1], tokens)
        assert torch.equal(alone[0], together[index])
        assert all(map(torch.equal, own[0], kept[index]))


def test_numbers_in_bfloat16_do_not_depend_on_who_else_is_there(mixed):
    _, model = mixed
    assert model.joins_prompts
    check_company(model, (250, 256, 200, 129), [3, 0, 4, 1], 256)


@pytest.mark.parametrize("latent", [True, False], ids=["latent", "heads"])
def test_numbers_do_not_depend_on_the_company_where_libraries_would_choose_otherwise(latent):
    """Alone torch's flash attention splits keys and its grouped product has 64 rows an expert; eight are too many for
    the one and more than 128 for the other."""
    if not grouped_is_static(torch.device("cuda"), torch.bfloat16):
        pytest.skip("torch's grouped product waits for the host on this GPU")
    from mm.language.fast_decode import FastDecode

    experts = {"num_experts": 16, "expert_width": 128}
    model = suited(latent=latent, experts=experts, dtype=torch.bfloat16, std=0.1, hidden_size=256)
    fuse(model)
    model.path = FastDecode(model)
    check_company(model, (512, 500, 450, 400, 512, 390, 511, 385), [7, 0, 4, 1, 2, 6, 3, 9], 512)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_prompts_do_not_wait_for_the_device(mixed):
    _, model = mixed
    blocks = [torch.randn(n, 32).to("cuda", torch.bfloat16) for n in (250, 200)]
    cache = model.new_cache(3, 512)
    embeds = torch.zeros(2, 256, 32, device="cuda", dtype=torch.bfloat16)
    rows, starts, counts = torch.tensor([[1, 0], [0, 0], [len(b) for b in blocks]], device="cuda")
    for visible in (None, 512):
        for mode in ("default", "error"):  # the first time libraries set themselves up
            torch.cuda.set_sync_debug_mode(mode)
            try:
                with torch.inference_mode(), steady_attention(embeds.device):
                    model.prompts(embeds, rows=rows, starts=starts, counts=counts, cache=cache, visible=visible)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_replayed_prompts_in_bfloat16_are_those_launched_anew(mixed, new_row):
    _, model = mixed
    prompts = new_prompts(12, range(130, 250))
    with new_engine(model, graphs=False) as engine:
        expected = [ask(engine, new_row, [prompt], max_new_tokens=1)[0] for prompt in prompts]
    with new_engine(model) as engine:
        for _ in range(3):
            engine._scheduler.slots.distrust()
            assert ask(engine, new_row, prompts, max_new_tokens=1) == expected
        assert engine.graphs.replays > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_later_pieces_with_shared_heads_hold_no_scores(dtype):
    """Torch's plain attention would take 4 times as much for the scores alone."""
    from mm.language.attention import attend

    query = torch.randn(1, 2048, 32, 64, device="cuda", dtype=dtype)
    key, value = (torch.randn(1, 4096, 4, 64, device="cuda", dtype=dtype) for _ in range(2))
    mask = torch.arange(4096, device="cuda") <= torch.arange(2048, 4096, device="cuda")[:, None]
    with torch.inference_mode(), steady_attention(query.device):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = attend(query, key, value, mask[None, None], scale=0.125)
        assert torch.cuda.max_memory_allocated() - before < 32 * 2048 * 4096 * 2
        widened = [part.repeat_interleave(8, dim=2).transpose(1, 2).double() for part in (key, value)]
        scores = (query.transpose(1, 2).double() @ widened[0].transpose(2, 3) * 0.125).masked_fill(~mask, -torch.inf)
        expected = (scores.softmax(-1) @ widened[1]).transpose(1, 2)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
