"""Options, ports, uploads and errors of the apps."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gradio as gr
import httpx
import pytest
from PIL import Image

from apps import common, server
from apps.line import Line
from mm.errors import ImageError, OptionError, ResourceError
from mm.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


def options(*words: str) -> server.ServeOptions:
    return server.parse_arguments(words, "app", "an app")[1]


def test_defaults_listen_on_this_machine_only() -> None:
    given = options()
    assert given == server.ServeOptions(host="127.0.0.1", port=None, auth=None, root_path=None, share=False)


def test_every_option_is_read() -> None:
    given = options(
        *("--host", "0.0.0.0", "--port", "8000", "--auth", "ada:a:b", "--max-upload-mb", "5"),
        *("--queue-size", "7", "--root-path", "/mm", "--share"),
    )
    assert given == server.ServeOptions(
        host="0.0.0.0", port=8000, auth=("ada", "a:b"), max_upload_mb=5, queue_size=7, root_path="/mm", share=True
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--port", "0"), "'0' is not a whole number from 1 to 65535"),
        (("--port", "http"), "'http' is not a whole number"),
        (("--auth", "ada"), "expected USER:PASS"),
        (("--root-path", "mm"), "'mm' is not a path such as /mm or an address"),
        (("--queue-size", "0"), "'0' is not a whole number from 1 to 10000"),
    ],
)
def test_a_wrong_option_ends_with_status_2(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options(*words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def build(models: object) -> gr.Blocks:
        raise AssertionError("nothing was loaded")

    assert server.run_app(["--model", "./none"], build, ["chat"], name="mm app", description="") == 1
    err = capsys.readouterr().err
    assert "error: " in err and "Traceback" not in err


def test_a_mistake_is_told_as_it_was_typed_and_ctrl_c_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(models: object) -> gr.Blocks:
        raise KeyboardInterrupt

    assert server.run_app(["--device", "tpu"], build, ["chat"], name="mm app", description="") == 2
    assert "\nerror: --device 'tpu' is unknown; use auto, cpu," in capsys.readouterr().err
    monkeypatch.setattr(server.Models, "load_defaults", lambda *_: None)
    assert server.run_app([], build, ["chat"], name="mm app", description="") == 130
    assert capsys.readouterr().err.endswith("\nStopped.\n")


def test_a_taken_port_is_passed_over() -> None:
    first = server.find_port(options())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert server.find_port(options()) > first
        assert server.find_port(options("--port", str(first))) > first


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(OptionError, match="there is no address 'no such host'"):
        server.find_port(options("--host", "no such host"))
    with pytest.raises(OptionError, match="192.0.2.1 is no address of this machine"):
        server.find_port(options("--host", "192.0.2.1"))


def test_no_place_for_uploads_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no such folder")
    with pytest.raises(ResourceError, match="no folder for uploads .* Set TMPDIR"):
        server.make_private_folder()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    return uploads


def test_an_upload_is_opened(folder: Path) -> None:
    Image.new("RGB", (8, 4)).save(folder / "a.png")
    assert common.open_upload(str(folder / "a.png")).size == (8, 4)


@pytest.mark.parametrize("path", ["/etc/hostname", "{}/../secret.png", "secret.png", "{}/../uploads2/x.png"])
def test_a_path_outside_the_uploads_is_refused(folder: Path, path: str) -> None:
    Image.new("RGB", (8, 4)).save(folder.parent / "secret.png")
    with pytest.raises(ImageError, match="that file was not uploaded here"):
        common.open_upload(path.format(folder))


def test_a_link_out_of_the_uploads_is_refused(folder: Path) -> None:
    Image.new("RGB", (8, 4)).save(folder.parent / "secret.png")
    os.symlink(folder.parent / "secret.png", folder / "link.png")
    with pytest.raises(ImageError, match="that file was not uploaded here"):
        common.open_upload(str(folder / "link.png"))
    os.symlink(folder.parent, folder / "up")
    with pytest.raises(ImageError, match="that file was not uploaded here"):
        common.open_upload(str(folder / "up" / "secret.png"))


def test_what_is_no_picture_is_refused_without_its_folder(folder: Path) -> None:
    (folder / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    with pytest.raises(ImageError, match="SVG drawing") as refused:
        common.open_upload(str(folder / "a.svg"))
    assert str(folder) not in str(refused.value)
    (folder / f"{'d' * 60}").mkdir()
    (folder / f"{'d' * 60}" / "empty one.png").touch()  # a path of the length that Gradio's have
    with pytest.raises(ImageError, match="^'empty one.png' is empty"):
        common.open_upload(str(folder / f"{'d' * 60}" / "empty one.png"))
    (folder / "a.html").write_text("<html><script>1</script></html>")
    with pytest.raises(ImageError, match="web page"):
        common.open_upload(str(folder / "a.html"))
    with pytest.raises(ImageError, match="is gone"):
        common.open_upload(str(folder / "none.png"))
    with pytest.raises(ImageError, match="that is no file"):
        common.open_upload(str(folder))


def test_a_picture_of_200_megapixels_is_refused(folder: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(folder / "large.png")
    with pytest.raises(ImageError, match="too large to open safely|the limit is 50,000,000"):
        common.open_upload(str(folder / "large.png"))


def test_errors_are_sentences(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error, match="Out of memory. Take less") as shown, common.sentences():
        raise ResourceError("out of memory. Take less")
    assert shown.value.title == "Not enough memory"
    with pytest.raises(gr.Error, match="an error of its own") as bug, common.sentences():
        raise RuntimeError("secret detail")
    assert "secret" not in str(bug.value) and "secret detail" in caplog.text


def test_sharing_is_off_unless_asked_for_and_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    server.warn_of_sharing(options())
    assert capsys.readouterr().err == ""
    server.warn_of_sharing(options("--share"))
    said = capsys.readouterr().err
    assert "makes this page public" in said and "Ask for a password with --auth" in said
    server.warn_of_sharing(options("--share", "--auth", "ada:a"))
    assert "Ask for a password" not in capsys.readouterr().err


def test_old_files_are_swept(tmp_path: Path) -> None:
    for name, age_s in (("old.png", 7200), ("new.png", 10)):
        (tmp_path / "hash").mkdir(exist_ok=True)
        path = tmp_path / "hash" / name
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
    assert server.sweep(tmp_path, 3600) == 1
    assert [path.name for path in tmp_path.rglob("*.png")] == ["new.png"]


def test_a_file_is_kept_once_and_atomically(folder: Path) -> None:
    first = common.keep_file("a.txt", lambda path: path.write_text("x"))
    assert common.keep_file("a.txt", lambda path: path.write_text("x")) == first
    assert Path(first).is_relative_to(folder) and common.uploaded(first) == Path(first)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["a.txt"]


def test_what_is_made_while_its_visitor_leaves_ends_at_once_and_nobody_ends_what_is_not_theirs(pipe: Pipeline) -> None:
    sessions, line = common.Sessions(), Line()
    own, nameless = (gr.Request(session_hash=name) for name in ("a", None))

    async def scene() -> list[str]:
        ended = []
        for leaver in (own, nameless, gr.Request(session_hash="b")):
            for visitor in (own, nameless):
                with sessions.place(line, visitor) as place:
                    sessions.end(leaver)  # the answer is being made
                    stream = pipe.stream(Image.new("RGB", (8, 8)), "What?", max_new_tokens=1)
                    with sessions.running(visitor, stream, place):
                        async for _ in stream:
                            pass
                ended.append(stream.reply.finish_reason)
        return ended

    assert [reason == "cancelled" for reason in asyncio.run(scene())] == [True, *[False] * 5]
    assert sessions.count() == 0


SECRET_PAGE = """
import os, sys, gradio
from apps import server
with gradio.Blocks() as demo:
    gradio.Markdown("secret")
print(server.serve(demo, server.parse_arguments(sys.argv[1:], "app", "")[1]), flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_a_password_and_a_prefix_hold() -> None:
    command = [sys.executable, "-c", SECRET_PAGE, "--auth", "ada:a:b", "--root-path", "/mm"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=60) as visitor:
            assert "secret" not in visitor.get("/").text
            for route in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/hostname"):
                assert visitor.get(route).status_code == 401, route
            assert visitor.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
            assert visitor.post("/login", data={"username": "ada", "password": "a"}).status_code == 400
            assert visitor.post("/login", data={"username": "ada", "password": "a:b"}).status_code == 200
            config = visitor.get("/config").json()
            assert "secret" in str(config["components"]) and config["root"].endswith("/mm")
        process.stdin.close()
        process.wait(30)
