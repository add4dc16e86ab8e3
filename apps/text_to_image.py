"""A web page that draws: ``python -m apps.text_to_image``, ``mm app draw``."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import gradio as gr

from mm.drawn_file import Recipe
from mm.errors import ImageError
from mm.pictures import DEFAULT_STEPS, MOST_STEPS, DrawDefaults, Drawings
from mm.pipeline import Pipeline
from mm.transforms.quantize import quantization_of

from .common import AGES, Sessions, plain, sentences
from .drawing_run import Drawing
from .models import Models
from .picker import Picker
from .recipes import (
    EXACT,
    GUIDANCE,
    MOST,
    MOST_DRAWN,
    MOST_LETTERS,
    TEMPERATURE,
    TOP_P,
    Kept,
    check_count,
    check_prompt,
    check_seed,
    keep_pictures,
    read_recipe,
    settings_of,
)
from .server import run_app

MOST_KEPT = 100  # pictures of a session's history
EXAMPLES = ["a red circle", "two blue stars on a yellow background", "a green square left of a red triangle"]


@dataclass(frozen=True)
class Page:
    """The page, and what the front page connects with the others.

    Attributes:
        demo: the blocks.
        chosen: path of the chosen picture, or None.
        ask: the button "Ask about this picture", hidden where there is nobody to ask.
    """

    demo: gr.Blocks
    chosen: gr.State
    ask: gr.Button


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page of one loaded model. Endpoints for programs: ``/draw``, ``/restore`` and ``/load_drawing_model``."""
    return build_page(Models.of(pipe)).demo


