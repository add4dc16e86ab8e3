"""Several devices, a Ray cluster, copies by content, what runs together: the same rows as one model alone gives."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mm.captioning import Job, Task, run
from mm.captioning.batching import MOST_TOGETHER_CPU, Sweep, batch_size, engines_for
from mm.captioning.fleet import Fleet
from mm.captioning.prepare import Preparer
from mm.captioning.sinks import Parts, find_target, make_folders
from mm.captioning.sources import Item
from mm.captioning.supply import Supply
from mm.errors import MissingExtraError, OptionError, ResourceError
from mm.generation.sampling import SamplingOptions
from mm.view_cache import PromptEmbedder, ViewCache
from tests.captioning.conftest import SHORT, paint

VOLATILE = ("time", "seconds")


def lines(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


def job(source: Path, output: Path, **values: Any) -> Job:
    return Job(str(source), str(output), sampling=SHORT, max_tiles=1, batch_size=2, workers=0, **values)


def test_processes_for_devices_and_one_that_dies(do, tmp_path, monkeypatch):
    paths = paint(tmp_path / "in", 24, kinds=4)
    paths[3].write_bytes(b"broken")
    do(tmp_path / "in", tmp_path / "one.jsonl")
    hand_out, seen = Fleet._hand_out, []

    def kill_one(self: Fleet, *values: Any) -> None:
        hand_out(self, *values)
        if not seen and len(self._members) == 2 and all(member.begun for member in self._members):
            seen.append(self._members[0])
            os.kill(self._members[0]._process.pid, signal.SIGKILL)

    monkeypatch.setattr(Fleet, "_hand_out", kill_one)
    with pytest.warns(UserWarning, match="the process for the device 'cpu' ended with status -9; others take over"):
        summary = run(job(tmp_path / "in", tmp_path / "two.jsonl", devices=("cpu", "cpu")))
    assert seen and (summary.done, summary.quarantined) == (23, {"image": 1}) and 0 < summary.busy <= 1
    assert lines(tmp_path / "two.jsonl") == lines(tmp_path / "one.jsonl")


def test_the_last_process_dies(tmp_path, monkeypatch):
    paint(tmp_path / "in", 6)
    hand_out = Fleet._hand_out

    def kill(self: Fleet, *values: Any) -> None:
        hand_out(self, *values)
        self._members[0]._process.kill()

    monkeypatch.setattr(Fleet, "_hand_out", kill)
    with pytest.raises(ResourceError, match="the last process with the model.*run the same command again"):
        run(job(tmp_path / "in", tmp_path / "a.jsonl", devices=("cpu",)))


def test_a_ray_cluster_that_loses_a_node(do, tmp_path):
    """Two nodes, each with processes of its own; one is killed after the first results."""
    paths = paint(tmp_path / "in", 40, kinds=4)
    paths[5].write_bytes(b"broken")
    do(tmp_path / "in", tmp_path / "one.jsonl")
    script = [sys.executable, "-m", "tests.captioning.cluster", str(tmp_path / "in"), str(tmp_path / "ray.jsonl")]
    done = subprocess.run(script, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert 0 < told["done_when_killed"] < 39 and told["nodes_left"] == 1
    assert (told["done"], told["quarantined"]) == (39, {"image": 1})
    assert lines(tmp_path / "ray.jsonl") == lines(tmp_path / "one.jsonl")


def test_ray_is_not_installed(tmp_path, monkeypatch):
    paint(tmp_path / "in", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mm.captioning.ray_engine", raising=False)
    with pytest.raises(MissingExtraError, match=r"captioning on a cluster needs the package 'ray\[data\]'"):
        run(job(tmp_path / "in", tmp_path / "a.jsonl", engine="ray"))


def test_ray_cannot_be_joined(tmp_path):
    paint(tmp_path / "in", 1)
    script = (
        "import sys; from mm.captioning import Job, run; from mm.errors import MMError\n"
        "try: run(Job(*sys.argv[1:], engine='ray', ray_address='127.0.0.1:1'))\n"
        "except MMError as error: print(type(error).__name__, error)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "in"), str(tmp_path / "a.jsonl")]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100)
    assert "ResourceError cannot join the Ray cluster '127.0.0.1:1'" in done.stdout, done.stderr
    assert "Start one with 'ray start --head'" in done.stdout


def test_what_ray_says_is_a_sentence(capfd):
    from ray.exceptions import RayError

    from mm.captioning import ray_engine

    with pytest.raises(ResourceError, match="the Ray cluster failed: RayError. What was committed before is kept"):
        raise ray_engine._explained(RayError(""))
    with ray_engine._silence():
        os.write(2, b"[2026-11-22 22:44:34 W 1 1] gcs_client.cc:210: Failed to get cluster ID")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "spark"}, "unknown engine 'spark'. Known: local, ray"),
        ({"devices": ("cpu",), "device": "cpu"}, r"devices \(cpu\) does not go with device. Leave one of the two out"),
        ({"devices": ("cpu",), "engine": "ray"}, "does not go with the engine 'ray', which gives each actor a device"),
        ({"ray_address": "a:1"}, "are for a cluster. Use them with engine='ray'"),
        ({"actors_per_node": 0}, "actors_per_node is 0; expected a whole number of 1 or more"),
    ],
)
def test_settings_that_do_not_go_together(values, message):
    with pytest.raises(OptionError, match=message):
        Job("in", "out", **values)


def test_a_loaded_model_is_for_this_process(pipe, tmp_path):
    paint(tmp_path / "in", 1)
    with pytest.raises(OptionError, match="several devices load the model in processes of their own. Leave pipe out"):
        run(job(tmp_path / "in", tmp_path / "a.jsonl", devices=("cpu", "cpu")), pipe=pipe)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


@pytest.mark.parametrize("values", [{"device": "meta"}, {"devices": ("cpu", "meta")}])
def test_a_device_that_cannot_be_used_leaves_nothing_behind(values, tmp_path):
    paint(tmp_path / "in", 1)
    with pytest.raises(OptionError, match="device 'meta' is not supported; use auto, cpu, cuda, cuda:1 or mps"):
        run(job(tmp_path / "in", tmp_path / "deep" / "a.jsonl", **values))
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_equal_images_are_asked_once(do, tmp_path):
    paths = paint(tmp_path / "in", 6)
    for path in paths[3:]:
        path.write_bytes(paths[0].read_bytes())
    paths[4].write_bytes(b"broken")
    (tmp_path / "in" / "0006.png").write_bytes(b"broken")
    hot = SamplingOptions(max_new_tokens=3, temperature=2.0, seed=1)
    summary = do(tmp_path / "in", tmp_path / "a.jsonl", deduplicate=True, sampling=hot)
    assert (summary.done, summary.quarantined, summary.tokens) == (5, {"image": 2}, 9)
    found = {row["id"]: row for row in lines(tmp_path / "a.jsonl")}
    assert [found[f"000{number}.png"].get("copy_of") for number in (0, 3, 5)] == [None, "0000.png", "0000.png"]
    assert found["0003.png"]["text"] == found["0000.png"]["text"]
    # Later ones get the text that is there; a question that names the image is another question.
    (tmp_path / "in" / "0007.png").write_bytes(paths[0].read_bytes())
    assert do(tmp_path / "in", tmp_path / "a.jsonl", deduplicate=True, sampling=hot).tokens == 0
    assert lines(tmp_path / "a.jsonl")[-1]["copy_of"] == "0000.png"
    own = do(tmp_path / "in", tmp_path / "b.jsonl", deduplicate=True, task=Task(prompt="What is {name}?"))
    assert own.tokens == 3 * own.done


def test_lengths_that_run_together():
    sweep, lengths, order = Sweep(), [9, 3, 3, 7, 1], []
    while lengths:
        order.append(lengths.pop(sweep.choose(lengths)))
        if len(order) == 2:
            lengths.append(2)
    assert order == [1, 3, 3, 7, 9, 2]


def test_batch_size_follows_the_memory(pipe, monkeypatch, tmp_path):
    from mm.captioning import batching
    from mm.environment import Memory

    wanted = Job("in", "out", max_tiles=1, sampling=SHORT)
    assert batch_size(pipe, wanted, engines=1) == MOST_TOGETHER_CPU
    sizes = []
    for free in (4 * 10**8, 10**8, 10**6):
        monkeypatch.setattr(batching, "device_memory", lambda _, free=free: Memory(10**10, free))
        sizes.append(batch_size(pipe, wanted, engines=1))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1] == 1


def test_quantised_weights_that_are_made_wide_are_counted(monkeypatch, golden):
    from mm import Pipeline, out_of_memory
    from mm.captioning import batching
    from mm.environment import Memory
    from mm.plan import Planner, Workload

    folder = golden("deepseek_vl2_small") / "checkpoint"
    pipe = Pipeline.from_pretrained(folder, device="cpu", dtype="float32", quantization="int4", context=2048)
    wanted = Job("in", "out", max_tiles=1, sampling=SHORT)
    planner, rounded = Planner(folder), Planner(folder, "int4")
    work = Workload(max_new_tokens=wanted.sampling.max_new_tokens, batch=MOST_TOGETHER_CPU, max_tiles=1)
    needed = {
        each.quantization: work.batch * each.tokens(work) * each.cache_bytes_per_token(torch.float32)
        + each.activations(work, torch.float32, bulk=True)
        for each in (planner, rounded)
    }
    decoder = planner.config.decoder
    wide = 4 * max(2 * decoder.mlp_width, 3 * decoder.moe.expert_width) * decoder.hidden_size
    assert needed["int4"] - needed[None] == wide
    for spare, batch in ((0, MOST_TOGETHER_CPU // 2), (wide, MOST_TOGETHER_CPU)):
        free = Memory(10**12, int((needed[None] + spare) / batching.MEMORY_SHARE) + 1)
        monkeypatch.setattr(batching, "device_memory", lambda _, free=free: free)
        assert batch_size(pipe, wanted, engines=1) == batch
    # The message of a run that did not fit: on a GPU all experts of a layer are wide at once.
    monkeypatch.setattr(out_of_memory, "device_memory", lambda _: Memory(10**12, 2**40))
    huge = Workload(images=0, max_new_tokens=1, prompt_tokens=1)
    monkeypatch.setattr(Planner, "_widened", lambda self, *_: 0 if self.quantization is None else 3 * 2**30)
    said = [
        out_of_memory.run_message(folder, torch.device("cpu"), torch.float32, huge, kind).split("about ")[1][:3]
        for kind in (None, "int4")
    ]
    assert said == ["0.0", "3.0"]
    assert pipe._answering._quantization == "int4"


def test_a_decoder_of_large_codes_gets_one_engine(monkeypatch):
    """Codes are no parameters; they are read in every step all the same."""
    from torch import nn

    from mm.captioning import batching

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(batching, "cores", lambda: 2)
    model = nn.Module()
    model.decoder = nn.Module()
    assert engines_for(model, torch.device("cpu"), 100) == 2
    model.decoder.register_buffer("codes", torch.empty(128 * 2**20, dtype=torch.uint8))
    assert engines_for(model, torch.device("cpu"), 100) == 1


def test_engines_of_one_process(pipe):
    device = torch.device("cpu")
    assert engines_for(pipe.model, device, 1) == 1
    assert engines_for(pipe.model, device, 100) <= torch.get_num_threads()
    assert engines_for(pipe.model, torch.device("cuda"), 100) == 1


def test_several_engines_share_a_model(do, tmp_path, monkeypatch):
    from mm.captioning import local

    paint(tmp_path / "in", 8)
    do(tmp_path / "in", tmp_path / "one.jsonl")
    threads = torch.get_num_threads()
    monkeypatch.setattr(local, "engines_for", lambda *_: 2)
    assert do(tmp_path / "in", tmp_path / "two.jsonl").busy > 0
    assert lines(tmp_path / "one.jsonl") == lines(tmp_path / "two.jsonl") and torch.get_num_threads() == threads


def test_images_of_several_prompts_are_encoded_together(pipe, tmp_path):
    preparer = Preparer(folder=pipe.folder, task=Task(), max_tiles=2, processor=pipe.processor)
    items = [Item(id=path.name, path=str(path)) for path in paint(tmp_path / "in", 3)]
    prompts = [preparer.prepare(item).inputs for item in items]
    embedder = PromptEmbedder(pipe.model, ViewCache())
    with torch.inference_mode():
        together = embedder.many(prompts)
        assert embedder.views.num_encoded == 0
        for found, prompt in zip(together, prompts, strict=True):
            torch.testing.assert_close(found, embedder(prompt))


def test_images_that_a_cluster_was_sent_are_fetched_again_for_their_shard(tmp_path):
    data = paint(tmp_path / "in", 1)[0].read_bytes()
    supply = Supply(iter([Item(id="a", data=data)]), {"a"}, copies={}, stop=None, most_ahead=1)
    assert [(number, item.data) for number, item in supply.all()] == [(0, data)] and supply.over
    target = find_target(tmp_path / "shards", "webdataset", (1, 1))
    make_folders(target)
    row = {"id": "a", "text": "a square", "error": None}
    parts = Parts(target, lambda: iter([row]), lambda _: {"a": Item(id="a", data=data)})
    parts.apply([row], {"a": supply.pending[0]})
    parts.finish()
    with tarfile.open(target.part(0)) as tar:
        member = tar.extractfile("000000000.png")
        assert member is not None and member.read() == data
