"""The Python face, on the recorded checkpoints: tiny random models of the true structure."""

import asyncio
import copy
import gc
import json
import os
import pickle
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mm import (
    ContextOverflowError,
    ImageError,
    OptionError,
    Pipeline,
    PromptError,
    Request,
    ResourceError,
    TaskError,
)
from mm.chat import TASK_PROMPTS, parse_messages
from mm.generation.engine import Engine
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.request import parse_options

QUESTION = "What is on the picture?"
CASES = sorted(
    path.name.removesuffix(".tar.xz") for path in (Path(__file__).parent / "golden").glob("deepseek_vl2_*.tar.xz")
)


@pytest.fixture(scope="module")
def folder(golden):
    return golden("deepseek_vl2_tiny") / "checkpoint"


@pytest.fixture(scope="module")
def pipe(folder):
    return Pipeline.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def small(golden):
    """A model with latent attention."""
    return Pipeline.from_pretrained(golden("deepseek_vl2_small") / "checkpoint", device="cpu")


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)


# The recorded answers of the official code


@pytest.mark.parametrize("case", CASES)
def test_recorded_greedy_answers(case, golden):
    root = golden(case)
    pipe = Pipeline.from_pretrained(root / "checkpoint", device="cpu", dtype="float32")
    facts = json.loads((root / "cases.json").read_text(encoding="utf-8"))
    checked = 0
    for entry in facts["cases"]:
        if entry.get("batch") or entry.get("prompt_mode"):
            continue
        reply = pipe.chat(
            messages=with_paths(entry["conversation"], root),
            max_new_tokens=16,
            repetition_penalty=entry.get("repetition_penalty", 1.0),
            official_images=True,
        )
        assert list(reply.token_ids) == entry["greedy_tokens"], entry["id"]
        ended = reply.token_ids[-1] == facts["eos_token_id"]
        assert reply.finish_reason == ("stop" if ended else "length")
        assert reply.raw_text == entry["text"].removesuffix(pipe.processor.tokenizer.eos_token)
        assert reply.usage.prompt_tokens == entry["n_tokens"]
        assert reply.usage.image_tokens == entry["n_image_tokens"]
        assert reply.usage.completion_tokens == len(entry["greedy_tokens"])
        checked += 1
    assert checked


@pytest.mark.parametrize("case", ["deepseek_vl2_tiny", "deepseek_vl2_small"])
def test_recorded_left_padded_batches(case, golden):
    root = golden(case)
    pipe = Pipeline.from_pretrained(root / "checkpoint", device="cpu", dtype="float32")
    facts = json.loads((root / "cases.json").read_text(encoding="utf-8"))
    (entry,) = [entry for entry in facts["cases"] if entry.get("batch")]
    replies = pipe.chat_batch(
        [with_paths(conversation, root) for conversation in entry["conversations"]],
        max_new_tokens=16,
        official_images=True,
    )
    for reply, tokens in zip(replies, entry["greedy_tokens"], strict=True):
        end = facts["eos_token_id"]
        assert list(reply.token_ids) == (tokens[: tokens.index(end) + 1] if end in tokens else tokens)


@pytest.mark.parametrize("case", ["deepseek_vl2_tiny", "deepseek_vl2_small", "deepseek_vl2_base"])
def test_recorded_chunked_prefill(case, golden):
    root = golden(case)
    pipe = Pipeline.from_pretrained(root / "checkpoint", device="cpu", dtype="float32")
    facts = json.loads((root / "cases.json").read_text(encoding="utf-8"))
    (entry,) = [entry for entry in facts["cases"] if entry.get("incremental_prefilling")]
    inputs = pipe.processor.process(parse_messages(with_paths(entry["conversation"], root)), official_images=True)
    for chunk in (entry["incremental_prefilling"]["chunk_size"], 97, 10_000):
        row = plain_row(pipe, inputs)
        with Engine(
            pipe.model.decoder,
            lambda piece: pipe.model.embed_inputs([piece])[0],
            device=pipe.model.device,
            chunk=chunk,
        ) as engine:
            engine.submit(inputs, row).result()
        assert row.tokens == entry["incremental_prefilling"]["greedy_tokens"]


def with_paths(conversation, root):
    return [
        {**message, "images": [root / "images" / name for name in message.get("images", [])]}
        for message in conversation
    ]


