"""Stop strings that span pieces, and the detector of endless repetition."""

import random

import pytest

from mm.generation.stopping import LoopDetector, StopStrings


def feed(strings, pieces):
    """(text shown, whether stopped, pieces as shown)."""
    stops, shown = StopStrings(strings), []
    for piece in pieces:
        text, stopped = stops.push(piece)
        shown.append(text)
        if stopped:
            return "".join(shown), True, shown
    shown.append(stops.flush())
    return "".join(shown), False, shown


def test_without_stop_strings_text_passes_at_once():
    assert feed((), ["a", "b"]) == ("ab", False, ["a", "b", ""])


def test_a_stop_string_across_pieces_is_cut_with_all_that_follows():
    assert feed(("\n\nUser:",), ["Yes.\n", "\nUs", "er: more"]) == ("Yes.", True, ["Yes.", "", ""])


def test_a_beginning_that_does_not_go_on_is_shown():
    text, stopped, shown = feed(("END",), ["the E", "N", "ergy"])
    assert (text, stopped) == ("the ENergy", False)
    assert shown == ["the ", "", "ENergy", ""]


def test_the_earliest_of_several_stop_strings_counts():
    assert feed(("world", "lo w"), ["hello world"])[:2] == ("hel", True)


def test_what_is_held_back_comes_out_at_the_end():
    assert feed(("END",), ["the EN"])[:2] == ("the EN", False)


def test_any_split_gives_the_same_text():
    source, strings = "aabaabaaabab<stop>tail", ("<stop>", "aabaaab", "zz")
    expected = source[: min(source.find(s) for s in strings if s in source)]
    rng = random.Random(0)
    for _ in range(200):
        cuts = sorted(rng.sample(range(1, len(source)), rng.randint(0, 8)))
        pieces = [source[a:b] for a, b in zip([0, *cuts], [*cuts, len(source)], strict=True)]
        assert feed(strings, pieces)[:2] == (expected, True)


def first_loop(tokens):
    detector = LoopDetector()
    for index, token in enumerate(tokens):
        if detector.push(token):
            return index + 1
    return None


@pytest.mark.parametrize("period", [1, 2, 7, 31, 128])
def test_a_loop_is_found_after_enough_repeats(period):
    lead = list(range(1000, 1020))
    found = first_loop(lead + list(range(period)) * 1000)
    assert found == len(lead) + max(160, 6 * period)


def test_long_rules_and_small_tables_are_no_loops():
    assert first_loop([5] * 120 + list(range(200)) + [6] * 120) is None
    row = list(range(30))
    assert first_loop(row * 5 + [99] + row * 5) is None


def test_a_counter_in_the_repeated_text_is_no_loop():
    tokens = []
    for number in range(200):
        tokens += [1, 2, 3, 1000 + number]
    assert first_loop(tokens) is None


def test_random_tokens_are_no_loop():
    rng = random.Random(0)
    assert first_loop(rng.choices(range(3), k=4000)) is None
