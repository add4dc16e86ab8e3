"""Pictures with speculation: the same codes where they are greedy, else codes of the same distribution."""

import itertools
import random

import pytest
import torch
from torch import nn

from mm.contracts import DrawingPrompt
from mm.devices import inputs_are_exact
from mm.errors import OptionError, ResourceError, TaskError
from mm.generation.engine import Engine
from mm.generation.image import ImageRow
from mm.generation.jacobi import Jacobi, prior, redraw
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from tests.generation.conftest import build_decoder
from tests.generation.test_image import (  # noqa: F401
    CODES,
    assert_draws_what_is_recorded,
    case,
    draw,
    model,
    new_engine,
    new_row,
    prompts,
)
from tests.generation.test_steps import as_on_an_accelerator
from tests.generation.tiny import Embedder, text_inputs

JACOBI = {"speculation": "jacobi"}


def draw_ahead(engine, jobs, **options):
    """The codes of (prompt, seed, guidance scale) drawn together with speculation."""
    return draw(engine, jobs, **JACOBI, **options)


# One place


def test_codes_that_are_drawn_again_have_the_new_distribution_and_rarely_change():
    torch.manual_seed(0)
    count = 200_000
    old, new = torch.randn(2, 5).softmax(dim=-1)
    new[3] = 0
    new /= new.sum()
    drafts = torch.multinomial(old, count, replacement=True)[:, None]  # (M, 1)
    drawn = redraw(new.expand(count, 1, 5), old.expand(count, 1, 5), drafts, torch.rand(count, 1, 2))
    found = torch.bincount(drawn[:, 0], minlength=5) / count
    torch.testing.assert_close(found, new, atol=4e-3, rtol=0)
    assert found[3] == 0
    # As often as can be: 1 less the distance in total variation.
    assert (drawn == drafts).float().mean().item() == pytest.approx(torch.minimum(old, new).sum().item(), abs=4e-3)


