import re
import time
from collections import Counter

import numpy as np
import pytest

from mm.chat import TASK_PROMPTS
from mm.errors import OptionError
from mm.synthetic.absent import facts
from mm.synthetic.documents import DEFAULT_MIXTURE, KINDS, MAX_CHARACTERS, Mixture, render
from mm.synthetic.fonts import EXTRAS
from mm.synthetic.sample import ABSENT_ANSWER
from mm.synthetic.style import view_scale

LEVELS = (0.0, 0.5, 1.0)


def samples(kind, fonts, count, level=1.0):
    return [render(kind, np.random.default_rng(seed), fonts, level) for seed in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_generators_give_equal_samples(kind, fonts):
    for level in LEVELS:
        one, two = (render(kind, np.random.default_rng(7), fonts, level) for _ in range(2))
        assert one.image.tobytes() == two.image.tobytes() and one.image.size == two.image.size
        assert (one.turns, one.text, one.fields, one.kind) == (two.turns, two.text, two.fields, kind)
        assert np.array_equal(one.glyphs, two.glyphs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_in_the_image(kind, fonts):
    for sample in samples(kind, fonts, 60):
        assert sample.image.mode == "RGB" and sample.turns and 1 <= len(sample.text) <= MAX_CHARACTERS
        assert len({turn.question for turn in sample.turns}) == len(sample.turns)
        flat = " ".join(sample.text.split())
        assert all(letter.isascii() or letter in EXTRAS for letter in flat)
        for turn in sample.turns:
            assert turn.question and turn.answer
            computed = turn.answer in {ABSENT_ANSWER, "Yes", "No"} or "button" in turn.question.lower()
            computed = computed or (turn.answer.isdigit() and len(turn.answer) <= 2)  # counts
            assert computed or " ".join(turn.answer.split()) in flat, (turn, sample.text)
            if turn.question == TASK_PROMPTS["ocr"]:
                assert turn.answer == sample.text
        for name, value in sample.fields.items():
            assert name and " ".join(value.split()) in flat, (name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_glyph_boxes_lie_inside_the_image(kind, fonts):
    for level in LEVELS:
        for sample in samples(kind, fonts, 12, level):
            x0, y0, x1, y1 = sample.glyphs[:, 1:].T
            assert sample.glyphs.dtype == np.float32 and len(sample.glyphs)
            assert (x0 >= 0).all() and (y0 >= 0).all() and (x0 < x1).all() and (y0 < y1).all()
            assert (x1 <= sample.image.width).all() and (y1 <= sample.image.height).all()


@pytest.mark.parametrize("kind", ["word", "line", "lines", "paragraph", "receipt", "table"])
def test_a_clean_page_shows_exactly_its_transcription(kind, fonts):
    for sample in samples(kind, fonts, 15, 0.0):
        drawn = Counter(chr(int(code)) for code in sample.glyphs[:, 0])
        assert drawn == Counter("".join(sample.text.split()))
        grey = np.asarray(sample.image.convert("L")).astype(int)
        paper = int(np.bincount(grey.reshape(-1)).argmax())
        inked = 0
        for x0, y0, x1, y1 in np.rint(sample.glyphs[:, 1:]).astype(int):
            patch = grey[y0 : y1 + 1, x0 : x1 + 1]
            inked += bool((abs(patch - paper) > 60).any())
        assert inked >= 0.97 * len(sample.glyphs)


def test_sizes_fit_the_tiles(fonts):
    for kind in KINDS:
        heights = []
        for sample in samples(kind, fonts, 25):
            height = np.median(sample.glyphs[:, 4] - sample.glyphs[:, 2]) * view_scale(*sample.image.size)
            heights.append(height)
            assert 50 * 20 <= sample.image.width * sample.image.height <= 2_000_000
        assert min(heights) > 7 and 11 < np.median(heights) < 50


def test_level_zero_fits_one_tile(fonts):
    for kind in KINDS:
        for sample in samples(kind, fonts, 10, 0.0):
            assert len(sample.text) <= 300


def test_receipts_have_what_is_asked_of_them(fonts):
    asked = Counter()
    for sample in samples("receipt", fonts, 80):
        assert {"total", "store"} <= sample.fields.keys()
        assert sample.fields.keys() & {"date", "invoice date"}
        assert any(name.startswith("price of ") for name in sample.fields)
        for name in ("total", "date", "store", "price"):
            values = {value for field, value in sample.fields.items() if field.startswith(name)}
            asked[name] += any(turn.answer in values for turn in sample.turns)
        asked["read"] += any(turn.answer == sample.text for turn in sample.turns)
        asked["ocr prompt"] += any(turn.question == TASK_PROMPTS["ocr"] for turn in sample.turns)
        asked["absent"] += any(turn.answer == ABSENT_ANSWER for turn in sample.turns)
    assert all(asked[name] >= 15 for name in ("total", "date", "store", "price", "read")) and asked["ocr prompt"] >= 5
    assert 4 <= asked["absent"] <= 28


@pytest.mark.parametrize("kind", KINDS)
def test_questions_without_an_answer_are_a_part_of_all(kind, fonts):
    found = samples(kind, fonts, 150, 0.6)
    share = sum(any(turn.answer == ABSENT_ANSWER for turn in sample.turns) for sample in found) / len(found)
    assert (0.0 if kind in {"word", "line"} else 0.06) < share < 0.5


def test_what_a_receipt_shows_is_never_asked_in_vain(fonts):
    names = [*(name.lower() for names, _ in facts() for name in names if " " in name), "day of birth"]
    other = re.compile("|".join(map(re.escape, names)))  # "Delivery date" is not the date
    for sample in samples("receipt", fonts, 250):
        vain = [turn.question for turn in sample.turns if turn.answer == ABSENT_ANSWER]
        vain = [asked for asked in vain if not other.search(asked.lower())]
        shown = set(sample.fields)
        for asked in map(str.lower, vain):
            assert not (shown & {"date", "invoice date"} and re.search(r"\bdate\b", asked)), (asked, sample.text)
            assert "store" not in asked or any(
                word in asked for word in ("phone", "call", "number", "address", "where")
            )
            for name in ("tip", "phone", "cashier", "subtotal", "change", "time"):
                assert not (name in shown and re.search(rf"\b{name}\b", asked)), (asked, sample.text)
            for name in shown:
                item = name.removeprefix("price of ").lower()
                assert item == name or not re.search(rf"\b{re.escape(item)}\b", asked), (asked, sample.text)


def test_the_date_on_a_receipt_is_only_the_date(fonts):
    rows = Counter()
    for sample in samples("receipt", fonts, 200):
        date = sample.fields.get("date")
        if date is None:
            continue
        assert not re.search(r"(?i)[a-z]*day|^(mon|tue|wed|thu|fri|sat|sun)|:", date), date
        row = next(row for row in sample.text.splitlines() if date in row)
        rows["alone" if row == date else "more"] += 1
        rows["left"] += row.index(date) > 0
        rows["right"] += not row.endswith(date)
    assert rows["alone"] >= 10 and rows["left"] >= 60 and rows["right"] >= 30


def test_the_store_is_not_always_the_first_line(fonts):
    places = Counter()
    for sample in samples("receipt", fonts, 150):
        rows, store = sample.text.splitlines(), sample.fields["store"]
        places["first"] += rows[0] == store
        places["in the first"] += store in rows[0] and rows[0] != store
        places["later"] += store not in rows[0]
    assert places["first"] >= 50 and places["in the first"] >= 8 and places["later"] >= 12


def test_values_on_two_rows_are_answered_whole(fonts):
    broken = 0
    for sample in samples("form", fonts, 120):
        for turn in sample.turns:
            if turn.answer in sample.fields.values() and turn.answer not in sample.text:
                assert turn.answer in " ".join(sample.text.split())
                broken += 1
    assert broken


def test_the_order_of_questions_varies(fonts):
    places = Counter()
    for sample in samples("receipt", fonts, 60):
        for index, turn in enumerate(sample.turns):
            if turn.answer == sample.text:
                places["first" if index == 0 else "later"] += 1
    assert places["first"] >= 3 and places["later"] >= 3


def test_bad_requests_name_what_is_possible(fonts):
    rng = np.random.default_rng(0)
    with pytest.raises(OptionError, match=r"Unknown document kind 'recipe'. Known kinds: word, line, .*receipt"):
        render("recipe", rng, fonts)
    with pytest.raises(OptionError, match=r"level must be between 0 and 1, got 2"):
        render("line", rng, fonts, 2)
    with pytest.raises(OptionError, match=r"Unknown document kind bill. Known kinds: word"):
        Mixture({"bill": 1.0})
    with pytest.raises(OptionError, match=r"weights of at least 0 with a positive sum"):
        Mixture({"line": 0.0})


def test_mixture_draws_by_weight():
    rng = np.random.default_rng(0)
    drawn = Counter(Mixture({"line": 3.0, "form": 1.0, "word": 0.0}).draw(rng) for _ in range(400))
    assert drawn["word"] == 0 and 260 < drawn["line"] < 340
    assert set(DEFAULT_MIXTURE.weights) == set(KINDS)


def test_speed(fonts, capsys):
    """Printed for the reader; the limit only catches a renderer that has become many times slower."""
    rng = np.random.default_rng(0)
    start, count = time.process_time(), 60
    for _ in range(count):
        render(DEFAULT_MIXTURE.draw(rng), rng, fonts)
    spent = (time.process_time() - start) / count * 1000
    with capsys.disabled():
        print(f" {spent:.1f} ms a sample", end="")
    assert spent < 80
