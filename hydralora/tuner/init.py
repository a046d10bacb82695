"""The router started from the data's components, so that heads have something to differ by from the first step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.layer import HydraLoraLayer, Router
from hydralora.tuner.model import active_router, hydra_layers

ROWS_PER_COMPONENT = 24
SHRINKAGE = 0.1  # share of the mean variance mixed into every feature's variance
ENTROPY_TOLERANCE = 1e-3


@torch.no_grad()
def init_router(
    model: nn.Module,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[int],
    entropy: float = 0.6,
    rows_per_component: int = ROWS_PER_COMPONENT,
) -> dict[str, float]:
    """Set every router's weight and bias so that head i answers to component i.

    The inputs that each router reads on a few rows of every component are collected in one pass per row; class means
    and the pooled, shrunken variance of every feature give a diagonal linear discriminant, whose scores one scalar
    per layer scales until the mean normalised gate entropy is `entropy`. The router stays trainable.

    Args:
        model: a PEFT model with an active HydraLoRA adapter that has a router bias.
        rows: tokenised training rows: `input_ids` (tokens,), and optionally `positions`, the indices of the tokens
            to look at (all by default).
        labels: the component of each row, 0 to num_heads - 1; other labels (noise) are left out.
        entropy: target share of the maximum entropy, between 0 and 1; 1 would be uniform gates.
        rows_per_component: how many rows of each component are read.

    Returns:
        The normalised gate entropy reached, by module name.

    Raises:
        ConfigError: no HydraLoRA layer, no router bias, a component without rows, or entropy outside (0, 1).
    """
    layers = hydra_layers(model)
    _check(layers, rows, labels, entropy)
    num_heads = len(active_router(next(iter(layers.values()))).weight)
    chosen = _choose(labels, num_heads, rows_per_component)
    features = _collect(model, layers, rows, chosen)
    return {name: _start(active_router(layer), features[name], entropy) for name, layer in layers.items()}


def _check(layers: dict[str, HydraLoraLayer], rows: Sequence, labels: Sequence[int], entropy: float) -> None:
    if not layers:
        raise ConfigError("init_router: the model has no HydraLoRA layer. Call get_peft_model with a HydraLoraConfig.")
    if not 0 < entropy < 1:
        raise ConfigError(f"init_router: entropy is {entropy!r}. Set it between 0 and 1, such as 0.6.")
    if len(rows) != len(labels):
        raise ConfigError(f"init_router: {len(rows)} rows but {len(labels)} labels. Give one label for each row.")
    for name, layer in layers.items():
        if active_router(layer).bias is None:
            raise ConfigError(f"init_router: the router of {name} has no bias. Set router_init='components'.")


def _choose(labels: Sequence[int], num_heads: int, count: int) -> list[list[int]]:
    """For every component, up to `count` row indices spread evenly over its rows."""
    chosen = []
    for component in range(num_heads):
        members = [i for i, label in enumerate(labels) if label == component]
        if not members:
            raise ConfigError(
                f"init_router: no row has component {component}, but the adapter has {num_heads} heads. "
                "Cluster the rows into as many components as heads."
            )
        step = max(1, len(members) // count)
        chosen.append(members[::step][:count])
    return chosen


def _collect(
    model: nn.Module, layers: dict[str, HydraLoraLayer], rows: Sequence[Mapping[str, Any]], chosen: list[list[int]]
) -> dict[str, list[torch.Tensor]]:
    """What every router reads: by module name, for each component, float32 (tokens, features)."""
    features: dict[str, list[list[torch.Tensor]]] = {name: [[] for _ in chosen] for name in layers}
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda router, inputs, gates: seen.__setitem__(name, inputs[0].detach().float())

    handles = [active_router(layer).register_forward_hook(keep(name)) for name, layer in layers.items()]
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        for component, indices in enumerate(chosen):
            for index in indices:
                row = rows[index]
                model(input_ids=torch.as_tensor(row["input_ids"], device=device)[None], use_cache=False)
                positions = row.get("positions")
                for name, value in seen.items():
                    kept = value[0] if positions is None else value[0][torch.as_tensor(positions, device=device)]
                    features[name][component].append(kept)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {name: [torch.cat(parts) for parts in groups] for name, groups in features.items()}


def _start(router: Router, groups: list[torch.Tensor], entropy: float) -> float:
    """Write the discriminant of `groups` into the router; returns the normalised entropy reached."""
    means = torch.stack([group.mean(0) for group in groups])  # (N, features)
    spread = torch.stack([(group - mean).square().mean(0) for group, mean in zip(groups, means, strict=True)]).mean(0)
    variance = spread + SHRINKAGE * spread.mean() + torch.finfo(spread.dtype).tiny
    centred = means - means.mean(0)  # a shift common to all heads changes no gate
    weight = centred / variance  # (N, features)
    bias = -(weight * (means + means.mean(0))).sum(1) / 2  # (N,)
    scores = torch.cat(groups) @ weight.T + bias  # (tokens, N)
    scale, reached = _scale_to_entropy(scores, entropy)
    router.weight.copy_(weight * scale)
    assert router.bias is not None
    router.bias.copy_(bias * scale)
    return reached


def _scale_to_entropy(scores: torch.Tensor, target: float) -> tuple[float, float]:
    """The factor for which softmax(factor * scores) has the mean normalised entropy `target`, by bisection."""
    low, high = 0.0, 1.0
    if scores.shape[1] == 1:
        return 1.0, 0.0
    while _mean_entropy(scores * high) > target and high < 1e6:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        value = _mean_entropy(scores * middle)
        if abs(value - target) < ENTROPY_TOLERANCE:
            break
        low, high = (middle, high) if value > target else (low, middle)
    return middle, value


def _mean_entropy(logits: torch.Tensor) -> float:
    log_gates = logits.log_softmax(-1)
    return float(-(log_gates.exp() * log_gates).sum(-1).mean() / torch.log(torch.tensor(float(logits.shape[1]))))
