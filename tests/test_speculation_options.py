"""Speculation through the pipeline and the command line: off unless asked for, and the same answers."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm import Pipeline
from mm.drawn_file import Recipe
from mm.errors import OptionError
from mm.pictures import DrawOptions
from tests.test_cli import FORM, fails, invoke

PROMPT = "two red circles left of a blue star"
CODES = 16  # of a picture of the tiny Janus


@pytest.fixture(scope="module")
def janus(tiny_janus: Path) -> Pipeline:
    return Pipeline.from_pretrained(tiny_janus, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def folder(golden: Callable[[str], Path]) -> str:
    return str(golden("deepseek_vl2_tiny") / "checkpoint")


@pytest.fixture(scope="module")
def reader(folder: str) -> Pipeline:
    return Pipeline.from_pretrained(folder, device="cpu")


def codes(drawn) -> list[tuple[int, ...]]:
    return [picture.codes for picture in drawn.pictures]


# Pictures


def test_the_likeliest_codes_are_the_same_pictures(janus: Pipeline) -> None:
    statistics = janus.engine.statistics
    plain = janus.generate_images([PROMPT, "a star"], temperature=0)
    for window in (None, 3):
        options = {"temperature": 0, "speculation": "jacobi", "speculation_window": window}
        right = statistics.accepted_tokens
        ahead = janus.generate_images([PROMPT, "a star"], **options)
        assert codes(ahead) == codes(plain)
        assert [image.tobytes() for image in ahead.images] == [image.tobytes() for image in plain.images]
        assert statistics.accepted_tokens > right


def test_a_seed_draws_its_picture_again_whatever_the_batch(janus: Pipeline) -> None:
    options = {"speculation": "jacobi", "top_k": 30, "guidance_scale": 3.0}
    drawn = janus.generate_images(PROMPT, num_images_per_prompt=4, seed=5, **options)
    assert len(set(codes(drawn))) == 4
    for picture in drawn.pictures:
        assert codes(janus.generate_images(PROMPT, seed=picture.seed, **options)) == [picture.codes]
    assert codes(janus.generate_images(PROMPT, num_images_per_prompt=4, seed=5, batch_size=2, **options)) == codes(
        drawn
    )


def test_progress_previews_and_the_end(janus: Pipeline) -> None:
    steps, previews = [], []

    def watch(progress) -> None:
        steps.append(progress.step)
        previews.append(progress.preview(0).rows)

    options = {"seed": 1, "num_images_per_prompt": 2, "speculation": "jacobi"}
    janus.generate_images(PROMPT, callback_on_step=watch, **options)
    assert steps == sorted(steps) and steps[-1] == 2 * CODES
    assert previews[-1] == 4
    stopped = janus.generate_images(PROMPT, callback_on_step=lambda progress: progress.cancel(), **options)
    assert stopped.cancelled or len(stopped.pictures) == 2  # the engine may be through before it hears of it


def test_the_best_of_several_are_judged_as_ever(janus: Pipeline) -> None:
    drawn = janus.generate_images(PROMPT, seed=1, best_of=3, speculation="jacobi")
    assert drawn.pictures[0].score is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculation": "prompt-lookup"}, "'prompt-lookup' is for texts; expected 'jacobi' for pictures, or None"),
        ({"speculation": "eagle"}, "speculation is 'eagle'; expected 'jacobi' or 'prompt-lookup', or None"),
        ({"speculation_window": 4}, "speculation_window is 4, but nothing speculates"),
        ({"speculation": "jacobi", "speculation_window": 0}, "speculation_window is 0; expected a whole number from 2"),
    ],
)
def test_options_of_pictures_that_are_refused(janus: Pipeline, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        janus.generate_images(PROMPT, **options)


def test_a_flow_has_nothing_to_guess() -> None:
    with pytest.raises(
        OptionError, match="speculation is 'jacobi', but flowing draws by flow, all of a picture in each"
    ):
        DrawOptions(speculation="jacobi").check_kind("flowing", flows=True)


# Texts


def test_answers_are_the_same_with_and_without(reader: Pipeline) -> None:
    questions = [(FORM, "Read all the text."), (None, "one two three one two three one two"), (FORM, "What is this?")]
    for options in ({}, {"temperature": 0.3, "seed": 4}):
        options = {"max_new_tokens": 60, "detect_loops": False, **options}
        plain = reader.chat_batch(questions, **options)
        ahead = reader.chat_batch(questions, speculation="prompt-lookup", speculation_window=8, **options)
        assert [reply.token_ids for reply in ahead] == [reply.token_ids for reply in plain]
        assert [reply.text for reply in ahead] == [reply.text for reply in plain]
    assert reader.engine.statistics.drafted_tokens > 0
    read = reader.ocr(FORM, max_new_tokens=40, speculation="prompt-lookup")
    assert read.lines == reader.ocr(FORM, max_new_tokens=40).lines
    streamed = "".join(reader.stream(FORM, "Read.", max_new_tokens=40, speculation="prompt-lookup"))
    assert streamed == reader.chat(FORM, "Read.", max_new_tokens=40).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculation": "jacobi"}, "'jacobi' is for pictures; expected 'prompt-lookup' for texts, or None"),
        ({"speculation": "prompt-lookup", "repetition_penalty": 1.2}, "repetition_penalty=1.2 needs each token"),
        (
            {"speculation": "prompt-lookup", "constrain_boxes": True},
            r"a constraint \(constrain_boxes\) needs each token",
        ),
    ],
)
def test_options_of_texts_that_are_refused(reader: Pipeline, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        reader.chat(None, "hello", **options)


# The command line


def test_draw_keeps_how_it_guessed_and_repeats_it(
    tiny_janus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["-m", str(tiny_janus), "--seed", "7"]
    ahead = ["--speculation", "jacobi", "--speculation-window", "6"]
    assert invoke("draw", PROMPT, "-o", "star.png", *model, *ahead).status == 0
    recipe = Recipe.read(Path("star.png"))
    assert (recipe.speculation, recipe.speculation_window) == ("jacobi", 6)
    assert invoke("draw", "--again", "star.png", "-o", "again.png").status == 0
    with Image.open("star.png") as first, Image.open("again.png") as second:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    for file, more in (("plain.png", []), ("greedy.png", ahead)):
        assert invoke("draw", PROMPT, "-o", file, *model, "--temperature", "0", *more).status == 0
    with Image.open("plain.png") as first, Image.open("greedy.png") as second:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def test_chat_ocr_and_complete_print_the_same(folder: str) -> None:
    for words in (["chat", FORM, "Read all."], ["ocr", FORM], ["complete", "one two one two one two"]):
        words += ["-m", folder, "--max-new-tokens", "30"]
        plain = invoke(*words)
        ahead = invoke(*words, "--speculation", "prompt-lookup", "--speculation-window", "8")
        assert (ahead.status, ahead.out) == (0, plain.out)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["draw", "a", "--speculation", "prompt-lookup"], ["'prompt-lookup' is for texts"]),
        (["draw", "a", "--speculation-window", "8"], ["--speculation-window is 8, but nothing speculates"]),
        (
            ["draw", "a", "--speculation", "jacobi", "--speculation-window", "1"],
            ["--speculation-window is 1; expected a whole"],
        ),
        (["chat", FORM, "Read.", "--speculation", "jacobi"], ["'jacobi' is for pictures"]),
        (["ocr", FORM, "--speculation", "ngram"], ["--speculation is 'ngram'; expected 'jacobi' or 'prompt-lookup'"]),
        (["complete", "a", "--speculation-window", "8"], ["--speculation-window is 8, but nothing speculates"]),
    ],
)
def test_mistakes_are_told_before_any_work(
    words: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Pipeline, "from_pretrained", None)  # would fail if it came to that
    fails(invoke(*words), *parts, status=2)
    assert os.listdir() == []


def test_old_files_say_nothing_of_it(tiny_janus: Path, tmp_path: Path) -> None:
    recipe = Recipe(prompt="a", seed=1, model=str(tiny_janus))
    settings = json.loads(recipe.chunks()["settings"])
    assert (settings["speculation"], settings["speculation_window"]) == (None, None)
