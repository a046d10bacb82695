"""The adapter's settings, as PEFT stores them in adapter_config.json."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from peft import PeftConfig

from hydralora.errors import ConfigError


class HydraPeftType(str, Enum):
    """PEFT's own enum is closed; transformers' `load_adapter` asks for a member that has a `.value`."""

    HYDRALORA = "HYDRALORA"


@dataclass
class HydraLoraConfig(PeftConfig):
    """One shared A, `num_heads` heads B and a router per adapted layer (Tian et al. 2024, section 3).

    The layer computes y = base(x) + lora_alpha / r * sum_i gates_i * B_i A x.

    Raises:
        ConfigError: r or num_heads below 1, dropout outside [0, 1), or an unknown option.
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
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names (or one regex) of the layers to adapt."}
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
        for name in ("r", "num_heads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"HydraLoraConfig: {name} is {value!r}. Set it to a whole number of at least 1.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"HydraLoraConfig: lora_dropout is {self.lora_dropout!r}. Set it from 0 to below 1.")
        _one_of("router_input", self.router_input, ("latent", "hidden"))
        _one_of("router_init", self.router_init, ("random", "components"))
        if self.router_init == "components" and self.router_bias is False:
            raise ConfigError("HydraLoraConfig: router_init='components' needs a router bias. Leave out router_bias.")
        if self.router_bias is None:
            self.router_bias = self.router_init == "components"
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple, set)):
                setattr(self, name, sorted(value))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"HydraLoraConfig: {name} is {value!r}. Choose one of {', '.join(allowed)}.")
