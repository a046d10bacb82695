"""The published formulation, a loop over heads: the reference for tests of the layer, and a rival in the bench."""

from typing import Any

import torch
from torch import nn

from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import active_adapter, hydra_layers


class LoopLayer(nn.Module):
    """y = base(x) + scale * sum_i gates_i * B_i(A(dropout(x))), with A and dropout computed again for every head.

    As in the published code (github.com/Clin0212/HydraLoRA), with the weights of one of our layers.
    """

    def __init__(self, layer: HydraLoraLayer) -> None:
        super().__init__()
        name = active_adapter(layer)
        self.base_layer = layer.base_layer
        self.A: Any = layer.hydra_A[name]
        self.heads = nn.ModuleList(_linear(head.T) for head in layer.hydra_B[name])
        self.router: Any = layer.hydra_router[name]
        self.dropout = nn.Dropout(layer.adapters[name].lora_dropout)
        self.reads_input = layer.adapters[name].reads_input
        self.scaling = layer.scaling[name]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out), in the base layer's dtype; the adapter computes in its own, as in PEFT's LoRA."""
        result = self.base_layer(x)
        dtype, x = result.dtype, x.to(self.A.weight.dtype)
        features = x if self.reads_input else self.A(self.dropout(x))
        gates = torch.softmax(self.router.logits(features), dim=-1)  # (..., N)
        for i, head in enumerate(self.heads):
            result = result + gates[..., i].unsqueeze(-1) * head(self.A(self.dropout(x))) * self.scaling
        return result.to(dtype)


def loop_over_heads(model: Any) -> Any:
    """Replace every adapted layer of `model` by a LoopLayer with the same weights, and return the model."""
    for name, layer in hydra_layers(model).items():
        parent, _, child = name.rpartition(".")
        base = model.get_base_model()
        setattr(base.get_submodule(parent), child, LoopLayer(layer))
    return model


def _linear(weight: torch.Tensor) -> nn.Linear:
    """A linear layer with a copy of this weight (out, r)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    return layer
