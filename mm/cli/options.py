"""Options that several commands share, declared once."""

from typing import Annotated, Literal

import typer

from mm import config

DEFAULT_MODEL = "nano-vl2"

MODEL_HELP = "Bundled name, folder in the published layout, or hub id such as deepseek-ai/deepseek-vl2-tiny."

Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help=MODEL_HELP)]
Revision = Annotated[str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a hub id.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(metavar="NAME", help="auto, float32, bfloat16 or float16.")]


Quantization = Annotated[
    config.Quantization | None,
    typer.Option(
        metavar="KIND",
        help="Keep the language model's weights in int8, fp8 or int4: less memory, slightly other answers.",
        show_default="as they are",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the image encoder, which is off by default: slow first picture, faster ones after, on a GPU.",
    ),
]
DeviceMap = Annotated[
    Literal["auto"] | None,
    typer.Option(
        metavar="auto",
        help="auto: spread the layers over all GPUs, for a model that one cannot hold.",
        show_default="one device",
    ),
]
MaxTiles = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Cut an image into at most N tiles: less memory, less detail.",
        show_default="as published",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Tokens of prompt and answer together.", show_default="as trained"),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Longest answer in tokens.", show_default="1024, or what the context leaves"),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="T", help="Sample with this temperature; 0 takes the most likely token.", show_default="0"
    ),
]
TopP = Annotated[
    float | None, typer.Option(metavar="P", help="Sample from the most likely tokens that make up this probability.")
]
TopK = Annotated[int | None, typer.Option(min=0, metavar="K", help="Sample from the K most likely tokens.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Makes sampling repeatable.")]

SpeculationWindow = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most tokens or codes of one pass with --speculation, 2 to 256.", show_default="16"),
]
Lookup = Annotated[
    str | None,
    typer.Option(
        "--speculation",
        metavar="NAME",
        help="prompt-lookup: the same answer in fewer passes where it repeats text of the prompt.",
        show_default="off",
    ),
]


SpecialTokensChoice = Literal["auto", "all", "none"]  # mm.chat.SpecialTokens, which imports too much for a help page
SpecialTokens = Annotated[
    SpecialTokensChoice,
    typer.Option(
        metavar="WHICH",
        help="Special tokens of the question that are control tokens: auto (image tag, box markup), all, or none.",
    ),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]


def parse_size(option: str, text: str | None, *, such_as: str) -> tuple[int, int] | None:
    """Width and height in pixels of "WIDTHxHEIGHT".

    Raises:
        BadParameter: it is something else; the message names the option and shows ``such_as``.
    """
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(
            f"{text!r} is not a size; write WIDTHxHEIGHT in pixels, such as {such_as}", param_hint=option
        )
    return int(width), int(height)
