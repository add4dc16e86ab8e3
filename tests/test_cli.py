"""The command line: what each command prints, where, and with which exit status."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mm.cli.app import app
from mm.cli.loading import check_images
from mm.errors import ImageError
from mm.evaluation.metrics import Interval
from mm.evaluation.report import Report, Row

ROOT = Path(__file__).parent.parent
RECEIPT = str(ROOT / "examples" / "receipt.png")
FORM = str(ROOT / "examples" / "form.png")


class Result:
    """Exit status, standard output, standard error."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def invoke(*words: str, stdin: str | None = None) -> Result:
    """The command in this process."""
    result = CliRunner().invoke(app, list(words), input=stdin, prog_name="mm")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def spawn(*words: str, stdin: str = "", cwd: Path | None = None, **variables: str) -> Result:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mm", *words],
        input=stdin,
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def model(golden: Callable[[str], Path]) -> str:
    """A small model with random weights in the published layout."""
    return str(golden("deepseek_vl2_tiny") / "checkpoint")


def fails(result: Result, *parts: str, status: int = 1) -> None:
    """An expected error: one line on standard error, nothing on standard output."""
    assert result.status == status
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err


def test_help_lists_every_command_and_imports_little() -> None:
    code = (
        "import sys\nsys.argv = ['mm', '--help']\nfrom mm.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    status = e.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'huggingface_hub', 'tokenizers', 'gradio'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy), status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    for name in ("chat", "ocr", "caption", "ground", "draw", "models", "plan", "env", "verify", "eval", "train"):
        assert f" {name} " in done.stdout
    assert "chat, ocr or draw" in done.stdout  # brackets would be markup, and vanish
    assert "heavy [] 0" in done.stdout


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_every_command_has_help_and_explains_its_options(name: str) -> None:
    result = invoke(name, "--help")
    assert result.status == 0
    assert "usage: mm" in result.out.lower()


def test_version() -> None:
    assert invoke("--version").out.startswith("mm 0.")


@pytest.mark.parametrize("words", [["--nope"], ["nope"], ["chat", "--nope"], ["ocr"], ["plan", "--batch", "0"]])
def test_wrong_usage_has_status_2(words: list[str]) -> None:
    result = invoke(*words)
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err


def test_chat_streams_the_answer(model: str) -> None:
    result = invoke("chat", "-m", model, RECEIPT, "What is the total?", "--max-new-tokens", "6")
    assert result.status == 0
    assert result.out.endswith("\n")
    assert len(result.out.strip()) > 3
    assert result.err == "warning: the answer stops at the token limit; --max-new-tokens raises it\n"


def test_chat_equals_the_pipeline(model: str) -> None:
    from mm.pipeline import Pipeline

    words = ["chat", "-m", model, RECEIPT, FORM, "What differs?", "--max-new-tokens", "8", "--json"]
    options = ["--temperature", "0.9", "--top-p", "0.8", "--top-k", "50", "--seed", "7", "--system", "Be brief."]
    result = json.loads(invoke(*words, *options, "--max-tiles", "2").out)
    reply = Pipeline.from_pretrained(model).chat(
        [RECEIPT, FORM],
        "What differs?",
        max_new_tokens=8,
        temperature=0.9,
        top_p=0.8,
        top_k=50,
        seed=7,
        system="Be brief.",
        max_tiles=2,
    )
    assert (result["text"], result["finish_reason"]) == (reply.text, reply.finish_reason)
    assert result["usage"]["image_tokens"] == reply.usage.image_tokens > 0


def test_chat_reads_the_question_from_standard_input(model: str) -> None:
    piped = invoke("chat", "-m", model, RECEIPT, "-", "--max-new-tokens", "4", stdin="What is the total?")
    typed = invoke("chat", "-m", model, RECEIPT, "What is the total?", "--max-new-tokens", "4")
    named = invoke("chat", "-m", model, RECEIPT, "-q", "What is the total?", "--max-new-tokens", "4")
    assert piped.out == typed.out == named.out
    fails(invoke("chat", "-m", model, "-", stdin=" \n"), "standard input was empty")


def test_a_missing_image_never_becomes_the_question(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "receipt.png").write_bytes(Path(RECEIPT).read_bytes())
    fails(invoke("chat", "-m", model, "recipt.png"), "no file 'recipt.png'. Did you mean 'receipt.png'?", "--question")
    fails(invoke("chat", "-m", model, "/no/such/photo"), "there is no file '/no/such/photo'")
    fails(invoke("chat", "-m", model, "nope.png", "What is this?"), "there is no file 'nope.png'")
    fails(
        invoke("chat", "-m", model, "receipt.png", "What", "is it?"), "no file 'What'. The question comes last; put it"
    )
    fails(invoke("chat", "-m", model, "my photo.JPG"), "there is no file 'my photo.JPG'")


@pytest.mark.parametrize("question", ["What is 2 + 2?", "Describe.", "and/or", "v1.5 or v2?", "x" * 5000])
def test_a_question_alone_is_a_question(question: str) -> None:
    from mm.cli.prompts import Prompt, split_words

    assert split_words([question], None) == Prompt((), question)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["chat", RECEIPT, ""], ["the question is empty"]),
        (["chat", str(ROOT), "What?"], ["folder"]),
        (["chat", str(ROOT / "pyproject.toml"), "What?"], ["not an image"]),
        (["chat", "https://example.org/a.png", "What?"], ["URL"]),
        (["ocr", "nowhere.png"], ["nowhere.png"]),
        (["chat", "hi", "--model", "nano-vl3"], ["Did you mean 'nano-vl2'?"]),
        (["chat", "hi", "--model", "./none"], ["there is no folder './none'"]),
        (["plan", "nano-vl3"], ["Did you mean 'nano-vl2'?"]),
        (["plan", "--context", "10"], ["do not fit a context of 10"]),
        (["verify", "/nowhere"], ["/nowhere is not a folder"]),
        (["train", "/nowhere.yaml", "--out", "out"], ["/nowhere.yaml"]),
    ],
)
def test_mistakes_are_one_line(words: list[str], parts: list[str]) -> None:
    fails(invoke(*words), *parts)


