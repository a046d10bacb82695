"""Which layers are adapted by default: the MLP's linear layers, as in the published script."""

import re

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from hydralora.errors import ConfigError

ADAPTABLE = (nn.Linear, Conv1D)

# Names of an MLP's linear layers, by family; the first line whose names the model all has is used.
MLP_LAYERS = (
    ("gate_proj", "up_proj", "down_proj"),  # Llama, Mistral, Qwen, Gemma, StableLM, OLMo, Cohere, Granite
    ("gate_up_proj", "down_proj"),  # Phi-3, GLM
    ("mlp.c_fc", "mlp.c_proj"),  # GPT-2, GPT BigCode, StarCoder2; attention has a c_proj too
    ("dense_h_to_4h", "dense_4h_to_h"),  # Falcon, GPT-NeoX, BLOOM
    ("fc1", "fc2"),  # OPT, Phi
    ("fc_in", "fc_out"),  # GPT-J
    ("ffn.up_proj", "ffn.down_proj"),  # MPT
    ("wi_0", "wi_1", "wo"),  # T5 v1.1, mT5, FLAN-T5
    ("wi", "wo"),  # T5
    ("lin1", "lin2"),  # DistilBERT
    ("feed_forward.key", "feed_forward.value"),  # RWKV
)
# BERT, RoBERTa, DeBERTa, ELECTRA: the attention has an output.dense too, so each block's MLP is named.
BERT_MLP = re.compile(r"layer\.\d+\.(intermediate|output)\.dense$")
# Where a model has no such layer, as a mixture of experts, whose experts are one tensor and no linear layers.
ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")


def default_targets(model: nn.Module) -> list[str]:
    """Names of the MLP's linear layers, else of the attention's; experts are not adapted.

    Raises:
        ConfigError: the model has neither under a name that is known.
    """
    names = adaptable_names(model)
    for family in (*MLP_LAYERS, ATTENTION_LAYERS):
        if all(any(matches(name, target) for name in names) for target in family):
            return list(family)
    if of_blocks := sorted({found[0] for name in names if (found := BERT_MLP.search(name))}):
        return of_blocks
    raise ConfigError(
        f"{type(model).__name__}: which layers to adapt is not known for this architecture. Set target_modules; its "
        f"linear layers are named {_last_parts(names)}."
    )


def matches(name: str, target: str) -> bool:
    """Whether a module's full name ends with `target`, by PEFT's own rule for lists."""
    return name == target or name.endswith(f".{target}")


def adaptable_names(model: nn.Module) -> list[str]:
    """Full names of the layers that can be adapted, those that carry an adapter already among them."""
    tuned = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module, ADAPTABLE)
        and not is_expert(name)
        and not name.startswith(tuned)  # an adapter's own parts, and the layer that it wraps
    ]


def is_expert(name: str) -> bool:
    """Whether a module is inside a mixture of experts, where each expert gets only the tokens routed to it.

    The gates of such a layer can't be assigned to tokens, so it is not adapted.
    """
    return ".experts." in f".{name}."


def refuse_experts(model: nn.Module, targets: object) -> None:
    """Check that no name in a list of target_modules refers to the experts, which are one tensor and no layers.

    PEFT ignores a name without a layer if another name has one.

    Raises:
        ConfigError: the model is a mixture of experts, and a name has no layer in it.
    """
    if not isinstance(targets, (list, tuple, set)) or not has_experts(model):
        return
    names = [name for name, _ in model.named_modules()]
    unknown = [target for target in sorted(targets) if not any(matches(name, target) for name in names)]
    if unknown:
        raise nothing_to_adapt(model, f"target_modules={unknown!r}")


def has_experts(model: nn.Module) -> bool:
    """Whether the model is a mixture of experts."""
    return any(is_expert(name) for name, _ in model.named_parameters())


def nothing_to_adapt(model: nn.Module, targets: object) -> ConfigError:
    """The error for target_modules that match nothing."""
    experts = " Its experts are not adapted: each gets only the tokens routed to it." if has_experts(model) else ""
    return ConfigError(
        f"{type(model).__name__}: no layer to adapt with {targets}. Its linear layers are named "
        f"{_last_parts(adaptable_names(model))}; choose among them.{experts}"
    )


def _last_parts(names: list[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "(none)"
