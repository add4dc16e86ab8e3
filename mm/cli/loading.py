"""Loading a pipeline for a command."""

import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mm.cli.output import note, spinner
from mm.config import Quantization

if TYPE_CHECKING:
    from mm.pipeline import Pipeline
    from mm.reply import Reply


def load_pipeline(
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    context: int | None = None,
    max_running: int | None = None,
    vae: str | None = None,
    *,
    quantization: Quantization | None = None,
    compile: bool = False,
    device_map: Literal["auto"] | None = None,
) -> "Pipeline":
    """The model, with a spinner on a terminal; a download shows its own progress bar there."""
    from mm.hub import find_config

    check_loading(device, quantization, device_map)

    if not sys.stderr.isatty():
        # Bars are for terminals. The hub's library reads this variable when it is imported.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if find_config(model, revision).source not in ("bundled", "local"):
        from mm.families.table import find_runnable

        find_runnable(model, revision)  # outside the spinner, for the bar of a download
    with spinner(f"loading {model}"):
        from mm.generation.engine import DEFAULT_SLOTS
        from mm.pipeline import Pipeline

        pipe = Pipeline.from_pretrained(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            context=context,
            max_running=DEFAULT_SLOTS if max_running is None else max_running,
            vae=vae,
            quantization=quantization,
            compile=compile,
            device_map=device_map,
        )
    if pipe.model.placement is not None:
        from mm.transforms.split import stretches

        note(f"{model}: {stretches(pipe.model.placement)}")
    return pipe


def check_loading(
    device: str, quantization: Quantization | None = None, device_map: Literal["auto"] | None = None
) -> None:
    """Refuse options that this machine cannot follow before a model is fetched.

    Raises:
        OptionError: an unknown device or one that is not there, or that lacks the type of the quantisation; a device
            besides a device map, or no GPU for it.
    """
    if quantization is None and device_map is None:
        return
    from mm.devices import resolve_device
    from mm.transforms.quantize import check_quantization
    from mm.transforms.split import check_device_map, visible_gpus

    check_device_map(device_map, device)
    for place in (resolve_device(device),) if device_map is None else visible_gpus():
        check_quantization(quantization, place)


def check_images(paths: Sequence[str]) -> None:
    """Refuse what cannot be opened before a model is loaded.

    A pipe, as of ``<(command)``, can be read only once, so it is left for the model.

    Raises:
        ImageError: see `mm.images.open_image`.
    """
    from mm.images import open_image

    for path in paths:
        if not _is_pipe(path):
            open_image(path)


def check_sees(model: str, revision: str | None) -> None:
    """A model that reads text only is refused for images before its weights are fetched and loaded.

    Raises:
        TaskError: such a model.
    """
    from mm.families.table import FAMILIES, cannot_see, load_config
    from mm.hub import find_config

    if not FAMILIES.load(load_config(find_config(model, revision).folder).family).sees:
        raise cannot_see(model)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):  # nothing there, or no path at all: opening it says what is wrong
        return False


def reply_json(reply: "Reply") -> dict[str, Any]:
    """A reply as docs/json.md describes it."""
    from dataclasses import asdict

    return {
        "text": reply.text,
        "raw_text": reply.raw_text,
        "finish_reason": reply.finish_reason,
        "usage": {**asdict(reply.usage), "total_tokens": reply.usage.total_tokens},
        "boxes": [asdict(box) for box in reply.boxes],
        **({} if reply.reasoning is None else {"reasoning": reply.reasoning}),
    }
