"""`mm caption IMAGE`: the description on standard output. `mm caption SOURCE --output OUT`: texts for many images."""

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mm.cli import options
from mm.cli.chat import tell_finish
from mm.cli.interrupt import first_interrupt
from mm.cli.loading import check_images, check_loading, check_sees, load_pipeline, reply_json
from mm.cli.output import note, progress_bar, write, write_json, write_pairs
from mm.errors import InputError, OptionError

if TYPE_CHECKING:
    from mm.captioning import Job, Summary
    from mm.pipeline import Pipeline


# The same words as in mm.captioning (Format, Mode, EngineName, PROMPTS), which imports too much for a help page.
FormatChoice = Literal["txt", "jsonl", "parquet", "webdataset"]
ModeChoice = Literal["skip", "overwrite", "append"]
EngineChoice = Literal["local", "ray"]
TaskChoice = Literal["caption", "short", "detailed", "tags", "ocr", "json"]


def caption(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Image, folder, pattern in quotes, list (.txt), table (.jsonl, .csv, .parquet), .tar, s3:// ...",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for .txt files, or a .jsonl, .parquet, .tar file."),
    ] = None,
    format: Annotated[
        FormatChoice | None, typer.Option(help="Of the results.", show_default="by the name of OUT; txt in a folder")
    ] = None,
    mode: Annotated[
        ModeChoice | None,
        typer.Option(help="What to do with results that are there.", show_default="go on with the same run, or refuse"),
    ] = None,
    task: Annotated[TaskChoice, typer.Option(help="What to ask.")] = "caption",
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this; {name} {directory} {tags} are filled in.")
    ] = None,
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON Schema that answers must be of.")] = None,
    retries: Annotated[int, typer.Option(min=0, metavar="N", help="Further attempts at a JSON answer.")] = 2,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put before every answer.")] = "",
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Put after every answer.")] = "",
    trigger: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Word that every answer holds; may be repeated.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Answers that run together.", show_default="what the memory holds"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Processes that open images.", show_default="half of the cores"),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds to open an image, and for its answer.")] = 300.0,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only part I of N, with an output of its own; I from 1.")
    ] = "1/1",
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Only the images in the quarantine.")
    ] = False,
    full_names: Annotated[bool, typer.Option("--full-names", help="a.jpg.txt, not a.txt.")] = False,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Ask about images of the same bytes once.")
    ] = False,
    devices: Annotated[
        str | None, typer.Option(metavar="A,B", help="A process with the model on each: 0,1 or cuda:0,cuda:1.")
    ] = None,
    engine: Annotated[EngineChoice, typer.Option(help="ray: on all nodes of a Ray cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the cluster.", show_default="this machine's")
    ] = None,
    actors_per_node: Annotated[
        int, typer.Option(min=1, metavar="N", help="Models on a node of a Ray cluster without GPUs.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: count, try a few images, estimate the time.")
    ] = False,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    compile: options.Compile = False,
    device_map: options.DeviceMap = None,
    max_new_tokens: options.MaxNewTokens = None,
    max_tiles: options.MaxTiles = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    system: options.System = None,
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """Describe an image; with --output, write texts for many images. The same command again goes on where it ended.

    With --output the exit status is 3 when some images got no text (see the quarantine file), 130 when interrupted.
    """
    from mm.generation.sampling import SamplingOptions

    sampling = SamplingOptions(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed
    )
    if output is None:
        many = (format, mode, prompt, schema, workers, trigger, batch_size, devices, ray_address)
        flags = dry_run or retry_quarantined or deduplicate or engine != "local"
        if any(value is not None for value in many) or flags or task != "caption":
            raise OptionError("these options are for many images: add --output OUT. For one question use mm chat")
        _check(source, model, revision)
        pipe = load_pipeline(
            model, revision, device, dtype, context, quantization=quantization, compile=compile, device_map=device_map
        )
        _describe(pipe, source, sampling, max_tiles, json, system)
        return
    check_loading(device, quantization, device_map)
    from mm.captioning import Job, Task

    job = Job(
        source=source,
        output=output,
        format=format,
        mode=mode,
        task=Task(
            name=task,
            prompt=prompt,
            schema=None if schema is None else _read_schema(schema),
            retries=retries,
            prefix=prefix,
            suffix=suffix,
            trigger_words=tuple(trigger or ()),
        ),
        model=model,
        revision=revision,
        device=device,
        dtype=dtype,
        quantization=quantization,
        compile=compile,
        device_map=device_map,
        context=context,
        sampling=sampling,
        max_tiles=max_tiles,
        system=system,
        batch_size=batch_size,
        workers=workers,
        timeout=timeout,
        shard=_parse_shard(shard),
        retry_quarantined=retry_quarantined,
        full_names=full_names,
        deduplicate=deduplicate,
        devices=_parse_devices(devices),
        engine=engine,
        ray_address=ray_address,
        actors_per_node=actors_per_node,
    )
    check_sees(model, revision)
    _run(job, dry_run=dry_run, json=json)


