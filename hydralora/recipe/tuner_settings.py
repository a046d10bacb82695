"""The settings of the adapter: those of HydraLoraConfig, where a recipe has them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hydralora.recipe.section import Section
from hydralora.tuner.config import HeadInit, HydraLoraConfig, RouterInit, RouterInput, RouterScope


def tuner_setting(name: str, **studio: Any) -> Any:
    """HydraLoraConfig's field of this name; `studio` holds what differs here, by pydantic's names."""
    option = HydraLoraConfig.__dataclass_fields__[name]
    return Field(
        **{"default": option.default, "description": option.metadata["help"], **option.metadata["limits"], **studio}
    )


class TunerSettings(Section):
    """HydraLoraConfig's settings. Two have other defaults: router_input and router_init.

    With these, the held-out loss was lower than a LoRA's of equal size in 6 of 6 seeds on two files, and in 1 of 3 on a
    file on which nothing was tuned (tests/benchmarks/README.md).
    """

    r: int = tuner_setting("r", le=1024)
    num_heads: int | None = tuner_setting(
        "num_heads",
        default=None,
        le=64,
        description="Heads (B matrices) per adapted layer. Unset (0 in the form): one for each component.",
    )
    lora_alpha: float = tuner_setting("lora_alpha", gt=0, le=1e6)
    use_rslora: bool = tuner_setting("use_rslora")
    lora_dropout: float = tuner_setting("lora_dropout")
    router_input: RouterInput = tuner_setting("router_input", default="hidden")
    router_init: RouterInit = tuner_setting(
        "router_init",
        default="components",
        description="The router starts at random (published) or from the data's components. From components, the loss "
        "was lower than a LoRA's of equal size in 6 of 6 seeds on two files, in 1 of 3 on another: compare on yours.",
    )
    router_entropy: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="Gate entropy at the start, as a share of its maximum, with router_init components.",
    )
    router_bias: bool | None = tuner_setting("router_bias")
    router: Literal["softmax", "cosine"] = tuner_setting(
        "router", description="Gates from a softmax of products with the router's weight (the paper), or of cosines."
    )
    router_norm: bool = tuner_setting("router_norm")
    router_scope: RouterScope = tuner_setting("router_scope")
    train_router: bool = tuner_setting("train_router")
    top_k: int | None = tuner_setting("top_k", le=64)
    balance_weight: float = tuner_setting("balance_weight", le=1e3)
    gate_information: float = tuner_setting("gate_information", le=1e3)
    cores: bool = tuner_setting("cores")
    head_init: HeadInit = tuner_setting(
        "head_init",
        description="Heads start at zero (published); random with a sum of zero and, unless it starts from the "
        "components, a router at zero (centred); or along their component's outputs, with a sum of zero (components).",
    )
    head_dropout: float = tuner_setting("head_dropout")
    target_modules: list[str] | None = tuner_setting(
        "target_modules",
        min_length=1,
        description="Names of the layers to adapt. None: the MLP's linear layers (published).",
    )
    exclude_modules: list[str] | None = tuner_setting("exclude_modules", description="Names of layers to leave alone.")
    layers_to_transform: list[Annotated[int, Field(ge=0)]] | None = tuner_setting("layers_to_transform", min_length=1)
    modules_to_save: list[str] | None = tuner_setting("modules_to_save")
    virtual_tokens: int = Field(
        20, ge=1, le=1024, description="Trained tokens before every row, with prompt, P- or prefix tuning."
    )
