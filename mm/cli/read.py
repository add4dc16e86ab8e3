"""`mm ocr` and `mm ground`: one task, one image."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mm.cli import options
from mm.cli.chat import tell_finish
from mm.cli.loading import check_images, check_sees, load_pipeline, reply_json
from mm.cli.output import note, write, write_json
from mm.errors import OptionError, ResourceError
from mm.whole_file import check_writable, write_whole

if TYPE_CHECKING:
    import PIL.Image

    from mm.generation.speculation import Speculation
    from mm.reply import Reply
    from mm.request import ChatOptions

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file.", show_default=False)]


def ocr(
    image: Image,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    compile: options.Compile = False,
    device_map: options.DeviceMap = None,
    max_new_tokens: options.MaxNewTokens = None,
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    speculation: options.Lookup = None,
    speculation_window: options.SpeculationWindow = None,
    json: options.Json = False,
) -> None:
    """Read all the text in an image, as plain text."""
    chosen: ChatOptions = {
        "max_new_tokens": max_new_tokens,
        "max_tiles": max_tiles,
        "speculation": cast("Speculation | None", speculation),
        "speculation_window": speculation_window,
    }
    check_images((image,))
    from mm.request import parse_options

    parse_options(chosen)  # what is wrong is told before the model is loaded
    check_sees(model, revision)
    pipe = load_pipeline(
        model, revision, device, dtype, context, quantization=quantization, compile=compile, device_map=device_map
    )
    result = pipe.ocr(image, **chosen)
    if json:
        lines = {"lines": list(result.lines)}
        write_json({"schema": "mm.ocr/1", "model": pipe.name, "image": image, **lines, **reply_json(result.reply)})
        return
    write(result.text)
    tell_finish(result.reply.finish_reason)


def ground(
    image: Image,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)],
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the image with the boxes drawn on it.")
    ] = None,
    constrain: Annotated[
        bool, typer.Option("--constrain", help="Rule out malformed boxes while the answer is written.")
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
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """Find something in an image; prints one line a box: label, left, top, right, bottom in pixels."""
    check_images((image,))
    if draw is not None:
        _check_target(draw, image)
    check_sees(model, revision)
    pipe = load_pipeline(
        model, revision, device, dtype, context, quantization=quantization, compile=compile, device_map=device_map
    )
    reply = pipe.ground(image, query, max_new_tokens=max_new_tokens, max_tiles=max_tiles, constrain_boxes=constrain)
    if json:
        write_json({"schema": "mm.ground/1", "model": pipe.name, "image": image, "query": query, **reply_json(reply)})
    else:
        _write_boxes(reply)
    if draw is not None:  # last: the boxes are told even where the picture cannot be written
        from mm.grounding import draw_boxes
        from mm.images import open_image

        _save(draw_boxes(open_image(image), reply.boxes), draw)


def _write_boxes(reply: "Reply") -> None:
    for box in reply.boxes:
        if box.xyxy is None:
            note(f"warning: a box is not valid ({box.reason}): {box.text}")
        else:
            write("\t".join([box.label, *(f"{value:.0f}" for value in box.xyxy)]))
    if not reply.boxes:
        note(f"no box was found. The answer: {reply.text.strip() or '(empty)'}")


def _check_target(path: Path, image: str) -> None:
    """Refuse a picture that cannot be written, or would overwrite the image itself, before a model is loaded."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"):
        raise OptionError(f"cannot write {str(path)!r}: its ending names no image format. Name a .png or .jpg file.")
    if path.exists() and os.path.exists(image) and path.samefile(image):
        raise OptionError(f"--draw {str(path)!r} would overwrite the image itself. Name another file.")
    check_writable(path)


def _save(image: "PIL.Image.Image", path: Path) -> None:
    from PIL.Image import registered_extensions

    data = io.BytesIO()
    try:
        image.save(data, format=registered_extensions()[path.suffix.lower()])
    except (KeyError, OSError, ValueError) as error:  # a format that Pillow cannot write
        raise ResourceError(f"cannot write {str(path)!r}: {error}. Name another .png or .jpg file.") from error
    write_whole(path, data.getvalue())
