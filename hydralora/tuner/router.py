"""The router: gates for every token."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class BatchRows:
    """Some rows of a layer's input: their indices, and the number of all rows."""

    indices: torch.Tensor
    count: int


Listener = Callable[[torch.Tensor, BatchRows | None], None]


class Router(nn.Module):
    """Gates for every token: a linear map and a softmax, in float32 whatever the base's dtype, or in float64.

    Attributes:
        listeners: functions called with the gates of each pass, and the rows that they are of; None: all rows. See
            hydralora.tuner.gates.
        steering: None, or a function from logits to the gates to use instead; see hydralora.tuner.steering.
    """

    weight: nn.Parameter  # (N, features)
    bias: nn.Parameter | None  # (N,)

    def __init__(self, in_features: int, num_heads: int, bias: bool, top_k: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.top_k = top_k if top_k and top_k < num_heads else None
        self.weight = nn.Parameter(torch.empty(num_heads, in_features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_heads)) if bias else None)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.listeners: list[Listener] = []
        self.steering: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self, features: torch.Tensor, rows: BatchRows | None = None) -> torch.Tensor:
        """Map (..., features) to gates (..., N), each summing to 1; `rows` are the batch's that `features` has."""
        logits = self.logits(features)
        gates = logits.softmax(-1) if self.steering is None else self.steering(logits)
        for listener in self.listeners:
            listener(gates, rows)
        return gates

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """The input of the softmax: (..., N); minus infinity for heads outside a token's top_k."""
        if torch.is_autocast_enabled(features.device.type):
            with torch.autocast(features.device.type, enabled=False):
                return self.logits(features)
        weight, bias = own_parameter(self, "weight"), own_parameter(self, "bias")
        if not features.dtype == weight.dtype == torch.float32:
            dtype = _gates_dtype(features)
            features, weight = features.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        logits = nn.functional.linear(features, weight, bias)
        return logits if self.top_k is None else largest_only(logits, self.top_k)


class UniformRouter(Router):
    """Every head the same gate for every token: the paper's ablation *w/o gate*. It has no parameters."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(1, num_heads, bias=False)
        del self.weight

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Zeros, (..., N)."""
        return features.new_zeros((*features.shape[:-1], self.num_heads), dtype=_gates_dtype(features))


def own_parameter(module: nn.Module, name: str) -> Any:
    """A module's parameter, for its own `forward`; nn.Module finds it through half a dozen dictionaries.

    FSDP and replicas keep it elsewhere.
    """
    return module._parameters[name] if name in module._parameters else getattr(module, name)


def _gates_dtype(features: torch.Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def largest_only(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest logits of each token; minus infinity, which gives a gate of 0, for the others: (..., N)."""
    indices = logits.topk(k, dim=-1).indices
    return torch.full_like(logits, -math.inf).scatter(-1, indices, logits.gather(-1, indices))


def normalised_entropy(gates: torch.Tensor) -> torch.Tensor:
    """Entropy of gates (..., N) as a share of its maximum log N, so 1 is uniform; 0 for one head."""
    num_heads = gates.shape[-1]
    if num_heads == 1:
        return gates.new_zeros(gates.shape[:-1])
    return -(gates * gates.clamp_min(1e-12).log()).sum(-1) / math.log(num_heads)
