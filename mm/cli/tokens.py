"""`mm tokens encode`, `mm tokens decode`: pictures to image codes and back."""

import io
import json as json_format
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm.cli import options
from mm.cli.draw import DEFAULT_MODEL, check_model
from mm.cli.loading import check_images, load_pipeline
from mm.cli.output import note, spinner, write, write_json
from mm.drawn_file import check_target
from mm.errors import InputError, OptionError
from mm.whole_file import check_writable, write_whole

if TYPE_CHECKING:
    from mm.pipeline import Pipeline

app = typer.Typer(no_args_is_help=True, help="Pictures to image codes and back, with the codes' loss in decibels.")


@app.command("encode")
def encode(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="JSON file.", show_default="standard output"),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Stretch it to the size that the model was trained for.")
    ] = False,
    model: options.Model = DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """A picture to codes, as JSON (docs/json.md), with the PSNR of the picture that they decode to."""
    from mm.images import open_image

    check_images((image,))
    if output is not None:
        if os.path.exists(image) and output.exists() and output.samefile(image):  # a data URI is no file
            raise OptionError(
                f"cannot write {str(output)!r}: it is the picture itself. Name another file for the codes"
            )
        check_writable(output)
    pipe = _load(model, revision, device, dtype)
    picture = open_image(image)
    if resize:
        from PIL import Image

        height, width = pipe.picture_size
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    from mm.pictures import psnr

    with spinner(f"encoding {picture.width}x{picture.height} pixels"):
        codes = pipe.encode_image(picture)
        loss = psnr(picture, pipe.decode_image(codes))
    values = {
        "schema": "mm.tokens/1",
        "model": pipe.name,
        "grid": list(codes.shape),
        "psnr": None if loss == float("inf") else round(loss, 3),
        "codes": codes.tolist(),
    }
    if output is None:
        write_json(values)
        return
    write_whole(output, (json_format.dumps(values) + "\n").encode())
    down, across = codes.shape
    write(f"{output}\t{down} x {across} codes\tPSNR {loss:.2f} dB")


@app.command("decode")
def decode(
    codes: Annotated[Path, typer.Argument(metavar="FILE", help="JSON file of 'mm tokens encode'.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="PNG file.", show_default=False)],
    compare: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Tell the PSNR against this picture.", show_default=False)
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Codes to a picture."""
    from mm.images import open_image
    from mm.pictures import psnr

    values = _read(codes)
    check_target(output)
    original = None if compare is None else open_image(compare)
    pipe = _load(model, revision, device, dtype)
    if values.get("model") not in (None, pipe.name):
        note(f"warning: the codes are of {values['model']!r}; to {pipe.name} they mean another picture")
    with spinner("decoding"):
        picture = pipe.decode_image(values["codes"])
    loss = None if original is None else psnr(original, picture)
    data = io.BytesIO()
    picture.save(data, format="PNG")
    write_whole(output, data.getvalue())
    write("\t".join([str(output), *([] if loss is None else [f"PSNR {loss:.2f} dB"])]))


def _load(model: str, revision: str | None, device: str, dtype: str) -> "Pipeline":
    if check_model(model, revision):
        from mm.families.table import has_no_codes

        raise has_no_codes(model)
    return load_pipeline(model, revision, device, dtype)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object of a file of codes.

    Raises:
        InputError: no such file, or it holds something else.
    """
    try:
        values = json_format.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(path)!r}. Name a file that 'mm tokens encode' wrote") from error
    except (OSError, ValueError, RecursionError) as error:  # the last: JSON of thousands of brackets
        raise InputError(
            f"{str(path)!r} cannot be read as JSON ({error}). Name a file of 'mm tokens encode'"
        ) from error
    if not isinstance(values, dict) or "codes" not in values:
        raise InputError(f"{str(path)!r} holds no object with \"codes\". Name a file that 'mm tokens encode' wrote")
    return values
