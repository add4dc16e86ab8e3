"""``python -m mm`` is the ``mm`` command."""

from mm.cli.entry import main

main()
