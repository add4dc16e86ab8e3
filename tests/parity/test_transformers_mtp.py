"""V3's extra layer: the drafts of transformers, and the tokens of plain greedy decoding."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

from benchmarks import drafting
from mm.errors import OptionError, TaskError, WeightsError
from mm.evaluation.drafting import complete_greedily, complete_with_drafts, measure_drafting
from mm.families.table import load_model
from mm.families.text import load_predictor
from mm.language.decoder import Decoder
from mm.language.prediction import Predictor
from tests.tiny_text import VOCABULARY, random_tensors, raw_config, write_checkpoint, write_weights

PROMPT = torch.randint(0, VOCABULARY, (20,), generator=torch.Generator().manual_seed(4)).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A V3 whose last layer's embedding and head are those of the model, as published."""
    tensors = random_tensors(raw_config("v3"))
    tensors["model.layers.3.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.3.shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return write_weights(tmp_path_factory.mktemp("v3"), raw_config("v3"), tensors)


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Decoder, Predictor]:
    decoder = load_model(folder, device="cpu", dtype="float32").decoder
    return decoder, load_predictor(folder, device="cpu", dtype="float32")


def copy_layer(predictor: Predictor, theirs: nn.Module) -> None:
    """Our weights into transformers' layer, whose own loading knows the 61 layers of the published size only."""
    ours = dict(predictor.state_dict())
    weights = {}
    for name, parameter in theirs.state_dict().items():
        own = name.replace("mtp_block.", "decoder.model.layers.0.").replace("post_norm.", "decoder.model.norm.")
        if own.endswith("experts.gate_up_proj"):
            halves = [ours.pop(own.replace("gate_up", half)) for half in ("gate", "up")]
            weights[name] = torch.cat(halves, dim=1)
        else:
            weights[name] = ours.pop(own)
        assert weights[name].shape == parameter.shape
    theirs.load_state_dict(weights, strict=True)
    assert set(ours) == {"decoder.model.embed_tokens.weight", "decoder.lm_head.weight"}


@pytest.mark.filterwarnings("ignore")  # of transformers, about its own files
def test_drafts_equal_transformers(folder: Path, pair: tuple[Decoder, Predictor]) -> None:
    decoder, predictor = pair
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    theirs = MtpModel(reference, 1).eval()
    copy_layer(predictor, theirs.layers[0])
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        hidden = decoder(decoder.embed(ids[:, :-1]))
        ours = predictor.logits(predictor(ids[:, 1:], hidden))
        last = reference.model(ids[:, :-1]).last_hidden_state
        torch.testing.assert_close(hidden, last, atol=1e-4, rtol=1e-4)
        positions = torch.arange(1, len(PROMPT))[None]  # theirs count from the token's own; only differences matter
        expected = theirs.shared_head(theirs.forward_layer(0, last, positions, None, input_ids=ids[:, 1:]))
    assert expected.std() > 0.1
    assert (ours - expected).abs().max() < 2e-4


def test_cached_drafts_equal_those_of_a_whole_pass(pair: tuple[Decoder, Predictor]) -> None:
    decoder, predictor = pair
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        hidden = decoder(decoder.embed(ids[:, :-1]))
        whole = predictor(ids[:, 1:], hidden)
        cache = predictor.new_cache(1, 32)
        first = predictor(ids[:, 1:11], hidden[:, :10], cache=cache)
        places = torch.arange(10, len(PROMPT) - 1)[None]
        second = predictor(ids[:, 11:], hidden[:, 10:], positions=places, cache=cache, visible=len(PROMPT) - 1)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 24])
def test_tokens_are_those_of_greedy_decoding(count: int, pair: tuple[Decoder, Predictor]) -> None:
    decoder, predictor = pair
    plain, _ = complete_greedily(decoder, PROMPT, count)
    tokens, steps, _ = complete_with_drafts(decoder, predictor, PROMPT, count)
    assert tokens == plain and len(tokens) == count and steps <= count - 1


def agreeing(decoder: Decoder, predictor: Predictor, *, always: bool) -> None:
    """Weights with which what follows depends on the newest token alone; drafts are right always or now and then."""
    embedding = torch.randn(VOCABULARY, decoder.config.hidden_size, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(2))  # what follows a token
    for stack in (decoder, predictor.decoder):
        for name, parameter in stack.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                parameter.zero_()
        stack.model.norm.weight.fill_(1.0)
        stack.model.embed_tokens.weight.copy_(embedding)
        stack.lm_head.weight[order] = embedding
    predictor.enorm.weight.fill_(1.0)
    width = decoder.config.hidden_size
    predictor.eh_proj.weight.copy_(torch.cat((torch.eye(width), torch.zeros(width, width)), dim=1))
    if not always:
        predictor.decoder.lm_head.weight[order[::3]] = 0.0  # a third of the tokens is never drafted


@pytest.mark.parametrize("always", [True, False])
def test_drafts_that_are_right_make_steps_fewer(always: bool, folder: Path) -> None:
    decoder = load_model(folder, device="cpu", dtype="float32").decoder
    predictor = load_predictor(folder, device="cpu", dtype="float32")
    with torch.no_grad():
        agreeing(decoder, predictor, always=always)
    found = measure_drafting(decoder, predictor, PROMPT, 41)
    assert found.equal and len(found.tokens) == 41
    if always:
        assert (found.tokens_per_step, found.accepted) == (2.0, 1.0)
    else:
        assert 1.2 < found.tokens_per_step < 1.9


def test_what_has_no_such_layer(folder: Path, tmp_path: Path, pair: tuple[Decoder, Predictor]) -> None:
    with pytest.raises(TaskError, match="has no layer that predicts further tokens"):
        load_predictor(write_checkpoint(tmp_path / "llm", "llm"), device="cpu")
    tensors = {name: value for name, value in random_tensors(raw_config("v3")).items() if ".hnorm." not in name}
    with pytest.raises(WeightsError, match=r"1 missing: model\.layers\.3\.hnorm\.weight"):
        load_predictor(write_weights(tmp_path / "v3", raw_config("v3"), tensors), device="cpu")
    with pytest.raises(OptionError, match="got 0 prompt tokens and an answer of 9; expected at least 1 and 2"):
        measure_drafting(*pair, [], 9)


def test_the_benchmarks_toy_trains_and_is_measured() -> None:
    toy = drafting.train(2, torch.device("cpu"))
    (found,) = drafting.measure_toy(toy, 1, 8)
    assert found.equal and len(found.tokens) == 8
    assert drafting.report([found]).startswith("1 answers, 8 tokens: 1 equal to greedy decoding")
