"""The HydraLoRA layer: the only code that computes its formula."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.dropout import dropout
from hydralora.tuner.router import BatchRows, Norm, OracleRouter, Router, UniformRouter, own_parameter

CENTRED_STD = 0.02  # of the heads' random start; transformers' usual initializer_range


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter's settings on a layer; `scaling` is the configured factor, before any `set_scale`."""

    r: int
    num_heads: int
    scaling: float
    reads_input: bool
    shared_A: bool
    lora_dropout: float
    head_dropout: float
    train_router: bool
    cores: bool
    vectors: bool


class Cores(nn.Module):
    """For each head an r x r matrix M_i between the one A and the one B, as if head i were B M_i (2603.00573)."""

    def __init__(self, num_heads: int, r: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(r).expand(num_heads, r, r).contiguous())  # (N, r, r)
        nn.init.normal_(noise := torch.empty_like(self.weight), std=CENTRED_STD)
        self.weight.data.add_(noise)  # alike, cores would get no gradient that tells them apart

    def forward(self, mixed: torch.Tensor) -> torch.Tensor:
        """sum_i M_i mixed_i: (..., N, r) -> (..., 1, r)."""
        cores = own_parameter(self, "weight").to(mixed.dtype)
        return (mixed.flatten(-2) @ cores.flatten(0, 1)).unsqueeze(-2)


class Heads(nn.ParameterDict):
    """By adapter, all its heads B on a layer as one parameter: (N, r, out); vectors are (N, 1, out).

    It is called, since offloading, FSDP and replicas provide a module's parameters when they call it.
    """

    __call__ = nn.Module.__call__  # which ParameterDict takes away

    @property
    def weight(self) -> nn.Parameter | None:
        """Heads that learn, if any: PEFT's policy for FSDP recognises by this name what to shard."""
        return next((heads for heads in self.parameters() if heads.requires_grad), None)

    def forward(
        self,
        name: str,
        mixed: torch.Tensor,
        result: torch.Tensor,
        scaling: float,
        in_place: bool = False,
        times: bool = False,
    ) -> torch.Tensor:
        """result + scaling * sum_i B_i mixed_i, one product for all heads: (..., N*r), (..., out) -> (..., out).

        In place, in two dimensions, it makes no pass over (tokens, out) and keeps nothing that wide for the backward
        pass. With `times`, what is added is multiplied by the result: result * (1 + scaling * sum_i mixed_i v_i).
        """
        heads = own_parameter(self, name).flatten(0, 1)  # (N*r, out)
        if times:
            return (result * (1 + (scaling * mixed) @ heads)).to(result.dtype)
        if heads.dtype != mixed.dtype:  # they are small; and autocast leaves addmm_ out
            heads = heads.to(mixed.dtype)
        if in_place and result.dtype == mixed.dtype:
            return result.addmm_(mixed, heads, alpha=scaling)
        return (result + (scaling * mixed) @ heads).to(result.dtype)


