"""``python -m mm`` is the ``mm`` command."""

from mm.cli.app import main

main()
