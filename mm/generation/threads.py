"""How many CPU threads torch uses in one thread of the process, without anybody else noticing."""

import threading

import torch


class ThreadCount:
    """Switches the calling thread between its user's setting and a count of its own.

    ``torch.set_num_threads`` sets two counts: the calling thread's, and the one that threads start with which
    come to torch later. Only the first is wanted here, so each switch puts the second back, from a thread of its own (a
    switch takes a fraction of a millisecond; staying with a count costs nothing). Used by one thread.
    """

    def __init__(self) -> None:
        self._current: int | None = None  # None: the user's

    def use(self, count: int | None) -> None:
        """From now on ``count`` threads in this thread; None: as many as a new thread has, which is what the user of
        ``torch.set_num_threads`` asked for last."""
        if count == self._current:
            return
        self._current = count
        asked, done = threading.Event(), threading.Event()
        default = torch.get_num_threads()

        def keep_default() -> None:
            nonlocal default
            default = torch.get_num_threads()  # the first thing that this thread does in torch
            asked.set()
            done.wait()
            torch.set_num_threads(default)

        keeper = threading.Thread(target=keep_default, name="mm-threads")
        keeper.start()
        asked.wait()
        torch.set_num_threads(default if count is None else count)
        done.set()
        keeper.join()
