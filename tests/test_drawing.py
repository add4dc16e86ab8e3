"""Pictures through the pipeline, with a tiny random Janus that ``save_pretrained`` wrote."""

import math
import random
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mm import Pipeline
from mm.errors import ContextOverflowError, InputError, MMError, OptionError, PromptError, ResourceError, TaskError
from mm.families.table import load_model, save_pretrained
from mm.generation import rerank
from mm.generation.vq import to_bytes
from mm.pictures import DrawDefaults, DrawOptions

PROMPT = "two red circles left of a blue star"


@pytest.fixture(scope="module")
def pipe(tiny_janus: Path) -> Pipeline:
    return Pipeline.from_pretrained(tiny_janus, device="cpu", dtype="float32")


def codes(drawings) -> list[tuple[int, ...]]:
    return [picture.codes for picture in drawings.pictures]


# What is drawn


@pytest.fixture(scope="module")
def alone(pipe: Pipeline) -> dict[int, tuple[int, ...]]:
    """{seed: codes} of 20 seeds, each the only picture of its pipeline's engine."""
    found = {}
    for seed in range(20):
        fresh = Pipeline(pipe.model, pipe.processor)
        (found[seed],) = codes(fresh.generate_images(f"{PROMPT} and {seed}", seed=seed))
        fresh.engine.close()
    assert len(set(found.values())) == 20
    return found


@pytest.mark.parametrize("batch_size", [None, 8, 3, 1])
@pytest.mark.parametrize("watched", [False, True])
def test_a_seed_draws_the_same_alone_and_in_a_shuffled_batch(pipe: Pipeline, alone, batch_size, watched) -> None:
    seeds = list(range(20))
    random.Random(batch_size).shuffle(seeds)
    seen = []

    def watch(progress) -> None:
        seen.append(progress.step)
        progress.preview(0)

    for first in range(0, 20, 8):
        batch = seeds[first : first + 8]
        drawn = pipe.generate_images(
            [f"{PROMPT} and {seed}" for seed in batch],
            generator=[torch.Generator().manual_seed(seed) for seed in batch],
            batch_size=batch_size,
            callback_on_step=watch if watched else None,
        )
        assert codes(drawn) == [alone[seed] for seed in batch]
    assert bool(seen) == watched


def test_seeds_count_up_and_each_draws_its_picture_again(pipe: Pipeline) -> None:
    drawn = pipe.generate_images(PROMPT, num_images_per_prompt=3, seed=5, temperature=0.9, top_k=30, top_p=0.9)
    assert [picture.seed for picture in drawn.pictures] == [5, 6, 7]
    assert len(set(codes(drawn))) == 3
    for picture, image in zip(drawn.pictures, drawn.images, strict=True):
        again = pipe.generate_images(PROMPT, seed=picture.seed, temperature=0.9, top_k=30, top_p=0.9)
        assert codes(again) == [picture.codes]
        assert again.images[0].tobytes() == image.tobytes()


def test_a_fresh_seed_is_told(pipe: Pipeline) -> None:
    first, second = pipe.generate_images(PROMPT), pipe.generate_images(PROMPT)
    assert first.pictures[0].seed != second.pictures[0].seed
    assert codes(pipe.generate_images(PROMPT, seed=first.pictures[0].seed)) == codes(first)


