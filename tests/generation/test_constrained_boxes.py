"""Constrained decoding of boxes: whatever the weights, every list closes and every box is valid."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from mm.errors import ConfigError, OptionError
from mm.generation.grounding import START, BoxConstraint, BoxGrammar, State, advance, characters_to_close
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.grounding import parse_boxes
from mm.tokenizer import Tokenizer

SPECIALS = ["<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|end|>"]


class ListVocabulary:
    """A vocabulary given as a list of strings; the special tokens come last."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*words, *SPECIALS]
        self.vocab_size = len(self.words)
        self.special_ids = frozenset(range(len(words), len(self.words)))

    def token_id(self, text: str) -> int:
        if text not in self.words:
            raise ConfigError(f"the tokenizer has no token {text!r}")
        return self.words.index(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[i] for i in ids)


BYTES = ListVocabulary([chr(i) for i in range(128)])
MERGED = ListVocabulary(
    [
        *"[], 0123456789ab",
        "[[",
        "]]",
        "],",
        "], ",
        ", ",
        ",[",
        "], [",
        " ",
        "10",
        "99",
        "999",
        "000",
        "07",
        "1000",
        "]]]",
    ]
    + ["1, ", "[[[", " [", "x]", "[1", "0]]", "5], [7"]
)


def walk(state: State, text: str, max_boxes: int = 2) -> State | None:
    reached: State | None = state
    for character in text:
        reached = None if reached is None else advance(reached, character, max_boxes)
    return reached


@pytest.mark.parametrize(
    "text",
    ["[[0,0,0,0]]", "[[0, 0, 0, 0]]", "[[1, 22, 333, 999], [999,0,999,0]]", "[[10, 500, 10, 500],[5, 5, 70, 60]]"],
)
def test_well_formed_lists_are_accepted(text: str) -> None:
    state = walk(START, text)
    assert state is not None and state.phase == "end"
    assert all(advance(state, c, 2) is None for c in "[], 0")


@pytest.mark.parametrize(
    "text",
    [
        "]",
        "[]",
        "[[]",
        "[ ",
        "[[ ",
        "[[,",
        "[[1 ",
        "[[1]",
        "[[1,2]",
        "[[1,2,3]",
        "[[1,2,3,4,",
        "[[1,  ",
        "[[00",
        "[[01",
    ]
    + [
        "[[1000",
        "[[9,9,8]",
        "[[9,9,8,",
        "[[100,9,99,",
        "[[1,100,1,99]",
        "[[1,7,1,0",
        "[[1,2,3,4]]]",
        "[[1,2,3,4] ",
        "x",
    ]
    + ["[[1,2,3,4],,", "[[1,2,3,4],  ", "[[1,2,3,4],]", "[[1,2,3,4],[1,2,3,4],", "[[-", "[[1."],
)
def test_everything_else_is_refused(text: str) -> None:
    assert walk(START, text) is None
    assert walk(START, text[:-1]) is not None or text in ("[[1,  ",)  # refused at its last character, not before


def shortest(state: State, limit: int) -> int:
    """Characters to the end of the list by search: what characters_to_close computes in closed form."""
    frontier = {state}
    for length in range(limit):
        if any(s.phase == "end" for s in frontier):
            return length
        frontier = {following for s in frontier for c in "[],0159" if (following := advance(s, c, 9)) is not None} | {
            following for s in frontier for c in "234678" if (following := advance(s, c, 9)) is not None
        }
    raise AssertionError("no end found")


