"""The router: gates for every token."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.config import RouterScope

WIDE = 256  # features from which on they are the layer's input, and no latent
Norm = Literal["rms", "cosine"]  # of what the router reads; by cosine, of its weight as well


@dataclass(frozen=True)
class BatchRows:
    """Some rows of a layer's input: their indices, and the number of all rows."""

    indices: torch.Tensor
    count: int


Listener = Callable[[torch.Tensor, BatchRows | None], None]


class PassRows:
    """What routers may know of the rows of a forward pass, beside each token's own features; see hydralora.tuner.rows.

    Attributes:
        prompts: which tokens of each row are its prompt, (rows, tokens).
        heads: each row's own head, (rows,); None: not known.
    """

    def __init__(self, prompts: torch.Tensor, heads: torch.Tensor | None = None) -> None:
        self.prompts = prompts
        self.heads = heads
        self._means: WeakKeyDictionary[Router, torch.Tensor] = WeakKeyDictionary()

    def add_prompts(self, router: "Router", logits: torch.Tensor) -> torch.Tensor:
        """Logits (..., N) plus, in each row, their mean over its prompt; later passes add that of the first one."""
        rows, tokens = self.prompts.shape
        if router not in self._means:
            by_row = logits.view(-1, tokens, logits.shape[-1])  # generation may make copies of each row
            mask = self.prompts.to(logits.device, logits.dtype).repeat_interleave(len(by_row) // rows, 0).unsqueeze(-1)
            self._means[router] = (by_row * mask).sum(1) / mask.sum(1).clamp_min(1)  # (rows, N)
        means = self._means[router]
        return (logits.view(len(means), -1, logits.shape[-1]) + means.unsqueeze(1)).view(logits.shape)


class Router(nn.Module):
    """Gates for every token: a linear map and a softmax, in float32 whatever the base's dtype, or in float64.

    Attributes:
        listeners: functions called with the gates of each pass, and the rows that they are of; None: all rows. See
            hydralora.tuner.gates.
        steering: None, or a function from logits to the gates to use instead; see hydralora.tuner.steering.
        scope: "row" adds to each token's logits their mean over its row's prompt.
        rows: of the pass, where the router needs them.
    """

    weight: nn.Parameter  # (N, features)
    bias: nn.Parameter | None  # (N,)
    factor: nn.Parameter | None  # of the logits, (1,), where what the router reads is normalised

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        bias: bool,
        top_k: int | None = None,
        norm: Norm | None = None,
        scope: RouterScope = "token",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.top_k = top_k if top_k and top_k < num_heads else None
        self.norm = norm
        self.scope = scope
        self.rows: PassRows | None = None
        self.weight = nn.Parameter(torch.empty(num_heads, in_features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_heads)) if bias else None)
        self.register_parameter("factor", nn.Parameter(torch.ones(1)) if norm else None)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.listeners: list[Listener] = []
        self.steering: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def needs_rows(self) -> bool:
        """Whether its gates depend on more than each token's own features."""
        return self.scope == "row"

    def forward(self, features: torch.Tensor, rows: BatchRows | None = None) -> torch.Tensor:
        """Map (..., features) to gates (..., N), each summing to 1; `rows` are the batch's that `features` has."""
        if rows and self.needs_rows:
            raise ConfigError("adapter_names: a router that reads whole rows can't share a batch with other adapters.")
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
            bias = None if bias is None else bias.to(dtype)
            if self.norm is None and features.dtype != dtype and features.shape[-1] > WIDE:
                # A copy of what it reads would be as wide as the model: only what comes out is made float32.
                return self._ready(nn.functional.linear(features, weight.to(features.dtype)).to(dtype), bias)
            features, weight = features.to(dtype), weight.to(dtype)
        if self.norm is None:
            return self._ready(nn.functional.linear(features, weight, bias), None)
        products = self.products(self.normalised(features), weight)
        return self._ready(own_parameter(self, "factor") * products, bias)

    def _ready(self, logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Add the bias, and in a row's scope the mean; leave only the largest `top_k`."""
        logits = logits if bias is None else logits + bias
        if self.scope == "row":
            if self.rows is None:
                raise ConfigError(
                    "A router with router_scope='row' reads whole rows, which only a PeftModel's forward and generate "
                    "tell it. Call those, or wrap the pass in hydralora.tuner.rows.pass_rows."
                )
            logits = self.rows.add_prompts(self, logits)
        return logits if self.top_k is None else largest_only(logits, self.top_k)

    def normalised(self, features: torch.Tensor) -> torch.Tensor:
        """What the router reads, (..., features); divided by its root mean square where the router has a norm."""
        return nn.functional.rms_norm(features, features.shape[-1:]) if self.norm else features

    def products(self, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of normalised features with a weight (N, features): (..., N).

        By cosine only the weight's directions count; the products are then sqrt(features) times the cosines.
        """
        return nn.functional.linear(features, nn.functional.normalize(weight) if self.norm == "cosine" else weight)

    @torch.no_grad()
    def start(self, weight: torch.Tensor, bias: torch.Tensor, factor: float) -> None:
        """Begin with `factor` times the logits that weight (N, features) and bias (N,) give."""
        by_cosine = self.norm == "cosine" and self.factor is not None
        self.weight.copy_(weight if by_cosine else weight * factor)
        if by_cosine:
            self.get_parameter("factor").fill_(factor)
        if self.bias is not None:
            self.bias.copy_(bias * factor)


class UniformRouter(Router):
    """Every head the same gate for every token: the paper's ablation *w/o gate*. It has no parameters."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(1, num_heads, bias=False)
        del self.weight

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Zeros, (..., N)."""
        return features.new_zeros((*features.shape[:-1], self.num_heads), dtype=_gates_dtype(features))


class OracleRouter(UniformRouter):
    """Each row's own head alone, which is named from outside; equal gates where it isn't. A control."""

    @property
    def needs_rows(self) -> bool:
        return True

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Zero for the row's head, minus infinity for the others: (..., N)."""
        logits = super().logits(features)
        if self.rows is None or self.rows.heads is None:
            return logits
        heads = self.rows.heads.to(logits.device)
        others = nn.functional.one_hot(heads, self.num_heads) == 0  # (rows, N)
        by_row = logits.view(len(heads), -1, self.num_heads)
        return by_row.masked_fill(others.unsqueeze(1), -math.inf).view(logits.shape)


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
