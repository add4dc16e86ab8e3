"""Pictures by flow in the engine: the recorded ones, and everything beside a picture that must not change it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mm.contracts import DrawingPrompt
from mm.errors import TaskError
from mm.evaluation.recording import Recording
from mm.evaluation.verify_janusflow import draw_plainly
from mm.families.table import load_model, load_processor
from mm.generation.engine import Engine
from mm.generation.flow_picture import FlowRow
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.model import VisionLanguageModel
from mm.view_cache import PromptEmbedder, ViewCache
from tests.generation.tiny import text_inputs

STEPS = 3


@pytest.fixture(scope="module")
def model(tiny_flow: Path) -> VisionLanguageModel:
    return load_model(tiny_flow, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prompts(tiny_flow: Path) -> list[DrawingPrompt]:
    processor = load_processor(tiny_flow)
    texts = [f"{n} red circles left of a blue star " + "and another " * n for n in range(6)]
    return [processor.drawing_prompt(text, "nothing" if n % 3 == 2 else None) for n, text in enumerate(texts)]


def new_engine(model: VisionLanguageModel, **options) -> Engine:
    embedder = PromptEmbedder(model, ViewCache(0))
    return Engine(model.decoder, embedder, device=model.device, flow_head=model.flow_head, **options)


def new_row(model: VisionLanguageModel, seed: int, num_steps: int = STEPS) -> FlowRow:
    return FlowRow(model.flow_head, num_steps=num_steps, generator=torch.Generator().manual_seed(seed))


def draw(model: VisionLanguageModel, engine: Engine, jobs) -> list[Tensor]:
    """The latents of (prompt, seed, guidance scale) handed in together."""
    rows = [new_row(model, seed) for _, seed, _ in jobs]
    handles = [
        engine.draw_flow(prompt, row, guidance_scale=scale) for row, (prompt, _, scale) in zip(rows, jobs, strict=True)
    ]
    for handle in handles:
        handle.result()
    assert all(row.finish_reason == "stop" and row.steps == STEPS for row in rows)
    return [row.latents for row in rows]


def write(engine: Engine, ids: list[int], count: int = 40, **options):
    """A greedy text on its way."""
    row = Row(
        prompt_ids=torch.tensor(ids),
        options=SamplingOptions(detect_loops=False),
        max_new_tokens=count,
        end_ids=frozenset(),
        hidden_ids=frozenset(),
        decode=lambda tokens: "a" * len(tokens),
    )
    return engine.submit(text_inputs(ids), row, **options)


@pytest.fixture(scope="module")
def alone(model: VisionLanguageModel, prompts: list[DrawingPrompt]) -> dict[int, Tensor]:
    """{seed: latents} of 12 seeds, each drawn by an engine of its own."""
    found = {}
    for seed in range(12):
        with new_engine(model) as engine:
            (found[seed],) = draw(model, engine, [(prompts[seed % 6], seed, 5.0)])
    return found


def test_the_recorded_pictures_through_the_engine(golden: Callable[[str], Path]) -> None:
    case = golden("janusflow")
    recording, processor = Recording(case), load_processor(case / "checkpoint")
    model = load_model(case / "checkpoint", device="cpu", dtype="float32")
    entries = [entry for entry in recording.entries if entry.get("kind") == "flow_generation"]
    assert len(entries) == 2
    with new_engine(model) as engine:
        for entry in entries:
            noise, final = (recording.plain(f"{entry['id']}/{name}") for name in ("noise", "z_final"))
            assert noise is not None and final is not None
            prompt = processor.drawing_prompt(entry["conversation"][0]["content"])
            rows = [new_row(model, 0, entry["num_inference_steps"]) for _ in noise]
            for row, own in zip(rows, noise, strict=True):
                row.latents = own[None]
            for handle in [engine.draw_flow(prompt, row, guidance_scale=entry["cfg_weight"]) for row in rows]:
                handle.result()
            torch.testing.assert_close(torch.cat([row.latents for row in rows]), final, atol=5e-5, rtol=0)


@pytest.mark.parametrize("num_slots", [8, 1])
def test_a_seed_gives_the_same_latents_to_the_bit_in_a_shuffled_batch(model, prompts, alone, num_slots) -> None:
    seeds = list(range(12))
    random.Random(num_slots).shuffle(seeds)
    with new_engine(model, num_slots=num_slots) as engine:
        for first in range(0, 12, 6):
            batch = seeds[first : first + 6]
            drawn = draw(model, engine, [(prompts[seed % 6], seed, 5.0) for seed in batch])
            assert all(torch.equal(found, alone[seed]) for found, seed in zip(drawn, batch, strict=True))


def test_texts_and_pictures_share_the_engine(model, prompts, alone) -> None:
    with new_engine(model) as engine:
        text = write(engine, [5, 6, 7]).result().tokens
    with new_engine(model) as engine:
        begun = engine.statistics.decode_steps
        texts = [write(engine, [5, 6, 7]) for _ in range(2)]
        drawn = draw(model, engine, [(prompts[1], 1, 5.0), (prompts[4], 4, 5.0)])
        assert engine.statistics.decode_steps > begun, "texts go on beside pictures"
        late = write(engine, [5, 6, 7])
        assert [handle.result().tokens for handle in (*texts, late)] == [text] * 3
        assert torch.equal(drawn[0], alone[1]) and torch.equal(drawn[1], alone[4])
        assert engine.statistics.flow_steps == 2 * STEPS


def test_a_cache_that_grows_under_a_picture_changes_nothing(model, prompts, alone) -> None:
    with new_engine(model) as engine:
        row, texts = new_row(model, 2), []

        def ask_more() -> None:
            if row.steps == 1:  # longer and more than all before
                texts.extend(write(engine, [5, 6, 7 + n], 700, block=False) for n in range(3))

        handle = engine.draw_flow(prompts[2], row, guidance_scale=5.0, on_step=ask_more)
        handle.result()
        assert torch.equal(row.latents, alone[2])
        for text in texts:
            text.cancel()


def test_the_plain_loop_gives_the_same(model, prompts, alone) -> None:
    noise = torch.stack([new_row(model, seed).latents[0] for seed in (0, 6)])
    plain = draw_plainly(
        model, model.flow_head, prompts[0], noise, num_steps=STEPS, guidance_scale=5.0, pad_id=prompts[0].conditional[1]
    )
    torch.testing.assert_close(plain.latents[-1][:1], alone[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain.latents[-1][1:], alone[6], atol=1e-5, rtol=1e-4)


def test_guidance_of_one_takes_one_row(model, prompts) -> None:
    with new_engine(model) as engine:
        (found,) = draw(model, engine, [(prompts[0], 0, 1.0)])
        assert len(engine._scheduler.slots.slots) == 1
    noise = new_row(model, 0).latents
    plain = draw_plainly(
        model, model.flow_head, prompts[0], noise, num_steps=STEPS, guidance_scale=1.0, pad_id=prompts[0].conditional[1]
    )
    torch.testing.assert_close(found, plain.latents[-1], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_negative_prompt_is_attended_whole_and_at_its_own_length(model, prompts, alone) -> None:
    prompt, head, decoder = prompts[2], model.flow_head, model.decoder
    assert prompt.attended is None and len(prompt.conditional) != len(prompt.unconditional)
    latents = new_row(model, 2).latents
    for step in range(STEPS):
        tokens, moment, features = head.encode(latents, torch.tensor([step / STEPS * 1000]))
        found = []
        for ids in (prompt.conditional, prompt.unconditional):
            embeds = torch.cat((decoder.embed(ids[None, :-1]), moment[:, None], tokens), dim=1)
            found.append(head.velocity(decoder(embeds)[:, len(ids) :], features, moment))
        latents = latents + (5 * found[0] - 4 * found[1]) / STEPS
    torch.testing.assert_close(alone[2], latents, atol=1e-5, rtol=1e-4)


def test_the_steps_are_those_of_diffusers_scheduler(model) -> None:
    """Its sums of float32 differences differ in the last bits, so that the published line is taken instead."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(sigmas=[1 - step / 7 for step in range(7)])
    row = new_row(model, 0, 7)
    theirs, torch_generator = row.latents, torch.Generator().manual_seed(1)
    for time in scheduler.timesteps:
        assert time.item() == pytest.approx(1000 * row.time, abs=1e-3)
        velocity = torch.randn(theirs.shape, generator=torch_generator)
        theirs = scheduler.step(velocity, time, theirs).prev_sample
        row.advance(velocity)
    torch.testing.assert_close(row.latents, theirs, atol=2e-6, rtol=0)
    assert row.finish_reason == "stop"


