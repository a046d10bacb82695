"""Gates as they were used: recorded by a forward hook on every router."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from hydralora.tuner.layer import normalised_entropy as normalised_entropy
from hydralora.tuner.model import active_router, hydra_layers


@dataclass
class GateRecord:
    """The gates of the newest forward pass, by module name: float32 tensors (batch, tokens, N)."""

    gates: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def modules(self) -> list[str]:
        return list(self.gates)

    def stacked(self) -> torch.Tensor:
        """(modules, batch, tokens, N), in `modules` order."""
        return torch.stack(list(self.gates.values()))


@contextmanager
def record_gates(model: nn.Module) -> Iterator[GateRecord]:
    """Record the active adapter's gates while the block runs; each forward pass replaces the last one's."""
    record = GateRecord()

    def keep(name: str, router: nn.Module, inputs: tuple, gates: torch.Tensor) -> None:
        record.gates[name] = gates.detach()

    handles = [
        active_router(layer).register_forward_hook(partial(keep, name)) for name, layer in hydra_layers(model).items()
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def mean_gates(record: GateRecord, mask: torch.Tensor) -> torch.Tensor:
    """Mean gates of every row over the tokens where mask (batch, tokens) is true: (modules, batch, N).

    A row without such a token gives zeros.
    """
    weight = mask.to(torch.float32)[None, :, :, None]  # (1, batch, tokens, 1)
    return (record.stacked() * weight).sum(2) / weight.sum(2).clamp_min(1)