def plain_row(pipe, inputs, **options):
    return Row(
        prompt_ids=inputs.input_ids,
        options=SamplingOptions(**options),
        max_new_tokens=16,
        end_ids=frozenset({pipe.processor.tokenizer.eos_id}),
        hidden_ids=frozenset(),
        decode=pipe.processor.tokenizer.decode,
    )


# Questions, answers, options


def test_the_forms_of_one_question_give_one_answer(pipe, picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    replies = [
        pipe.chat(source, QUESTION, max_new_tokens=8)
        for source in (path, str(path), path.read_bytes(), Image.fromarray(picture), picture, [picture])
    ]
    replies.append(
        pipe.chat(
            messages=[
                {"role": "user", "content": [{"type": "image", "path": path}, {"type": "text", "text": QUESTION}]}
            ],
            max_new_tokens=8,
        )
    )
    replies.append(
        pipe.chat(messages=[{"role": "user", "content": f"<image>\n{QUESTION}", "images": [path]}], max_new_tokens=8)
    )
    assert len({reply.token_ids for reply in replies}) == 1
    assert str(replies[0]) == replies[0].text
    assert replies[0].usage.total_tokens == replies[0].usage.prompt_tokens + 8


def test_text_alone_and_a_system_prompt(pipe):
    plain = pipe.chat(None, "Hello", max_new_tokens=4)
    assert pipe.chat(question="Hello", max_new_tokens=4) == plain
    assert plain.usage.image_tokens == 0
    told = pipe.chat(None, "Hello", system="You are terse.", max_new_tokens=4)
    assert told.usage.prompt_tokens > plain.usage.prompt_tokens


def test_the_pieces_of_a_stream_join_to_the_text_of_chat(pipe, picture):
    stream = pipe.stream(picture, QUESTION, max_new_tokens=24)
    pieces = list(stream)
    reply = pipe.chat(picture, QUESTION, max_new_tokens=24)
    assert "".join(pieces) == reply.text
    assert all(pieces)
    assert stream.reply == reply
    assert stream.reply == reply  # may be asked for again


def test_the_reply_of_a_stream_waits_for_the_rest(pipe, picture):
    stream = pipe.stream(picture, QUESTION, max_new_tokens=12)
    first = next(stream)
    assert stream.reply.text.startswith(first)
    assert stream.reply.usage.completion_tokens == 12
    assert list(stream) == []


def test_a_batch_equals_single_calls_whatever_its_size(pipe, small, picture):
    requests = [
        (picture, QUESTION),
        (None, "Name 3 colours."),
        ([picture, picture[:, ::-1]], "What differs?"),
        [
            {"role": "user", "content": "Tell me a joke."},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Please?"},
        ],
        Request(images=picture[::2], question="Read.", options={"max_new_tokens": 5, "temperature": 0.0}),
    ]
    for model in (pipe, small):
        options = {"max_new_tokens": 12, "temperature": 0.9, "top_p": 0.95, "seed": 5, "logprobs": True}
        together = model.chat_batch(requests, **options)
        assert [reply.usage.completion_tokens for reply in together][-1] <= 5
        for size in (1, 2):
            for a, b in zip(model.chat_batch(requests, batch_size=size, **options), together, strict=True):
                assert a.token_ids == b.token_ids
                assert a.text == b.text
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert together[0].token_ids == model.chat(picture, QUESTION, **options).token_ids


def test_a_batch_keeps_no_more_pixels_than_its_share(pipe, picture, monkeypatch):
    requests = [(np.roll(picture, number, axis=1), QUESTION) for number in range(12)]
    message = parse_messages([{"role": "user", "content": "<image>", "images": [picture]}])
    size, shape = (pixels := pipe.processor.process(message).pixels).nbytes, pixels.shape[1:]
    most = []
    del pixels

    class Count:
        def is_set(self):
            held = {
                found.untyped_storage().data_ptr(): found.untyped_storage().nbytes()
                for found in gc.get_objects()
                if type(found) is torch.Tensor and found.shape[1:] == shape and not found.is_meta
            }
            most.append(sum(held.values()) // size)
            return False

    expected = pipe.chat_batch(requests, max_new_tokens=3)
    monkeypatch.setattr("mm.pipeline.KEPT_PIXEL_BYTES", 4 * size)
    assert pipe.chat_batch(requests, max_new_tokens=3, batch_size=2, cancel=Count()) == expected
    assert 4 <= max(most) <= 4 + 2 + 1  # kept, running, and one more on its way through the encoder
    assert most[-1] <= 2


def test_an_image_that_is_gone_when_its_turn_comes_is_named(pipe, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("mm.pipeline.KEPT_PIXEL_BYTES", 0)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)

    class Remove:
        def is_set(self):
            path.unlink(missing_ok=True)
            return False

    with pytest.raises(ImageError, match=r"^conversation 1: .*a\.png"):
        pipe.chat_batch([(picture, QUESTION), (path, QUESTION)], max_new_tokens=3, batch_size=1, cancel=Remove())


def test_temperature_alone_samples_and_the_seed_decides(pipe, picture):
    def tokens(**options):
        return pipe.chat(picture, QUESTION, max_new_tokens=12, **options).token_ids

    greedy = tokens()
    assert tokens(temperature=0.0) == tokens(temperature=0, top_p=0.5, seed=3) == greedy
    assert tokens(do_sample=False, seed=3) == greedy
    assert tokens(temperature=1.5, seed=3) == tokens(temperature=1.5, seed=3, do_sample=True) != greedy
    assert tokens(temperature=1.5, seed=3) != tokens(temperature=1.5, seed=4)
    assert tokens(temperature=1.5, top_k=1, seed=3) == greedy


def test_logprobs_belong_to_the_tokens(pipe, picture):
    reply = pipe.chat(picture, QUESTION, max_new_tokens=6, logprobs=True)
    assert len(reply.logprobs) == len(reply.token_ids) == 6
    assert all(value <= 0 for value in reply.logprobs)
    assert pipe.chat(picture, QUESTION, max_new_tokens=6).logprobs is None


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(pipe, picture):
    free = pipe.chat(picture, QUESTION, max_new_tokens=24)
    stop = free.text[6:9]
    reply = pipe.chat(picture, QUESTION, max_new_tokens=24, stop=stop)
    assert reply.text == free.text[: free.text.index(stop)]
    assert reply.raw_text == free.raw_text[: free.raw_text.index(stop)]
    assert reply.finish_reason == "stop_string"


def test_special_tokens_of_the_answer_are_read_for_boxes_and_not_shown(pipe, picture):
    tokenizer = pipe.processor.tokenizer
    marked = frozenset({"<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>"})
    ids = tokenizer.encode("<|ref|>dog<|/ref|><|det|>[[0, 0, 999, 500]]<|/det|>", marked)

    class Script:  # lets the model say exactly this
        open = False

        def __init__(self):
            self.left = [*ids, tokenizer.eos_id]

        def allowed(self):
            mask = torch.zeros(pipe.model.decoder.vocab_size, dtype=torch.bool)
            mask[self.left[0]] = True
            return mask

        def advance(self, token):
            assert token == self.left.pop(0)

    def scripted(**options):
        job = pipe._preparing.chat(Request(images=picture, question=QUESTION), parse_options(options))
        job.row.constraint = Script()
        return pipe._answering.stream(job)

    stream = scripted()
    assert "".join(stream) == stream.reply.text == "dog[[0, 0, 999, 500]]"
    assert stream.reply.raw_text == "<|ref|>dog<|/ref|><|det|>[[0, 0, 999, 500]]<|/det|>"
    assert stream.reply.finish_reason == "stop"
    (box,) = stream.reply.boxes
    assert (box.label, box.valid, box.xyxy[2], box.image_index) == ("dog", True, 160, 0)
    assert stream.reply.usage.completion_tokens == len(ids) + 1
    stopped = scripted(stop=["<|/ref|>", "nowhere"]).reply
    assert (stopped.text, stopped.raw_text) == ("dog", "<|ref|>dog<|/ref|>")
    assert stopped.finish_reason == "stop_string"
    cut = scripted(stop=", 999").reply
    assert (cut.text, cut.raw_text) == ("dog[[0, 0", "<|ref|>dog<|/ref|><|det|>[[0, 0")
    assert [box.valid for box in cut.boxes] == [False]
    cut = scripted(stop=["g[["]).reply  # over a special token
    assert (cut.text, cut.raw_text, cut.boxes) == ("do", "<|ref|>do", ())


def test_constrained_boxes_are_all_valid(pipe, picture):
    prompt = "<|grounding|>Find all."
    for seed in range(3):
        reply = pipe.chat(
            picture, prompt, temperature=3.0, seed=seed, max_new_tokens=120, constrain_boxes=True, detect_loops=False
        )
        assert all(box.valid for box in reply.boxes), reply.raw_text
        assert reply.raw_text.count("<|det|>") <= reply.raw_text.count("<|/det|>")


def test_ocr_caption_and_ground_ask_what_the_models_are_trained_on(pipe, picture):
    asked = {task: text.replace("{query}", "the dog") for task, text in TASK_PROMPTS.items()}
    result = pipe.ocr(picture, max_new_tokens=12)
    assert result.reply == pipe.chat(picture, asked["ocr"], max_new_tokens=12)
    assert str(result) == result.text == result.reply.text
    assert all(line and line == line.strip() for line in result.lines)
    one = pipe.caption(picture, max_new_tokens=6)
    assert one == pipe.chat(picture, asked["caption"], max_new_tokens=6)
    both = pipe.caption([picture, picture[::-1]], max_new_tokens=6)
    assert both[0] == one
    assert len(both) == 2
    assert pipe.ground(picture, "the dog", max_new_tokens=6) == pipe.chat(picture, asked["ground"], max_new_tokens=6)


def test_a_query_with_special_tokens_is_plain_text(pipe, picture):
    inside = pipe.ground(picture, "a<|/ref|>b", max_new_tokens=2)
    plain = pipe.ground(picture, "a b", max_new_tokens=2)
    assert inside.usage.prompt_tokens > plain.usage.prompt_tokens + 2


def test_the_default_length_is_clamped_to_the_context_and_ocr_goes_to_its_end(folder, picture):
    pipe = Pipeline.from_pretrained(folder, device="cpu", context=480)
    reply = pipe.chat(picture, QUESTION, detect_loops=False)
    assert reply.usage.total_tokens <= 480
    assert reply.finish_reason in ("length", "stop")
    pipe = Pipeline.from_pretrained(folder, device="cpu", context=1500)
    result = pipe.ocr(picture, detect_loops=False)
    assert result.reply.finish_reason == "length"
    assert result.reply.usage.total_tokens == 1500
    assert result.reply.usage.completion_tokens > 1024


def test_a_context_beyond_the_trained_length_works_with_a_warning(folder, picture):
    with pytest.warns(UserWarning, match="a context of 5000 is more than the 4096 positions that .* was trained for"):
        pipe = Pipeline.from_pretrained(folder, device="cpu", context=5000)
    tiled = np.zeros((1152, 1152, 3), dtype=np.uint8)
    text = "word " * 780
    reply = pipe.chat(tiled, text, max_new_tokens=3)
    assert reply.usage.prompt_tokens > 4096
    assert len(reply.token_ids) == 3


# Cancelling


def test_a_stream_is_cancelled_within_one_step_from_another_thread(pipe, picture):
    stream = pipe.stream(picture, QUESTION, max_new_tokens=3000, detect_loops=False)
    first = next(stream)
    threading.Timer(0.05, stream.cancel).start()
    rest = "".join(stream)
    assert stream.reply.finish_reason == "cancelled"
    assert stream.reply.text == first + rest
    assert 0 < stream.reply.usage.completion_tokens < 3000


def test_a_cancel_token_ends_chat_and_every_row_of_a_batch(pipe, picture):
    token = threading.Event()
    token.set()
    reply = pipe.chat(picture, QUESTION, cancel=token)
    assert (reply.finish_reason, reply.text, reply.token_ids) == ("cancelled", "", ())
    replies = pipe.chat_batch([(picture, QUESTION)] * 3, batch_size=1, cancel=token)
    assert [reply.finish_reason for reply in replies] == ["cancelled"] * 3


class FailsAfter:
    """A cancel token that raises at this call."""

    def __init__(self, calls, error):
        self.calls, self.error = calls, error

    def is_set(self):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return False


@pytest.mark.parametrize("error", [ArithmeticError("here"), KeyboardInterrupt("here")])
def test_an_answer_that_failed_has_no_reply(pipe, picture, error):
    stream, pieces = pipe.stream(picture, QUESTION, max_new_tokens=100, cancel=FailsAfter(6, error)), []
    with pytest.raises(type(error), match="here"):
        pieces.extend(stream)
    assert pieces
    for _ in range(2):
        with pytest.raises(type(error), match="here"):
            _ = stream.reply

    async def read():
        stream = pipe.stream(picture, QUESTION, max_new_tokens=100, cancel=FailsAfter(6, ArithmeticError("here")))
        with pytest.raises(ArithmeticError, match="here"):
            async for _ in stream:
                pass
        with pytest.raises(ArithmeticError, match="here"):
            _ = stream.reply

    asyncio.run(read())


def test_a_batch_ends_with_the_first_that_fails(pipe, picture):
    before = pipe.engine.statistics.decoded_tokens
    requests = [(picture, QUESTION)] * 3
    with pytest.raises(ArithmeticError, match="here"):
        pipe.chat_batch(
            requests, max_new_tokens=3000, detect_loops=False, cancel=FailsAfter(20, ArithmeticError("here"))
        )
    assert pipe.engine.statistics.decoded_tokens - before < 200


def test_calls_from_several_threads_do_not_disturb_each_other(pipe, picture):
    expected = {seed: pipe.chat(picture, QUESTION, max_new_tokens=10, temperature=1.0, seed=seed) for seed in range(4)}
    found = {}

    def ask(seed):
        found[seed] = pipe.chat(picture, QUESTION, max_new_tokens=10, temperature=1.0, seed=seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_ctrl_c_leaves_the_pipeline_usable(pipe, picture):
    expected = pipe.chat(picture, QUESTION, max_new_tokens=8)
    stream = pipe.stream(picture, QUESTION, max_new_tokens=3000, detect_loops=False)
    next(stream)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert stream.reply.finish_reason == "cancelled"
    assert 0 < stream.reply.usage.completion_tokens < 3000
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pipe.chat_batch([(picture, QUESTION)] * 4, batch_size=2, max_new_tokens=3000, detect_loops=False)
    assert pipe.chat(picture, QUESTION, max_new_tokens=8) == expected


def test_an_event_loop_reads_streams(pipe, picture):
    expected = [pipe.chat(picture, question, max_new_tokens=10) for question in (QUESTION, "Why?")]

    async def read(question):
        stream = pipe.stream(picture, question, max_new_tokens=10)
        pieces = [piece async for piece in stream]
        return "".join(pieces), stream.reply

    async def both():
        return await asyncio.gather(read(QUESTION), read("Why?"))

    assert asyncio.run(both()) == [(reply.text, reply) for reply in expected]


def test_a_stream_is_read_in_one_way(pipe, picture):
    stream = pipe.stream(picture, QUESTION, max_new_tokens=5)
    next(stream)

    async def read():
        await anext(stream)

    said = "this stream is read with 'for' already; it cannot be read with 'async for' as well. Ask again"
    with pytest.raises(OptionError, match=said):
        asyncio.run(read())
    assert stream.reply.usage.completion_tokens == 5


def test_a_task_that_is_cancelled_ends_its_answer(pipe, picture):
    async def read(stream):
        async for _ in stream:
            pass

    async def main():
        stream = pipe.stream(picture, QUESTION, max_new_tokens=3000, detect_loops=False)
        task = asyncio.create_task(read(stream))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stream.reply

    reply = asyncio.run(main())
    assert reply.finish_reason == "cancelled"
    assert 0 < reply.usage.completion_tokens < 3000


# Turns


def test_a_second_turn_computes_its_own_tokens_and_no_image_again(folder, small, picture):
    for pipe in (Pipeline.from_pretrained(folder, device="cpu"), small):
        encoded = []
        hook = pipe.model.vision.register_forward_hook(lambda *_, found=encoded: found.append(1))
        first = {"role": "user", "content": f"<image>\n{QUESTION}", "images": [picture]}
        answer = pipe.chat(messages=[first], max_new_tokens=12, detect_loops=False)
        turns = [first, {"role": "assistant", "content": "A red square."}, {"role": "user", "content": "And why?"}]
        encoded.clear()
        before = pipe.engine.statistics.prefilled_tokens
        reply = pipe.chat(messages=turns, max_new_tokens=12)
        hook.remove()
        new = pipe.engine.statistics.prefilled_tokens - before
        assert reply.usage.prompt_tokens - answer.usage.prompt_tokens <= new + 1
        assert new < 40 < answer.usage.prompt_tokens
        assert encoded == []
        with_nothing_known = Pipeline.from_pretrained(pipe.folder, device="cpu")
        assert with_nothing_known.chat(messages=turns, max_new_tokens=12) == reply


def test_nothing_computed_with_old_weights_is_used_after_they_changed(folder, picture):
    def ask(pipe):
        return pipe.chat(picture, QUESTION, max_new_tokens=12, detect_loops=False, logprobs=True)

    def by_optimizer(weight):
        trained = torch.nn.Parameter(weight)
        weight.requires_grad_(True)
        optimizer = torch.optim.SGD([weight], lr=1.0)
        weight.grad = torch.randn(trained.shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
        weight.requires_grad_(False)

    def in_place(weight):
        weight.mul_(1.5)

    def through_data(weight):
        weight.data *= 0.5

    pipe = Pipeline.from_pretrained(folder, device="cpu")
    replies = [ask(pipe)]
    vision = next(p for name, p in pipe.model.vision.named_parameters() if name.endswith("mlp.fc1.weight"))
    decoder = pipe.model.decoder.model.layers[0].mlp.down_proj.weight
    for weight in (vision, decoder):
        for change in (by_optimizer, in_place, through_data):
            change(weight)
            if change is through_data:
                pipe.weights_changed()
            replies.append(ask(pipe))
            assert pipe.engine.statistics.reused_tokens == 0
            assert replies[-1].logprobs != replies[-2].logprobs
            fresh = Pipeline(pipe.model, pipe.processor)
            assert ask(fresh) == replies[-1]
    ask(pipe)
    assert pipe.engine.statistics.reused_tokens > 0


# Refusals, before any work


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, "  "), {}, PromptError, "the question is empty"),
        (("Hello",), {}, PromptError, "no question: got only 'Hello' as an image. Write chat(image, question), or"),
        ((), {}, PromptError, "no question: got neither an image nor a question"),
        ((None, "<image> <image> differ?"), {}, PromptError, "<image>"),
        ((None, "Hi"), {"max_tokens": 5}, OptionError, "unknown option 'max_tokens'. Did you mean 'max_new_tokens'?"),
        ((None, "Hi"), {"temprature": 5}, OptionError, "Did you mean 'temperature'? Known: cancel, constrain_boxes,"),
        ((None, "Hi"), {"temperature": -1}, OptionError, "temperature is -1; expected a number of 0 or more."),
        ((None, "Hi"), {"stop": [""]}, OptionError, "expected a tuple of strings that are not empty"),
        ((None, "Hi"), {"stop": 3}, OptionError, "stop is 3; expected a string or a list of strings"),
        ((None, "Hi"), {"special_tokens": "some"}, PromptError, "special_tokens"),
        ((None, "Hi"), {"system": 3}, OptionError, "system is 3; expected a string."),
        ((None, "Hi"), {"official_images": "yes"}, OptionError, "official_images is 'yes'; expected True or False."),
        ((None, "Hi"), {"cancel": True}, OptionError, "cancel is True; expected an object with is_set()"),
        (("nowhere.png", "Hi"), {}, ImageError, "nowhere.png"),
        ((np.zeros((8, 8, 3), np.uint8), "Hi"), {"max_tiles": 0}, OptionError, "max_tiles"),
    ],
)  # fmt: skip
def test_refusals(pipe, arguments, options, error, message):
    for call in (pipe.chat, pipe.stream):
        with pytest.raises(error, match=re.escape(message)):
            call(*arguments, **options)