@pytest.mark.parametrize("option", ["--temperature=-1", "--top-p=2", "--top-p=0", "--top-k=-1", "--special-tokens=no"])
def test_options_out_of_range_have_status_2(option: str) -> None:
    result = invoke("chat", "hi", option)
    assert (result.status, result.out) == (2, "")


def test_mistakes_that_need_a_model(model: str) -> None:
    fails(invoke("chat", "-m", model, "hi", "--dtype", "int3"), "dtype 'int3' is unknown", status=2)
    fails(invoke("chat", "-m", model, "hi", "--device", "tpu"), "device 'tpu'", status=2)
    said = "'nano-vl2' is bundled, so it has no revision 'main'"
    fails(invoke("chat", "hi", "--revision", "main"), said, status=2)
    fails(invoke("chat", "-m", model, RECEIPT, "hi", "--context", "50"), "but the context of", "is 50 tokens")


def test_special_tokens_of_a_question_are_text_where_asked(model: str) -> None:
    def tokens(*options: str) -> int:
        words = ["chat", "-m", model, "-q", "a <|ref|> b", "--max-new-tokens", "1", "--json", *options]
        return int(json.loads(invoke(*words).out)["usage"]["prompt_tokens"])

    assert tokens() == tokens("--special-tokens", "all") < tokens("--special-tokens", "none")


def test_a_model_of_pictures_says_so_when_there_is_none(golden: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden("deepseek_vl2_tiny") / "checkpoint", tmp_path / "model"))
    words = ["chat", "-m", str(folder), "hi", "--max-new-tokens", "1"]
    assert invoke(*words).status == 0
    (folder / "generation_config.json").write_text('{"eos_token_id": 1, "needs_image": true}')
    fails(invoke(*words), f"error: {folder} was trained with pictures only: it answers questions about an image")
    assert invoke("chat", "-m", str(folder), RECEIPT, "hi", "--max-new-tokens", "1").status == 0
    (folder / "generation_config.json").write_text('{"needs_image": "yes"}')
    fails(invoke(*words), "generation_config.json has needs_image 'yes'; expected true or false.")


def test_a_model_of_pictures_says_that_it_completes_no_text(golden: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden("deepseek_vl2_tiny") / "checkpoint", tmp_path / "model"))
    words = ["complete", "Once", "-m", str(folder), "--max-new-tokens", "1"]
    note = f"{folder} was trained with pictures and conversations only, and continues no raw text well. Use 'mm chat'"
    assert "trained" not in invoke(*words).err
    (folder / "generation_config.json").write_text('{"needs_image": true}')
    told = invoke(*words)
    assert told.status == 0 and told.err.startswith(note) and told.err.splitlines()[0].endswith("or another model.")
    assert json.loads(invoke(*words, "--json").out)["finish_reason"] == "length"