def test_the_shortest_way_to_close_is_exact() -> None:
    rng = random.Random(3)
    checked = 0
    for _ in range(60):
        state: State | None = START
        for _ in range(rng.randrange(4, 26)):
            assert state is not None
            choices = [s for c in "[],, 0123456789" if (s := advance(state, c, 3)) is not None]
            if not choices:
                break
            state = rng.choice(choices)
        assert state is not None
        if characters_to_close(state) <= 5:  # keeps the search small
            assert shortest(state, 7) == characters_to_close(state), state
            checked += 1
    assert checked > 10
    assert characters_to_close(START) == len("[[0,0,0,0]]")
    for text, rest in [("[[999", ",0,999,0]]"), ("[[5,1,", "5,1]]"), ("[[5,999,9,1", "],"), ("[[50,7,1", "00,7]]")]:
        state = walk(START, text)
        if text.endswith("9,1"):
            assert state is None
        else:
            assert state is not None and characters_to_close(state) == len(rest)


def produce(grammar: BoxGrammar, vocabulary: ListVocabulary, max_new_tokens: int, rng: random.Random) -> str:
    """An answer of random tokens under the constraint, with many attempts to open a list."""
    constraint = BoxConstraint(grammar, max_new_tokens)
    ids: list[int] = []
    opening = vocabulary.token_id("<|det|>")
    everything = [i for i in range(vocabulary.vocab_size) if i != vocabulary.token_id("<|/det|>")]
    for _ in range(max_new_tokens):
        mask = constraint.allowed()
        if mask is None:
            token = opening if rng.random() < 0.3 else rng.choice(everything)
        else:
            assert mask.shape == (grammar.vocab_size,) and mask.dtype == torch.bool and mask.any()
            token = rng.choice([i for i in mask.nonzero()[:, 0].tolist() if i in everything or constraint.open])
        ids.append(token)
        constraint.advance(token)
        if token == vocabulary.token_id("<|end|>"):
            break
    assert not constraint.open
    return vocabulary.decode(ids)


@pytest.mark.parametrize("vocabulary", [BYTES, MERGED], ids=["bytes", "merged"])
@pytest.mark.parametrize("max_boxes", [1, 3])
def test_random_tokens_always_give_whole_boxes(vocabulary: ListVocabulary, max_boxes: int) -> None:
    rng = random.Random(max_boxes)
    grammar = BoxGrammar(vocabulary, vocabulary.vocab_size + 7, max_boxes=max_boxes)
    lists = several = 0
    for _ in range(150):
        text = produce(grammar, vocabulary, rng.randrange(1, 120), rng)
        assert text.count("<|det|>") == text.count("<|/det|>")
        boxes = parse_boxes(text, [(64, 64)])
        assert all(box.valid for box in boxes), [b for b in boxes if not b.valid]
        assert len(boxes) >= text.count("<|det|>")
        lists += text.count("<|det|>")
        several += len(boxes) > text.count("<|det|>")
    assert lists > 100
    assert (several > 0) == (max_boxes > 1)


def test_outside_a_list_nothing_is_constrained_until_no_list_would_fit() -> None:
    grammar = BoxGrammar(BYTES, BYTES.vocab_size)
    opening, closing = BYTES.token_id("<|det|>"), BYTES.token_id("<|/det|>")
    fits = len("[[0,0,0,0]]") + 2
    assert BoxConstraint(grammar, fits).allowed() is None
    mask = BoxConstraint(grammar, fits - 1).allowed()
    assert mask is not None and not mask[opening] and mask.sum() == BYTES.vocab_size - 1
    constraint = BoxConstraint(grammar, fits)
    constraint.advance(opening)
    for character in "[[7,0,7,9]]":  # one digit a number is all that fits
        mask = constraint.allowed()
        assert mask is not None and mask[ord(character)]
        assert set(mask.nonzero()[:, 0].tolist()) <= {ord(character), *b"0123456789"}
        constraint.advance(ord(character))
    mask = constraint.allowed()
    assert mask is not None and mask.nonzero().tolist() == [[closing]]
    constraint.advance(closing)
    assert not constraint.open


