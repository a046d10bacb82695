"""Rows that routers may read as a whole: their prompts, and the heads that are named for them."""

from types import TracebackType
from typing import cast

import torch
from torch import nn

from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.router import PassRows, Router
from hydralora.tuner.structure import IGNORED


class pass_rows:  # a context manager, named as one
    """Inside the block, the routers of a model that need it know the rows of its forward passes; it can be reused.

    The first pass has the rows whole, or their prompts; those after it go on with the same rows, as generation does
    with its cache. Blocks may be nested: the outer one counts.
    """

    def __init__(self, model: nn.Module, prompts: torch.Tensor, heads: torch.Tensor | None = None) -> None:
        """
        Args:
            prompts: which tokens of each row are its prompt, (rows, tokens); padding is no part of it.
            heads: each row's own head, (rows,), for a router that is an oracle.
        """
        self._routers = _reading_rows(model)
        self._rows = PassRows(prompts, heads)
        self._entered: list[Router] = []

    def __enter__(self) -> None:
        self._entered = [router for router in self._routers if router.rows is None]
        for router in self._entered:
            router.rows = self._rows

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for router in self._entered:
            router.rows = None


def prompts_of(attention_mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which tokens of each row come before its first label, (rows, tokens); padding is none of them."""
    return attention_mask.bool() & ((labels != IGNORED).cumsum(1) == 0)


def reads_rows(model: object) -> bool:
    """Whether any adapter of a model has a router whose gates depend on whole rows."""
    configs = getattr(model, "peft_config", {}).values()
    return any(
        getattr(config, "router_scope", "token") == "row" or getattr(config, "router", "") == "oracle"
        for config in configs
    )


def knows_rows(model: nn.Module) -> bool:
    """Whether every router that reads whole rows has been given them."""
    return all(router.rows is not None for router in _reading_rows(model))


def _reading_rows(model: nn.Module) -> list[Router]:
    return [
        cast(Router, router)
        for layer in model.modules()
        if isinstance(layer, HydraLoraLayer)
        for router in layer.hydra_router.values()
        if cast(Router, router).needs_rows
    ]