def test_the_bundled_model_is_one_of_pictures() -> None:
    from mm.hub import find_config

    assert json.loads((find_config("nano-vl2").folder / "generation_config.json").read_text()) == {"needs_image": True}


def test_json_needs_a_question() -> None:
    assert invoke("chat", RECEIPT, "--json").status == 2


def test_ocr_prints_plain_text(model: str) -> None:
    result = invoke("ocr", RECEIPT, "-m", model, "--max-new-tokens", "5", "--max-tiles", "1")
    assert result.status == 0
    document = json.loads(
        invoke("ocr", RECEIPT, "-m", model, "--max-new-tokens", "5", "--max-tiles", "1", "--json").out
    )
    assert result.out == document["text"] + "\n"
    assert document["lines"] == [line.strip() for line in document["text"].splitlines() if line.strip()]


def test_ground_draws(model: str, tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "drawn.png"
    result = invoke(
        "ground", FORM, "the city", "-m", model, "--max-new-tokens", "40", "--constrain", "--draw", str(file)
    )
    assert result.status == 0
    with Image.open(file) as drawn, Image.open(FORM) as source:
        assert drawn.size == source.size
    bad = str(tmp_path / "none" / "drawn.png")
    result = invoke("ground", FORM, "the city", "-m", model, "--max-new-tokens", "4", "--draw", bad)
    fails(result, f"cannot write '{bad}'", "its folder does not exist. Name a folder that exists.")
    result = invoke("ground", FORM, "the city", "-m", model, "--draw", str(tmp_path / "drawn.doc"))
    fails(result, "its ending names no image format. Name a .png or .jpg file.", status=2)


def test_ground_does_not_overwrite_the_image_and_tells_the_boxes_first(model: str, tmp_path: Path) -> None:
    image = tmp_path / "form.png"
    image.write_bytes(Path(FORM).read_bytes())
    fails(
        invoke("ground", str(image), "the city", "-m", model, "--draw", str(image)),
        "overwrite the image itself",
        status=2,
    )
    assert image.read_bytes() == Path(FORM).read_bytes()
    (tmp_path / "taken.png").mkdir()
    words = ("-m", model, "--max-new-tokens", "4", "--json", "--draw")
    fails(invoke("ground", str(image), "the city", *words, str(tmp_path / "taken.png")), "taken.png': Is a directory")
    if not os.path.exists("/dev/full"):
        return
    (tmp_path / "full.png").symlink_to("/dev/full")
    result = invoke("ground", str(image), "the city", *words, str(tmp_path / "full.png"))
    assert result.status == 1
    assert json.loads(result.out)["schema"] == "mm.ground/1"
    assert "full.png': No space left on device. Name another file." in result.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [("models",), ("models", "--json"), ("--help",), ("chat", "-h"), ("--version",)])