def test_messages_are_not_mixed_with_a_question_or_a_second_system_prompt(pipe):
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]
    with pytest.raises(PromptError, match="got both messages= and a question or images"):
        pipe.chat(None, "Hi", messages=messages)
    with pytest.raises(PromptError, match="got both system= and a system message. Leave one of the two out."):
        pipe.chat(messages=messages, system="Be terse.")


def test_a_bad_conversation_of_a_batch_is_named_before_any_work(pipe, picture):
    with pytest.raises(PromptError, match=r"^conversation 1: .*the question is empty"):
        pipe.chat_batch([(picture, QUESTION), (None, "")])
    with pytest.raises(PromptError, match=r"^conversation 0: a batch holds Request objects, .*; got 'Hello'\."):
        pipe.chat_batch(["Hello"])
    with pytest.raises(OptionError, match="conversation 0: cancel holds for the whole batch"):
        pipe.chat_batch([Request(question="Hi", options={"cancel": None})])
    with pytest.raises(OptionError, match="conversation 0: unknown option 'seeds'"):
        pipe.chat_batch([Request(question="Hi", options={"seeds": 3})])
    with pytest.raises(OptionError, match="batch_size is 0; expected a whole number of 1 or more."):
        pipe.chat_batch([(None, "Hi")], batch_size=0)
    assert pipe.chat_batch([]) == []


