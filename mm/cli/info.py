"""`mm models`, `mm plan`, `mm env`: what there is and what it needs, without running a model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm.cli import options
from mm.cli.output import bytes_text, spinner, write, write_json, write_pairs, write_table

if TYPE_CHECKING:
    from mm.environment import Environment
    from mm.plan import DeviceShare, Plan


def models(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also parameters, bytes on disk, folders, role and image tokens.")
    ] = False,
    json: options.Json = False,
) -> None:
    """What is bundled, cached on this machine, and known to work."""
    rows = _models(verbose)
    if json:
        write_json({"schema": "mm.models/1", "models": rows})
        return
    notes = {row["name"]: row.pop("notes", None) for row in rows}
    columns = list(rows[0])
    cells = [[_cell(value) for value in row.values()] for row in rows]
    write_table([column.replace("_", " ") for column in columns], cells, right=(2, 3))
    for name, text in notes.items():
        if text is not None:
            write(f"\n{name}: {text.rstrip()}")


def _cell(value: Any) -> str:
    if isinstance(value, dict):  # what it draws with
        return ", ".join(f"{name.replace('_', ' ')} {number:g}" for name, number in value.items() if number is not None)
    if isinstance(value, list):  # role and image tokens
        return ", ".join(token["text"] if token["id"] is None else f"{token['text']} {token['id']}" for token in value)
    return "-" if value is None else str(value)


def _models(verbose: bool) -> list[dict[str, Any]]:
    from mm.hub import bundled_models, cached_models, published_configs

    bundled, cached, published = bundled_models(), cached_models(), published_configs()
    if cached:
        from mm.families.table import runs

        cached = [model for model in cached if runs(model.config) or model.name in published]
    sizes = {model.name: model.num_bytes for model in cached}
    rows = [{"name": name, "state": "bundled"} for name in bundled]
    rows += [{"name": name, "state": "cached" if name in sizes else "known"} for name in published]
    rows += [{"name": name, "state": "cached"} for name in sizes if name not in published]
    if not verbose:
        return list(rows)
    from mm.families.table import known_parameters

    counts: dict[Any, int] = dict(known_parameters())
    return [_with_details(row, sizes, counts) for row in rows]


def _with_details(row: dict[str, Any], cached: dict[str, int], counts: dict[Any, int]) -> dict[str, Any]:
    """A row with more columns. ``counts``: parameters by config, for models of the same sizes are counted once."""
    from dataclasses import asdict

    from mm.families.table import FAMILIES, drawing_defaults, load_config, prompt_tokens
    from mm.hub import find_config

    found = find_config(row["name"])
    size = cached.get(row["name"])
    if found.source == "bundled":
        size = sum(path.stat().st_size for path in found.folder.iterdir())
    folder = str(found.folder) if found.source in ("bundled", "hub") else None
    config = load_config(found.folder)
    if config not in counts:  # a folder of the hub's cache
        from mm.planner import Planner

        counts[config] = Planner(found.folder).parameters().total
    draws = FAMILIES.load(config.family).draws
    notes = found.folder / "NOTES.md"
    return {
        **row,
        "parameters": counts[config],
        "bytes_on_disk": size,
        "folder": folder,
        "drawing": asdict(drawing_defaults(found.folder)) if draws else None,
        "tokens": [asdict(token) for token in prompt_tokens(found.folder)],
        "notes": notes.read_text(encoding="utf-8") if notes.is_file() else None,
    }


def _gpu_memory(text: str | None) -> list[int]:
    """Bytes of each GPU."""
    if text is None:
        return []
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(2**-30 <= size < 2**20 for size in sizes):
        raise typer.BadParameter(
            f"{text!r} is no list of sizes; write the free GiB of each GPU with commas between, such as 80,80",
            param_hint="--gpu-memory",
        )
    return [int(size * 2**30) for size in sizes]


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)] = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            metavar="GIB,GIB",
            help="Plan for GPUs with so much free memory, the layers spread over them: 80,80.",
            show_default="what this machine has",
        ),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Text tokens of a prompt.")] = 256,
    images: Annotated[int, typer.Option(min=0, metavar="N", help="Images of a prompt.")] = 1,
    image_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels of each image.", show_default="the size with most tiles")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Longest answer in tokens.")] = 512,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Conversations run together.")] = 1,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Pictures drawn together instead, with guidance; --images and --batch say nothing."
        ),
    ] = 0,
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """What a model needs (parameters, bytes, peak memory), before any download, and what would make it fit."""
    size, gpus = options.parse_size("--image-size", image_size, such_as="1200x900"), _gpu_memory(gpu_memory)
    with spinner("counting"):
        from mm.hub import find_config, known_names
        from mm.plan import make_plan
        from mm.planner import Workload

        work = Workload(
            prompt_tokens=prompt_tokens,
            images=images,
            image_size=size,
            max_new_tokens=max_new_tokens,
            batch=batch,
            pictures=pictures,
            max_tiles=max_tiles,
            context=context,
        )
        others = tuple(find_config(name) for name in known_names())
        made = make_plan(
            find_config(model, revision),
            work,
            device=device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            gpu_memory=gpus,
            others=others,
        )
    if json:
        write_json({"schema": "mm.plan/1", **made.to_dict()})
    else:
        _write_plan(made)


def _write_plan(plan: "Plan") -> None:
    from mm.hub import AUTOENCODER

    counts, peak, work = plan.parameters, plan.peak, plan.workload
    trained = f"{plan.context:,} tokens"
    if plan.context > plan.trained_context:
        trained += f" (more than the {plan.trained_context:,} it was trained for)"
    images = f"{work.images} image{'s' * (work.images != 1)}"
    if work.images:
        images += f" of {plan.image_tokens:,} tokens"
    doing = f"batch {work.batch}, {work.prompt_tokens:,} text tokens, {images}, {work.max_new_tokens:,} new tokens"
    if work.pictures:
        doing = (
            f"{work.pictures} picture{'s' * (work.pictures != 1)} with guidance, {work.prompt_tokens:,} text tokens, "
        )
        doing += f"{work.max_new_tokens:,} positions each"
    write_pairs(
        [
            ("model", f"{plan.model} ({plan.source})"),
            ("parameters", f"{counts.total:,} (encoder {counts.vision:,}, decoder {counts.decoder:,})"),
            ("activated", f"{counts.activated:,} a text token, without the input embedding"),
            ("weight files", bytes_text(plan.download_bytes)),
            *([("for pictures", f"{AUTOENCODER} besides, {bytes_text(plan.autoencoder_bytes)}")]
              if plan.autoencoder_bytes else []),
            ("type, device", f"{plan.dtype}{f', {plan.quantization}' if plan.quantization else ''} on {plan.device}"),
            ("cache", f"{plan.cache_bytes_per_token:,} B a token"),
            ("workload", doing),
            ("context", trained),
            ("peak memory", bytes_text(peak.total)),
            ("  weights", bytes_text(peak.weights)),
            ("  cache", bytes_text(peak.cache)),
            ("  kept views", f"{bytes_text(peak.views)} at most"),
            ("  activations", f"{bytes_text(peak.activations)} (estimate)"),
            ("  process", bytes_text(peak.overhead)),
            ("free memory", f"{bytes_text(plan.memory.available)} of {bytes_text(plan.memory.total)}"),
            *((share.device, _share(share)) for share in plan.devices),
        ]
    )  # fmt: skip
    if plan.fits:
        write("It fits.")
        return
    write("It does not fit. Options, one on top of the other:")
    for suggestion in plan.suggestions:
        verdict = "fits" if suggestion.fits else "does not fit"
        write(f"  {suggestion.flags}  needs {bytes_text(suggestion.peak_bytes)}, {verdict}")
    if not any(suggestion.fits for suggestion in plan.suggestions):
        write("Nothing above fits. Free some memory, or use a larger machine.")


def _share(share: "DeviceShare") -> str:
    """What one of several GPUs holds, in words."""
    peak = share.peak
    return (
        f"{share.holds}: {bytes_text(peak.weights)} of weights, {bytes_text(peak.total)} at the peak, "
        f"{bytes_text(share.memory.available)} free: {'fits' if share.fits else 'does not fit'}"
    )


def env(json: options.Json = False) -> None:
    """What a bug report needs: versions, devices, memory, folders. Holds no secrets."""
    from mm.environment import read_environment

    environment = read_environment()
    if json:
        write_json({"schema": "mm.env/1", **environment.to_dict()})
    else:
        _write_environment(environment)


def _write_environment(environment: "Environment") -> None:
    pairs = [
        ("mm", f"{environment.mm} in {environment.package_folder}"),
        ("python", environment.python),
        ("platform", environment.platform),
        ("cpu", f"{environment.cpu}, {environment.num_cores} cores, {environment.num_threads} torch threads"),
    ]
    for device in environment.devices:
        memory = f"{bytes_text(device.memory.available)} of {bytes_text(device.memory.total)} free"
        types = f"{', '.join(device.dtypes)} (auto: {device.default_dtype})"
        pairs.append((f"device {device.name}", f"{device.hardware}, {memory}, {types}"))
    pairs += [(name, version or "not installed") for name, version in environment.packages.items()]
    pairs += [
        ("cache", environment.cache_folder),
        ("HF_TOKEN", "set" if environment.hf_token else "not set"),
        *environment.variables.items(),
        ("bundled models", ", ".join(environment.bundled_models)),
    ]
    write_pairs(pairs)
