"""The terms of an adapted layer's sum, y = W x + s * sum_i g_i(x) B_i A x, for every token of a text."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.gates import record_gates, recorded_layers
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import active_adapter, head_matrices

MOST_TOKENS = 512  # of a text: all of a layer's terms are kept until their norms are taken


@dataclass(frozen=True)
class LayerPass:
    """What went into a layer, and what came out of it, in one pass: (tokens, in), (tokens, N) and (tokens, out)."""

    x: torch.Tensor
    gates: torch.Tensor
    y: torch.Tensor


@dataclass(frozen=True)
class HeadTerm:
    """A head's part of a layer's sum for one token.

    Attributes:
        gate: g_i.
        product: the norm of B_i A x.
        added: the norm of s * g_i * B_i A x, which the head adds to the layer's output.
    """

    gate: float
    product: float
    added: float


@dataclass(frozen=True)
class TokenTerms:
    """Norms of the terms of a layer's sum for one token.

    Attributes:
        x, base, output: of the layer's input x, of W x, and of y.
        latent: of A x; one for each head where A is not shared.
        change: of the sum over the heads, which is at most the sum of their `added`.
    """

    x: float
    base: float
    output: float
    latent: tuple[float, ...]
    change: float
    heads: tuple[HeadTerm, ...]


@dataclass(frozen=True)
class LayerTerms:
    """A layer's shapes and factor s, and the terms of every token."""

    module: str
    in_features: int
    out_features: int
    r: int
    num_heads: int
    shared_A: bool
    scaling: float
    tokens: tuple[TokenTerms, ...]


def layer_terms(
    model: nn.Module, module: str, input_ids: Sequence[int], lock: AbstractContextManager[object] | None = None
) -> LayerTerms:
    """The terms of an adapted layer, from one pass of the model over a text (HydraLoRA, arXiv 2404.19245, section 3).

    Args:
        module: the layer's name, as in `recorded_layers`.
        lock: held during the pass, which other work may share the model with.

    Raises:
        ConfigError: there is no such layer with a HydraLoRA adapter, or the text has too many tokens.
    """
    layer = recorded_layers(model).get(module)
    if layer is None:
        raise ConfigError(f"{module[:200]!r} is no layer of this model with HydraLoRA heads. Choose one from the list.")
    if not 0 < len(input_ids) <= MOST_TOKENS:
        raise ConfigError(f"The text has {len(input_ids)} tokens. Give 1 to {MOST_TOKENS}.")
    with lock or nullcontext():
        seen = layer_pass(model, module, input_ids)
    return terms_of(layer, module, seen)


@torch.no_grad()
def layer_pass(model: nn.Module, module: str, input_ids: Sequence[int]) -> LayerPass:
    """Run a text through the model, and keep what one of its adapted layers computed."""
    layer = recorded_layers(model)[module]
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        kept.append((inputs[0].detach().flatten(0, -2), output.detach().flatten(0, -2)))

    ids = torch.tensor([list(input_ids)], device=next(model.parameters()).device)
    handle = layer.register_forward_hook(keep)
    try:
        with record_gates(model, max_tokens=1) as record:
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    ((x, y),) = kept
    return LayerPass(x, record.stacked()[record.modules.index(module), 0], y)


@torch.no_grad()
def products(layer: HydraLoraLayer, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """B_i A x of each head in turn, or B_i A_i x where A is not shared: (tokens, in) -> (tokens, out), float32."""
    a, heads = head_matrices(layer)  # (1 or N, r, in), (N, out, r)
    for i, head in enumerate(heads):
        own = a[i if len(a) > 1 else 0]
        yield (x.to(own.dtype) @ own.T @ head.T).float()


@torch.no_grad()
def terms_of(layer: HydraLoraLayer, module: str, seen: LayerPass) -> LayerTerms:
    """The norms of a layer's terms in a pass."""
    name = active_adapter(layer)
    adapter, scaling = layer.adapters[name], layer.scaling[name]
    a, _ = head_matrices(layer)
    gates = seen.gates.to(seen.x.device)
    latent = [_norms(seen.x.to(own.dtype) @ own.T) for own in a]  # (1 or N) x (tokens)
    change = torch.zeros_like(seen.y, dtype=torch.float32)
    product_norms, added_norms = [], []
    for i, product in enumerate(products(layer, seen.x)):
        added = scaling * gates[:, i : i + 1] * product  # (tokens, out)
        change += added
        product_norms.append(_norms(product))
        added_norms.append(_norms(added))
    inputs, base, output, changes = map(_norms, (seen.x, layer.base_layer(seen.x), seen.y, change))
    tokens = tuple(
        TokenTerms(
            x=inputs[t],
            base=base[t],
            output=output[t],
            latent=tuple(norms[t] for norms in latent),
            change=changes[t],
            heads=tuple(
                HeadTerm(gate, product_norms[i][t], added_norms[i][t]) for i, gate in enumerate(gates[t].tolist())
            ),
        )
        for t in range(len(inputs))
    )
    shape = layer.in_features, layer.out_features, adapter.r, adapter.num_heads, adapter.shared_A
    return LayerTerms(module, *shape, scaling, tokens)


def _norms(values: torch.Tensor) -> list[float]:
    """Norms of the rows of (tokens, width)."""
    norms: list[float] = values.float().norm(dim=-1).tolist()
    return norms
