"""The command line. Each command imports what it needs when it runs, so that ``mm --help`` costs nothing."""

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mm import __version__
from mm.cli import app_command, caption, chat, check, complete, draw, info, read, tokens
from mm.cli.output import FULL, give_up_stdout, note, open_missing_streams, readable_warnings
from mm.cli.spelling import error_text, use_options
from mm.errors import MMError, OptionError


class Guarded(TyperGroup):
    """A user's mistake is one line on standard error, never a traceback. Exit status 2 for a wrong option, else 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """What the words on the command line mean: typer ends on Ctrl-C there without a word."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt as error:
            note("Stopped.")
            raise typer.Exit(130) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was named; messages name its options from here on."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            inner = [part for one in getattr(command, "commands", {}).values() for part in one.params]
            use_options([*command.params, *inner])
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            with readable_warnings():
                return super().invoke(ctx)
        except MMError as error:
            note(f"error: {' '.join(error_text(error).split())}")
            raise typer.Exit(2 if isinstance(error, OptionError) else 1) from error
        except KeyboardInterrupt as error:
            note("Stopped.")
            raise typer.Exit(130) from error
        except BrokenPipeError:
            raise  # `mm ... | head`: typer ends the command quietly
        except OSError as error:  # about a file, in a place where no message of its own waits
            place = f" ({error.filename})" if error.filename else ""
            note(f"error: {error.strerror or error}{place}. Check the path, its permissions and the space on the disk.")
            raise typer.Exit(1) from error


app = typer.Typer(
    name="mm",
    cls=Guarded,
    help="Run, check and train the DeepSeek line of multimodal models.",
    epilog="Exit status: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mm {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run, check and train the DeepSeek line of multimodal models."""


app.command("chat")(chat.chat)
app.command("complete")(complete.complete)
app.command("ocr")(read.ocr)
app.command("caption")(caption.caption)
app.command("ground")(read.ground)
app.command("draw")(draw.draw)
app.add_typer(tokens.app, name="tokens")
app.command("models")(info.models)
app.command("plan")(info.plan)
app.command("env")(info.env)
app.command("verify")(check.verify)
app.command("eval")(check.evaluate)
app.command("train")(check.train)
app.command("app", context_settings=app_command.SETTINGS)(app_command.app)


def main() -> None:
    """The ``mm`` command; ``mm.cli.entry`` calls it."""
    # OpenMP reads this when torch loads: threads that wait for each other sleep instead of spinning. On a machine whose
    # cores are shared, spinning makes a small model 50 times slower (two busy cores: 420 ms a token, not 5).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_missing_streams()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # bytes that are no text are shown as such, and stop nothing
            stream.reconfigure(errors="replace" if stream is sys.stdin else "backslashreplace")
    try:
        app(prog_name="mm")
    except OSError as error:  # of a help page or the version: everything else is caught where it is written
        give_up_stdout()
        note(f"error: {FULL.format(error.strerror)}")
        raise SystemExit(1) from error
