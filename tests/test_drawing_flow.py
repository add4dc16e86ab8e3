"""Pictures by flow through the pipeline and `mm draw`, with a tiny random JanusFlow."""

import json
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mm import Pipeline
from mm.drawn_file import Recipe
from mm.errors import (
    CheckpointNotFoundError,
    ConfigError,
    ContextOverflowError,
    OptionError,
    PromptError,
    TaskError,
    WeightsError,
)
from mm.generation.vq import to_bytes
from mm.pipeline import Pipeline as PipelineClass
from tests.test_cli import fails, invoke

PROMPT = "two red circles left of a blue star"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipe(tiny_flow: Path) -> Pipeline:
    return Pipeline.from_pretrained(tiny_flow, device="cpu", dtype="float32")


def files(drawings) -> list[bytes]:
    return [image.tobytes() for image in drawings.images]


@pytest.fixture(scope="module")
def alone(pipe: Pipeline, tiny_flow: Path) -> dict[int, bytes]:
    """{seed: bytes} of 8 seeds, each the only picture of its pipeline's engine."""
    found = {}
    for seed in range(8):
        fresh = Pipeline(pipe.model, pipe.processor, folder=tiny_flow)
        (found[seed],) = files(fresh.generate_images(f"{PROMPT} and {seed}", seed=seed, num_inference_steps=3))
        fresh.engine.close()
    assert len(set(found.values())) == 8
    return found


@pytest.mark.parametrize(("batch_size", "watched"), [(None, False), (3, True), (1, False)])
def test_a_seed_draws_the_same_alone_and_in_a_shuffled_batch(pipe: Pipeline, alone, batch_size, watched) -> None:
    seeds = list(range(8))
    random.Random(batch_size).shuffle(seeds)
    seen = []

    def watch(progress) -> None:
        seen.append(progress.step)
        progress.preview(0)

    drawn = pipe.generate_images(
        [f"{PROMPT} and {seed}" for seed in seeds],
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=3,
        batch_size=batch_size,
        callback_on_step=watch if watched else None,
    )
    assert files(drawn) == [alone[seed] for seed in seeds]
    assert [picture.codes for picture in drawn.pictures] == [()] * 8
    assert bool(seen) == watched and seen == sorted(seen)


def test_options_matter_and_seeds_count_up(pipe: Pipeline) -> None:
    options = {"seed": 1, "num_inference_steps": 2}
    drawn = [
        *pipe.generate_images(PROMPT, num_images_per_prompt=2, **options).images,
        *pipe.generate_images(PROMPT, guidance_scale=1, **options).images,
        *pipe.generate_images(PROMPT, guidance_scale=12.0, **options).images,
        *pipe.generate_images(PROMPT, negative_prompt="green", **options).images,
        *pipe.generate_images("a green square", **options).images,
        *pipe.generate_images(PROMPT, seed=1, num_inference_steps=3).images,
    ]
    assert len({image.tobytes() for image in drawn}) == 7
    again = pipe.generate_images(PROMPT, seed=2, num_inference_steps=2)
    assert files(again) == [drawn[1].tobytes()]
    before = pipe.engine.statistics.flow_steps
    pipe.generate_images(PROMPT, seed=1)
    assert pipe.engine.statistics.flow_steps - before == 30, "as published"


def test_forms_of_the_result(pipe: Pipeline) -> None:
    options = {"num_images_per_prompt": 2, "seed": 1, "num_inference_steps": 2}
    pil, array, tensor = (
        pipe.generate_images([PROMPT, "a star"], output_type=form, **options).images for form in ("pil", "np", "pt")
    )
    assert pipe.picture_size == (64, 64)
    assert [image.size for image in pil] == [(64, 64)] * 4
    assert tensor.shape == (4, 3, 64, 64) and array.shape == (4, 64, 64, 3) and array.dtype == np.float32
    for image, values in zip(pil, tensor, strict=True):  # truncated, not rounded
        np.testing.assert_array_equal(np.asarray(image), to_bytes(values[None] * 2 - 1)[0])


