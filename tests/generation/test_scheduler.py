"""Who does what in which step: driven step by step, without a thread."""

import torch

from mm.generation.handle import Handle
from mm.generation.prompt import token_keys
from mm.generation.scheduler import Scheduler
from mm.generation.task import ChosenTask, Lane
from tests.generation.tiny import IMAGE_ID, Embedder, picture_inputs, plain_greedy, text_inputs

LONG, SHORT = list(range(1, 200)), [7, 8, 9]


class Steps:
    """A scheduler that is stepped by hand, and the rows and tokens of every call of its decoder."""

    def __init__(self, decoder, new_row, **options):
        self.embed = Embedder(decoder)
        self.scheduler = Scheduler(decoder, self.embed, device=torch.device("cpu"), **{"num_slots": 8} | options)
        self.new_row = new_row
        self.calls = []
        self._hook = decoder.model.norm.register_forward_hook(
            lambda _, __, out: self.calls.append(tuple(out.shape[:2]))
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._hook.remove()

    def submit(self, inputs, cancel=None, **options):
        row = self.new_row(inputs.input_ids, **{"detect_loops": False} | options)
        lane = Lane(inputs=inputs, keys=token_keys(inputs))
        task = ChosenTask(lanes=(lane,), row=row, handle=Handle(row), cancel=cancel)
        self.scheduler.intake.waiting.append(task)
        return task.handle

    def step(self):
        """The calls of one step."""
        before = len(self.calls)
        with torch.inference_mode():
            self.scheduler.step()
        return self.calls[before:]

    def finish(self):
        while not self.scheduler.idle:
            self.step()


def test_a_short_answer_never_waits_for_a_long_one(decoder, new_row):
    with Steps(decoder, new_row) as steps:
        long = steps.submit(text_inputs(LONG), max_new_tokens=200)
        steps.step()
        short = steps.submit(text_inputs(SHORT), max_new_tokens=3)
        for _ in range(3):
            assert not short.ended
            steps.step()
        assert short.ended
        assert len(long.row.tokens) == 4
        assert short.row.tokens == plain_greedy(decoder, SHORT, 3)


def test_running_answers_move_on_while_a_long_prompt_is_taken_in(decoder, new_row):
    with Steps(decoder, new_row, chunk=50) as steps:
        running = steps.submit(text_inputs(SHORT), max_new_tokens=50)
        steps.step()
        long = steps.submit(text_inputs(LONG), max_new_tokens=5)
        calls = [steps.step() for _ in range(4)]
        assert calls == [[(1, 1), (1, 50)]] * 3 + [[(1, 1), (1, 49)]]
        assert len(running.row.tokens) == 5
        assert len(long.row.tokens) == 1
        assert steps.step() == [(2, 1)]


def test_running_answers_move_on_between_the_images_of_a_prompt(decoder, new_row):
    prompt = picture_inputs([1, 2, IMAGE_ID, 3, IMAGE_ID, 4, IMAGE_ID, 5], [0.5, 1.0, 2.0])
    with Steps(decoder, new_row) as steps:
        running = steps.submit(text_inputs(SHORT), max_new_tokens=50)
        steps.step()
        asked = steps.submit(prompt)
        views = []
        while not asked.row.tokens:
            steps.step()
            views.append(steps.embed.views)
        assert views == [2, 4, 6, 6]  # an image a step, then the decoder
        assert len(running.row.tokens) == 5


def test_only_running_answers_are_computed(decoder, new_row):
    with Steps(decoder, new_row) as steps:
        handles = [steps.submit(text_inputs([n]), max_new_tokens=length) for n, length in enumerate([3, 9, 5, 1])]
        calls = []
        while not steps.scheduler.idle:
            calls.append([rows for rows, tokens in steps.step() if tokens == 1])
    # A prompt of one token a step beside the running ones; the rows shrink as answers end.
    assert calls == [[1], [1, 1], [2, 1], [2, 1], [2], [2], [2], [1], [1], [1]]
    assert [len(handle.row.tokens) for handle in handles] == [3, 9, 5, 1]


def test_a_cancelled_answer_ends_before_the_next_step(decoder, new_row):
    with Steps(decoder, new_row, chunk=50) as steps:
        running = steps.submit(text_inputs(SHORT), max_new_tokens=50)
        steps.step()
        half = steps.submit(text_inputs(LONG))
        waiting = steps.submit(text_inputs(SHORT))
        steps.step()
        for handle in (running, half, waiting):
            handle.cancel()
        assert steps.step() == []
        assert [handle.row.finish_reason for handle in (running, half, waiting)] == ["cancelled"] * 3
        assert len(running.row.tokens) == 2
        assert steps.scheduler.idle


def test_a_request_that_is_cancelled_before_it_comes_costs_nothing_whenever_it_comes(decoder, new_row):
    class Set:
        def is_set(self):
            return True

    with Steps(decoder, new_row) as steps:
        running = steps.submit(text_inputs(SHORT), max_new_tokens=1)
        late = []
        # It comes in the middle of a step, as from another thread.
        running.when_ended(lambda: late.append(steps.submit(text_inputs(LONG), cancel=Set())))
        running.cancel()
        assert steps.step() == []
        assert not late[0].ended
        assert steps.step() == []
        assert (late[0].row.finish_reason, late[0].row.tokens) == ("cancelled", [])


# Prefix reuse


def test_a_second_turn_computes_its_new_tokens_only(decoder, new_row):
    with Steps(decoder, new_row) as steps:
        first = steps.submit(text_inputs(LONG), max_new_tokens=20)
        steps.finish()
        turn = [*LONG, *first.row.tokens, 250, 251, 252]
        before = steps.scheduler.statistics.prefilled_tokens
        second = steps.submit(text_inputs(turn))
        steps.finish()
        # The last token of an answer is never fed back, so it counts as new.
        assert second.reused_tokens == len(LONG) + 19
        assert steps.scheduler.statistics.prefilled_tokens - before == 4
        assert steps.scheduler.statistics.reused_tokens == len(LONG) + 19
        assert second.row.tokens == plain_greedy(decoder, turn, 16)
        assert len(steps.scheduler.slots.slots) == 1  # it goes on in the same slot


def test_the_same_prompt_again_computes_its_last_token_only(decoder, new_row):
    with Steps(decoder, new_row) as steps:
        for reused in (0, len(LONG) - 1, len(LONG) - 1):
            handle = steps.submit(text_inputs(LONG))
            steps.finish()
            assert handle.reused_tokens == reused
            assert handle.row.tokens == plain_greedy(decoder, LONG, 16)


def test_images_are_reused_by_their_pixels(decoder, new_row):
    def ask(steps, pictures, ids):
        views = steps.embed.views
        handle = steps.submit(picture_inputs(ids, pictures))
        steps.finish()
        return handle.row.tokens, handle.reused_tokens, steps.embed.views - views

    text = list(range(20))
    one, two = [IMAGE_ID, *text], [IMAGE_ID, *text, IMAGE_ID, *text]
    with Steps(decoder, new_row) as steps:
        tokens, reused, views = ask(steps, [0.5], one)
        assert (reused, views) == (0, 2)
        assert ask(steps, [0.5], one) == (tokens, 24, 0)  # all but the last token
        other, reused, views = ask(steps, [2.0], one)
        assert (reused, views) == (0, 2)
        assert other != tokens
        assert ask(steps, [0.5, 2.0], two)[1:] == (25, 2)  # only the second image is new
        assert ask(steps, [0.5, 1.0], two)[1:] == (25, 2)
        again = ask(steps, [0.5, 2.0], two)
    with Steps(decoder, new_row) as steps:
        assert ask(steps, [0.5, 2.0], two)[0] == again[0]


def test_a_prefix_of_a_running_answer_is_copied(decoder, new_row):
    with Steps(decoder, new_row) as steps:
        first = steps.submit(text_inputs([*LONG, 201]), max_new_tokens=30)
        second = steps.submit(text_inputs([*LONG, 202]), max_new_tokens=30)
        steps.finish()
        assert (first.reused_tokens, second.reused_tokens) == (0, len(LONG))
        for handle, end in ((first, 201), (second, 202)):
            assert handle.row.tokens == plain_greedy(decoder, [*LONG, end], 30)


def test_conversations_in_turn_do_not_push_each_other_out(decoder, new_row):
    starts = [[n, *LONG[: 60 + n]] for n in range(3)]
    with Steps(decoder, new_row) as steps:
        for turn in range(3):
            for start in starts:
                handle = steps.submit(text_inputs([*start, *[240] * turn]))
                steps.finish()
                assert handle.reused_tokens == (0 if turn == 0 else len(start) + turn - 1)


def test_an_answer_cancelled_in_the_middle_of_its_prompt_is_reused_as_far_as_it_came(decoder, new_row):
    prompt = picture_inputs([*range(30), IMAGE_ID, *range(30)], [1.0])
    with Steps(decoder, new_row, chunk=32) as steps:  # ends inside the image
        handle = steps.submit(prompt)
        steps.step()
        handle.cancel()
        steps.step()
        again = steps.submit(prompt)
        steps.finish()
        assert again.reused_tokens == 30
    with Steps(decoder, new_row) as steps:
        alone = steps.submit(prompt)
        steps.finish()
    assert again.row.tokens == alone.row.tokens


# As on an accelerator


def test_rounded_up_rows_disturb_nobody(decoder, new_row):
    prompts = [[n, *LONG[: 30 * n]] for n in range(1, 6)]
    with Steps(decoder, new_row) as steps:
        steps.scheduler.steps.rounds_rows = True
        for _ in range(2):  # the second time with what idle slots kept
            handles = [steps.submit(text_inputs(ids), max_new_tokens=10 + 5 * n) for n, ids in enumerate(prompts)]
            calls = []
            while not steps.scheduler.idle:
                calls += [rows for rows, tokens in steps.step() if tokens == 1]
            assert set(calls) <= {1, 2, 4, 8}
            for handle, ids in zip(handles, prompts, strict=True):
                assert handle.row.tokens == plain_greedy(decoder, ids, handle.row.max_new_tokens)
        assert handles[-1].reused_tokens == len(prompts[-1]) - 1
