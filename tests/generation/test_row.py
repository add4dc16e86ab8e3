"""One answer, token by token: text, end, log-probabilities, random numbers."""

END = 299


def run(row, tokens):
    """Text pieces until the row ends."""
    pieces = []
    for token in tokens:
        pieces.append(row.push(token, -0.5))
        if row.finish_reason is not None:
            break
    return pieces


def test_the_end_token_is_counted_and_not_shown(new_row):
    row = new_row([1], end_ids=[END])
    assert run(row, [*b"ok", END]) == ["o", "k", ""]
    assert row.finish_reason == "stop"
    assert row.tokens == [*b"ok", END]


def test_a_stop_token_ends_the_answer_like_a_stop_string(new_row):
    row = new_row([1], stop_ids=[280])
    assert run(row, [65, 280]) == ["A", ""]
    assert row.finish_reason == "stop_string"
    assert row.tokens == [65, 280]


def test_the_token_limit_ends_the_answer_and_the_end_token_wins_over_it(new_row):
    row = new_row([1], max_new_tokens=2)
    assert run(row, b"okay") == ["o", "k"]
    assert row.finish_reason == "length"
    row = new_row([1], max_new_tokens=2, end_ids=[END])
    run(row, [65, END])
    assert row.finish_reason == "stop"


def test_a_stop_string_over_token_borders_ends_the_answer(new_row):
    row = new_row([1], stop=("END",), max_new_tokens=50)
    assert "".join(run(row, b"the END of it")) == "the "
    assert row.finish_reason == "stop_string"
    assert len(row.tokens) == 7


def test_raw_text_ends_where_the_text_ends_and_keeps_hidden_tokens_before_it(new_row):
    def decode(tokens):
        return "".join(f"<{token}>" if token >= 256 else chr(token) for token in tokens)

    def raw(tokens, **options):
        row = new_row([1], max_new_tokens=50, hidden_ids=[270, 271, 280], decode=decode, **options)
        return "".join(run(row, tokens)), row.raw_text()

    answer = [270, *b"one", 271, *b" two", 280, END]
    assert raw(answer, end_ids=[END]) == ("one two", "<270>one<271> two<280>")
    assert raw(answer, stop=(" t",)) == ("one", "<270>one<271>")
    assert raw(answer, stop=("e t",)) == ("on", "<270>on")
    assert raw(answer, stop=("on",)) == ("", "<270>")
    assert raw(answer, stop_ids=[271]) == ("one", "<270>one<271>")  # what it closes is closed


def test_text_held_back_for_a_stop_string_comes_out_at_the_limit(new_row):
    row = new_row([1], stop=("END",), max_new_tokens=2)
    assert run(row, b"EN") == ["", "EN"]
    assert row.finish_reason == "length"


def test_a_character_split_over_tokens_comes_out_whole_also_in_a_stop_string(new_row):
    assert run(new_row([1], max_new_tokens=4), "日!".encode()) == ["", "", "日", "!"]
    row = new_row([1], stop=("日",), max_new_tokens=20)
    assert "".join(run(row, "a日b".encode())) == "a"
    assert row.finish_reason == "stop_string"


def test_an_unfinished_character_at_the_limit_is_shown_as_one_replacement(new_row):
    assert "".join(run(new_row([1], max_new_tokens=2), "日".encode())) == "\ufffd"


def test_hidden_tokens_are_kept_but_not_shown(new_row):
    row = new_row([1], hidden_ids=[280, 281], max_new_tokens=4)
    assert "".join(run(row, [280, 65, 281, 66])) == "AB"
    assert row.tokens == [280, 65, 281, 66]


def test_an_endless_repetition_ends_with_the_reason_loop_unless_switched_off(new_row):
    row = new_row([1], max_new_tokens=1000)
    text = "".join(run(row, b"ab" * 500))
    assert row.finish_reason == "loop"
    assert text == "ab" * 80
    row = new_row([1], max_new_tokens=1000, detect_loops=False)
    run(row, b"ab" * 500)
    assert row.finish_reason == "length"


def test_logprobs_are_kept_only_when_asked_for(new_row):
    row = new_row([1], max_new_tokens=2, logprobs=True)
    run(row, b"ab")
    assert row.logprobs == [-0.5, -0.5]
    row = new_row([1], max_new_tokens=2)
    run(row, b"ab")
    assert row.logprobs == []


def test_the_seed_fixes_the_random_numbers_and_none_takes_fresh_ones(new_row):
    numbers = [[new_row([1], seed=seed).uniform() for _ in range(3)] for seed in (7, 7, 8)]
    assert numbers[0] == numbers[1] != numbers[2]
    fresh = {new_row([1]).uniform() for _ in range(5)}
    assert len(fresh) == 5
    assert all(0 <= number < 1 for number in fresh)


def test_a_constraint_is_told_every_token_and_not_asked_after_the_end(new_row):
    class Recorder:
        open = False

        def __init__(self):
            self.calls = []

        def allowed(self):
            self.calls.append("asked")

        def advance(self, token):
            self.calls.append(token)

    recorder = Recorder()
    row = new_row([1], max_new_tokens=3, constraint=recorder)
    for token in b"abc":
        assert row.allowed() is None
        row.push(token, None)
    assert row.allowed() is None
    assert recorder.calls == ["asked", 97, "asked", 98, "asked", 99]
