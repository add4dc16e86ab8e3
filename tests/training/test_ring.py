"""Rings: what goes in comes out, across processes, and torn rows lose their labels."""

import multiprocessing

import numpy as np

from mm.training.feed import BLOCK_STEPS, StepPlan
from mm.training.recipe import BucketRecipe
from mm.training.ring import IGNORED_CHARACTER, EncodedSample, Ring

BUCKET = BucketRecipe(views=2, length=8, rows=3)


def _ring(capacity: int) -> Ring:
    context = multiprocessing.get_context("fork")
    return Ring(BUCKET, capacity=capacity, view_size=4, grid=2, padding=-5, context=context)


def _sample(number: int, views: int = 1) -> EncodedSample:
    return EncodedSample(
        views=np.full((views, 4, 4, 3), number, np.uint8),
        characters=np.full((views, 2, 2, 2), number, np.uint8),
        source=np.full(5, -10 - number, np.int16),
        labels=np.full(5, number, np.int16),
        kind=number,
    )


def test_a_sample_comes_back_padded_to_its_bucket() -> None:
    ring = _ring(4)
    ring.put(_sample(7))
    rows = ring.read(np.array([0]))
    assert (rows.views[0, 0] == 7).all()
    assert (rows.characters[0, 0] == 7).all()
    assert (rows.characters[0, 1] == IGNORED_CHARACTER).all()
    assert rows.source[0].tolist() == [-17] * 5 + [-5] * 3
    assert rows.labels[0].tolist() == [7] * 5 + [-1] * 3
    assert rows.kinds.tolist() == [7]


def test_the_oldest_slot_is_overwritten_and_draws_are_uniform_over_what_is_there() -> None:
    ring = _ring(4)
    for number in range(6):
        ring.put(_sample(number))
    rows = ring.draw(np.random.default_rng(0), 400)
    values, counts = np.unique(rows.kinds, return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert counts.min() > 60
    assert ring.num_written == 6


def test_a_row_that_is_being_replaced_has_no_labels() -> None:
    ring = _ring(2)
    ring.put(_sample(1))
    ring.put(_sample(2))
    ring._stamps[1] = -1  # as a renderer leaves it while it writes
    rows = ring.read(np.array([0, 1]))
    assert rows.labels[0, 0] == 1
    assert (rows.labels[1] == -1).all()
    assert (rows.characters[1] == IGNORED_CHARACTER).all()


def test_samples_of_another_process_arrive() -> None:
    ring = _ring(4)
    process = multiprocessing.get_context("fork").Process(target=ring.put, args=(_sample(9),))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert ring.num_written == 1
    assert ring.read(np.array([0])).kinds.tolist() == [9]


def test_the_plan_follows_what_is_rendered_and_is_the_same_on_every_rank() -> None:
    counts = np.array([[8000.0, 4000.0, 3.0], [8000.0, 4000.0, 0.0]])  # (world, buckets)
    plans = [StepPlan([10, 10, 2], seed=1) for _ in range(2)]
    blocks = [[plan.next_block(counts, block) for block in range(100)] for plan in plans]
    assert blocks[0] == blocks[1]
    steps = np.array(blocks[0]).ravel()
    assert len(steps) == 100 * BLOCK_STEPS
    assert not (steps == 2).any()  # one rank has too few
    assert 0.6 < (steps == 0).mean() < 0.73


def test_the_plan_starts_with_the_fullest_bucket_while_none_has_a_step() -> None:
    assert set(StepPlan([10, 10], seed=1).next_block(np.array([[1.0, 3.0]]), 0)) == {1}