def test_the_estimate_is_where_a_straight_flow_ends(model) -> None:
    row = new_row(model, 0, 4)
    start, velocity = row.latents, torch.ones(())
    for _ in range(4):
        row.advance(velocity.expand(start.shape))
        torch.testing.assert_close(row.estimate, start + 1, atol=1e-5, rtol=0)
    torch.testing.assert_close(row.latents, start + 1, atol=1e-5, rtol=0)


def test_a_prompt_is_not_pieced_together_from_what_the_cache_holds(model, prompts, alone) -> None:
    """That would change the last bits of a picture."""
    with new_engine(model) as engine:
        write(engine, prompts[5].conditional.tolist()).result()
        for _ in range(2):
            (drawn,) = draw(model, engine, [(prompts[5], 5, 5.0)])
            assert torch.equal(drawn, alone[5])
        assert engine.statistics.reused_tokens == 0


def test_a_cancelled_picture_ends_within_a_step(model, prompts, alone) -> None:
    with new_engine(model) as engine:
        row = new_row(model, 0, 50)
        handle = engine.draw_flow(
            prompts[0], row, guidance_scale=5.0, on_step=lambda: handle.cancel() if row.steps == 4 else None
        )
        handle.result()
        assert (row.finish_reason, row.steps) == ("cancelled", 4)
        waiting = engine.draw_flow(prompts[0], new_row(model, 0), guidance_scale=5.0)
        assert waiting.result().finish_reason == "stop"
        assert torch.equal(waiting.row.latents, alone[0])