def test_a_token_may_spell_several_characters() -> None:
    grammar = BoxGrammar(MERGED, MERGED.vocab_size)
    constraint = BoxConstraint(grammar, 100)

    def allowed_words() -> set[str]:
        mask = constraint.allowed()
        assert mask is not None
        return {MERGED.words[i] for i in mask.nonzero()[:, 0].tolist()}

    def write(word: str) -> None:
        constraint.advance(MERGED.words.index(word))

    write("<|det|>")
    assert allowed_words() == {"[", "[["}
    write("[[")
    assert allowed_words() == {*"0123456789", "10", "99", "999", "1, "}
    write("99")
    assert allowed_words() == {*"0123456789", ",", ", ", "1, "}
    write(", ")
    write("0")
    assert allowed_words() == {",", ", "}
    write(",")
    assert allowed_words() == {" ", *"123456789", "10", "99", "999"}  # x2 must reach 99: 1 can still become 100 or more
    write("10")
    assert allowed_words() == {*"0123456789", "1, "}
    write("7")
    write(", ")
    write("5")
    assert {"]", "]]", "],", "], ", "], ["} <= allowed_words()
    write("], [")
    for word in ["1, ", "2", ",", "999", ",", "2", "]]"]:
        assert word in allowed_words()
        write(word)
    assert allowed_words() == {"<|/det|>"}


def test_what_was_not_allowed_ends_the_constraint_quietly() -> None:
    constraint = BoxConstraint(BoxGrammar(BYTES, BYTES.vocab_size), 100)
    for token in (BYTES.token_id("<|det|>"), ord("x")):
        constraint.advance(token)
    assert not constraint.open and constraint.allowed() is None


def test_a_vocabulary_that_cannot_spell_a_list_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no token of its own for '\]'.*Run without it"):
        BoxGrammar(ListVocabulary([*"[, 0123456789", "]]"]), 30)
    with pytest.raises(ConfigError, match="no token for '0'"):
        BoxGrammar(ListVocabulary([*"[], 123456789"]), 30)
    with pytest.raises(OptionError, match="max_boxes is 0; expected 1 or more"):
        BoxGrammar(BYTES, 200, max_boxes=0)


def test_the_recorded_tokenizers_work(golden: Callable[[str], Path]) -> None:
    tokenizer = Tokenizer.from_folder(golden("deepseek_vl2_base") / "checkpoint")
    grammar = BoxGrammar(tokenizer, tokenizer.vocab_size)
    rng = random.Random(0)
    for _ in range(20):
        constraint = BoxConstraint(grammar, 60)
        ids = [grammar.open_id]
        constraint.advance(grammar.open_id)
        while constraint.open:
            mask = constraint.allowed()
            assert mask is not None
            ids.append(rng.choice(mask.nonzero()[:, 0].tolist()))
            constraint.advance(ids[-1])
        boxes = parse_boxes(tokenizer.decode(ids), [(10, 10)])
        assert len(ids) <= 60 and boxes and all(box.valid for box in boxes)
    # A list as the published models write it is never refused.
    constraint = BoxConstraint(grammar, 200)
    for token in [grammar.open_id, *tokenizer.encode("[[580, 270, 999, 904], [0, 7, 12, 999]]"), grammar.close_id]:
        mask = constraint.allowed()
        assert mask is None or mask[token]
        constraint.advance(token)


def test_a_loop_does_not_cut_a_list_open() -> None:
    """An answer that repeats one list for ever ends with the reason "loop", behind a closing tag."""
    grammar = BoxGrammar(BYTES, BYTES.vocab_size)
    row = Row(
        prompt_ids=torch.zeros(1, dtype=torch.int64),
        options=SamplingOptions(),
        max_new_tokens=2000,
        end_ids=frozenset(),
        hidden_ids=frozenset(),
        decode=BYTES.decode,
        constraint=BoxConstraint(grammar, 2000),
    )
    period = [grammar.open_id, *b"[[1,2,3,4],[1,2,3,4]]", grammar.close_id]
    while row.finish_reason is None:
        row.push(period[len(row.tokens) % len(period)], None)
    assert row.finish_reason == "loop" and row.tokens[-1] == grammar.close_id
    assert all(box.valid for box in parse_boxes(BYTES.decode(row.tokens), [(9, 9)]))