def test_given_drafts_and_places_without_one_have_the_new_distribution_too():
    torch.manual_seed(0)
    count = 100_000
    new = torch.tensor([0.1, 0.2, 0.0, 0.7])
    drafts = torch.tensor([1, 2, 0]).expand(count, 3)
    source = torch.full((count, 3), -1)
    fresh = torch.tensor([True, True, False]).expand(count, 3)
    before = prior(torch.zeros(count, 1, 4), drafts, source, fresh)
    assert before[0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    drawn = redraw(new.expand(count, 3, 4), before, drafts, torch.rand(count, 3, 2))
    for place in range(3):
        found = torch.bincount(drawn[:, place], minlength=4) / count
        torch.testing.assert_close(found, new, atol=5e-3, rtol=0)


@pytest.mark.parametrize("uniforms", [0.0, 1 - 2**-24])
def test_rounding_leads_to_no_code_without_probability(uniforms):
    probs = torch.tensor([0.0, 0.3, 0.7, 0.0]).expand(1, 2, 4)
    numbers = torch.full((1, 2, 2), uniforms)
    same = redraw(probs, probs, torch.tensor([[1, 2]]), numbers)
    assert same.tolist() == [[1, 2]]
    other = redraw(probs, torch.zeros(1, 2, 4), torch.tensor([[0, 0]]), numbers)
    assert other.tolist() == ([[2, 2]] if uniforms == 0 else [[1, 1]])  # the likeliest first


def test_a_code_is_drawn_from_many_as_from_few():
    torch.manual_seed(0)
    probs = torch.rand(1, 1, 300).pow(4)
    probs /= probs.sum()
    count, none = 100_000, torch.zeros(1, 1, 300)
    found = torch.zeros(300)
    for part in torch.rand(1, count, 2).split(10_000, dim=1):
        before, drafts = none.expand(1, 10_000, 300), torch.zeros(1, 10_000, dtype=torch.int64)
        found += torch.bincount(redraw(probs.expand_as(before), before, drafts, part)[0], minlength=300)
    torch.testing.assert_close(found / count, probs[0, 0], atol=2.5e-3, rtol=0)


def test_new_places_get_the_code_above():
    jacobi = Jacobi(window=6, across=3)
    assert jacobi.draft([7], 5) == [7, 7, 7, 7, 7]
    assert jacobi.draft([1, 2, 3, 4], 5) == [2, 3, 4, 2, 3]
    jacobi.settle([9, 8, 5, 6], 2, torch.zeros(6, 10))
    assert jacobi.draft([1, 2, 3, 4, 9, 8], 5) == [5, 6, 8, 5, 6]
    assert (jacobi.num_kept, jacobi.shift) == (2, 2)
    assert jacobi.draft([1, 2, 3, 4, 9, 8], 1) == [5]
    assert jacobi.num_kept == 1


def test_what_is_no_number_is_no_draft():
    jacobi = Jacobi(window=6, across=3)
    jacobi.settle([9, 8, 5, -1, 4, -1], 2, torch.zeros(6, 10))
    assert jacobi.draft([1, 2, 3, 4, 9, 8], 5) == [5, 9, 8, 5, 9]
    assert jacobi.num_kept == 1
    probs = torch.full((1, 2, 3), torch.nan)
    nothing = prior(probs, torch.zeros(1, 2, dtype=torch.int64), torch.full((1, 2), -1), torch.zeros(1, 2) > 0)
    assert nothing.tolist() == [[[0, 0, 0], [0, 0, 0]]]


# A model whose pictures can all be counted


class SmallHead(nn.Module):
    """Pictures of ``PLACES`` codes, each one of two."""

    num_codes, grid, size, vq = 2, (2, 3), (2, 3), None

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.codes = nn.Parameter(torch.randn(2, width, generator=generator), requires_grad=False)
        self.head = nn.Parameter(0.15 * torch.randn(2, width, generator=generator), requires_grad=False)

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        return self.codes[codes]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.head.T


PLACES = 6
SCALE = 1.5


def picture_distribution(decoder, head, prompt, top_p):
    """(64,) the probability of each picture, by the plain model without a cache."""
    pictures = torch.tensor(list(itertools.product(range(2), repeat=PLACES)))
    logits = []
    for ids in (prompt.conditional, prompt.unconditional):
        prefix = decoder.embed(ids[None]).expand(len(pictures), -1, -1)
        hidden = decoder(torch.cat((prefix, head.embed(pictures[:, :-1])), dim=1))
        logits.append(head.logits(hidden[:, -PLACES:]))
    probs = (logits[1] + SCALE * (logits[0] - logits[1])).softmax(dim=-1)  # (64, 6, 2)
    if top_p is not None:
        probs = torch.where(probs > top_p, 1.0, torch.where(probs < 1 - top_p, 0.0, probs))
    return probs.gather(2, pictures[..., None])[..., 0].prod(dim=1)


@pytest.mark.parametrize(("window", "top_p"), [(4, None), (3, 0.9)])
def test_pictures_have_the_distribution_of_the_model(window, top_p):
    decoder, head = build_decoder(latent=False), SmallHead(32)
    prompt = DrawingPrompt(conditional=torch.tensor([5, 6, 7]), unconditional=torch.tensor([5, 1]), text="")
    expected = picture_distribution(decoder, head, prompt, top_p)
    count = 700
    found = torch.zeros(len(expected))
    options = SamplingOptions(temperature=1.0, top_p=top_p, speculation="jacobi", speculation_window=window)
    with Engine(decoder, Embedder(decoder), device=torch.device("cpu"), image_head=head, num_slots=64) as engine:
        for first in range(0, count, 100):
            rows = [
                ImageRow(options=options, num_codes=PLACES, generator=torch.Generator().manual_seed(first + n))
                for n in range(100)
            ]
            for handle in [engine.draw(prompt, row, guidance_scale=SCALE) for row in rows]:
                handle.result()
            for row in rows:
                found[int("".join(map(str, row.tokens)), 2)] += 1
        statistics = engine.statistics
    assert 0 < statistics.accepted_tokens < statistics.drafted_tokens
    assert found[expected == 0].sum() == 0
    likely = expected * count >= 5  # as a test by chi-squared wants it; the others together
    observed = torch.cat((found[likely], found[~likely].sum()[None]))
    wanted = torch.cat((expected[likely], expected[~likely].sum()[None])) * count
    freedom = len(wanted) - 1
    assert freedom > 8
    statistic = ((observed - wanted) ** 2 / wanted.clamp(min=1e-9)).sum().item()
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations


# Pictures of a Janus


def test_the_recorded_drawings_with_speculation(case, model) -> None:  # noqa: F811
    for window in (3, 64):
        with new_engine(model) as engine:
            assert_draws_what_is_recorded(engine, case, **JACOBI, speculation_window=window)


@pytest.mark.parametrize("accelerator", [False, True])
def test_a_seed_draws_the_same_alone_and_among_pictures_and_texts(model, prompts, accelerator) -> None:  # noqa: F811
    seeds = [(prompts[seed % 8], seed, 1.0 if seed % 3 == 0 else 5.0) for seed in range(7)]
    alone = []
    for job in seeds:
        with new_engine(model) as engine:
            alone += draw_ahead(engine, [job], top_k=40)
    with new_engine(model) as engine:
        plain = draw(engine, seeds[:2])
    assert alone[0] != plain[0]  # other random numbers

    def texts():
        options = [{}, {"speculation": "prompt-lookup"}, {"temperature": 1.0, "seed": 1}]
        return [
            Row(
                prompt_ids=torch.tensor([5, 6, 7] * 4),
                options=SamplingOptions(detect_loops=False, **chosen),
                max_new_tokens=40,
                end_ids=frozenset(),
                hidden_ids=frozenset(),
                decode=lambda tokens: "a" * len(tokens),
            )
            for chosen in options
        ]

    with new_engine(model) as engine:
        answers = texts()
        for row in answers:
            engine.submit(text_inputs([5, 6, 7] * 4), row).result()
    with new_engine(model) as engine:
        if accelerator:
            as_on_an_accelerator(engine)
        rows = [new_row(seed, **JACOBI, top_k=40) for _, seed, _ in seeds]
        usual = [new_row(seed) for _, seed, _ in seeds[:2]]
        beside = texts()
        handles = [engine.submit(text_inputs([5, 6, 7] * 4), row) for row in beside]
        drawn = list(zip([*rows, *usual], [*seeds, *seeds[:2]], strict=True))
        random.Random(1).shuffle(drawn)
        handles += [engine.draw(prompt, row, guidance_scale=scale) for row, (prompt, _, scale) in drawn]
        for handle in handles:
            handle.result()
    assert [row.tokens for row in rows] == alone
    assert [row.tokens for row in usual] == plain
    assert [row.tokens for row in beside] == [row.tokens for row in answers]
    assert answers[0].tokens == answers[1].tokens


def test_every_code_is_told_and_a_cancelled_picture_ends(model, prompts) -> None:  # noqa: F811
    told = []
    with new_engine(model) as engine:
        row = new_row(1, **JACOBI)
        engine.draw(prompts[0], row, guidance_scale=5.0, on_step=lambda: told.append(len(row.tokens))).result()
        assert told == list(range(1, CODES + 1))
        cancelled = new_row(1, **JACOBI)
        handle = engine.draw(
            prompts[0], cancelled, guidance_scale=5.0, on_step=lambda: len(cancelled.tokens) == 9 and handle.cancel()
        )
        handle.result()
        assert cancelled.finish_reason == "cancelled"
        assert 9 <= len(cancelled.tokens) < CODES
        assert cancelled.tokens == row.tokens[: len(cancelled.tokens)]
        again = new_row(1, **JACOBI)
        engine.draw(prompts[0], again, guidance_scale=5.0).result()
        assert again.tokens == row.tokens


def test_guided_logits_are_given_to_the_caller_code_by_code(model, prompts) -> None:  # noqa: F811
    given = {}
    for name, options in (("plain", {}), ("ahead", JACOBI)):
        given[name] = []
        with new_engine(model) as engine:
            engine.draw(prompts[0], new_row(None, **options), guidance_scale=3.0, on_logits=given[name].append).result()
    torch.testing.assert_close(torch.stack(given["ahead"]), torch.stack(given["plain"]), atol=2e-4, rtol=1e-4)


def test_what_is_no_number_ends_the_picture(model, prompts) -> None:  # noqa: F811
    row = new_row(1, **JACOBI)

    def spoil(module, args, out):
        return torch.full_like(out, torch.nan) if row.tokens else None

    hook = model.decoder.model.norm.register_forward_hook(spoil)
    try:
        with (
            new_engine(model) as engine,
            pytest.raises(TaskError, match="output at token 2 of the answer is not a num"),
        ):
            engine.draw(prompts[0], row, guidance_scale=5.0).result()
    finally:
        hook.remove()


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("place", ["layers.0", "norm"])  # also in the cache, and in the logits alone
def test_a_guess_that_leads_to_what_is_no_number_ends_nothing(model, prompts, place, accelerator) -> None:  # noqa: F811
    jobs = [(prompts[0], None, 5.0), (prompts[1], None, 1.0), (prompts[2], 4, 5.0)]
    with new_engine(model) as engine:
        plain = draw(engine, jobs[:2])
        text = as_text()
        engine.submit(text_inputs([5, 6, 7] * 4), text).result()

    def spoil(module, args, out):
        if out.shape[1] <= 5 or out.shape[1] > 8:  # one of the first steps, or a prompt
            return None
        out = out.clone()
        out[:, 5] = torch.nan
        return out

    hook = model.decoder.model.get_submodule(place).register_forward_hook(spoil)
    try:
        with new_engine(model) as engine:
            if accelerator:
                as_on_an_accelerator(engine)
            beside = as_text()
            handle = engine.submit(text_inputs([5, 6, 7] * 4), beside)
            assert draw_ahead(engine, jobs, speculation_window=8)[:2] == plain
            handle.result()
            assert draw(engine, jobs[:2]) == plain  # and nothing of it is left
    finally:
        hook.remove()
    assert beside.tokens == text.tokens


def as_text():
    """A text beside pictures."""
    return Row(
        prompt_ids=torch.tensor([5, 6, 7] * 4),
        options=SamplingOptions(detect_loops=False),
        max_new_tokens=40,
        end_ids=frozenset(),
        hidden_ids=frozenset(),
        decode=lambda tokens: "a" * len(tokens),
    )


def test_what_to_lower_is_named_where_memory_is_lacking_for_a_pass(model, prompts) -> None:  # noqa: F811
    def fail(module, args, out):
        if out.shape[:2] == (4, 16):  # two pictures
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = model.decoder.model.norm.register_forward_hook(fail)
    try:
        with new_engine(model) as engine:
            rows = [new_row(None, **JACOBI), new_row(None, **JACOBI)]
            first, second = (engine.draw(prompts[0], row, guidance_scale=5.0) for row in rows)
            first.result()
            with pytest.raises(
                ResourceError,
                match=r"out of memory on cpu in a pass over up to 16 places of 4 rows\. Use a smaller "
                r"speculation_window \(now 16, 2 at least\), no speculation, or fewer pictures at a time",
            ):
                second.result()
            assert draw(engine, [(prompts[0], None, 5.0)]) == [rows[0].tokens]
    finally:
        hook.remove()


def test_log_probabilities_and_guesses_do_not_meet(model, prompts) -> None:  # noqa: F811
    with pytest.raises(
        OptionError, match="logprobs=True is for texts, and speculation='jacobi' gives none.*Leave one of the two out"
    ):
        new_row(1, **JACOBI, logprobs=True)
    jobs = [(prompts[0], None, 5.0)]
    with new_engine(model) as engine:
        (plain,) = draw(engine, jobs)
        beside = new_row(None, logprobs=True)  # of no use, but allowed
        handle = engine.draw(*jobs[0][:1], beside, guidance_scale=5.0)
        assert draw_ahead(engine, jobs) == [plain]
        handle.result()
    assert beside.tokens == plain


def test_only_prompts_may_be_rounded(model, prompts) -> None:  # noqa: F811
    seen = set()
    hook = model.decoder.model.norm.register_forward_hook(
        lambda module, args, out: seen.add((out.shape[1] > 16, inputs_are_exact()))  # 16: the widest window
    )
    try:
        for options in ({}, JACOBI):
            with new_engine(model) as engine:
                engine.draw(prompts[0], new_row(1, **options), guidance_scale=1.0).result()
    finally:
        hook.remove()
    assert seen == {(True, False), (False, True)}
    assert not inputs_are_exact()


def test_a_picture_has_no_prompt_to_look_up() -> None:
    with pytest.raises(OptionError, match="'prompt-lookup' is for texts; expected 'jacobi' for pictures, or None"):
        new_row(1, speculation="prompt-lookup")
