"""Texts with speculation: the tokens of plain decoding in fewer steps."""

import copy
import random

import pytest
import torch

from mm.errors import OptionError, TaskError
from mm.generation.sampling import SamplingOptions
from mm.generation.speculation import PromptLookup, accepted
from tests.generation.test_steps import as_on_an_accelerator
from tests.generation.tiny import new_engine, plain_greedy, text_inputs

PROMPTS = [[5, 6, 7, 8, 9] * 5, list(range(40, 60)), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]]
LOOKUP = {"speculation": "prompt-lookup", "detect_loops": False}


@pytest.fixture(scope="module")
def decoder(decoder):
    """One that chooses from few tokens: three that stood before are often followed by what followed then, but not
    always."""
    few = copy.deepcopy(decoder)
    few.lm_head.weight[:4] *= 3
    few.lm_head.weight[4:] = 0
    return few


def run(decoder, rows, *, num_slots=8, accelerator=False, **options):
    """The statistics of an engine that has answered."""
    with new_engine(decoder, num_slots=num_slots, **options) as engine:
        if accelerator:
            as_on_an_accelerator(engine)
        for handle in [engine.submit(text_inputs(row.prompt_ids.tolist()), row) for row in rows]:
            handle.result()
        return engine.statistics


# Drafts


def test_drafts_are_accepted_up_to_the_first_wrong_one():
    drafts = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, -2]])
    chosen = torch.tensor([[1, 2, 3], [1, 9, 3], [9, 2, 3], [1, 2, -1]])
    assert accepted(drafts, chosen).tolist() == [3, 1, 0, 2]
    assert accepted(drafts[:, :0], chosen[:, :0]).tolist() == [0, 0, 0, 0]


def test_what_followed_the_longest_match_is_proposed():
    prompt = [1, 2, 3, 4, 50, 60, 70, 9, 2, 3, 4, 51, 61, 71, 9, 9]
    assert PromptLookup(prompt, 16).draft([2, 3, 4], 15) == [51, 61, 71, 9, 9, 2, 3, 4]  # of two; twice the match
    assert PromptLookup(prompt, 16).draft([1, 2, 3, 4], 15)[:3] == [50, 60, 70]  # the longest
    assert PromptLookup(prompt, 16).draft([2, 3, 4], 2) == [51, 61]
    assert PromptLookup(prompt, 16).draft([3, 4], 15) == []  # two tokens are too few
    assert PromptLookup([], 16).draft([1], 15) == []


def test_the_answer_itself_is_looked_up_as_it_grows():
    drafter, answer = PromptLookup([0], 8), list[int]()
    for token in [1, 2, 3, 4, 5, 1, 2, 3]:
        answer.append(token)
        found = drafter.draft(answer, 7)
        assert drafter.draft(answer, 7) == found
    assert found == [4, 5, 1, 2, 3]
    assert drafter.draft([*answer, 4, 5, 1], 7) == [2, 3, 4, 5, 1]
    # What repeats itself in short: an earlier place, where more follows.
    assert PromptLookup([7] * 12, 8).draft([7], 4) == [7] * 4


def test_a_prompt_of_thousands_of_equal_tokens_takes_no_time():
    drafter = PromptLookup([9] * 50_000, 16)
    assert drafter.draft([9], 15) == [9] * 15


# Answers


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("window", [2, 5, 16])
def test_greedy_answers_are_those_of_a_loop_without_a_cache(decoder, new_row, window, accelerator):
    rows = [
        new_row(prompt, max_new_tokens=60 + n, speculation_window=window, **LOOKUP) for n, prompt in enumerate(PROMPTS)
    ]
    statistics = run(decoder, rows, accelerator=accelerator)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.tokens == plain_greedy(decoder, prompt, row.max_new_tokens)
    assert 0 < statistics.accepted_tokens < statistics.drafted_tokens  # right ones and wrong ones
    assert statistics.decoded_tokens == sum(len(row.tokens) - 1 for row in rows)


