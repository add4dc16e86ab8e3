"""The text loop against a plain greedy loop without a cache, and everything a batch must not change."""

import copy
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mm.errors import TaskError
from mm.generation.sampling import BatchSampler, SamplingOptions
from mm.generation.text import decode_step, generate, prefill

PROMPTS = [list(range(1, 60)), [7, 8, 9], list(range(100, 130)), [5]]


def embed(decoder, ids):
    return decoder.embed(torch.tensor([ids]))[0]


def run(decoder, rows, prompts, **options):
    pieces = list(generate(decoder, [embed(decoder, ids) for ids in prompts], rows, **options))
    return ["".join(parts) for parts in zip(*pieces, strict=True)]


def plain_greedy(decoder, ids, count):
    ids = list(ids)
    for _ in range(count):
        hidden = decoder(decoder.embed(torch.tensor([ids])))
        ids.append(decoder.logits(hidden[:, -1]).argmax().item())
    return ids[-count:]


def test_cached_greedy_equals_running_everything_again(decoder, new_row):
    for prompt in PROMPTS:
        row = new_row(prompt)
        text = run(decoder, [row], [prompt])
        assert row.tokens == plain_greedy(decoder, prompt, 16)
        assert text == [bytes(t % 256 for t in row.tokens).decode("utf-8", "replace")]
        assert row.finish_reason == "length"


def test_an_answer_may_cross_the_blocks_of_visible_slots(decoder, new_row):
    row = new_row(PROMPTS[0], max_new_tokens=220, detect_loops=False)
    run(decoder, [row], PROMPTS[:1])
    assert row.tokens == plain_greedy(decoder, PROMPTS[0], 220)


@pytest.mark.parametrize("chunk", [1, 7, 29, 59, 60, 512])
def test_chunked_prefill_equals_whole(decoder, new_row, chunk):
    rows = [new_row(prompt) for prompt in PROMPTS]
    run(decoder, rows, PROMPTS, chunk=chunk)
    assert [row.tokens for row in rows] == [plain_greedy(decoder, prompt, 16) for prompt in PROMPTS]


def test_chunked_logits_equal_whole_logits(decoder):
    embeds = embed(decoder, PROMPTS[0])
    whole = prefill(decoder, [embeds], 0, 59, decoder.new_cache(1, 64))
    cache = decoder.new_cache(1, 64)
    parts = [prefill(decoder, [embeds], a, b, cache) for a, b in ((0, 20), (20, 21), (21, 59))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_a_batch_of_different_lengths_and_options_equals_single_runs(decoder, new_row):
    options = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 40, "temperature": 0.9, "seed": 11},
        {"max_new_tokens": 30, "temperature": 1.2, "top_p": 0.8, "top_k": 20, "seed": 12, "repetition_penalty": 1.3},
        {"max_new_tokens": 25, "no_repeat_ngram_size": 2, "repetition_penalty": 0.8, "logprobs": True},
    ]
    together = [new_row(prompt, **option) for prompt, option in zip(PROMPTS, options, strict=True)]
    texts = run(decoder, together, PROMPTS)
    for row, text, prompt, option in zip(together, texts, PROMPTS, options, strict=True):
        alone = new_row(prompt, **option)
        assert run(decoder, [alone], [prompt]) == [text]
        assert alone.tokens == row.tokens
        assert alone.finish_reason == row.finish_reason == "length"
        assert len(row.tokens) == option["max_new_tokens"]
        torch.testing.assert_close(torch.tensor(row.logprobs), torch.tensor(alone.logprobs), atol=1e-4, rtol=1e-4)


def test_rows_end_on_their_own(decoder, new_row):
    free = [plain_greedy(decoder, prompt, 16) for prompt in PROMPTS]
    end = free[1][4]
    rows = [new_row(prompt, end_ids=[end]) for prompt in PROMPTS]
    run(decoder, rows, PROMPTS)
    for row, tokens in zip(rows, free, strict=True):
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        assert row.tokens == expected
        assert row.finish_reason == ("stop" if end in tokens else "length")


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(decoder, new_row):
    rows = [new_row(PROMPTS[2], temperature=1.0, seed=seed, max_new_tokens=30) for seed in (1, 1, 2)]
    run(decoder, rows, [PROMPTS[2]] * 3)
    assert rows[0].tokens == rows[1].tokens != rows[2].tokens


def test_repetition_penalty_counts_the_prompt(decoder, new_row):
    prompt = PROMPTS[2]
    first = plain_greedy(decoder, prompt, 1)[0]
    row = new_row([*prompt, first], repetition_penalty=1e9, max_new_tokens=20)
    run(decoder, [row], [prompt])
    assert first not in row.tokens
    assert len(set(row.tokens)) == 20