def _check(image: str, model: str, revision: str | None) -> None:
    """What is wrong with one image, or with the model for it, is told before the model is loaded."""
    if Path(image).is_dir():
        raise InputError(f"{image!r} is a folder. Say where its texts go: --output FOLDER, or --output texts.jsonl")
    check_images((image,))
    check_sees(model, revision)


def _describe(
    pipe: "Pipeline", image: str, sampling: Any, max_tiles: int | None, json: bool, system: str | None
) -> None:
    """One image."""
    reply = pipe.caption(
        image,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        max_tiles=max_tiles,
        system=system,
    )
    if json:
        write_json({"schema": "mm.caption/1", "model": pipe.name, "image": image, **reply_json(reply)})
        return
    write(reply.text)
    tell_finish(reply.finish_reason)


def _run(job: "Job", *, dry_run: bool, json: bool) -> None:
    """Many images."""
    from mm.captioning import Progress, run
    from mm.reply import CancelFlag

    stop = CancelFlag()

    def finish() -> None:
        stop.set()
        note("finishing what is begun, then saving; Ctrl-C again ends at once (nothing that was saved is lost)")

    # A cluster is left in good order: what its actors have in hand is called off.
    with first_interrupt(finish, second_exits=job.engine == "local"), progress_bar() as show:
        first: list[tuple[float, int]] = []  # when results were saved first, and how many

        def tell(progress: Progress) -> None:
            now, seen = monotonic(), progress.done + progress.quarantined
            if not first:
                first.append((now, seen))
            since, before = first[0]
            rate = f", {(seen - before) / (now - since):.2f}/s" if seen > before and now > since else ""
            held = f", {progress.quarantined} in quarantine" if progress.quarantined else ""
            show(f"images{rate}{held}", seen, progress.total)

        summary = run(job, on_progress=tell, stop=stop, dry_run=dry_run)
    _tell(summary, dry_run=dry_run, json=json)
    if summary.exit_status and not dry_run:
        raise typer.Exit(summary.exit_status)


def _tell(summary: "Summary", *, dry_run: bool, json: bool) -> None:
    if json:
        from dataclasses import asdict

        values = {**asdict(summary), "output": str(summary.output), "quarantine": str(summary.quarantine)}
        write_json({"schema": "mm.caption-batch/1", **values})
        return
    rate = summary.seconds and summary.done / summary.seconds
    pairs = [("images", str(summary.total)), ("skipped", str(summary.skipped))]
    if summary.estimate is not None:
        pairs += [("to do", str(summary.total - summary.skipped)), ("estimate", f"{summary.estimate:.0f} s")]
    else:
        pairs += [
            ("done", str(summary.done)),
            ("time", f"{summary.seconds:.1f} s"),
            ("images/s", f"{rate:.2f}"),
            ("tokens/s", f"{summary.seconds and summary.tokens / summary.seconds:.1f}"),
            ("model computes", f"{summary.busy:.0%} of the time"),
            ("output", str(summary.output)),
        ]
    pairs += [(f"quarantine: {reason}", str(count)) for reason, count in sorted(summary.quarantined.items())]
    write_pairs(pairs)
    if summary.quarantined and not dry_run:
        count = sum(summary.quarantined.values())
        note(f"{count} image{'s' * (count != 1)} got no text; why is in {summary.quarantine}")
    if not summary.total:
        note("There are no images in the source, or in this shard of it.")


def _parse_devices(text: str | None) -> tuple[str, ...]:
    """Names of devices; a number is that of a CUDA device."""
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if not all(names):
        raise OptionError(f"--devices is {text!r}; expected devices with commas between, such as 0,1")
    return tuple(f"cuda:{name}" if name.isdecimal() else name for name in names)


def _parse_shard(text: str) -> tuple[int, int]:
    part, slash, whole = text.partition("/")
    if not (slash and part.isdecimal() and whole.isdecimal()):
        raise OptionError(f"--shard is {text!r}; expected I/N, such as 1/4")
    return int(part), int(whole)


def _read_schema(path: Path) -> dict[str, Any]:
    import json

    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the schema {str(path)!r}: {error}. Name a file that holds a JSON Schema"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"the schema {str(path)!r} is {type(value).__name__}; expected a JSON object")
    return value
