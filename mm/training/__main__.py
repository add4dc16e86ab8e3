"""``python -m mm.training``: what ``mm train`` does, for launchers such as ``torchrun``."""

import argparse
import sys
from pathlib import Path

from mm.errors import MMError
from mm.training.loop import train
from mm.training.recipe import load_recipe
from mm.training.session import Session


def main(arguments: list[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser = argparse.ArgumentParser(prog="mm train", description="Train a model from a recipe.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and curve")
    parser.add_argument("--state", type=Path, help="folder for the resumable state")
    parser.add_argument("--warm-start", type=Path, help="model folder to begin from")
    parser.add_argument("--session-seconds", type=float, help="end this process within so many seconds")
    parser.add_argument("--to-be-continued", action="store_true", help="keep the recipe's pace, do not finish")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        train(
            load_recipe(options.recipe, tuple(options.overrides)),
            Session(
                out=options.out,
                state=options.state,
                warm_start=options.warm_start,
                session_seconds=options.session_seconds,
                finish=not options.to_be_continued,
                device=options.device,
            ),
            say=lambda line: print(line, flush=True),
        )
    except MMError as error:
        print(f"mm train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
