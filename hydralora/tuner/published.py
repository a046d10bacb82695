"""Conversion of published checkpoints (github.com/Clin0212/HydraLoRA) to this tuner and back."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from hydralora.errors import ConfigError, ModelError
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, folder_written_whole
from hydralora.tuner.config import HydraLoraConfig, HydraPeftType
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import PREFIX, active_adapter, active_router, head_matrices, hydra_layers, scale_factor


def load_official(model: nn.Module, folder: str | Path) -> PeftModel:
    """Load the published-format adapter in `folder` onto `model`.

    The folder holds adapter_config.json with `lora_nums`, and adapter_model.safetensors or adapter_model.bin (read
    with weights_only, so nothing in it can run).

    Raises:
        ModelError: a file or a weight is missing, of another shape, or the folder isn't in that format, or sets
            modules_to_save.
    """
    folder = Path(folder)
    settings = _read_settings(folder)
    weights = _read_weights(folder)
    peft_model = get_peft_model(
        model,
        HydraLoraConfig(
            r=settings["r"],
            num_heads=settings["lora_nums"],
            lora_alpha=settings["lora_alpha"],
            lora_dropout=settings.get("lora_dropout", 0.0),
            target_modules=settings["target_modules"],
            router_input="hidden",
            task_type=settings.get("task_type"),
            inference_mode=True,
        ),
    )
    for name, layer in hydra_layers(peft_model).items():
        adapter = active_adapter(layer)
        _assign(layer.hydra_A[adapter].get_parameter("weight"), _take(weights, f"{name}.lora_A.weight"), name)
        for i, head in enumerate(layer.hydra_B[adapter]):  # (r, out) each
            _assign(head, _take(weights, f"{name}.lora_B{i}.weight").T, name)
        _assign(active_router(layer).get_parameter("weight"), _take(weights, f"{name}.lora_route.weight"), name)
    if weights:
        raise ModelError(f"{folder}: {len(weights)} weights fit no layer of the base model, such as {min(weights)!r}.")
    return peft_model.eval()


def save_official(model: nn.Module, folder: str | Path) -> None:
    """Save the active adapter in the published format: adapter_config.json with `lora_nums`, and the weights twice.

    The published code (a fork of PEFT 0.3) reads adapter_model.bin, `load_official` prefers the equal
    adapter_model.safetensors. What only training uses and the format lacks (head_dropout, balance_weight, how heads
    and router started) is left out. Layers that no list of endings selects are named by one regex.

    Raises:
        ConfigError: a setting that the format can't hold; no adapter, or several, active; or `folder` holds a
            HydraLoRA adapter of this tuner, which would be lost.
        ModelError: `folder` can't be written.
    """
    config, layers = active_config(model, "save_official")
    _refuse_what_has_no_place(config)
    alpha = float(config.lora_alpha)
    settings = {
        "base_model_name_or_path": config.base_model_name_or_path,
        "bias": "none",
        "enable_lora": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": config.lora_dropout,
        "lora_nums": config.num_heads,
        "merge_weights": False,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.r,
        "target_modules": _published_targets(model, config, layers),
        "task_type": config.task_type,
    }
    weights: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        a, heads = head_matrices(layer)  # (1, r, in), (N, out, r)
        weights[f"{PREFIX}{name}.lora_route.weight"] = active_router(layer).get_parameter("weight").detach()
        weights[f"{PREFIX}{name}.lora_A.weight"] = a[0]
        weights |= {f"{PREFIX}{name}.lora_B{i}.weight": head * scale_factor(layer) for i, head in enumerate(heads)}
    weights = {key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
    with written_whole(folder) as building:
        (building / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        torch.save(weights, building / "adapter_model.bin")
        save_file(weights, building / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def active_config(model: nn.Module, caller: str) -> tuple[HydraLoraConfig, dict[str, HydraLoraLayer]]:
    """The config of the one active adapter, and the layers that have it, by name.

    Raises:
        ConfigError: none, or several, are active; `caller` opens the sentence.
    """
    layers = {
        name: layer
        for name, layer in hydra_layers(model).items()
        if any(adapter in layer.adapters for adapter in layer.active_adapters)
    }
    names = sorted({active_adapter(layer) for layer in layers.values()})
    if len(names) != 1:
        raise ConfigError(
            f"{caller}: {len(names)} HydraLoRA adapters are active on the model {names}. Activate one with set_adapter."
        )
    configs: Any = model.peft_config
    return configs[names[0]], layers


@contextmanager
def written_whole(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to write an adapter into; at the end it replaces `folder` as a whole.

    Raises:
        ConfigError: `folder` holds a HydraLoRA adapter, from which the new one could not be distinguished later.
        ModelError: it can't be written.
    """
    folder = Path(folder).resolve()
    _refuse_to_replace_the_adapter(folder)
    try:
        with folder_written_whole(folder) as building:
            yield building
    except OSError as error:
        raise ModelError(f"{folder}: can't be written ({error.strerror or error}). Give another folder.") from error