def test_previews_show_where_the_flow_leads(pipe: Pipeline) -> None:
    seen, previews = [], []

    def watch(progress) -> None:
        seen.append((progress.step, progress.num_steps, progress.finished, progress.num_pictures))
        previews.append(progress.preview(1))

    drawn = pipe.generate_images(PROMPT, num_images_per_prompt=2, seed=1, num_inference_steps=6, callback_on_step=watch)
    assert seen[-1] == (12, 12, 2, 2)
    for preview in previews:
        assert (preview.unit, preview.num_rows) == ("step", 6)
        assert (preview.image is None) == (preview.rows == 0) and preview.approximate == (preview.rows < 6)
        assert preview.image is None or preview.image.size == (64, 64), "the whole picture, from the first step on"
    last = np.asarray(previews[-1].image).astype(int)
    assert np.abs(last - np.asarray(drawn.images[1])).max() <= 1


def test_cancelling_and_failing_callbacks(pipe: Pipeline, alone) -> None:
    class After:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 6

    before = pipe.engine.statistics.flow_steps
    drawn = pipe.generate_images(PROMPT, cancel=After(), num_inference_steps=100)
    assert drawn.cancelled and drawn.images == []
    assert pipe.engine.statistics.flow_steps - before <= 6

    def stop(progress) -> None:
        if progress.finished:
            progress.cancel()

    drawn = pipe.generate_images(
        f"{PROMPT} and 3", num_images_per_prompt=3, seed=3, num_inference_steps=3, callback_on_step=stop, batch_size=1
    )
    assert drawn.cancelled and 1 <= len(drawn.images) < 3 and files(drawn)[0] == alone[3]

    def fail(progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        pipe.generate_images(PROMPT, callback_on_step=fail)
    assert files(pipe.generate_images(f"{PROMPT} and 5", seed=5, num_inference_steps=3)) == [alone[5]]


def test_questions_are_answered_while_a_picture_is_drawn(pipe: Pipeline, alone) -> None:
    picture = Image.new("RGB", (30, 20), "red")
    expected = pipe.chat(picture, "What?", max_new_tokens=12)
    assert expected.usage.image_tokens == 17
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(pipe.chat(picture, "What?", max_new_tokens=12).token_ids))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    drawn = pipe.generate_images(f"{PROMPT} and 4", seed=4, num_inference_steps=3)
    for thread in threads:
        thread.join()
    assert files(drawn) == [alone[4]]
    assert answers == [expected.token_ids] * 2


def test_the_model_judges_its_own_pictures(pipe: Pipeline) -> None:
    drawn = pipe.generate_images(PROMPT, num_images_per_prompt=2, best_of=3, seed=3, num_inference_steps=2)
    scores = [picture.score for picture in drawn.pictures]
    assert scores == sorted(scores, reverse=True) and all(score < 0 for score in scores)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_inference_steps": 0}, OptionError, "num_inference_steps is 0; expected a whole number from 1 to 1,000"),
        ({"num_inference_steps": 2.5}, OptionError, "num_inference_steps is 2.5; expected a whole number"),
        ({"num_inference_steps": 1001}, OptionError, "num_inference_steps is 1,001; expected"),
        ({"temperature": 0.5}, OptionError, "temperature is 0.5, but .* draws by flow, which chooses nothing"),
        ({"top_k": 5}, OptionError, "top_k is 5, but .* draws by flow"),
        ({"top_p": 0.5}, OptionError, "top_p is 0.5, but .* Leave it out"),
        ({"width": 512}, OptionError, "a picture of 512x64 pixels was asked for, and .* was trained for 64x64 alone"),
        ({"prompt": " "}, PromptError, "the prompt is empty. Write what to draw"),
        ({"negative_prompt": " "}, PromptError, "the negative prompt is empty"),
        ({"prompt": "red " * 3000}, ContextOverflowError, r"the prompt takes [\d,]+ tokens and a picture 16, but"),
    ],
)
def test_bad_input(pipe: Pipeline, options, error, message) -> None:
    before = pipe.engine.statistics.requests
    with pytest.raises(error, match=message):
        pipe.generate_images(**{"prompt": PROMPT} | options)
    assert pipe.engine.statistics.requests == before


