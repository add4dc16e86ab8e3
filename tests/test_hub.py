"""Finding models: bundled, in a folder, in the cache, on a hub (a small server on this machine)."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mm.errors import CheckpointNotFoundError, OptionError
from mm.hub import bundled_models, find_autoencoder, find_checkpoint, find_config, known_names, published_configs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "deepseek_vl_v2"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"not opened here",
    "training_log.bin": b"must not be downloaded",
    "original/model.safetensors": b"nor a copy in a folder",
}


class Hub(ThreadingHTTPServer):
    """One model, 'org/model', spoken in as much of the hub's protocol as a download needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(path)
        self.server.tokens.add(self.headers.get("Authorization"))
        headers = {"X-Repo-Commit": COMMIT}
        if path in ("/api/models/org/model", "/api/models/org/model/revision/main"):
            content = json.dumps({"id": "org/model", "sha": COMMIT, "siblings": []}).encode()
            headers["Content-Type"] = "application/json"
        elif path == f"/api/models/org/model/tree/{COMMIT}":
            rows = [{"type": "file", "path": k, "size": len(v), "oid": self.etag(v)} for k, v in FILES.items()]
            content = json.dumps(rows).encode()
            headers["Content-Type"] = "application/json"
        elif path.startswith(f"/org/model/resolve/{COMMIT}/"):
            content = FILES[path.removeprefix(f"/org/model/resolve/{COMMIT}/")]
            headers["ETag"] = f'"{self.etag(content)}"'
        else:
            content = b""
            headers["X-Error-Code"] = (
                "RevisionNotFound" if path.startswith("/api/models/org/model/") else "RepoNotFound"
            )
        self.send_response(404 if "X-Error-Code" in headers else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    @staticmethod
    def etag(content: bytes) -> str:
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(code: str, cache: Path, **variables: str) -> str:
    """Runs code in a process of its own (the hub's variables are read at import); what it printed, or its MMError."""
    program = "from mm.hub import *\nfrom mm.errors import *\n"
    program += f"try:\n    {code}\nexcept MMError as e:\n    print(type(e).__name__, e)"
    env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and not k.startswith("HF_")}
    env |= {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"} | variables
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bundled_models_are_folders_of_the_package() -> None:
    models = bundled_models()
    assert "nano-vl2" in models
    found = find_checkpoint("nano-vl2")
    assert (found.source, found.folder, found.revision) == ("bundled", models["nano-vl2"], None)
    assert (found.folder / "config.json").is_file()


def test_published_configs_need_no_network() -> None:
    names = {
        name: folder for name, folder in published_configs().items() if (folder / "processor_config.json").is_file()
    }
    assert list(names) == list(published_configs())[: len(names)]  # models that see come first
    janus = [f"deepseek-ai/Janus{size}" for size in ("-1.3B", "-Pro-1B", "-Pro-7B", "Flow-1.3B")]
    vl = [f"deepseek-ai/deepseek-vl-{size}-{kind}" for size in ("1.3b", "7b") for kind in ("base", "chat")]
    assert sorted(names) == [*janus, *vl, *(f"deepseek-ai/deepseek-vl2{size}" for size in ("", "-small", "-tiny"))]
    for name, folder in names.items():
        found = find_config(name)
        assert (found.source, found.folder) == ("published config", folder)
        model_type = json.loads((folder / "config.json").read_text())["model_type"]
        assert model_type == ("multi_modality" if name in (*janus, *vl) else "deepseek_vl_v2")
        sft_format = json.loads((folder / "processor_config.json").read_text())["sft_format"]
        assert sft_format == ("deepseek_old" if name.endswith("Janus-1.3B") else "deepseek")


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_checkpoint(str(tmp_path)).source == "local"
    monkeypatch.chdir(tmp_path.parent)
    assert find_checkpoint(tmp_path.name).folder.resolve() == tmp_path
    assert find_config(f"./{tmp_path.name}").source == "local"


def test_a_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("org/model").source == "local"


def test_a_bundled_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nano-vl2").mkdir()
    (tmp_path / "nano-vl2" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("nano-vl2").source == "bundled"
    assert find_checkpoint("./nano-vl2").source == "local"


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"has no config\.json\. A model folder holds config\.json"):
        find_checkpoint(str(tmp_path))


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointNotFoundError, match="is a file. Name the folder that holds it"):
        find_checkpoint(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nano-vl3", r"no model or folder 'nano-vl3'\. Did you mean 'nano-vl2'\? Known: nano-vl2, nano-janus, "),
        ("deepseek-vl2-tiny", r"Did you mean 'deepseek-ai/deepseek-vl2-tiny'\?"),
        ("zzz", r"no model or folder 'zzz'\. Known: "),
        ("./nowhere", r"there is no folder '\./nowhere'\."),
        ("~/nowhere/at/all", r"there is no folder '~/nowhere/at/all'"),
        ("  ", r"the model name is empty\. Known: "),
        (
            "~nobody-of-this-name/model",
            r"'~nobody-of-this-name/model' is no model and no folder \(.*home.*\)\. Known: ",
        ),
        ("long" * 1000, r"'longlong[a-z]*\.\.\.' is no model and no folder \(.*too long.*\)\. Known: "),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=message):
        find_checkpoint(name)


