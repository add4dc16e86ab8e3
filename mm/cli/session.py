"""The interactive session of `mm chat`."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm import images as images_module
from mm.chat import IMAGE_TAGS
from mm.cli.chat import write_stream
from mm.cli.interrupt import first_interrupt
from mm.cli.output import note, write
from mm.cli.spelling import error_text
from mm.errors import InputError, MMError, ResourceError
from mm.whole_file import write_whole

if TYPE_CHECKING:
    import PIL.Image

    from mm.pipeline import Pipeline
    from mm.request import ChatOptions

HELP = """\
/image PATH   show an image with the next question (several: one /image each);
              it stands before the question, or where the question has <image>
/clear        forget the conversation and the images
/save FILE    write the conversation as JSON: Pipeline.chat(messages=...) reads it
/help         this list
/exit         leave (also Ctrl-D, or Ctrl-C twice)
Ctrl-C stops an answer that is being written."""


class Session:
    """Questions from standard input, answers to standard output, until the input ends.

    Args:
        pipe: the model.
        options: for every answer.
        images: shown with the first question.
    """

    def __init__(self, pipe: "Pipeline", options: "ChatOptions", images: tuple[str, ...]) -> None:
        self.pipe = pipe
        self.options = options
        # Each file is opened once: what was shown stays the same, and a pipe can be read only once.
        self.images: list[tuple[str, PIL.Image.Image]] = [(path, images_module.open_image(path)) for path in images]
        self.messages: list[dict[str, Any]] = []  # with the names of images
        self._shown: list[dict[str, Any]] = []  # the same with the images
        self.terminal = sys.stdin.isatty()

    def run(self) -> None:
        """Read and answer. Errors of one line are shown and the session goes on."""
        if self.terminal:
            _enable_history()
            shown = f" about {', '.join(name for name, _ in self.images)}" if self.images else ""
            note(f"{self.pipe.name}{shown}. /help lists the commands, /exit leaves.")
        for line in self._lines():
            if line in ("/exit", "/quit"):
                return
            try:
                self._command(line) if line.startswith("/") else self._ask(line)
            except MMError as error:
                note(f"error: {error_text(error)}")
            except KeyboardInterrupt:  # while an image is opened, or a second time while an answer ends
                note("\nStopped.")

    def _lines(self) -> Iterator[str]:
        """Lines with something on them, until the input ends or Ctrl-C is pressed twice."""
        interrupted = False
        while True:
            try:
                line = input("> " if self.terminal else "").strip()
            except EOFError:
                if self.terminal:
                    write("")
                return
            except KeyboardInterrupt:
                write("")
                if interrupted:
                    return
                interrupted = True
                note("Ctrl-C again or /exit leaves.")
                continue
            interrupted = False
            if line:
                yield line

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        argument = _unquote(rest.strip())
        if name == "/image":
            self._add_image(argument)
        elif name == "/clear":
            self.messages, self._shown, self.images = [], [], []
            note("The conversation is forgotten.")
        elif name == "/save":
            self._save(argument)
        elif name == "/help":
            write(HELP)
        else:
            raise InputError(f"unknown command {name!r}. /help lists the commands; a question cannot start with '/'.")

    def _add_image(self, path: str) -> None:
        if not path:
            raise InputError("/image needs a path: /image photo.png")
        if not self.pipe.processor.spec.tokens_per_view:
            from mm.families.table import cannot_see

            raise cannot_see(self.pipe.name)
        file = str(Path(path).expanduser())
        image = images_module.open_image(file)  # tells now, not with the question, what is wrong
        self.images.append((file, image))
        note(f"{path} ({image.width} x {image.height}) goes with the next question.")

    def _save(self, path: str) -> None:
        if not path:
            raise InputError("/save needs a file: /save conversation.json")
        text = json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n"
        try:
            file = Path(path).expanduser()
            if file.is_file() and file.suffix.lower() != ".json":
                raise InputError(f"{path} exists and is no .json file, so it is not overwritten. Choose another file.")
        except (OSError, RuntimeError) as error:  # RuntimeError: the home of nobody
            reason = getattr(error, "strerror", None) or error
            raise ResourceError(f"cannot write {path}: {reason}. Choose another file.") from error
        write_whole(file, text.encode())
        note(f"{len(self.messages)} messages are in {path}.")

    def _ask(self, question: str) -> None:
        places = self.options.get("special_tokens") == "none" or any(tag in question for tag in IMAGE_TAGS)
        tags = "" if places else "<image>\n" * len(self.images)
        names, images = [name for name, _ in self.images], [image for _, image in self.images]
        message = {"role": "user", "content": tags + question, "images": names}
        shown = {**message, "images": images}
        stream = self.pipe.stream(messages=[*self._shown, shown], **self.options)
        with first_interrupt(stream.cancel):
            write_stream(stream)
        reply = stream.reply
        if reply.finish_reason == "cancelled":
            note("Stopped.")
        elif reply.finish_reason in ("length", "loop"):
            why = "reached the token limit" if reply.finish_reason == "length" else "was repeating itself"
            note(f"The answer {why}.")
        if reply.raw_text.strip():  # an answer that was stopped before its first word leaves no turn behind
            answer = {"role": "assistant", "content": reply.raw_text}
            self.messages += [message, answer]
            self._shown += [shown, answer]
            self.images = []


def _enable_history() -> None:
    """Arrow keys and history for `input`, where Python has readline; nothing is written to disk."""
    try:
        import readline
    except ImportError:
        return  # Windows: the console has its own
    readline.parse_and_bind("tab: complete")


def _unquote(text: str) -> str:
    """A path as typed: 'my photo.png', my\\ photo.png and my photo.png are the same."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 else text
