"""What a program gets that asks for another file, another address, or sends what is made to break a reader."""

import json
import time
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps.pdf_pages import render_pdf

pytestmark = pytest.mark.filterwarnings("ignore")  # of the server's own libraries, in its threads
EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = [
    str(EXAMPLES / "receipt.png"),
    "/etc/../etc/hostname.png",
    "http://127.0.0.1:9/x.png",
    "http://169.254.169.254/a.png",
    "file:///etc/hostname.png",
]


def said(server: str, endpoint: str, data: list[Any]) -> str:
    """The events of a call that names files as a program may write them."""
    event = httpx.post(f"{server}/gradio_api/call/{endpoint}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{server}/gradio_api/call/{endpoint}/{event}", timeout=60).text


def named(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("path", ELSEWHERE)
def test_no_endpoint_reads_another_file_or_address(server: str, path: str) -> None:
    calls = {
        "chat": [{"text": "What?", "files": [named(path)]}, "Ask", "", 16, 0, 1, -1, "nano-vl2"],
        "read": [[named(path)], 9, False, "nano-vl2"],
        "tiles": [[named(path)], 1, 9, "nano-vl2"],
        "ask_document": [[named(path)], 1, "What?", 9, "nano-vl2"],
        "restore": [named(path)],
    }
    for endpoint, data in calls.items():
        events = said(server, endpoint, data)
        assert "event: error" in events and "event: complete" not in events, (endpoint, events)
        assert any(part in events for part in ("not uploaded", "never downloaded")), (endpoint, events)


def events_of(server: str, name: str, count: int = 1) -> list[int]:
    """Numbers of the events whose function is called so."""
    entries = httpx.get(f"{server}/config").json()["dependencies"]
    found = [entry["id"] for entry in entries if (entry["api_name"] or "").startswith(name)]
    assert len(found) >= count, name
    return found


def completed(server: str, event: int, data: list[Any], **more: Any) -> dict[str, Any]:
    """What an event of the page answers."""
    session = f"session-{uuid4()}"
    body = {"data": data, "fn_index": event, "session_hash": session, **more}
    httpx.post(f"{server}/gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{server}/gradio_api/queue/data?session_hash={session}", timeout=30) as answer:
        for line in answer.iter_lines():
            told = json.loads(line[5:]) if line.startswith("data:") else {}
            if told.get("msg") == "process_completed":
                return dict(told["output"])
    raise AssertionError("no answer")


@pytest.mark.parametrize("path", [str(EXAMPLES / "receipt.png"), "pyproject.toml", "/etc/hostname"])
@pytest.mark.parametrize("form", ["plain", "file", "message"])
def test_a_changed_conversation_gets_no_file(server: str, path: str, form: str) -> None:
    """It lies in the visitor's browser; Gradio would hand out what it names."""
    content: Any = {
        "plain": {"path": path},
        "file": [{"type": "file", "file": {"path": path}}],
        "message": [named(path)],
    }
    saved = [[{"role": "user", "content": content[form], "metadata": None}]]
    (event,) = events_of(server, "_load_conversation")
    output = json.dumps(completed(server, event, [0, saved]))
    assert "deleted by now" in output or "not uploaded" in output
    assert "file=" not in output


def test_a_changed_conversation_builds_nothing(server: str) -> None:
    """A message may name any component of Gradio, which would read the file that it is given."""
    picture = {"path": str(EXAMPLES / "receipt.png"), "url": None, "meta": {"_type": "gradio.FileData"}}
    for value in (picture, {"path": picture["path"]}, picture["path"]):
        content = [{"type": "component", "component": "image", "value": value, "constructor_args": {}, "props": {}}]
        turns = [{"role": "user", "content": content, "metadata": None, "options": None}]
        for event in events_of(server, "_pop_last_user_message", 2):
            output = json.dumps(completed(server, event, [turns]))
            assert "file=" not in output and "base64" not in output
        (load,) = events_of(server, "_load_conversation")
        assert "file=" not in json.dumps(completed(server, load, [0, [turns]]))


@pytest.mark.parametrize("saved", [None, 7, [], [7], [[7]], [[{"role": "system", "content": "x"}]]])
def test_what_is_no_conversation_is_a_sentence(server: str, saved: Any) -> None:
    (event,) = events_of(server, "_load_conversation")
    output = completed(server, event, [0, saved])
    assert "Start a new chat" in output["error"] or "Open the page again" in output["error"]


def test_an_edited_question_that_is_not_there_is_a_sentence(server: str) -> None:
    (event,) = events_of(server, "_take_back")
    for index, value in ((9, "x"), ([0, 1], {"text": "", "files": ["/etc/hostname"]}), ("a", "x")):
        data = {"index": index, "value": value, "previous_value": ""}
        assert "not here any more" in completed(server, event, [None], event_data=data)["error"]


def test_events_of_the_page_check_what_a_browser_sends(server: str) -> None:
    """The camera's events take files as the browser names them."""
    dependencies = httpx.get(f"{server}/config").json()["dependencies"]
    events = [(entry, [name for _, name in entry["targets"]]) for entry in dependencies]
    takers = [entry for entry, names in events if "input" in names and len(entry["inputs"]) == 2]
    assert len(takers) == 2
    for number, entry in enumerate(takers):
        other: Any = {"text": "", "files": []} if number == 0 else []
        output = completed(server, entry["id"], [named(str(EXAMPLES / "receipt.png")), other])
        assert "not uploaded" in output["error"] and "data" not in output


def test_an_upload_stays_in_its_folder(server: str) -> None:
    content = (EXAMPLES / "receipt.png").read_bytes()
    (path,) = httpx.post(f"{server}/gradio_api/upload", files={"files": ("../../../evil.png", content)}).json()
    assert ".." not in path and "mm-app-" in path and path.endswith("evil.png")


def test_the_server_fetches_nothing_for_a_visitor(server: str) -> None:
    for route in ("proxy=http://169.254.169.254/latest", "file=http://127.0.0.1:9/x.png", "file=https://example.com/a"):
        answer = httpx.get(f"{server}/gradio_api/{route}", follow_redirects=False)
        assert answer.status_code >= 400, (route, answer.status_code)


def test_gradio_keeps_no_history_at_the_hub(server: str) -> None:
    """It would with the operator's own token, also for whoever comes through a proxy, and before they log in."""
    for route in ("runs", "run-history/buckets", "run-history/records?bucket=a/b"):
        assert httpx.get(f"{server}/gradio_api/{route}").status_code == 404, route


def test_a_picture_of_200_megapixels_is_refused(server: str, tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png")
    client = Client(server, verbose=False)
    file = handle_file(str(tmp_path / "large.png"))
    wanted = "too large to open safely|the limit is 50,000,000"
    with pytest.raises(AppError, match=wanted):
        client.predict({"text": "What?", "files": [file]}, api_name="/chat")
    with pytest.raises(AppError, match=wanted):
        client.predict([file], 9, False, api_name="/read")
    with pytest.raises(AppError, match=wanted):
        client.predict(file, api_name="/restore")


@pytest.mark.parametrize(("content", "message"), [("<svg/>", "SVG drawing"), ("<html></html>", "web page")])
def test_pages_of_the_web_are_no_pictures(server: str, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.png").write_text(content)
    with pytest.raises(AppError, match=message):
        Client(server, verbose=False).predict([handle_file(str(tmp_path / "a.png"))], 9, False, api_name="/read")


def write_bomb(path: Path, mib: int) -> None:
    """A PDF of a few kilobytes whose one page unfolds to so many MiB: zeros, deflated twice."""
    deflate = zlib.compressobj(9)
    head = deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    stream = zlib.compress(head + block * mib + deflate.flush(), 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R>>",
        b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    content, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 5\n0000000000 65535 f \n%strailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(content),
    )
    path.write_bytes(content + end)


def test_a_bomb_of_a_pdf_is_refused_and_the_server_goes_on(server: str, tmp_path: Path) -> None:
    write_bomb(tmp_path / "small.pdf", 8)
    (tmp_path / "out").mkdir()
    assert len(render_pdf(tmp_path / "small.pdf", tmp_path / "out")) == 1  # a good file but for its size
    write_bomb(tmp_path / "bomb.pdf", 4096)
    assert (tmp_path / "bomb.pdf").stat().st_size < 20_000
    client = Client(server, verbose=False)
    with pytest.raises(AppError, match="bomb.pdf cannot be rendered: damaged, locked or too large"):
        client.predict([handle_file(str(tmp_path / "bomb.pdf"))], 9, False, api_name="/read")
    _, said, _ = client.predict([handle_file(str(EXAMPLES / "receipt.png"))], 1, 9, api_name="/tiles")
    assert "1,357 tokens" in said


def held(server: str) -> int:
    """Places in the line that somebody has."""
    return int(httpx.post(f"{server}/gradio_api/run/held", json={"data": []}).json()["data"][0])


def test_one_waits_in_line_while_two_run(server: str) -> None:
    """Twenty wait, each is told its place, the page stays quick, and the next one is told to come back."""
    client = Client(server, verbose=False)
    image = handle_file(str(EXAMPLES / "receipt.png"))
    message = {"text": "What is the total?", "files": [image]}
    deadline = time.monotonic() + 30
    while held(server):
        assert time.monotonic() < deadline, "somebody who is gone keeps a place in the line"
        time.sleep(0.1)
    holders = [Client(server, verbose=False) for _ in range(2)]
    for holder in holders:  # which take longer than this test waits for them
        holder.submit("a red circle", 1, seed=1, best_of=32, model="nano-janus", api_name="/draw")
    while held(server) < 2:  # otherwise a question comes first, and does not wait
        assert time.monotonic() < deadline, "the drawings do not begin"
        time.sleep(0.05)
    waiting = [
        client.submit({"text": "Total?", "files": [image]}, max_new_tokens=1, api_name="/chat") for _ in range(20)
    ]
    ends = {"Waiting: place 1 of 20 in the queue.", "Waiting: place 20 of 20 in the queue."}
    places: set[str] = set()
    slowest = 0.0
    while not ends <= places:
        slowest = max(slowest, httpx.get(server, timeout=30).elapsed.total_seconds())
        for job in waiting:
            assert not job.done(), job.outputs() or job.exception()
            places |= {str(turns[0]["content"]) for turns, _ in job.outputs() if "Waiting" in str(turns)}
    assert slowest < 3
    with pytest.raises(AppError, match="The queue is full: 20 wait already"):
        client.predict(message, api_name="/chat")
    for holder in holders:
        holder.predict(api_name="/cancel_drawing")
    for job in waiting:
        assert job.result(120)[1]["finish_reason"] in ("length", "stop")