def test_what_goes_wrong_ends_its_picture_only(model, prompts, alone) -> None:
    def fail() -> None:
        raise LookupError("mine")

    with new_engine(model) as engine:
        handles = [
            engine.draw_flow(prompts[0], new_row(model, 0), guidance_scale=5.0, on_step=fail),
            engine.draw_flow(prompts[0], new_row(model, 0), guidance_scale=5.0),
        ]
        broken = new_row(model, 1)
        broken.latents = torch.full_like(broken.latents, float("nan"))
        handles.append(engine.draw_flow(prompts[1], broken, guidance_scale=5.0))
        handles.append(engine.draw_flow(prompts[1], new_row(model, 1), guidance_scale=5.0))
        with pytest.raises(LookupError, match="mine"):
            handles[0].result()
        assert torch.equal(handles[1].result().latents, alone[0])
        with pytest.raises(TaskError, match="output for this picture is not a number. In float16 this is an overflow"):
            handles[2].result()
        assert torch.equal(handles[3].result().latents, alone[1])


def test_closing_the_engine_cancels_a_picture(model, prompts) -> None:
    engine = new_engine(model)
    row = new_row(model, 0, 10_000)
    handle = engine.draw_flow(prompts[0], row, guidance_scale=5.0)
    queued = engine.draw_flow(prompts[0], new_row(model, 1), guidance_scale=5.0)
    while not row.steps:
        assert not handle.wait(0.01)
    engine.close()
    assert handle.result().finish_reason == queued.result().finish_reason == "cancelled"
