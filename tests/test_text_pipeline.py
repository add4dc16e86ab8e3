"""Language models behind the pipeline and the command line: chat, completion, gaps, reasoning, and no images."""

import asyncio
import json
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mm import Pipeline
from mm.cli.app import app
from mm.cli.chat import write_stream
from mm.errors import ConfigError, ContextOverflowError, OptionError, PromptError, TaskError
from mm.families.table import load_processor
from mm.reply import TextStream
from tests.tiny_text import CONFIGS, random_tensors, raw_config, write_checkpoint, write_tokenizer, write_weights

TOKENS = ("<think>", "</think>", "<｜User｜>", "<｜Assistant｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
END = "<｜end▁of▁sentence｜>"
V3 = "{{ '<｜User｜>' + m['content'] }}{{ '<｜Assistant｜>' + m['content'] }}"
R1 = V3 + "{% set content = content.split('</think>')[-1] %}{{ '<｜Assistant｜><think>\\n' }}"


@pytest.fixture(scope="module")
def folder(golden: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def write(kind: str, jinja: str | None = V3, name: str = "model") -> Path:
        target = write_checkpoint(tmp_path_factory.mktemp(kind) / name, kind)
        source = golden("deepseek_vl2_tiny") / "checkpoint"
        write_tokenizer(source, target, tokens=TOKENS, eos=END, jinja=jinja)
        return target

    return write


@pytest.fixture(scope="module")
def pipe(folder: Callable[..., Path]) -> Pipeline:
    return Pipeline.from_pretrained(folder("v3"), device="cpu")


def greedy(pipe: Pipeline, ids: list[int], steps: int) -> list[int]:
    """Tokens of the plain loop, without a cache."""
    decoder = pipe.model.decoder
    with torch.inference_mode():
        for _ in range(steps):
            hidden = decoder(decoder.embed(torch.tensor([ids])))
            ids = [*ids, int(decoder.logits(hidden[0, -1]).argmax())]
    return ids[-steps:]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_every_architecture_chats(kind: str, folder: Callable[..., Path]) -> None:
    pipe = Pipeline.from_pretrained(folder(kind), device="cpu")
    questions = ["Hi", "A longer question than the first one?"]
    alone = [pipe.chat(None, question, max_new_tokens=6) for question in questions]
    for question, reply in zip(questions, alone, strict=True):
        prompt = pipe.processor.process_prompt(question, [], apply_template=True, special=frozenset())
        assert list(reply.token_ids) == greedy(pipe, prompt.input_ids.tolist(), 6)
        assert reply.reasoning is None and reply.usage.image_tokens == 0
    together = pipe.chat_batch([(None, question) for question in questions], max_new_tokens=6)
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]


def test_completion_is_the_text_going_on(pipe: Pipeline) -> None:
    prompt = f"Once upon a time <｜User｜> {END}"
    reply = pipe.complete(prompt, max_new_tokens=8)
    ids = pipe.processor.process_prompt(prompt, [], apply_template=False, special=frozenset()).input_ids.tolist()
    assert list(reply.token_ids) == greedy(pipe, ids, 8)
    assert "".join(pipe.stream_completion(prompt, max_new_tokens=8)) == reply.text
    every = pipe.complete(prompt, max_new_tokens=8, special_tokens="all")
    assert every.usage.prompt_tokens < reply.usage.prompt_tokens
    filled = pipe.complete("def f(x):", suffix="return y", max_new_tokens=4)
    ids = pipe.processor.process_infill("def f(x):", "return y").input_ids.tolist()
    assert list(filled.token_ids) == greedy(pipe, ids, 4)


def test_completion_refuses_before_any_work(pipe: Pipeline) -> None:
    with pytest.raises(OptionError, match="system belongs to a chat; a completion has no system prompt"):
        pipe.complete("x", system="Be brief.")
    with pytest.raises(PromptError, match="the prompt must be a string, got int"):
        pipe.complete(7)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the suffix must be a string, got bytes"):
        pipe.complete("x", suffix=b"y")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the prompt is empty"):
        pipe.complete(" ")
    with pytest.raises(ContextOverflowError, match="but the context of .* is 256 tokens"):
        pipe.complete("word " * 400)
    with pytest.raises(OptionError, match="max_tiles is 3, but this model takes no images"):
        pipe.complete("x", max_tiles=3)


def test_images_name_the_models_that_see(pipe: Pipeline, tmp_path: Path) -> None:
    message = "reads text only and takes no image. .* choose a model that sees: nano-vl2, .*deepseek-vl2-tiny"
    missing = tmp_path / "never-opened.png"
    for run in (
        lambda: pipe.chat(missing, "What?"),
        lambda: pipe.complete("x", images=missing),
        lambda: pipe.ocr(missing),
        lambda: pipe.caption(missing),
        lambda: pipe.chat(messages=[{"role": "user", "content": "<image>\nWhat?", "images": [missing]}]),
    ):
        with pytest.raises(TaskError, match=message) as error:
            run()
        assert "deepseek-llm" not in str(error.value)
    with pytest.raises(TaskError, match="no generation side"):
        pipe.generate_images("a cat")


@pytest.fixture
def scripted(folder: Callable[..., Path]) -> Callable[[str], Pipeline]:
    """A model whose weights are a chain: after the last token of a prompt it writes this text, and ends. No token may
    be in it twice."""

    def build(text: str) -> Pipeline:
        path = folder("llm", R1)
        processor = load_processor(path)
        prompt = processor.process_prompt("Why?", [], apply_template=True, special=frozenset())
        assert prompt.reasoning == "begun"
        script = processor.tokenizer.encode(text, frozenset(TOKENS))
        chain = [int(prompt.input_ids[-1]), *script, processor.tokenizer.eos_id]
        assert len(set(chain)) == len(chain)
        tensors = random_tensors(raw_config("llm"))
        for name in tensors:
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                tensors[name].zero_()  # what stands in the sequence before makes no difference
        embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"].zero_()
        tensors["model.norm.weight"].fill_(1.0)
        for token, following in pairwise(chain):
            head[following] = embedding[token]
        write_weights(path, raw_config("llm"), tensors)
        return Pipeline.from_pretrained(path, device="cpu")

    return build


def test_reasoning_is_apart(scripted: Callable[[str], Pipeline]) -> None:
    stream = scripted("First two </think> It is five.").stream(None, "Why?")
    parts = list(stream.parts())
    reply = stream.reply
    assert (reply.reasoning, reply.text, reply.finish_reason) == ("First two", "It is five.", "stop")
    assert reply.raw_text == "First two </think> It is five."
    assert "".join(text for kind, text in parts if kind == "reasoning") == reply.reasoning
    assert "".join(text for kind, text in parts if kind == "answer") == reply.text


def test_streams_are_the_answer_alone(scripted: Callable[[str], Pipeline]) -> None:
    pipe = scripted("Hm</think>Yes, it is.")
    stream = pipe.stream(None, "Why?")
    assert "".join(stream) == stream.reply.text == "Yes, it is."

    async def read(stream: TextStream) -> str:
        return "".join([piece async for piece in stream])

    stream = pipe.stream(None, "Why?")
    assert asyncio.run(read(stream)) == "Yes, it is."
    assert stream.reply.reasoning == "Hm"


def test_reasoning_that_is_cut_off_is_no_answer(scripted: Callable[[str], Pipeline]) -> None:
    reply = scripted("First two, then more").chat(None, "Why?", max_new_tokens=3)
    assert reply.text == "" and reply.reasoning and reply.finish_reason == "length"


def test_a_base_checkpoint_completes(folder: Callable[..., Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base = Pipeline.from_pretrained(folder("coder", None, "deepseek-coder-1.3b-base"), device="cpu")
        assert base.complete("def f(", max_new_tokens=3).usage.completion_tokens == 3
        with pytest.raises(TaskError, match="hold no chat template: it is a base model"):
            base.chat(None, "Hi")
    same_files = Pipeline.from_pretrained(folder("v3", V3, "DeepSeek-V3-Base"), device="cpu")
    with pytest.warns(UserWarning, match="DeepSeek-V3-Base is a base checkpoint, which continues text"):
        same_files.chat(None, "Hi", max_new_tokens=2)


def test_a_base_checkpoint_that_sees_completes_text_behind_pictures(
    golden: Callable[[str], Path], tmp_path: Path
) -> None:
    """Base and chat checkpoints of DeepSeek-VL are published with the same files: the name says which it is."""
    source, target = golden("deepseek_vl_single") / "checkpoint", tmp_path / "deepseek-vl-1.3b-base"
    shutil.copytree(source, target)
    base = Pipeline.from_pretrained(target, device="cpu")
    picture = Image.new("RGB", (40, 30), "red")
    reply = base.complete("A photo of", images=picture, max_new_tokens=3)
    tagged = base.complete("<image_placeholder>\nA photo of", images=[picture], max_new_tokens=3)
    assert reply.token_ids == tagged.token_ids and reply.usage.image_tokens == tagged.usage.image_tokens > 0
    text = base.processor.tokenizer.encode("\nA photo of")
    assert reply.usage.prompt_tokens - reply.usage.image_tokens == 1 + len(text)  # the begin token, and no template
    with pytest.warns(UserWarning, match="deepseek-vl-1.3b-base is a base checkpoint"):
        base.chat(picture, "What?", max_new_tokens=1)
    with pytest.raises(TaskError, match="was not trained to fill a gap between two texts"):
        base.complete("a", suffix="b")
    with pytest.raises(PromptError, match="a gap between two texts is filled without images"):
        base.complete("a", suffix="b", images=picture)
    with pytest.raises(PromptError, match="2 <image_placeholder> tags but 1 image"):
        base.complete("<image_placeholder><image_placeholder>", images=picture)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, [*words])


def test_the_command_line(folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(folder("v2-lite"))
    pipe = Pipeline.from_pretrained(model, device="cpu")
    expected = pipe.complete("def f(x):\n    \n    return y", max_new_tokens=5).text
    file = tmp_path / "f.py"
    file.write_text("def f(x):\n    \n    return y")
    shared = ["--model", model, "--device", "cpu", "--max-new-tokens", "5"]
    assert run("complete", "--file", str(file), *shared).stdout == expected + "\n"
    gap = pipe.complete("def f(x):\n    ", suffix="\n    return y", max_new_tokens=5)
    file.write_text("def f(x):\n    GAP\n    return y")
    assert run("complete", "--file", str(file), "--gap", "GAP", *shared).stdout == gap.text + "\n"
    done = run("complete", "def f(x):\n    ", "--suffix", "\n    return y", "--json", *shared)
    assert json.loads(done.stdout)["schema"] == "mm.complete/1"
    assert json.loads(done.stdout)["text"] == gap.text and "reasoning" not in json.loads(done.stdout)
    assert CliRunner().invoke(app, ["complete", "-", *shared], input="Once").exit_code == 0
    chatted = run("chat", "Hi", *shared)
    assert chatted.stdout == pipe.chat(None, "Hi", max_new_tokens=5).text + "\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["complete"], 2, "give the text itself"),
        (["complete", "x", "--file", "y"], 2, "give the text itself"),
        (["complete", "x", "--suffix", "y", "--gap", "z"], 2, "give --suffix or --gap"),
        (["complete", "a b a", "--gap", "a"], 1, "--gap 'a' stands 2 times in the text; expected once"),
        (["complete", "a", "--gap", ""], 1, "--gap '' stands 0 times in the text"),
        (["complete", "--file", "/nowhere/x"], 1, "cannot read '/nowhere/x': No such file"),
        (["complete", " "], 1, "the text is empty. Write what the model is to continue"),
        (["complete", "x", "--top-p", "7"], 2, "--top-p"),
        (["plan", "deepseek-ai/DeepSeek-V3", "--images", "2"], 1, "reads text only and takes no image"),
    ],
)
def test_what_the_command_line_refuses(words: list[str], status: int, message: str) -> None:
    done = run(*words)
    assert done.exit_code == status
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_an_image_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    for words in (["chat", str(picture), "What?"], ["ocr", str(picture)], ["complete", "x", "--image", str(picture)]):
        done = run(*words, "--model", "deepseek-ai/DeepSeek-R1")
        assert done.exit_code == 1 and "DeepSeek-R1 reads text only and takes no image" in done.stderr


def test_reasoning_goes_to_standard_error(
    scripted: Callable[[str], Pipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    write_stream(scripted("Hm. </think> Yes, sir").stream(None, "Why?"))
    out, err = capsys.readouterr()
    assert (out, err) == ("Yes, sir\n", "Hm.\n\n")


def test_plans_of_published_language_models() -> None:
    done = run("plan", "deepseek-ai/DeepSeek-V3", "--device", "cpu", "--json")
    plan = json.loads(done.stdout)
    assert plan["parameters"]["total"] == 671_026_419_200 and plan["image_tokens"] == 0
    assert plan["download_bytes"] == pytest.approx(688.6e9, rel=1e-3)
    small = json.loads(run("plan", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "--device", "cpu", "--json").stdout)
    assert small["download_bytes"] == 2 * 1_777_088_000 and small["peak"]["views"] == 0


def test_a_vocabulary_smaller_than_the_tokenizers(folder: Callable[..., Path], tmp_path: Path) -> None:
    source = folder("llm")
    target = write_weights(tmp_path / "model", raw_config("llm") | {"vocab_size": 64}, {})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((source / name).read_bytes())
    with pytest.raises(ConfigError, match="the tokenizer has ids up to 1414 .* but vocab_size is 64"):
        Pipeline.from_pretrained(target, device="cpu")
