"""Options that several commands share, declared once."""

from enum import StrEnum
from typing import Annotated

import typer

DEFAULT_MODEL = "nano-vl2"

MODEL_HELP = "Bundled name, folder in the published layout, or hub id such as deepseek-ai/deepseek-vl2-tiny."

Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help=MODEL_HELP)]
Revision = Annotated[str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a hub id.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(metavar="NAME", help="auto, float32, bfloat16 or float16.")]
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


class SpecialTokensChoice(StrEnum):
    """Values of ``mm.chat.SpecialTokens``."""

    AUTO = "auto"
    ALL = "all"
    NONE = "none"


SpecialTokens = Annotated[
    SpecialTokensChoice,
    typer.Option(
        metavar="WHICH",
        help="Special tokens of the question that are control tokens: auto (image tag, box markup), all, or none.",
    ),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document (docs/json.md).")]
