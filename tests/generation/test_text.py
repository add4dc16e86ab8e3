"""The two steps: a stretch of prompt, and one more token in every row."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mm.generation.sampling import BatchSampler, SamplingOptions
from mm.generation.text import decode_step, prefill

PROMPT = list(range(1, 60))


def test_chunked_hidden_states_equal_whole_ones(decoder):
    embeds = decoder.embed(torch.tensor([PROMPT]))[0]
    whole = prefill(decoder, embeds, 0, decoder.new_cache(1, 64))
    cache = decoder.new_cache(1, 64)
    parts = [prefill(decoder, embeds[a:b], a, cache) for a, b in ((0, 20), (20, 21), (21, 59))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_steps_after_a_prefill_equal_running_everything_again(decoder):
    cache = decoder.new_cache(2, 64)
    prompts = [PROMPT, PROMPT[:7]]
    for row, prompt in enumerate(prompts):
        prefill(decoder, decoder.embed(torch.tensor([prompt]))[0], 0, cache.rows(row, row + 1))
    for token in (5, 250, 17):
        positions = torch.tensor([len(prompt) for prompt in prompts])
        logits = decode_step(decoder, torch.tensor([token, token]), positions, cache, 64)
        prompts = [[*prompt, token] for prompt in prompts]
        for prompt, found in zip(prompts, logits, strict=True):
            hidden = decoder(decoder.embed(torch.tensor([prompt])))
            torch.testing.assert_close(found, decoder.logits(hidden[0, -1]), atol=1e-4, rtol=1e-4)


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
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 8])  # float32: gathered experts, then every expert
def test_a_step_on_a_gpu_never_waits_and_can_be_captured(decoder, dtype, rows):
    device = torch.device("cuda")
    moved = copy.deepcopy(decoder).to(device, dtype)
    options = SamplingOptions(temperature=0.7, top_p=0.9, top_k=9, repetition_penalty=1.2, no_repeat_ngram_size=3)
    sampler, cache = BatchSampler(rows, 300, 32, device), moved.new_cache(rows, 64)
    for row in range(rows):
        sampler.place(row, options, torch.arange(5))
    tokens = torch.arange(4, 4 + rows, device=device)
    positions = torch.arange(9, 9 + 3 * rows, 3, device=device)
    uniforms = torch.linspace(0.1, 0.9, rows, device=device)

    @torch.inference_mode()
    def step():
        return sampler(decode_step(moved, tokens, positions, cache, 64), uniforms)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries set themselves up
            step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        expected = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    moved.new_cache(rows, 512)  # another engine's: the tables of the positions stay where the graph finds them
    graph = torch.cuda.CUDAGraph()
    for row in range(rows):
        sampler.place(row, options, torch.arange(5))
    with torch.cuda.graph(graph):
        captured = step()
    moved.new_cache(rows, 1024)  # longer than the context
    for _ in range(4):
        graph.replay()
    assert captured.tolist() == expected.tolist()
