"""The HydraLoRA layer: the one place where its formula stands."""

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from hydralora.tuner.config import HydraLoraConfig


class Router(nn.Module):
    """Gates for every token: a linear map and a softmax, in float32 whatever the base's dtype.

    It is a module of its own so that gates can be recorded, or replaced, by a forward hook on it.
    """

    def __init__(self, in_features: int, num_heads: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, in_features))  # (N, in or r)
        self.bias = nn.Parameter(torch.zeros(num_heads)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (..., in or r) to gates (..., N), float32, each row summing to 1."""
        with torch.autocast(features.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            logits = nn.functional.linear(features.float(), self.weight.float(), bias)
            return logits.softmax(dim=-1)


class HydraLoraLayer(nn.Module, BaseTunerLayer):
    """A frozen linear layer with one or several named HydraLoRA adapters beside it."""

    adapter_layer_names: tuple[str, ...] = ("hydra_A", "hydra_B", "hydra_router")
    other_param_names: tuple[str, ...] = ("r", "num_heads", "scaling", "reads_input", "hydra_dropout")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: HydraLoraConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.hydra_A = nn.ModuleDict()
        self.hydra_B = nn.ParameterDict()
        self.hydra_router = nn.ModuleDict()
        self.hydra_dropout = nn.ModuleDict()
        self.r: dict[str, int] = {}
        self.num_heads: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.reads_input: dict[str, bool] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = layer_shape(self.get_base_layer())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: HydraLoraConfig) -> None:
        """Add an adapter: A Kaiming-uniform, heads zero, so that the layer's output does not change."""
        r, num_heads = config.r, config.num_heads
        self.r[adapter_name] = r
        self.num_heads[adapter_name] = num_heads
        self.scaling[adapter_name] = config.lora_alpha / r
        self.reads_input[adapter_name] = config.router_input == "hidden"
        self.hydra_dropout[adapter_name] = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        a = nn.Linear(self.in_features, r, bias=False)
        nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        self.hydra_A[adapter_name] = a
        self.hydra_B[adapter_name] = nn.Parameter(torch.zeros(num_heads, r, self.out_features))
        self.hydra_router[adapter_name] = Router(
            self.in_features if self.reads_input[adapter_name] else r, num_heads, bool(config.router_bias)
        )
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in) -> (..., out). With every head zero the result is bit-equal to the base layer's."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.hydra_A:
                result = result + self.adapter_delta(name, x).to(result.dtype)
        return result

    def adapter_delta(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """scale * sum_i gates_i B_i A x, as one small matrix product for A and one for all heads: (..., out)."""
        B = self.hydra_B[name]  # (N, r, out)
        x = self._cast_input_dtype(x, B.dtype)
        z = self.hydra_A[name](self.hydra_dropout[name](x))  # (..., r), once for all heads
        gates = self.hydra_router[name](x if self.reads_input[name] else z)  # (..., N)
        gates = gates.to(z.dtype) * self.scaling[name]
        mixed = (gates.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2)  # (..., N*r)
        return mixed @ B.flatten(0, 1)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError(
            "A HydraLoRA layer can't be merged into its base: its gates change from token to token. "
            "Keep the adapter beside the base model."
        )

    def unmerge(self) -> None:
        raise NotImplementedError("A HydraLoRA layer is never merged, so there is nothing to unmerge.")

    def __repr__(self) -> str:
        return "hydralora." + super().__repr__()


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(in_features, out_features) of a linear layer; GPT-2's Conv1D keeps its weight as (in, out)."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    in_features, out_features = layer.get_parameter("weight").shape
    return in_features, out_features


def normalised_entropy(gates: torch.Tensor) -> torch.Tensor:
    """Entropy of gates (..., N) as a share of its maximum log N, so 1 is uniform; 0 for one head."""
    num_heads = gates.shape[-1]
    if num_heads == 1:
        return gates.new_zeros(gates.shape[:-1])
    return -(gates * gates.clamp_min(1e-12).log()).sum(-1) / math.log(num_heads)