def test_an_answer_that_repeats_itself_takes_few_steps(decoder, new_row):
    decoder = copy.deepcopy(decoder)
    decoder.lm_head.weight.zero_()  # the first token, always
    rows = [new_row(PROMPTS[1], max_new_tokens=100, **LOOKUP | more) for more in ({"speculation": None}, {})]
    slow, fast = (run(decoder, [row]) for row in rows)
    assert rows[0].tokens == rows[1].tokens == [0] * 100
    assert (slow.decode_steps, fast.decode_steps) == (99, 17)


@pytest.mark.parametrize("accelerator", [False, True])
def test_a_seed_gives_the_same_sampled_answer_with_and_without(decoder, new_row, accelerator):
    options = {"max_new_tokens": 80, "temperature": 0.35, "detect_loops": False, "logprobs": True}
    kinds = [{}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 0.0}, {"temperature": 1.5}]
    seeds = [(prompt, {**options, **kind, "seed": seed}) for seed, kind in enumerate(kinds) for prompt in PROMPTS]
    plain = [new_row(prompt, **chosen) for prompt, chosen in seeds]
    rows = [new_row(prompt, **chosen, speculation="prompt-lookup") for prompt, chosen in seeds]
    run(decoder, plain)
    random.Random(0).shuffle(order := list(range(len(rows))))
    statistics = run(decoder, [rows[index] for index in order], accelerator=accelerator)
    for row, other in zip(rows, plain, strict=True):
        assert row.tokens == other.tokens
        torch.testing.assert_close(torch.tensor(row.logprobs), torch.tensor(other.logprobs), atol=1e-4, rtol=1e-4)
    assert statistics.accepted_tokens > 50


