"""Tables of positions, asked for by several threads at once."""

import threading

import torch

from mm.config import RopeConfig
from mm.language.rope import Rope

CPU = torch.device("cpu")
LENGTHS = (3000, 10, 2000, 1)


def test_a_thread_with_a_short_prompt_keeps_the_longer_table_of_another() -> None:
    for _ in range(40):
        rope = Rope(RopeConfig(theta=10000.0, scaling=None), 64)
        start = threading.Barrier(len(LENGTHS))
        too_short: list[int] = []

        def ask(
            length: int, rope: Rope = rope, start: threading.Barrier = start, too_short: list[int] = too_short
        ) -> None:
            start.wait()
            rope.ensure(length, CPU)
            too_short += [n for n in (rope.cos.shape[0], rope.sin.shape[0]) if n < length]

        threads = [threading.Thread(target=ask, args=(length,)) for length in LENGTHS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert too_short == []
        assert rope.cos.shape == rope.sin.shape == (max(LENGTHS), 64)


def test_tables_stay_where_they_are_within_the_context_and_beyond_it_for_those_who_hold_them() -> None:
    rope = Rope(RopeConfig(theta=10000.0, scaling=None), 64, context=500)
    rope.ensure(3, CPU)
    cos, sin = rope.cos, rope.sin
    place = cos.data_ptr(), sin.data_ptr()
    for length in (100, 500):
        rope.ensure(length, CPU)
        assert (rope.cos.data_ptr(), rope.sin.data_ptr()) == place
    before = cos.clone()
    del cos, sin
    rope.ensure(501, CPU)
    assert rope.cos.shape[0] == 501
    torch.testing.assert_close(rope.cos[:500], before, rtol=0, atol=0)
    torch.empty(500, 64).fill_(7.0)  # would take the freed place of the old table
    assert [kept.data_ptr() for kept, _ in rope._outgrown] == [place[0]]