def test_an_overflow_names_the_tokens_the_limit_and_the_max_tiles_that_fits(folder):
    pipe = Pipeline.from_pretrained(folder, device="cpu", context=1500)
    tiled = np.zeros((1152, 1152, 3), dtype=np.uint8)
    with pytest.raises(ContextOverflowError) as caught:
        pipe.chat(tiled, QUESTION)
    message = str(caught.value)
    match = re.search(r"the prompt takes ([\d,]+) tokens \(([\d,]+) of them for 1 images?\)", message)
    assert int(match.group(1).replace(",", "")) > 1500
    assert "the context of" in message
    assert "is 1,500 tokens" in message
    tiles = int(re.search(r"max_tiles=(\d+) \(--max-tiles \1\)", message).group(1))
    assert pipe.chat(tiled, QUESTION, max_tiles=tiles, max_new_tokens=3).usage.prompt_tokens < 1500
    with pytest.raises(ContextOverflowError):
        pipe.chat(tiled, QUESTION, max_tiles=tiles + 1)


def test_an_overflow_that_no_tiling_mends(folder, picture):
    pipe = Pipeline.from_pretrained(folder, device="cpu", context=500)
    with pytest.raises(ContextOverflowError, match=r"and 900 tokens of answer.* Use max_new_tokens=\d+ or less"):
        pipe.chat(picture, QUESTION, max_new_tokens=900)
    with pytest.raises(ContextOverflowError, match=r"Shorten the text\. A larger context= \(--context\) works.* 4,096"):
        pipe.chat(None, "word " * 600)
    with pytest.raises(ContextOverflowError, match="or use fewer images; no max_tiles fits"):
        pipe.chat([picture] * 3, "Compare.")
    with pytest.raises(ContextOverflowError, match="^conversation 1: the prompt takes"):
        pipe.chat_batch([(None, "Hi"), (None, "word " * 600)])