def test_output_to_a_full_disk_is_one_line(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mm", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    place = "" if words == ("chat", "-h") else "cannot write to standard output: "
    assert done.stderr.startswith(f"error: {place}No space left on device. ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("line", "status", "error"),
    [
        ("env >&-", 0, ""),
        ("env 2>&-", 0, ""),
        ("chat - <&-", 1, "error: standard input was empty"),
        ("chat nope.png hi 2>&-", 1, ""),
    ],
)
def test_closed_streams_are_no_traceback(line: str, status: int, error: str, tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m mm {line}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == status
    assert done.stderr.startswith(error) and "Traceback" not in done.stderr


def test_a_broken_link_and_an_endless_name(tmp_path: Path) -> None:
    link = tmp_path / "photo.png"
    link.symlink_to("gone.png")
    fails(invoke("chat", str(link), "hi"), "photo.png'. It is a link to 'gone.png', which does not exist.")
    fails(invoke("chat", f"{'x' * 300}.png", "hi"), "there is no file")


def test_models() -> None:
    lines = invoke("models").out.splitlines()
    assert lines[0] == "name\tstate"
    assert lines[1:3] == ["nano-vl2\tbundled", "nano-janus\tbundled"]
    assert any(line.startswith("deepseek-ai/deepseek-vl2-small\t") for line in lines)
    out = invoke("models", "--verbose").out
    assert "\ndeepseek-ai/JanusFlow-1.3B: What is known" in out, "what is not known of a published model is said"
    assert "`processor_config.json` (369 bytes) and `preprocessor_config.json`" in out
    verbose = {line.split("\t")[0]: line for line in out.splitlines()}
    assert "<｜begin▁of▁generation｜>" in verbose["deepseek-ai/JanusFlow-1.3B"]
    assert "\tguidance scale 2, temperature 1\t" in verbose["nano-janus"]
    assert "\tguidance scale 5, temperature 1\t" in verbose["deepseek-ai/Janus-Pro-7B"]
    assert "16133111152" in verbose["deepseek-ai/deepseek-vl2-small"]
    assert verbose["deepseek-ai/Janus-1.3B"].endswith(
        "\tUser, Assistant, <image_placeholder>, <begin_of_image>, <end_of_image>, <｜▁pad▁｜>"
    )
    assert "<|User|>, <|Assistant|>, <image_placeholder>" in verbose["deepseek-ai/Janus-Pro-7B"]
    assert re.search(r"\t<\|User\|> \d+, <\|Assistant\|> \d+, <image> \d+, ", verbose["nano-vl2"])


def test_details_of_the_known_models_are_told_without_building_any() -> None:
    code = "import sys\nfrom mm.cli.app import main\nsys.argv = ['mm', 'models', '-v']\ntry:\n    main()\n"
    code += "finally:\n    print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("False\n"), done.stdout + done.stderr


def test_a_plan_names_what_pictures_need_besides() -> None:
    plan = invoke("plan", "deepseek-ai/JanusFlow-1.3B", "--device", "cpu")
    assert "for pictures   stabilityai/sdxl-vae besides, 335 MB" in plan.out


def test_a_plan_for_gpus_that_are_not_here() -> None:
    words = ("plan", "deepseek-ai/deepseek-vl2", "--gpu-memory", "24, 48")
    lines = invoke(*words).out.splitlines()
    assert lines[-3].startswith("cuda:0         encoder and embeddings, layers 0-9: 18.1 GB of weights, ")
    assert lines[-2].endswith(" at the peak, 51.5 GB free: fits") and lines[-1] == "It fits."
    shares = json.loads(invoke(*words, "--json").out)["devices"]
    assert [share["device"] for share in shares] == ["cuda:0", "cuda:1"]
    for wrong in ("24,", "0", "x", "nan", "1e9", "1e-10"):
        result = invoke("plan", "--gpu-memory", wrong)
        assert result.status == 2 and "is no list of sizes" in result.err


def test_models_shows_the_cache(tmp_path: Path) -> None:
    repos = {"deepseek-ai/deepseek-vl2-tiny": "deepseek_vl_v2", "someone/tuned": "deepseek_vl_v2", "other/llm": "gpt2"}
    for name, kind in repos.items():
        snapshot = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
    result = spawn("models", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "deepseek-ai/deepseek-vl2-tiny\tcached" in result.out
    assert "deepseek-ai/deepseek-vl2\tknown" in result.out
    assert "someone/tuned\tcached" in result.out
    assert "other/llm" not in result.out


def test_plan_says_what_fits() -> None:
    result = invoke(
        "plan", "deepseek-ai/deepseek-vl2-small", "--device", "cpu", "--dtype", "bfloat16", "--batch", "4000"
    )
    assert "16,133,111,152" in result.out
    assert "31,104 B a token" in result.out
    assert "It does not fit." in result.out
    assert "--batch 1" in result.out
    assert "It fits.\n" in invoke("plan", "--device", "cpu").out
    assert invoke("plan", "--image-size", "large").status == 2


def test_env_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in (["env"], ["env", "--json"]):
        result = invoke(*words)
        assert "verysecret" not in result.out + result.err
        assert "HF_HUB_OFFLINE" in result.out
    assert "torch" in invoke("env").out
    assert json.loads(invoke("env", "--json").out)["hf_token"] is True


def test_verify(golden: Callable[[str], Path]) -> None:
    result = invoke("verify")
    assert result.status == 0
    assert "passed: " in result.out
    assert "It proves the install" in result.out
    assert "\tdiffers\t" not in result.out


def test_verify_fails_when_a_number_differs(golden: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    case = tmp_path / "case"
    shutil.copytree(golden("deepseek_vl2_grouplimited_softmax"), case)
    config = json.loads((case / "checkpoint" / "config.json").read_text())
    config["language_config"]["rms_norm_eps"] = 0.1
    (case / "checkpoint" / "config.json").write_text(json.dumps(config))
    result = invoke("verify", str(case))
    assert result.status == 1
    assert "FAILED: " in result.out
    assert "logits" in result.out
    assert json.loads(invoke("verify", str(case), "--json").out)["passed"] is False


def test_piped_output_has_no_escapes_and_warnings_are_lines(model: str) -> None:
    words = ["chat", "-m", model, "hi", "--max-new-tokens", "3", "--context", "5000"]
    result = spawn(*words, FORCE_COLOR="", HF_HUB_OFFLINE="1")
    assert result.status == 0
    assert "\x1b" not in result.out + result.err
    assert result.err.splitlines()[0].startswith("warning: a context of 5000 is more than the 4096 positions")
    assert "Traceback" not in result.err
    assert ".py:" not in result.err


def test_a_closed_pipe_is_quiet(model: str) -> None:
    command = [sys.executable, "-m", "mm", "chat", "-m", model, "hi", "--max-new-tokens", "200", "--temperature", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    process.wait(timeout=60)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_no_network_and_not_cached(tmp_path: Path) -> None:
    result = spawn(
        "chat", "hi", "-m", "deepseek-ai/deepseek-vl2-tiny", HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9"
    )
    fails(result, "http://127.0.0.1:9 cannot be reached", "or use a bundled model: nano-vl2")


def shape(value: Any) -> Any:
    """Keys and types of a JSON value; a list is described by its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def documented() -> dict[str, Any]:
    """{schema: example} of docs/json.md."""
    blocks = (ROOT / "docs" / "json.md").read_text().split("```json\n")[1:]
    examples = [json.loads(block.split("```")[0]) for block in blocks]
    return {example["schema"]: example for example in examples if "schema" in example}


def test_json_is_as_documented(model: str, tiny_janus: Path, tmp_path: Path) -> None:
    janus = ["-m", str(tiny_janus)]
    short = ["-m", model, "--max-new-tokens", "4", "--max-tiles", "1", "--json"]
    examples = documented()
    commands = {
        "mm.chat/1": ["chat", FORM, "Hi", *short],
        "mm.complete/1": ["complete", "Hi", "--image", FORM, "-m", model, "--max-new-tokens", "4", "--json"],
        "mm.caption/1": ["caption", FORM, *short],
        "mm.ocr/1": ["ocr", FORM, *short],
        "mm.ground/1": ["ground", FORM, "the city", *short],
        "mm.draw/1": ["draw", "a star", "-o", str(tmp_path / "star.png"), "--rerank", "self", *janus, "--json"],
        "mm.tokens/1": ["tokens", "encode", FORM, "--resize", *janus],
        "mm.models/1": ["models", "--json"],
        "mm.plan/1": ["plan", "deepseek-ai/deepseek-vl2-tiny", "--device", "cpu", "--image-size", "1000x700", "--json"],
        "mm.env/1": ["env", "--json"],
        "mm.verify/1": ["verify", "--json"],
    }
    assert set(commands) == set(examples)
    for schema, words in commands.items():
        result = invoke(*words)
        assert result.status == 0, result.err
        ours, example = json.loads(result.out), examples[schema]
        assert ours["schema"] == schema
        assert list(ours) == list(example)
        for key in example.keys() - {"boxes", "packages", "variables", "suggestions", "lines", "rows"}:
            assert shape(ours[key]) == shape(example[key]), (schema, key)
        for row in ours.get("rows", []):
            assert list(row) == list(example["rows"][0])
    for name in json.loads(invoke("env", "--json").out)["packages"].values():
        assert name is None or isinstance(name, str)


def test_box_json_is_as_documented() -> None:
    from dataclasses import asdict

    from mm.grounding import parse_boxes

    example = documented()["mm.ground/1"]
    (box,) = parse_boxes(example["raw_text"], [(640, 480)])
    ours = json.loads(json.dumps(asdict(box)))
    assert list(ours) == list(example["boxes"][0])
    assert {key: ours[key] for key in ours if key != "xyxy"} == {
        k: v for k, v in example["boxes"][0].items() if k != "xyxy"
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_read_before_the_model_needs_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_images((str(pipe),))  # opening it would wait for ever; reading it would leave nothing for the model
    with pytest.raises(ImageError, match="File name too long"):
        check_images(("x" * 5000,))


def test_eval_tells_its_table_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    report = Report((Row("lines", "CER", Interval(0.01, 0.0, 0.02, 50)),), {"model": "a"}, "not asked for")
    report.save(tmp_path / "a.json")
    words = ("eval", "--merge", str(tmp_path / "a.json"), "--json")
    fails(invoke(*words, str(tmp_path)), "cannot be written: it is a folder. Name a file in it")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none" / "b.json")
    fails(invoke(*words, str(tmp_path / "nowhere")), "cannot write ")
    if Path("/dev/full").exists():  # found out only when it is written
        result = invoke(*words, "/dev/full")
        assert result.status == 1
        assert "| lines | CER | 50 |" in result.out
        assert "cannot write" in result.err
