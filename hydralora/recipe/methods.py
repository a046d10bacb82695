"""The methods that a recipe may name: what each one trains, which settings it reads, what its result is good for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MethodName = Literal[
    "hydralora",
    "lora",
    "lora-split",
    "uniform",
    "oracle",
    "lorahub",
    "adalora",
    "ia3",
    "ia3-heads",
    "prefix-tuning",
    "p-tuning",
    "prompt-tuning",
    "full",
]

LAYERS = frozenset({"target_modules", "exclude_modules", "modules_to_save"})
LOW_RANK = LAYERS | {"r", "lora_alpha", "lora_dropout", "layers_to_transform"}
LORA = LOW_RANK | {"use_rslora"}
ROUTER = frozenset(
    {
        "router_input",
        "router_init",
        "router_entropy",
        "router_bias",
        "router",
        "router_norm",
        "router_scope",
        "train_router",
        "top_k",
        "balance_weight",
        "gate_information",
    }
)
HEADS = LORA | ROUTER | {"num_heads", "head_init", "head_dropout", "cores"}
VIRTUAL = frozenset({"virtual_tokens"})


@dataclass(frozen=True)
class Method:
    """A method of fine-tuning.

    Attributes:
        name: for people.
        reads: the tuner's settings that have an effect.
        heads: what it sets in HydraLoraConfig; None for an adapter without heads.
        has_matrices: whether it trains an A and heads, or one B, which can be drawn and compared.
        exports: the formats that a run of it can be exported in.
        can_continue: whether another run may start from its adapter.
    """

    name: str
    reads: frozenset[str]
    heads: Mapping[str, object] | None = None
    has_matrices: bool = False
    exports: tuple[str, ...] = ("adapter",)
    can_continue: bool = False

    @property
    def is_told_heads(self) -> bool:
        """Whether each row's component names its head, so that nothing need be learnt of the gates."""
        return self.heads is not None and self.heads.get("router") == "oracle"

    @property
    def has_rank(self) -> bool:
        return "r" in self.reads

    @property
    def has_virtual_tokens(self) -> bool:
        return self.reads == VIRTUAL


def _with_heads(name: str, reads: frozenset[str], **heads: object) -> Method:
    exports = ("adapter", "lora", "merged", "official")
    return Method(name, reads, heads, has_matrices=True, exports=exports, can_continue=True)


METHODS: dict[MethodName, Method] = {
    "hydralora": _with_heads("HydraLoRA", HEADS),
    "lora": Method("LoRA", LORA, has_matrices=True, exports=("adapter", "lora", "merged"), can_continue=True),
    "lora-split": _with_heads("LoRA-Split", HEADS - {"cores"}, shared_A=False),
    "uniform": _with_heads("HydraLoRA without a router", HEADS - ROUTER, router="uniform"),
    "oracle": _with_heads("HydraLoRA with oracle gates", HEADS - ROUTER, router="oracle"),
    "lorahub": Method(
        "LoraHub",
        HEADS - ROUTER - {"cores", "head_init", "head_dropout"},
        {"shared_A": False, "router": "oracle"},
        has_matrices=True,
        exports=("adapter", "lora", "merged"),
    ),
    "adalora": Method("AdaLoRA", LOW_RANK, exports=("adapter", "merged")),
    "ia3": Method("(IA)³", LAYERS, exports=("adapter", "merged")),
    "ia3-heads": Method(
        "(IA)³ vectors with a router",
        LAYERS | ROUTER - {"router_input"} | {"layers_to_transform", "num_heads", "head_dropout"},
        {"vectors": True, "router_input": "hidden"},
    ),
    "prefix-tuning": Method("Prefix tuning", VIRTUAL),
    "p-tuning": Method("P-tuning", VIRTUAL),
    "prompt-tuning": Method("Prompt tuning", VIRTUAL),
    "full": Method("Full fine-tuning", frozenset(), exports=("merged",)),
}
METHOD_NAMES: dict[str, str] = {name: method.name for name, method in METHODS.items()}


def why_unfit(name: MethodName, continues: bool, quantised: bool, checkpointing: bool, sharded: bool) -> str:
    """Why a method can't be combined with what a recipe asks for besides, and what to do; "" if it can."""
    method = METHODS[name]
    if continues and not method.can_continue:
        able = ", ".join(other for other, kind in METHODS.items() if kind.can_continue)
        return (
            f"start_from: a run of method {name} can't start from another run's adapter. Leave start_from out, resume "
            f"that run, or choose one of the methods {able}"
        )
    if quantised and name == "full":
        return (
            "method full trains the base model's own weights, which can't be trained in 4 bits. "
            "Set quantization=none, or method=lora"
        )
    if checkpointing and name == "prefix-tuning":
        return (
            "method prefix-tuning doesn't work with gradient checkpointing: its prefix is a cache, which a block that "
            "is computed twice would extend twice. Set training.gradient_checkpointing=false, or method=p-tuning"
        )
    if sharded and (method.has_virtual_tokens or name in ("adalora", "lorahub")):
        return (
            f"method {name} needs its whole weights in each process. Leave launch.fsdp and launch.deepspeed out, or "
            "set method=lora"
        )
    return ""
