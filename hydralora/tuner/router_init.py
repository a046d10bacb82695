"""Initialising the router from the data's components, so that heads can specialise from the first step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import active_router, hydra_layers
from hydralora.tuner.router import Router, UniformRouter, normalised_entropy

ROWS_PER_COMPONENT = 24
ROWS_PER_BATCH = 8
PASSES = 2  # over the rows
SHRINKAGE = 0.1  # share of the mean variance mixed into every feature's variance
ENTROPY_TOLERANCE = 1e-3


@torch.no_grad()
def init_router(
    model: nn.Module,
    rows: Sequence[Mapping[str, Any]],
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
    _check(layers, rows, labels, entropy)
    num_heads = active_router(next(iter(layers.values()))).num_heads
    chosen = _choose(labels, num_heads, rows_per_component)
    batches = _batches(rows, chosen, next(model.parameters()).device)
    routers = {name: cast(Router, active_router(layer)) for name, layer in layers.items()}
    reading = _Reading(model, routers, batches, on_progress)
    discriminants = _discriminants(reading, num_heads, shrinkage)
    scores = _scores(reading, discriminants)
    return {name: _write(router, *discriminants[name], scores[name], entropy) for name, router in routers.items()}


def _check(layers: dict[str, HydraLoraLayer], rows: Sequence[object], labels: Sequence[int], entropy: float) -> None:
    if not layers:
        raise ConfigError("init_router: the model has no HydraLoRA layer. Call get_peft_model with a HydraLoraConfig.")
    if not 0 < entropy < 1:
        raise ConfigError(f"init_router: entropy is {entropy!r}. Set it between 0 and 1, such as 0.6.")
    if len(rows) != len(labels):
        raise ConfigError(f"init_router: {len(rows)} rows but {len(labels)} labels. Give one label for each row.")
    for name, layer in layers.items():
        if isinstance(active_router(layer), UniformRouter):
            raise ConfigError(f"init_router: the gates of {name} are uniform, so there is no router to initialise.")


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


@dataclass(frozen=True)
class _Batch:
    """Rows of one component, of like length and padded on the right: (rows, width)."""

    component: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    tokens: torch.Tensor  # (tokens,), indices into rows * width: those to use


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


def _batches(rows: Sequence[Mapping[str, Any]], chosen: list[list[int]], device: torch.device) -> list[_Batch]:
    batches = []
    for component, indices in enumerate(chosen):
        members = sorted((rows[i] for i in indices), key=lambda row: len(row["input_ids"]))
        for start in range(0, len(members), ROWS_PER_BATCH):
            batches.append(_pad(component, members[start : start + ROWS_PER_BATCH], device))
    return batches


def _pad(component: int, rows: Sequence[Mapping[str, Any]], device: torch.device) -> _Batch:
    shape = len(rows), max(len(row["input_ids"]) for row in rows)
    input_ids, attention_mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    chosen = torch.zeros(shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[i, :length] = torch.as_tensor(row["input_ids"])
        attention_mask[i, :length] = 1
        positions = row.get("positions")
        chosen[i, :length][slice(None) if positions is None else torch.as_tensor(positions)] = True
    tokens = chosen.flatten().nonzero().squeeze(1)
    return _Batch(component, input_ids.to(device), attention_mask.to(device), tokens.to(device))


@dataclass
class _Reading:
    """Passes of a model over the batches, in which its routers are watched."""

    model: Any
    routers: dict[str, Router]
    batches: list[_Batch]
    on_progress: Callable[[int, int], None] | None
    done: int = 0  # rows

    def read(self, use: Callable[[str, int, torch.Tensor], None]) -> None:
        """Run every batch; `use` gets a router's name, the component, and what it reads: float32 (tokens, features)."""

        def watch(name: str, router: nn.Module, inputs: tuple[torch.Tensor, object], gates: torch.Tensor) -> None:
            features = inputs[0].flatten(0, -2)  # (rows * width, features)
            use(name, batch.component, features[batch.tokens.to(features.device)].float())

        handles = [router.register_forward_hook(partial(watch, name)) for name, router in self.routers.items()]
        last_logits = 0 if isinstance(self.model.get_output_embeddings(), HydraLoraLayer) else 1  # 0: of every token
        training = self.model.training
        self.model.eval()
        total = PASSES * sum(len(batch.input_ids) for batch in self.batches)
        try:
            for batch in self.batches:
                self.model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    use_cache=False,
                    logits_to_keep=last_logits,
                )
                self.done += len(batch.input_ids)
                if self.on_progress:
                    self.on_progress(self.done, total)
        finally:
            self.model.train(training)
            for handle in handles:
                handle.remove()


def _discriminants(reading: _Reading, num_heads: int, shrinkage: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By module name, weight (N, features) and bias (N,) of the discriminant, not yet scaled."""
    routers = reading.routers
    moments = {name: [_Moments() for _ in range(num_heads)] for name in routers}
    reading.read(lambda name, component, features: moments[name][component].add(features))
    return {name: _discriminant(groups, shrinkage, routers[name].bias is not None) for name, groups in moments.items()}


def _discriminant(groups: list[_Moments], shrinkage: float, bias: bool) -> tuple[torch.Tensor, torch.Tensor]:
    means = torch.stack([group.mean for group in groups])  # (N, features)
    spread = torch.stack([group.squares / group.count for group in groups]).mean(0)  # (features,)
    variance = spread + shrinkage * spread.mean() + torch.finfo(spread.dtype).tiny
    centred = means - means.mean(0)  # a shift common to all heads changes no gate
    weight = centred / variance  # (N, features)
    offset = -(weight * (means + means.mean(0))).sum(1) / 2  # (N,)
    return weight, offset if bias else torch.zeros_like(offset)


def _scores(reading: _Reading, discriminants: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """By module name, the discriminant's scores: (tokens, N)."""
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in reading.routers}

    def score(name: str, component: int, features: torch.Tensor) -> None:
        weight, bias = discriminants[name]
        scores[name].append(features @ weight.T + bias)

    reading.read(score)
    return {name: torch.cat(parts) for name, parts in scores.items()}


def _write(router: Router, weight: torch.Tensor, bias: torch.Tensor, scores: torch.Tensor, entropy: float) -> float:
    """Write the scaled discriminant into the router; returns the normalised entropy reached."""
    scale, reached = _scale_to_entropy(scores, entropy)
    router.weight.copy_(weight * scale)
    if router.bias is not None:
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
    return float(normalised_entropy(logits.softmax(-1)).mean())
