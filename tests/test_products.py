"""Products of the faster library against torch's own. Where the processor is not wide, the library is called all the
same: the numbers must be right on any machine."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mm import products
from mm.config import VisionConfig
from mm.language.attention import attend
from mm.language.moe import Experts
from mm.transforms.fuse import fuse
from mm.transforms.wide import use_wide_products
from mm.vision.encoder import build_siglip
from tests.language.tiny import decoder, moe

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(products, "_is_wide", lambda: True)


@pytest.fixture
def calls(monkeypatch):
    """How often ``linear`` was called."""
    count, linear = [], products.linear

    def counted(*args, **options):
        count.append(1)
        return linear(*args, **options)

    monkeypatch.setattr(products, "linear", counted)
    monkeypatch.setattr("mm.vision.wide_encoder.linear", counted)
    return count


@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_is_what_torch_computes(gelu, with_bias):
    x, weight, bias = torch.randn(2, 50, 24), torch.randn(40, 24), torch.randn(40) if with_bias else None
    expected = F.linear(x, weight, bias)
    with torch.inference_mode():
        found = products.linear(x, weight, bias, gelu=gelu)
    torch.testing.assert_close(found, F.gelu(expected, approximate=gelu) if gelu else expected)


@pytest.mark.parametrize("places", [1, 40, 300, 513])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("share", [1, 3])
def test_attention_is_what_torch_computes(places, causal, share):
    query = torch.randn(places, 6, 8).transpose(0, 1)
    key, value = torch.randn(6 // share, places, 8), torch.randn(places, 6 // share, 5).transpose(0, 1)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=0.3, enable_gqa=True)
    with torch.inference_mode():
        found = products.attention(query, key, value, scale=0.3, causal=causal)
    torch.testing.assert_close(found, expected.transpose(0, 1))


def test_only_plain_float32_without_gradients_is_taken():
    x, weight = torch.randn(products.LEAST_ROWS, 8), torch.randn(8, 8)
    assert not products.suits(x, weight)  # gradients are on
    with torch.inference_mode():
        assert products.suits(x, weight)
        assert not products.suits(x[1:], weight)
        assert not products.suits(x.double(), weight.double())
        assert not products.suits(x.bfloat16(), weight.bfloat16())
        assert not products.suits(x, weight.T)  # the library would be thousands of times slower
        assert not products.suits(x.to("meta"), weight.to("meta"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not products.suits(x, weight)


@pytest.mark.parametrize(
    "bias", [torch.randn(80)[::2], torch.randn(1).expand(40), torch.randn(40).double(), torch.randn(1, 40)]
)
def test_a_bias_that_the_library_would_misread_is_left_to_torch(bias, calls):
    x, weight = torch.randn(64, 24), torch.randn(40, 24)
    with torch.inference_mode():
        try:
            expected = F.linear(x, weight, bias)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="same dtype"):
                products.product(x, weight, bias)
        else:
            torch.testing.assert_close(products.product(x, weight, bias), expected)
    assert not calls


def test_other_classes_of_tensors_go_to_torch(calls):
    class Own(torch.Tensor):
        pass

    x, weight = torch.randn(64, 24), torch.randn(40, 24)
    with torch.inference_mode():
        for given in ((x.as_subclass(Own), weight), (x, weight.as_subclass(Own))):
            assert isinstance(products.product(*given), Own)
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            products.product(x[:, 1:], weight)
    assert not calls


def test_a_compiler_sees_torchs_own_product(calls):
    layer = products.WideLinear(8, 4).requires_grad_(False)
    x = torch.randn(64, 8)
    with torch.inference_mode():  # warnings, such as the compiler's about what it cannot look into, are errors here
        found = torch.compile(layer, backend="eager", fullgraph=True)(x)
        assert not calls
        torch.testing.assert_close(found, layer(x))


def test_a_library_that_has_changed_is_not_used(monkeypatch):
    assert products.is_known()
    plain = products.linear
    monkeypatch.setattr(products, "linear", lambda *given, **options: 2 * plain(*given, **options))
    with pytest.warns(UserWarning, match="without oneDNN in torch .*: it gives other numbers"):
        assert not products.is_known()
    monkeypatch.setattr(products, "linear", lambda *given, gelu: torch.ops.mkldnn._linear_pointwise(*given))
    with pytest.warns(UserWarning, match="without oneDNN in torch .*: RuntimeError: "):
        assert not products.is_known()


def test_lengths_of_prompts_are_few_shapes(monkeypatch):
    shapes, plain = set(), products.linear

    def noted(x, weight, bias=None, **options):
        shapes.add((x.shape, weight.shape))
        return plain(x, weight, bias, **options)

    monkeypatch.setattr(products, "linear", noted)
    weight, bias = torch.randn(4, 8), torch.randn(4)
    with torch.inference_mode():
        for rows in range(products.LEAST_ROWS, 1025):
            x = torch.randn(rows, 8)
            found = products.product(x[None], weight, bias)
            torch.testing.assert_close(found, F.linear(x, weight, bias)[None])
            assert rows <= products.rounded(rows) <= max(rows + products.LEAST_STEP - 1, rows * 1.125)
        assert len(shapes) == 31
        shapes.clear()
        for rows in range(products.LEAST_PLACES, 1025, 3):
            x = torch.randn(1, rows, 8)
            assert products.attention(x, x, x, scale=1.0, causal=True).shape == (rows, 1, 8)
    assert len(shapes) < 50


@pytest.mark.parametrize("places", [products.LEAST_PLACES - 1, products.LEAST_PLACES])
def test_attention_over_few_places_is_torchs(places, calls):
    query, key, value = (torch.randn(2, places, 3, 8) for _ in range(3))
    with torch.inference_mode():
        expected = attend(query, key, value, None, scale=0.3)
        assert not calls
        torch.testing.assert_close(attend(query, key, value, None, scale=0.3, wide=True), expected)
    assert bool(calls) == (places == products.LEAST_PLACES)


def test_layers_keep_names_parameters_and_gradients(calls):
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    before, x = dict(model.named_parameters()), torch.randn(64, 8)
    expected = model(x)
    assert use_wide_products(model) == 2
    assert all(dict(model.named_parameters())[name] is value for name, value in before.items())
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
        assert len(calls) == 2
        model[0].weight += 1  # weights are read as they are
        assert not torch.allclose(model(x), expected)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            torch.testing.assert_close(other(x), model(x))
    model(x).sum().backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
def test_a_tower_gives_what_its_modules_give(gelu, calls):
    config = VisionConfig(image_size=48, patch_size=7, width=48, num_blocks=2, num_heads=3, mlp_width=80, gelu=gelu)
    tower = build_siglip(config).eval().requires_grad_(False)
    for parameter in tower.parameters():
        parameter.normal_(std=0.2)
    pixels = torch.randn(3, 3, 48, 48)
    expected = tower(pixels)
    assert not calls
    assert use_wide_products(tower) == 2 * 4 + 1
    with torch.inference_mode():
        torch.testing.assert_close(tower(pixels), expected, rtol=1e-4, atol=1e-4)
        assert len(calls) > 3 * 2 * 4
        calls.clear()
        tower.blocks[0].mlp.fc1 = nn.Sequential(tower.blocks[0].mlp.fc1)  # as an adapter does
        torch.testing.assert_close(tower(pixels), expected, rtol=1e-4, atol=1e-4)
        assert len(calls) == 2 * 4  # by timm's modules
        double = copy.deepcopy(tower).double()
        torch.testing.assert_close(double(pixels.double()).float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", ["activation", "hook", "hook before"])
def test_a_tower_whose_modules_are_changed_or_watched_goes_through_them(change, calls):
    config = VisionConfig(image_size=48, patch_size=7, width=48, num_blocks=1, num_heads=3, mlp_width=80, gelu="tanh")
    tower = build_siglip(config).eval().requires_grad_(False)
    use_wide_products(tower)
    pixels, seen = torch.randn(1, 3, 48, 48), []
    if change == "activation":
        tower.blocks[0].mlp.act = nn.ReLU()
    elif change == "hook":
        tower.blocks[0].attn.register_forward_hook(lambda *given: seen.append(given))
    else:
        tower.blocks[0].attn.register_forward_pre_hook(lambda *given: seen.append(given))
    with torch.inference_mode():
        torch.testing.assert_close(tower(pixels), tower.plainly(pixels))
    assert len(calls) == 2 * 4  # both times by timm's modules
    assert len(seen) == (0 if change == "activation" else 2)


def test_a_tower_that_is_trained_or_has_another_activation_is_left_alone():
    config = VisionConfig(image_size=48, patch_size=7, width=48, num_blocks=1, num_heads=3, mlp_width=80, gelu="tanh")
    trained, other = build_siglip(config), build_siglip(config).requires_grad_(False)
    other.blocks[0].mlp.act = nn.ReLU()
    for tower in (trained, other):
        use_wide_products(tower)
        assert tower.path is None


def test_experts_one_by_one_are_the_grouped_ones(calls):
    experts = Experts(8, replace(moe(), num_experts=4)).requires_grad_(False)
    x, weights = torch.randn(300, 8), torch.rand(300, 2)
    indices = torch.tensor([[0, 3], [3, 1]]).repeat(150, 1)  # expert 2 gets none
    expected = experts.dense(x, indices, weights)
    with torch.inference_mode():
        torch.testing.assert_close(experts.grouped(x, indices, weights), expected, rtol=1e-5, atol=1e-5)
        assert not calls  # as it is written until it is joined
        experts.join()
        torch.testing.assert_close(experts.grouped(x, indices, weights), expected, rtol=1e-5, atol=1e-5)
    assert len(calls) == 2 * 3


@pytest.mark.parametrize("name", ["gqa-moe", "mla-greedy"])
def test_a_fused_decoder_takes_it_and_a_plain_one_does_not(name, calls):
    model = decoder(name).requires_grad_(False)
    embeds = torch.randn(1, 60, 32)
    with torch.inference_mode():
        expected = model(embeds, cache=model.new_cache(1, 60))
        assert not calls
        fuse(model)
        torch.testing.assert_close(model(embeds, cache=model.new_cache(1, 60)), expected, rtol=1e-4, atol=1e-5)
        assert calls
