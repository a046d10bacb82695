"""The adapter's settings, as PEFT stores them in adapter_config.json."""

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from peft import PeftConfig
from peft.utils.other import get_pattern_key

from hydralora.errors import ConfigError

RouterInput = Literal["latent", "hidden"]
RouterInit = Literal["random", "components"]
RouterKind = Literal["softmax", "cosine", "uniform", "oracle"]
RouterScope = Literal["token", "row"]
HeadInit = Literal["zeros", "centred", "components"]
LIMITS = {"ge": (operator.ge, "at least"), "lt": (operator.lt, "below")}  # named as pydantic's Field names them


def described(help: str, **limits: float) -> dict[str, Any]:
    """A field's metadata; the studio's settings take their help and their limits (`LIMITS`) from here."""
    return {"help": help, "limits": limits}


class HydraPeftType(str, Enum):
    """PEFT's own enum can't be extended; transformers' `load_adapter` needs a member with a `.value`."""

    HYDRALORA = "HYDRALORA"


@dataclass
class HydraLoraConfig(PeftConfig):
    """One shared A, `num_heads` heads B and a router per adapted layer (Tian et al. 2024, section 3).

    The layer computes y = base(x) + lora_alpha / r * sum_i gates_i * B_i A x. head_init and head_dropout follow
    R-LoRA (2502.15455), the load-balance loss Switch Transformers (2101.03961, section 2.2), router_scope EMO
    (2605.06663), router_norm L2R (2601.21349), cores CoMoL (2603.00573). Names that PEFT's LoraConfig has too mean the
    same here.

    Raises:
        ConfigError: a number outside its range, an unknown option, or options that exclude each other.
    """

    r: int = field(default=8, metadata=described("Rank of A and of every head.", ge=1))
    num_heads: int = field(default=3, metadata=described("Number of heads (B matrices) per adapted layer.", ge=1))
    lora_alpha: float = field(default=16, metadata=described("The adapter's output is scaled by lora_alpha / r."))
    lora_dropout: float = field(default=0.0, metadata=described("Dropout on the layer's input, before A.", ge=0, lt=1))
    router_input: RouterInput = field(
        default="latent",
        metadata=described("The router reads A x (latent, the paper) or x itself (hidden, the published code)."),
    )
    router_bias: bool | None = field(
        default=None, metadata=described("Give the router a bias. None: only when router_init is 'components'.")
    )
    router_init: RouterInit = field(
        default="random",
        metadata=described(
            "How the router starts. 'components' needs a call of hydralora.init_router before training."
        ),
    )
    router: RouterKind = field(
        default="softmax",
        metadata=described(
            "Gates from a learnt softmax of products (the paper) or of cosines; all 1/N (the paper's ablation w/o "
            "gate); or each row's own head alone, named from outside by hydralora.tuner.rows (oracle: a control)."
        ),
    )
    router_norm: bool = field(
        default=False,
        metadata=described("Divide what the router reads by its root mean square, and learn a factor of the logits."),
    )
    router_scope: RouterScope = field(
        default="token",
        metadata=described(
            "Gates by each token (the paper), or by each token and the mean logits of its row's prompt (row)."
        ),
    )
    train_router: bool = field(default=True, metadata=described("False: the router stays as it starts (a control)."))
    top_k: int | None = field(
        default=None,
        metadata=described("Keep each token's top_k largest gates, renormalised. None: all of them (the paper).", ge=1),
    )
    balance_weight: float = field(
        default=0.0,
        metadata=described(
            "Weight of the load-balance loss, which hydralora's training adds to the training loss.", ge=0
        ),
    )
    gate_information: float = field(
        default=0.0,
        metadata=described(
            "Weight of the mutual information of tokens and heads, which hydralora's training adds to what it "
            "maximises: each token's gates sharp, their mean even.",
            ge=0,
        ),
    )
    head_init: HeadInit = field(
        default="zeros",
        metadata=described(
            "Heads start at zero (published); random with a sum of zero and a router at zero (centred); or along their "
            "component's outputs, with a sum of zero (components), by a call of hydralora.tuner.head_init.init_heads."
        ),
    )
    head_dropout: float = field(
        default=0.0, metadata=described("Dropout on A x, drawn independently for each head.", ge=0, lt=1)
    )
    shared_A: bool = field(
        default=True,
        metadata=described(
            "One A for all heads; False gives every head its own (LoRA-Split, the paper's ablation w/o Hydra)."
        ),
    )
    cores: bool = field(
        default=False,
        metadata=described(
            "One A and one B, and for each head an r x r core between them: one LoRA's size at any number of heads."
        ),
    )
    vectors: bool = field(
        default=False,
        metadata=described(
            "Heads are vectors v_i that scale a layer's output, as (IA)3 does by one: y = base(x) * (1 + sum_i gates_i "
            "v_i). There is no A, so the router reads x."
        ),
    )
    target_modules: set[str] | list[str] | str | None = field(
        default=None,
        metadata=described("Names (or one regex) of the layers to adapt. None: the MLP's linear layers, as published."),
    )
    exclude_modules: set[str] | list[str] | str | None = field(
        default=None, metadata=described("Names (or one regex) of layers not to adapt.")
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata=described("Indices of the blocks to adapt, from 0. None: all of them.")
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata=described("Name of the list of blocks, if it is an uncommon one.")
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata=described("Names of further modules to train in full and save with the adapter.")
    )
    use_rslora: bool = field(
        default=False, metadata=described("Scale by lora_alpha / sqrt(r) in place of lora_alpha / r (2312.03732).")
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict,
        metadata=described("Other ranks than r, by a layer's name, the end of it, or a regex.", ge=1),
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict,
        metadata=described("Other values than lora_alpha, by a layer's name, the end of it, or a regex."),
    )
    init_weights: bool = field(
        default=True, metadata=described("False: heads start random, so that the layer's output changes. For tests.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HydraPeftType.HYDRALORA
        for config_field in fields(self):
            self._check(config_field)
        if self.top_k is not None and self.top_k > self.num_heads:
            raise ConfigError(
                f"HydraLoraConfig: top_k is {self.top_k!r}. Set it to a whole number from 1 to "
                f"num_heads={self.num_heads}."
            )
        self._check_heads()
        if self.router in ("uniform", "oracle"):
            self._refuse_a_routers_settings()
        if self.router == "cosine" and self.router_bias:
            raise ConfigError(
                "HydraLoraConfig: router='cosine' compares directions, so router_bias=True has no meaning. Leave it "
                "out, or set router='softmax'."
            )
        if self.router_bias is None:
            self.router_bias = self.router_init == "components" and self.router != "cosine"
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                setattr(self, name, set(value))

    def to_dict(self) -> dict[str, Any]:
        """As the file holds it: sets, which have no order, as sorted lists."""
        return {key: sorted(value) if isinstance(value, set) else value for key, value in super().to_dict().items()}

    def rank_and_scaling(self, module: str) -> tuple[int, float]:
        """The rank of a module's A and heads, and the factor of the adapter's output there; of vectors 1 and 1."""
        if self.vectors:
            return 1, 1.0
        r = self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.r)
        alpha = self.alpha_pattern.get(get_pattern_key(list(self.alpha_pattern), module), self.lora_alpha)
        return r, alpha / (math.sqrt(r) if self.use_rslora else r)

    def _check(self, config_field: Field[Any]) -> None:
        """Refuse a value that is none of its field's choices, or one outside its limits."""
        value = getattr(self, config_field.name)
        if get_origin(config_field.type) is dict:
            self._check_pattern(config_field)
            return
        if get_origin(config_field.type) is Literal and value not in (allowed := get_args(config_field.type)):
            raise ConfigError(f"HydraLoraConfig: {config_field.name} is {value!r}. Choose one of {', '.join(allowed)}.")
        limits = config_field.metadata.get("limits")
        if not limits or (value is None and config_field.default is None):
            return
        whole = config_field.type is not float
        known = type(value) is int or (not whole and isinstance(value, float) and math.isfinite(value))
        if not known or not all(LIMITS[name][0](value, limit) for name, limit in limits.items()):
            kind = "whole number" if whole else "number"
            allowed_range = " and ".join(f"{LIMITS[name][1]} {limit}" for name, limit in limits.items())
            raise ConfigError(
                f"HydraLoraConfig: {config_field.name} is {value!r}. Set it to a {kind} of {allowed_range}."
            )

    def _check_pattern(self, config_field: Field[Any]) -> None:
        """Refuse a pattern that isn't a mapping from names to numbers within the field's limits."""
        pattern, (_, kind) = getattr(self, config_field.name), get_args(config_field.type)
        if pattern is None:
            setattr(self, config_field.name, {})
            return
        limits = config_field.metadata["limits"]
        known = isinstance(pattern, Mapping) and all(
            isinstance(name, str)
            and _is_regex(name)
            and (type(number) is int or (kind is float and isinstance(number, float) and math.isfinite(number)))
            and all(LIMITS[limit][0](number, value) for limit, value in limits.items())
            for name, number in pattern.items()
        )
        if not known:
            raise ConfigError(
                f"HydraLoraConfig: {config_field.name} is {pattern!r}. Map names of layers, which may be regexes, to "
                f"{'whole numbers of at least 1' if kind is int else 'numbers'}."
            )

    def _check_heads(self) -> None:
        """Refuse ways to start the heads, or to make them smaller, that exclude each other."""
        if self.head_init == "centred" and self.top_k not in (None, self.num_heads):
            raise ConfigError(
                f"HydraLoraConfig: head_init='centred' starts with heads that sum to zero, which top_k={self.top_k} of "
                f"{self.num_heads} heads don't. Leave top_k out, or set head_init='zeros'."
            )
        if self.head_init != "zeros" and not self.init_weights:
            raise ConfigError(
                f"HydraLoraConfig: head_init={self.head_init!r} and init_weights=False both say how heads start. Leave "
                "one out."
            )
        if self.head_init == "components" and not self.shared_A:
            raise ConfigError(
                "HydraLoraConfig: head_init='components' starts with heads that sum to zero, which heads with an A of "
                "their own (shared_A=False) don't. Leave one of the two out."
            )
        if self.vectors:
            others = {
                "router_input": (self.router_input, "hidden"),
                "shared_A": (self.shared_A, True),
                "cores": (self.cores, False),
                "head_init": (self.head_init, "zeros"),
            }
            if unfit := [f"{name}={value!r}" for name, (value, fitting) in others.items() if value != fitting]:
                raise ConfigError(
                    f"HydraLoraConfig: vectors=True has heads without an A, so {unfit[0]} has no meaning. Set "
                    "router_input='hidden', and leave the others out."
                )
        if self.cores and (self.head_init != "zeros" or not self.shared_A):
            other = "shared_A=False" if not self.shared_A else f"head_init={self.head_init!r}"
            raise ConfigError(
                f"HydraLoraConfig: cores=True has one A and one B for all heads, so {other} has no meaning. Leave one "
                "of the two out."
            )

    def _refuse_a_routers_settings(self) -> None:
        unused = {
            "router_init": "random",
            "router_norm": False,
            "router_scope": "token",
            "train_router": True,
            "top_k": None,
            "router_bias": False,
            "balance_weight": 0,
            "gate_information": 0,
        }
        for name, default in unused.items():
            if getattr(self, name) not in (default, None):
                raise ConfigError(
                    f"HydraLoraConfig: router={self.router!r} has nothing to learn, so {name}="
                    f"{getattr(self, name)!r} has no meaning. Leave it out, or set router='softmax'."
                )


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
