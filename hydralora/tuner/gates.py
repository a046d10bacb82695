"""Recording of gates: every router passes the gates that it used to its listeners."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import hydra_layers
from hydralora.tuner.router import BatchRows, Router
from hydralora.tuner.structure import encoder_of, model_body, token_shape

KEPT_TOKENS = 4096  # positions (batch x tokens) whose gates a record holds at most; older passes are dropped
OnPass = Callable[["GateRecord"], None]
Part = tuple[torch.Tensor, BatchRows | None]  # gates (..., N) of some of a layer's rows; None: of all


class GateRecord:
    """The gates of the newest forward passes, in a ring buffer; a reusable context manager.

    Attributes:
        passes: float32 tensors on the CPU, oldest first, each (modules, batch, tokens, N). The oldest are dropped
            once all of them hold more than `max_tokens` positions; the newest one is always there.
        modules: names of the adapted modules of the newest pass, in the order of its first axis; the output
            embedding is never among them.
    """

    def __init__(self, model: nn.Module, max_tokens: int = KEPT_TOKENS, on_pass: OnPass | None = None) -> None:
        self.passes: deque[torch.Tensor] = deque()
        self.modules: list[str] = []
        self._max_tokens = max_tokens
        self._tokens = 0
        self._on_pass = on_pass
        self._watch = _GateHooks(model, self._add)

    def __enter__(self) -> "GateRecord":
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.stop()

    def stacked(self) -> torch.Tensor:
        """The newest pass: (modules, batch, tokens, N), in `modules` order."""
        return self.passes[-1]

    def joined(self) -> torch.Tensor:
        """All kept passes of one batch, as with a KV cache, one behind the other: (modules, batch, tokens, N).

        They line up with the tokens that `generate` returns only where a pass follows the one before it: beam search
        reorders its rows between passes, and assisted decoding also runs tokens that it then drops. There, run the
        returned tokens through the model once more and take `stacked()`.
        """
        return torch.cat(list(self.passes), dim=2)

    def _add(self, modules: list[str], gates: torch.Tensor) -> None:
        self.modules = modules
        self.passes.append(gates.detach().to("cpu", torch.float32))
        self._tokens += self.passes[-1].shape[1:3].numel()
        while len(self.passes) > 1 and self._tokens > self._max_tokens:
            self._tokens -= self.passes.popleft().shape[1:3].numel()
        if self._on_pass:
            self._on_pass(self)


def record_gates(model: nn.Module, max_tokens: int = KEPT_TOKENS, on_pass: OnPass | None = None) -> GateRecord:
    """Record the gates of every token in every adapted module, as `with record_gates(model) as trace:`.

    What is recorded is what the layers used, steered or not. Passes that gradient checkpointing repeats during the
    backward pass are left out; a batch's padding is recorded as the model computed it. With PEFT's `adapter_names`,
    each row has its own adapter's gates; zeros stand where it has none, as in a "__base__" row, in a layer without its
    adapter, and at heads that only another row's adapter has.

    Args:
        model: a model with a HydraLoRA adapter; several adapters may be on it, one of them active at a time.
        max_tokens: how many positions (batch x tokens) are kept; the newest pass is kept whatever its size.
        on_pass: called with the record after each forward pass, so that a caller can take what would be dropped.

    Raises:
        ConfigError: an encoder-decoder, whose two parts read other tokens; in a forward pass, two adapters are active
            at once.
    """
    return GateRecord(model, max_tokens, on_pass)


@contextmanager
def live_gates(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The gates of each forward pass in the block, with their gradients, on their device: (modules, batch, tokens, N).

    For losses on gates; the memory that they take is not bounded.
    """
    passes: list[torch.Tensor] = []
    watch = _GateHooks(model, lambda modules, gates: passes.append(gates))
    watch.start()
    try:
        yield passes
    finally:
        watch.stop()


def recorded_layers(model: nn.Module) -> dict[str, HydraLoraLayer]:
    """The adapted layers whose gates are recorded, by name, in the model's order.

    An adapted output embedding is not among them: it comes after the body, and may get only some of the tokens.
    """
    inside = set(model_body(model).modules())
    return {name: layer for name, layer in hydra_layers(model).items() if layer in inside}