def test_a_revision_belongs_to_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OptionError, match="'nano-vl2' is bundled, so it has no revision 'main'"):
        find_checkpoint("nano-vl2", "main")
    with pytest.raises(OptionError, match="is a folder, so it has no revision 'main'"):
        find_config(str(tmp_path), "main")


def test_known_names_start_with_the_bundled_ones() -> None:
    assert known_names()[:2] == ["nano-vl2", "nano-janus"]
    assert "deepseek-ai/deepseek-vl2-small" in known_names()


def test_bundled_local_and_published_names_do_not_import_the_hub_library() -> None:
    code = (
        "import sys, mm.hub as h; h.find_checkpoint('nano-vl2'); h.find_config('deepseek-ai/deepseek-vl2'); "
        "h.find_checkpoint(str(h.bundled_models()['nano-vl2'])); sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_download_then_offline_then_cached_list(hub: Hub, tmp_path: Path) -> None:
    show = "c = find_checkpoint('org/model'); print(c.source, c.revision, *sorted(p.name for p in c.folder.iterdir()))"
    expected = f"hub {COMMIT} config.json model.safetensors tokenizer.json"
    assert run(show, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret") == expected
    assert hub.tokens == {"Bearer hf_secret"}

    count = len(hub.requests)
    assert run(show, tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == expected
    assert len(hub.requests) == count, "HF_HUB_OFFLINE must not touch the network"
    assert run(show, tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == expected, "a cached model outlives the network"
    by_commit = show.replace("'org/model'", f"'org/model', '{COMMIT}'")
    assert run(by_commit, tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == expected
    listed = run("m = cached_models(); print(len(m), m[0].name, m[0].num_bytes, m[0].config['model_type'])", tmp_path)
    wanted = sum(len(FILES[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert listed == f"1 org/model {wanted} deepseek_vl_v2"


def test_config_only(hub: Hub, tmp_path: Path) -> None:
    code = "print(sorted(p.name for p in find_config('org/model').folder.iterdir()))"
    assert run(code, tmp_path, HF_ENDPOINT=hub.url) == "['config.json']"
    assert not any("safetensors" in path for path in hub.requests)


def test_no_network_and_not_cached(tmp_path: Path) -> None:
    message = run("find_checkpoint('org/model')", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert message.startswith("CheckpointNotFoundError org/model is not (completely) in the cache ")
    assert "http://127.0.0.1:9 cannot be reached. Either check the network" in message
    assert message.endswith("or use a bundled model: nano-vl2, nano-janus.")


def test_offline_and_not_cached(tmp_path: Path) -> None:
    message = run("find_checkpoint('org/model', 'v2')", tmp_path, HF_HUB_OFFLINE="1")
    assert message.startswith("CheckpointNotFoundError org/model at revision 'v2' is not (completely) in the cache ")
    assert "and HF_HUB_OFFLINE is set. Either unset HF_HUB_OFFLINE; or copy the model" in message


def test_a_published_name_in_other_letters(tmp_path: Path) -> None:
    message = run("find_config('deepseek-ai/DeepSeek-VL2-Tiny')", tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set. Did you mean 'deepseek-ai/deepseek-vl2-tiny'? Either unset" in message
    message = run("find_checkpoint('deepseek-ai/deepseek-vl2-tiny')", tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set. Either unset" in message


def test_the_hub_knows_no_such_model_or_revision(hub: Hub, tmp_path: Path) -> None:
    message = run("find_checkpoint('org/modell')", tmp_path, HF_ENDPOINT=hub.url)
    assert message.startswith(f"CheckpointNotFoundError {hub.url} has no model 'org/modell', or it is private.")
    message = run("find_checkpoint('org/model', 'v9')", tmp_path, HF_ENDPOINT=hub.url)
    assert message == (
        "CheckpointNotFoundError org/model has no revision 'v9'. Name one of its branches, tags or commits."
    )


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = run("find_checkpoint('org/model')", tmp_path / "file", HF_ENDPOINT=hub.url)
    assert message.startswith(f"ResourceError cannot write to the cache {tmp_path}/file/hub: ")


def test_no_cache_folder(tmp_path: Path) -> None:
    assert run("print(cached_models())", tmp_path / "none") == "[]"


def test_an_autoencoder_is_beside_the_model_or_where_it_is_named(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    for folder in (model / "vae", other):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "diffusion_pytorch_model.safetensors").touch()
    assert find_autoencoder(None, model) == model / "vae"
    assert find_autoencoder(str(other), model) == other
    (other / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        CheckpointNotFoundError, match="has no diffusion_pytorch_model.safetensors, so it is no autoencoder. Name a fol"
    ):
        find_autoencoder(str(other), None)
    with pytest.raises(CheckpointNotFoundError, match="there is no folder './gone' with an autoencoder. Name a folder"):
        find_autoencoder("./gone", model)


def test_an_autoencoder_that_is_not_to_be_had_is_named(hub: Hub, tmp_path: Path) -> None:
    message = run("find_autoencoder(None, None)", tmp_path, HF_HUB_OFFLINE="1")
    assert message.startswith(
        "CheckpointNotFoundError this model draws through an autoencoder (335 MB, downloaded apart), which is not to "
        "be had: stabilityai/sdxl-vae is not (completely) in the cache"
    )
    assert message.endswith(
        "and HF_HUB_OFFLINE is set. Fetch stabilityai/sdxl-vae once with the network, or name a folder with "
        "config.json and diffusion_pytorch_model.safetensors, such as a copy of stabilityai/sdxl-vae, or a hub id, "
        "with --vae (vae= in Python)."
    )
    message = run("find_autoencoder('org/model', None)", tmp_path, HF_ENDPOINT=hub.url)
    assert "has no diffusion_pytorch_model.safetensors, so it is no autoencoder" in message
    assert [path for path in hub.requests if "/resolve/" in path and "config" not in path] == []


def test_a_model_that_does_not_run_is_told_before_its_weights_are_downloaded(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "config.json", b'{"model_type": "gpt2"}')
    command = [sys.executable, "-m", "mm", "chat", "-m", "org/model", "hi"]
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "model_type 'gpt2', which mm does not run" in done.stderr
    assert not any(path.endswith(".safetensors") for path in hub.requests)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:  # permissions stop nobody who is root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(CheckpointNotFoundError, match="cannot be read: Permission denied. Check its permissions"):
        find_checkpoint(str(tmp_path))
