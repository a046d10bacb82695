"""The adapter's settings, as PEFT stores them in adapter_config.json."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from peft import PeftConfig

from hydralora.errors import ConfigError

CHOICES = {
    "router_input": ("latent", "hidden"),
    "router_init": ("random", "components"),
    "router": ("softmax", "uniform"),
    "head_init": ("zeros", "centred"),
}


class HydraPeftType(str, Enum):
    """PEFT's own enum is closed; transformers' `load_adapter` asks for a member that has a `.value`."""

    HYDRALORA = "HYDRALORA"


@dataclass
class HydraLoraConfig(PeftConfig):
    """One shared A, `num_heads` heads B and a router per adapted layer (Tian et al. 2024, section 3).

    The layer computes y = base(x) + lora_alpha / r * sum_i gates_i * B_i A x. head_init and head_dropout follow
    R-LoRA (2502.15455), the load-balance loss Switch Transformers (2101.03961, section 2.2).

    Raises:
        ConfigError: a number outside its range, an unknown option, or options that exclude each other.
    """

    r: int = field(default=8, metadata={"help": "Rank of A and of every head."})
    num_heads: int = field(default=3, metadata={"help": "Number of heads (B matrices) per adapted layer."})
    lora_alpha: float = field(default=16, metadata={"help": "The adapter's output is scaled by lora_alpha / r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the layer's input, before A."})
    router_input: Literal["latent", "hidden"] = field(
        default="latent",
        metadata={"help": "The router reads A x (latent, the paper) or x itself (hidden, the published code)."},
    )
    router_bias: bool | None = field(
        default=None, metadata={"help": "Give the router a bias. None: only when router_init is 'components'."}
    )
    router_init: Literal["random", "components"] = field(
        default="random",
        metadata={"help": "How the router starts. 'components' needs a call of hydralora.init_router before training."},
    )
    router: Literal["softmax", "uniform"] = field(
        default="softmax",
        metadata={"help": "Gates from a learnt softmax, or all 1/N (the paper's ablation w/o gate)."},
    )
    top_k: int | None = field(
        default=None, metadata={"help": "Keep each token's top_k largest gates, renormalised. None: all (the paper)."}
    )
    balance_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the load-balance loss, which hydralora's training adds to the training loss."},
    )
    head_init: Literal["zeros", "centred"] = field(
        default="zeros",
        metadata={"help": "Heads start at zero (published), or random with sum zero behind a router at zero."},
    )
    head_dropout: float = field(default=0.0, metadata={"help": "Dropout on A x, drawn for every head by itself."})
    shared_A: bool = field(
        default=True, metadata={"help": "One A for all heads; False gives every head its own (LoRA-Split, w/o Hydra)."}
    )
    target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "Names (or one regex) of the layers to adapt. None: the MLP's linear layers, as published."},
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names (or one regex) of layers to leave alone."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Adapt only the blocks with these indices."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, if it is not a common one."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules to train in full and save."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HydraPeftType.HYDRALORA
        self._check_numbers()
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"HydraLoraConfig: {name} is {getattr(self, name)!r}. Choose one of {', '.join(allowed)}."
                )
        if self.head_init == "centred" and self.top_k not in (None, self.num_heads):
            raise ConfigError(
                f"HydraLoraConfig: head_init='centred' starts with heads that sum to zero, which top_k={self.top_k} of "
                f"{self.num_heads} heads don't. Leave top_k out, or set head_init='zeros'."
            )
        if self.router == "uniform":
            self._refuse_a_routers_settings()
        if self.router_bias is None:
            self.router_bias = self.router_init == "components"
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple, set)):
                setattr(self, name, sorted(value))

    def _check_numbers(self) -> None:
        for name in ("r", "num_heads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"HydraLoraConfig: {name} is {value!r}. Set it to a whole number of at least 1.")
        for name in ("lora_dropout", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"HydraLoraConfig: {name} is {getattr(self, name)!r}. Set it from 0 to below 1.")
        if not 0 <= self.balance_weight < math.inf:
            raise ConfigError(f"HydraLoraConfig: balance_weight is {self.balance_weight!r}. Set it to 0 or more.")
        if self.top_k is not None and (type(self.top_k) is not int or not 1 <= self.top_k <= self.num_heads):
            raise ConfigError(
                f"HydraLoraConfig: top_k is {self.top_k!r}. Set it to a whole number from 1 to "
                f"num_heads={self.num_heads}."
            )

    def _refuse_a_routers_settings(self) -> None:
        for name, unused in (("router_init", "random"), ("top_k", None), ("router_bias", None), ("balance_weight", 0)):
            if getattr(self, name) not in (unused, False):
                raise ConfigError(
                    f"HydraLoraConfig: router='uniform' has nothing to learn, so {name}={getattr(self, name)!r} has no "
                    f"meaning. Leave it out, or set router='softmax'."
                )