class _GateHooks:
    """Collects the gates of one forward pass of the body, and passes them on with their modules' names."""

    def __init__(self, model: nn.Module, on_pass: Callable[[list[str], torch.Tensor], None]) -> None:
        if encoder_of(model) is not None:
            raise ConfigError(
                "Gates of an encoder-decoder can't be recorded: its encoder and its decoder read different tokens. "
                "Add a forward hook to each layer's router instead."
            )
        self._body = model_body(model)
        self._gates: dict[str, dict[str, Part]] = {}  # by module, by adapter
        self._listeners = [  # of every adapter's routers: which one is active may change meanwhile
            (cast(Router, router).listeners, partial(self._keep, name, adapter))
            for name, layer in recorded_layers(model).items()
            for adapter, router in layer.hydra_router.items()
        ]
        self._on_pass = on_pass
        self._shape: torch.Size | None = None  # (batch, tokens) of the pass
        self._handles: list[Any] = []

    def start(self) -> None:
        self._handles = [
            self._body.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._body.register_forward_hook(self._end),
        ]
        for listeners, listener in self._listeners:
            listeners.append(listener)

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        for listeners, listener in self._listeners:
            listeners.remove(listener)
        self._handles = []
        self._gates.clear()

    def _keep(self, module: str, adapter: str, gates: torch.Tensor, rows: BatchRows | None) -> None:
        self._gates.setdefault(module, {})[adapter] = gates, rows

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._gates.clear()  # left by an aborted pass, or by layers that gradient checkpointing recomputed
        self._shape = token_shape(args, kwargs)

    def _end(self, *call: object) -> None:
        parts = {module: list(by_adapter.values()) for module, by_adapter in self._gates.items()}
        self._gates.clear()
        if not parts or _in_backward():  # gradient checkpointing recomputes the whole body
            return
        for name, of_module in parts.items():
            if len(of_module) > 1 and any(rows is None for _, rows in of_module):
                raise ConfigError(
                    f"Two adapters are active on {name}. Activate one with set_adapter to record its gates."
                )
        num_heads = max(gates.shape[-1] for of_module in parts.values() for gates, _ in of_module)
        self._on_pass(list(parts), _stack([_whole(of_module, num_heads) for of_module in parts.values()], self._shape))


def _whole(parts: list[Part], num_heads: int) -> torch.Tensor:
    """A module's gates as (batch * tokens, N), from those of some rows each; zero where there are none."""
    gates, rows = parts[0]
    if rows is None:
        return gates if gates.dim() == 2 else gates.flatten(0, -2)
    whole = gates.new_zeros(rows.count, *gates.shape[1:-1], num_heads)
    for gates, rows in parts:
        if rows is not None:
            whole[rows.indices, ..., : gates.shape[-1]] = gates
    return whole.flatten(0, -2)


def _stack(gates: list[torch.Tensor], shape: torch.Size | None) -> torch.Tensor:
    """(modules, batch, tokens, N); layers see batch and tokens as one axis, which `shape` takes apart again."""
    stacked = torch.stack(gates)
    return stacked.view(len(gates), *(shape or (1, stacked.shape[1])), -1)


def _in_backward() -> bool:
    return cast(Any, torch._C)._current_graph_task_id() != -1  # as in torch.utils.module_tracker


def mean_gates(gates: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean gates of every row over the tokens where mask (batch, tokens) is true: (modules, batch, N).

    A row without such a token gives zeros. `gates` are (modules, batch, tokens, N).
    """
    weight = _weights(gates, mask)
    return (gates * weight).sum(2) / weight.sum(2).clamp_min(1)


def _weights(gates: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """1 where mask (batch, tokens) is true, else 0, for gates (modules, batch, tokens, N): (1, batch, tokens, 1).

    To select by it would be to wait for the device, which alone knows how many are selected.
    """
    return mask.to(gates.device, torch.float32)[None, :, :, None]


def load_balance(
    gates: torch.Tensor, mask: torch.Tensor, total: Callable[[torch.Tensor], torch.Tensor] = lambda values: values
) -> torch.Tensor:
    """N * sum_i f_i P_i, the mean over modules: 1 where heads share the load evenly, N where one has it all.

    f_i is the share of tokens whose strongest head is i, P_i the mean gate of head i, over the tokens where mask
    (batch, tokens) is true (Switch Transformers, 2101.03961, section 2.2). `gates` are (modules, batch, tokens, N).
    Where processes share a batch, `total` sums counts over them, and the sum of their values is the batch's.
    """
    num_heads = gates.shape[-1]
    weight = _weights(gates, mask)
    tokens = total(weight.sum()).clamp_min(1)
    strongest = gates.argmax(-1, keepdim=True) == torch.arange(num_heads, device=gates.device)
    share = total((strongest * weight).sum((1, 2))) / tokens  # (modules, N), no gradient
    return num_heads * (share * (gates * weight).sum((1, 2)) / tokens).sum(-1).mean()


def gate_information(
    gates: torch.Tensor, mask: torch.Tensor, total: Callable[[torch.Tensor], torch.Tensor] = lambda values: values
) -> torch.Tensor:
    """H(mean gates) - mean H(gates), the mean over modules: the mutual information of token and head, in nats.

    0 where every token has the same gates, log N where each has one head and heads share the load evenly. Over the
    tokens where mask (batch, tokens) is true; `gates` are (modules, batch, tokens, N), `total` as for `load_balance`.
    Where processes share a batch, each one's value is the whole batch's, with the gradient of its own tokens.
    """
    weight = _weights(gates, mask)
    tokens = total(weight.sum()).clamp_min(1)
    each = (_entropy(gates) * weight.squeeze(-1)).sum((1, 2)) / tokens  # (modules,)
    share = (gates * weight).sum((1, 2)) / tokens  # (modules, N)
    everyone = total(torch.cat([share.detach(), each.detach().unsqueeze(-1)], -1))
    share, each = share + (everyone[:, :-1] - share).detach(), each + (everyone[:, -1] - each).detach()
    return (_entropy(share) - each).mean()


def _entropy(gates: torch.Tensor) -> torch.Tensor:
    """Entropy of (..., N) in nats: (...)."""
    return -(gates * gates.clamp_min(1e-12).log()).sum(-1)
