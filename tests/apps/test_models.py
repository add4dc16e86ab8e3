"""Which models an app offers, what they need, loading them, and making room."""

import threading
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from apps import models as module
from apps.models import Models
from mm.environment import Memory
from mm.errors import CheckpointNotFoundError, ContextOverflowError, OptionError, ResourceError, TaskError
from mm.pipeline import Pipeline


def test_only_models_that_can_do_the_task_are_offered(toy: Path) -> None:
    models = Models([str(toy), "nano-vl2"])
    assert "toy-janus" in models.labels("draw") and "nano-vl2" not in models.labels("draw")
    assert "nano-vl2" in models.labels("read") and "toy-janus" not in models.labels("read")
    assert {"nano-vl2", "toy-janus"} <= set(models.labels("chat"))
    assert str(toy.parent) not in str(models.labels("draw"))  # no visitor sees where it is
    assert [models.default(task) for task in ("chat", "read", "draw")] == ["toy-janus", "nano-vl2", "toy-janus"]
    assert models.lacking("draw") == ""
    with pytest.raises(CheckpointNotFoundError, match="no-such-model"):
        Models(["no-such-model"])


def test_what_is_lacking_is_a_sentence() -> None:
    said = Models(["nano-vl2"]).lacking("draw")
    assert said.startswith("nano-vl2 cannot draw. Models that can draw: ") and "Janus-Pro-7B" in said
    assert "nano-janus" in said  # which the picker offers
    models = Models()
    assert models.lacking("chat") == ""
    assert models.default("draw") == "nano-janus" and models.lacking("draw") == ""


def test_a_model_is_loaded_before_it_is_asked(toy: Path) -> None:
    models = Models([str(toy)])
    with pytest.raises(
        OptionError, match="toy-janus is not loaded. Open the page again and press Load beside its name."
    ):
        models.get("toy-janus", "draw")
    with pytest.raises(OptionError, match="unknown model '/etc'; known: toy-janus"):
        models.get("/etc", "draw")
    with pytest.raises(TaskError, match="no model is chosen"):
        models.get(None, "draw")
    told: list[str] = []
    pipe = models.load("toy-janus", told.append)
    assert told[0] == "Loading toy-janus ..." and told[-1] == "Loading toy-janus: 100 %"
    assert len({text for text in told}) > 5
    assert models.load("toy-janus") is pipe is models.get("toy-janus", "draw")
    with models.using("toy-janus", "draw") as used:
        assert used is pipe
    with pytest.raises(ContextOverflowError, match="the context of toy-janus is"), models.using("toy-janus", "chat"):
        pipe.stream(Image.new("RGB", (8, 8)), "What?", max_new_tokens=99_999)


def test_its_size_is_told_before(toy: Path) -> None:
    said = Models([str(toy)]).needs("toy-janus")
    assert " MB to read, about " in said and said.endswith(" are free.")


def test_two_who_load_it_share_it(toy: Path) -> None:
    models = Models([str(toy)])
    found: list[Pipeline] = []
    both = [threading.Thread(target=lambda: found.append(models.load("toy-janus"))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found[0] is found[1]


def test_models_that_nobody_uses_make_room(toy: Path, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models([str(toy), "nano-vl2"])
    models.load("toy-janus")
    room = iter([0, 10**12])
    monkeypatch.setattr(module, "device_memory", lambda place: Memory(10**12, next(room, 0)))
    models.load("nano-vl2")
    assert models.is_loaded("nano-vl2") and not models.is_loaded("toy-janus")
    with (
        models.using("nano-vl2", "read"),
        pytest.raises(ResourceError, match="toy-janus does not fit: .* MB to read, .* Choose a smaller model"),
    ):
        models.load("toy-janus")
    assert models.is_loaded("nano-vl2")
    mine = Models.of(pipe)
    assert mine.default("chat") == "nano-vl2" and mine.get("nano-vl2", "read") is pipe
    assert mine.lacking("draw").startswith("nano-vl2 cannot draw.")


@pytest.mark.filterwarnings("ignore")  # of the client's own libraries, in its threads
def test_every_endpoint_has_a_name_and_models_are_loaded_by_it(server: str) -> None:
    client = Client(server, verbose=False)
    named = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert set(named) == {
        *("/chat", "/load_chat_model"),
        *("/read", "/tiles", "/ask_document", "/stop_reading", "/load_reading_model"),
        *("/draw", "/cancel_drawing", "/restore", "/load_drawing_model"),
        *("/ended", "/held", "/tried"),  # of the tests
    }
    for name in ("/load_chat_model", "/load_reading_model"):
        assert "nano-vl2 · 4,096 tokens of context" in str(client.predict("nano-vl2", api_name=name))
    assert "toy-janus · 1,536 tokens of context" in str(client.predict("toy-janus", api_name="/load_drawing_model"))
    with pytest.raises(AppError, match="toy-janus"):
        client.predict("toy-janus", api_name="/load_reading_model")
    with pytest.raises(AppError, match="no-such-model"):
        client.predict("no-such-model", api_name="/load_chat_model")
