"""The chat page: its endpoint, its conversations, and what hostile requests get."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps import answers, chat, conversation
from mm.chat import Message, TextPart, user_message
from mm.errors import ContextOverflowError, InputError
from mm.grounding import Box
from mm.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore")  # of the server's own libraries, in its threads
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def client(server: str) -> Client:
    return Client(server, verbose=False)


def ask(client: Client, text: str, *images: str, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    files = [handle_file(str(EXAMPLES / name)) for name in images]
    turns, data = client.predict({"text": text, "files": files}, **options, api_name="/chat")
    return turns, data


def test_several_questions_about_one_image(client: Client) -> None:
    turns, data = ask(client, "What is the total?", "receipt.png")
    assert turns[0]["content"] == data["text"] == "19.10"
    assert "tokens in" in turns[1]["metadata"]["title"] and "first after" in turns[1]["metadata"]["title"]
    _, data = ask(client, "What is the date?")
    assert data["text"] == "2026-03-14"
    assert data["usage"]["image_tokens"] == 1357
    turns, data = ask(client, "the total", task=conversation.FIND)
    (box,) = data["boxes"]
    assert box["valid"] and box["image_index"] == 0
    assert Image.open(turns[1]["content"]).size == Image.open(EXAMPLES / "receipt.png").size
    assert "| the total | 1 | " in turns[2]["content"]


def test_a_field_may_be_empty(client: Client) -> None:
    _, data = ask(client, "What is the total?", "receipt.png", seed=None, system=None)
    assert data["text"] == "19.10"


def test_a_box_is_drawn_on_its_image(client: Client) -> None:
    turns, data = ask(client, "the red circle", "receipt.png", "scene.png", task=conversation.FIND)
    assert [box["image_index"] for box in data["boxes"]] == [1]
    assert Image.open(turns[1]["content"]).size == Image.open(EXAMPLES / "scene.png").size
    assert "| the red circle | 2 | " in turns[2]["content"]


def test_two_visitors_do_not_see_each_other(server: str) -> None:
    first, second = Client(server, verbose=False), Client(server, verbose=False)
    ask(first, "What is the total?", "receipt.png")
    with pytest.raises(AppError, match="trained with pictures only"):
        ask(second, "What is the date?")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "Nothing is asked"),
        ("What?", {"task": "steal"}, "steal"),
        ("What?", {"temperature": -1}, "-1"),
        ("What?", {"max_new_tokens": 99_999}, "99999"),
    ],
)
def test_a_mistake_is_a_sentence(client: Client, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=message) as shown:
        ask(client, text, "receipt.png", **options)
    assert "Traceback" not in str(shown.value)


def hostile(server: str, path: str) -> str:
    """What a program gets that names a file without uploading it."""
    message = {"text": "What?", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    body = {"data": [message, conversation.ASK, "", 16, 0, 1, -1, "nano-vl2"]}
    event = httpx.post(f"{server}/gradio_api/call/chat", json=body).json()["event_id"]
    return httpx.get(f"{server}/gradio_api/call/chat/{event}", timeout=30).text


@pytest.mark.parametrize(
    "path",
    [
        str(EXAMPLES / "receipt.png"),
        "/etc/../etc/hostname.png",
        "http://127.0.0.1:9/x.png",
        "http://169.254.169.254/a.png",
        "https://example.com/a.png",
        "file:///etc/hostname.png",
    ],
)
def test_the_server_reads_no_other_file_and_no_address(server: str, path: str) -> None:
    said = hostile(server, path)
    assert "event: error" in said and "event: complete" not in said
    assert any(part in said for part in ("not uploaded", "never downloaded")), said


def test_files_of_the_machine_are_not_served(server: str) -> None:
    for path in ("/etc/hostname", str(EXAMPLES / "receipt.png"), "../../etc/hostname", str(Path(chat.__file__))):
        answer = httpx.get(f"{server}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_uploads_that_are_no_pictures(client: Client, tmp_path: Path) -> None:
    bad = tmp_path / "a.png"
    bad.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    with pytest.raises(AppError, match="SVG drawing"):
        client.predict({"text": "What?", "files": [handle_file(str(bad))]}, api_name="/chat")
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(3 * 2**20))
    with pytest.raises((AppError, ValueError, httpx.HTTPError)):
        client.predict({"text": "What?", "files": [handle_file(str(large))]}, api_name="/chat")


def test_an_uploaded_page_is_not_shown_by_the_browser(server: str, tmp_path: Path) -> None:
    for name, content in (("a.svg", b"<svg/>"), ("a.html", b"<html></html>")):
        (path,) = httpx.post(f"{server}/gradio_api/upload", files={"files": (name, content)}).json()
        answer = httpx.get(f"{server}/gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment"), name


def test_a_closed_tab_ends_its_answer(server: str) -> None:
    client = Client(server, verbose=False)
    fn = next(d["id"] for d in client.config["dependencies"] if d["api_name"] == "chat")
    (path,) = httpx.post(
        f"{server}/gradio_api/upload",
        files={"files": ("r.png", (EXAMPLES / "receipt.png").read_bytes())},
    ).json()
    message = {"text": "Read all the text.", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    data = [message, None, conversation.ASK, "", 2048, 2.0, 1, 1, "nano-vl2"]  # so hot that it does not end by itself
    before = client.predict(api_name="/ended")
    body = {"data": data, "fn_index": fn, "session_hash": "closing"}
    httpx.post(f"{server}/gradio_api/queue/join", json=body).raise_for_status()
    pieces = 0
    url = f"{server}/gradio_api/queue/data?session_hash=closing"
    with httpx.stream("GET", url, timeout=30) as events:
        for line in events.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_generating":
                pieces += 1
                if pieces == 3:
                    break
    deadline = time.monotonic() + 5
    while client.predict(api_name="/ended") == before:
        assert time.monotonic() < deadline, "the answer goes on after its reader is gone"
        time.sleep(0.05)


def test_history_becomes_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file = {"type": "file", "file": {"path": str(tmp_path / "a.png")}}
    history = [
        {"role": "user", "content": [{"type": "text", "text": "lost: no answer came"}]},
        {"role": "user", "content": [file, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A box."}]},
        {"role": "assistant", "content": [file]},
        {"role": "assistant", "content": "note", "metadata": {"title": "12 tokens"}},
    ]
    turns = conversation.conversation(history, {"text": "<image> is text", "files": []})
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert len(turns[0].images) == 1 and not turns[2].images
    assert turns[1].parts == (TextPart("A box."),)
    with pytest.raises(InputError, match="no image to search"):
        conversation.conversation([], {"text": "the cat", "files": []}, conversation.FIND)


def test_the_pictures_of_a_conversation_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(conversation, "MOST_PIXELS", 100)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    message = {"text": "What?", "files": [str(tmp_path / "a.png")] * 2}
    with pytest.raises(InputError, match="more than 100 pixels together. Send smaller ones, or start a new chat"):
        conversation.conversation([], message)


def test_a_reopened_conversation_says_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    gone = {"role": "user", "content": [{"type": "file", "file": {"path": str(tmp_path / "gone.png")}}, "What?"]}
    assert conversation.reopened([gone]) == [{"role": "user", "content": [conversation.LOST, "What?"]}]


def test_saved_conversations_are_opened_by_the_next_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the browser keeps is named and closed the same at each start, and holds no file of Gradio, whose place it
    would check before it hands over anything."""
    components = httpx.get(f"{server}/config").json()["components"]
    (store,) = (part["props"] for part in components if part["type"] == "browserstate")
    assert store["storage_key"] == store["secret"] == "mm-conversations"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = {"path": "/tmp/of another server/a.png", "meta": {"_type": "gradio.FileData"}}
    asked = {"role": "user", "content": [{"type": "file", "file": picture}, {"type": "text", "text": "What?"}]}
    saved = conversation.for_browser([asked])
    assert "meta" not in json.dumps(saved[0]["content"]) and picture["path"] in json.dumps(saved)
    assert conversation.reopened(saved) == [{"role": "user", "content": [conversation.LOST, "What?"]}]


