"""Products made one give what the separate ones give, and leave names, files and later changes as they were."""

import copy

import pytest
import torch

from mm.language.joint import WithJoint
from mm.language.moe import Experts
from mm.transforms.fuse import fuse, unfuse
from mm.transforms.quantize import quantize
from tests.language.tiny import VARIANTS, decoder


@torch.no_grad()
def run(model):
    """Prefill of two rows, and three steps behind it."""
    cache = model.new_cache(2, 24)
    generator = torch.Generator().manual_seed(1)
    found = [model(torch.randn(2, 9, 32, generator=generator), cache=cache)]
    for position in range(9, 12):
        positions = torch.tensor([[position], [position]])
        found.append(model(torch.randn(2, 1, 32, generator=generator), positions=positions, cache=cache, visible=16))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fused_decoder_computes_the_same_from_no_more_memory(name):
    model = decoder(name)
    before, weights = run(model), {key: value.clone() for key, value in model.state_dict().items()}
    joints = sum(isinstance(module, (WithJoint, Experts)) for module in model.modules())
    assert fuse(model) == joints
    assert fuse(model) == 0  # what is fused stays
    torch.testing.assert_close(run(model), before)
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in weights.items()}
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert sum(storages.values()) == sum(weight.nbytes for weight in model.parameters())
    unfuse(model)
    assert all(p.untyped_storage().nbytes() == p.nbytes and p.is_contiguous() for p in model.parameters())
    assert torch.equal(run(model), before)


def test_changes_in_place_reach_the_common_product(tmp_path):
    model, plain = decoder("mla-lora-yarn-noaux"), decoder("mla-lora-yarn-noaux", seed=3)
    fuse(model)
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(run(model), run(plain))


@pytest.mark.parametrize("change", ["assign", "copy", "double"])
def test_parameters_that_went_elsewhere_are_used_as_they_are(change):
    model, other = decoder("gqa-moe"), decoder("gqa-moe", seed=3)
    fuse(model)
    if change == "assign":
        model.load_state_dict(other.state_dict(), assign=True)
    elif change == "copy":
        model = copy.deepcopy(model)
        model.load_state_dict(other.state_dict())
    else:
        model.double().float()
        model.load_state_dict(other.state_dict())
    model.requires_grad_(False)
    joint = model.model.layers[0].mlp.joint
    assert joint.holds(model.model.layers[0].mlp.joined) == (change == "double")
    torch.testing.assert_close(run(model), run(other))
    assert (fuse(model) > 0) == (change != "double")  # it was made anew with the change of type
    torch.testing.assert_close(run(model), run(other))


def test_gradients_reach_parameters_that_are_trained_after_all():
    model = decoder("mla-greedy")
    fuse(model)
    model.requires_grad_(True)
    model(torch.randn(1, 5, 32)).square().sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "self_attn" in name or "mlp.g" in name)
    assert fuse(model) == 0


@pytest.mark.parametrize("small", [False, True])
def test_an_adapter_around_a_layer_takes_part(small):
    class Adapter(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer
            self.more = torch.nn.Linear(layer.in_features, layer.out_features)

        def forward(self, x):
            return self.layer(x) + self.more(x)

    model, plain = (decoder("gqa-moe").requires_grad_(False) for _ in range(2))
    fuse(model)
    if small:
        quantize(model)
        quantize(plain)
    torch.testing.assert_close(run(model), run(plain))
    for module in (model, plain):
        torch.manual_seed(4)
        layer = module.model.layers[0]
        layer.self_attn.v_proj, layer.mlp.up_proj = Adapter(layer.self_attn.v_proj), Adapter(layer.mlp.up_proj)
    torch.testing.assert_close(run(model), run(plain))
    fuse(model)
    torch.testing.assert_close(run(model), run(plain))


def test_a_layer_of_another_kind_is_left_alone():
    class Other(torch.nn.Linear):
        pass

    model = decoder("mha-dense")
    attention = model.model.layers[0].self_attn
    attention.q_proj = Other(32, 32, bias=False)
    attention.q_proj.requires_grad_(False)
    fuse(model)
    assert attention.joint is None and model.model.layers[1].self_attn.joint is not None
