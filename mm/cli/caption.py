"""`mm caption IMAGE`: the description on standard output. `mm caption SOURCE --output OUT`: texts for many images."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm.cli import options
from mm.cli.chat import tell_finish
from mm.cli.loading import check_images, check_sees, load_pipeline, reply_json
from mm.cli.output import note, progress_bar, write, write_json, write_pairs
from mm.errors import InputError, OptionError

if TYPE_CHECKING:
    from mm.captioning import Job, Summary


class FormatChoice(StrEnum):
    """Values of ``mm.captioning.sinks.Format``."""

    TXT = "txt"
    JSONL = "jsonl"
    PARQUET = "parquet"
    WEBDATASET = "webdataset"


class ModeChoice(StrEnum):
    """Values of ``mm.captioning.state.Mode``."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    APPEND = "append"


class EngineChoice(StrEnum):
    """Values of ``mm.captioning.engines.EngineName``."""

    LOCAL = "local"
    RAY = "ray"


class TaskChoice(StrEnum):
    """Names of ``mm.captioning.tasks.PROMPTS``."""

    CAPTION = "caption"
    SHORT = "short"
    DETAILED = "detailed"
    TAGS = "tags"
    OCR = "ocr"
    JSON = "json"


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
    task: Annotated[TaskChoice, typer.Option(help="What to ask.")] = TaskChoice.CAPTION,
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
    engine: Annotated[EngineChoice, typer.Option(help="ray: on all nodes of a Ray cluster.")] = EngineChoice.LOCAL,
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
        flags = dry_run or retry_quarantined or deduplicate or engine is not EngineChoice.LOCAL
        if any(value is not None for value in many) or flags or task is not TaskChoice.CAPTION:
            raise OptionError("these options are for many images: add --output OUT. For one question use mm chat")
        _describe(source, sampling, model, revision, device, dtype, max_tiles, context, json, system)
        return
    from mm.captioning import Job, Task

    job = Job(
        source=source,
        output=output,
        format=None if format is None else format.value,
        mode=None if mode is None else mode.value,
        task=Task(
            name=task.value,
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
        engine=engine.value,
        ray_address=ray_address,
        actors_per_node=actors_per_node,
    )
    check_sees(model, revision)
    _run(job, dry_run=dry_run, json=json)


def _describe(
    image: str,
    sampling: Any,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    max_tiles: int | None,
    context: int | None,
    json: bool,
    system: str | None,
) -> None:
    """One image."""
    if Path(image).is_dir():
        raise InputError(f"{image!r} is a folder. Say where its texts go: --output FOLDER, or --output texts.jsonl")
    check_images((image,))
    check_sees(model, revision)
    pipe = load_pipeline(model, revision, device, dtype, context)
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
    with _first_interrupt(stop), progress_bar() as show:
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


@contextmanager
def _first_interrupt(stop: Any) -> Iterator[None]:
    """The first Ctrl-C asks the run to finish what it has in hand; the second one ends it at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        note("finishing what is begun, then saving; Ctrl-C again ends at once (nothing that was saved is lost)")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
        note(f"{sum(summary.quarantined.values())} images got no text; why is in {summary.quarantine}")


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