def test_a_model_of_codes_takes_no_steps_and_one_that_flows_has_no_codes(pipe: Pipeline, tiny_janus: Path) -> None:
    janus = Pipeline.from_pretrained(tiny_janus, device="cpu", dtype="float32")
    with pytest.raises(OptionError, match="num_inference_steps is 3, but .* draws code after code and takes no such"):
        janus.generate_images(PROMPT, num_inference_steps=3)
    with pytest.raises(OptionError, match="vae is 'x', but my-janus does not draw by flow. Leave it out"):
        Pipeline(janus.model, janus.processor, name="my-janus", vae="x")
    image = Image.new("RGB", (64, 64))
    for ask in (lambda: pipe.encode_image(image), lambda: pipe.decode_image([[1]])):
        with pytest.raises(
            TaskError, match="draws by flow and has no image codes. Models that have some: .*Janus-1.3B"
        ):
            ask()


# The autoencoder


@pytest.fixture
def without(tiny_flow: Path, tmp_path: Path) -> Path:
    """The model's folder without an autoencoder."""
    return Path(shutil.copytree(tiny_flow, tmp_path / "model", ignore=shutil.ignore_patterns("vae")))


@pytest.fixture
def vae(tiny_flow: Path, tmp_path: Path) -> Path:
    """A writable copy of the autoencoder."""
    return Path(shutil.copytree(tiny_flow / "vae", tmp_path / "own-vae"))


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def draw_with(model: Path, vae: Path | str | None) -> bytes:
    pipe = Pipeline.from_pretrained(model, device="cpu", dtype="float32", vae=vae)
    return files(pipe.generate_images(f"{PROMPT} and 2", seed=2, num_inference_steps=3))[0]


def test_an_autoencoder_elsewhere(without: Path, vae: Path, alone) -> None:
    assert draw_with(without, vae) == alone[2]
    assert draw_with(without, str(vae)) == alone[2]


def test_attention_under_its_old_names(without: Path, vae: Path, alone) -> None:
    """As in files that diffusers wrote before it renamed them."""
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(vae / WEIGHTS)
    for new, before in old.items():
        tensors = {name.replace(new, before): tensor for name, tensor in tensors.items()}
    save_file(tensors, vae / WEIGHTS)
    assert draw_with(without, vae) == alone[2]


def test_without_an_autoencoder_the_model_chats_and_names_what_pictures_need(without: Path, monkeypatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(without.parent))
    pipe = Pipeline.from_pretrained(without, device="cpu", dtype="float32")
    assert pipe.chat(None, "Say 5 words.", max_new_tokens=2).usage.completion_tokens == 2
    with pytest.raises(CheckpointNotFoundError, match="stabilityai/sdxl-vae is not .* in the cache .* with --vae"):
        pipe.generate_images(PROMPT)
    assert pipe.engine.statistics.flow_steps == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "describes 'AutoencoderTiny'; expected an AutoencoderKL such as stab"),
        ({"latent_channels": 16}, "latents of 16 channels for 8 pixels a side; this model draws latents of 4 channels"),
        ({"block_out_channels": [16, 16, 24]}, "4 channels for 4 pixels a side; .* for 8 pixels. Use stabilityai"),
        ({"shift_factor": 0.1}, "scaling_factor 0.13025 and shift_factor 0.1; expected a number above 0 and none"),
        ({"scaling_factor": None}, "has scaling_factor None"),
    ],
)
def test_another_kind_of_autoencoder(without: Path, vae: Path, change, message) -> None:
    change_json(vae / "config.json", **change)
    with pytest.raises(ConfigError, match=message):
        draw_with(without, vae)


