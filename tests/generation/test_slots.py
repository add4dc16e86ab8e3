"""Which slot a request gets, what is kept of it, and how the cache grows within the memory."""

import numpy as np
import pytest
import torch

from mm.environment import Memory
from mm.errors import ResourceError
from mm.generation import slots as module
from mm.generation.slots import GIB, LENGTH_BLOCK, Slots


@pytest.fixture
def new_slots(decoder):
    def build(limit=8):
        return Slots(decoder, torch.device("cpu"), limit)

    return build


def keys(*numbers):
    return np.array(numbers, dtype=np.int64)


def fill(slots, slot, value):
    """Write a value to all of a slot's positions, as prefill and decode steps do."""
    slot.filled = len(slot.keys)
    for layer in slots.row(slot).layers:
        for tensor in layer.tensors:
            tensor[:, : slot.filled] = value


def holds(slots, slot, value, length):
    return all((t[:, :length] == value).all() for layer in slots.row(slot).layers for t in layer.tensors)


def test_the_cache_grows_with_what_runs_together_and_with_the_longest(new_slots):
    slots = new_slots(limit=5)
    taken = []
    for count, rows in enumerate([1, 2, 4, 4, 5]):
        taken.append(slots.take(keys(count, *range(20)), (), 100))
        fill(slots, taken[-1], count + 1.0)
        assert len(slots.slots) == rows
    assert slots.length == LENGTH_BLOCK
    assert slots.take(keys(7), (), 100) is None  # all are busy
    slots.give_back(taken[0], taken[0].keys)
    slots.give_back(taken[3], taken[3].keys)
    longer = slots.take(keys(*range(600)), (), LENGTH_BLOCK + 1)
    assert (slots.length, len(slots.slots)) == (2 * LENGTH_BLOCK, 5)
    assert longer in slots.slots
    for index, slot in enumerate(slots.slots):
        assert slot.index == index
    for number in (1, 2, 4):
        assert holds(slots, taken[number], number + 1.0, 21)


def test_moving_exchanges_what_two_slots_hold(new_slots):
    slots = new_slots()
    a, b = (slots.take(keys(n, *range(20 + n)), (), 100) for n in range(2))
    fill(slots, a, 1.0)
    fill(slots, b, 2.0)
    slots.move(b, 0)
    assert (a.index, b.index) == (1, 0)
    assert slots.slots[:2] == [b, a]
    assert holds(slots, a, 1.0, 21)
    assert holds(slots, b, 2.0, 22)


def test_a_beginning_worth_more_than_the_rest_is_gone_on_with_and_else_copied(new_slots):
    slots = new_slots()
    first = slots.take(keys(*range(100)), (), 200)
    fill(slots, first, 1.0)
    slots.give_back(first, first.keys)
    second = slots.take(keys(*range(30), *range(500, 600)), (), 200)  # 30 of 100
    assert second is not first
    assert second.filled == 30
    assert holds(slots, second, 1.0, 30)
    fill(slots, second, 2.0)
    third = slots.take(keys(*range(60), 7, 8), (), 200)  # 60 of 100
    assert third is first
    assert third.filled == 60
    slots.give_back(third, third.keys)
    assert slots.take(keys(*range(15), *range(700, 720)), (), 200).filled == 0  # shorter than what is worth it


def test_the_slot_used_longest_ago_makes_room(new_slots):
    slots = new_slots(limit=3)
    prompts = [keys(*range(n * 100, n * 100 + 40)) for n in range(4)]
    for prompt in prompts:
        slot = slots.take(prompt, (), 100)
        fill(slots, slot, 1.0)
        slots.give_back(slot, prompt)
    assert [slots._longest_prefix(prompt, ())[1] for prompt in prompts] == [0, 39, 39, 39]


def test_nothing_is_kept_of_a_request_that_failed(new_slots):
    slots = new_slots()
    slot = slots.take(keys(*range(40)), (), 100)
    fill(slots, slot, torch.nan)
    slots.wipe(slot)
    assert holds(slots, slot, 0.0, slots.length + 1)
    assert slots.take(keys(*range(40)), (), 100).filled == 0


def test_memory_decides_how_many_run_together_and_what_is_kept(new_slots, monkeypatch):
    slots = new_slots()
    per_slot = slots._size(1, LENGTH_BLOCK)

    def leave(count):
        """As much free memory as that many slots may take."""
        size = int(count * per_slot / module.CACHE_SHARE) + 1
        monkeypatch.setattr(module, "device_memory", lambda device: Memory(GIB, size))

    leave(2)
    first = slots.take(keys(*range(40)), (), 100)
    fill(slots, first, 1.0)
    leave(1)
    assert slots.take(keys(*range(100, 140)), (), 100) is None  # two rows do not fit while the first one runs
    leave(2)
    second = slots.take(keys(*range(100, 140)), (), 100)
    assert len(slots.slots) == 2
    assert holds(slots, first, 1.0, 40)
    fill(slots, second, 2.0)
    slots.give_back(first, first.keys)
    leave(1)
    assert slots.take(keys(*range(200, 240)), (), 2 * LENGTH_BLOCK) is None
    slots.give_back(second, second.keys)
    longer = slots.take(keys(*range(200, 240)), (), 2 * LENGTH_BLOCK)  # in place of the old cache
    assert (len(slots.slots), slots.length) == (1, 2 * LENGTH_BLOCK)
    slots.give_back(longer, longer.keys)
    said = r"a request of 99,999 tokens \(prompt and answer\) needs a cache of [\d.]+ GiB, and [\d.]+ GiB are free on"
    with pytest.raises(ResourceError, match=said):
        slots.take(keys(1), (), 99_999)
    assert slots.take(keys(1), (), 100).filled == 0


def test_what_older_weights_computed_is_not_found(new_slots):
    slots = new_slots()
    prompt = keys(*range(60))
    idle, running = slots.take(prompt, (), 100), slots.take(keys(7, *range(60)), (), 100)
    slots.give_back(idle, prompt)
    running.filled = 40
    slots.distrust()
    again = slots.take(prompt, (), 100)
    assert again.filled == 0
    assert slots.take(running.keys, (), 100).filled == 0  # nor of what runs
    slots.give_back(running, running.keys)
    assert running.filled == 0  # nor when that has ended
    slots.give_back(again, prompt)
    assert slots.take(prompt, (), 100).filled == 59


def test_less_memory_than_it_seemed_makes_a_request_wait_where_others_run(new_slots):
    slots = new_slots()
    first = slots.take(keys(1), (), 100)
    new_cache = slots._decoder.new_cache

    def fail(*_):
        raise RuntimeError("CUDA out of memory.")

    slots._decoder.new_cache = fail
    try:
        assert slots.take(keys(2), (), 100) is None
        slots.give_back(first, keys(1))
        assert slots.take(keys(2), (), 100) is first
        slots.give_back(first, keys(2))
        with pytest.raises(ResourceError, match=r"the memory of cpu has no [\d.]+ GiB for the cache"):
            slots.take(keys(2), (), 1000)
    finally:
        slots._decoder.new_cache = new_cache