def test_a_constraint_narrows_its_own_row_only(decoder, new_row):
    class EvenTokens:
        open = False

        def allowed(self):
            return torch.arange(300) % 2 == 0

        def advance(self, token):
            assert token % 2 == 0

    rows = [new_row(PROMPTS[0], constraint=EvenTokens()), new_row(PROMPTS[0])]
    run(decoder, rows, PROMPTS[:1] * 2)
    assert all(token % 2 == 0 for token in rows[0].tokens)
    assert rows[1].tokens == plain_greedy(decoder, PROMPTS[0], 16)


class CancelAfter:
    def __init__(self, calls):
        self.calls = calls

    def is_set(self):
        self.calls -= 1
        return self.calls < 0


def test_cancel_is_honoured_within_one_step_of_prefill_and_of_decoding(decoder, new_row):
    row = new_row(PROMPTS[0], max_new_tokens=100)
    run(decoder, [row], PROMPTS[:1], chunk=10, cancel=CancelAfter(3))
    assert (row.finish_reason, row.tokens) == ("cancelled", [])

    token, rows = threading.Event(), [new_row(p, max_new_tokens=100) for p in PROMPTS]
    steps = generate(decoder, [embed(decoder, p) for p in PROMPTS], rows, cancel=token)
    for _ in range(5):
        next(steps)
    token.set()
    list(steps)
    assert [len(row.tokens) for row in rows] == [5] * 4
    assert {row.finish_reason for row in rows} == {"cancelled"}


def test_cancel_gives_out_text_that_was_held_back(decoder, new_row):
    row = new_row(PROMPTS[1], max_new_tokens=100, stop=("aab",), decode=lambda tokens: "a" * len(tokens))
    texts = run(decoder, [row], [PROMPTS[1]], cancel=CancelAfter(5))
    assert texts == ["aaaa"]


def test_output_that_is_not_a_number_is_an_error(decoder, new_row):
    row = new_row(PROMPTS[1])
    broken = torch.full((3, 32), torch.nan)
    with pytest.raises(TaskError, match=r"token 1 of the answer is not a number.*dtype='bfloat16'"):
        list(generate(decoder, [broken], [row]))


def test_the_callers_embeddings_are_unchanged(decoder, new_row):
    embeds = [embed(decoder, prompt) for prompt in PROMPTS]
    before = [values.clone() for values in embeds]
    list(generate(decoder, embeds, [new_row(prompt) for prompt in PROMPTS]))
    for values, kept in zip(embeds, before, strict=True):
        torch.testing.assert_close(values, kept, rtol=0, atol=0)


def test_decode_steps_may_run_on_fewer_threads_than_the_rest(decoder, new_row):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    hook = decoder.lm_head.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        row = new_row(PROMPTS[0], max_new_tokens=4)
        run(decoder, [row], PROMPTS[:1], decode_threads=1)
        assert seen == [2, 1, 1, 1]  # prefill, then three steps
        assert torch.get_num_threads() == 2
    finally:
        hook.remove()
        torch.set_num_threads(before)


class ShapesAndSyncs(TorchDispatchMode):
    """Records every operator with its shapes, and those that would wait for a device."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else None
        self.calls.append((str(func), shape))
        return out


def test_a_step_reads_nothing_back_and_its_shapes_do_not_depend_on_data(decoder):
    options = SamplingOptions(temperature=0.7, top_p=0.9, top_k=9, repetition_penalty=1.2, no_repeat_ngram_size=3)
    records = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        sampler, cache = BatchSampler(2, 300, 32, torch.device("cpu")), decoder.new_cache(2, 64)
        for row in range(2):
            sampler.place(row, options, torch.randint(0, 300, (5,)))
        tokens, positions = torch.randint(0, 300, (2,)), torch.randint(0, 30, (2,))
        with torch.inference_mode(), ShapesAndSyncs() as mode:
            logits = decode_step(decoder, tokens, positions, cache, 64)
            sampler(logits, torch.rand(2))
        records.append(mode.calls)
    assert records[0] == records[1]
    names = {name for name, _ in records[0]}
    waits = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique")
    assert not [name for name in names if any(wait in name for wait in waits)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_on_a_gpu_never_waits_and_can_be_captured(decoder):
    device = torch.device("cuda")
    moved = copy.deepcopy(decoder).to(device)
    options = SamplingOptions(temperature=0.7, top_p=0.9, top_k=9, repetition_penalty=1.2, no_repeat_ngram_size=3)
    sampler, cache = BatchSampler(2, 300, 32, device), moved.new_cache(2, 64)
    for row in range(2):
        sampler.place(row, options, torch.arange(5))
    tokens, positions = torch.tensor([4, 7], device=device), torch.tensor([9, 20], device=device)
    uniforms = torch.tensor([0.3, 0.8], device=device)

    @torch.inference_mode()
    def step():
        return sampler(decode_step(moved, tokens, positions, cache, 64), uniforms)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries set themselves up
            step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        expected = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    for row in range(2):
        sampler.place(row, options, torch.arange(5))
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(4):
        graph.replay()
    assert captured.tolist() == expected.tolist()
