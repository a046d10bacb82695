"""Parameters and memory of what a method trains, counted on the base model's shape: no weights are loaded."""

import math
from dataclasses import dataclass

from torch import nn

from hydralora.models.loading import empty_model
from hydralora.recipe.settings import Recipe
from hydralora.runs.snapshots import snapshot_steps
from hydralora.training.preparation import adapt
from hydralora.tuner.model import ParameterCounts, count_parameters

WEIGHT_BYTES = 4  # adapters are trained and saved in float32
MOMENTS = 2  # numbers that AdamW keeps for each weight
SCORES = 3  # numbers that AdaLoRA keeps for each weight, besides the weight itself


@dataclass(frozen=True)
class AdapterSize:
    """An adapter's size.

    Attributes:
        counts: its parameters, and the base's.
        a, heads: of `counts.adapter`, those of A and of the heads B; of a method without them, none and all.
        weight_bytes, optimiser_bytes: of the adapter, and of the state that AdamW keeps while it trains.
    """

    counts: ParameterCounts
    a: int
    heads: int

    @property
    def weight_bytes(self) -> int:
        return WEIGHT_BYTES * self.counts.total

    @property
    def optimiser_bytes(self) -> int:
        return MOMENTS * self.weight_bytes


def disk_bytes(recipe: Recipe, trained: int, steps: int) -> int:
    """What a run of this many steps writes at most, if it trains `trained` bytes of weights."""
    settings = recipe.training
    saved = math.ceil(steps / settings.save_every) if settings.save_every else 0
    checkpoints = min(saved, settings.keep_checkpoints + 2)  # plus the best, and one being written
    each = 1 + MOMENTS + (1 + SCORES if recipe.method == "adalora" else 0)
    snapshots = len(snapshot_steps(steps, settings.snapshots)) if recipe.tuning.has_matrices else 0
    return trained * (1 + each * checkpoints) + trained // 2 * snapshots


def adapter_size(recipe: Recipe, k: int) -> AdapterSize:
    """The size of a recipe's adapter; `k` heads where the recipe leaves their number to the components.

    Raises:
        HydraError: the base model's config is missing, or a setting doesn't fit it.
    """
    model = adapt(empty_model(recipe.model), recipe, k, empty=True)
    counts = count_parameters(model)
    a = _numbers(model, ".hydra_A.", ".lora_A.")
    return AdapterSize(counts, a, counts.adapter - a)


def equal_rank(parameters: int, per_rank: int) -> int:
    """The smallest rank of a plain LoRA with at least as many parameters; each rank has `per_rank`."""
    return -(-parameters // per_rank)


def _numbers(model: nn.Module, *parts: str) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if any(part in name for part in parts))
