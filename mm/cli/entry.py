"""Entry point of the ``mm`` command: nothing is imported here before Ctrl-C is answered for."""

import sys


def main() -> None:
    """Run the command. Ctrl-C ends it with one line and exit status 130, also while the first modules are imported."""
    try:
        from mm.cli.app import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:  # closed by the caller
            sys.stderr.write("Stopped.\n")
        raise SystemExit(130) from None
