"""Pictures in the engine: the recorded drawings, and everything beside a picture that must not change it."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mm.contracts import DrawingPrompt
from mm.evaluation.recording import Recording
from mm.evaluation.verify_janus import draw_greedily
from mm.families.table import load_model, load_processor
from mm.generation.engine import Engine
from mm.generation.image import ImageRow
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.model import VisionLanguageModel
from mm.view_cache import PromptEmbedder, ViewCache
from tests.generation.tiny import text_inputs

CODES = 36


@pytest.fixture(scope="module")
def case(golden: Callable[[str], Path]) -> Path:
    return golden("janus_pro")


@pytest.fixture(scope="module")
def model(case: Path) -> VisionLanguageModel:
    return load_model(case / "checkpoint", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prompts(case: Path) -> list[DrawingPrompt]:
    processor = load_processor(case / "checkpoint")
    texts = [f"{n} red circles left of a blue star " + "and another " * n for n in range(8)]
    return [processor.drawing_prompt(text, "nothing" if n % 3 == 2 else None) for n, text in enumerate(texts)]


def new_engine(model: VisionLanguageModel, **options) -> Engine:
    embedder = PromptEmbedder(model, ViewCache(0))
    return Engine(model.decoder, embedder, device=model.device, image_head=model.image_head, **options)


def new_row(seed: int | None, *, num_codes: int = CODES, **options) -> ImageRow:
    """Greedy without a seed."""
    generator = torch.Generator()
    if seed is not None:
        generator.manual_seed(seed)
        options = {"temperature": 1.0} | options
    return ImageRow(options=SamplingOptions(**options), num_codes=num_codes, generator=generator)


def draw(engine: Engine, jobs, **options) -> list[list[int]]:
    """The codes of (prompt, seed, guidance scale) drawn together."""
    rows = [new_row(seed, **options) for _, seed, _ in jobs]
    handles = [
        engine.draw(prompt, row, guidance_scale=scale) for row, (prompt, _, scale) in zip(rows, jobs, strict=True)
    ]
    for handle in handles:
        handle.result()
    assert all(row.finish_reason == "stop" and len(row.tokens) == CODES for row in rows)
    return [row.tokens for row in rows]


def assert_draws_what_is_recorded(engine: Engine, case: Path, **options) -> None:
    """The recorded drawings of a case, greedily."""
    recording = Recording(case)
    processor = load_processor(case / "checkpoint")
    entries = [entry for entry in recording.entries if entry.get("kind") == "generation"]
    assert len(entries) >= 3
    for entry in entries:
        codes = recording.plain(f"{entry['id']}/generated_tokens")
        assert codes is not None
        prompt = processor.drawing_prompt(entry["conversation"][0]["content"])
        rows = [new_row(None, num_codes=codes.shape[1], **options) for _ in codes]
        handles = [engine.draw(prompt, row, guidance_scale=entry["cfg_weight"]) for row in rows]
        for handle in handles:
            handle.result()
        assert [row.tokens for row in rows] == codes.tolist()


def test_the_recorded_drawings_through_the_engine(case: Path, model: VisionLanguageModel) -> None:
    with new_engine(model) as engine:
        assert_draws_what_is_recorded(engine, case)


@pytest.fixture(scope="module")
def alone(model: VisionLanguageModel, prompts: list[DrawingPrompt]) -> dict[int, list[int]]:
    """{seed: codes} of 20 seeds, each drawn by an engine of its own."""
    found = {}
    for seed in range(20):
        with new_engine(model) as engine:
            (found[seed],) = draw(engine, [(prompts[seed % 8], seed, 5.0)])
    assert len({tuple(codes) for codes in found.values()}) == 20
    return found


@pytest.mark.parametrize("num_slots", [8, 3, 1])
def test_a_seed_gives_the_same_codes_in_a_shuffled_batch(model, prompts, alone, num_slots) -> None:
    seeds = list(range(20))
    random.Random(num_slots).shuffle(seeds)
    with new_engine(model, num_slots=num_slots) as engine:
        for first in range(0, 20, 8):
            batch = seeds[first : first + 8]
            assert draw(engine, [(prompts[seed % 8], seed, 5.0) for seed in batch]) == [alone[seed] for seed in batch]


def test_pictures_with_and_without_guidance_and_texts_share_the_engine(model, prompts, alone) -> None:
    def answer(engine: Engine):
        row = Row(
            prompt_ids=torch.tensor([5, 6, 7]),
            options=SamplingOptions(detect_loops=False),
            max_new_tokens=50,
            end_ids=frozenset(),
            hidden_ids=frozenset(),
            decode=lambda tokens: "a" * len(tokens),
        )
        return row, engine.submit(text_inputs([5, 6, 7]), row)

    with new_engine(model) as engine:
        row, handle = answer(engine)
        text = handle.result().tokens
    with new_engine(model) as engine:
        (unguided,) = draw(engine, [(prompts[1], 1, 1.0)])
    assert unguided != alone[1]
    with new_engine(model) as engine:
        answers = [answer(engine) for _ in range(3)]
        drawn = draw(engine, [(prompts[1], 1, 1.0), (prompts[1], 1, 5.0), (prompts[2], 2, 5.0)])
        assert drawn == [unguided, alone[1], alone[2]]
        for row, handle in answers:
            handle.result()
            assert row.tokens == text
        assert draw(engine, [(prompts[3], 3, 5.0)]) == [alone[3]]


def test_guidance_of_one_takes_one_row_and_equals_the_plain_loop(model, prompts) -> None:
    with new_engine(model) as engine:
        row = new_row(None)
        engine.draw(prompts[0], row, guidance_scale=1).result()
        assert len(engine._scheduler.slots.slots) == 1
    plain = draw_greedily(model, model.image_head, prompts[0], steps=CODES, guidance_scale=1.0, pictures=1)
    assert row.tokens == plain.codes[0].tolist()


def test_guided_logits_are_given_to_the_caller(model, prompts) -> None:
    logits: list[torch.Tensor] = []
    with new_engine(model) as engine:
        engine.draw(prompts[0], new_row(None), guidance_scale=3.0, on_logits=logits.append).result()
    plain = draw_greedily(model, model.image_head, prompts[0], steps=CODES, guidance_scale=3.0, pictures=1)
    torch.testing.assert_close(torch.stack(logits), plain.guided[:, 0], atol=2e-4, rtol=1e-4)


def test_a_prompt_longer_than_a_chunk(model, prompts, alone) -> None:
    with new_engine(model, chunk=5) as engine:
        assert draw(engine, [(prompts[7], 7, 5.0), (prompts[2], 2, 5.0)]) == [alone[7], alone[2]]


def test_cancelling_ends_within_one_step_and_leaves_the_others(model, prompts, alone) -> None:
    class After:
        def __init__(self, row: ImageRow, count: int) -> None:
            self.row, self.count = row, count

        def is_set(self) -> bool:
            return len(self.row.tokens) >= self.count

    rows = [new_row(seed) for seed in range(4)]
    with new_engine(model) as engine:
        handles = [
            engine.draw(prompts[seed], row, guidance_scale=5.0, cancel=After(row, 3 if seed % 2 else 99))
            for seed, row in enumerate(rows)
        ]
        for handle in handles:
            handle.result()
        assert draw(engine, [(prompts[4], 4, 5.0)]) == [alone[4]]
    assert [row.finish_reason for row in rows] == ["stop", "cancelled"] * 2
    assert [row.tokens for row in rows] == [alone[0], alone[1][:3], alone[2], alone[3][:3]]


def test_what_a_caller_raises_ends_his_picture_only(model, prompts, alone) -> None:
    def fail() -> None:
        if len(rows[0].tokens) == 4:
            raise LookupError("mine")

    rows = [new_row(0), new_row(1)]
    with new_engine(model) as engine:
        handles = [engine.draw(prompts[n], row, guidance_scale=5.0, on_step=fail) for n, row in enumerate(rows[:1])]
        handles.append(engine.draw(prompts[1], rows[1], guidance_scale=5.0))
        with pytest.raises(LookupError, match="mine"):
            handles[0].result()
        handles[1].result()
    assert rows[1].tokens == alone[1]


def test_codes_are_not_taken_for_tokens_of_a_later_prompt(model, prompts) -> None:
    with new_engine(model) as engine:
        row = new_row(3)
        engine.draw(prompts[0], row, guidance_scale=1).result()
        ids = [*prompts[0].conditional.tolist(), *row.tokens, 9]
        later = DrawingPrompt(conditional=torch.tensor(ids), unconditional=torch.tensor(ids), text="")
        handle = engine.draw(later, new_row(None), guidance_scale=1)
        handle.result()
        assert handle.reused_tokens == len(prompts[0].conditional)


def test_pairs_that_do_not_fit_together_are_drawn_one_after_another(model, prompts, alone, monkeypatch) -> None:
    """A device with room for a little more than two rows: each pair waits until the one before has ended."""
    with new_engine(model) as engine:
        slots = engine._scheduler.slots
        size = slots._size(1, 512)
        monkeypatch.setattr(slots, "_free", lambda: int(3.9 * size) - slots.num_bytes)
        assert draw(engine, [(prompts[seed], seed, 5.0) for seed in range(6)]) == [alone[seed] for seed in range(6)]
        assert len(slots.slots) == 2


def test_a_pair_for_which_there_is_never_room_fails_and_the_engine_goes_on(model, prompts, monkeypatch) -> None:
    from mm.errors import ResourceError

    with new_engine(model) as engine:
        slots = engine._scheduler.slots
        monkeypatch.setattr(slots, "_free", lambda: int(1.4 * slots._size(1, 512)) - slots.num_bytes)
        handle = engine.draw(prompts[0], new_row(0), guidance_scale=5.0)
        with pytest.raises(ResourceError, match="two rows of the cache"):
            handle.result()
        assert engine.draw(prompts[0], new_row(0), guidance_scale=1.0).result().finish_reason == "stop"


def test_pictures_from_many_threads(model, prompts, alone) -> None:
    found: dict[int, list[int]] = {}
    with new_engine(model, num_slots=4) as engine:

        def work(seed: int) -> None:
            (found[seed],) = draw(engine, [(prompts[seed % 8], seed, 5.0)])

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {seed: alone[seed] for seed in range(12)}


def test_no_more_pictures_run_together_than_the_engine_has_places(model, prompts) -> None:
    most = []
    with new_engine(model, num_slots=2) as engine:
        rows = [new_row(seed) for seed in range(5)]
        handles = [
            engine.draw(prompts[0], row, guidance_scale=1, on_step=lambda: most.append(len(engine._scheduler.running)))
            for row in rows
        ]
        for handle in handles:
            handle.result()
    assert max(most) == 2
