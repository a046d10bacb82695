"""A recipe's adapter as PEFT's config."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
)
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD,
)
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as IA3_TARGETS,
)
from torch import nn

from hydralora.recipe.settings import Recipe
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.targets import default_targets, matches

# The methods that put virtual tokens before every row. A prompt begins as tokens of the vocabulary (Lester et al.
# 2021), since PEFT's default is far from all of them; a prefix begins at zero, which disturbs the base model least.
VIRTUAL_TOKENS: dict[str, Callable[..., PeftConfig]] = {
    "prompt-tuning": partial(PromptTuningConfig, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB),
    "p-tuning": PromptEncoderConfig,
    "prefix-tuning": partial(PrefixTuningConfig, init_weights="zero"),
}
INITIAL_RANK = 1.5  # AdaLoRA's rank at the start over the mean rank that it ends with, as in PEFT's defaults


def adapter_config(base: nn.Module, recipe: Recipe, k: int) -> PeftConfig:
    """The config of a recipe's method; `k` heads where the recipe leaves their number to the components.

    Raises:
        ConfigError: which layers to adapt is not known for this model.
        ValueError: PEFT's own; a setting doesn't fit.
    """
    tuner, method = recipe.tuner, recipe.method
    if method in VIRTUAL_TOKENS:
        return VIRTUAL_TOKENS[method](task_type="CAUSAL_LM", num_virtual_tokens=tuner.virtual_tokens)
    settings = tuner.model_dump(include=set(recipe.tuning.reads)) | {"task_type": "CAUSAL_LM"}
    if method == "ia3":
        return IA3Config(**_known_to(IA3Config, settings) | ia3_layers(base, tuner.target_modules))
    usual = scaled_outputs if method == "ia3-heads" else default_targets
    settings["target_modules"] = tuner.target_modules or usual(base)
    if method == "adalora":
        ranks = {"r": LoraConfig.r, "target_r": tuner.r, "init_r": -(-tuner.r * 3 // 2)}
        # The run's number of steps is known once it begins (`hydralora.training.adalora`).
        return AdaLoraConfig(**_known_to(AdaLoraConfig, settings) | ranks, total_step=recipe.training.max_steps or 1)
    if recipe.tuning.heads is None:
        return LoraConfig(**_known_to(LoraConfig, settings))
    settings["num_heads"] = tuner.num_heads or k
    settings["router_init"] = "components" if recipe.starts_from_components else "random"
    return HydraLoraConfig(**_known_to(HydraLoraConfig, settings) | dict(recipe.tuning.heads))


def ia3_layers(base: nn.Module, targets: list[str] | None) -> dict[str, list[str]]:
    """The layers that (IA)3 scales, and those of them whose inputs it scales: the MLP's last layer.

    Args:
        targets: None: PEFT's for this architecture, else the MLP's linear layers.
    """
    known = str(getattr(getattr(base, "config", None), "model_type", ""))
    chosen = targets or IA3_TARGETS.get(known) or default_targets(base)
    last = IA3_FEEDFORWARD.get(known) or default_targets(base)[-1:]
    scaled_inputs = [target for target in chosen if any(matches(target, name) for name in last)]
    return {"target_modules": chosen, "feedforward_modules": scaled_inputs}


def scaled_outputs(base: nn.Module) -> list[str]:
    """The layers whose outputs (IA)3 scales, with the MLP's last but one in place of the last one's inputs."""
    layers = ia3_layers(base, None)
    own = [name for name in layers["target_modules"] if name not in layers["feedforward_modules"]]
    return [*own, *default_targets(base)[-2:-1]]


def _known_to(config: type[PeftConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a config has."""
    names = {option.name for option in fields(config)}
    return {name: value for name, value in settings.items() if name in names}
