"""`mm draw`: pictures from a prompt."""

import math
from dataclasses import fields, replace
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mm.cli import options
from mm.cli.interrupt import first_interrupt
from mm.cli.loading import load_pipeline
from mm.cli.output import note, progress_bar, write, write_json
from mm.drawn_file import Recipe, check_target, free_name, save
from mm.errors import OptionError, PromptError, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image

    from mm.config import Quantization
    from mm.generation.speculation import Speculation
    from mm.pictures import Drawings
    from mm.pipeline import Pipeline

DEFAULT_MODEL = "nano-janus"
_DEFAULT_FILE = Path("drawing.png")
_GAP = 4  # pixels between the pictures of a grid


def draw(
    context: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to draw, in quotes.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="PNG file; several pictures get numbers (star-1.png, star-2.png).",
            show_default="drawing.png, with a number if it exists",
        ),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", help="Pictures, 1 to 1024.")] = 1,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            help="How closely to follow the prompt; 1 is no guidance, and twice as fast.",
            show_default="the model's own: nano-janus 2, published models 5",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Less is less varied; 0 takes the most likely code.",
            show_default="the model's own: 1",
        ),
    ] = None,
    top_k: options.TopK = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Draw from the most likely codes that make up this probability; 1 draws from all.",
            show_default="the model's own: 1",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a model that draws by flow (JanusFlow), 1 to 1000.", show_default="30"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Of the first picture; the next ones count up.", show_default="a fresh one"
        ),
    ] = None,
    best_of: Annotated[
        int | None, typer.Option(metavar="N", help="Draw so many, up to 1024, and write the best -n of them.")
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What judges them: self (the model reads its own picture) or clip (weights from the hub).",
            show_default="self with --best-of",
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="One file with all pictures side by side.")] = False,
    negative_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What to lead away from.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels; only what the model was trained for.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most pictures drawn together.", show_default="as many as fit the memory"),
    ] = None,
    speculation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="jacobi: several codes in a step, exact in distribution; a seed draws another picture.",
            show_default="off",
        ),
    ] = None,
    speculation_window: options.SpeculationWindow = None,
    again: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Repeat what 'mm draw' wrote there; other options given here change it."),
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder or hub id of the autoencoder that a flow draws through.",
            show_default="'vae' in the model's folder, else stabilityai/sdxl-vae",
        ),
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    compile: options.Compile = False,
    device_map: options.DeviceMap = None,
    json: options.Json = False,
) -> None:
    """Draw pictures of a prompt. They keep prompt, seed, model and settings as text chunks of the PNG file.

    Ctrl-C ends the run; pictures that are finished by then are written.
    """
    chosen = {"guidance_scale": guidance_scale, "temperature": temperature, "top_p": top_p}
    recipe = Recipe(
        prompt=prompt or "",
        seed=seed,
        model=model,
        revision=revision,
        negative_prompt=negative_prompt,
        top_k=top_k,
        steps=steps,
        vae=vae,
        number=number,
        best_of=best_of,
        rerank=rerank,
        grid=grid,
        speculation=speculation,
        speculation_window=speculation_window,
        quantization=quantization,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if again is not None:
        recipe = _repeated(context, again, recipe, prompt)
    if recipe.seed is None:  # short enough to be typed
        recipe = replace(recipe, seed=SystemRandom().randrange(2**32))
    width, height = options.parse_size("--size", size, such_as="384x384") or (None, None)
    _check(recipe, batch_size)
    target = free_name(_DEFAULT_FILE) if output is None else output
    files = [target] if recipe.grid or recipe.number == 1 else _numbered(target, recipe.number)
    for file in files:
        check_target(file)
    flows = check_model(recipe.model, recipe.revision)
    if again is None:
        recipe = _with_defaults(recipe, {name for name, value in chosen.items() if value is None})
    _check_kind(recipe, flows=flows)
    pipe = load_pipeline(
        recipe.model,
        recipe.revision,
        device,
        dtype,
        vae=recipe.vae,
        quantization=cast("Quantization | None", recipe.quantization),
        compile=compile,
        device_map=device_map,
    )
    drawn = _draw(pipe, recipe, width, height, batch_size)
    written = _write(drawn, recipe, files)
    scores = [picture.score for picture in drawn.pictures]
    if json:
        pictures = [
            {"file": str(file), "prompt": picture.prompt, "seed": picture.seed, "score": picture.score}
            for file, picture in zip(written, drawn.pictures, strict=True)
        ]
        write_json({"schema": "mm.draw/1", "model": pipe.name, "pictures": pictures, "cancelled": drawn.cancelled})
    else:
        for file, picture, score in zip(written, drawn.pictures, scores, strict=True):
            write("\t".join([str(file), f"seed {picture.seed}", *([] if score is None else [f"score {score:.3f}"])]))
    if drawn.cancelled:
        note(f"Stopped: {len(drawn.pictures)} of {recipe.number} pictures were finished.")
        raise typer.Exit(130)


def _repeated(context: typer.Context, again: Path, given: Recipe, prompt: str | None) -> Recipe:
    """The recipe in a file, with what the command line asks for besides."""
    if prompt is not None:
        raise OptionError("got a prompt and --again, which has its own. Leave one of the two out")
    changed = {
        item.name: getattr(given, item.name)
        for item in fields(Recipe)
        # The name, not the class: typer carries a copy of click of its own.
        if getattr(context.get_parameter_source(item.name), "name", None) == "COMMANDLINE"
    }
    recipe = replace(Recipe.read(again), **changed)
    note(f"again: {recipe.prompt!r}, seed {recipe.seed}, model {recipe.model}")
    return recipe


def _check(recipe: Recipe, batch_size: int | None) -> None:
    """What is wrong is told before a model is loaded."""
    from mm.pictures import as_negative_prompts
    from mm.transforms.quantize import check_quantization

    if not recipe.prompt.strip():
        raise PromptError("the prompt is empty. Write what to draw, in quotes")
    _options(recipe, batch_size)
    check_quantization(recipe.quantization)
    as_negative_prompts(recipe.negative_prompt, 1, recipe.guidance_scale)


def _options(recipe: Recipe, batch_size: int | None) -> dict[str, Any]:
    """Options of the run as the pipeline takes them, checked."""
    from mm.pictures import DrawOptions

    shared: dict[str, Any] = {
        "guidance_scale": recipe.guidance_scale,
        "temperature": recipe.temperature,
        "top_k": recipe.top_k,
        "top_p": 1.0 if recipe.top_p is None else recipe.top_p,  # of all, whatever the model's default is now
        "num_inference_steps": recipe.steps,
        "seed": recipe.seed,
        "best_of": recipe.best_of,
        "rerank": recipe.rerank,
        "batch_size": batch_size,
        "speculation": recipe.speculation,
        "speculation_window": recipe.speculation_window,
    }
    DrawOptions(num_images=recipe.number, **shared)
    return {**shared, "num_images_per_prompt": recipe.number, "negative_prompt": recipe.negative_prompt}


def check_model(model: str, revision: str | None) -> bool:
    """A model that cannot draw is refused before its weights are fetched and loaded. Whether it draws by flow.

    Raises:
        TaskError: such a model.
    """
    from mm.families.table import FAMILIES, cannot_draw, drawing_models, load_config
    from mm.hub import bundled_models, find_config

    if model == DEFAULT_MODEL and DEFAULT_MODEL not in bundled_models() and not Path(DEFAULT_MODEL).is_dir():
        raise TaskError(
            f"{DEFAULT_MODEL} is not part of this installation. Choose a model that draws with --model: "
            f"{', '.join(drawing_models())}, or a folder"
        )
    family = FAMILIES.load(load_config(find_config(model, revision).folder).family)
    if not family.draws:
        raise cannot_draw(model)
    return bool(family.flows)


def _with_defaults(recipe: Recipe, names: set[str]) -> Recipe:
    """These fields, which the command line leaves open, as the model's folder says."""
    from mm.families.table import drawing_defaults
    from mm.hub import find_config

    own = drawing_defaults(find_config(recipe.model, recipe.revision).folder)
    return replace(recipe, **{name: getattr(own, name) for name in names})


def _check_kind(recipe: Recipe, *, flows: bool) -> None:
    """Options that a model of this kind does not take, and what it needs besides its own files, are told and fetched
    before its weights are."""
    from mm.hub import find_autoencoder, find_config
    from mm.pictures import DrawOptions

    DrawOptions(
        temperature=recipe.temperature,
        top_k=recipe.top_k,
        top_p=recipe.top_p,
        num_inference_steps=recipe.steps,
        speculation=cast("Speculation | None", recipe.speculation),
    ).check_kind(recipe.model, flows=flows)
    if flows:
        find_autoencoder(recipe.vae, find_config(recipe.model, recipe.revision).folder)
    elif recipe.vae is not None:
        raise OptionError(f"--vae is {recipe.vae!r}, but {recipe.model} draws through codes of its own. Leave it out")


def _draw(
    pipe: "Pipeline", recipe: Recipe, width: int | None, height: int | None, batch_size: int | None
) -> "Drawings":
    from mm.reply import CancelFlag

    cancelled = CancelFlag()
    with first_interrupt(cancelled.set), progress_bar() as show:
        return pipe.generate_images(
            recipe.prompt,
            callback_on_step=lambda at: show("drawing", at.step, at.num_steps),
            width=width,
            height=height,
            cancel=cancelled,
            **_options(recipe, batch_size),
        )


def _numbered(path: Path, count: int) -> list[Path]:
    digits = len(str(count))
    return [path.with_stem(f"{path.stem}-{index:0{digits}d}") for index in range(1, count + 1)]


def _write(drawn: "Drawings", recipe: Recipe, files: list[Path]) -> list[Path]:
    """Write what was drawn; the file of each picture.

    A file of one picture says how to draw it alone; a grid says how to draw all of it.
    """
    images = drawn.images
    assert isinstance(images, list)
    if not images:
        return []
    if recipe.grid:
        save(_side_by_side(images), files[0], recipe)
        return files * len(images)
    written = files[: len(images)]  # fewer than were asked for after Ctrl-C
    for image, picture, file in zip(images, drawn.pictures, written, strict=True):
        save(image, file, replace(recipe, seed=picture.seed, number=1, best_of=None, rerank=None))
    return written


def _side_by_side(images: "Sequence[PIL.Image.Image]") -> "PIL.Image.Image":
    """All pictures in a grid that is as wide as high, or one row wider."""
    from PIL import Image

    width, height = images[0].size
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * (width + _GAP), index // columns * (height + _GAP)))
    return sheet
