"""What a run knows of the runs before it on the same output: settings, how far they came, and who is at work."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mm.captioning.log import replace_file
from mm.errors import InputError, OptionError, ResourceError

Mode = Literal["skip", "overwrite", "append"]
MODES: tuple[Mode, ...] = ("skip", "overwrite", "append")
_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class State:
    """The record of a run.

    Attributes:
        settings: everything that the texts depend on.
        mode: how it was begun.
        start: bytes of the log before its first row.
        begun: bytes of the log when it was begun: with no more than these, it has written nothing.
        finished: whether it came to its end.
    """

    settings: dict[str, Any]
    mode: str
    start: int
    begun: int
    finished: bool

    def save(self, folder: Path) -> None:
        """Write it in one step."""
        replace_file(folder / "run.json", json.dumps({"version": _VERSION, **asdict(self)}, indent=2).encode())


def load_state(folder: Path) -> State | None:
    """The record of the last run, if there was one.

    Raises:
        ResourceError: it cannot be read.
    """
    path = folder / "run.json"
    try:
        raw = json.loads(path.read_bytes())
        version = raw.pop("version")
        if version == 1:  # which had no ``begun``
            return State(**raw, begun=raw["start"])
        if version != _VERSION:
            raise ResourceError(
                f"{str(path)!r} has version {version!r}; this mm reads 1 to {_VERSION}. Use the other mm"
            )
        return State(**raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResourceError(
            f"cannot read the record of the last run, {str(path)!r}: {error}. Restore it, or use another output"
        ) from error


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each setting that differs."""
    lines = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += difference(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} before, {after!r} now")
    return lines


def decide(last: State | None, settings: dict[str, Any], mode: Mode | None, *, exists: bool, log_is_whole: bool) -> str:
    """What a run does with what is there: "new", "continue" (the rows of the log count), "append" or "overwrite".

    Args:
        last: the record of the last run; None also where it has written nothing and this one is not to go on with it.
        settings: of this one.
        mode: as asked for.
        exists: whether the output has results already.
        log_is_whole: whether these can be told from the output without a record.

    Raises:
        InputError: that is not clear, or the settings differ.
        OptionError: an unknown mode.
    """
    if mode is not None and mode not in MODES:
        raise OptionError(f"unknown mode {mode!r}. Known: {', '.join(MODES)}")
    if last is None:
        if not exists or mode == "overwrite":
            return "overwrite" if exists else "new"
        if mode is None:
            raise InputError(
                "the output exists. Say what to do with it: --mode skip (only images without a result), append (add "
                "to it) or overwrite (replace it); or name another output"
            )
        if not log_is_whole:
            raise InputError(
                f"the output exists and the record of the run that wrote it is gone, so the mode {mode!r} cannot go on "
                "with it. Use --mode overwrite, or name another output"
            )
        return "append" if mode == "append" else "continue"
    lines = difference(last.settings, settings)
    if not last.finished:
        if not lines and mode in (None, "skip", last.mode):
            return "continue"
        if mode == "overwrite":
            return "overwrite"
        lines = lines or [f"mode: {last.mode!r} before, {mode!r} now"]
        raise InputError(
            "the output holds an unfinished run with other settings: "
            + "; ".join(lines)
            + ". Use its settings to go on with it, --mode overwrite to start anew, or another output"
        )
    if mode in ("overwrite", "append"):
        return mode
    if lines:
        raise InputError(
            "the output was made with other settings: "
            + "; ".join(lines)
            + ". Use the same, --mode append or overwrite, or another output"
        )
    return "continue"


class Lock:
    """Held while a run works on an output; the system gives it back when the process ends, however that happens.

    Args:
        folder: of the run's state.

    Raises:
        ResourceError: another run holds it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        try:
            self._file: IO[bytes] = path.open("ab")
        except OSError as error:
            raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}. Check the permissions") from error
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise ResourceError(
                f"another run is at work on this output (it holds {str(path)!r}). Wait for it, or name another output"
            ) from error

    def release(self) -> None:
        """Let others work."""
        self._file.close()


def _lock(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise ResourceError("captioning many images needs a system with flock (Linux, macOS, WSL)") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