def test_one_generator_serves_one_picture_or_seeds_several(pipe: Pipeline) -> None:
    single = pipe.generate_images(PROMPT, generator=torch.Generator().manual_seed(3))
    assert codes(single) == codes(pipe.generate_images(PROMPT, seed=3))
    assert single.pictures[0].seed is None
    several = [
        pipe.generate_images(PROMPT, num_images_per_prompt=2, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert codes(several[0]) == codes(several[1])
    assert codes(pipe.generate_images(PROMPT, seed=several[0].pictures[1].seed)) == codes(several[0])[1:]


def test_greedy_needs_no_seed_and_options_matter(pipe: Pipeline) -> None:
    greedy = pipe.generate_images(PROMPT, temperature=0)
    assert codes(greedy) == codes(pipe.generate_images(PROMPT, temperature=0, seed=9))
    assert codes(greedy) == codes(pipe.generate_images(PROMPT, top_k=1))
    others = [
        pipe.generate_images(PROMPT, temperature=0, guidance_scale=1),
        pipe.generate_images(PROMPT, temperature=0, guidance_scale=12.0),
        pipe.generate_images(PROMPT, temperature=0, negative_prompt="green"),
        pipe.generate_images("a green square", temperature=0),
    ]
    assert len({codes(drawn)[0] for drawn in (greedy, *others)}) == 5


def test_forms_of_the_result(pipe: Pipeline) -> None:
    head = pipe.model.image_head
    assert head is not None
    options = {"num_images_per_prompt": 2, "seed": 1}
    pil, array, tensor = (
        pipe.generate_images([PROMPT, "a star"], output_type=form, **options).images for form in ("pil", "np", "pt")
    )
    assert [image.size for image in pil] == [(64, 64)] * 4
    assert tensor.shape == (4, 3, 64, 64) and tensor.dtype == torch.float32
    assert isinstance(array, np.ndarray) and array.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert array.min() >= 0 and array.max() <= 1
    for image, values in zip(pil, tensor, strict=True):  # truncated, not rounded
        np.testing.assert_array_equal(np.asarray(image), to_bytes(values[None] * 2 - 1)[0])


# Progress, previews, cancelling


def test_the_callback_sees_the_run_and_previews_it(pipe: Pipeline) -> None:
    seen, previews = [], []

    def watch(progress) -> None:
        seen.append((progress.step, progress.num_steps, progress.finished, progress.num_pictures))
        preview = progress.preview(1)
        previews.append(preview)
        assert preview.num_rows == 4
        assert (preview.image is None) == (preview.rows == 0)
        if preview.image is not None:
            assert preview.image.size == (64, 16 * preview.rows)
        with pytest.raises(InputError, match="there is no picture 2; expected 0 to 1"):
            progress.preview(2)

    drawn = pipe.generate_images(PROMPT, num_images_per_prompt=2, seed=1, callback_on_step=watch)
    assert seen[-1] == (32, 32, 2, 2)
    assert [step for step, *_ in seen] == sorted(step for step, *_ in seen)
    assert previews[-1].image.tobytes() == drawn.images[1].tobytes()
    assert not previews[-1].approximate


def test_a_callback_may_stop_the_run(pipe: Pipeline) -> None:
    steps = []

    def stop(progress) -> None:
        steps.append(progress.step)
        if progress.finished:
            progress.cancel()

    before = pipe.engine.statistics.requests
    drawn = pipe.generate_images(
        PROMPT, num_images_per_prompt=4, seed=1, callback_on_step=stop, batch_size=1, best_of=4
    )
    assert drawn.cancelled
    assert 1 <= len(drawn.images) == len(drawn.pictures) < 4
    assert all(picture.score is None for picture in drawn.pictures)
    assert codes(drawn)[0] == codes(pipe.generate_images(PROMPT, seed=1))[0]
    assert pipe.engine.statistics.requests - before < 5
    assert not pipe.generate_images(PROMPT, seed=1).cancelled


def test_cancelling_returns_within_one_step(pipe: Pipeline) -> None:
    class After:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 4

    before = pipe.engine.statistics.decode_steps
    drawn = pipe.generate_images(PROMPT, cancel=After())
    assert drawn.cancelled and drawn.images == []
    assert pipe.engine.statistics.decode_steps - before <= 4
    assert pipe.generate_images(PROMPT, cancel=After(), output_type="np").images.shape == (0, 64, 64, 3)


def test_what_a_callback_raises_ends_the_run(pipe: Pipeline) -> None:
    def fail(progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        pipe.generate_images(PROMPT, num_images_per_prompt=4, callback_on_step=fail)
    assert len(pipe.generate_images(PROMPT).images) == 1


def test_questions_are_answered_while_pictures_are_drawn(pipe: Pipeline, alone) -> None:
    picture = Image.new("RGB", (30, 20), "red")
    expected = pipe.chat(picture, "What?", max_new_tokens=12).token_ids
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(pipe.chat(picture, "What?", max_new_tokens=12).token_ids))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    drawn = pipe.generate_images(f"{PROMPT} and 4", seed=4)
    for thread in threads:
        thread.join()
    assert codes(drawn) == [alone[4]]
    assert answers == [expected] * 3


def test_what_was_drawn_can_be_asked_about(pipe: Pipeline) -> None:
    image = pipe.generate_images(PROMPT, seed=0).images[0]
    assert pipe.chat(image, "What is in the picture?", max_new_tokens=4).usage.image_tokens == 16


# The best of several


def test_the_best_are_returned_first(pipe: Pipeline) -> None:
    everything = pipe.generate_images([PROMPT, "a star"], num_images_per_prompt=5, seed=3, rerank="self")
    scores = [picture.score for picture in everything.pictures]
    assert all(score is not None and score < 0 for score in scores)
    assert [picture.seed for picture in everything.pictures] == [3, 4, 5, 6, 7] * 2  # only scored, not sorted
    best = pipe.generate_images([PROMPT, "a star"], num_images_per_prompt=2, best_of=5, seed=3)
    for prompt in range(2):
        own = everything.pictures[5 * prompt : 5 * prompt + 5]
        expected = sorted(own, key=lambda picture: -picture.score)[:2]
        found = best.pictures[2 * prompt : 2 * prompt + 2]
        assert [picture.codes for picture in found] == [picture.codes for picture in expected]
        assert [picture.score for picture in found] == pytest.approx([picture.score for picture in expected], abs=1e-3)


def test_the_own_score_is_the_log_likelihood_of_the_prompt(pipe: Pipeline) -> None:
    from mm.chat import Message, TextPart, task_message

    drawn = pipe.generate_images(PROMPT, seed=3, rerank="self")
    question = task_message("caption", [drawn.images[0]])
    inputs = pipe.processor.process((question, Message("assistant", (TextPart(PROMPT),))))
    start = pipe.processor.process((question,)).num_tokens
    with torch.inference_mode():
        (embeds,) = pipe.model.embed_inputs([inputs])
        logprobs = pipe.model.decoder.logits(pipe.model.decoder(embeds[None]))[0].log_softmax(dim=-1)
    expected = sum(logprobs[at - 1, inputs.input_ids[at]].item() for at in range(start, inputs.num_tokens))
    assert pipe.processor.tokenizer.decode(inputs.input_ids[start:].tolist()).strip() == PROMPT
    assert drawn.pictures[0].score == pytest.approx(expected, abs=1e-3)


def test_clip_scores_are_cosines_of_picture_and_prompt(pipe: Pipeline, monkeypatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(16, {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}, text)
    preprocess = open_clip.image_transform(32, is_train=False)
    scorer = rerank.ClipScorer(model, preprocess, open_clip.tokenize)
    monkeypatch.setattr(rerank.ClipScorer, "load", lambda: scorer)
    drawn = pipe.generate_images(PROMPT, num_images_per_prompt=2, best_of=4, rerank="clip", seed=1)
    scores = [picture.score for picture in drawn.pictures]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    model.eval()
    with torch.inference_mode():
        picture = model.encode_image(preprocess(drawn.images[0])[None])
        words = model.encode_text(open_clip.tokenize([PROMPT]))
    assert scores[0] == pytest.approx(torch.cosine_similarity(picture, words).item(), abs=1e-5)


def test_clip_without_weights_says_what_works_instead(pipe: Pipeline, monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    before = pipe.engine.statistics.requests
    with pytest.raises(ResourceError, match=r"rerank='clip' needs the weights of laion/.*Use rerank='self'"):
        pipe.generate_images(PROMPT, rerank="clip")
    assert pipe.engine.statistics.requests == before


# What is refused, before any work


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_images_per_prompt": 0}, OptionError, "num_images_per_prompt is 0; expected a whole number from 1"),
        ({"num_images_per_prompt": 10_000}, OptionError, "is 10,000; expected a whole number from 1 to 1,024"),
        ({"num_images_per_prompt": 1.5}, OptionError, "num_images_per_prompt is 1.5"),
        ({"num_images_per_prompt": True}, OptionError, "num_images_per_prompt is True"),
        ({"guidance_scale": -1}, OptionError, "guidance_scale is -1; expected a number of 0 or more"),
        ({"guidance_scale": math.nan}, OptionError, "guidance_scale is nan"),
        ({"guidance_scale": math.inf}, OptionError, "guidance_scale is inf"),
        ({"guidance_scale": "5"}, OptionError, "guidance_scale is '5'"),
        ({"temperature": -0.1}, OptionError, "temperature is -0.1; expected a number of 0 or more"),
        ({"top_p": 0.0}, OptionError, "top_p is 0.0; expected a number above 0 and at most 1"),
        ({"top_p": 1.01}, OptionError, "top_p is 1.01; expected a number above 0 and at most 1"),
        ({"top_k": -1}, OptionError, "top_k is -1; expected a whole number of 0 or more"),
        ({"seed": -1}, OptionError, "seed is -1; expected a whole number from 0"),
        ({"seed": 2**63 - 1}, OptionError, "the pictures after the first need larger ones"),
        ({"seed": 1, "generator": torch.Generator()}, OptionError, "got both seed= and generator="),
        ({"generator": 7}, OptionError, "generator is 7; expected a torch.Generator"),
        ({"generator": [torch.Generator()] * 2, "num_images_per_prompt": 2}, OptionError, "in the list twice"),
        ({"generator": [torch.Generator(), torch.Generator()]}, OptionError, "got 2 generators for 1 pictures"),
        ({"best_of": 2, "num_images_per_prompt": 3}, OptionError, "best_of is 2; expected a whole number from 3"),
        ({"rerank": "best"}, OptionError, "rerank is 'best'; expected one of self, clip"),
        ({"output_type": "latent"}, OptionError, "output_type is 'latent'; expected one of pil, np, pt"),
        ({"batch_size": 0}, OptionError, "batch_size is 0; expected a whole number from 1"),
        ({"cancel": True}, OptionError, "cancel is True; expected an object with is_set()"),
        ({"negative_prompt": "red", "guidance_scale": 1}, OptionError, "negative_prompt needs guidance"),
        ({"negative_prompt": ["red", "blue"]}, PromptError, "got 2 negative prompts for 1 prompts"),
        ({"negative_prompt": " "}, PromptError, "the negative prompt is empty"),
        ({"width": 512}, OptionError, "a picture of 512x64 pixels was asked for, and .* was trained for 64x64 alone"),
        ({"height": 32, "width": 64}, OptionError, "a picture of 64x32 pixels"),
        ({"prompt": ""}, PromptError, "the prompt is empty. Write what to draw"),
        ({"prompt": [PROMPT, " \n"]}, PromptError, "the prompt is empty"),
        ({"prompt": []}, PromptError, "the list of prompts is empty"),
        ({"prompt": 7}, PromptError, "a prompt is 7; expected text"),
        ({"prompt": ["a"] * 600, "num_images_per_prompt": 2}, OptionError, "600 prompts x 2 pictures are 1,200"),
        ({"prompt": "red " * 3000}, ContextOverflowError, r"the prompt takes [\d,]+ tokens and a picture 16, but"),
    ],
)
def test_bad_input(pipe: Pipeline, options, error, message) -> None:
    before = pipe.engine.statistics.requests
    with pytest.raises(error, match=message) as caught:
        pipe.generate_images(**{"prompt": PROMPT} | options)
    assert isinstance(caught.value, MMError)
    assert pipe.engine.statistics.requests == before


def test_options_have_no_open_temperature() -> None:
    with pytest.raises(OptionError, match="temperature is None; expected a number of 0 or more"):
        DrawOptions(temperature=None)  # type: ignore[arg-type]


def test_a_generator_of_another_device_is_refused() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = torch.Generator(device="cuda")
    with pytest.raises(OptionError, match="a generator is on cuda.* expected one on the CPU"):
        DrawOptions(generator=generator).generators(1)


def test_a_model_without_a_generation_side_says_which_can_draw(pipe: Pipeline, tiny_janus: Path, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    from mm.families.janus import IMAGE_SIDE

    model = load_model(tiny_janus, device="cpu", dtype="float32")
    save_pretrained(model, tmp_path / "half", source=tiny_janus, dtype=torch.float32)
    (shard,) = (tmp_path / "half").glob("*.safetensors")
    tensors = load_file(shard)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(IMAGE_SIDE)}, shard)
    for index in (tmp_path / "half").glob("*.index.json"):
        index.unlink()
    understanding = Pipeline.from_pretrained(tmp_path / "half", device="cpu", dtype="float32")
    with pytest.raises(TaskError, match=re.escape("has no generation side")) as caught:
        understanding.generate_images(PROMPT)
    assert "deepseek-ai/Janus-Pro-7B" in str(caught.value)


def test_options_of_a_call_have_the_defaults_of_the_record() -> None:
    import inspect

    defaults = {name: value.default for name, value in inspect.signature(Pipeline.generate_images).parameters.items()}
    record = DrawOptions()
    assert defaults["guidance_scale"] is defaults["temperature"] is None, "the model's own"
    assert DrawDefaults() == DrawDefaults(guidance_scale=record.guidance_scale, temperature=record.temperature)
    for name in ("top_k", "top_p", "seed", "best_of", "rerank", "output_type"):
        assert defaults[name] == getattr(record, name)