@pytest.mark.parametrize("context", [0, -5, 2.5, True])
def test_a_context_that_is_no_length(folder, context):
    with pytest.raises(OptionError, match=f"context is {context}; expected a whole number of 1 or more."):
        Pipeline.from_pretrained(folder, device="cpu", context=context)


@pytest.mark.parametrize("number", [0, -1, True, 1.5])
def test_a_number_of_conversations_that_is_none(folder, number):
    with pytest.raises(OptionError, match=f"max_running is {number}; expected a whole number of 1 or more."):
        Pipeline.from_pretrained(folder, device="cpu", max_running=number)


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_pipeline_is_not_copied(pipe, make):
    with pytest.raises(TaskError, match=r"cannot be copied or sent .* Load it there, with Pipeline.from_pretrained"):
        make(pipe)


def test_out_of_memory_says_what_would_fit(folder, picture):
    with pytest.warns(UserWarning, match="a context of"):
        pipe = Pipeline.from_pretrained(folder, device="cpu", context=10**13)
    said = (
        r"out of memory on cpu while answering 1 prompt with 1 image .*GiB are free\. What would fit: max_new_tokens=\d"
    )
    with pytest.raises(ResourceError, match=said):
        pipe.chat(picture, QUESTION, max_new_tokens=10**12)
    assert pipe.chat(picture, QUESTION, max_new_tokens=3).usage.completion_tokens == 3


def test_local_models_need_no_network(folder, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    Pipeline.from_pretrained(folder, device="cpu")


def test_dtype_and_device_are_honoured(folder):
    pipe = Pipeline.from_pretrained(str(folder), device="cpu", dtype="bfloat16")
    assert pipe.model.dtype == torch.bfloat16
    assert len(pipe.chat(None, "Hi", max_new_tokens=3).token_ids) <= 3
    assert Pipeline.from_pretrained(folder, device="cpu").model.dtype == torch.float32
    with pytest.raises(OptionError, match="dtype 'int7' is unknown"):
        Pipeline.from_pretrained(folder, device="cpu", dtype="int7")
