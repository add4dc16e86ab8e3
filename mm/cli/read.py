"""`mm ocr`, `mm caption`, `mm ground`: one task, one image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm.cli import options
from mm.cli.chat import tell_finish
from mm.cli.loading import check_images, load_pipeline, reply_json
from mm.cli.output import note, write, write_json
from mm.errors import ResourceError

if TYPE_CHECKING:
    import PIL.Image

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file.", show_default=False)]


def ocr(
    image: Image,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """Read all the text in an image, as plain text."""
    check_images((image,))
    pipe = load_pipeline(model, revision, device, dtype, context)
    result = pipe.ocr(image, max_new_tokens=max_new_tokens, max_tiles=max_tiles)
    if json:
        lines = {"lines": list(result.lines)}
        write_json({"schema": "mm.ocr/1", "model": pipe.name, "image": image, **lines, **reply_json(result.reply)})
        return
    write(result.text)
    tell_finish(result.reply.finish_reason)


def caption(
    image: Image,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """Describe an image."""
    check_images((image,))
    pipe = load_pipeline(model, revision, device, dtype, context)
    reply = pipe.caption(image, max_new_tokens=max_new_tokens, max_tiles=max_tiles)
    if json:
        write_json({"schema": "mm.caption/1", "model": pipe.name, "image": image, **reply_json(reply)})
        return
    write(reply.text)
    tell_finish(reply.finish_reason)


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
    max_new_tokens: options.MaxNewTokens = None,
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    json: options.Json = False,
) -> None:
    """Find something in an image; prints one line a box: label, left, top, right, bottom in pixels."""
    check_images((image,))
    pipe = load_pipeline(model, revision, device, dtype, context)
    reply = pipe.ground(image, query, max_new_tokens=max_new_tokens, max_tiles=max_tiles, constrain_boxes=constrain)
    if draw is not None:
        from mm.grounding import draw_boxes
        from mm.images import open_image

        _save(draw_boxes(open_image(image), reply.boxes), draw)
    if json:
        write_json({"schema": "mm.ground/1", "model": pipe.name, "image": image, "query": query, **reply_json(reply)})
        return
    for box in reply.boxes:
        if box.xyxy is None:
            note(f"warning: a box is not valid ({box.reason}): {box.text}")
        else:
            write("\t".join([box.label, *(f"{value:.0f}" for value in box.xyxy)]))
    if not reply.boxes:
        note(f"no box was found. The answer: {reply.text.strip() or '(empty)'}")


def _save(image: "PIL.Image.Image", path: Path) -> None:
    try:
        image.save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise ResourceError(
            f"cannot write {str(path)!r}: {error}. Name a .png or .jpg file in a folder that exists."
        ) from error
