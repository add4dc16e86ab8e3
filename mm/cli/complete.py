"""`mm complete`: raw text goes on, or a gap in it is filled."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mm.cli import options
from mm.cli.chat import tell_finish, write_stream
from mm.cli.loading import check_images, check_sees, load_pipeline, reply_json
from mm.cli.output import note, write_json
from mm.errors import InputError, PromptError

if TYPE_CHECKING:
    from mm.generation.speculation import Speculation
    from mm.request import ChatOptions


def complete(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The text; - reads it from standard input.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The text is in this file.", show_default=False)
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What stands after the gap: it is filled. For DeepSeek-Coder and its like."),
    ] = None,
    gap: Annotated[
        str | None,
        typer.Option(metavar="MARK", help="Fill the one place of the text where MARK stands.", show_default=False),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="IMAGE", help="Image file in front of the text; may be given again.")
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    revision: options.Revision = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    compile: options.Compile = False,
    device_map: options.DeviceMap = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End where this text comes; may be given again.")
    ] = None,
    special_tokens: Annotated[
        options.SpecialTokensChoice,
        typer.Option(metavar="WHICH", help="all: the special tokens in the text are control tokens; else plain text."),
    ] = "auto",
    context: options.Context = None,
    speculation: options.Lookup = None,
    speculation_window: options.SpeculationWindow = None,
    json: options.Json = False,
) -> None:
    """Continue a raw text, without a chat template; with --suffix or --gap, fill a gap in it.

    What base checkpoints are for. Only what is new is printed.
    """
    text = _text(prompt, file)
    if gap is not None:
        if suffix is not None:
            raise typer.BadParameter("give --suffix or --gap, not both", param_hint="--gap")
        text, suffix = _parts(text, gap)
    images = image or []
    chosen: ChatOptions = {
        "speculation": cast("Speculation | None", speculation),
        "speculation_window": speculation_window,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": stop,
        "special_tokens": special_tokens,
    }
    check_images(images)
    from mm.request import parse_options

    parse_options(chosen)  # what is wrong is told before the model is loaded
    if images:
        check_sees(model, revision)
    pipe = load_pipeline(
        model, revision, device, dtype, context, quantization=quantization, compile=compile, device_map=device_map
    )
    if pipe.needs_image:
        note(
            f"{model} was trained with pictures and conversations only, and continues no raw text well. Use "
            "'mm chat' with an image, or another model."
        )
    stream = pipe.stream_completion(text, suffix=suffix, images=list(images), **chosen)
    if json:
        write_json({"schema": "mm.complete/1", "model": pipe.name, **reply_json(stream.reply)})
        return
    write_stream(stream)
    tell_finish(stream.reply.finish_reason)


def _text(prompt: str | None, file: Path | None) -> str:
    """The text of the argument, of standard input or of a file."""
    if (prompt is None) == (file is None):
        raise typer.BadParameter("give the text itself, - for standard input, or --file FILE", param_hint="TEXT")
    if file is None:
        assert prompt is not None
        text = sys.stdin.read() if prompt == "-" else prompt
    else:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read {str(file)!r}: {error.strerror}. Name a text file") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{str(file)!r} is no UTF-8 text ({error.reason}). Convert it first") from error
    if not text.strip():
        raise PromptError("the text is empty. Write what the model is to continue")
    return text


def _parts(text: str, mark: str) -> tuple[str, str]:
    """What stands before and after the mark."""
    count = text.count(mark) if mark else 0
    if count != 1:
        raise PromptError(
            f"--gap {mark!r} stands {count} times in the text; expected once. Write it where the gap is, or choose "
            "another mark"
        )
    before, _, after = text.partition(mark)
    return before, after
