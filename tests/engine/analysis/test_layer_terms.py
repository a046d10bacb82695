"""The terms of a layer's sum, against the layer itself."""

from typing import Any

import pytest
import torch

from hydralora import ConfigError, HydraLoraConfig, record_gates
from hydralora.analysis.layer_terms import MOST_TOKENS, layer_pass, layer_terms, products
from hydralora.tuner.gates import recorded_layers
from hydralora.tuner.model import active_adapter
from hydralora.tuner.steering import Steering, steered
from tests.tiny_model import adapt, shake, tiny_gpt2, tiny_llama

TEXT = list(range(10, 34))
MODULE = "model.layers.1.mlp.down_proj"
WAYS = [
    pytest.param({}, id="shared A"),
    pytest.param({"router_input": "hidden"}, id="the router reads x"),
    pytest.param({"shared_A": False}, id="each head its own A"),
    pytest.param({"router": "uniform"}, id="equal gates"),
    pytest.param({"top_k": 2}, id="two heads a token"),
]


def model_with(**options: Any) -> Any:
    return shake(adapt(tiny_llama(), num_heads=4, **options))


@pytest.mark.parametrize("options", WAYS)
@torch.no_grad()
def test_the_terms_add_up_to_the_layers_output(options: dict[str, Any]) -> None:
    model = model_with(**options)
    layer, seen = recorded_layers(model)[MODULE], layer_pass(model, MODULE, TEXT)
    scaling = layer.scaling[active_adapter(layer)]
    whole = layer.base_layer(seen.x)
    for i, product in enumerate(products(layer, seen.x)):
        whole = whole + scaling * seen.gates[:, i : i + 1] * product
    torch.testing.assert_close(whole, layer(seen.x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, seen.y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", WAYS)
@torch.no_grad()
def test_norms_and_gates_are_those_of_the_pass(options: dict[str, Any]) -> None:
    model = model_with(**options)
    terms = layer_terms(model, MODULE, TEXT)
    with record_gates(model) as record:
        model(torch.tensor([TEXT]))
    gates = record.stacked()[record.modules.index(MODULE), 0]
    layer, seen = recorded_layers(model)[MODULE], layer_pass(model, MODULE, TEXT)
    base = layer.base_layer(seen.x)
    assert (terms.in_features, terms.out_features, terms.num_heads) == (layer.in_features, layer.out_features, 4)
    assert len(terms.tokens) == len(TEXT)
    for t, token in enumerate(terms.tokens):
        torch.testing.assert_close(torch.tensor([head.gate for head in token.heads]), gates[t])
        assert token.x == pytest.approx(float(seen.x[t].norm()), rel=1e-5)
        assert token.base == pytest.approx(float(base[t].norm()), rel=1e-5)
        assert token.output == pytest.approx(float(seen.y[t].norm()), rel=1e-5)
        assert token.change == pytest.approx(float((seen.y[t] - base[t]).norm()), rel=1e-3, abs=1e-6)
        for head in token.heads:
            assert head.added == pytest.approx(terms.scaling * head.gate * head.product, rel=1e-4, abs=1e-9)


@torch.no_grad()
def test_a_pinned_head_adds_its_own_product_alone() -> None:
    """The layer's own formula, with one gate of 1, gives what `products` gives."""
    model = model_with()
    layer, seen = recorded_layers(model)[MODULE], layer_pass(model, MODULE, TEXT)
    base, scaling = layer.base_layer(seen.x), layer.scaling[active_adapter(layer)]
    for i, product in enumerate(products(layer, seen.x)):
        with steered(model, Steering(pin=i)):
            torch.testing.assert_close(base + scaling * product, layer(seen.x), atol=1e-5, rtol=1e-5)


def test_a_convolution_of_gpt2_has_terms() -> None:
    model = shake(adapt(tiny_gpt2(), num_heads=2, target_modules=["c_fc"]))
    terms = layer_terms(model, "transformer.h.0.mlp.c_fc", TEXT)
    assert (terms.in_features, terms.out_features) == (48, 192)
    assert all(token.change <= sum(head.added for head in token.heads) + 1e-5 for token in terms.tokens)


def test_what_can_not_be_shown_is_refused() -> None:
    model = model_with()
    with pytest.raises(ConfigError, match="no layer of this model"):
        layer_terms(model, "model.layers.0.mlp", TEXT)
    with pytest.raises(ConfigError, match=f"1 to {MOST_TOKENS}"):
        layer_terms(model, MODULE, [])
    with pytest.raises(ConfigError, match=f"{MOST_TOKENS + 1} tokens"):
        layer_terms(model, MODULE, [10] * (MOST_TOKENS + 1))


def test_a_model_without_heads_has_no_terms() -> None:
    with pytest.raises(ConfigError, match="no layer of this model"):
        layer_terms(tiny_llama(), MODULE, TEXT)
    assert HydraLoraConfig().num_heads  # the import registers the tuner
