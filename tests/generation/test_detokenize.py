"""Text arrives in whole characters and joins to the text of all tokens."""

import random

import pytest

from mm.generation.detokenize import Detokenizer

# A byte vocabulary with a few longer tokens, as byte-level BPE has them: ids 0..255 are bytes, the rest as listed.
WORDS = [b" the", "é".encode(), "日".encode()[:2], "本語".encode()[1:], b"\xf0\x9f", "\ufffd".encode()]


def decode(tokens):
    return b"".join(bytes([t]) if t < 256 else WORDS[t - 256] for t in tokens).decode("utf-8", errors="replace")


def pieces_of(tokens):
    detokenizer = Detokenizer(decode)
    return [detokenizer.push(token) for token in tokens] + [detokenizer.flush()]


def test_ascii_comes_out_at_once():
    assert pieces_of(b"abc") == ["a", "b", "c", ""]


@pytest.mark.parametrize("text", ["é", "日本", "👍🏽 ok", "a\u0301", "𐍈x"])
def test_a_character_of_several_tokens_comes_out_whole(text):
    pieces = pieces_of(text.encode())
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert [p for p in pieces if p] == list(text)


def test_an_unfinished_character_at_the_end_is_shown_as_such():
    assert pieces_of("é👍".encode()[:-1]) == ["", "é", "", "", "", "\ufffd"]


def test_bytes_that_are_no_text_do_not_hold_up_the_rest():
    tokens = [0x80] * 500
    pieces = pieces_of(tokens + list(b"ok"))
    assert "".join(pieces) == "\ufffd" * 500 + "ok"
    assert sum(map(len, pieces[:20])) >= 15


def test_a_real_replacement_character_survives():
    assert "".join(pieces_of([261, *b"a", 261])) == "\ufffda\ufffd"


def test_any_tokens_join_to_the_text_of_all():
    rng = random.Random(0)
    for _ in range(300):
        tokens = rng.choices([*range(0x70, 0x100), *range(256, 262)], k=rng.randint(1, 80))
        pieces = pieces_of(tokens)
        assert "".join(pieces) == decode(tokens)


def test_the_cost_of_a_step_does_not_grow():
    seen = []

    def counting(tokens):
        seen.append(len(tokens))
        return decode(tokens)

    detokenizer = Detokenizer(counting)
    for token in [*b"x" * 300, *[0x80] * 300, *"日".encode() * 100]:
        detokenizer.push(token)
    assert max(seen) <= 40


def test_decoders_that_strip_the_first_space_do_not_lose_spaces():
    words = ["\u2581the", "\u2581red", "\u2581fox", "es"]

    def strip(tokens):
        return "".join(words[t] for t in tokens).replace("\u2581", " ").removeprefix(" ")

    detokenizer = Detokenizer(strip)
    assert "".join(detokenizer.push(t) for t in [0, 1, 2, 3, 0]) == "the red foxes the"
