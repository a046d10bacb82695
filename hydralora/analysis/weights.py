"""A and the heads of an adapter, from a loaded model or from its file alone: no base model is needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key

from hydralora.errors import ModelError, first_line
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hydralora.models.adapter_checks import check_adapter, read_tensors
from hydralora.models.adapters import read_adapter_config
from hydralora.models.catalogue import local_folder
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.model import PREFIX, active_adapter, head_matrices, hydra_layers


@dataclass(frozen=True)
class LayerWeights:
    """An adapted layer's matrices, float32 on the CPU; a plain LoRA's is one head.

    Attributes:
        a: (1, r, in), or (N, r, in) if each head has its own A.
        heads: (N, out, r).
        scaling: the factor of each product of both, such as lora_alpha / r.
    """

    a: torch.Tensor
    heads: torch.Tensor
    scaling: float

    def a_of(self, head: int) -> torch.Tensor:
        """The A that a head is multiplied with, (r, in)."""
        return self.a[head if len(self.a) > 1 else 0]


Weights = dict[str, LayerWeights]  # by the module's name, blocks in order


def model_weights(model: Any) -> Weights:
    """The matrices of the active HydraLoRA adapter; empty if the model has no such layer, or heads that are vectors."""
    weights = {}
    for module, layer in hydra_layers(model).items():
        if layer.adapters[active_adapter(layer)].vectors:
            continue
        a, heads = (part.float().cpu() for part in head_matrices(layer))
        weights[module] = LayerWeights(a, heads, layer.scaling[active_adapter(layer)])
    return weights


def read_weights(adapter: Path, file: str = ADAPTER_WEIGHTS, model: str | None = None) -> Weights:
    """The matrices of a saved adapter, HydraLoRA or plain LoRA.

    Args:
        adapter: a folder with its config.
        file: the file of its weights, such as a snapshot.
        model: its base model; if that is on this machine, the weights must be all those that it has on it.

    Raises:
        ModelError: it isn't there, can't be read, or has neither heads nor a LoRA.
    """
    config = read_adapter_config(adapter, file)
    here = local_folder(model) if model else None
    tensors = check_adapter(adapter, file, here) if here else read_tensors(adapter / file)
    try:
        weights = _hydra(tensors, config) if isinstance(config, HydraLoraConfig) else _lora(tensors, config)
    except Exception as error:  # of any kind: a matrix is missing or of another shape, a setting of another type
        raise ModelError(
            f"{adapter / file}: its weights are not those that {ADAPTER_CONFIG} describes ({first_line(error)}). Copy "
            "both files again."
        ) from error
    if not weights:
        raise ModelError(f"{adapter}: it has neither HydraLoRA heads nor a LoRA's matrices. Choose a run with these.")
    return {name: weights[name] for name in sorted(weights, key=_natural)}


def _hydra(tensors: Mapping[str, torch.Tensor], config: HydraLoraConfig) -> Weights:
    weights = {}
    for key, heads in tensors.items():
        if key.endswith(".hydra_B") and not config.vectors:
            module = key.removesuffix(".hydra_B")
            name = module.removeprefix(PREFIX)
            r, scaling = config.rank_and_scaling(name)
            a = tensors[f"{module}.hydra_A.weight"].float().unflatten(0, (-1, r))
            if config.cores:
                heads = tensors[f"{module}.hydra_core.weight"].float() @ heads.float()  # (N, r, out)
            weights[name] = LayerWeights(a, heads.float().transpose(1, 2), scaling)
    return weights


def _lora(tensors: Mapping[str, torch.Tensor], config: Any) -> Weights:
    weights = {}
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            b = tensors[f"{module}.lora_B.weight"].float()
            name = module.removeprefix(PREFIX)
            alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, name), config.lora_alpha)
            scaling = alpha / (len(a) ** 0.5 if config.use_rslora else len(a))
            weights[name] = LayerWeights(a.float()[None], b[None], scaling)
    return weights


def _natural(name: str) -> list[tuple[int, str]]:
    """Blocks in the order of their numbers: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"\.", name)]
