"""Options are checked before any work; choosing tokens follows transformers' rules and does not depend on the batch."""

import re

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mm.errors import OptionError
from mm.generation.sampling import BatchSampler, SamplingOptions, draw, largest

CPU = torch.device("cpu")


def sampler_of(*options: SamplingOptions, vocab: int = 50, length: int = 32, prompts=None) -> BatchSampler:
    sampler = BatchSampler(len(options), vocab, length, CPU)
    for row, option in enumerate(options):
        sampler.place(row, option, torch.tensor([0]) if prompts is None else prompts[row])
    return sampler


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected a whole number of 1 or more."),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; expected a whole number of 1 or more."),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
        ({"temperature": -0.1}, "temperature is -0.1; expected a number of 0 or more."),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number of 0 or more."),
        ({"top_p": 0.0}, "top_p is 0.0; expected a number above 0 and at most 1."),
        ({"top_p": 1.01}, "top_p is 1.01; expected a number above 0 and at most 1."),
        ({"top_k": -1}, "top_k is -1; expected a whole number of 0 or more."),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; expected a number above 0."),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size is -2; expected a whole number of 0 or more."),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 9223372036854775807."),
        ({"logprobs": 5}, "logprobs is 5; expected True or False."),
        ({"do_sample": "yes"}, "do_sample is 'yes'; expected True or False."),
        ({"stop": ("",)}, "expected a tuple of strings that are not empty"),
        ({"stop": "END"}, "stop is 'END'; expected a tuple of strings"),
        (
            {"do_sample": False, "temperature": 0.7},
            "do_sample=False asks for the most likely token, but temperature=0.7",
        ),
        ({"do_sample": False, "top_p": 0.9}, "top_p=0.9 is used by sampling only. Leave one of the two out."),
    ],
)
def test_a_bad_option_says_what_was_got_and_expected(options, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        SamplingOptions(**options)


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({}, False),
        ({"temperature": 0.7}, True),
        ({"temperature": 0.0}, False),
        ({"temperature": 0}, False),
        ({"top_p": 0.9}, True),
        ({"top_k": 40}, True),
        ({"top_k": 0}, False),
        ({"do_sample": True}, True),
        ({"do_sample": False}, False),
        ({"do_sample": True, "temperature": 0.0}, False),
        ({"temperature": 0.0, "top_p": 0.9}, False),
        ({"do_sample": False, "temperature": 0.0}, False),
        ({"seed": 3}, False),
    ],
)
def test_asking_for_a_sampling_option_means_sampling_and_temperature_zero_is_greedy(options, samples):
    assert SamplingOptions(**options).samples is samples


def test_repetition_penalty_and_processing_order_equal_transformers():
    torch.manual_seed(0)
    logits = torch.randn(3, 50) * 3
    history = torch.randint(0, 50, (3, 12))
    options = [SamplingOptions(repetition_penalty=p) for p in (1.0, 1.4, 0.7)]
    tokens, _ = sampler_of(*options, prompts=list(history))(logits, torch.zeros(3))
    for row, option in enumerate(options):
        expected = RepetitionPenaltyLogitsProcessor(option.repetition_penalty)(history[[row]], logits[[row]])
        assert tokens[row] == expected.argmax()


def test_repetition_penalty_covers_the_answer_too():
    sampler = sampler_of(SamplingOptions(repetition_penalty=2.0), vocab=4)
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    chosen = [sampler(logits, torch.zeros(1))[0].item() for _ in range(3)]
    assert chosen == [1, 2, 1]  # 3 > 2 > 1; then 1.5 < 2; then 1.5 > 1 and 1


def test_no_repeat_ngram_equals_transformers_over_the_answer_alone():
    torch.manual_seed(1)
    sizes = (0, 1, 2, 3, 4)
    sampler = sampler_of(*(SamplingOptions(no_repeat_ngram_size=n) for n in sizes), vocab=30, length=20)
    answers = [[] for _ in sizes]
    bias = torch.zeros(30)
    bias[:3] = 4.0  # three favourites, so that repeats are wanted
    for _ in range(20):
        logits = torch.randn(len(sizes), 30) + bias
        tokens, _ = sampler(logits, torch.zeros(len(sizes)))
        for row, size in enumerate(sizes):
            expected = logits[[row]]
            if size:
                history = torch.tensor([answers[row]], dtype=torch.int64)
                expected = NoRepeatNGramLogitsProcessor(size)(history, expected)
            assert tokens[row] == expected.argmax()
            answers[row].append(tokens[row].item())
    assert len(set(answers[1])) == 20  # with size 1 no token comes twice


def reference_distribution(logits, *, temperature, top_k, top_p):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)] if temperature != 1.0 else [])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return warpers(None, logits).softmax(-1)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 5, 1.0), (1.0, 0, 0.8), (1.3, 10, 0.6), (1.0, 1, 1.0), (1.0, 0, 1e-6)],
)
def test_draw_is_the_inverse_of_transformers_distribution(temperature, top_k, top_p):
    torch.manual_seed(2)
    logits = torch.randn(1, 40) * 2
    expected = reference_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)[0]
    # A fine regular grid of uniforms must hit every token in proportion to its probability.
    count = 20_000
    uniforms = (torch.arange(count) + 0.5) / count
    tokens = draw(
        logits.expand(count, -1),
        uniforms,
        torch.full((count, 1), temperature),
        torch.full((count, 1), top_k or 40),
        torch.full((count, 1), top_p),
    )
    frequencies = tokens.bincount(minlength=40) / count
    torch.testing.assert_close(frequencies, expected, atol=2 / count, rtol=1e-3)