class HydraLoraLayer(nn.Module, BaseTunerLayer):
    """A frozen linear layer with one or several named HydraLoRA adapters beside it.

    Attributes:
        adapters: by name, an adapter's settings on this layer.
        scaling: by name, the factor of an adapter's output, as in PEFT's LoRA.
        cast_input_dtype_enabled: read by PEFT; `peft.helpers.disable_input_dtype_casting` turns it off.
    """

    adapter_layer_names: tuple[str, ...] = ("hydra_A", "hydra_B", "hydra_router", "hydra_core")
    other_param_names: tuple[str, ...] = ("adapters", "scaling")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: HydraLoraConfig, key: str = "") -> None:
        super().__init__()
        self.base_layer = base_layer
        self.hydra_A = nn.ModuleDict()
        self.hydra_B = Heads()
        self.hydra_router = nn.ModuleDict()
        self.hydra_core = nn.ModuleDict()  # empty where heads are whole matrices
        self.adapters: dict[str, Adapter] = {}
        self.scaling: dict[str, float] = {}
        self.cast_input_dtype_enabled = True
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = layer_shape(self.get_base_layer())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, key)

    def update_layer(self, adapter_name: str, config: HydraLoraConfig, key: str = "") -> None:
        """Add an adapter: A Kaiming-uniform, heads zero or centred, so that the layer's output does not change.

        Args:
            key: the layer's name in the model, by which `rank_pattern` and `alpha_pattern` know it.

        Raises:
            ConfigError: an adapter's name that torch uses itself.
        """
        if hasattr(Heads, adapter_name):
            raise ConfigError(f"An adapter can't be named {adapter_name!r}, which torch uses itself. Rename it.")
        r, scaling = config.rank_and_scaling(key)
        num_heads, reads_input = config.num_heads, config.router_input == "hidden"
        latent = r if config.shared_A else num_heads * r
        if not config.vectors:
            a = nn.Linear(self.in_features, latent, bias=False)
            nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
            self.hydra_A[adapter_name] = a
        self.hydra_B[adapter_name] = nn.Parameter(torch.zeros(1 if config.cores else num_heads, r, self.out_features))
        if config.cores:
            self.hydra_core[adapter_name] = Cores(num_heads, r)
        self.hydra_router[adapter_name] = _router(config, self.in_features if reads_input else latent)
        self.scaling[adapter_name] = scaling
        self.adapters[adapter_name] = Adapter(
            r=r,
            num_heads=num_heads,
            scaling=scaling,
            reads_input=reads_input,
            shared_A=config.shared_A,
            lora_dropout=config.lora_dropout,
            head_dropout=config.head_dropout,
            train_router=config.train_router,
            cores=config.cores,
            vectors=config.vectors,
        )
        if config.head_init == "centred":
            self._centre(adapter_name)
        elif not config.init_weights:
            nn.init.uniform_(self.hydra_B[adapter_name], -1 / math.sqrt(r), 1 / math.sqrt(r))  # as LoRA's B then is
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

    def forward(
        self, x: torch.Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """(..., in) -> (..., out). With every head zero the result is bit-equal to the base layer's.

        Args:
            adapter_names: None, for the active adapters; or each row's adapter, "__base__" for none.

        Raises:
            ConfigError: another number of adapter_names than of rows.
        """
        base_layer: Any = self._modules["base_layer"]
        if self._disable_adapters:
            return base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._add_by_row(base_layer(x, *args, **kwargs), x, adapter_names)
        shape = x.shape
        in_place = not args and not kwargs and x.is_contiguous() and _is_plain(base_layer, nn.Linear, "weight")
        if in_place:  # in two dimensions, since autograd copies a view that is written into
            x = x.view(-1, shape[-1])
        if in_place and not self.training:
            result = nn.functional.linear(x, base_layer._parameters["weight"], base_layer._parameters["bias"])
        else:
            result = base_layer(x, *args, **kwargs)
        for name in self.active_adapters:
            if name in self.adapters:
                result = self._add(result, name, x, in_place)
        return result.view(*shape[:-1], self.out_features) if in_place else result

    def _add(
        self, result: torch.Tensor, name: str, x: torch.Tensor, in_place: bool, rows: BatchRows | None = None
    ) -> torch.Tensor:
        """result + scale * sum_i gates_i B_i A x: one small matrix product for A, one for all heads: (..., out).

        Where A is not shared, head i has its own: gates_i B_i A_i x. Where heads are vectors, they scale the result.
        `rows` are those of the batch that x has.
        """
        adapter, training = self.adapters[name], self.training
        if adapter.vectors:
            gates = self.hydra_router[name](x, rows)  # (..., N)
            mixed = dropout(gates, adapter.head_dropout) if training else gates
            return self.hydra_B(name, mixed, result, self.scaling[name], times=True)
        a: Any = self._modules["hydra_A"]._modules[name]  # type: ignore[union-attr]
        heads: Any = self._modules["hydra_B"]
        in_place = in_place and _is_plain(heads, Heads, name)
        plain = _is_plain(a, nn.Linear, "weight")
        direct = in_place and not training and plain
        weight = a._parameters["weight"] if plain else a.weight
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            if plain and self.cast_input_dtype_enabled:
                weight = weight.to(x.dtype)  # A is small; x is as wide as the model
            else:
                x = self._cast_input_dtype(x, weight.dtype)
        dropped = dropout(x, adapter.lora_dropout) if training else x
        z = nn.functional.linear(dropped, weight) if plain else a(dropped)  # (..., r); (..., N*r) if A isn't shared
        router: Any = self._modules["hydra_router"]._modules[name]  # type: ignore[union-attr]
        gates = router(x if adapter.reads_input else z, rows)  # (..., N)
        if gates.dtype != z.dtype:
            gates = gates.to(z.dtype)
        mixed = gates.unsqueeze(-1) * (
            z.unsqueeze(-2) if adapter.shared_A else z.unflatten(-1, (adapter.num_heads, -1))
        )
        if training:
            mixed = dropout(mixed, adapter.head_dropout)  # (..., N, r)
        if adapter.cores:
            mixed = self.hydra_core[name](mixed)  # (..., 1, r)
        add_heads = heads.forward if direct else heads
        return add_heads(name, mixed.flatten(-2), result, self.scaling[name], in_place)

    def _add_by_row(self, result: torch.Tensor, x: torch.Tensor, adapter_names: Sequence[str]) -> torch.Tensor:
        """result (rows, ..., out) with each row's own adapter; "__base__", or one that this layer lacks, adds nothing.

        An architecture that flattens batch and tokens gives (rows * tokens, in); a row's tokens then follow each other.
        """
        copies, rest = divmod(len(x), len(adapter_names)) if x.dim() == 2 and adapter_names else (1, 0)
        names = [name for name in adapter_names for _ in range(copies)]
        if rest or len(names) != len(x):
            raise ConfigError(
                f"adapter_names has {len(adapter_names)} names, but the layer's input has {len(x)} rows. Give one "
                "name for each row, '__base__' for none."
            )
        for name in dict.fromkeys(names):
            if name in self.adapters:
                indices = torch.tensor([i for i, other in enumerate(names) if other == name], device=x.device)
                part = self._add(result[indices], name, x[indices], False, BatchRows(indices, len(x)))
                result = result.index_copy(0, indices, part)
        return result

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Called by PEFT whenever it lets adapters learn: a router that is to stay as it starts doesn't."""
        for name, adapter in self.adapters.items():
            if not adapter.train_router:
                self.hydra_router[name].requires_grad_(False)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set an adapter's factor to `scale` times the configured one; nothing where the layer lacks the adapter."""
        if adapter in self.adapters:
            self.scaling[adapter] = scale * self.adapters[adapter].scaling

    def scale_layer(self, scale: float) -> None:
        """Multiply the factors of the active adapters."""
        for name in self.active_adapters:
            if name in self.scaling:
                self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the factors of the active adapters; None sets them to the configured ones."""
        for name in self.active_adapters:
            if name in self.scaling:
                self.scaling[name] = self.adapters[name].scaling if scale is None else self.scaling[name] / scale

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError(
            "A HydraLoRA layer can't be merged into its base: its gates change from token to token. "
            "Keep the adapter beside the base model, or make a plain LoRA of it with hydralora.bake, which is an "
            "approximation, and merge that."
        )

    def unmerge(self) -> None:
        raise NotImplementedError("A HydraLoRA layer is never merged, so there is nothing to unmerge.")

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """
        Raises:
            ConfigError: always; PEFT's convert_to_lora needs one matrix for all tokens.
        """
        raise ConfigError(
            "convert_to_lora: a HydraLoRA layer has no single weight change that a LoRA could equal, since its gates "
            "change from token to token. hydralora.bake makes the plain LoRA that is closest on your data."
        )

    def __repr__(self) -> str:
        return "hydralora." + super().__repr__()


def _router(config: HydraLoraConfig, features: int) -> Router:
    """A config's router, which reads `features` numbers of each token."""
    if config.router in ("uniform", "oracle"):
        return (UniformRouter if config.router == "uniform" else OracleRouter)(config.num_heads)
    norm: Norm | None = "cosine" if config.router == "cosine" else "rms" if config.router_norm else None
    return Router(features, config.num_heads, bool(config.router_bias), config.top_k, norm, config.router_scope)


def _is_plain(module: nn.Module, kind: type[nn.Module], parameter: str) -> bool:
    """Whether calling the module only runs its class's `forward`, on a parameter of its own.

    It doesn't if a hook sees its input and output, if accelerate has replaced its `forward`, or if FSDP or a replica
    keeps its parameters elsewhere. Only where it does may its output be written into, and may its parameters be read
    without calling it: for one token, the calls take as long as the adapter's products.
    """
    return (
        type(module) is kind
        and parameter in module._parameters
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or "forward" in module.__dict__
            or nn.modules.module._has_any_global_hook()
        )
    )


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer; GPT-2's Conv1D keeps its weight as (in, out)."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    in_features, out_features = layer.get_parameter("weight").shape
    return in_features, out_features
