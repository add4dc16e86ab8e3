"""Training of a Janus and of its image tokenizer: the same ids and embeddings as inference, and toy runs that learn."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mm.chat import Message, TextPart, user_message
from mm.errors import ConfigError
from mm.families.table import build_model, load_config, load_model, load_processor
from mm.generation.vq import to_pixels
from mm.synthetic.render import render
from mm.synthetic.sample import Sample
from mm.training.compilation import compile_blocks
from mm.training.drawing_data import PairEncoder, PictureEncoder, object_map
from mm.training.drawing_objective import DrawingObjective
from mm.training.feed import to_device
from mm.training.gradients import Gradients, Passes
from mm.training.loop import train
from mm.training.objective import initialize
from mm.training.ranks import Ranks
from mm.training.recipe import BucketRecipe, DrawingLossRecipe, TokenizerLossRecipe, load_recipe
from mm.training.ring import EncodedSample, Rows
from mm.training.session import Session
from mm.training.subject import subject_of, take_vision
from mm.training.tokenizer_objective import TokenizerObjective

CONFIGS = Path(__file__).parents[2] / "configs"
NANO = CONFIGS / "nano-janus"
LOSS = DrawingLossRecipe(
    drawn_length=304,
    condition_dropout=0.0,
    text=0.5,
    length_power=-0.5,
    patch_start=0.3,
    patch_end=0.1,
    patch_blank=0.2,
    codes_from_tokenizer=True,
    vision_from=None,
)
BUCKETS = (BucketRecipe(views=2, length=704, rows=2), BucketRecipe(views=2, length=800, rows=2))
CPU = (
    "data.workers=0",
    "data.ring_gib=0.05",
    "evaluation.samples=2",
    "run.precision=float32",
    "run.compile=false",
    "run.cuda_graphs=false",
    "run.ema_decay=0",
    "run.log_seconds=0",
    "schedule.train_seconds=null",
)


@pytest.fixture(scope="session")
def toy_janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano-janus's files with narrow parts."""
    folder = Path(shutil.copytree(NANO, tmp_path_factory.mktemp("toy") / "janus"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["params"] |= {"width": 64, "layers": 2, "heads": 2, "mlp_ratio": 2.0}
    config["language_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
    }
    config["aligner_config"]["params"] |= {"input_dim": 64, "n_embed": 64}
    config["gen_aligner_config"]["params"] |= {"n_embed": 64}
    config["gen_head_config"]["params"] |= {"n_embed": 64, "image_token_embed": 64, "image_token_size": 64}
    config["gen_vision_config"]["params"] |= {"ch": 32, "z_channels": 32, "image_token_size": 64}
    config["gen_vision_config"]["params"] |= {"encoder_ch_mult": [1, 1, 1, 1], "decoder_ch_mult": [1, 1, 1, 1]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def objective(toy_janus: Path) -> DrawingObjective:
    torch.manual_seed(0)
    model = build_model(load_config(toy_janus), device="cpu")
    objective = DrawingObjective(model, LOSS, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    generator = torch.Generator().manual_seed(0)
    initialize(objective, generator)
    with torch.no_grad():  # away from the zeros of a fresh model, which would hide mistakes
        for parameter in objective.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return objective.train()


def encoder(dropout: float = 0.0, buckets: tuple[BucketRecipe, ...] = BUCKETS) -> PairEncoder:
    processor = load_processor(NANO)
    return PairEncoder(
        processor,  # type: ignore[arg-type]
        grid=16,
        num_codes=256,
        drawn_length=304,
        condition_dropout=dropout,
        buckets=buckets,
    )


def pair(seed: int) -> Sample:
    return render("drawing_pair", np.random.default_rng(seed), None)  # type: ignore[arg-type]


def rows_of(*samples: EncodedSample) -> Rows:
    def stack(name: str, fill: int) -> np.ndarray[Any, Any]:
        arrays = [getattr(sample, name) for sample in samples]
        longest = max(len(array) for array in arrays)
        out = np.full((len(samples), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    kinds = np.zeros(len(samples), np.uint8)
    return Rows(stack("views", 0), stack("characters", 255), stack("source", -5), stack("labels", -1), kinds)


def test_the_nano_model_fits_in_the_box() -> None:
    model = build_model(load_config(NANO), device="meta")
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 31_800_000
    processor = load_processor(NANO)
    assert processor.tokenizer.vocab_size == 512
    for text in ("two red circles left of a blue star", "Grüße 7!\n"):
        prompt = processor.drawing_prompt(text)
        inner = prompt.conditional[1:-1].tolist()
        assert text in processor.tokenizer.decode(inner)
    assert len(processor.drawing_prompt("two red circles left of a blue star on a yellow background").conditional) < 25


def test_embeddings_and_labels_are_those_of_inference(objective: DrawingObjective) -> None:
    processor, samples = load_processor(NANO), [pair(1), pair(2)]
    encoded = [encoder().encode(sample, 0, 1) for sample in samples]
    assert all(found is not None for found in encoded)
    batch, _ = to_device(rows_of(*(found[1] for found in encoded if found is not None)), torch.device("cpu"))
    model = objective.model
    assert model.image_head is not None
    with torch.no_grad():
        features = model.vision((batch.views[:, 1].permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        seen = objective._embeds(model.adaptor(features), batch.source[:, 304:], skip=0)
        pixels = batch.views[:, 0].permute(0, 3, 1, 2) / 255
        codes = objective.tokenize(pixels)
        drawn = objective._embeds(model.image_head.embed(codes), batch.source[:, :304], skip=256)
        for row, sample in enumerate(samples):
            left, right = sample.image.crop((0, 0, 128, 128)), sample.image.crop((128, 0, 256, 128))
            messages = []
            for index, turn in enumerate(sample.turns):
                images = [right] if index == 0 else []
                messages += [user_message(turn.question, images), Message("assistant", (TextPart(turn.answer),))]
            inputs = processor.process(messages, training=True)
            torch.testing.assert_close(seen[row, : inputs.num_tokens], model.embed_inputs([inputs])[0])
            assert inputs.labels is not None
            wanted = inputs.labels.masked_fill(inputs.labels == -100, -1)
            assert torch.equal(batch.labels[row, 304 : 304 + inputs.num_tokens].long(), wanted)
            prompt = processor.drawing_prompt(sample.fields["prompt"])
            truth = model.image_head.vq.encode(to_pixels(np.asarray(left)))
            assert (codes[row] == truth[0]).float().mean() > 0.95  # fresh weights, many near ties
            expected = torch.cat((model.decoder.embed(prompt.conditional), model.image_head.embed(codes[row])))
            torch.testing.assert_close(drawn[row, : len(expected)], expected)


def test_the_loss_of_the_codes_is_that_of_the_image_head(objective: DrawingObjective) -> None:
    sample = pair(3)
    found = encoder().encode(sample, 0, 1)
    assert found is not None
    batch, _ = to_device(rows_of(found[1]), torch.device("cpu"))
    model, prompt = objective.model, load_processor(NANO).drawing_prompt(sample.fields["prompt"])
    assert model.image_head is not None
    with torch.no_grad():
        losses = objective(batch, 0.2)
        codes = objective.tokenize(batch.views[:, 0].permute(0, 3, 1, 2) / 255)
        embeds = torch.cat((model.decoder.embed(prompt.conditional[None]), model.image_head.embed(codes)), dim=1)
        hidden = model.decoder(embeds)[:, len(prompt.conditional) - 1 : -1]
        entropy = torch.nn.functional.cross_entropy(model.image_head.logits(hidden)[0], codes[0])
    torch.testing.assert_close(losses.codes, entropy)
    total = losses.codes + 0.5 * losses.answer + 0.2 * losses.patches
    torch.testing.assert_close(losses.total, total)
    assert int(losses.row_tokens[0]) == 256 + int((batch.labels >= 0).sum())


def test_a_share_of_the_prompts_is_unconditional() -> None:
    dropping, pad = encoder(dropout=0.3), load_processor(NANO).pad_id  # type: ignore[attr-defined]
    dropped = 0
    for seed in range(60):
        found = dropping.encode(pair(seed), 0, 1)
        assert found is not None
        inner = found[1].source[1:6]
        dropped += bool((inner == -3 - pad).all())
    assert 6 <= dropped <= 32


def test_pairs_that_fit_nowhere_and_buckets_that_do_not_suit() -> None:
    sample = pair(4)
    assert encoder(buckets=(BucketRecipe(views=2, length=600, rows=2),)).encode(sample, 0, 1) is None
    with pytest.raises(ConfigError, match="got 1 views and length 704; this recipe's loss needs 2 views"):
        encoder(buckets=(BucketRecipe(views=1, length=704, rows=2),))
    with pytest.raises(ConfigError, match="needs 1 views and a length of at least 1"):
        PictureEncoder(128, 16, BUCKETS)


def test_the_map_of_objects() -> None:
    objects = np.array([[3 * 12 + 4, 9.0, 17.0, 30.0, 40.5]], dtype=np.float32)
    labels = object_map(objects, 16, 8.0)
    assert labels[2:6, 1:4].reshape(-1, 2).tolist() == [[4, 5]] * 12
    assert int((labels[..., 0] > 0).sum()) == 12


def test_toy_runs_learn_and_chain(toy_janus: Path, tmp_path: Path) -> None:
    """Tokenizer first, then the rest on its frozen codes, as the recipes are run."""
    small = ("data.buckets=[{views: 1, length: 1, rows: 2}]", "data.prefill=2", "schedule.max_steps=17")
    average = ("run.ema_decay=0.5", "loss.reseed_steps=5")  # evaluated before and after the weights change places
    recipe = load_recipe(CONFIGS / "nano_janus_vq.yaml", (f"model={toy_janus}", *CPU, *small, *average))
    summary = train(recipe, Session(out=tmp_path / "vq", device="cpu"), say=lambda line: None)
    log = [json.loads(line) for line in (tmp_path / "vq" / "train_log.jsonl").read_text().splitlines()]
    assert log[-1]["reconstruction"] < 0.9 * log[0]["reconstruction"]
    assert set(summary["evaluation"]["drawing_shades"]) >= {"psnr", "perplexity", "used", "token_error"}
    assert summary["evaluation_average"].keys() == summary["evaluation"].keys()

    small = ("data.buckets=[{views: 2, length: 704, rows: 2}]", "data.prefill=2", "schedule.max_steps=17")
    overrides = (f"model={toy_janus}", *CPU, *small, "loss.vision_from=null", "evaluation.samples=1")
    recipe = load_recipe(CONFIGS / "nano_janus.yaml", overrides)
    session = Session(out=tmp_path / "out", state=tmp_path / "state", warm_start=tmp_path / "vq", device="cpu")
    train(recipe, session, say=lambda line: None)
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert log[-1]["codes"] < 0.95 * log[0]["codes"] and log[-1]["answer"] < 0.95 * log[0]["answer"]
    trained, before = (load_model(tmp_path / name, device="cpu", dtype=torch.float32) for name in ("out", "vq"))
    assert trained.image_head is not None and before.image_head is not None
    pairs = zip(trained.image_head.vq.parameters(), before.image_head.vq.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert (tmp_path / "state" / "state.pt").exists()


def test_an_evaluation_that_fails_costs_no_weights(
    toy_janus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mm.training.loop._Run._evaluate", fail)
    small = ("data.buckets=[{views: 1, length: 1, rows: 2}]", "data.prefill=2", "schedule.max_steps=1")
    recipe = load_recipe(CONFIGS / "nano_janus_vq.yaml", (f"model={toy_janus}", *CPU, *small))
    with pytest.raises(RuntimeError, match="out of memory"):
        train(recipe, Session(out=tmp_path, device="cpu"), say=lambda line: None)
    assert load_model(tmp_path, device="cpu", dtype=torch.float32).image_head is not None


def test_dead_codes_are_moved_to_vectors_of_pictures(toy_janus: Path) -> None:
    loss = load_recipe(CONFIGS / "nano_janus_vq.yaml").loss
    assert isinstance(loss, TokenizerLossRecipe)
    torch.manual_seed(0)
    objective = TokenizerObjective(build_model(load_config(toy_janus), device="cpu"), loss)
    found = PictureEncoder(128, 16, (BucketRecipe(views=1, length=1, rows=1),)).encode(
        render("drawing", np.random.default_rng(0), None),  # type: ignore[arg-type]
        0,
        1,
    )
    assert found is not None
    batch, _ = to_device(rows_of(found[1]), torch.device("cpu"))
    losses = objective(batch, 1.0)
    dead = objective.counts == 0
    book = objective.vq[0].get_parameter("quantize.embedding.weight")
    before = book.detach().clone()
    objective.after_step(loss.reseed_steps + 1, 0.1, Ranks())
    objective.after_step(loss.reseed_steps, 0.9, Ranks())
    assert torch.equal(book, before)
    objective.after_step(loss.reseed_steps, 0.1, Ranks())
    assert dead.any() and torch.equal(book[~dead], before[~dead])
    assert not torch.equal(book[dead], before[dead]) and int(objective.counts.sum()) == 0
    assert float(losses.used) == pytest.approx(1 - float(dead.float().mean()))


def test_no_graph_of_one_pass_lives_on_in_the_next(toy_janus: Path) -> None:
    """On CUDA a node that does accumulates on the stream where it was made, and the next pass cannot be captured."""
    loss = load_recipe(CONFIGS / "nano_janus_vq.yaml").loss
    assert isinstance(loss, TokenizerLossRecipe)
    torch.manual_seed(0)
    objective = TokenizerObjective(build_model(load_config(toy_janus), device="cpu"), loss)
    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    encoder = PictureEncoder(128, 16, (BucketRecipe(views=1, length=1, rows=1),))
    found = encoder.encode(render("drawing", np.random.default_rng(0), None), 0, 1)  # type: ignore[arg-type]
    assert found is not None
    batch, _ = to_device(rows_of(found[1]), torch.device("cpu"))
    passes = Passes(objective, Gradients(list(parameters.values())), autocast=False)
    objective.pictured()  # as compilation does
    for step in range(2):
        for parameter in parameters.values():
            node_of(parameter).metadata["step"] = step  # lost with the node
        kept = passes(0, batch, 1.0)
        assert kept.total.grad_fn is None
        assert [name for name, p in parameters.items() if node_of(p).metadata] == []


def node_of(parameter: torch.nn.Parameter) -> Any:
    """What accumulates a parameter's gradient: the one that lives, or a new one."""
    return torch.autograd.graph.get_gradient_edge(parameter).node


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch 2.11's compiler looks
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_compiled_and_captured_tokenizer_learns_what_the_plain_one_does(toy_janus: Path) -> None:
    loss = load_recipe(CONFIGS / "nano_janus_vq.yaml").loss
    assert isinstance(loss, TokenizerLossRecipe)
    torch.manual_seed(0)
    objective = TokenizerObjective(build_model(load_config(toy_janus), device="cpu"), loss).cuda()
    buckets = (BucketRecipe(views=1, length=1, rows=2),)
    made = [
        PictureEncoder(128, 16, buckets).encode(render("drawing", np.random.default_rng(i), None), 0, 1) for i in (1, 2)
    ]  # type: ignore[arg-type]
    batch, _ = to_device(rows_of(*(found[1] for found in made if found is not None)), torch.device("cuda"))
    gradients = Gradients([p for p in objective.parameters() if p.requires_grad])
    passes = Passes(objective, gradients, autocast=False)
    total, flat = passes(0, batch, 0.0).total.clone(), gradients.flat.clone()
    compile_blocks(objective)
    passes.capture([batch])
    torch.testing.assert_close(passes(0, batch, 0.0).total, total, rtol=1e-3, atol=0.0)
    assert (gradients.flat - flat).norm() < 2e-2 * flat.norm()


def test_an_encoder_is_taken_over_and_one_that_does_not_fit_is_refused(toy_janus: Path) -> None:
    model = build_model(load_config(NANO), device="cpu")
    take_vision(model, "nano-vl2")
    theirs = load_model(Path(str(NANO.parents[1] / "mm" / "nano" / "nano-vl2")), device="cpu", dtype=torch.float32)
    name = "blocks.4.mlp.fc1.weight"
    assert torch.equal(model.vision.state_dict()[name], theirs.vision.state_dict()[name])
    grid = theirs.vision.state_dict()["pos_embed"].unflatten(1, (24, 24))[0, 4:20, 4:20]
    assert torch.equal(model.vision.state_dict()["pos_embed"][0], grid.flatten(0, 1))
    with pytest.raises(ConfigError, match="the encoder of nano-vl2 does not fit this model's: pos_embed"):
        take_vision(build_model(load_config(toy_janus), device="cpu"), "nano-vl2")


def test_code_embeddings_begin_as_the_codebook(toy_janus: Path) -> None:
    recipe = load_recipe(CONFIGS / "nano_janus.yaml", ("loss.vision_from=null",))
    subject = subject_of(recipe, toy_janus)
    objective = subject.build(build_model(load_config(toy_janus), device="cpu"))
    head = objective.model.image_head
    assert head is not None and not torch.equal(head.embedding.weight, head.vq.codebook())
    subject.begin(objective)
    assert torch.equal(head.embedding.weight, head.vq.codebook())


def test_a_recipe_for_another_family_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe(CONFIGS / "nano_janus.yaml", ("model=nano-vl2",))
    with pytest.raises(ConfigError, match="nano-vl2 is no model that draws, but the recipe's loss is for one"):
        train(recipe, Session(out=tmp_path / "out", device="cpu"))