def test_saved_conversations_are_named_in_words() -> None:
    title = conversation.Chat._generate_chat_title
    picture = {"type": "file", "file": {"path": "a.png"}}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "What is the total?"}]}
    assert title(None, [{"role": "user", "content": [picture]}, asked]) == "What is the total?"
    assert title(None, [{"role": "user", "content": [picture]}]) == "Pictures"
    assert len(title(None, [{"role": "user", "content": "x" * 99}])) == 40


def test_the_oldest_question_goes_first(pipe: Pipeline) -> None:
    receipt = Image.open(EXAMPLES / "receipt.png").convert("RGB")
    turns = []
    for _ in range(2):
        turns += [user_message("What is the total?", [receipt]), Message("assistant", (TextPart("19.10"),))]
    turns.append(user_message("What is the date?" + " again" * 300, []))
    stream, dropped = chat.fitting_stream(pipe, turns, {"max_new_tokens": 1})
    stream.cancel()
    assert dropped == 1
    turns[-1] = user_message("What is the date?" + " again" * 3000, [])
    with pytest.raises(ContextOverflowError, match="Shorten"):
        chat.fitting_stream(pipe, turns, {})


def test_notices_and_tables() -> None:
    assert answers.context_notice(100, 4096, 0) == ""
    assert "3,500 of 4,096 tokens" in answers.context_notice(3500, 4096, 0)
    assert "the oldest question and its answer were left out" in answers.context_notice(100, 4096, 1)
    box = Box("a|<b>", None, None, 0, False, "3 numbers where 4 are needed", "[1,2,3]")
    assert "a&#124;&#60;b&#62;" in answers.box_table([box]) and "not valid: 3 numbers" in answers.box_table([box])