def _refuse_to_replace_the_adapter(folder: Path) -> None:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(config, dict) and config.get("peft_type") == HydraPeftType.HYDRALORA.value:
        raise ConfigError(f"{folder}: a HydraLoRA adapter is there and would be lost. Give another folder.")


def _refuse_what_has_no_place(config: HydraLoraConfig) -> None:
    dense = config.top_k in (None, config.num_heads)
    for name, fits, required in (
        ("router_input", config.router_input == "hidden", "'hidden'"),
        ("router", config.router == "softmax", "'softmax'"),
        ("router_norm", not config.router_norm, "False"),
        ("router_scope", config.router_scope == "token", "'token'"),
        ("shared_A", config.shared_A, "True"),
        ("vectors", not config.vectors, "False"),
        ("router_bias", not config.router_bias, "False"),
        ("top_k", dense, "None"),
        ("modules_to_save", not config.modules_to_save, "None"),
        ("use_rslora", not config.use_rslora, "False"),
        ("rank_pattern", not config.rank_pattern, "{}"),
        ("alpha_pattern", not config.alpha_pattern, "{}"),
    ):
        if not fits:
            raise ConfigError(
                f"save_official: {name} is {getattr(config, name)!r}, which the published format can't hold: there it "
                f"is always {required}. Train with {name}={required}, or save this adapter with save_pretrained."
            )


def _published_targets(
    model: nn.Module, config: HydraLoraConfig, layers: dict[str, HydraLoraLayer]
) -> list[str] | str | None:
    """target_modules that select these layers by the published rule: names that end so, or one regex.

    That rule needs no dot before an ending, and has neither exclude_modules nor layers_to_transform.
    """
    everywhere = [name.removeprefix(PREFIX) for name, _ in model.named_modules()]
    inside = tuple(f"{name}." for name in layers)
    names = [name for name in everywhere if not name.startswith(inside)]
    targets = config.target_modules
    if isinstance(targets, str):
        if {name for name in names if re.fullmatch(targets, name)} == set(layers):
            return targets
    elif {name for name in names if name.endswith(tuple(targets or ()))} == set(layers):
        return sorted(targets or (), key=lambda target: [not name.endswith(target) for name in layers])  # model's order
    return "|".join(map(re.escape, layers))


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON ({error}). Give the folder of a published adapter.") from error
    required = ("r", "lora_nums", "lora_alpha", "target_modules")
    missing = [key for key in required if not isinstance(settings, dict) or key not in settings]
    if missing:
        raise ModelError(f"{path}: no {', '.join(missing)}. It is not an adapter of the published HydraLoRA code.")
    if settings.get("modules_to_save"):
        raise ModelError(
            f"{path}: modules_to_save is {settings['modules_to_save']!r}. Only A, heads and router are read from this "
            "format. Put those modules' weights into the base model, and remove modules_to_save from the file."
        )
    return settings


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    safe, pickled = folder / ADAPTER_WEIGHTS, folder / "adapter_model.bin"
    try:
        weights = load_file(safe) if safe.exists() else torch.load(pickled, map_location="cpu", weights_only=True)
        weights = {key.removeprefix(PREFIX): value.detach() for key, value in weights.items()}
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        path = safe if safe.exists() else pickled
        raise ModelError(f"{path}: can't be read as weights ({type(error).__name__}). Copy the file again.") from error
    if bad := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ModelError(f"{folder}: {bad[0]} holds values that are not finite (NaN or infinite). Copy the file again.")
    return weights


def _take(weights: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    if key not in weights:
        raise ModelError(f"The adapter has no {PREFIX}{key}, which its base model and config require.")
    return weights.pop(key)


def _assign(parameter: torch.Tensor, value: torch.Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise ModelError(
            f"Layer {name}: the adapter's weight is {tuple(value.shape)}, the base model expects "
            f"{tuple(parameter.shape)}. It was trained on another base model."
        )
    with torch.no_grad():
        parameter.copy_(value)
