"""What a layer asks of the device in a training step: nothing as wide as the model is copied to another dtype."""

from typing import Any

import pytest
import torch
from torch import nn

from hydralora import HydraLoraConfig
from hydralora.tuner.layer import HydraLoraLayer

FEATURES, TOKENS = 320, 24
ROUNDING = 2**-6  # a few roundings to bfloat16's 8 bits
SETTINGS: list[dict[str, Any]] = [
    {},
    {"router_input": "hidden"},
    {"router_input": "hidden", "router_bias": True, "top_k": 2},
    {"shared_A": False},
    {"cores": True},
    {"lora_dropout": 0.1, "head_dropout": 0.1},
]


def make_layer(settings: dict[str, Any], dtype: torch.dtype) -> HydraLoraLayer:
    """A layer whose base alone is of this dtype."""
    torch.manual_seed(0)
    base = nn.Linear(FEATURES, FEATURES, bias=False)
    layer = HydraLoraLayer(base, "default", HydraLoraConfig(r=4, num_heads=3, **settings))
    nn.init.normal_(layer.hydra_B["default"], std=0.05)
    if "cores" in settings:  # as they start, their differences are too small for a gradient of the router's
        nn.init.normal_(layer.hydra_core["default"].get_parameter("weight"))
    base.to(dtype).requires_grad_(False)
    return layer.train()


def gradients(layer: HydraLoraLayer, dtype: torch.dtype, autocast: bool = False) -> tuple[torch.Tensor, Any]:
    torch.manual_seed(1)
    x = torch.randn(2, TOKENS, FEATURES).to(torch.bfloat16)  # the same values in every dtype
    upstream = torch.randn(2, TOKENS, FEATURES).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = layer(x.to(dtype))
    learnt = {name: weight for name, weight in layer.named_parameters() if weight.requires_grad}
    return output, dict(
        zip(learnt, torch.autograd.grad(output, list(learnt.values()), upstream.to(output.dtype)), strict=True)
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings) or "default")
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_float32_but_for_rounding(settings: dict[str, Any], autocast: bool) -> None:
    if "lora_dropout" in settings:
        settings = settings | {"lora_dropout": 0.0, "head_dropout": 0.0}
    exact = make_layer(settings, torch.bfloat16)
    exact.base_layer.to(torch.float32)
    wanted_output, wanted = gradients(exact, torch.float32)
    output, found = gradients(make_layer(settings, torch.bfloat16), torch.bfloat16, autocast)
    assert output.dtype == torch.bfloat16
    assert relative(output, wanted_output) < ROUNDING
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32, name
        assert relative(gradient, wanted[name]) < ROUNDING, name


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.detach().float(), wanted.detach().float()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings) or "default")
@pytest.mark.parametrize("autocast", [False, True])
def test_no_copy_of_the_input_is_kept_in_float32(settings: dict[str, Any], autocast: bool) -> None:
    layer = make_layer(settings, torch.bfloat16)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(2, TOKENS, FEATURES, dtype=torch.bfloat16, requires_grad=True)
    precision = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision:
        layer(x)
    activations = [tensor for tensor in kept if len(tensor.flatten(0, -2)) == 2 * TOKENS]
    assert activations
    assert [
        tensor.shape for tensor in activations if tensor.shape[-1] == FEATURES and tensor.dtype == torch.float32
    ] == []
