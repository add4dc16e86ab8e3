"""`mm verify`, `mm eval`, `mm train`: checking and making models."""

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm.cli import options
from mm.cli.draw import check_model
from mm.cli.loading import check_loading, load_pipeline
from mm.cli.output import note, progress_bar, spinner, write, write_json, write_table
from mm.errors import InputError, OptionError, ResourceError
from mm.whole_file import check_writable

if TYPE_CHECKING:
    from mm.evaluation.readers import ReaderPool
    from mm.evaluation.verify import Report
    from mm.pipeline import Pipeline


def verify(
    case: Annotated[
        Path | None,
        typer.Argument(
            metavar="CASE", help="Folder of a recorded case; without it a small bundled one.", show_default=False
        ),
    ] = None,
    device: options.Device = "cpu",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One row a field and conversation.")] = False,
    json: options.Json = False,
) -> None:
    """Compare this install with recorded outputs of the official code; exit status 1 when anything differs."""
    with spinner("comparing with the recorded outputs"):
        from mm.evaluation import verify as engine

        report = engine.verify(case, device=device)
    if json:
        write_json({"schema": "mm.verify/1", **report.to_dict()})
    else:
        _write_report(report, verbose)
    if not report.passed:
        raise typer.Exit(1)


def _write_report(report: "Report", verbose: bool) -> None:
    rows = report.rows if verbose else report.fields()
    cells = [
        [
            *([row.case] if verbose else []),
            row.field,
            row.recorded,
            row.ours,
            "-" if row.difference is None else f"{row.difference:.3g}",
            "-" if row.limit is None else f"{row.limit:.3g}",
            row.verdict,
            row.note,
        ]
        for row in rows
    ]
    columns = [*(["case"] if verbose else []), "field", "recorded", "ours", "difference", "limit", "verdict", "note"]
    write_table(columns, cells, right=(columns.index("difference"), columns.index("limit")))
    differing = sum(row.verdict == "differs" for row in report.rows)
    compared = sum(row.verdict != "not compared" for row in report.rows)
    outcome = "passed" if report.passed else "FAILED"
    write(f"{outcome}: {compared} comparisons, {differing} differ, {report.seconds:.1f} s ({report.case})")
    if report.notice:
        write(report.notice)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)] = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    compile: options.Compile = False,
    device_map: options.DeviceMap = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Task; may be given again. draw: alone, it draws.", show_default="all"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Questions a row of the table.")] = 500,
    control_limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many of them are also asked with the picture greyed out.")
    ] = 100,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Questions run together; 128 on a GPU.")] = 8,
    processes: Annotated[
        int,
        typer.Option(min=1, max=64, metavar="N", help="Processes that run the model: 8 fill a GPU, and all are used."),
    ] = 1,
    max_tiles: options.MaxTiles = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=512, metavar="N", help="Processes that draw the pictures.", show_default="the cores but one"
        ),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Ask about the pictures of this folder and its index.json; draw none."),
    ] = None,
    fonts: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Where the fonts are; may be given again.", show_default="the system's"),
    ] = None,
    tesseract: Annotated[bool, typer.Option("--tesseract", help="Also run Tesseract, if installed.")] = False,
    tesseract_only: Annotated[
        bool, typer.Option("--tesseract-only", help="Run Tesseract on the reading tasks, and no model.")
    ] = False,
    merge: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Run nothing: one table of files written by --json; may be given again."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write rows and every answer here, task by task (docs/json.md); - prints the rows.",
        ),
    ] = None,
    bounds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Exit status 1 when a row misses its bound (task -> measure -> 0..1, JSON)."),
    ] = None,
) -> None:
    """Measure a model on held-out documents, charts and scenes that are drawn here, with 95% intervals.

    --task draw, alone: the model draws held-out prompts, and its pictures are checked.
    """
    from mm.evaluation import drawing, rendering, suites
    from mm.evaluation import report as reports
    from mm.evaluation.bounds import load_bounds, missed
    from mm.evaluation.readers import PipelineOpener, open_readers
    from mm.evaluation.stored import load_stored
    from mm.families.table import find_runnable

    expected = {} if bounds is None else load_bounds(bounds)

    if json is not None and not json.absolute().parent.is_dir():
        raise InputError(f"{json} cannot be written: there is no folder {json.parent}. Make it first")
    if json is not None and json.is_dir():
        raise InputError(f"{json} cannot be written: it is a folder. Name a file in it")
    if json not in (None, Path("-")):
        check_writable(json)

    def named(report: reports.Report) -> reports.Report:
        return replace(report, settings={"model": None if tesseract_only else model, **report.settings})

    if merge:
        report = reports.merge_reports([reports.load_report(path) for path in merge])
    else:
        draws = task == [drawing.TASK] and not tesseract_only
        if not draws and drawing.TASK in (task or ()):
            raise OptionError(f"--task {drawing.TASK} runs alone. Leave the other tasks and --tesseract-only out")
        if draws and processes > 1:
            raise OptionError(f"--task {drawing.TASK} runs in one process. Leave --processes {processes} out")
        if device_map is not None and processes > 1:
            raise OptionError(f"--device-map spreads one model over all GPUs. Leave --processes {processes} out")
        if not tesseract_only:
            check_loading(device, quantization, device_map)
        if draws:
            check_model(model, revision)
        with ExitStack() as stack:
            show = stack.enter_context(progress_bar())

            def progress(at: suites.Progress) -> None:
                show(at.task, at.done, at.total)

            def keep(so_far: reports.Report) -> None:
                if json is not None and json != Path("-"):
                    with suppress(ResourceError):  # told at the end, below the table
                        named(so_far).save(json)

            pipe: Pipeline | None = None
            pool: ReaderPool | None = None
            if processes == 1 and not tesseract_only:
                pipe = load_pipeline(
                    model,
                    revision,
                    device,
                    dtype,
                    max_running=batch_size,
                    quantization=quantization,
                    compile=compile,
                    device_map=device_map,
                )
            elif not tesseract_only:
                find_runnable(model, revision)  # before any process starts; a download is for one of them
                opener = PipelineOpener(
                    model,
                    processes,
                    revision,
                    device,
                    dtype,
                    max_running=batch_size,
                    quantization=quantization,
                    compile=compile,
                )
                pool = stack.enter_context(open_readers(opener, processes, batch_size=batch_size, max_tiles=max_tiles))
            if draws and pipe is not None:
                own = pipe.drawing_defaults
                note(
                    f"{model} draws with guidance {own.guidance_scale:g}, temperature {own.temperature:g} and top-p "
                    f"{1 if own.top_p is None else own.top_p:g}, its own."
                )
                report = drawing.evaluate_drawing(
                    pipe,
                    limit=limit,
                    scene_limit=min(limit, 100),
                    guidance_scale=own.guidance_scale,
                    temperature=own.temperature,
                    top_p=own.top_p,
                    batch_size=batch_size,
                    progress=progress,
                )
            else:
                report = suites.evaluate(
                    pipe or pool,
                    tasks=task,
                    documents=None if stored is None else load_stored(stored),
                    limit=limit,
                    control_limit=control_limit,
                    batch_size=batch_size,
                    max_tiles=max_tiles,
                    font_folders=fonts,
                    workers=rendering.default_workers(processes) if workers is None else workers,
                    tesseract=tesseract or tesseract_only,
                    progress=progress,
                    on_task=keep,
                )
        report = named(report)
    if json == Path("-"):
        write_json(report.to_dict())
    else:
        write(report.to_markdown())  # first: the table of a long run is told even where the file cannot be written
        if json is not None:
            report.save(json)
    for sentence in (failures := missed(report, expected)):
        note(sentence)
    if failures:
        raise typer.Exit(1)


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML recipe.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Receives weights, log and curve.", show_default=False)],
    state: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Resumes from here and saves here: makes a run restartable.")
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Model folder to begin from instead of fresh weights.")
    ] = None,
    session_seconds: Annotated[
        float | None, typer.Option(min=1, metavar="S", help="End this process within so many seconds.")
    ] = None,
    to_be_continued: Annotated[
        bool, typer.Option("--to-be-continued", help="Keep the recipe's pace: the schedule ends in a later session.")
    ] = False,
    device: options.Device = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the recipe.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Train a model from a recipe (configs/nano_vl2.yaml). Ctrl-C saves the state and ends."""
    from mm.training.loop import train
    from mm.training.recipe import load_recipe
    from mm.training.session import Session

    session = Session(
        out=out,
        state=state,
        warm_start=warm_start,
        session_seconds=session_seconds,
        finish=not to_be_continued,
        device=device,
    )
    summary = train(load_recipe(recipe, tuple(set_ or ())), session, say=note if json else write)
    if json:
        write_json({"schema": "mm.train/1", **summary})
