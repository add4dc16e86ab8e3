"""The interactive session, with lines from a pipe and on a real terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cli import FORM, RECEIPT, Result, invoke

from mm.pipeline import Pipeline

LONG = ["--temperature", "5", "--seed", "3", "--max-new-tokens", "3500"]


@pytest.fixture(scope="session")
def model(golden: Callable[[str], Path]) -> str:
    """A small model with random weights in the published layout."""
    return str(golden("deepseek_vl2_tiny") / "checkpoint")


def talk(model: str, *lines: str, images: tuple[str, ...] = ()) -> Result:
    return invoke("chat", "-m", model, "--max-new-tokens", "6", *images, stdin="\n".join(lines) + "\n")


def test_a_conversation_is_continued_and_saved(model: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    result = talk(model, "What is the total?", f"/image '{FORM}'", "And here?", f"/save {file}", images=(RECEIPT,))
    assert result.status == 0
    messages = json.loads(file.read_text())
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert [message.get("images") for message in messages] == [[RECEIPT], None, [FORM], None]
    pipe = Pipeline.from_pretrained(model)
    first = pipe.chat(RECEIPT, "What is the total?", max_new_tokens=6)
    second = pipe.chat(messages=messages[:3], max_new_tokens=6)
    assert [messages[1]["content"], messages[3]["content"]] == [first.raw_text, second.raw_text]
    assert result.out == f"{first.text}\n{second.text}\n"


def test_a_tag_in_the_question_places_the_image(model: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    result = talk(model, "Is <image> a receipt?", "And <image>?", f"/save {file}", images=(RECEIPT,))
    assert "message 2 (user) has 1 <image> tag but 0 images" in result.err
    messages = json.loads(file.read_text())
    assert [message.get("images") for message in messages] == [[RECEIPT], None]
    assert messages[0]["content"] == "Is <image> a receipt?"
    pipe = Pipeline.from_pretrained(model)
    assert result.out == f"{pipe.chat(RECEIPT, 'Is <image> a receipt?', max_new_tokens=6).text}\n"


def test_a_tag_may_be_plain_text(model: str) -> None:
    options = ("--max-new-tokens", "6", "--special-tokens", "none")
    result = invoke("chat", "-m", model, *options, RECEIPT, stdin="What is <image>?\n")
    pipe = Pipeline.from_pretrained(model)
    alone = pipe.chat(RECEIPT, "What is <image>?", max_new_tokens=6, special_tokens="none")
    assert result.out == f"{alone.text}\n"


def test_a_file_is_opened_once(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mm import images

    opened: list[object] = []
    real = images.open_image
    monkeypatch.setattr(images, "open_image", lambda source: opened.append(source) or real(source))
    photo = tmp_path / "photo.png"
    photo.write_bytes(Path(FORM).read_bytes())
    lines = (f"/image {photo}", "Hi", "Hi again", "And again")
    assert talk(model, *lines).status == 0
    assert opened == [str(photo)]


def test_clear_forgets(model: str, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    result = talk(model, "Hi", f"/image {RECEIPT}", "/clear", "Hi", f"/save {file}")
    assert len(json.loads(file.read_text())) == 2
    lines = result.out.splitlines()
    assert lines[0] == lines[1]


def test_mistakes_do_not_end_the_session(model: str, tmp_path: Path) -> None:
    result = talk(
        model,
        "/image nope.png",
        "/image",
        "/nope",
        "/save",
        f"/save {tmp_path}/none/talk.json",
        "How many <image> and <image> are there?",
        "/help",
        "/exit",
        "never read",
        images=(RECEIPT,),
    )
    assert result.status == 0
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6
    wanted = ("no image at 'nope.png'", "/image needs a path", "unknown command '/nope'", "/save needs a file")
    for error, part in zip(errors, (*wanted, "cannot write", "<image>"), strict=True):
        assert part in error
    assert result.out.startswith("/image PATH")
    assert result.out.endswith("being written.\n")


def test_save_overwrites_conversations_only(model: str, tmp_path: Path) -> None:
    image, saved = tmp_path / "photo.png", tmp_path / "talk.json"
    image.write_bytes(Path(FORM).read_bytes())
    saved.write_text("[]")
    result = talk(model, "Hi", f"/save {image}", f"/save {saved}")
    assert image.read_bytes() == Path(FORM).read_bytes()
    assert "photo.png exists and is no .json file, so it is not overwritten. Choose another file." in result.err
    assert len(json.loads(saved.read_text())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "talk.json"]


def test_ctrl_c_while_an_image_is_opened_keeps_the_session(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mm import images

    real = images.open_image

    def interrupted(source: object, **options: object) -> object:
        monkeypatch.setattr(images, "open_image", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "open_image", interrupted)
    result = talk(model, f"/image {FORM}", f"/image {FORM}", "Hi")
    assert result.status == 0
    assert "Stopped." in result.err
    assert result.err.count("goes with the next question") == 1


def test_options_hold_for_every_turn(model: str) -> None:
    result = invoke("chat", "-m", model, "--max-new-tokens", "2", stdin="Hi\nHi again\n")
    assert result.err.count("reached the token limit") == 2


@pytest.fixture
def terminal(model: str) -> Iterator["Terminal"]:
    session = Terminal(["chat", "-m", model, *LONG])
    yield session
    session.close()


class Terminal:
    """The command on a pseudo-terminal of its own."""

    def __init__(self, words: list[str]) -> None:
        import pty

        main, side = pty.openpty()
        env = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "mm", *words]
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, env=env, start_new_session=True, close_fds=True
        )
        os.close(side)
        self.main = main
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until ``text`` was printed; what stands before it is forgotten."""
        import select

        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.main], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {text!r}, got {self.seen[-500:]!r}"
            self.seen += os.read(self.main, 4096).decode(errors="replace")
        self.seen = self.seen.split(text, 1)[1]

    def send(self, text: str) -> None:
        os.write(self.main, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C a second later: one that comes while readline prints its prompt is noticed with the next key only."""
        time.sleep(1)
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_ctrl_c_stops_the_answer_and_twice_at_the_prompt_leaves(terminal: Terminal) -> None:
    terminal.wait_for("/help lists the commands")
    terminal.wait_for("> ")
    terminal.send("Tell me a story\n")
    terminal.wait_for("\n")
    terminal.interrupt()
    terminal.wait_for("Stopped.")
    terminal.wait_for("> ")
    terminal.send("/help\n")
    terminal.wait_for("/save FILE")
    terminal.wait_for("> ")
    terminal.interrupt()
    terminal.wait_for("Ctrl-C again or /exit leaves.")
    terminal.wait_for("> ")
    terminal.interrupt()
    assert terminal.process.wait(timeout=30) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_the_end_of_input_leaves(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    terminal.send("\x04")
    assert terminal.process.wait(timeout=30) == 0


def test_ctrl_c_during_a_single_answer(model: str) -> None:
    command = [sys.executable, "-m", "mm", "chat", "-m", model, "Tell me a story", *LONG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
