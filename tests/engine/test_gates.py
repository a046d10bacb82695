"""Recorded gates: what the routers really used."""

from typing import Any

import pytest
import torch

from hydralora import HydraLoraConfig, record_gates
from hydralora.gates import mean_gates, normalised_entropy
from hydralora.tuner.layer import Router
from hydralora.tuner.model import active_adapter, hydra_layers
from tests.tiny_model import adapt, shake, tiny_llama


@pytest.mark.parametrize("router_input", ["latent", "hidden"])
@torch.no_grad()
def test_recorded_gates_equal_the_formula(router_input: str, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), router_input=router_input, router_bias=True))
    layer = hydra_layers(model)["model.layers.0.mlp.gate_proj"]
    inputs: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with record_gates(model) as record:
        model(ids)
    handle.remove()
    a, router = layer.hydra_A["default"], layer.hydra_router["default"]
    features = inputs[0] if router_input == "hidden" else a(inputs[0])
    wanted = (features @ router.get_parameter("weight").T + router.get_parameter("bias")).softmax(-1)
    torch.testing.assert_close(record.stacked()[record.modules.index("model.layers.0.mlp.gate_proj")], wanted)


def test_modules_come_in_the_models_order(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama(), target_modules=["down_proj", "q_proj"])
    with record_gates(model) as record:
        model(ids)
    assert record.modules == list(hydra_layers(model))
    assert record.modules[0] == "model.layers.0.self_attn.q_proj"


@torch.no_grad()
def test_gates_under_a_kv_cache_equal_those_of_one_full_pass(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    with record_gates(model) as record:
        model(ids)
        whole = record.stacked()
        cache, steps = None, []
        for part in (ids[:, :6], *ids[:, 6:].split(1, dim=1)):
            cache = model(part, past_key_values=cache, use_cache=True).past_key_values
            steps.append(record.stacked())
    assert len(steps) == 5
    torch.testing.assert_close(torch.cat(steps, dim=2), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_mean_gates_ignores_padding(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    mask = torch.zeros(ids.shape, dtype=torch.long)
    for i, length in enumerate((4, 10, 0)):
        mask[i, :length] = 1
    with record_gates(model) as record:
        model(ids, attention_mask=mask)
        padded = mean_gates(record.stacked(), mask.bool())
        model(ids[:1, :4])
        alone = record.stacked().mean(2)  # (modules, 1, N)
    torch.testing.assert_close(padded[:, :1], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded.sum(-1)[:, :2], torch.ones(6, 2))
    assert not padded[:, 2].any()


def tap_count(model: Any) -> int:
    return sum(len(module.taps) for module in model.modules() if isinstance(module, Router))


def test_taps_are_removed_afterwards_and_after_an_error(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama())
    with record_gates(model) as record:
        assert tap_count(model) == 6
    assert tap_count(model) == 0
    model(ids)
    assert record.modules == []
    with pytest.raises(KeyError), record_gates(model):
        raise KeyError
    assert tap_count(model) == 0


def test_the_active_adapters_gates_are_recorded(ids: torch.Tensor) -> None:
    model = adapt(tiny_llama())
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=["up_proj", "gate_proj", "down_proj"]))
    model.set_adapter("second")
    assert {active_adapter(layer) for layer in hydra_layers(model).values()} == {"second"}
    with record_gates(model) as record:
        model(ids)
    assert record.stacked().shape[-1] == 5


def test_entropy_is_a_share_of_its_maximum() -> None:
    gates = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(normalised_entropy(gates), torch.tensor([1.0, 0.0, 0.5]), atol=1e-5, rtol=0)
    assert normalised_entropy(torch.ones(3, 1)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("num_heads", [1, 3])
def test_entropy_stays_on_the_gates_device(num_heads: int) -> None:
    entropy = normalised_entropy(torch.ones(2, 5, num_heads, device="meta"))
    assert (entropy.shape, entropy.device.type) == ((2, 5), "meta")
