"""Initialising the router from the data's components, so that heads can specialise from the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.component_rows import ROWS_PER_COMPONENT, ComponentRows, TokenRow
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import active_router, hydra_layers
from hydralora.tuner.router import Router, UniformRouter, normalised_entropy

PASSES = 2  # over the rows
SHRINKAGE = 0.1  # share of the mean variance mixed into every feature's variance
ENTROPY_TOLERANCE = 1e-3


@torch.no_grad()
def init_router(
    model: nn.Module,
    rows: Sequence[TokenRow],
    labels: Sequence[int],
    entropy: float = 0.6,
    rows_per_component: int = ROWS_PER_COMPONENT,
    shrinkage: float = SHRINKAGE,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Set every router's weight and bias so that head i responds to component i.

    A first pass over a few rows of each component accumulates each router's inputs; class means and the pooled,
    shrunken variance of every feature give a diagonal linear discriminant. A second pass keeps its scores, which one
    scalar per layer scales until the mean normalised gate entropy is `entropy`. The router stays trainable.

    Args:
        model: a PEFT model with an active HydraLoRA adapter; without a router bias the means' offset is left out.
        rows: tokenised training rows: `input_ids` (tokens,), and optionally `positions`, the indices of the tokens
            to use (all by default).
        labels: the component of each row, 0 to num_heads - 1; other labels (noise) are left out.
        entropy: target share of the maximum entropy, between 0 and 1; 1 would be uniform gates.
        rows_per_component: how many rows of each component are read.
        shrinkage: share of a layer's mean variance that is mixed into every feature's variance, 0 or more.
        on_progress: called after each batch with the rows read and all rows to read; each row is read twice.

    Returns:
        The normalised gate entropy reached, by module name.

    Raises:
        ConfigError: no HydraLoRA layer, uniform gates, a component without rows, or entropy outside (0, 1).
    """
    layers = hydra_layers(model)
    _check(layers, entropy)
    routers = {name: cast(Router, active_router(layer)) for name, layer in layers.items()}
    num_heads = next(iter(routers.values())).num_heads
    reading = ComponentRows("init_router", model, rows, labels, num_heads, rows_per_component, PASSES, on_progress)
    discriminants = _discriminants(reading, routers, num_heads, shrinkage)
    scores = _scores(reading, routers, discriminants)
    return {name: _write(router, *discriminants[name], scores[name], entropy) for name, router in routers.items()}


def _check(layers: dict[str, HydraLoraLayer], entropy: float) -> None:
    if not layers:
        raise ConfigError("init_router: the model has no HydraLoRA layer. Call get_peft_model with a HydraLoraConfig.")
    if not 0 < entropy < 1:
        raise ConfigError(f"init_router: entropy is {entropy!r}. Set it between 0 and 1, such as 0.6.")
    for name, layer in layers.items():
        if isinstance(active_router(layer), UniformRouter):
            raise ConfigError(f"init_router: the gates of {name} are not learnt, so there is no router to initialise.")


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations of the tokens so far; merged so that float32 loses nothing."""

    count: int = 0
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(()))  # (features,)
    squares: torch.Tensor = field(default_factory=lambda: torch.zeros(()))  # (features,)

    def add(self, features: torch.Tensor) -> None:
        """Add (tokens, features), by Chan, Golub and LeVeque's rule for two samples."""
        if not len(features):
            return
        count = self.count + len(features)
        mean = features.mean(0)
        shift = mean - self.mean  # (features,)
        between = shift.square() * (self.count * len(features) / count)
        self.squares = self.squares + (features - mean).square().sum(0) + between
        self.mean = self.mean + shift * (len(features) / count)
        self.count = count


def _discriminants(
    reading: ComponentRows, routers: dict[str, Router], num_heads: int, shrinkage: float
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module name, weight (N, features) and bias (N,) of the discriminant, not yet scaled."""
    moments = {name: [_Moments() for _ in range(num_heads)] for name in routers}

    def add(name: str, component: int, features: torch.Tensor) -> None:
        moments[name][component].add(routers[name].normalised(features))

    reading.read_inputs(routers, add)
    return {name: _discriminant(groups, shrinkage, routers[name].bias is not None) for name, groups in moments.items()}


def _discriminant(groups: list[_Moments], shrinkage: float, bias: bool) -> tuple[torch.Tensor, torch.Tensor]:
    means = torch.stack([group.mean for group in groups])  # (N, features)
    spread = torch.stack([group.squares / group.count for group in groups]).mean(0)  # (features,)
    variance = spread + shrinkage * spread.mean() + torch.finfo(spread.dtype).tiny
    centred = means - means.mean(0)  # a shift common to all heads changes no gate
    weight = centred / variance  # (N, features)
    offset = -(weight * (means + means.mean(0))).sum(1) / 2  # (N,)
    return weight, offset if bias else torch.zeros_like(offset)


def _scores(
    reading: ComponentRows, routers: dict[str, Router], discriminants: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """By module name, the discriminant's scores: (tokens, N)."""
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in routers}

    def score(name: str, component: int, features: torch.Tensor) -> None:
        router, (weight, bias) = routers[name], discriminants[name]
        scores[name].append(router.products(router.normalised(features), weight) + bias)

    reading.read_inputs(routers, score)
    return {name: torch.cat(parts) for name, parts in scores.items()}


def _write(router: Router, weight: torch.Tensor, bias: torch.Tensor, scores: torch.Tensor, entropy: float) -> float:
    """Write the scaled discriminant into the router; returns the normalised entropy reached."""
    scale, reached = _scale_to_entropy(scores, entropy)
    router.start(weight, bias, scale)
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
    return float(normalised_entropy(logits.softmax(-1)).mean())