@pytest.mark.parametrize("accelerator", [False, True])
def test_answers_of_other_kinds_run_beside_it_unchanged(decoder, new_row, accelerator):
    class OddOnly:
        open = False

        def allowed(self):
            return torch.arange(300) % 2 == 1

        def advance(self, token):
            pass

    def others():
        return [
            new_row(PROMPTS[2], max_new_tokens=50, detect_loops=False),
            new_row(PROMPTS[0], max_new_tokens=30, repetition_penalty=1.3),
            new_row(PROMPTS[0], max_new_tokens=40, no_repeat_ngram_size=2),
            new_row(PROMPTS[1], max_new_tokens=40, constraint=OddOnly(), detect_loops=False),
            new_row(PROMPTS[1], max_new_tokens=40, temperature=1.0, seed=3),
        ]

    alone = others()
    for row in alone:
        run(decoder, [row])
    fast = [new_row(prompt, max_new_tokens=70, **LOOKUP) for prompt in PROMPTS]
    beside = others()
    rows = [row for pair in zip(beside, fast, strict=False) for row in pair] + beside[3:]
    assert run(decoder, rows, accelerator=accelerator).accepted_tokens > 0
    assert [row.tokens for row in beside] == [row.tokens for row in alone]
    assert [row.tokens for row in fast] == [plain_greedy(decoder, prompt, 70) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", ["end_ids", "stop_ids"])
def test_an_answer_ends_in_the_middle_of_accepted_drafts(decoder, new_row, kind):
    """The end comes after 10 to 40 tokens, wherever that is in a pass."""
    for seed in range(12):
        options = {"max_new_tokens": 60, "temperature": 0.5, "seed": seed, "detect_loops": False}
        whole = new_row(PROMPTS[0], **options)
        run(decoder, [whole])
        last = next((token for token in range(5) if 10 < (*whole.tokens, token).index(token) < 40), None)
        if last is None:
            continue
        row = new_row(PROMPTS[0], **options, speculation="prompt-lookup", **{kind: {last}})
        with new_engine(decoder) as engine:
            engine.submit(text_inputs(PROMPTS[0]), row).result()
            turn = [*PROMPTS[0], *row.tokens, 20]
            again = new_row(turn, max_new_tokens=10, **LOOKUP)
            handle = engine.submit(text_inputs(turn), again)
            handle.result()
        assert row.tokens == whole.tokens[: whole.tokens.index(last) + 1]
        assert row.finish_reason == ("stop" if kind == "end_ids" else "stop_string")
        assert len(turn) - 2 <= handle.reused_tokens + 1 <= len(turn)
        assert again.tokens == plain_greedy(decoder, turn, 10)


def test_every_length_is_kept_to(decoder, new_row):
    for length in range(1, 12):
        row = new_row(PROMPTS[0], max_new_tokens=length, **LOOKUP)
        run(decoder, [row])
        assert row.tokens == plain_greedy(decoder, PROMPTS[0], length)
        assert row.finish_reason == "length"


def test_a_second_turn_goes_on_from_what_was_accepted(decoder, new_row):
    with new_engine(decoder) as engine:
        first = new_row(PROMPTS[0], max_new_tokens=40, **LOOKUP)
        engine.submit(text_inputs(PROMPTS[0]), first).result()
        assert engine.statistics.accepted_tokens > 0
        turn = [*PROMPTS[0], *first.tokens, 250, 251, 252]
        second = new_row(turn, max_new_tokens=40, **LOOKUP)
        handle = engine.submit(text_inputs(turn), second)
        handle.result()
        assert handle.reused_tokens >= len(PROMPTS[0]) + 39
    assert second.tokens == plain_greedy(decoder, turn, 40)


def test_the_logits_of_every_token_are_given_to_the_caller(decoder, new_row):
    given = {}
    for name, options in (("plain", {"detect_loops": False}), ("fast", LOOKUP)):
        given[name] = []
        with new_engine(decoder) as engine:
            row = new_row(PROMPTS[0], max_new_tokens=40, **options)
            engine.submit(text_inputs(PROMPTS[0]), row, on_logits=given[name].append).result()
    assert len(given["fast"]) == 40
    torch.testing.assert_close(torch.stack(given["fast"]), torch.stack(given["plain"]), atol=1e-4, rtol=1e-4)


def test_pieces_of_text_come_in_order_and_a_cancelled_answer_ends(decoder, new_row):
    pieces = []
    with new_engine(decoder) as engine:
        row = new_row(PROMPTS[0], max_new_tokens=400, **LOOKUP)
        handle = engine.submit(text_inputs(PROMPTS[0]), row, on_piece=pieces.append)
        for _ in handle:
            if len(row.tokens) > 20:
                handle.cancel()
        assert row.finish_reason == "cancelled"
        assert "".join(pieces) == handle.text[: len("".join(pieces))]
        assert row.tokens == plain_greedy(decoder, PROMPTS[0], len(row.tokens))

        def fail(piece):
            raise ValueError("not today")

        failing = new_row(PROMPTS[0], max_new_tokens=400, **LOOKUP)
        with pytest.raises(ValueError, match="not today"):
            engine.submit(text_inputs(PROMPTS[0]), failing, on_piece=fail).result()


def test_a_pass_for_which_memory_was_lacking_is_done_again_without_guesses(decoder, new_row):
    def fail(module, args, out):
        if out.shape[1] > 1 and out.shape[0] == 2:  # drafts of two answers
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = decoder.model.norm.register_forward_hook(fail)
    options = LOOKUP | {"temperature": 0.3, "max_new_tokens": 60}
    row, newest = (new_row(PROMPTS[0], **options, seed=seed) for seed in (5, 6))
    try:
        with new_engine(decoder) as engine:
            for handle in [engine.submit(text_inputs(PROMPTS[0]), each) for each in (row, newest)]:
                handle.result()
    finally:
        hook.remove()
    plain = [new_row(PROMPTS[0], **options | {"speculation": None}, seed=seed) for seed in (5, 6)]
    run(decoder, plain)
    assert [row.tokens, newest.tokens] == [each.tokens for each in plain]


def test_the_newest_ends_where_memory_is_lacking_without_guesses_too(decoder, new_row):
    def fail(module, args, out):
        if out.shape[0] == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = decoder.model.norm.register_forward_hook(fail)
    try:
        with new_engine(decoder) as engine:
            row, newest = (new_row(PROMPTS[0], max_new_tokens=60, **LOOKUP) for _ in range(2))
            first, second = (engine.submit(text_inputs(PROMPTS[0]), each) for each in (row, newest))
            first.result()
            with pytest.raises(RuntimeError, match="out of memory"):
                second.result()
    finally:
        hook.remove()
    assert row.tokens == plain_greedy(decoder, PROMPTS[0], 60)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("place", ["layers.0", "norm"])  # also in the cache, and in the logits alone
def test_a_guess_that_leads_to_what_is_no_number_ends_nothing(decoder, new_row, place, accelerator):
    spoilt = []

    def spoil(module, args, out):
        if not 2 <= out.shape[1] <= 8:
            return None
        spoilt.append(out.shape[1])
        out = out.clone()
        out[:, 1:] = torch.nan
        return out

    hook = decoder.model.get_submodule(place).register_forward_hook(spoil)
    try:
        rows = [new_row(prompt, max_new_tokens=60, speculation_window=8, **LOOKUP) for prompt in PROMPTS]
        rows += [new_row(PROMPTS[1], max_new_tokens=60, detect_loops=False)]
        run(decoder, rows, accelerator=accelerator)
    finally:
        hook.remove()
    assert spoilt
    for row in rows:
        assert row.tokens == plain_greedy(decoder, row.prompt_ids.tolist(), 60)


def test_what_is_no_number_ends_the_answer_it_concerns(decoder, new_row):
    broken = {"now": False}

    def spoil(module, args, out):
        return torch.full_like(out, torch.nan) if broken["now"] else None

    hook = decoder.model.norm.register_forward_hook(spoil)
    try:
        with new_engine(decoder) as engine:
            row = new_row(PROMPTS[0], max_new_tokens=200, **LOOKUP)
            handle = engine.submit(
                text_inputs(PROMPTS[0]), row, on_piece=lambda _: broken.update(now=len(row.tokens) > 20)
            )
            with pytest.raises(TaskError, match=r"the model's output at token \d+ of the answer is not a number"):
                handle.result()
            broken["now"] = False
            again = new_row(PROMPTS[1], max_new_tokens=20, **LOOKUP)
            engine.submit(text_inputs(PROMPTS[1]), again).result()
            assert again.tokens == plain_greedy(decoder, PROMPTS[1], 20)
    finally:
        hook.remove()


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculation": "medusa"}, r"speculation is 'medusa'; expected 'jacobi' or 'prompt-lookup', or None\."),
        ({"speculation_window": 8}, r"speculation_window is 8, but nothing speculates\. Name speculation= too\."),
        ({"speculation": "jacobi", "speculation_window": 1}, "window is 1; expected a whole number from 2 to 256"),
        ({"speculation": "jacobi", "speculation_window": 257}, "window is 257; expected a whole number from 2 to 256"),
        ({"speculation": "jacobi", "speculation_window": 8.0}, r"window is 8\.0; expected a whole number"),
        (
            {"speculation": "prompt-lookup", "repetition_penalty": 1.1},
            r"repetition_penalty=1\.1 needs each token.*Leave",
        ),
        ({"speculation": "prompt-lookup", "no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3 needs each token"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        SamplingOptions(**options)


def test_a_text_is_not_drawn_and_constraints_need_each_token(new_row):
    with pytest.raises(OptionError, match="'jacobi' is for pictures; expected 'prompt-lookup' for texts, or None"):
        new_row([1], speculation="jacobi")
    with pytest.raises(
        OptionError, match=r"a constraint \(constrain_boxes\) needs each token.*Leave one of the two out"
    ):
        new_row([1], speculation="prompt-lookup", constraint=object())
