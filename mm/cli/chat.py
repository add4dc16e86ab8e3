"""`mm chat`: one question, or an interactive session."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from mm.cli import options
from mm.cli.loading import check_images, check_sees, load_pipeline, reply_json
from mm.cli.output import note, write, write_aside, write_json
from mm.cli.prompts import split_words

if TYPE_CHECKING:
    from mm.generation.speculation import Speculation
    from mm.reply import TextStream
    from mm.request import ChatOptions


def chat(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES... QUESTION",
            help="Image files, then the question in quotes; - reads the question from standard input. "
            "Without a question: an interactive session.",
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", "-q", metavar="TEXT", help="The question; all words are images then.")
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
    system: options.System = None,
    special_tokens: options.SpecialTokens = "auto",
    max_tiles: options.MaxTiles = None,
    context: options.Context = None,
    speculation: options.Lookup = None,
    speculation_window: options.SpeculationWindow = None,
    json: options.Json = False,
) -> None:
    """Ask about images. The answer is streamed to standard output."""
    prompt = split_words(words or [], question)
    if json and prompt.question is None:
        raise typer.BadParameter("needs a question; a session prints no JSON", param_hint="--json")
    chosen: ChatOptions = {
        "speculation": cast("Speculation | None", speculation),
        "speculation_window": speculation_window,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "system": system,
        "special_tokens": special_tokens,
        "max_tiles": max_tiles,
    }
    check_images(prompt.images)
    from mm.request import parse_options

    parse_options(chosen)  # what is wrong is told before the model is loaded
    if prompt.images:
        check_sees(model, revision)
    pipe = load_pipeline(
        model, revision, device, dtype, context, quantization=quantization, compile=compile, device_map=device_map
    )
    if prompt.question is None:
        from mm.cli.session import Session

        Session(pipe, chosen, prompt.images).run()
        return
    stream = pipe.stream(list(prompt.images), prompt.question, **chosen)
    if json:
        write_json({"schema": "mm.chat/1", "model": pipe.name, **reply_json(stream.reply)})
        return
    write_stream(stream)
    tell_finish(stream.reply.finish_reason)


def write_stream(stream: "TextStream") -> None:
    """An answer to standard output as it comes, and a line break; what was thought before it, dimmed, to standard
    error."""
    thinking = False
    try:
        for kind, text in stream.parts():
            if kind == "reasoning":
                write_aside(text)
            elif thinking:
                write_aside("\n\n")
            thinking = kind == "reasoning"
            if not thinking:
                write(text, end="")
    finally:
        if thinking:
            write_aside("\n")
    write("")


def tell_finish(reason: str) -> None:
    """A line on standard error when an answer did not end by itself."""
    if reason == "length":
        note("warning: the answer stops at the token limit; --max-new-tokens raises it")
    elif reason == "loop":
        note("warning: the answer repeated itself without end and was stopped")
