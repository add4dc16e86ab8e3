"""What is trained is what answers: the same ids, the same embeddings, the same logits as inference."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mm.chat import Message, TextPart, user_message
from mm.families.table import build_model, load_config
from mm.language.moe import MoE
from mm.processing.vl2 import VL2Processor
from mm.synthetic.documents import render
from mm.synthetic.fonts import FontSet
from mm.synthetic.sample import Sample
from mm.training.charmap import NUM_CHARACTERS
from mm.training.data import SampleEncoder
from mm.training.feed import to_device
from mm.training.objective import Objective, TrainingBatch, initialize
from mm.training.recipe import BucketRecipe
from mm.training.ring import EncodedSample, Rows

BUCKETS = (BucketRecipe(views=1, length=640, rows=2), BucketRecipe(views=10, length=2048, rows=1))


@pytest.fixture(scope="module")
def processor(toy_folder: Path) -> VL2Processor:
    return VL2Processor.from_folder(toy_folder)


@pytest.fixture(scope="module")
def objective(toy_folder: Path) -> Objective:
    model = build_model(load_config(toy_folder), device="cpu")
    objective = Objective(
        model, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, char_map_blank=0.2, length_power=-0.5
    ).train()
    generator = torch.Generator().manual_seed(0)
    initialize(objective, generator)
    with torch.no_grad():  # away from the zeros of a fresh model, which would hide mistakes
        for parameter in objective.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return objective


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    fonts = FontSet.find("train")
    return [render(kind, np.random.default_rng(seed), fonts, 0.6) for seed, kind in enumerate(("word", "receipt"))]


def _conversation(sample: Sample) -> list[Message]:
    messages = []
    for index, turn in enumerate(sample.turns):
        messages.append(user_message(turn.question, [sample.image] if index == 0 else []))
        messages.append(Message("assistant", (TextPart(turn.answer),)))
    return messages


def _batch(sample: EncodedSample) -> TrainingBatch:
    rows = Rows(
        views=sample.views[None],
        characters=sample.characters[None],
        source=sample.source[None],
        labels=sample.labels[None],
        kinds=np.zeros(1, np.uint8),
    )
    return to_device(rows, torch.device("cpu"))[0]


@pytest.mark.parametrize(("index", "max_tiles"), [(0, 1), (1, 9)])
def test_training_ids_labels_and_logits_equal_inference(
    processor: VL2Processor, objective: Objective, samples: list[Sample], index: int, max_tiles: int
) -> None:
    sample = samples[index]
    encoded = SampleEncoder(processor, BUCKETS).encode(sample, 0, max_tiles)
    assert encoded is not None
    bucket, row = encoded
    assert bucket == (0 if max_tiles == 1 else 1)
    inputs = processor.process(_conversation(sample), max_tiles=max_tiles, training=True)
    assert inputs.labels is not None
    ids = np.where(row.source < 0, -3 - row.source, processor.image_id)
    expected = inputs.input_ids.numpy()
    text = ~inputs.image_mask.numpy()
    assert (ids[text] == expected[text]).all()
    assert len(ids) == len(expected)
    assert (row.labels == np.where(inputs.labels == processor.spec.ignore_id, -1, inputs.labels)).all()
    assert (row.views.shape[0] == 1) == (max_tiles == 1)

    model = objective.model
    batch = _batch(row)
    with torch.no_grad():
        embeds = objective.embeds(model.vision(objective.pixels(batch.views)), batch.source)
        for module in model.modules():
            if isinstance(module, MoE):
                module.dispatch = "dense"
        trained = model.decoder.logits(model.decoder(embeds))
        model.eval()
        for module in model.modules():
            if isinstance(module, MoE):
                module.dispatch = "auto"
        answered = model.decoder.logits(model.decoder(model.embed_inputs([inputs])[0][None]))
        model.train()
    torch.testing.assert_close(embeds[0], model.embed_inputs([inputs])[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(trained, answered, atol=2e-4, rtol=0)


def test_turns_are_dropped_before_an_answer_is_cut(processor: VL2Processor, samples: list[Sample]) -> None:
    sample = samples[1]
    whole = SampleEncoder(processor, BUCKETS).encode(sample, 0, 1)
    assert whole is not None
    assert len(sample.turns) > 1
    tight = (BucketRecipe(views=1, length=len(whole[1].source) - 1, rows=2),)
    shorter = SampleEncoder(processor, tight).encode(sample, 0, 1)
    assert shorter is not None
    assert len(shorter[1].source) < len(whole[1].source)
    end = processor.tokenizer.eos_id
    assert (shorter[1].labels == end).sum() == (whole[1].labels == end).sum() - 1
    assert shorter[1].labels[-1] == end
    assert SampleEncoder(processor, (BucketRecipe(views=1, length=90, rows=2),)).encode(sample, 0, 1) is None


def test_losses_weigh_rows_by_their_length_and_ignore_what_is_padded(
    processor: VL2Processor, objective: Objective, samples: list[Sample]
) -> None:
    encoded = SampleEncoder(processor, BUCKETS).encode(samples[1], 0, 1)
    assert encoded is not None
    row = encoded[1]
    with torch.no_grad():
        single = objective(_batch(row), 0.5)
        padded = EncodedSample(
            views=row.views,
            characters=row.characters,
            source=np.concatenate((row.source, np.full(7, -5, np.int16))),
            labels=np.concatenate((row.labels, np.full(7, -1, np.int16))),
            kind=0,
        )
        longer = objective(_batch(padded), 0.5)
    torch.testing.assert_close(single.total, longer.total)
    torch.testing.assert_close(single.total, single.answer + 0.5 * single.character)
    torch.testing.assert_close(single.answer, single.row_loss[0])
    assert int(single.row_tokens[0]) == int((row.labels >= 0).sum())
    assert single.wrong.shape == (1, len(row.labels) - 1)
    # Two rows: the longer answer weighs as the square root of its length, not as its length.
    short = SampleEncoder(processor, BUCKETS).encode(samples[0], 0, 1)
    assert short is not None
    length = max(len(row.source), len(short[1].source))
    both = [np.pad(s.source, (0, length - len(s.source)), constant_values=-5) for s in (row, short[1])]
    labels = [np.pad(s.labels, (0, length - len(s.labels)), constant_values=-1) for s in (row, short[1])]
    rows = Rows(
        views=np.stack((row.views, short[1].views)),
        characters=np.stack((row.characters, short[1].characters)),
        source=np.stack(both),
        labels=np.stack(labels),
        kinds=np.zeros(2, np.uint8),
    )
    with torch.no_grad():
        out = objective(to_device(rows, torch.device("cpu"))[0], 0.0)
    weights = out.row_tokens.float().sqrt()
    torch.testing.assert_close(out.total, (out.row_loss * weights).sum() / weights.sum())


def test_ignored_character_labels_take_no_part(
    processor: VL2Processor, objective: Objective, samples: list[Sample]
) -> None:
    encoded = SampleEncoder(processor, BUCKETS).encode(samples[0], 0, 1)
    assert encoded is not None
    batch = _batch(encoded[1])
    ignored = TrainingBatch(
        views=batch.views,
        characters=torch.full_like(batch.characters, NUM_CHARACTERS - 1),
        source=batch.source,
        labels=batch.labels,
    )
    with torch.no_grad():
        losses = objective(ignored, 1.0)
    assert float(losses.character) == 0
    assert float(losses.total) == float(losses.answer)
