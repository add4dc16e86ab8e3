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