def build_page(models: Models, *, asks: bool = False) -> Page:
    """The page.

    Args:
        models: of the server.
        asks: whether there is a chat to carry a picture to.
    """
    sessions = Sessions()

    async def draw(
        prompt: str,
        count: float,
        seed: float | None,
        keep_seed: bool,
        guidance: float,
        temperature: float,
        top_p: float,
        negative: str,
        best_of: float,
        steps: float | None,
        model: str | None,
        history: Kept,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Draw pictures of a prompt.

        Args:
            prompt: what to draw.
            count: pictures.
            seed: of the first picture; the next ones count up.
            keep_seed: whether to draw with this seed; otherwise a fresh one is taken and told.
            guidance: how closely to follow the prompt; 1 is no guidance, and twice as fast.
            temperature: less is less varied; 0 takes the most likely code.
            top_p: draw from the most likely codes that make up this probability; 1 draws from all.
            negative: what to lead away from; may be empty.
            best_of: draw so many and keep the best; 1 draws no more than are asked for.
            steps: of a picture, for models that draw by flow.
            model: its name in the list.
            history: of the session.
        """
        with sentences(), models.using(model, "draw") as pipe, sessions.place(models.line, request) as place:
            assert model is not None
            recipe = Recipe(
                prompt=check_prompt(prompt),
                seed=check_seed(seed) if keep_seed else SystemRandom().randrange(2**32),
                model=model,
                negative_prompt=(negative or "").strip() or None,
                guidance_scale=guidance,
                temperature=temperature,
                top_p=None if top_p == 1 else top_p,
                steps=check_count("steps", steps, MOST_STEPS) if flows(pipe) else None,
                number=check_count("count", count, MOST),
                best_of=check_count("best of", best_of, MOST_DRAWN) if best_of != 1 else None,
                quantization=quantization_of(pipe.model.decoder),
            )
            still = [gr.skip()] * 4  # of the outputs after the gallery: data, pictures, history, its gallery
            async for text in place.wait():
                yield text, gr.skip(), recipe.seed, *still
            drawing = Drawing(pipe, recipe)
            columns = across(recipe.best_of or recipe.number)
            began = time.monotonic()
            yield "Drawing ...", gr.Gallery([], columns=columns), recipe.seed, *still
            with sessions.running(request, drawing, place):
                async for frame in drawing.frames():
                    yield frame.text, frame.pictures, gr.skip(), *still
            drawn = drawing.result
            kept = await asyncio.to_thread(keep_pictures, drawn, recipe)
            history = [item for item in [*kept, *history][:MOST_KEPT] if Path(item[0]).is_file()]  # others were deleted
            yield (
                ending(drawn, recipe, time.monotonic() - began),
                gr.Gallery(kept, columns=across(len(kept))),
                recipe.seed,
                as_data(drawn, recipe),
                kept,
                history,
                [path for path, _ in history],
            )

    def cancel_drawing(request: gr.Request) -> None:
        """End what this session draws, or its wait; pictures that are finished are kept."""
        sessions.end(request)

    async def restore(file: str | None) -> tuple[Any, ...]:
        """The settings of a picture that was drawn here or by ``mm draw``.

        Args:
            file: the PNG file.
        """
        if not file:
            return (gr.skip(),) * 12
        with sentences():
            recipe = await asyncio.to_thread(read_recipe, file)
            return settings_of(recipe, [label for label in models.labels("draw") if models.is_loaded(label)])

    def choose(pictures: Kept, event: gr.SelectData) -> tuple[Any, ...]:
        with sentences():
            index = event.index if isinstance(event.index, int) else -1
            if not 0 <= index < len(pictures):
                raise ImageError("that picture is not here any more. Choose another one")
            return chosen_updates(pictures[index][0])

    async def use_settings(path: str | None) -> tuple[Any, ...]:
        with sentences():
            recipe = await asyncio.to_thread(read_recipe, path)
            return settings_of(recipe, [label for label in models.labels("draw") if models.is_loaded(label)])

    def first(pictures: Kept) -> tuple[Any, ...]:
        return chosen_updates(pictures[0][0] if pictures else None)

    with gr.Blocks(title="Text to image", analytics_enabled=False, delete_cache=AGES) as demo:
        picker = Picker(models, "draw", "Text to image")
        able = models.default("draw") is not None
        defaults = DrawDefaults() if picker.pipe is None else picker.pipe.drawing_defaults
        chosen, pictures, past = gr.State(None), gr.State([]), gr.State([])
        with gr.Row(equal_height=False, elem_classes="app-work"):
            with gr.Column(min_width=320):
                prompt = gr.Textbox(label="Prompt", placeholder="What to draw", max_lines=8, max_length=MOST_LETTERS)
                gr.Examples(EXAMPLES, prompt, label="Examples")
                with gr.Row():
                    start = gr.Button("Draw", variant="primary", interactive=able, min_width=120)
                    stop = gr.Button("Cancel", interactive=able, min_width=120)
            with gr.Column(min_width=320):
                status = gr.Markdown(
                    "Describe a picture, then draw it." if able else models.lacking("draw"), elem_classes="app-status"
                )
                gallery = gr.Gallery(
                    label="Pictures",
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_classes="app-gallery",
                )
                with gr.Column(visible=False) as choice:
                    details = gr.Markdown()
                    with gr.Row():
                        download = gr.DownloadButton("Download PNG", size="md", min_width=120)
                        again = gr.Button("Use its settings", size="md", min_width=120)
                        ask = gr.Button("Ask about this picture", size="md", visible=asks, min_width=120)
                with gr.Accordion("History of this session", open=False):
                    album = gr.Gallery(
                        label="Earlier pictures",
                        height=230,
                        object_fit="contain",
                        interactive=False,
                        allow_preview=False,
                        buttons=[],
                        elem_classes="app-album",
                    )
                    clear = gr.Button("Clear the history", size="sm")
                with gr.Accordion("Last drawing as data", open=False):
                    data = gr.JSON(label="Drawing", show_label=False, max_height=400)
            with gr.Column(min_width=320):
                count = gr.Slider(1, MOST, value=4, step=1, label="Pictures")
                with gr.Group():
                    seed = gr.Number(
                        0,
                        label="Seed",
                        info="Each drawing takes a fresh one, unless it is kept.",
                        precision=0,
                        minimum=0,
                        maximum=EXACT,
                    )
                    keep_seed = gr.Checkbox(False, label="Keep this seed")
                with gr.Accordion("More settings", open=False):
                    guidance = gr.Slider(
                        *GUIDANCE,
                        value=defaults.guidance_scale,
                        step=0.1,
                        label="Guidance",
                        info="How closely to follow the prompt; 1 is none.",
                    )
                    temperature = gr.Slider(
                        *TEMPERATURE,
                        value=defaults.temperature,
                        step=0.05,
                        label="Temperature",
                        info="Less is less varied; 0 is greedy.",
                    )
                    top_p = gr.Slider(
                        *TOP_P,
                        value=1 if defaults.top_p is None else defaults.top_p,
                        step=0.05,
                        label="Top-p",
                        info="Leaves unlikely codes out; 1 leaves none.",
                    )
                    negative = gr.Textbox(
                        "", label="Negative prompt", info="What to lead away from.", max_length=MOST_LETTERS
                    )
                    best_of = gr.Slider(
                        1,
                        MOST_DRAWN,
                        value=1,
                        step=1,
                        label="Best of",
                        info="Draw so many, and show the best by how well the model reads the prompt in them.",
                    )
                    steps = gr.Slider(
                        1,
                        MOST_STEPS,
                        value=DEFAULT_STEPS,
                        step=1,
                        label="Steps",
                        visible=picker.pipe is not None and flows(picker.pipe),
                    )
                file = gr.File(label="Restore settings of a picture", file_types=[".png"], type="filepath", height=160)
        settings = [
            prompt,
            count,
            seed,
            keep_seed,
            guidance,
            temperature,
            top_p,
            negative,
            best_of,
            steps,
            picker.model,
        ]
        shown = [chosen, choice, details, download]
        drawing = gr.on(
            [start.click, prompt.submit],
            draw,
            [*settings, past],
            [status, gallery, seed, data, pictures, past, album],
            api_name="draw",
            show_progress="hidden",
            concurrency_limit=None,
        )
        drawing.success(first, pictures, shown, api_visibility="private", show_progress="hidden")
        drawing.failure(lambda: "Nothing was drawn.", None, status, api_visibility="private", show_progress="hidden")
        stop.click(cancel_drawing, api_name="cancel_drawing", queue=False, show_progress="hidden")
        gallery.select(choose, pictures, shown, api_visibility="private", show_progress="hidden")
        album.select(choose, past, shown, api_visibility="private", show_progress="hidden")
        clear.click(lambda: ([], []), None, [past, album], api_visibility="private", show_progress="hidden")
        restored = [*settings, status]
        file.upload(restore, file, restored, api_name="restore", show_progress="hidden")
        again.click(use_settings, chosen, restored, api_visibility="private", show_progress="hidden")
        picker.wire([start, stop, guidance, temperature, top_p, steps], fitting, "load_drawing_model")
        demo.unload(sessions.end)
    return Page(demo, chosen, ask)


def flows(pipe: Pipeline) -> bool:
    """Whether a model draws by flow, in steps, and not code by code."""
    return pipe.model.flow_head is not None


def fitting(pipe: Pipeline, chosen: bool) -> list[Any]:
    """What a loaded model changes: the buttons, guidance, temperature, top-p and steps.

    Args:
        pipe: the model.
        chosen: whether a visitor has just chosen it, so that its defaults count.
    """
    defaults = pipe.drawing_defaults
    return [
        *[gr.update(interactive=True)] * 2,
        gr.update(value=defaults.guidance_scale) if chosen else gr.skip(),
        *(
            gr.update(visible=not flows(pipe), **({"value": value} if chosen else {}))
            for value in (defaults.temperature, 1 if defaults.top_p is None else defaults.top_p)
        ),
        gr.update(visible=flows(pipe)),
    ]


def across(count: int) -> int:
    """Columns in which so many pictures are shown."""
    return 1 if count == 1 else 2 if count <= 4 else 3 if count <= 9 else 4


def ending(drawn: Drawings, recipe: Recipe, seconds: float) -> str:
    """What came of a drawing, as a sentence."""
    count = len(drawn.pictures)
    pictures = "1 picture" if count == 1 else f"{count} pictures"
    if drawn.cancelled:
        was = "was" if count == 1 else "were"
        return (
            f"Stopped: {pictures} of {recipe.number} {was} finished." if count else "Stopped: no picture was finished."
        )
    best = (
        ""
        if recipe.best_of is None
        else f", the best of {recipe.best_of}; the score is the log-likelihood of the prompt"
    )
    return f"{pictures} in {seconds:.1f} s{best}."


def as_data(drawn: Drawings, recipe: Recipe) -> dict[str, Any]:
    """A drawing for programs, with the names of ``mm draw --json``."""
    return {
        "model": recipe.model,
        "prompt": recipe.prompt,
        "pictures": [{"seed": picture.seed, "score": picture.score} for picture in drawn.pictures],
        "cancelled": drawn.cancelled,
    }


def chosen_updates(path: str | None) -> tuple[Any, ...]:
    """The chosen picture, whether it is shown, how it was drawn, and its file."""
    if path is None:
        return None, gr.update(visible=False), "", None
    recipe = read_recipe(path)
    how = f"seed {recipe.seed} · {plain(recipe.model)} · guidance {recipe.guidance_scale:g}"
    if recipe.steps is None:
        top_p = "" if recipe.top_p in (None, 1) else f" · top-p {recipe.top_p:g}"
        how += f" · temperature {recipe.temperature:g}{top_p}"
    else:
        how += f" · {recipe.steps} steps"
    said = [f"**{plain(recipe.prompt)}**", how]
    if recipe.negative_prompt:
        said.append(f"away from: {plain(recipe.negative_prompt)}")
    return path, gr.update(visible=True), "  \n".join(said), path


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_app(
        argv,
        lambda models: build_page(models).demo,
        ["draw"],
        name="mm app draw",
        description="Draw pictures in the browser.",
    )


if __name__ == "__main__":
    sys.exit(main())
