"""The HydraLoRA layer: the only code that computes its formula."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.dropout import dropout
from hydralora.tuner.router import Router, UniformRouter

CENTRED_STD = 0.02  # of the heads' random start; transformers' usual initializer_range


@dataclass(slots=True)
class Adapter:
    """One adapter of a layer: its settings and its parameters.

    nn.Module finds a parameter through half a dozen dictionaries. For one token that takes as long as the products do,
    so the parameters' own dictionaries are kept here: they see a parameter that is replaced, moved or loaded.
    """

    r: int
    num_heads: int
    scaling: float
    reads_input: bool
    shared_A: bool
    lora_dropout: float
    head_dropout: float
    A: Mapping[str, Any]  # "weight" -> (r, in); (N*r, in) where A is not shared
    heads: Mapping[str, Any]  # the adapter's name -> (N, r, out)
    router: Router


class HydraLoraLayer(nn.Module, BaseTunerLayer):
    """A frozen linear layer with one or several named HydraLoRA adapters beside it."""

    adapter_layer_names: tuple[str, ...] = ("hydra_A", "hydra_B", "hydra_router")
    other_param_names: tuple[str, ...] = ("adapters",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: HydraLoraConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.hydra_A = nn.ModuleDict()
        self.hydra_B = nn.ParameterDict()
        self.hydra_router = nn.ModuleDict()
        self.adapters: dict[str, Adapter] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = layer_shape(self.get_base_layer())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: HydraLoraConfig) -> None:
        """Add an adapter: A Kaiming-uniform, heads zero or centred, so that the layer's output does not change."""
        r, num_heads, reads_input = config.r, config.num_heads, config.router_input == "hidden"
        latent = r if config.shared_A else num_heads * r
        a = nn.Linear(self.in_features, latent, bias=False)
        nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        router = (
            UniformRouter(num_heads)
            if config.router == "uniform"
            else Router(self.in_features if reads_input else latent, num_heads, bool(config.router_bias), config.top_k)
        )
        self.hydra_A[adapter_name] = a
        self.hydra_B[adapter_name] = nn.Parameter(torch.zeros(num_heads, r, self.out_features))
        self.hydra_router[adapter_name] = router
        self.adapters[adapter_name] = Adapter(
            r=r,
            num_heads=num_heads,
            scaling=config.lora_alpha / r,
            reads_input=reads_input,
            shared_A=config.shared_A,
            lora_dropout=config.lora_dropout,
            head_dropout=config.head_dropout,
            A=a._parameters,
            heads=self.hydra_B._parameters,
            router=router,
        )
        if config.head_init == "centred":
            self._centre(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @torch.no_grad()
    def _centre(self, name: str) -> None:
        """Heads random but summing to zero, gates uniform: the sum is zero, yet heads differ and gates matter."""
        heads = nn.init.normal_(self.hydra_B[name], std=CENTRED_STD)  # (N, r, out)
        heads.sub_(heads.mean(0))
        if not self.adapters[name].shared_A:  # the sum over heads is zero only behind one and the same A
            a = self.hydra_A[name].get_parameter("weight").view(len(heads), -1, self.in_features)
            a.copy_(a[0].expand_as(a).clone())
        for parameter in self.hydra_router[name].parameters():
            parameter.zero_()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in) -> (..., out). With every head zero the result is bit-equal to the base layer's."""
        base_layer: Any = self._modules["base_layer"]
        if self._disable_adapters:
            return base_layer(x, *args, **kwargs)
        shape = x.shape
        in_place = not args and not kwargs and x.is_contiguous() and _is_plain_linear(base_layer)
        if in_place:  # in two dimensions, since autograd copies a view that is written into
            x = x.view(-1, shape[-1])
            result = nn.functional.linear(x, base_layer._parameters["weight"], base_layer._parameters["bias"])
        else:
            result = base_layer(x, *args, **kwargs)
        for name in self.active_adapters:
            if name in self.adapters:
                result = self._add(result, name, x, in_place)
        return result.view(*shape[:-1], self.out_features) if in_place else result

    def _add(self, result: torch.Tensor, name: str, x: torch.Tensor, in_place: bool) -> torch.Tensor:
        """result + scale * sum_i gates_i B_i A x: one small matrix product for A, one for all heads: (..., out).

        Where A is not shared, head i has its own: gates_i B_i A_i x. In place it makes no pass over (tokens, out) and
        keeps nothing that wide for the backward pass. It is one function because, for one token, each call more is
        noticeable.
        """
        adapter = self.adapters[name]
        heads, training = adapter.heads[name], self.training  # (N, r, out)
        if x.dtype != heads.dtype:
            x = self._cast_input_dtype(x, heads.dtype)
        dropped = dropout(x, adapter.lora_dropout) if training else x
        z = nn.functional.linear(dropped, adapter.A["weight"])  # (..., r), for all heads; (..., N*r) if A isn't shared
        gates = adapter.router(x if adapter.reads_input else z)  # (..., N)
        if gates.dtype != z.dtype:
            gates = gates.to(z.dtype)
        mixed = gates.unsqueeze(-1) * (
            z.unsqueeze(-2) if adapter.shared_A else z.unflatten(-1, (adapter.num_heads, -1))
        )
        if training:
            mixed = dropout(mixed, adapter.head_dropout)  # (..., N, r)
        mixed, heads = mixed.flatten(-2), heads.flatten(0, 1)  # (..., N*r), (N*r, out)
        if in_place and result.dtype == mixed.dtype:  # heads are of another one under autocast, which leaves addmm_ out
            if heads.dtype != mixed.dtype:
                heads = heads.to(mixed.dtype)
            return result.addmm_(mixed, heads, alpha=adapter.scaling)
        return (result + (adapter.scaling * mixed) @ heads).to(result.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError(
            "A HydraLoRA layer can't be merged into its base: its gates change from token to token. "
            "Keep the adapter beside the base model, or make a plain LoRA of it with hydralora.bake, which is an "
            "approximation, and merge that."
        )

    def unmerge(self) -> None:
        raise NotImplementedError("A HydraLoRA layer is never merged, so there is nothing to unmerge.")

    def __repr__(self) -> str:
        return "hydralora." + super().__repr__()


def _is_plain_linear(layer: nn.Module) -> bool:
    """Whether the layer only multiplies and adds its bias, and no other code observes its output.

    A hook may observe it; accelerate replaces the `forward` of a layer that it offloads.
    """
    return type(layer) is nn.Linear and not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
        or nn.modules.module._has_any_global_hook()
    )


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer; GPT-2's Conv1D keeps its weight as (in, out)."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    in_features, out_features = layer.get_parameter("weight").shape
    return in_features, out_features
