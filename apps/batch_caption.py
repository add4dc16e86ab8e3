"""Texts for many images: the same as ``mm caption SOURCE --output OUT``.

python -m apps.batch_caption photos --output captions.jsonl
"""

import sys
from collections.abc import Sequence

from mm.cli.app import app


def main(argv: Sequence[str] | None = None) -> None:
    """Run it with these words, or those of the command line."""
    app(args=["caption", *(sys.argv[1:] if argv is None else argv)], prog_name="mm")


if __name__ == "__main__":
    main()
