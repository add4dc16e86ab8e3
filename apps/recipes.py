"""Drawn pictures as files with their settings, and settings of such files for the page."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from mm.drawn_file import Recipe, save
from mm.errors import ImageError, OptionError, PromptError
from mm.pictures import DEFAULT_STEPS, MOST_STEPS, Drawings

from .common import keep_file, open_upload, plain, uploaded, without_folder

MOST, MOST_DRAWN = 16, 32  # pictures of a request
GUIDANCE, TEMPERATURE, TOP_P = (0, 20), (0, 2), (0.05, 1)  # what the page draws with
MOST_LETTERS = 4000  # of a prompt
EXACT = 2**53 - 1  # largest whole number that a browser keeps
Kept = list[tuple[str, str]]  # (path, caption) of pictures


def check_prompt(prompt: object) -> str:
    """A prompt without white space at its ends.

    Raises:
        PromptError: empty, or too long to be one.
    """
    text = prompt.strip() if isinstance(prompt, str) else ""
    if not text:
        raise PromptError("the prompt is empty. Write what to draw")
    if len(text) > MOST_LETTERS:
        raise PromptError(f"the prompt has {len(text):,} letters; at most {MOST_LETTERS:,} are read. Shorten it")
    return text


def check_seed(seed: object) -> int:
    """A seed that a browser can hold.

    Raises:
        OptionError: none, or out of range.
    """
    if seed is None:
        raise OptionError("there is no seed to keep. Write one, or draw with a fresh one")
    if isinstance(seed, bool) or not isinstance(seed, int | float) or seed != int(seed) or not 0 <= seed <= EXACT:
        raise OptionError(f"the seed is {seed!r}; expected a whole number from 0 to {EXACT}")
    return int(seed)


def check_count(name: str, value: object, most: int) -> int:
    """A number of pictures.

    Raises:
        OptionError: out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 1 <= value <= most:
        raise OptionError(f"{name} is {value!r}; expected a whole number from 1 to {most}")
    return int(value)


def keep_pictures(drawn: Drawings, recipe: Recipe) -> Kept:
    """Each picture as a PNG file that says how it is drawn alone, with what is shown under it."""
    kept = []
    words = "-".join(re.findall(r"[a-z0-9]+", recipe.prompt.lower()))[:40].strip("-") or "picture"
    for image, picture in zip(drawn.images, drawn.pictures, strict=True):
        assert isinstance(image, Image.Image)
        own = replace(recipe, seed=picture.seed, number=1, best_of=None)
        path = keep_file(f"{words}-{picture.seed}.png", partial(save, image, recipe=own))
        score = "" if picture.score is None else f" · score {picture.score:.2f}"
        kept.append((path, f"seed {picture.seed}{score}"))
    return kept


def read_recipe(path: object) -> Recipe:
    """The settings in a picture that was uploaded or drawn here.

    Raises:
        ImageError: no upload, no picture, or none with settings.
    """
    file = uploaded(path)
    open_upload(path)  # its limits hold before anything is read at length
    try:
        return Recipe.read(file)
    except ImageError as error:
        raise without_folder(error, file) from error


def settings_of(recipe: Recipe, loaded: Sequence[str]) -> tuple[Any, ...]:
    """The settings of a recipe for the page, and a sentence about them.

    Args:
        recipe: of a picture.
        loaded: models that can draw now.

    Raises:
        OptionError: the page cannot show them.
    """
    for name, value, most in (("guidance", recipe.guidance_scale, 1000), ("temperature", recipe.temperature, 100)):
        if not 0 <= value <= most:  # also what is no number
            raise OptionError(f"the {name} of this picture is {value}; expected a number from 0 to {most}")
    top_p = 1 if recipe.top_p is None else recipe.top_p
    if not 0 < top_p <= 1:
        raise OptionError(f"the top-p of this picture is {top_p}; expected a number above 0 and at most 1")
    known = recipe.model in loaded
    said = [f"Settings restored; seed {recipe.seed} is kept."]
    if not known:
        said.append(
            f"It was drawn by {plain(recipe.model[:80])}, which is not loaded: another model draws something else."
        )
    if recipe.quantization is not None:
        said.append(
            f"Its model's weights were in {plain(recipe.quantization[:80])}: with others it becomes another picture."
        )
    kept = []
    for name, value, (least, most) in (
        ("guidance", recipe.guidance_scale, GUIDANCE),
        ("temperature", recipe.temperature, TEMPERATURE),
        ("top-p", top_p, TOP_P),
    ):
        kept.append(min(max(value, least), most))
        if kept[-1] != value:
            said.append(f"Its {name} was {value:g}, which only 'mm draw --again' repeats: here it is {kept[-1]:g}.")
    if recipe.top_k:
        said.append(f"It was drawn with top-k {recipe.top_k}, which only 'mm draw --again' repeats.")
    return (
        check_prompt(recipe.prompt),
        check_count("the number of its pictures", recipe.number, MOST),
        check_seed(recipe.seed),
        True,
        *kept,
        (recipe.negative_prompt or "")[:MOST_LETTERS],
        1 if recipe.best_of is None else check_count("best of", recipe.best_of, MOST_DRAWN),
        DEFAULT_STEPS if recipe.steps is None else check_count("the number of steps", recipe.steps, MOST_STEPS),
        recipe.model if known else gr.skip(),
        " ".join(said),
    )