def test_a_damaged_autoencoder(without: Path, vae: Path, capfd) -> None:
    tensors = load_file(vae / WEIGHTS)
    del tensors["decoder.conv_in.weight"]
    save_file(tensors, vae / WEIGHTS)
    with pytest.raises(WeightsError, match=r"does not belong to its config.json: 1 missing \(decoder.conv_in.weight"):
        draw_with(without, vae)
    save_file({**tensors, "decoder.conv_in.weight": torch.zeros(5, 4, 3, 3)}, vae / WEIGHTS)
    with pytest.raises(WeightsError, match="the autoencoder in .* cannot be loaded: .* Download config.json and"):
        draw_with(without, vae)
    (vae / WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="the autoencoder in .* cannot be loaded: .* Download config.json and"):
        draw_with(without, vae)
    (vae / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="config.json cannot be read as JSON"):
        draw_with(without, vae)
    assert capfd.readouterr() == ("", ""), "errors say it, once"


# `mm draw`


@pytest.fixture
def flow(tiny_flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that draws by flow; the working folder is empty."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return str(tiny_flow)


def test_mm_draw_writes_what_it_needs_to_draw_it_again(flow: str, vae: Path) -> None:
    options = ["--seed", "7", "--steps", "4", "--vae", str(vae), "--guidance-scale", "3"]
    result = invoke("draw", PROMPT, "-o", "star.png", "-m", flow, *options)
    assert (result.status, result.out, result.err) == (0, "star.png\tseed 7\n", "")
    recipe = Recipe.read(Path("star.png"))
    assert (recipe.steps, recipe.vae, recipe.guidance_scale) == (4, str(vae), 3)
    assert invoke("draw", "--again", "star.png", "-o", "again.png").status == 0
    assert Recipe.read(Path("again.png")) == recipe
    with Image.open("star.png") as first, Image.open("again.png") as second:
        assert first.size == (64, 64) and first.tobytes() == second.tobytes()
    assert invoke("draw", "--again", "star.png", "-o", "other.png", "--steps", "2").status == 0
    assert Recipe.read(Path("other.png")).steps == 2


def test_mistakes_are_told_before_any_work(
    flow: str, without: Path, tiny_janus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(without.parent))
    monkeypatch.setattr(PipelineClass, "from_pretrained", None)  # would fail if it came to that
    for words, status, part in (
        (["draw", "a", "-m", flow, "--steps", "0"], 2, "--steps is 0; expected a whole number"),
        (["draw", "a", "-m", flow, "--temperature", "0.5"], 2, "draws by flow, which chooses nothing"),
        (["draw", "a", "-m", flow, "--vae", "none"], 1, "there is no folder 'none' with an autoencoder"),
        (["draw", "a", "-m", flow, "--vae", flow], 1, "has no diffusion_pytorch_model.safetensors, so it is no autoen"),
        (["draw", "a", "-m", str(without)], 1, "stabilityai/sdxl-vae is not (completely) in the cache"),
        (["draw", "a", "-m", "deepseek-ai/JanusFlow-1.3B"], 1, "stabilityai/sdxl-vae is not (completely)"),
        (["draw", "a", "-m", str(tiny_janus), "--steps", "3"], 2, "draws code after code and takes no such steps"),
        (["draw", "a", "-m", str(tiny_janus), "--vae", "x"], 2, "--vae is 'x', but"),
        (["tokens", "decode", str(without / "config.json"), "-o", "a.png", "-m", flow], 1, "holds no object"),
    ):
        fails(invoke(*words), part, status=status)
    assert os.listdir() == []


def test_mm_tokens_says_that_a_flow_has_no_codes(flow: str) -> None:
    Path("codes.json").write_text('{"codes": [[1]]}')
    fails(invoke("tokens", "decode", "codes.json", "-o", "a.png", "-m", flow), "draws by flow and has no image codes")
