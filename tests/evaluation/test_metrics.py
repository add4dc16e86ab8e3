"""Character error rate, exact match and intervals."""

import random
import time

import pytest

from mm.evaluation.metrics import (
    bootstrap_cer,
    cer,
    edit_distance,
    exact,
    normalize_answer,
    normalize_transcription,
    transcription_errors,
    wilson,
)


def table_distance(a: str, b: str) -> int:
    """The textbook dynamic programme, as the other implementation."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("a", "a", 0),
        ("€", "e", 1),
    ],
)
def test_edit_distance_known(a, b, distance):
    assert edit_distance(a, b) == distance


def test_edit_distance_equals_the_table_on_random_texts():
    rng = random.Random(0)
    for _ in range(300):
        a = "".join(rng.choices("abc\n", k=rng.randrange(0, 90)))
        b = "".join(rng.choices("abcd", k=rng.randrange(0, 90))) if rng.random() < 0.5 else a[3:] + "xy" + a[:1]
        assert edit_distance(a, b) == table_distance(a, b)


def test_edit_distance_is_fast_enough_for_500_receipts():
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefghij 0123456789\n", k=400)) for _ in range(501)]
    started = time.process_time()  # of this process only: other work on the machine does not count
    for one, other in zip(texts, texts[1:], strict=False):
        edit_distance(one, other)
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("a  b\t c", "a b c"),
        ("  a \n\n b ", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("A\n------\nB\n= = = =\n****", "A\nB"),
        ("Coffee ........ 3.50", "Coffee 3.50"),
        ("Name: ________", "Name:"),
        ("Tea . . . . 2.00", "Tea 2.00"),
        ("A-12 3.50 a..b", "A-12 3.50 a..b"),
        ("e\u0301", "\u00e9"),
        ("a\u00a0b", "a b"),
        ("---", ""),
    ],
)
def test_normalize_transcription(raw, normal):
    assert normalize_transcription(raw) == normal


def test_cer_counts_rows_case_and_spaces():
    assert transcription_errors("a b", "a\nb") == (1, 3)
    assert transcription_errors("AB", "ab") == (2, 2)
    assert transcription_errors("ab", "a b") == (1, 3)
    assert cer(["ab", "xyz!"], ["ab", "xyz"]) == pytest.approx(1 / 5)
    assert cer(["much more than there is"], ["a"]) > 1


def test_cer_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match="1 outputs cannot be compared with 2 references"):
        cer(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="hold no character"):
        cer(["a"], ["----"])


@pytest.mark.parametrize(
    ("output", "reference", "kind", "right"),
    [
        ("Green Leaf", "GREEN LEAF", "text", True),
        (' "Green  Leaf". ', "Green Leaf", "text", True),
        ("$12.40", "12.40", "amount", True),
        ("12.40 EUR", "€12.40", "amount", True),
        ("12.4", "12.40", "amount", False),
        ("12,40", "12.40", "amount", False),
        ("$12.40", "12.40", "text", False),
        ("The total is 12.40", "12.40", "amount", False),
        ("2021-03-04", "2021-03-05", "text", False),
        ("St. Ives", "St. Ives", "text", True),
        ("", "x", "text", False),
    ],
)
def test_exact(output, reference, kind, right):
    assert exact(output, reference, kind) is right


def test_normalize_answer_is_idempotent():
    for text in ["'a.'", '"b".', "c. .", "EUR 3.10.", ".", "''"]:
        once = normalize_answer(text, "amount")
        assert normalize_answer(once, "amount") == once


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263 and 1 of 29, method 3.
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    interval = wilson(1, 29)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0061, 0.1718)
    assert wilson(0, 20).low == 0 and wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    assert wilson(20, 20).high == 1.0
    with pytest.raises(ValueError, match="3 successes out of 2"):
        wilson(3, 2)


def test_bootstrap_covers_the_truth_and_is_repeatable():
    rng = random.Random(3)
    errors = [(sum(rng.random() < 0.04 for _ in range(100)), 100) for _ in range(300)]
    interval = bootstrap_cer(errors)
    assert interval.low < 0.04 < interval.high
    assert interval.low < interval.score < interval.high
    assert interval.high - interval.low < 0.01
    assert interval == bootstrap_cer(errors)
    assert bootstrap_cer([(0, 10)]).high == 0
    with pytest.raises(ValueError, match="no character"):
        bootstrap_cer([])
