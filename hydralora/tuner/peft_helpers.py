"""PEFT's helpers that know its own LoRA only: made to work with HydraLoRA, or to say why they can't.

They look for the class or for the names of LoRA's parameters, and offer no table to register with.
"""

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from peft import PeftModel, helpers, mixed_model, optimizers
from peft.optimizers import lorafa, loraplus, riemannian
from peft.utils import hotswap
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.loraplus import loraplus_optimizer

HOT_SWAP = (
    "Hot-swapping is for LoRA: it copies matrices one by one, and knows neither heads nor routers. "
    "model.load_adapter(FOLDER, NAME) puts the weights of a saved HydraLoRA adapter of the same shape into the adapter "
    "of that name."
)
MIXED = (
    "PeftMixedModel has no place for a HydraLoRA adapter. Use get_peft_model without mixed=True; add_adapter puts "
    "several HydraLoRA adapters on one model."
)
LORA_PLUS = (  # of the function that a program imported before us
    "create_loraplus_optimizer recognises B by LoRA's names, so it would give the heads A's learning rate. Use "
    "hydralora.loraplus_optimizer, which takes the same arguments, or import hydralora first."
)
LORA_ONLY = "This optimizer is made for LoRA's A and B. Use hydralora.loraplus_optimizer, or one of torch.optim."


def extend_helpers() -> None:
    """Let PEFT's helpers ask us first about a model or a config of ours."""
    helpers.LoraLayer = (helpers.LoraLayer, HydraLoraLayer)  # type: ignore[misc, assignment]  # for isinstance
    _refuse(hotswap, "check_hotswap_configs_compatible", HOT_SWAP)
    _refuse(hotswap, "hotswap_adapter_from_state_dict", HOT_SWAP)
    _refuse(hotswap, "_convert_scalings_to_tensor", HOT_SWAP)
    _serve(loraplus, "create_loraplus_optimizer", loraplus_optimizer)
    optimizers.create_loraplus_optimizer = loraplus.create_loraplus_optimizer
    _refuse(mixed_model, "_check_config_compatible", MIXED)
    _refuse(loraplus, "get_parameter_names", LORA_PLUS)
    PeftModel._update_offload = _with_heads(PeftModel._update_offload)  # type: ignore[method-assign]
    for module, name in ((lorafa, "create_lorafa_optimizer"), (riemannian, "create_riemannian_optimizer")):
        _refuse(module, name, LORA_ONLY)
        setattr(optimizers, name, getattr(module, name))


def _refuse(module: ModuleType, name: str, reason: str) -> None:
    """Make a function of PEFT's raise a ConfigError where an argument is a model or a config of ours."""
    original = getattr(module, name)

    @wraps(original)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if any(map(_is_ours, (*args, *kwargs.values()))):
            raise ConfigError(reason)
        return original(*args, **kwargs)

    setattr(module, name, checked)


def _serve(module: ModuleType, name: str, ours: Callable[..., Any]) -> None:
    """Make a function of PEFT's call our own where its first argument is a model of ours."""
    original = getattr(module, name)

    @wraps(original)
    def served(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (ours if _is_ours(model) else original)(model, *args, **kwargs)

    setattr(module, name, served)


def _with_heads(update_offload: Callable[..., Any]) -> Callable[..., Any]:
    """PEFT's `_update_offload` puts an adapter's name before the last part of a key, where heads have it behind."""

    @wraps(update_offload)
    def updated(model: Any, offload_index: dict[str, Any], adapters_weights: dict[str, Any]) -> Any:
        result = update_offload(model, offload_index, adapters_weights)
        for key in list(offload_index or ()):
            layer, _, heads = key.rpartition(".")
            if heads == "hydra_B":
                module, _, adapter = layer.rpartition(".")
                offload_index[f"{module}.hydra_B.{adapter}"] = offload_index[key]
        return result

    return updated


def _is_ours(argument: object) -> bool:
    if isinstance(argument, nn.Module):
        return any(isinstance(module, HydraLoraLayer) for module in argument.modules())
    return isinstance(argument, HydraLoraConfig)
