"""Mixtures of heads that are searched for without gradients, as LoraHub does (2307.13269), by nevergrad."""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from hydralora.errors import ConfigError
from hydralora.tuner.model import active_adapter, hydra_layers

# As published (LoraHub's section 3.3, and its authors' code): mixtures that are tried, rows that each is tried on, the
# bounds of a weight, and what a mixture's mean absolute weight adds to its loss.
BUDGET = 40
ROWS = 5
LIMIT = 1.5
PENALTY = 0.05


def check_search() -> None:
    """
    Raises:
        ConfigError: nevergrad is missing.
    """
    if find_spec("nevergrad") is None:
        raise ConfigError(
            "method lorahub needs nevergrad, which is not installed. Run `pip install .[lorahub]`, or choose another "
            "method."
        )


@torch.no_grad()
def mix_heads(
    model: Any,
    heads: Sequence[int],
    losses: Callable[[], Sequence[float]],
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, list[float]]:
    """Replace the A and B of some heads by sum_j w_j A_j and sum_j w_j B_j over all heads, with the best weights found.

    Args:
        model: its heads have an A each (shared_A=False).
        heads: that are replaced, each by a mixture of its own.
        losses: measures the model as it is: the loss of each of these heads, in their order.
        on_progress: told how many of the mixtures are tried; an exception leaves the heads as they were.

    Returns:
        The weights of each replaced head: (N,).
    """
    import nevergrad

    trained = _Heads(model)
    limits = {"lower": [-LIMIT] * trained.count, "upper": [LIMIT] * trained.count}
    searches = {}
    for head in heads:
        weights = nevergrad.p.Array(init=[0.0] * trained.count, **limits)
        weights.random_state = np.random.RandomState((seed + head) % 2**32)
        searches[head] = nevergrad.optimizers.NGOpt(parametrization=weights, budget=BUDGET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search that nevergrad chooses warns of its own settings
            for done in range(BUDGET):
                asked = {head: search.ask() for head, search in searches.items()}
                trained.mix({head: weights.value for head, weights in asked.items()})
                for loss, (head, search) in zip(losses(), searches.items(), strict=True):
                    search.tell(asked[head], loss + PENALTY * float(np.abs(asked[head].value).mean()))
                if on_progress:
                    on_progress(done + 1, BUDGET)
    except BaseException:
        trained.mix({})
        raise
    found = {head: search.provide_recommendation().value for head, search in searches.items()}
    trained.mix(found)
    return {head: weights.tolist() for head, weights in found.items()}


class _Heads:
    """The heads of all layers as they were trained, from which mixtures are made."""

    def __init__(self, model: Any) -> None:
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []  # a parameter, and what was trained: (N, ...)
        for layer in hydra_layers(model).values():
            name = active_adapter(layer)
            self.count = layer.adapters[name].num_heads
            for parameter in (layer.hydra_A[name].get_parameter("weight"), layer.hydra_B[name]):
                self._parts.append((parameter, parameter.detach().view(self.count, -1).clone()))

    def mix(self, weights: dict[int, np.ndarray]) -> None:
        """Set heads to mixtures of the trained ones by their weights (N,), and all others to themselves."""
        mixture = torch.eye(self.count, dtype=torch.float64)
        for head, own in weights.items():
            mixture[head] = torch.as_tensor(own)
        for parameter, trained in self._parts:
            parameter.copy_((mixture.to(trained) @ trained).view_as(parameter))