def test_top_p_1_is_the_same_as_none_to_the_last_bit():
    logits, found = torch.randn(1, 8, 4096, generator=torch.Generator().manual_seed(0)), []
    for top_p in (None, 1.0):
        sampler = BatchSampler(1, 4096, 1, torch.device("cpu"))
        sampler.place(0, SamplingOptions(temperature=0.9, top_p=top_p), torch.tensor([0]), 1)
        found.append(sampler.distributions(logits, torch.tensor([0])))
    assert torch.equal(*found)


def test_the_largest_uniform_never_leaves_the_kept_tokens():
    logits = torch.tensor([[5.0, 4.0, -torch.inf, 3.0]])
    for uniform in (1.0 - 2**-24, 1.0):  # 1 stands for a target that rounding carried to the very end
        for top_k in (1, 2, 3, 4):
            uniforms = torch.tensor([uniform])
            token = draw(logits, uniforms, torch.ones(1, 1), torch.tensor([[top_k]]), torch.ones(1, 1)).item()
            assert token == {1: 0, 2: 1, 3: 3, 4: 3}[top_k]


def test_rows_of_a_mixed_batch_choose_as_they_would_alone():
    torch.manual_seed(3)
    options = [
        SamplingOptions(),
        SamplingOptions(temperature=0.8, top_p=0.9),
        SamplingOptions(temperature=1.5, top_k=4, repetition_penalty=1.3),
        SamplingOptions(no_repeat_ngram_size=2),
    ]
    together, alone = sampler_of(*options), [sampler_of(option) for option in options]
    for _ in range(30):
        logits, uniforms = torch.randn(4, 50), torch.rand(4)
        tokens, _ = together(logits, uniforms)
        for row, sampler in enumerate(alone):
            assert tokens[row] == sampler(logits[[row]], uniforms[[row]])[0][0]


def test_a_slot_that_is_placed_again_forgets_the_previous_answer():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    sampler = sampler_of(SamplingOptions(repetition_penalty=9.0, no_repeat_ngram_size=1), vocab=4)
    first = [sampler(logits, torch.zeros(1))[0].item() for _ in range(3)]
    sampler.place(0, SamplingOptions(repetition_penalty=9.0, no_repeat_ngram_size=1), torch.tensor([0]))
    assert [sampler(logits, torch.zeros(1))[0].item() for _ in range(3)] == first == [1, 2, 3]
    sampler = sampler_of(SamplingOptions(repetition_penalty=2.0), vocab=4)
    for _ in range(2):
        assert [sampler(logits, torch.zeros(1))[0].item() for _ in range(3)] == [1, 2, 1]
        sampler.place(0, SamplingOptions(repetition_penalty=2.0), torch.tensor([0]))


def test_the_mask_of_allowed_tokens_wins_over_ngram_bans():
    sampler = sampler_of(SamplingOptions(no_repeat_ngram_size=1), vocab=4)
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    only_one = torch.tensor([[False, True, False, False]])
    assert [sampler(logits, torch.zeros(1), only_one)[0].item() for _ in range(2)] == [1, 1]
    assert sampler(logits, torch.zeros(1), torch.ones(1, 4, dtype=torch.bool))[0].item() == 2


def test_choosing_again_changes_nothing_until_it_is_remembered():
    """A step for which memory was lacking is done again: its first try must leave no trace."""
    options = SamplingOptions(repetition_penalty=1.5, no_repeat_ngram_size=2, temperature=1.0)
    once, twice = sampler_of(options, options), sampler_of(options, options)
    generator = torch.Generator().manual_seed(8)
    for _ in range(20):
        logits, uniforms = torch.randn(2, 50, generator=generator), torch.rand(2, generator=generator)
        twice.choose(logits, uniforms)
        tokens, _ = twice.choose(logits, uniforms)
        twice.remember(tokens)
        assert torch.equal(once(logits, uniforms)[0], tokens)


def test_logprobs_are_those_of_the_model_whatever_the_options():
    torch.manual_seed(4)
    logits = torch.randn(2, 50)
    sampler = sampler_of(
        SamplingOptions(logprobs=True), SamplingOptions(temperature=3.0, top_k=5, repetition_penalty=2.0)
    )
    tokens, logprobs = sampler(logits, torch.tensor([0.0, 0.9]))
    expected = logits.log_softmax(-1)[[0, 1], tokens]
    torch.testing.assert_close(logprobs, expected)
    assert sampler_of(SamplingOptions())(logits[:1], torch.zeros(1))[1] is None


def test_logits_are_not_written_to_and_nan_is_reported():
    logits = torch.randn(2, 50)
    logits[1, 7] = torch.nan
    before = logits.clone()
    sampler = sampler_of(
        SamplingOptions(repetition_penalty=2.0, no_repeat_ngram_size=2, temperature=1.0), SamplingOptions()
    )
    tokens, _ = sampler(logits, torch.rand(2))
    assert tokens[0] >= 0
    assert tokens[1] == -1
    torch.testing.assert_close(logits, before, equal_nan=True, rtol=0, atol=0)


def test_the_largest_of_long_rows_is_the_first_one_and_nan_where_there_is_one() -> None:
    torch.manual_seed(0)
    scores = torch.randint(50, (3, 102_400)).float()
    best, places = largest(scores)
    assert torch.equal(best, scores.amax(dim=1)) and torch.equal(places, scores.argmax(dim=1))
    scores[1, 77_000] = torch.nan
    assert largest(scores)[0].isnan().tolist() == [False, True, False]
    assert [each.tolist() for each in largest(torch.tensor([[1.0, 3.0, 3.0]]))] == [[3.0], [1]]
