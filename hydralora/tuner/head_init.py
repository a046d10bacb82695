"""Heads that start apart, each along what is its component's own in a layer's output."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.component_rows import ROWS_PER_COMPONENT, ComponentRows, TokenRow
from hydralora.tuner.layer import CENTRED_STD
from hydralora.tuner.model import active_adapter, active_router, hydra_layers

PASSES = 1  # over the rows


@torch.no_grad()
def init_heads(
    model: nn.Module,
    rows: Sequence[TokenRow],
    labels: Sequence[int],
    rows_per_component: int = ROWS_PER_COMPONENT,
    on_progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> None:
    """Set head i of every layer along the mean output of component i's tokens, less the mean of all components.

    The heads of a layer sum to zero, so equal gates leave its output as it was. Nearest in print: cluster-aware
    upcycling (2604.13508), whose experts start in their cluster's subspace.

    Args:
        model: a PEFT model with an active HydraLoRA adapter whose heads share one A.
        rows, labels, rows_per_component, on_progress: as for `init_router`; each row is read once.
        seed: of the weights with which the rank's rows share a direction.

    Raises:
        ConfigError: no HydraLoRA layer, one A for each head, or a component without rows.
    """
    layers = hydra_layers(model)
    if not layers:
        raise ConfigError("init_heads: the model has no HydraLoRA layer. Call get_peft_model with a HydraLoraConfig.")
    first = next(iter(layers.values()))
    adapter = first.adapters[active_adapter(first)]
    if not adapter.shared_A:
        raise ConfigError("init_heads: every head has its own A, so heads can't sum to zero. Use head_init='zeros'.")
    num_heads = active_router(first).num_heads
    reading = ComponentRows("init_heads", model, rows, labels, num_heads, rows_per_component, PASSES, on_progress)
    sums = {name: torch.zeros(num_heads, layer.out_features) for name, layer in layers.items()}
    counts = {name: torch.zeros(num_heads, 1) for name in layers}

    def add(name: str, component: int, outputs: torch.Tensor) -> None:
        sums[name][component] += outputs.sum(0).cpu()
        counts[name][component] += len(outputs)

    reading.read_outputs({name: cast(nn.Module, layer.get_base_layer()) for name, layer in layers.items()}, add)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in layers.items():
        means = sums[name] / counts[name]  # (N, out)
        directions = means - means.mean(0)
        heads = layer.hydra_B[active_adapter(layer)]  # (N, r, out)
        weights = torch.randn(heads.shape[1], 1, generator=generator)  # (r, 1), the same for every head
        size = directions.square().mean().sqrt().clamp_min(torch.finfo(directions.dtype).tiny)
        heads.copy_(CENTRED_STD * weights * (directions / size).unsqueeze(1))
